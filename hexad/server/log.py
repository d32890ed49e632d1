"""The log: one line a request at its end, and whatever else there is to say, as text or as JSON.

Nothing from outside gets into a line as it is: control characters are escaped, so that no client can forge a
line or paint a terminal. Prompts, answers and keys are never logged. This module knows no HTTP and no engine.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

ACCESS = logging.getLogger("hexad.access")
LONGEST = 300
"""Characters of one value; the rest is cut, and `...` says so."""

_SHOWN = (
    *("method", "path", "status", "client", "request_id", "model", "prompt_tokens", "cached_tokens"),
    *("completion_tokens", "queue_s", "ttft_s", "duration_s", "finish_reasons", "error"),
)
# C0, DEL, C1; line and paragraph separators; what turns the direction of a line.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(slots=True)
class Record:
    """What is known of a request when it has ended."""

    request_id: str
    method: str
    path: str
    client: str = ""
    route: str = ""
    """The path as the route table has it; empty where there is none."""
    status: int = 0
    """0: the client went away before it was answered."""
    model: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    queue_s: float | None = None
    ttft_s: float | None = None
    duration_s: float = 0.0
    finish_reasons: list[str] = field(default_factory=list)
    error: str | None = None
    """The error's code, also of a stream that had begun."""
    parent: dict[str, str] = field(default_factory=dict)
    """The caller's W3C trace context."""
    started: float = field(default_factory=time.monotonic)

    def end(self) -> None:
        self.duration_s = time.monotonic() - self.started

    def shown(self) -> dict[str, Any]:
        """What says something, as the log's fields."""
        shown: dict[str, Any] = {}
        for name in _SHOWN:
            value = getattr(self, name)
            if value or name == "status":
                shown[name] = round(value, 4) if isinstance(value, float) else value
        return shown


def clean(text: str) -> str:
    """One line without control characters, bounded."""
    escaped = _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return escaped if len(escaped) <= LONGEST else escaped[:LONGEST] + "..."


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    return [_cleaned(item) for item in value] if isinstance(value, list) else value


class _Lines(logging.Formatter):
    def __init__(self, json: bool) -> None:
        super().__init__()
        self._json = json

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {name: _cleaned(value) for name, value in getattr(record, "fields", {}).items()}
        message = clean(record.getMessage())
        trace = "" if record.exc_info is None else self.formatException(record.exc_info)
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        level = record.levelname.lower()
        if self._json:
            line: dict[str, Any] = {"time": when, "level": level, "logger": record.name, "message": message, **fields}
            return msgspec.json.encode(line | ({"exception": _printable(trace)} if trace else {})).decode()
        pairs = [f"{name}={_text(value)}" for name, value in fields.items()]
        # An exception may quote what a client sent: indented, no line of it looks like one of ours.
        quoted = ["\n    | " + _CONTROL.sub("?", line) for line in trace.splitlines()]
        return f"{when} {level:7} {' '.join([message, *pairs])}{''.join(quoted)}"


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    text = str(value)
    return msgspec.json.encode(text).decode() if re.search(r'[\s"=]', text) else text


def write_logs(format: Literal["text", "json"]) -> None:
    """Send our logs to stderr as `format` says."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(format == "json"))
    for name in ("hexad", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
    logging.getLogger("hexad").setLevel(logging.INFO)


def write_access(record: Record) -> None:
    level = logging.WARNING if record.status >= 500 else logging.INFO
    ACCESS.log(level, "request", extra={"fields": record.shown()})
