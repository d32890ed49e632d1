"""What OpenAI's dialect says about the shape of an answer, and the names that vLLM's users know, as one struct."""

from __future__ import annotations

from typing import Any

import msgspec

from hexad.errors import BadRequest, UnknownOption
from hexad.server.openai_types import ChatRequest, Generation
from hexad.types import StructuredOutputs

_GUIDED = ("json", "regex", "choice", "grammar")


def structured(body: Generation) -> tuple[StructuredOutputs | None, str]:
    """What the answer must look like, and the parameter that says so.

    Raises BadRequest when two parameters say it, or one says it wrongly.
    """
    asked: dict[str, dict[str, Any]] = {}
    for name in _GUIDED:
        if (value := getattr(body, f"guided_{name}")) is not None:
            asked[f"guided_{name}"] = {name: value}
    if body.structural_tag is not None:
        asked["structural_tag"] = {"structural_tag": body.structural_tag}
    if body.structured_outputs is not None:
        asked["structured_outputs"] = body.structured_outputs
    if isinstance(body, ChatRequest) and (form := response_format(body.response_format)) is not None:
        asked["response_format"] = form
    if len(asked) > 1:
        names = " and ".join(asked)
        raise BadRequest(f"{names} all say what the answer looks like; give one of them", param=list(asked)[-1])
    for name, fields in asked.items():
        return _struct(name, fields), name
    return None, "structured_outputs"


def response_format(form: Any) -> dict[str, Any] | None:
    """The field of StructuredOutputs that a chat's or a response's stands for; a schema is held to, strict or not."""
    if form is None or form.type == "text":
        return None
    schema = getattr(getattr(form, "json_schema", form), "schema_", None)
    return {"json_object": True} if schema is None else {"json": schema}


def _struct(name: str, fields: dict[str, Any]) -> StructuredOutputs:
    known = StructuredOutputs.__struct_fields__
    if unknown := next((key for key in fields if key not in known), None):
        param = f"{name}.{unknown}"
        raise UnknownOption(f"unknown parameter {param}; there are {', '.join(known)}", param=param)
    given = {key: value for key, value in fields.items() if value is not None}
    try:
        return msgspec.convert(given, StructuredOutputs)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{name}: {error}", param=name) from None
