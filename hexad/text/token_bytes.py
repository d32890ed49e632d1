"""The bytes of a single token, by the rules of the decoders that tokenizer.json names.

Both kinds of decoder in use among decoder models are concatenations of bytes: `ByteLevel`
(GPT-2's table of printable stand-ins for bytes) and sequences of `Replace`, `ByteFallback`,
`Fuse` and `Strip` (SentencePiece). Rules: huggingface/tokenizers, `src/decoders/`. This
module does not know vocabularies.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from hexad.errors import CheckpointError


def _byte_level_table() -> dict[str, int]:
    """GPT-2's `bytes_to_unicode`, inverted."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(byte): byte for byte in printable}
    others = sorted(set(range(256)) - set(printable))
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}


BYTE_LEVEL = _byte_level_table()
"""The printable stand-in of each byte."""
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class ByteRules(msgspec.Struct, frozen=True):
    """How a token's content becomes bytes. Text is the concatenation, decoded as UTF-8."""

    byte_level: bool = False
    replacements: tuple[tuple[str, str], ...] = ()
    byte_fallback: bool = False
    leading_spaces: int = 0
    """So many spaces are dropped from the start of the whole text."""

    def to_bytes(self, content: str) -> bytes:
        if self.byte_level:
            if all(char in BYTE_LEVEL for char in content):
                return bytes(BYTE_LEVEL[char] for char in content)
            return content.encode()
        for old, new in self.replacements:
            content = content.replace(old, new)
        match = _BYTE_TOKEN.fullmatch(content) if self.byte_fallback else None
        return bytes([int(match[1], 16)]) if match else content.encode()


def read_byte_rules(decoder: dict[str, Any] | None, source: str) -> ByteRules:
    """From the `decoder` of a tokenizer.json. Raises CheckpointError naming a kind that is not known."""
    steps = [] if decoder is None else decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    kinds = [str(step["type"]) for step in steps]
    if kinds == ["ByteLevel"]:
        return ByteRules(byte_level=True)
    replacements: list[tuple[str, str]] = []
    leading_spaces = 0
    for position, (kind, step) in enumerate(zip(kinds, steps, strict=True)):
        before_fuse = "Fuse" not in kinds[:position]
        if kind == "Replace" and "String" in step["pattern"] and before_fuse:
            replacements.append((step["pattern"]["String"], step["content"]))
        elif kind == "Strip" and step["content"] == " " and step["stop"] == 0 and not before_fuse:
            leading_spaces += step["start"]
        elif kind not in ("ByteFallback", "Fuse"):
            break
    else:
        if kinds:
            return ByteRules(
                replacements=tuple(replacements), byte_fallback="ByteFallback" in kinds, leading_spaces=leading_spaces
            )
    raise CheckpointError(
        f"{source}: its decoder is {' + '.join(kinds) or 'missing'}; Hexad reads ByteLevel, or Replace (of a string), "
        "ByteFallback, Fuse and Strip (of leading spaces, after Fuse)"
    )
