"""What each endpoint of each dialect does with each of its parameters: declared once.

A module of this package declares `ENDPOINTS`. `tests/server/test_api.py` sends every example to a running server and
checks that no parameter is missing; `tools/api_table.py` writes docs/api.md from the same rows.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Fate = Literal["honoured", "refused", "no effect"]
"""`no effect`: accepted, because by its definition it changes no answer."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    name: str
    """Of the body's field; behind a dot, of a field in it."""
    fate: Fate = "honoured"
    note: str = ""
    """For the reader of docs/api.md: what is particular about it. Markdown, one line."""
    accepted: tuple[Any, ...] = ()
    """Values that are answered with 2xx: at least one where the fate is not `refused`."""
    refused: tuple[Any, ...] = ()
    """Values that are answered with 4xx, in words that name the parameter."""
    beside: Mapping[str, Any] = field(default_factory=dict)
    """What it needs beside itself in the body."""
    server: str = "server"
    """The fixture of the server that can honour it."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    dialect: str
    """The heading it stands under, such as `OpenAI`."""
    method: str
    path: str
    what: str
    """One line of Markdown."""
    base: Mapping[str, Any] = field(default_factory=dict)
    """A body that is answered; each example is laid over it."""
    parameters: tuple[Parameter, ...] = ()
    fields: frozenset[str] = frozenset()
    """Names that the server's own type of the body has."""
    documented: frozenset[str] = frozenset()
    """Names that the dialect's inventor documents."""


def rows(fate: Fate, *names: str, accepted: Any = None, refused: Any = None, note: str = "") -> tuple[Parameter, ...]:
    """Parameters that share their fate and their example."""
    yes = () if accepted is None else (accepted,)
    no = () if refused is None else (refused,)
    return tuple(Parameter(name=name, fate=fate, accepted=yes, refused=no, note=note) for name in names)


def endpoints() -> Iterator[Endpoint]:
    """Of all dialects: OpenAI's, then the others by the names of their modules."""
    names = sorted((found.name for found in pkgutil.iter_modules(__path__)), key=lambda name: (name != "openai", name))
    for name in names:
        yield from importlib.import_module(f"{__name__}.{name}").ENDPOINTS
