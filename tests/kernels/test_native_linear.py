"""int8 and int4 linears of the native set, on every instruction set, against their definition, bit by bit."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("hexad.kernels._native")

from hexad.errors import KernelError
from hexad.kernels import _native
from hexad.kernels.native import NativeOps, available_isas
from hexad.kernels.ops import LEAVES, WeightFormat
from hexad.kernels.reference import ReferenceOps
from tests.kernels import definition

ISAS = available_isas()
SIZES: dict[WeightFormat, int | None] = {"int8": None, "int4-128": 128, "int4-64": 64, "int4-32": 32}
SHAPES = ((17, 24), (48, 130), (16, 1), (3, 640), (33, 256))


@pytest.fixture(params=ISAS, scope="module")
def ops(request: pytest.FixtureRequest) -> NativeOps:
    return NativeOps(2, request.param)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def identical(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def unpacked(packed: _native.LinearWeight, size: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Values [N, K] and scales [N, groups] of the tiles, read as native/kernels.h describes them."""
    tiles = -(-packed.outputs // 16)
    if size is None:
        values = packed.tiles.view(np.int8).reshape(tiles, -1, 16, 4).transpose(0, 2, 1, 3)
        scales = packed.scales.view(np.float32).reshape(tiles, 1, 16)
    else:
        bytes_ = packed.tiles.reshape(tiles, -1, 16, 4)
        values = np.stack((bytes_ & 15, bytes_ >> 4), axis=2).astype(np.int8).transpose(0, 3, 1, 2, 4) - 8
        scales = packed.scales.view(ml_dtypes.bfloat16).astype(np.float32).reshape(tiles, -1, 16)
    return (
        values.reshape(tiles * 16, -1)[: packed.outputs, : packed.inputs],
        scales.transpose(0, 2, 1).reshape(tiles * 16, -1)[: packed.outputs],
    )


# ---- against the definition


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("format", SIZES)
def test_packed_integers_are_those_of_the_definition(format: WeightFormat, shape: tuple[int, int]) -> None:
    """Also of rows of zeros, of subnormal, huge and infinite weights."""
    size, weight = SIZES[format], normal(*shape)
    weight[1:2] = 0
    weight[2:3, ::2] *= np.float32(1e-42)
    if shape[0] > 5:
        weight[3], weight[4, shape[1] // 2], weight[5] = weight[3] * np.float32(1e37), np.inf, weight[5] * 1e-40
    packed = NativeOps(2).pack_linear(weight, format)
    values, scales = unpacked(packed, size)
    for row, got_values, got_scales in zip(weight, values, scales, strict=True):
        groups = definition.groups_of(row, size) if size else [row]
        expected = [definition.int4(group) if size else definition.by_127(group) for group in groups]
        assert got_values.tolist() == [value for group in expected for value in group.values]
        np.testing.assert_array_equal(got_scales, [group.scale for group in expected])
    if size is None:
        sums = packed.sums.view(np.int32)[: shape[0]]
        np.testing.assert_array_equal(sums, -128 * values.sum(axis=1, dtype=np.int32))


@pytest.mark.parametrize("leaves", [1, LEAVES])
@pytest.mark.parametrize("shape", [(17, 24), (3, 640)])
@pytest.mark.parametrize("format", SIZES)
def test_a_linear_is_the_definition_bit_by_bit(
    ops: NativeOps, format: WeightFormat, shape: tuple[int, int], leaves: int
) -> None:
    weight, bias, x = normal(*shape, seed=1), normal(shape[0], seed=2), normal(7, shape[1])
    x[1] = 0
    x[2] *= np.float32(1e-41)
    packed = ops.pack_linear(weight, format, leaves=leaves)
    expected = [[definition.output(row, column, SIZES[format], leaves) for column in weight] for row in x]
    assert identical(ops.linear(x, packed), np.array(expected, np.float32))
    assert identical(ops.linear(x, packed, bias), np.array(expected, np.float32) + bias)


@pytest.mark.parametrize("sign", [1, -1])
def test_groups_are_added_with_one_rounding(ops: NativeOps, sign: int) -> None:
    """24929 * 673 is 2^24 + 1, midway between two floats: a sum before it decides, however small it is."""
    weight, x = np.zeros((1, 64), np.float32), np.zeros((1, 64), np.float32)
    weight[0, :1], x[0, :1] = -8, -1e-20 * sign
    weight[0, 32:58], x[0, 32:58] = [-8] * 25 + [1], 673 * np.array([-127] * 24 + [-68, 1])
    expected = 2**24 + 2 if sign > 0 else 2**24
    for set_ in (ops, ReferenceOps()):
        assert set_.linear(x, set_.pack_linear(weight, "int4-32")).tolist() == [[expected]]


@pytest.mark.parametrize("format", SIZES)
def test_the_greatest_products_do_not_saturate(ops: NativeOps, format: WeightFormat) -> None:
    """The greatest magnitudes of all signs: two products of bytes overflow 16 bits where they are summed."""
    x, weight = (np.concatenate((np.ones((1, 512)), np.sign(normal(7, 512)))) * top for top in (127, -8))
    packed = ops.pack_linear(weight.astype(np.float32), format)
    values, scales = unpacked(packed, SIZES[format])
    assert values.min() == (-127 if format == "int8" else -8)
    wide = values.astype(np.float64) * np.repeat(scales, SIZES[format] or 512, axis=1)
    np.testing.assert_allclose(ops.linear(x.astype(np.float32), packed), x @ wide.T, rtol=1e-6, atol=1e-2)


@pytest.mark.parametrize("format", SIZES)
def test_weights_of_every_host_type_are_the_same_integers(format: WeightFormat) -> None:
    ops, weight = NativeOps(1), normal(20, 90).astype(ml_dtypes.bfloat16).astype(np.float16).astype(np.float32)
    packed = [ops.pack_linear(weight.astype(t), format) for t in (np.float32, np.float16, ml_dtypes.bfloat16)]
    for other in packed[1:]:
        assert identical(other.tiles, packed[0].tiles)
        assert identical(other.scales, packed[0].scales)


# ---- what is not finite


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("format", SIZES)
def test_a_row_that_is_not_finite_fails_alone(ops: NativeOps, format: WeightFormat, bad: float) -> None:
    weight, x = normal(40, 200, seed=1), normal(9, 200)
    packed = ops.pack_linear(weight, format)
    clean = ops.linear(x, packed)
    x[4, 150] = bad
    got = ops.linear(x, packed)
    assert np.isnan(got[4]).all()
    assert identical(np.delete(got, 4, axis=0), np.delete(clean, 4, axis=0))
    weight[7, 3] = bad
    got = ops.linear(x[:2], ops.pack_linear(weight, format))
    assert np.isnan(got[:, 7]).all()
    assert identical(np.delete(got, 7, axis=1), np.delete(clean[:2], 7, axis=1))


# ---- finishes


@pytest.mark.parametrize("format", ["float32", "bfloat16", *SIZES])
@pytest.mark.parametrize("rows", [1, 2, 13, 100])
def test_finishes_are_the_ops_they_stand_for(ops: NativeOps, format: WeightFormat, rows: int) -> None:
    """Bitwise: `add` a residual's addition, `silu_mul` the op of that name."""
    engine = _native.Engine(2, ops.isa)
    for outputs in (32, 96, 160, 320):
        weight, bias, x = normal(outputs, 200, seed=1), normal(outputs, seed=2), normal(rows, 200)
        for leaves in (1, LEAVES):
            packed = engine.pack_linear(weight, format, leaves)
            for added in (None, bias):
                plain, half = ops.linear(x, packed, added), np.empty((rows, outputs // 2), np.float32)
                residual = normal(rows, outputs, seed=3)
                expected = residual + plain
                engine.linear(x, packed, added, residual, "add")
                engine.linear(x, packed, added, half, "silu_mul")
                assert identical(residual, expected)
                assert identical(half, ops.silu_mul(plain))
    packed, out = engine.pack_linear(normal(37, 200), format, 1), normal(rows, 37)
    expected = out + ops.linear(x, packed)
    engine.linear(x, packed, None, out, "add")
    assert identical(out, expected)


def test_a_finish_that_cannot_be_is_refused() -> None:
    engine = _native.Engine(1, ISAS[0])
    packed, x = engine.pack_linear(normal(48, 8), "int8", 1), normal(2, 8)
    with pytest.raises(KernelError, match="multiple of 32 outputs, not 48"):
        engine.linear(x, packed, None, np.empty((2, 24), np.float32), "silu_mul")
    with pytest.raises(KernelError, match="finish is 'mul'"):
        engine.linear(x, packed, None, np.empty((2, 48), np.float32), "mul")  # type: ignore[arg-type]
    with pytest.raises(KernelError, match=r"out must have shape \[2, 48\]"):
        engine.linear(x, packed, None, np.empty((2, 24), np.float32), "add")


# ---- borrowed weights


def aligned(source: np.ndarray) -> np.ndarray:
    """A copy at a multiple of 64 bytes, as in a mapped file."""
    space = np.empty(source.size + 64, np.uint8)
    start = -space.ctypes.data % 64
    space[start : start + source.size] = source
    return space[start : start + source.size]


@pytest.mark.parametrize("leaves", [1, LEAVES])
@pytest.mark.parametrize("format", ["float32", "bfloat16", *SIZES])
def test_an_adopted_weight_is_the_packed_one(format: WeightFormat, leaves: int) -> None:
    x, expected = normal(5, 203), None
    for isa in ISAS:
        ops, engine = NativeOps(2, isa), _native.Engine(2, isa)
        packed = ops.pack_linear(normal(50, 203, seed=1), format, leaves=leaves)
        parts = [packed.tiles, packed.scales, packed.sums]
        assert not any(part.flags.writeable for part in parts)
        assert sum(part.nbytes for part in parts) == packed.nbytes
        assert expected is None or all(identical(*pair) for pair in zip(parts, expected, strict=True))
        expected = [part.copy() for part in parts]
        adopted = engine.adopt_linear(format, 50, 203, leaves, *map(aligned, parts))
        assert (adopted.format, adopted.outputs, adopted.inputs, adopted.leaves) == (format, 50, 203, leaves)
        assert identical(ops.linear(x, adopted), ops.linear(x, packed))


def test_an_adopted_weight_keeps_its_bytes_alive() -> None:
    ops, engine = NativeOps(1), _native.Engine(1, ISAS[0])
    packed = ops.pack_linear(normal(64, 4096), "int8")
    expected = ops.linear(normal(1, 4096), packed)
    adopted = engine.adopt_linear(
        "int8", 64, 4096, 1, *(aligned(p) for p in (packed.tiles, packed.scales, packed.sums))
    )
    tiles = packed.tiles
    del packed
    noise = [np.full(64 * 4096, 77, np.uint8) for _ in range(50)]
    assert identical(ops.linear(normal(1, 4096), adopted), expected)
    assert identical(adopted.tiles, tiles)
    assert len(noise) == 50


def test_bytes_that_are_no_such_weight_are_refused() -> None:
    engine = _native.Engine(1, ISAS[0])
    packed = engine.pack_linear(normal(20, 100), "int4-32", 1)
    tiles, scales, sums = aligned(packed.tiles), aligned(packed.scales), aligned(packed.sums)
    for format, outputs, inputs, leaves, said in (
        ("int4-32", 20, 105, 1, r"tiles must have shape \[1792\], not \[1664\]"),
        ("int4-64", 20, 100, 1, r"scales must have shape \[128\], not \[256\]"),
        ("int8", 20, 100, 1, "tiles must have shape"),
        ("int4-16", 20, 100, 1, "format is 'int4-16'; it must be float32, bfloat16, int8, int4-128"),
        ("int4-32", 20, 100, 2, "leaves is 2"),
        ("int4-32", -20, 100, 1, "-20 outputs"),
        ("int4-32", 2**28, 100, 1, "268435456 outputs"),
    ):
        with pytest.raises(KernelError, match=said):
            engine.adopt_linear(format, outputs, inputs, leaves, tiles, scales, sums)
    with pytest.raises(KernelError, match="multiple of 64 bytes"):
        engine.adopt_linear("int4-32", 20, 100, 1, aligned(np.empty(1728, np.uint8))[64 - 63 :][:1664], scales, sums)
    with pytest.raises(KernelError, match="tiles must be uint8"):
        engine.adopt_linear("int4-32", 20, 100, 1, tiles.view(np.int8), scales, sums)
    with pytest.raises(KernelError, match="tiles must be C-contiguous"):
        engine.adopt_linear("int4-32", 20, 100, 1, np.empty(2 * 1664, np.uint8)[::2], scales, sums)
