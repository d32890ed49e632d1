"""What crosses the process border, as msgspec structs in MessagePack; nothing else does."""

from __future__ import annotations

from typing import Any

import msgspec

from hexad.kernels.precision import Precision
from hexad.placement.memory import MemoryPlan
from hexad.types import EngineStats, Failure, Request, SequenceOutput


class Configure(msgspec.Struct, tag=True, array_like=True):
    """The first message to a new engine process: the fields of `Config`."""

    settings: dict[str, Any]


class Add(msgspec.Struct, tag=True, array_like=True):
    request: Request


class Abort(msgspec.Struct, tag=True, array_like=True):
    request_id: str
    choice: int | None = None
    """None: all of them."""


class ResetCache(msgspec.Struct, tag=True, array_like=True):
    pass


class Pause(msgspec.Struct, tag=True, array_like=True):
    """No step until `Resume`; what is running keeps its pages, what is new waits."""


class Resume(msgspec.Struct, tag=True, array_like=True):
    pass


class Audit(msgspec.Struct, tag=True, array_like=True):
    """Look through all books, and answer `Audited`. An engine that can answer is alive."""


Command = Add | Abort | ResetCache | Pause | Resume | Audit


class EngineInfo(msgspec.Struct, kw_only=True):
    """What the settings resolved to, for people and for admission."""

    kernels: str
    kernels_note: str
    """Why this kernel set; empty when it is the one expected."""
    threads: int
    precision: Precision
    max_model_len: int
    memory: MemoryPlan
    weights: str
    """How they came: packed from the checkpoint, or mapped from the packed cache."""
    load_seconds: float


class Loading(msgspec.Struct, tag=True, array_like=True):
    """Progress while weights are bound, 0 to 1."""

    fraction: float


class Ready(msgspec.Struct, tag=True, array_like=True):
    info: EngineInfo


class Outputs(msgspec.Struct, tag=True, array_like=True):
    outputs: list[SequenceOutput]
    stats: EngineStats
    admitted: list[str] = []
    """Requests that have left the queue since the last report."""
    paused: bool = False


class Audited(msgspec.Struct, tag=True, array_like=True):
    broken: str | None
    """The invariant that does not hold."""


REFUSED = 78
"""What an engine exits with that could not start, which another try will not change, as EX_CONFIG of sysexits.h."""

READY = b"ready"
"""The first that a process which compiles grammars says."""


class Verdict(msgspec.Struct, array_like=True):
    """What has become of a grammar: itself in llguidance's notation, or the problem with it."""

    grammar: str = ""
    problem: str = ""

    @property
    def size(self) -> int:
        """Bytes to remember it, about."""
        return 200 + len(self.grammar) + len(self.problem)


Report = Loading | Ready | Failure | Outputs | Audited

encode = msgspec.msgpack.Encoder().encode
decode_report = msgspec.msgpack.Decoder(Report).decode
decode_command = msgspec.msgpack.Decoder(Configure | Command).decode
