"""From recorded instructions to a native program: values get places in two arenas, each instruction a call.

An arena holds one row a token of the step (or a wanted row); a slot of it is used again once
its value is not read any more. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import msgspec
import numpy as np

from hexad.kernels import _native
from hexad.kernels.fuse import fuse
from hexad.kernels.ops import Step
from hexad.kernels.record import (
    Add,
    Attend,
    Embed,
    Instruction,
    Linear,
    Norm,
    Rope,
    Silu,
    Slice,
    TakeRows,
    Trace,
    Value,
    reads,
)

Operand = tuple[bool, int, int, int]
"""Of the wanted rows?, slot, first column, columns of a row."""


class Program:
    """A forward pass as one native call."""

    def __init__(self, engine: _native.Engine, trace: Trace, without: Collection[str]) -> None:
        widths = list(trace.widths)
        self.code = fuse(trace.instructions, widths, without)
        places = _Places.of(self.code, widths)
        self._native = _native.Program(engine, places.slots[False], places.slots[True])
        for instruction in self.code:
            _add(self._native, instruction, places, cascade="cascade" not in without)

    def __call__(self, step: Step) -> np.ndarray:
        """Logits float32 [R, V], read-only, valid until the next call."""
        logits: np.ndarray = self._native.run(
            step.token_ids_T,
            step.positions_T,
            step.slots_T,
            step.query_starts_S1,
            step.page_table_SP,
            step.output_rows_R,
        )
        return logits

    def reset_clock(self, *, each: bool = False) -> None:
        """Count time from now on; with `each`, that of every instruction too."""
        self._native.reset_clock(each)

    def clock(self) -> Clock:
        seconds, runs, calls = self._native.clock()
        by_op: dict[str, float] = {}
        for instruction, spent in zip(self.code, calls, strict=False):
            name = type(instruction).__name__.lower()
            by_op[name] = by_op.get(name, 0.0) + spent
        return Clock(seconds, runs, by_op)


class Clock(NamedTuple):
    """Seconds in native code and the number of calls; seconds by kind of instruction where each was timed."""

    seconds: float
    runs: int
    by_op: dict[str, float]


class _Places(msgspec.Struct):
    """Where each value lies. `slots` are the widths of the arenas' slots, by whether rows are wanted ones."""

    widths: list[int]
    slots: dict[bool, list[int]] = msgspec.field(default_factory=lambda: {False: [], True: []})
    homes: dict[Value, tuple[bool, int]] = {}

    @classmethod
    def of(cls, code: list[Instruction], widths: list[int]) -> _Places:
        last = {value: i for i, instruction in enumerate(code) for value in reads(instruction)}
        places = cls(widths)
        free: dict[bool, list[int]] = {False: [], True: []}
        for i, instruction in enumerate(code):
            inputs = reads(instruction)
            dying = {value for value in inputs if last[value] == i}
            wanted = isinstance(instruction, TakeRows) or any(places.homes[value][0] for value in inputs)
            if isinstance(instruction, Linear) and instruction.residual is not None:
                dying.discard(instruction.residual)  # its slot lives on as the result
                places.homes[instruction.out] = places.homes[instruction.residual]
            else:
                places.homes[instruction.out] = wanted, places._slot(widths[instruction.out], wanted, free[wanted])
            for value in dying:
                home_wanted, slot = places.homes[value]
                free[home_wanted].append(slot)
        return places

    def _slot(self, width: int, wanted: bool, free: list[int]) -> int:
        """The narrowest free slot that is wide enough, else the widest, widened, else a new one."""
        slots = self.slots[wanted]
        if not free:
            slots.append(width)
            return len(slots) - 1
        enough = [slot for slot in free if slots[slot] >= width]
        slot = min(enough, key=slots.__getitem__) if enough else max(free, key=slots.__getitem__)
        free.remove(slot)
        slots[slot] = max(slots[slot], width)
        return slot

    def whole(self, value: Value) -> Operand:
        return *self.homes[value], 0, self.widths[value]

    def part(self, part: Slice) -> Operand:
        return *self.homes[part.value], part.start, self.widths[part.value]


def _norm(norm: Norm | None) -> tuple[np.ndarray | None, float]:
    return (None, 0.0) if norm is None else (norm.weight, norm.eps)


def _add(program: _native.Program, instruction: Instruction, at: _Places, *, cascade: bool) -> None:
    """Append the native call."""
    out = at.whole(instruction.out)
    match instruction:
        case Embed(table):
            program.embedding(table, out)
        case TakeRows(x):
            program.take_rows(at.whole(x), at.widths[x], out)
        case Add(x, residual):
            program.add(at.whole(x), at.whole(residual), at.widths[x], out)
        case Norm(x):
            program.norm(at.part(x), x.heads, x.width, _norm(instruction), out)
        case Linear(x, weight, bias, norm=norm, residual=residual, silu=silu):
            program.linear(weight, at.whole(x), _norm(norm), bias, residual is not None, silu, out)
        case Silu(x):
            program.silu_mul(at.whole(x), at.widths[instruction.out], out)
        case Rope(q, k, v, cos_sin, kv, q_norm=q_norm, k_norm=k_norm):
            parts = at.part(q), at.part(k), at.part(v)
            program.rope(*parts, q.heads, cos_sin, *kv, _norm(q_norm), _norm(k_norm), out)
        case Attend(q, heads, kv, scale, window):
            program.attention(at.whole(q), heads, *kv, scale, window, cascade, out)
