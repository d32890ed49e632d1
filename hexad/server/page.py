"""What the OpenAPI document says beside what FastAPI can see: bodies are read by our own strict reader."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter

from hexad.errors import HexadError
from hexad.server.dialect import Route

_COMPONENTS = "#/components/schemas/{model}"


def describe(page: dict[str, Any], routes: Iterable[Route]) -> None:
    """Add bodies, parameters of paths, media types and failures, in place."""
    shared = page.setdefault("components", {}).setdefault("schemas", {})
    for route in routes:
        names = re.findall(r"{(\w+)(?::path)?}", route.path)
        operation = page["paths"][route.path.replace(":path}", "}")][route.method.lower()]
        kinds = {route.media_type: {"schema": {"type": "object"} if "json" in route.media_type else {}}}
        if route.body is not None:
            schema = TypeAdapter(route.body).json_schema(ref_template=_COMPONENTS)
            shared |= schema.pop("$defs", {})
            needed = route.access != "admin" or "required" in schema
            operation["requestBody"] = {"required": needed, "content": {"application/json": {"schema": schema}}}
            if "stream" in schema.get("properties", ()):
                kinds[route.dialect.media_type.decode().partition(";")[0]] = {"schema": {"type": "string"}}
        if names:
            operation["parameters"] = [_in_path(name) for name in names]
        failure = {"application/json": {"schema": _like(route.dialect.error(HexadError("")))}}
        operation["responses"] = {
            "200": {"description": "Done.", "content": kinds},
            "4XX": {"description": "Refused; the message says why.", "content": failure},
            "5XX": {"description": "Failed, or not now; the message says why.", "content": failure},
        }


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _like(example: Any) -> dict[str, Any]:
    """The schema of objects with the keys of `example`."""
    if not isinstance(example, dict):
        return {"type": "integer" if isinstance(example, int) else ["string", "null"]}
    properties = {name: _like(value) for name, value in example.items()}
    return {"type": "object", "properties": properties, "required": list(properties)}
