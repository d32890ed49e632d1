"""The noise, against Random123's published vectors and the distribution it claims."""

import numpy as np
import pytest

from hexad.kernels.philox import gumbel_noise, philox4x32

# kat_vectors of Random123 (Salmon et al.), lines "philox4x32 10".
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], np.uint32)


@pytest.mark.parametrize(("counter", "key", "bits"), KNOWN_ANSWERS)
def test_random123_known_answers(counter: str, key: str, bits: str) -> None:
    low, high = words(key)
    np.testing.assert_array_equal(philox4x32(words(counter), (int(low), int(high))), words(bits))


def test_noise_follows_the_specified_counter_and_key() -> None:
    """All-ones seed and the lanes of a counter, worked out by hand from the specification."""
    seed, position, token = 2**64 - 1, 2**40 + 3, 7
    counter = np.array([token // 4, 3, 2**8, 0], np.uint32)
    bits = int(philox4x32(counter, (0xFFFFFFFF, 0xFFFFFFFF))[token % 4])
    uniform = ((bits >> 8) + 0.5) / 2**24
    assert gumbel_noise(seed, position, 9)[token] == -np.log(-np.log(uniform))


def test_noise_of_a_token_does_not_depend_on_the_vocabulary() -> None:
    np.testing.assert_array_equal(gumbel_noise(5, 9, 13), gumbel_noise(5, 9, 1000)[:13])


def test_noise_differs_by_seed_position_and_token() -> None:
    rows = [gumbel_noise(seed, position, 64) for seed in (0, 1, 2**32) for position in (0, 1, 2**32)]
    assert len(np.unique(np.concatenate(rows))) > 0.99 * 9 * 64


def test_noise_is_standard_gumbel() -> None:
    noise = np.sort(gumbel_noise(1234, 0, 200_000))
    expected = np.exp(-np.exp(-noise))  # the cumulative distribution
    kolmogorov = np.abs(expected - (np.arange(len(noise)) + 0.5) / len(noise)).max()
    assert kolmogorov < 1.63 / np.sqrt(len(noise))  # the 1 % point
