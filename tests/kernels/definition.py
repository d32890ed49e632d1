"""int8 and int4 as `Ops.pack_linear` and `Ops.linear` define them: number by number, floats of 32 bits.

Written from the definition, to be compared with every kernel set.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import ml_dtypes
import numpy as np

F = np.float32
TINY = F(2.0**-126)


class Integers(NamedTuple):
    values: list[int]
    scale: np.float32


def by_127(row: np.ndarray) -> Integers:
    """A row, or a group of a row's inputs, with the scale of its greatest magnitude."""
    if not all(np.isfinite(row)):
        return Integers([0] * len(row), F(np.nan))
    scale = max(max([F(0), *(abs(F(v)) for v in row)]) / F(127), TINY)
    return Integers([int(np.rint(F(v) * (F(1) / scale))) for v in row], scale)


def int4(group: np.ndarray) -> Integers:
    if not all(np.isfinite(group)):
        return Integers([0] * len(group), F(np.nan))
    greatest = max(group, key=abs)
    tried = []
    for divisor in (-8, -9):
        scale = F(ml_dtypes.bfloat16(F(greatest) / F(divisor)))
        if abs(scale) < TINY:
            scale, values = F(0), [0] * len(group)
        else:
            values = [int(np.rint(min(max(F(v) * (F(1) / scale), F(-8)), F(7)))) for v in group]
        error = F(0)
        with np.errstate(over="ignore"):
            for value, level in zip(group, values, strict=True):
                left = F(value) - F(level) * scale
                error = error + left * left
        tried.append((Integers(values, scale), error))
    return tried[1][0] if tried[1][1] < tried[0][1] else tried[0][0]


def groups_of(row: np.ndarray, size: int) -> list[np.ndarray]:
    return [row[k : k + size] for k in range(0, len(row), size)]


def nearest(exact: Fraction) -> np.float32:
    """The float32 nearest to a number, ties to even."""
    guess = F(float(exact))
    around = (np.nextafter(guess, F(-np.inf)), guess, np.nextafter(guess, F(np.inf)))
    return min(around, key=lambda f: (abs(Fraction(float(f)) - exact), int(f.view(np.int32)) & 1))


def dot(a: list[int], b: list[int]) -> np.float32:
    return F(sum(p * q for p, q in zip(a, b, strict=True)))


def output(x: np.ndarray, weight: np.ndarray, size: int | None, leaves: int) -> np.float32:
    """One output of one row: int8 where `size` is None, else int4 in groups of `size` inputs."""
    if size is None:
        row, column = by_127(x), by_127(weight)
        return dot(row.values, column.values) * row.scale * column.scale
    groups = list(zip(map(by_127, groups_of(x, size)), map(int4, groups_of(weight, size)), strict=True))
    sums = []
    for leaf in range(leaves):
        total = F(0)
        for row, column in groups[leaf * len(groups) // leaves : (leaf + 1) * len(groups) // leaves]:
            scale = row.scale * column.scale
            exact = Fraction(float(dot(row.values, column.values))) * Fraction(float(scale)) + Fraction(float(total))
            total = nearest(exact)
        sums.append(total)
    while len(sums) > 1:
        sums = [left + right for left, right in zip(sums[::2], sums[1::2], strict=True)]
    return sums[0]
