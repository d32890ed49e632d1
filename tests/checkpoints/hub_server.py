"""The part of Hugging Face's HTTP interface that a download uses, over a directory of repositories."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def handler_over(root: Path, requests: list[str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path).strip("/")
            requests.append(f"{self.command} {path}")
            if path.startswith("api/models/"):
                self._answer_api(path.split("/")[2:])
            else:
                self._answer_file(path)

        def _answer_api(self, parts: list[str]) -> None:
            repository = "/".join(parts[:2])
            if repository == "org/gated":
                self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
            elif not (root / repository).is_dir():
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif len(parts) > 3 and parts[3] not in ("main", COMMIT):
                self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            elif len(parts) > 2 and parts[2] == "tree":
                entries = [
                    {"type": "file", "path": name, "size": size, "oid": COMMIT}
                    for name, size in self._files(repository)
                ]
                self._send(200, json.dumps(entries).encode())
            else:
                siblings = [{"rfilename": name, "size": size} for name, size in self._files(repository)]
                info = {"id": repository, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
                self._send(200, json.dumps(info).encode())

        def _files(self, repository: str) -> list[tuple[str, int]]:
            files = (path for path in sorted((root / repository).rglob("*")) if path.is_file())
            return [(str(path.relative_to(root / repository)), path.stat().st_size) for path in files]

        def _answer_file(self, path: str) -> None:
            repository, _, rest = path.partition("/resolve/")
            file = root / repository / rest.partition("/")[2]
            if not file.is_file():
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            content = file.read_bytes()
            etag = hashlib.sha1(content).hexdigest()
            self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@contextmanager
def serve(root: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a running server, and the requests it has had."""
    requests: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_over(root, requests))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
