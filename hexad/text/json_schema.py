"""JSON schemas (draft 2020-12) before they become a grammar."""

from __future__ import annotations

from typing import Any


def prepare_schema(schema: Any) -> Any:
    return schema
