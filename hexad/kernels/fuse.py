"""What can be done to a recorded forward pass without changing a bit of what it computes.

Each rewrite is a function from instructions to instructions and can be left out by name, so
that its worth can be measured (`--without`). It knows no kernels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator

from msgspec.structs import replace

from hexad.kernels.ops import TILE_OUTPUTS
from hexad.kernels.record import Add, Instruction, Linear, Norm, Rope, Silu, Slice, TakeRows, Value, reads


def narrow(code: list[Instruction], new: Callable[[Value], Value]) -> list[Instruction]:
    """Take rows as early as can be: behind the last attention, only rows whose logits are wanted are computed.

    `new` makes a value as wide as another.
    """
    while True:
        rows = {i.x: i.out for i in reversed(code) if isinstance(i, TakeRows)}
        uses = _uses(code, but=TakeRows)
        wide = next((i for i in code if i.out in rows and not uses[i.out] and _is_row_by_row(i)), None)
        if wide is None:
            return code
        taken = {value: new(value) for value in reads(wide)}
        takes = [TakeRows(value, out) for value, out in taken.items()]
        narrowed = replace(_reading(wide, taken), out=rows[wide.out])
        code = [
            j
            for i in code
            if not (isinstance(i, TakeRows) and i.x == wide.out)
            for j in ([*takes, narrowed] if i is wide else [i])
        ]
        code = _merge_takes(code)


def fuse_residual(code: list[Instruction]) -> list[Instruction]:
    """A linear adds what it computes to the residual at once, in place."""
    uses = _uses(code)
    last = {value: i for i in code for value in reads(i)}
    adds = {i.x: i for i in code if isinstance(i, Add) and uses[i.x] == 1 and last[i.residual] is i}
    made = {i.out: i for i in code if isinstance(i, Linear)}
    fused = {made[x].out: add for x, add in adds.items() if x in made}
    return [
        replace(made[i.x], out=i.out, residual=i.residual) if isinstance(i, Add) and i.x in fused else i
        for i in code
        if not (isinstance(i, Linear) and i.out in fused)
    ]


def fuse_silu(code: list[Instruction]) -> list[Instruction]:
    """The gate and up projections leave only silu(gate) * up."""
    uses = _uses(code)
    silus = {i.x: i for i in code if isinstance(i, Silu) and uses[i.x] == 1}
    fused = {
        i.out for i in code if isinstance(i, Linear) and i.out in silus and i.weight.outputs % (2 * TILE_OUTPUTS) == 0
    }
    return [
        replace(i, out=silus[i.out].out, silu=True) if isinstance(i, Linear) and i.out in fused else i
        for i in code
        if not (isinstance(i, Silu) and i.x in fused)
    ]


def fuse_norm(code: list[Instruction]) -> list[Instruction]:
    """A linear norms its input row by row, on the way into its own format."""
    uses = _uses(code)
    norms = {i.out: i for i in code if isinstance(i, Norm) and i.x.heads == 1 and i.x.start == 0}
    fused = {i.x for i in code if isinstance(i, Linear) and i.x in norms and uses[i.x] == 1}
    return [
        replace(i, x=norms[i.x].x.value, norm=norms[i.x]) if isinstance(i, Linear) and i.x in fused else i
        for i in code
        if i.out not in fused
    ]


def fuse_qk_norm(code: list[Instruction]) -> list[Instruction]:
    """The head-wise norms of q and k are done while they are rotated."""
    uses = _uses(code)
    norms = {i.out: i for i in code if isinstance(i, Norm) and uses[i.out] == 1}
    ropes = {
        i.out: replace(i, q=norms[i.q.value].x, k=norms[i.k.value].x, q_norm=norms[i.q.value], k_norm=norms[i.k.value])
        for i in code
        if isinstance(i, Rope) and i.q.value in norms and i.k.value in norms
    }
    gone = {norm.out for i in ropes.values() for norm in (i.q_norm, i.k_norm) if norm is not None}
    return [ropes.get(i.out, i) for i in code if i.out not in gone]


FUSIONS: dict[str, Callable[[list[Instruction]], list[Instruction]]] = {
    "fuse-residual": fuse_residual,
    "fuse-silu": fuse_silu,
    "fuse-norm": fuse_norm,
    "fuse-qk-norm": fuse_qk_norm,
}


SWITCHES = ("narrow", *FUSIONS, "cascade")
"""Everything that can be left out: `narrow`, the fusions, and attention's shared walk over shared pages."""


def fuse(code: list[Instruction], widths: list[int], without: Collection[str]) -> list[Instruction]:
    """All rewrites but those named in `without`; new values are appended to `widths`."""

    def like(value: Value) -> Value:
        widths.append(widths[value])
        return len(widths) - 1

    if "narrow" not in without:
        code = narrow(code, like)
    for name, rewrite in FUSIONS.items():
        if name not in without:
            code = rewrite(code)
    return code


def _uses(code: list[Instruction], but: type | None = None) -> Counter[Value]:
    """How often each value is read; the last instruction's result counts as read."""
    uses = Counter(value for i in code if but is None or not isinstance(i, but) for value in reads(i))
    uses[code[-1].out] += 1
    return uses


def _is_row_by_row(instruction: Instruction) -> bool:
    match instruction:
        case Norm(Slice(_, start, heads, _)):
            return heads == 1 and start == 0
        case Add() | Linear() | Silu():
            return True
    return False


def _reading(instruction: Instruction, renamed: dict[Value, Value]) -> Instruction:
    match instruction:
        case Norm(x):
            return replace(instruction, x=x._replace(value=renamed[x.value]))
        case Add(x, residual):
            return replace(instruction, x=renamed[x], residual=renamed[residual])
        case Linear(x) | Silu(x):
            return replace(instruction, x=renamed[x])
    raise AssertionError(instruction)


def _merge_takes(code: list[Instruction]) -> list[Instruction]:
    """One TakeRows a value: later ones become the first."""
    first: dict[Value, Value] = {}
    same: dict[Value, Value] = {}
    for i in code:
        if isinstance(i, TakeRows):
            same[i.out] = first.setdefault(i.x, i.out)
    changed = {old: kept for old, kept in same.items() if old != kept}
    return list(_renamed(code, changed)) if changed else code


def _renamed(code: list[Instruction], same: dict[Value, Value]) -> Iterator[Instruction]:
    for i in code:
        if isinstance(i, TakeRows) and i.out in same:
            continue
        yield _reading(i, {v: same.get(v, v) for v in reads(i)}) if any(v in same for v in reads(i)) else i
