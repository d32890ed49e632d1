"""The emulated formats against the gguf package, which llama.cpp's authors wrote, and against values worked by hand."""

from collections.abc import Callable

import gguf
import numpy as np
import pytest

from hexad.bench import formats
from hexad.errors import ConfigError

ALL = (
    formats.openvino_int8,
    formats.openvino_int4,
    formats.openvino_inputs,
    formats.ggml_q8_0,
    formats.ggml_q4_0,
    formats.INT8.round,
    formats.INT4.round,
)


def blocks(seed: int) -> np.ndarray:
    """Rows with outliers, tiny and whole values, halves of a step, ties of magnitude, and zeros."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((48, 256), np.float32) * 0.02
    x[:8, ::37] *= 40
    x[8:16] = rng.integers(-4, 5, (8, 256))
    x[16:20] *= 1e-6
    x[20:24, :64] = 0
    x[24:28, 5], x[24:28, 9] = 0.5, -0.5
    x[28:32] = rng.integers(-253, 254, (4, 256)) / 2
    x[28:32, ::32] = 127
    return x


@pytest.mark.parametrize(
    ("rounding", "kind"),
    [(formats.ggml_q8_0, gguf.GGMLQuantizationType.Q8_0), (formats.ggml_q4_0, gguf.GGMLQuantizationType.Q4_0)],
)
def test_ggml_formats_hold_what_gguf_holds(rounding: formats.Rounding, kind: gguf.GGMLQuantizationType) -> None:
    for seed in range(4):
        x = blocks(seed)
        held = gguf.quants.dequantize(gguf.quants.quantize(x, kind), kind)
        assert np.array_equal(rounding(x), held)


def test_openvino_int8_by_hand() -> None:
    """(1.55 - -1) / 255 = 0.01, so 0 lies at 100; the scale is kept in float16."""
    held = formats.openvino_int8(np.array([[-1, 0, 0.5, 0.124, 1.55]], np.float32))
    assert np.array_equal(held, np.float32(np.float16(0.01)) * np.array([[-100, 0, 50, 12, 155]], np.float32))


def test_openvino_int8_of_rows_on_one_side_of_zero() -> None:
    """No zero point below 0: (4 - 2) / 255 a step from 0 clips at 255 steps."""
    held = formats.openvino_int8(np.array([[2, 4]], np.float32))
    assert np.allclose(held, [[2, 2]], rtol=1e-3)


def test_openvino_int4_by_hand() -> None:
    """The end of greater magnitude is -8 times the scale; where both are equal it is the negative one."""
    weight = np.array([[-4, 1, 2, 3.2], [4, -1, 1.2, 0.3], [-4, 4, 0, 0.2]], np.float32)
    expected = np.array([[-4, 1, 2, 3], [4, -1, 1, 0.5], [-4, 3.5, 0, 0]], np.float32)
    assert np.array_equal(formats.openvino_int4(weight, group=4), expected)
    side_by_side = formats.openvino_int4(weight.reshape(1, 12), group=4)
    assert np.array_equal(side_by_side, expected.reshape(1, 12))


def test_openvino_inputs_by_hand() -> None:
    x = np.zeros((1, 64), np.float32)
    x[0, 0], x[0, 1], x[0, 33] = 127, 0.6, 0.6
    held = formats.openvino_inputs(x)
    assert held[0, 0] == 127 and held[0, 1] == 1 and np.isclose(held[0, 33], 0.6)


@pytest.mark.parametrize("rounding", ALL)
def test_a_row_knows_nothing_of_the_others(rounding: Callable[[np.ndarray], np.ndarray]) -> None:
    x = blocks(0)
    whole = rounding(x)
    assert whole.dtype == np.float32 and whole.shape == x.shape
    assert np.array_equal(whole[7:9], rounding(x[7:9])) and rounding(x[:0]).shape == (0, 256)


def test_inputs_that_are_no_whole_blocks_are_refused() -> None:
    with pytest.raises(ConfigError, match="a linear has 100 inputs; this format needs a multiple of 32"):
        formats.ggml_q4_0(np.zeros((2, 100), np.float32))
