"""Reads a JSON file that came from outside, with limits. Knows nothing of what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from hexad.errors import CheckpointError

MAX_JSON_BYTES = 64 * 1024 * 1024


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a UTF-8 file. Duplicate keys, NaN and Infinity are refused.

    Raises CheckpointError naming the file.
    """
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path} has {size} bytes; at most {MAX_JSON_BYTES} are read")
        raw = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    return parse_json_object(raw, str(path))


def parse_json_object(raw: bytes, source: str) -> dict[str, Any]:
    """Like `read_json_object`; `source` names the bytes in errors."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise CheckpointError(f"{source}: the key {twice!r} appears twice in one object; keep one")
        return result

    def refuse(constant: str) -> NoReturn:
        raise CheckpointError(f"{source}: found {constant}, which is not JSON; give a number")

    def integer(digits: str) -> int:
        if digits == "-0":
            raise CheckpointError(f"{source}: found -0, which is not an integer; give 0")
        return int(digits)

    try:
        # Encoding first: json would accept UTF-16 and UTF-32 too, and lone surrogates inside escapes.
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse, parse_int=integer)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{source} is not a JSON file in UTF-8: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{source} holds a {type(value).__name__}; it must be a JSON object")
    return value
