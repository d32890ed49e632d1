"""OpenAI's own description of its API: what a server answers, and which parameters there are."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

_FILE = json.loads((Path(__file__).resolve().parents[1] / "data" / "openai_schemas.json").read_text())
PARAMETERS: dict[str, frozenset[str]] = {name: frozenset(found) for name, found in _FILE["parameters"].items()}


@cache
def _validator(name: str) -> jsonschema_rs.Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": _FILE["schemas"]}}
    return jsonschema_rs.Draft202012Validator(schema)


def check(name: str, value: Any) -> None:
    """Raise AssertionError where `value` is not what OpenAI says its schema `name` is."""
    errors = [
        f"{'.'.join(map(str, error.instance_path))}: {error.message}" for error in _validator(name).iter_errors(value)
    ]
    assert not errors, f"{name}: " + "; ".join(errors)[:2000]
