"""A forward pass written down: the model runs once on `Traced` arrays, and what it asked for becomes a list.

The CPU's counterpart of a CUDA graph: the list is fused (`fuse.py`), compiled to native calls
(`program.py`) and replayed each step without Python. Values are single-assignment; T and R stay
open. Knows the ops of `ops.py` and which of them work row by row; knows no kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np

from hexad.errors import KernelError
from hexad.kernels.ops import KV, Step

Value = int
"""The number of an array [T, width] or [R, width] float32."""


class Slice(NamedTuple):
    """Columns of a value: `heads` heads of `width`, from column `start` on."""

    value: Value
    start: int
    heads: int
    width: int


class Embed(msgspec.Struct, frozen=True):
    table: np.ndarray
    out: Value


class TakeRows(msgspec.Struct, frozen=True):
    """Of T rows the R whose logits are wanted."""

    x: Value
    out: Value


class Add(msgspec.Struct, frozen=True):
    """residual + x"""

    x: Value
    residual: Value
    out: Value


class Norm(msgspec.Struct, frozen=True):
    x: Slice
    weight: np.ndarray
    eps: float
    out: Value


class Linear(msgspec.Struct, frozen=True):
    """x @ weight.T + bias. Fused: of the norm of x; through silu(gate) * up; added to a residual."""

    x: Value
    weight: Any
    bias: np.ndarray | None
    out: Value
    norm: Norm | None = None
    residual: Value | None = None
    silu: bool = False


class Silu(msgspec.Struct, frozen=True):
    x: Value
    out: Value


class Rope(msgspec.Struct, frozen=True):
    """Rotate q and k, write k and v. Fused: q and k are normed head by head before."""

    q: Slice
    k: Slice
    v: Slice
    cos_sin: np.ndarray
    kv: KV
    out: Value
    q_norm: Norm | None = None
    k_norm: Norm | None = None


class Attend(msgspec.Struct, frozen=True):
    q: Value
    heads: int
    kv: KV
    scale: float
    window: int
    out: Value


Instruction = Embed | TakeRows | Add | Norm | Linear | Silu | Rope | Attend


def reads(instruction: Instruction) -> list[Value]:
    """The values that an instruction takes in."""
    match instruction:  # the most frequent first: every start asks thousands of times
        case Linear(x, residual=None):
            return [x]
        case Linear(x, residual=int(residual)) | Add(x, residual):
            return [x, residual]
        case Norm(x):
            return [x.value]
        case Rope(q, k, v):
            return [q.value, k.value, v.value]
        case TakeRows(x) | Silu(x) | Attend(x):
            return [x]
        case Embed():
            return []
    raise AssertionError(instruction)


class Trace(msgspec.Struct):
    """What has been recorded: instructions in order, and the width of each value."""

    instructions: list[Instruction]
    widths: list[int]

    def new(self, width: int) -> Value:
        self.widths.append(width)
        return len(self.widths) - 1

    def add(self, instruction: Instruction) -> Traced:
        self.instructions.append(instruction)
        width = self.widths[instruction.out]
        return Traced(self, Slice(instruction.out, 0, 1, width), 2)


class Traced(msgspec.Struct):
    """Stands for a float32 array [T, width], or a view of it [T, heads, width]."""

    trace: Trace
    part: Slice
    ndim: int

    def __getitem__(self, index: tuple[slice, slice]) -> Traced:
        rows, columns = index
        width = self.part.width
        start, stop, step = columns.indices(width)
        if rows != slice(None) or step != 1 or self.ndim != 2:
            raise KernelError("a recorded array can be cut into columns x[:, a:b] only")
        return Traced(self.trace, Slice(self.part.value, self.part.start + start, 1, stop - start), 2)

    def reshape(self, rows: int, heads: int, width: int) -> Traced:
        if rows != -1 or self.ndim != 2 or heads * width != self.part.width:
            raise KernelError(f"a recorded array of {self.part.width} columns cannot become heads {heads} x {width}")
        return Traced(self.trace, Slice(self.part.value, self.part.start, heads, width), 3)

    @property
    def whole(self) -> Value:
        """The value, where this is all of it."""
        if self.part.start or self.part.heads * self.part.width != self.trace.widths[self.part.value]:
            raise KernelError("this op takes a whole array, not a part of its columns")
        return self.part.value

    # The ops, as `NativeOps` hands them on.

    def take_rows(self, rows: object) -> Traced:
        return self.trace.add(TakeRows(self.whole, self.trace.new(self.part.width)))

    def rms_norm(self, weight: np.ndarray, eps: float) -> Traced:
        out = self.trace.new(self.part.heads * self.part.width)
        normed = self.trace.add(Norm(self.part, weight, eps, out))
        return normed if self.ndim == 2 else normed.reshape(-1, self.part.heads, self.part.width)

    def add_rms_norm(self, residual: Traced, weight: np.ndarray, eps: float) -> Traced:
        total = self.trace.add(Add(self.whole, residual.whole, self.trace.new(self.part.width)))
        residual.part = total.part  # in place
        return total.rms_norm(weight, eps)

    def linear(self, weight: Any, bias: np.ndarray | None) -> Traced:
        return self.trace.add(Linear(self.whole, weight, bias, self.trace.new(weight.outputs)))

    def silu_mul(self) -> Traced:
        return self.trace.add(Silu(self.whole, self.trace.new(self.part.width // 2)))

    def rope_kv_write(self, k: Traced, v: Traced, cos_sin: np.ndarray, kv: KV) -> Traced:
        heads, width = self.part.heads, self.part.width
        turned = self.trace.add(Rope(self.part, k.part, v.part, cos_sin, kv, self.trace.new(heads * width)))
        return turned.reshape(-1, heads, width)

    def attention(self, kv: KV, scale: float, window: int) -> Traced:
        out = self.trace.new(self.part.heads * self.part.width)
        return self.trace.add(Attend(self.whole, self.part.heads, kv, scale, window, out))


class TokenIds(msgspec.Struct, frozen=True):
    """Stands for the token ids of a step."""

    trace: Trace

    def embedding(self, table: np.ndarray) -> Traced:
        return self.trace.add(Embed(table, self.trace.new(table.shape[1])))


def record(forward: Callable[[Step, list[KV]], Any], kvs: list[KV]) -> Trace:
    """Run `forward` once on stand-ins. The result is the last instruction's value."""
    trace = Trace([], [])
    ids = TokenIds(trace)
    result = forward(Step(ids, ids, ids, ids, ids, ids, ids), kvs)
    if not isinstance(result, Traced) or not trace.instructions or result.whole != trace.instructions[-1].out:
        raise KernelError("a forward pass must end with the op that makes its logits")
    return trace
