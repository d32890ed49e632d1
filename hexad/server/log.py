"""The log: one line a request at its end, and whatever else there is to say, as text or as JSON.

Nothing from outside gets into a line as it is: control characters are escaped, so that no client can forge a
line or paint a terminal. Prompts, answers and keys are never logged. This module knows no HTTP and no engine.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from hexad.errors import HexadError

MAX_QUEUED = 10_000
LONGEST = 300
"""Characters of one value; the rest is cut, and `...` says so."""

_ACCESS = logging.getLogger("hexad.access")
# C0, DEL, C1; line and paragraph separators; what turns the direction of a line; halves of pairs.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_PLAIN = re.compile(r'[^\s"=]*')


@dataclass(slots=True)
class Record:
    """What is known of a request when it has ended."""

    method: str
    path: str
    request_id: str
    status: int = 0
    """0: the client went away before it was answered."""
    client: str = ""
    model: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    queue_s: float | None = None
    ttft_s: float | None = None
    duration_s: float = 0.0
    finish_reasons: list[str] = field(default_factory=list)
    error: str | None = None
    """The error's code, also of a stream that had begun."""
    route: str = ""
    """The path as the route table has it; empty where there is none."""
    parent: dict[str, str] = field(default_factory=dict)
    """The client's W3C trace context."""
    started: float = field(default_factory=time.monotonic)

    def failed(self, error: Exception) -> HexadError:
        """What its caller is told of `error`. A defect of ours is logged."""
        if not isinstance(error, HexadError):
            logging.getLogger("hexad.server").exception("request %s failed", self.request_id)
            error = HexadError(f"internal error in request {self.request_id}; see the server's log")
        self.error = error.code
        return error

    def write(self) -> None:
        fields = {name: value for name in self.__slots__ if (value := getattr(self, name)) or name == "status"}
        for name in ("route", "parent", "started"):
            fields.pop(name, None)
        write_access("request", self.status, fields)


def write_access(what: str, status: int, fields: dict[str, Any]) -> None:
    _ACCESS.log(logging.WARNING if status >= 500 else logging.INFO, what, extra={"fields": fields})


def _clean(value: Any) -> Any:
    """Texts in one line without control characters, bounded; numbers as they are useful."""
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if not isinstance(value, str):
        return round(value, 4) if isinstance(value, float) else value
    escaped = _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", value)
    return escaped if len(escaped) <= LONGEST else escaped[:LONGEST] + "..."


def _pair(name: str, value: Any) -> str:
    text = ",".join(value) if isinstance(value, list) else str(value)
    return f"{name}={text if _PLAIN.fullmatch(text) else msgspec.json.encode(text).decode()}"


class _Lines(logging.Formatter):
    def __init__(self, json: bool) -> None:
        super().__init__()
        self._json = json

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        level, message = record.levelname.lower(), _clean(record.getMessage())
        fields = {name: _clean(value) for name, value in getattr(record, "fields", {}).items()}
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        if self._json:
            if trace:
                fields["exception"] = trace.encode("utf-8", "backslashreplace").decode()
            return msgspec.json.encode({"time": when, "level": level, "message": message, **fields}).decode()
        # An exception may quote what a client sent: indented, no line of it looks like one of ours.
        quoted = ["\n    | " + _CONTROL.sub("?", line) for line in trace.splitlines()]
        return f"{when} {level:7} {' '.join([message, *map(_pair, fields, fields.values())])}{''.join(quoted)}"


class _Queued(logging.Handler):
    """Lines go to stderr from a thread: whoever reads them may stall, and must not stall the server.

    When MAX_QUEUED of them wait, more are dropped, and how many is said.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.Queue[str] = queue.Queue(MAX_QUEUED)
        self._dropped = 0
        threading.Thread(target=self._write, daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            if dropped := self._dropped:
                self._dropped = 0
                note = logging.LogRecord("hexad", logging.WARNING, "", 0, "%d lines were dropped", (dropped,), None)
                line += "\n" + self.format(note)
            # Not through sys.stderr's buffer, whose lock a stalled thread would hold when the process ends.
            os.write(sys.stderr.fileno(), f"{line}\n".encode("utf-8", "replace"))
            self._lines.task_done()

    def flush(self) -> None:
        """At the end of the process, too; for at most a second."""
        deadline = time.monotonic() + 1
        while self._lines.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.005)


def write_logs(format: Literal["text", "json"]) -> None:
    """Send all logs to stderr as `format` says."""
    handler = _Queued()
    handler.setFormatter(_Lines(format == "json"))
    logging.getLogger().handlers = [handler]  # of libraries, too: what they say may quote a client
    logging.getLogger("hexad").setLevel(logging.INFO)
