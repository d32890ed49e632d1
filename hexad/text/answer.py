"""A structured answer as an expression of llguidance's Lark, to stand among other parts of a reply's grammar.

This module knows no replies, and does not compile what it writes.
"""

from __future__ import annotations

import json
import re
from typing import Any

from hexad.errors import BadRequest
from hexad.text.json_schema import prepare_schema
from hexad.types import StructuredOutputs

PARAM = "structured_outputs"


def answer_expression(wanted: StructuredOutputs) -> str:
    """Raises BadRequest for what cannot be a part of a larger grammar."""
    if wanted.json_object:
        return _json({"type": "object"})
    if wanted.json is not None:
        return _json(prepare_schema(_parsed(wanted.json)))
    if wanted.regex is not None:
        return "/" + re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\/", wanted.regex).replace("\n", r"\n") + "/"
    if wanted.choice is not None:
        return f"({' | '.join(json.dumps(each, ensure_ascii=False) for each in wanted.choice)})"
    if wanted.grammar is not None and re.search(r"^\s*start\s*:", wanted.grammar, re.MULTILINE):
        return f"%lark {{\n{wanted.grammar}\n}}"
    kind = "grammar in GBNF" if wanted.grammar is not None else "structural_tag"
    raise BadRequest(
        f"{kind} cannot stand behind reasoning or beside tools; turn reasoning off and leave tools out", param=PARAM
    )


def _parsed(schema: Any) -> Any:
    try:
        return json.loads(schema) if isinstance(schema, str) else schema
    except ValueError as error:
        raise BadRequest(f"the JSON schema is not JSON: {error}", param=PARAM) from None


def _json(schema: Any) -> str:
    if isinstance(schema, dict):
        schema = schema | {"x-guidance": {"whitespace_flexible": False}}
    return "%json " + json.dumps(schema)
