"""`hexad batch IN OUT [MODEL ...]`: OpenAI's batch files, answered by the server's endpoints without a socket.

Lines are written as requests finish, each at once, so that a run which was killed goes on: what OUT holds already is
not asked again. Format: OpenAI's Batch API guide (request input object, request output object).
"""

from __future__ import annotations

import argparse
import asyncio
import codecs
import errno
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec
import uvloop
from starlette.types import ASGIApp, Message

from hexad.cli.report import loading_bar
from hexad.cli.serve import served_by
from hexad.config import Config
from hexad.errors import BadRequest, ConfigError, EngineUnavailable
from hexad.server.app import build_app
from hexad.server.auth import Keys
from hexad.server.models import Models, Served
from hexad.server.traffic import Traffic
from hexad.server.wire import parse_json

URLS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
FIELDS = {"custom_id", "method", "url", "body"}
NOT_NOW = (429, 503)
"""Statuses that say nothing about the request."""


def run(args: argparse.Namespace) -> int:
    served = served_by(args)
    with open(args.input, "rb") as source, open(args.output, "a+b", buffering=0) as out:
        places = _places(source, args.input)
        try:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"another batch writes {args.output}; wait for it, or give another file") from None
        ids, failed = _there(out, args.output)
        if strange := next(iter(ids - places.keys()), None):
            raise BadRequest(f"{args.output} answers {strange!r}, which {args.input} does not ask; give another file")
        todo = [place for custom_id, place in places.items() if custom_id not in ids]
        batch = _Batch(source, out, todo, failed)
        if todo:
            uvloop.run(batch.run(served))
    already = f", {len(ids)} of them from before" if ids else ""
    print(f"{len(places)} answers in {args.output}{already}; {batch.failed} failed", file=sys.stderr)
    return 1 if batch.failed else 0


def _places(source: BinaryIO, name: str) -> dict[str, int]:
    """Where in the file each request begins, by its custom_id. Raises BadRequest with the line's number."""
    places: dict[str, int] = {}
    place = 0
    for number, line in enumerate(source, 1):
        if line.strip():
            try:
                custom_id, _, _ = _request(line)
                if custom_id in places:
                    raise BadRequest(f"custom_id {custom_id!r} is that of an earlier line; give each its own")
            except BadRequest as error:
                raise BadRequest(f"{name}, line {number}: {error}") from None
            places[custom_id] = place
        place += len(line)
    return places


def _request(line: bytes) -> tuple[str, str, dict[str, Any]]:
    """custom_id, url and body. Raises BadRequest."""
    value = parse_json(line.removeprefix(codecs.BOM_UTF8))  # Windows puts one before the first line
    if not isinstance(value, dict) or set(value) != FIELDS:
        found = ", ".join(value)[:100] if isinstance(value, dict) else type(value).__name__
        raise BadRequest(f"a request has custom_id, method, url and body; found {found}")
    custom_id, method, url, body = (value[name] for name in ("custom_id", "method", "url", "body"))
    if not (isinstance(custom_id, str) and custom_id and isinstance(body, dict)):
        raise BadRequest("custom_id must be a string that is not empty, and body an object")
    if method != "POST" or url not in URLS:
        raise BadRequest(f"{method} {url} cannot be asked; method is POST, and url one of {', '.join(URLS)}")
    if body.get("stream"):
        raise BadRequest("stream is for a reader who waits; leave it out")
    return custom_id, url, body


def _there(out: BinaryIO, name: str) -> tuple[set[str], int]:
    """Whom OUT answers, and how many of the answers are failures. Raises BadRequest for what is no answer.

    A last line that was torn by a kill is cut off.
    """
    ids, failed, end = set(), 0, 0
    out.seek(0)
    for number, line in enumerate(out, 1):
        if not line.endswith(b"\n"):
            break
        try:
            answer = json.loads(line)
            ids.add(answer["custom_id"])
            failed += answer["response"]["status_code"] != 200
        except (ValueError, KeyError, TypeError):
            raise BadRequest(f"{name}, line {number} is no answer of a batch; give another file") from None
        end += len(line)
    out.truncate(end)
    return ids, failed


class _Batch:
    def __init__(self, source: BinaryIO, out: BinaryIO, todo: list[int], failed: int) -> None:
        self.source = source
        self.out = out
        self.todo = todo
        self.done = 0
        self.failed = failed

    async def run(self, served: list[Served]) -> None:
        """Raises EngineUnavailable when no engine can be had any more; what is done is written."""
        models = Models(served)
        try:
            with loading_bar(f"loading {served[0].config.model}") as progress:
                await models.load(None, progress)
            # A door of our own: nobody knocks from outside, so no keys and no hosts.
            app = build_app(models, Config(), Keys({}), Traffic())
            config = served[0].config
            at_once = config.max_num_seqs + min(config.max_num_seqs, config.max_queue)
            with loading_bar(lambda: f"{self.done} of {len(self.todo)} requests, {self.failed} failed") as draw:
                places = iter(self.todo)
                workers = [asyncio.ensure_future(self._work(app, places, draw)) for _ in range(at_once)]
                try:
                    await asyncio.gather(*workers)
                finally:
                    for worker in workers:
                        worker.cancel()
                    await asyncio.gather(*workers, return_exceptions=True)
        finally:
            await models.close()

    async def _work(self, app: ASGIApp, places: Iterator[int], draw: Any) -> None:
        for place in places:
            self.source.seek(place)
            custom_id, url, body = _request(self.source.readline())
            status, request_id, answer = await _ask(app, url, msgspec.json.encode(body))
            if status in NOT_NOW:
                message = json.loads(answer)["error"]["message"]
                raise EngineUnavailable(f"{message}; the same command goes on from here")
            response = {"status_code": status, "request_id": request_id, "body": msgspec.Raw(answer)}
            line = {"id": f"batch_req_{request_id}", "custom_id": custom_id, "response": response, "error": None}
            written = msgspec.json.encode(line) + b"\n"
            if self.out.write(written) < len(written):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.out.name)
            self.done += 1
            self.failed += status != 200
            draw(self.done / len(self.todo))


async def _ask(app: ASGIApp, path: str, body: bytes) -> tuple[int, str, bytes]:
    """Status, request id and body of the answer to a POST, by ASGI."""
    request: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    status, headers, parts = 0, dict[bytes, bytes](), list[bytes]()

    async def receive() -> Message:
        if not request:
            await asyncio.Event().wait()  # nobody goes away
        return request.pop()

    async def send(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], dict(message["headers"])
        else:
            parts.append(message.get("body", b""))

    sent = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope: dict[str, Any] = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http"}
    scope |= {"method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": sent}
    await app(scope | {"root_path": "", "server": None, "client": None}, receive, send)
    return status, headers[b"x-request-id"].decode(), b"".join(parts)
