"""Weights and rows as integers in numpy, against their definition and exact fractions; the torch set beside them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hexad.kernels.ops import WeightFormat
from hexad.kernels.quantize import GROUPS, fma, quantize_rows, quantize_weight
from hexad.kernels.reference import ReferenceOps
from tests.kernels import definition

FORMATS: tuple[WeightFormat, ...] = ("int8", "int4-128", "int4-64", "int4-32")
numbers = st.floats(-(2.0**50), 2.0**50, width=32)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize("inputs", [5, 130])
@pytest.mark.parametrize("format", FORMATS)
def test_a_weight_is_quantized_by_the_definition(format: WeightFormat, inputs: int) -> None:
    weight = normal(9, inputs)
    weight[2], weight[3, 1], weight[4] = 0, np.nan, weight[4] * np.float32(1e-41)
    q = quantize_weight(weight, format)
    for row, values, scales in zip(weight, q.values, q.scales, strict=True):
        if format == "int8":
            expected = [definition.by_127(row)]
        else:
            expected = [definition.int4(group) for group in definition.groups_of(row, GROUPS[format])]
        np.testing.assert_array_equal(scales, [group.scale for group in expected])
        assert values.ravel()[:inputs].tolist() == [value for group in expected for value in group.values]
        assert not values.ravel()[inputs:].any()


def test_rows_are_quantized_by_the_definition() -> None:
    x = normal(6, 70)
    x[1], x[2, 40], x[3] = 0, -np.inf, x[3] * np.float32(1e-43)
    q = quantize_rows(x, 32)
    for row, values, scales in zip(x, q.values, q.scales, strict=True):
        expected = [definition.by_127(group) for group in definition.groups_of(row, 32)]
        np.testing.assert_array_equal(scales, [group.scale for group in expected])
        assert values.ravel()[:70].tolist() == [value for group in expected for value in group.values]


@settings(max_examples=300)
@given(numbers, numbers, numbers)
@example(24929.0, 673.0, 1e-20)  # 2^24 + 1 and a little: midway between two floats
@example(24929.0, 673.0, -1e-20)
@example(24929.0, -673.0, 1e-20)
@example(3.0, 2.0**-75, 2.0**-100)
def test_fma_rounds_once(a: float, b: float, c: float) -> None:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    got = fma(*(np.array([v], np.float32) for v in (a, b, c)))[0]
    assert got == definition.nearest(exact)


@pytest.mark.parametrize("format", FORMATS)
def test_the_torch_set_multiplies_the_same_integers(format: WeightFormat) -> None:
    torch_set = pytest.importorskip("hexad.kernels.torch_set")
    ops, reference = torch_set.TorchOps(), ReferenceOps()
    weight, bias, x = normal(20, 150, seed=1), normal(20, seed=2), normal(5, 150)
    x[0], x[1, 3] = 0, np.nan
    expected = reference.linear(x, reference.pack_linear(weight, format), bias)
    got = ops.to_host(ops.linear(ops.array(x), ops.pack_linear(weight, format), ops.array(bias)))
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.isnan(got[1]).all()
