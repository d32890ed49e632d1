"""The page at `/` and the API's at `/docs`, as the files they are made of: clients of the public endpoints.

This module knows files and headers; it knows no endpoint and no model.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from hexad.errors import NotFound
from hexad.server.dialect import OPENAI, Route
from hexad.server.models import Models

OLLAMA_PROBE = "Ollama is running"
"""What Ollama's clients look for at `/`; whoever asks for HTML gets the page."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing from elsewhere, nothing inline, and no string that becomes HTML: a model's answer stays text."""

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_PATHS = sorted(Path(__file__).with_name("web").iterdir())
_FILES = {path.name: path.read_bytes() for path in _PATHS if path.suffix in _TYPES}
_VERSION = hashlib.sha256(repr(_FILES).encode()).hexdigest()[:16]
"""Of all files: each has it in its address, so that browsers may keep it for ever."""
_PAGE, _DOCS = (
    _FILES.pop(name).replace(b"/web/", f"/web/{_VERSION}/".encode()) for name in ("index.html", "docs.html")
)


async def page(models: Models, request: Request) -> Response:
    if request.method == "HEAD" or "text/html" not in request.headers.get("accept", ""):
        return Response(OLLAMA_PROBE, media_type="text/plain", headers={"Vary": "Accept"})
    return _sent_page(request, _PAGE, {"Vary": "Accept"})


async def docs(models: Models, request: Request) -> Response:
    return _sent_page(request, _DOCS, {})


async def file(models: Models, request: Request) -> Response:
    name = request.path_params["file"]
    if request.path_params["version"] != _VERSION or name not in _FILES:
        raise NotFound(f"{request.scope['path'][:100]} is no file of this version's page; reload the page")
    return _sent(request, _FILES[name], _TYPES[Path(name).suffix], {"Cache-Control": "max-age=31536000, immutable"})


def _sent_page(request: Request, content: bytes, headers: dict[str, str]) -> Response:
    return _sent(
        request, content, "text/html", headers | {"Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
    )


def _sent(request: Request, content: bytes, media_type: str, headers: dict[str, str]) -> Response:
    headers |= {"ETag": f'"{_VERSION}"', "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


# Who has no key yet must see the page to type one in; what the page then asks for needs it.
ROUTES = (
    Route("GET", "/", page, OPENAI, access="open", media_type="text/plain"),
    Route("HEAD", "/", page, OPENAI, access="open", media_type="text/plain"),
    Route("GET", "/docs", docs, OPENAI, access="open", media_type="text/html"),
    Route("GET", "/web/{version}/{file}", file, OPENAI, access="open", media_type="*/*"),
)
