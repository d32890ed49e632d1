"""Checked access to the keys of a configuration file. Knows nothing of what they mean."""

from __future__ import annotations

from typing import Any

from hexad.errors import CheckpointError


class Fields:
    """A JSON object, and the file it is from, for errors.

    A key whose value is null counts as absent, as in transformers; `is_null` tells them apart.
    Every method raises CheckpointError naming file, key, what was found and what is allowed.
    """

    def __init__(self, values: dict[str, Any], source: str) -> None:
        self._values = values
        self._source = source

    def error(self, key: str, found: object, allowed: str) -> CheckpointError:
        shown = found if isinstance(found, str) else repr(found)
        return CheckpointError(f"{self._source}: {key} is {shown[:200]}; allowed: {allowed}", param=key)

    def is_absent(self, key: str) -> bool:
        return self._values.get(key) is None

    def is_null(self, key: str) -> bool:
        return key in self._values and self._values[key] is None

    def raw(self, key: str, default: Any = None) -> Any:
        return default if self.is_absent(key) else self._values[key]

    def section(self, key: str) -> Fields:
        """The object under `key`, empty if absent."""
        value = self.raw(key, {})
        if not isinstance(value, dict):
            raise self.error(key, value, "an object")
        return Fields(value, f"{self._source}: {key}")

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = self.raw(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(key, "missing" if value is None else value, f"an integer from {low} to {high}")
        return value

    def optional_integer(self, key: str, low: int, high: int) -> int | None:
        return None if self.is_absent(key) else self.integer(key, low, high)

    def number(self, key: str, above: float, high: float, default: float | None = None) -> float:
        """In (above, high]."""
        value = self.raw(key, default)
        if not _is_number(value) or not above < value <= high:
            raise self.error(key, "missing" if value is None else value, f"a number above {above}, up to {high}")
        return float(value)

    def optional_number(self, key: str, above: float, high: float) -> float | None:
        return None if self.is_absent(key) else self.number(key, above, high)

    def bounded(self, key: str, low: float, high: float) -> float | None:
        """In [low, high], None if absent."""
        value = self.raw(key)
        if value is not None and (not _is_number(value) or not low <= value <= high):
            raise self.error(key, value, f"a number from {low} to {high}")
        return None if value is None else float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.raw(key, default)
        if not isinstance(value, bool):
            raise self.error(key, value, "true or false")
        return value

    def choice(self, key: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        value = self.raw(key, default)
        if value not in allowed:
            raise self.error(key, "missing" if value is None else value, ", ".join(allowed))
        return str(value)

    def strings(self, key: str, allowed: tuple[str, ...]) -> list[str]:
        value = self.raw(key)
        if not isinstance(value, list):
            raise self.error(key, value, "a list of strings")
        for item in value:
            if item not in allowed:
                raise self.error(key, item, ", ".join(allowed))
        return list(value)

    def token_ids(self, key: str) -> list[int]:
        """A token id or a list of them; empty if absent."""
        value = self.raw(key, [])
        ids = value if isinstance(value, list) else [value]
        for item in ids:
            if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < 2**31:
                raise self.error(key, item, "a token id, or a list of them")
        return ids


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
