"""The page at `/`: a chat and a view of the engine, served as the files they are.

The page talks to this server's public endpoints like any other client. This module knows files
and headers; it knows no endpoint and no model.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hexad.errors import NotFound

OLLAMA_PROBE = "Ollama is running"
"""What Ollama's clients look for at `/`; whoever asks for HTML gets the page."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing from elsewhere, nothing inline, and no string that becomes HTML: a model's answer stays text."""

_FOLDER = Path(__file__).parent / "web"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def web_routes() -> list[Route]:
    """`/` and `/web/{version}/{file}`. The version is a hash of all files, so they may be kept for ever."""
    files = {path.name: path.read_bytes() for path in sorted(_FOLDER.iterdir()) if path.suffix in _TYPES}
    version = hashlib.sha256(repr(files).encode()).hexdigest()[:16]
    page = files.pop("index.html").replace(b"/web/", f"/web/{version}/".encode())

    async def root(request: Request) -> Response:
        if request.method == "HEAD" or "text/html" not in request.headers.get("accept", ""):
            return Response(OLLAMA_PROBE, media_type="text/plain", headers={"Vary": "Accept"})
        headers = {"Cache-Control": "no-cache", "Vary": "Accept", "Content-Security-Policy": POLICY}
        return _file(request, page, "text/html", version, headers)

    async def file(request: Request) -> Response:
        name = request.path_params["file"]
        if request.path_params["version"] != version or name not in files:
            raise NotFound(f"{request.scope['path'][:100]} is no file of this version's page; reload the page")
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return _file(request, files[name], _TYPES[Path(name).suffix], version, headers)

    return [Route("/", root), Route("/web/{version}/{file}", file)]


def _file(request: Request, content: bytes, media_type: str, version: str, headers: dict[str, str]) -> Response:
    headers |= {"ETag": f'"{version}"', "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
    if f'"{version}"' in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
