"""Every failure in the one shape that OpenAI's clients read.

    {"error": {"message": ..., "type": ..., "param": ..., "code": ...}}

This module knows no endpoint: it turns exceptions into that shape and into sentences.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from hexad.errors import BadRequest, HexadError, UnknownOption


class RequestTooLarge(BadRequest):
    status = 413
    code = "request_too_large"


class UnsupportedBody(BadRequest):
    status = 415
    code = "unsupported_media_type"


_HEADERS: Mapping[int, dict[str, str]] = {
    401: {"WWW-Authenticate": "Bearer"},
    413: {"Connection": "close"},
    429: {"Retry-After": "1"},
    # The same request would fail again: the official clients would try it twice more.
    500: {"x-should-retry": "false"},
    503: {"Retry-After": "1", "Connection": "close"},
    504: {"x-should-retry": "false"},
}


def error_body(exc: HexadError) -> dict[str, Any]:
    """The JSON object for one error."""
    kind = "server_error" if exc.status >= 500 else "rate_limit_error" if exc.status == 429 else "invalid_request_error"
    return {"error": {"message": str(exc), "type": kind, "param": exc.param, "code": exc.code}}


def told(exc: HexadError) -> str:
    """With the name of what is wrong, for dialects that have no field for it."""
    return str(exc) if exc.param is None or exc.param in str(exc) else f"{exc.param}: {exc}"


def error_response(exc: HexadError, body: dict[str, Any] | None = None) -> Response:
    """`body`: the error as another dialect says it."""
    return Response(
        msgspec.json.encode(body or error_body(exc)),
        exc.status,
        headers=_HEADERS.get(exc.status),
        media_type="application/json",
    )


async def on_http_error(request: Request, exc: Exception) -> Response:
    """What the router itself refuses: an unknown path, a method that a path does not have."""
    assert isinstance(exc, HTTPException)
    path = request.scope["path"][:100]
    near = difflib.get_close_matches(path, [route.path for route in request.app.routes], n=1, cutoff=0.75)
    hint = f"did you mean {near[0]}? " if near else ""
    error = HexadError(f"there is no {path} here; {hint}/docs lists what there is", code="not_found")
    if exc.status_code == 405:
        allowed = (exc.headers or {}).get("Allow", "another method")
        error = HexadError(f"{path} does not take {request.method}; use {allowed}", code="method_not_allowed")
    error.status = exc.status_code
    request.state.record.error = error.code
    response = error_response(error, request.state.dialect.error(error))
    response.headers.update(exc.headers or {})
    return response


@contextlib.contextmanager
def naming(names: Mapping[str, str]) -> Iterator[None]:
    """What is refused inside is refused by its name in the dialect."""
    try:
        yield
    except BadRequest as error:
        if own := names.get(error.param or ""):
            error.args = (re.sub(rf"\b{error.param}\b", own, str(error)),)
            error.param = own
        raise


def validation_error(error: ValidationError, model: type[BaseModel], body: Any) -> BadRequest:
    """One plain sentence about the most specific thing that is wrong in `body`."""
    problems = [(_path(problem, body), problem) for problem in error.errors(include_url=False)]
    path, first = max(problems, key=lambda found: (len(found[0]), found[1]["type"] == "union_tag_invalid"))
    param = ".".join(map(str, path)) or None
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(path[-1]), model.model_fields, n=1, cutoff=0.7) if len(path) == 1 else []
        parent = reduce(lambda inner, part: inner[part], path[:-1], body)
        kind = parent.get("type") if isinstance(parent, dict) else None
        where = f" of a {kind[:60]}" if isinstance(kind, str) else ""
        hint = f"did you mean {near[0]}?" if near else "remove it"
        return UnknownOption(f"unknown parameter {param}{where}; {hint}", param=param)
    if first["type"] == "missing":
        return BadRequest(f"{param} is missing", param=param, code="missing_required_parameter")
    if first["type"] == "none_required":
        return BadRequest(f"{param} is not supported; leave it out", param=param, code="unsupported_parameter")
    if first["type"] == "union_tag_invalid":
        found, known = first["ctx"]["tag"][:60], first["ctx"]["expected_tags"]
        return BadRequest(f"{param} is of type {found!r}; this server knows {known}", param=param)
    if first["type"] == "refused":
        return BadRequest(first["msg"], param=first["ctx"]["param"])
    wanted = [_wanted(each) for where, each in problems if where == path and each["type"] != "extra_forbidden"]
    allowed = " or ".join(dict.fromkeys(wanted))
    return BadRequest(f"{param or 'the body'} must be {allowed}; found {_shown(first['input'])}", param=param)


def _wanted(problem: Any) -> str:
    """In our words where pydantic's are about Python."""
    limit = (problem.get("ctx") or {}).get("max_length")
    words = {
        "model_type": "an object",
        "model_attributes_type": "an object",
        "dict_type": "an object",
        "union_tag_not_found": "an object with a type",
        "too_short": "a list that is not empty",
        "too_long": f"of at most {limit} items",
        "string_too_long": f"a string of at most {limit} characters",
    }
    return words.get(problem["type"]) or str(problem["msg"]).removeprefix("Input should be ").replace("False", "false")


def _path(problem: Any, body: Any) -> tuple[str | int, ...]:
    """The part of pydantic's location that exists in the body; the rest names branches of unions."""
    is_missing = problem["type"] == "missing"
    found: list[tuple[tuple[str | int, ...], Any]] = [((), body)]
    for part in problem["loc"][:-1] if is_missing else problem["loc"]:
        found = [step for path, inner in found for step in _steps(path, inner, part)]
    path = next((path for path, inner in found if inner is problem["input"]), found[0][0])
    return (*path, problem["loc"][-1]) if is_missing else path


def _steps(path: tuple[str | int, ...], inner: Any, part: str | int) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """A branch that is named by its type may have a field of that name, too."""
    is_dict = isinstance(inner, dict)
    is_there = part in (inner if is_dict else range(len(inner)) if isinstance(inner, list) else ())
    if not is_there or (is_dict and inner.get("type") == part):
        yield path, inner
    if is_there:
        yield (*path, part), inner[part]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
