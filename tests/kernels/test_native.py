"""The native kernels on every instruction set of this machine, against float64 arithmetic.

What all kernel sets share is tested in test_reference.py; here are odd sizes, each instruction
set, and what only the extension can get wrong. The bitwise laws are in test_native_laws.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("hexad.kernels._native")

from hexad.errors import ConfigError, KernelError
from hexad.kernels import _native
from hexad.kernels.native import NativeOps, available_isas
from hexad.kernels.ops import LEAVES, SAMPLING, Dtype
from hexad.kernels.philox import gumbel_noise

ISAS = available_isas()


@pytest.fixture(params=ISAS, scope="module")
def ops(request: pytest.FixtureRequest) -> NativeOps:
    return NativeOps(2, request.param)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def bfloat16(x: np.ndarray) -> np.ndarray:
    return x.astype(ml_dtypes.bfloat16)


def sampling(rows: int, **how: float) -> np.ndarray:
    how_R = np.empty(rows, SAMPLING)
    for name, default in (("temperature", 1), ("top_k", 0), ("top_p", 1), ("min_p", 0)):
        how_R[name] = how.get(name, default)
    how_R["seed"] = np.arange(rows, dtype=np.uint64) * np.uint64(2**33 + 1)
    how_R["position"] = np.arange(rows) + 2**33
    return how_R


# ---- linear


@pytest.mark.parametrize("leaves", [1, LEAVES])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(1, 1), (16, 2), (17, 5), (64, 64), (203, 131), (130, 1100), (300, 16)])
def test_linear_is_the_matrix_product(ops: NativeOps, shape: tuple[int, int], dtype: Dtype, leaves: int) -> None:
    """Any N and K, rows on both sides of every register block, weights in each host dtype."""
    outputs, inputs = shape
    weight, bias = normal(outputs, inputs, seed=1), normal(outputs, seed=2)
    hosts = (weight, bfloat16(weight), weight.astype(np.float16))
    for rows, host in zip((1, 2, 7, 13, 100, 200), (*hosts, *hosts), strict=True):
        x = normal(rows, inputs)
        packed = ops.pack_linear(host, dtype, leaves=leaves)
        wide = [a if dtype == "float32" else bfloat16(a) for a in (x, np.asarray(host, np.float32))]
        expected = wide[0].astype(np.float64) @ wide[1].astype(np.float64).T + bias
        np.testing.assert_allclose(ops.linear(x, packed, bias), expected, atol=2e-6 * inputs + 2e-5)


def test_a_weight_of_any_alignment_and_a_strided_input(ops: NativeOps) -> None:
    """A safetensors file is a read-only map in which a tensor may start at any byte."""
    weight, x = normal(40, 24), normal(5, 30)
    raw = bytes(3) + weight.tobytes()
    mapped = np.frombuffer(raw, np.uint8)[3:].view(np.float32).reshape(weight.shape)
    got = ops.linear(x[:, 6:], ops.pack_linear(mapped, "float32"))
    np.testing.assert_array_equal(got, ops.linear(x[:, 6:].copy(), ops.pack_linear(weight, "float32")))


def test_every_float16_is_converted_exactly(ops: NativeOps) -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)]
    got = ops.linear(np.ones((1, 1), np.float32), ops.pack_linear(every[:, None], "float32"))[0]
    np.testing.assert_array_equal(got, every.astype(np.float32))


def test_bfloat16_weights_are_rounded_to_even(ops: NativeOps) -> None:
    bits = np.arange(0x3F7F8000, 0x3F838000, 0x1FF, dtype=np.uint32)
    values = np.append(bits.view(np.float32), [np.inf, -np.inf, 3.4e38]).astype(np.float32)
    got = ops.linear(np.ones((1, 1), np.float32), ops.pack_linear(values[:, None], "bfloat16"))[0]
    np.testing.assert_array_equal(got, bfloat16(values).astype(np.float32))


# ---- rows


@pytest.mark.parametrize("width", [1, 15, 16, 33, 200])
def test_norms_of_odd_widths_and_strided_heads(ops: NativeOps, width: int) -> None:
    fused, weight = normal(5, 3, width + 7), normal(width, seed=1)
    x = fused[:, :, 3 : 3 + width]
    wide = x.astype(np.float64)
    expected = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-5) * weight
    np.testing.assert_allclose(ops.rms_norm(x, weight, 1e-5), expected, rtol=2e-6, atol=1e-6)
    residual, rows = normal(5, width, seed=2), x[:, 1]
    summed = rows + residual
    got = ops.add_rms_norm(rows, residual, weight, 1e-5)
    np.testing.assert_array_equal(residual, summed)
    np.testing.assert_array_equal(got, ops.rms_norm(summed, weight, 1e-5))


def test_silu_within_three_units_in_the_last_place(ops: NativeOps) -> None:
    """exp is 2 ulp on its range; the division and the product round once each."""
    gate = np.concatenate((np.linspace(-87, 87, 100_001), np.logspace(-30, 1.9, 1000))).astype(np.float32)
    got = ops.silu_mul(np.concatenate((gate, np.ones_like(gate)))[None])[0]
    wide = gate.astype(np.float64)
    exact = wide / (1 + np.exp(-wide))
    assert (np.abs(got - exact) / np.spacing(np.abs(exact).astype(np.float32))).max() < 4


def test_silu_at_the_ends(ops: NativeOps) -> None:
    gate = np.array([-np.inf, -200, -0.0, 200, np.inf, np.nan], np.float32)
    got = ops.silu_mul(np.concatenate((gate, np.ones_like(gate)))[None])[0]
    np.testing.assert_array_equal(got[1:], np.array([got[1], 0, 200, np.inf, np.nan], np.float32))
    assert abs(got[1]) < 1e-30


def test_embedding_of_an_odd_width(ops: NativeOps) -> None:
    table, ids = bfloat16(normal(50, 37)), np.array([49, 0, 49, 7] * 200, np.int32)
    np.testing.assert_array_equal(ops.embedding(table, ids), table.astype(np.float32)[ids])


# ---- logits


def brute_force(logits_V: np.ndarray, how: SAMPLING, row: int) -> int:
    """The docstring of Ops.sample by a full sort, in float64."""
    scaled = (logits_V / how["temperature"][row]).astype(np.float64)
    order = np.lexsort((np.arange(len(scaled)), -scaled))
    odds = np.exp(scaled[order] - scaled[order[0]])
    kept = order[odds >= how["min_p"][row]]
    kept = kept[: how["top_k"][row] or None]
    mass = np.cumsum(odds[: len(kept)])
    if how["top_p"][row] < 1:
        kept = kept[: 1 + int(np.searchsorted(mass, how["top_p"][row] * mass[-1]))]
    noise = gumbel_noise(int(how["seed"][row]), int(how["position"][row]), len(scaled))
    return int(min(kept, key=lambda token: (-(scaled[token] + noise[token]), token)))


@pytest.mark.parametrize("vocab", [5, 64, 1003, 9000])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"temperature": 0.05},
        {"temperature": 30},
        {"top_k": 1},
        {"top_k": 40},
        {"top_k": 700},
        {"top_p": 0.9},
        {"top_p": 0.999, "temperature": 30},
        {"min_p": 0.1},
        {"temperature": 2, "top_k": 300, "top_p": 0.7, "min_p": 0.001},
    ],
)
def test_sampling_is_the_brute_force_sort(ops: NativeOps, vocab: int, how: dict[str, float]) -> None:
    rows = 24
    logits, settings = normal(rows, vocab) * 3, sampling(rows, **how)
    logits[:, ::7] = -np.inf
    got = ops.sample(logits, settings)
    assert got.tolist() == [brute_force(logits[row], settings, row) for row in range(rows)]


def test_top_k_among_equals_keeps_the_lowest_ids(ops: NativeOps) -> None:
    logits, rows = np.zeros((200, 500), np.float32), 200
    logits[:, 100:] = 1
    tokens = ops.sample(logits, sampling(rows, top_k=7))
    assert set(tokens) == set(range(100, 107))


def test_sampled_tokens_have_the_probabilities_of_softmax(ops: NativeOps) -> None:
    """Pearson's chi-square over positions of one seed, all tokens and the best five."""
    logits, draws = normal(12), 20_000
    for top_k, critical in ((0, 31.3), (5, 18.5)):  # the 0.1 % points with 11 and 4 degrees of freedom
        how = sampling(draws, top_k=top_k)
        how["position"], how["seed"] = np.arange(draws), 9
        counts = np.bincount(ops.sample(np.tile(logits, (draws, 1)), how), minlength=12)
        kept = np.argsort(-logits)[: top_k or None]
        shares = np.zeros(12)
        shares[kept] = np.exp(logits[kept]) / np.exp(logits[kept]).sum() * draws
        assert counts[shares == 0].sum() == 0
        assert ((counts[kept] - shares[kept]) ** 2 / shares[kept]).sum() < critical


def test_a_nan_logit_is_not_chosen(ops: NativeOps) -> None:
    logits = normal(64, 100)
    logits[:, [0, 50, 99]] = np.nan
    for how in ({"temperature": 0}, {}, {"top_k": 90}, {"top_p": 0.99}):
        assert not set(ops.sample(logits, sampling(64, **how))) & {0, 50, 99}


@pytest.mark.parametrize("vocab", [3, 1000, 5003])
def test_top_logprobs_by_a_full_sort(ops: NativeOps, vocab: int) -> None:
    logits = np.round(normal(6, vocab), 2)  # with many equals
    chosen = np.arange(6, dtype=np.int32) % vocab
    got = ops.top_logprobs(logits, chosen, n := min(vocab, 200))
    wide = logits.astype(np.float64)
    logprobs = wide - np.log(np.exp(wide).sum(1, keepdims=True))
    order = np.argsort(-wide, axis=1, kind="stable")[:, :n]
    np.testing.assert_array_equal(got.ids_RN, order)
    np.testing.assert_allclose(got.logprobs_RN, np.take_along_axis(logprobs, order, 1), atol=2e-6)
    np.testing.assert_allclose(got.chosen_R, logprobs[np.arange(6), chosen], atol=2e-6)
    expected_rank = 1 + (logits > logits[np.arange(6), chosen][:, None]).sum(1)
    np.testing.assert_array_equal(got.rank_R, expected_rank)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # Random123's kat_vectors, "philox4x32 10"
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(
    counter: tuple[int, int, int, int], key: tuple[int, int], words: tuple[int, int, int, int]
) -> None:
    assert _native.philox4x32(counter, key) == words


# ---- what is refused


def test_arrays_that_do_not_fit_are_refused_by_name() -> None:
    ops = NativeOps(1)
    packed = ops.pack_linear(normal(4, 8), "float32")
    with pytest.raises(KernelError, match=r"x_TK must have shape \[any, 8\], not \[2, 9\]"):
        ops.linear(normal(2, 9), packed)
    with pytest.raises(KernelError, match="x_TK must be float32"):
        ops.linear(np.zeros((2, 8)), packed)
    with pytest.raises(KernelError, match=r"weight_NK must be float32 or bfloat16 or float16, not .* of 8 bytes"):
        ops.pack_linear(np.zeros((4, 8)), "float32")
    with pytest.raises(KernelError, match="leaves is 3"):
        ops.pack_linear(normal(4, 8), "float32", leaves=3)
    with pytest.raises(KernelError, match="token_ids_T has 9 at index 1; token ids are 0 to 8"):
        ops.embedding(normal(9, 4), np.array([0, 9], np.int32))
    with pytest.raises(KernelError, match="n is 41"):
        ops.top_logprobs(normal(1, 40), np.zeros(1, np.int32), 41)


NEEDS = {  # as Linux spells what the CPU and the system offer
    "avx512": "avx2 fma f16c avx512f avx512bw avx512vl avx512dq avx512_vnni avx512_bf16",
    "avx2": "avx2 fma f16c",
    "neon_dotprod": "asimddp",
    "neon": "asimd",
    "portable": "",
}


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="what the CPU has is read from /proc/cpuinfo")
def test_the_sets_are_those_of_the_cpu_best_first() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert [isa for isa in ISAS if isa != "amx"] == [isa for isa, needs in NEEDS.items() if flags >= set(needs.split())]
    assert "amx" not in ISAS or "amx_int8" in flags


def test_an_instruction_set_can_be_forced() -> None:
    assert NativeOps(1, "portable").name == "native (portable, 1 thread)"
    with pytest.raises(ConfigError, match=r"'sse9'.*portable"):
        NativeOps(1, "sse9")
    with pytest.raises(ConfigError, match="threads is 0"):
        NativeOps(0)


@pytest.mark.parametrize(("word", "said"), [("portable", "native (portable, 1 thread)"), ("sse9", "ConfigError")])
def test_the_environment_forces_an_instruction_set(word: str, said: str) -> None:
    program = "from hexad.kernels.native import NativeOps; print(NativeOps(1).name)"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "HEXAD_ISA": word}, capture_output=True, text=True
    )
    assert said in done.stdout + done.stderr


# ---- threads


def test_two_python_threads_may_call_at_once() -> None:
    """One has the pool, the other does its op alone; both get the same bits."""
    ops, x = NativeOps(2), normal(64, 700)
    packed = ops.pack_linear(normal(900, 700, seed=1), "float32")
    expected = ops.linear(x, packed).tobytes()
    with ThreadPoolExecutor(4) as callers:
        results = list(callers.map(lambda _: ops.linear(x, packed).tobytes() == expected, range(200)))
    assert all(results)


def test_a_forked_child_can_still_compute_and_exit() -> None:
    """The workers do not exist in the child: it does the work alone, and does not wait for them at its end."""
    program = (
        "import os, numpy as np; from hexad.kernels.native import NativeOps; "
        "ops, x = NativeOps(2), np.ones((64, 512), np.float32); packed = ops.pack_linear(np.ones((512, 512), "
        "np.float32), 'float32'); ops.linear(x, packed); child = os.fork(); done = ops.linear(x, packed).sum(); "
        "assert done == 64 * 512 * 512; del ops; child and print(os.waitpid(child, 0)[1])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "0\n", done.stderr


def test_pools_come_and_go() -> None:
    x = normal(40, 300)
    results = set()
    for threads in (1, 2, 3, 2, 1, 4):
        ops = NativeOps(threads)
        results.add(ops.linear(x, ops.pack_linear(normal(500, 300, seed=1), "float32")).tobytes())
    assert len(results) == 1
