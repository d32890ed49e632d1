"""Every kernel set against torch, float64 arithmetic and transformers' samplers."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from hexad.errors import ConfigError, KernelError
from hexad.kernels.load import load
from hexad.kernels.ops import KV, LEAVES, PAGE_SIZE, SAMPLING, Ops, Step
from hexad.kernels.philox import gumbel_noise
from hexad.kernels.reference import ReferenceOps
from hexad.kernels.torch_set import TorchOps
from hexad.testing.step import Piece, make_step
from tests.kernel_sets import KINDS, ops_of

torch.set_num_threads(1)


@pytest.fixture(params=KINDS)
def ops(request: pytest.FixtureRequest) -> Ops:
    return ops_of(request.param)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def sampling(rows: int, **how: float) -> np.ndarray:
    how_R = np.empty(rows, SAMPLING)
    for name, default in (("temperature", 1), ("top_k", 0), ("top_p", 1), ("min_p", 0)):
        how_R[name] = how.get(name, default)
    how_R["seed"] = np.arange(rows).astype(np.uint64) + np.uint64(2**40)
    how_R["position"] = how.get("position", 7)
    return how_R


# ---- linear


@pytest.mark.parametrize("leaves", [1, LEAVES])
@pytest.mark.parametrize("shape", [(5, 16, 8), (3, 40, 91), (1, 7, 8)])
def test_linear_is_the_matrix_product(ops: Ops, shape: tuple[int, int, int], leaves: int) -> None:
    rows, outputs, inputs = shape
    x, weight, bias = normal(rows, inputs), normal(outputs, inputs, seed=1), normal(outputs, seed=2)
    packed = ops.pack_linear(weight, "float32", leaves=leaves)
    got = ops.to_host(ops.linear(ops.array(x), packed, ops.array(bias)))
    np.testing.assert_allclose(got, x.astype(np.float64) @ weight.T.astype(np.float64) + bias, atol=2e-5)


def test_bfloat16_linear_rounds_rows_and_sums_in_float32() -> None:
    ops, x, weight = ReferenceOps(), normal(6, 64), normal(32, 64, seed=1)
    got = ops.linear(x, ops.pack_linear(weight, "bfloat16", leaves=LEAVES))
    rounded = [a.astype(ml_dtypes.bfloat16).astype(np.float64) for a in (x, weight)]
    np.testing.assert_allclose(got, rounded[0] @ rounded[1].T, atol=1e-5)
    assert np.abs(got - x @ weight.T).max() > 1e-3


def test_float16_weights_are_taken(ops: Ops) -> None:
    x, weight = normal(4, 16), normal(8, 16, seed=1).astype(np.float16)
    got = ops.to_host(ops.linear(ops.array(x), ops.pack_linear(weight, "float32")))
    np.testing.assert_allclose(got, x @ weight.astype(np.float32).T, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_of_a_linear_does_not_see_its_neighbours(dtype: str) -> None:
    ops, x = ReferenceOps(), normal(37, 203)
    packed = ops.pack_linear(normal(130, 203, seed=1), dtype, leaves=LEAVES)
    together = ops.linear(x, packed)
    for low, high in ((0, 1), (5, 6), (7, 23), (36, 37)):
        np.testing.assert_array_equal(ops.linear(x[low:high], packed), together[low:high])
    offset = np.concatenate((normal(37, 5), x), axis=1)[:, 5:]  # strided, and at another alignment
    np.testing.assert_array_equal(ops.linear(offset, packed), together)


def test_a_linear_does_not_depend_on_the_threads_of_the_blas() -> None:
    program = (
        "import sys, numpy as np, hashlib; from hexad.kernels.reference import ReferenceOps as R; "
        "g = np.random.default_rng(0); digest = hashlib.sha256()\n"
        "for n, k in ((2048, 1031), (16, 65536), (3, 300007)):\n"
        "    w, x = g.standard_normal((n, k), np.float32), g.standard_normal((2, k), np.float32)\n"
        "    digest.update(R().linear(x, R().pack_linear(w, 'float32', leaves=8)).tobytes())\n"
        "    digest.update(R().linear(x, R().pack_linear(w, 'float32')).tobytes())\n"
        "print(digest.hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == hashlib.sha256().digest_size * 2


def test_linear_refuses_what_it_cannot_take() -> None:
    ops = ReferenceOps()
    with pytest.raises(KernelError, match="leaves is 3"):
        ops.pack_linear(normal(4, 8), "float32", leaves=3)
    with pytest.raises(KernelError, match="float64"):
        ops.pack_linear(np.zeros((4, 8)), "float32")
    with pytest.raises(KernelError, match=r"8 inputs.*rows of 9"):
        ops.linear(normal(2, 9), ops.pack_linear(normal(4, 8), "float32"))


# ---- elementwise, against torch


def test_rms_norm(ops: Ops) -> None:
    x, weight = normal(5, 4, 32), normal(32, seed=1)
    expected = torch.nn.functional.rms_norm(torch.tensor(x), (32,), torch.tensor(weight), 1e-5).numpy()
    np.testing.assert_allclose(ops.to_host(ops.rms_norm(ops.array(x), ops.array(weight), 1e-5)), expected, atol=1e-5)


def test_add_rms_norm_adds_in_place(ops: Ops) -> None:
    x, residual, weight = normal(5, 32), normal(5, 32, seed=1), normal(32, seed=2)
    held = ops.array(residual.copy())
    got = ops.to_host(ops.add_rms_norm(ops.array(x), held, ops.array(weight), 1e-6))
    expected = torch.nn.functional.rms_norm(torch.tensor(x + residual), (32,), torch.tensor(weight), 1e-6)
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)
    np.testing.assert_array_equal(ops.to_host(held), x + residual)


def test_silu_mul(ops: Ops) -> None:
    gate_up = normal(3, 40) * 4
    gate_up[0, :3] = (-200, 0, 200)
    gate, up = torch.tensor(gate_up).chunk(2, dim=1)
    expected = (torch.nn.functional.silu(gate) * up).numpy()
    np.testing.assert_allclose(ops.to_host(ops.silu_mul(ops.array(gate_up))), expected, atol=1e-5, rtol=1e-5)


def test_embedding_and_take_rows(ops: Ops) -> None:
    table = normal(9, 4).astype(ml_dtypes.bfloat16)
    ids = np.array([8, 0, 8, 3], np.int32)
    rows = ops.embedding(ops.array(table), ops.array(ids))
    np.testing.assert_array_equal(ops.to_host(rows), table.astype(np.float32)[[8, 0, 8, 3]])
    taken = ops.to_host(ops.take_rows(rows, ops.array(np.array([1, 3], np.int32))))
    np.testing.assert_array_equal(taken, table.astype(np.float32)[[0, 3]])


# ---- attention over pages


def written(ops: Ops, lengths: list[int], chunk: int, heads: int, groups: int, width: int) -> tuple[list[Step], KV]:
    """Steps of up to `chunk` tokens for sequences on shuffled pages, over pages full of NaN."""
    pages = np.random.default_rng(3).permutation(64)
    counts = np.cumsum([0] + [-(-length // PAGE_SIZE) for length in lengths])
    steps = []
    for start in range(0, max(lengths), chunk):
        pieces = [
            Piece(range(start, min(length, start + chunk)), start, pages[counts[i] : counts[i + 1]].tolist())
            for i, length in enumerate(lengths)
            if start < length
        ]
        steps.append(make_step(ops, pieces))
    kv = ops.new_kv(64, groups, width, "float32")
    for cache in kv:
        cache[:] = float("nan")
    return steps, kv


@pytest.mark.parametrize("window", [0, 1, 16, 100])
def test_attention_over_pages_is_softmax_attention(ops: Ops, window: int) -> None:
    """Chunks of 50 over stale pages, against float64 attention of the whole sequence at once."""
    heads, groups, width, lengths = 6, 2, 8, [1, 16, 17, 300, 129]
    steps, kv = written(ops, lengths, 50, heads, groups, width)
    cos_sin = ops.array(np.concatenate((np.ones((512, 4)), np.zeros((512, 4))), axis=1).astype(np.float32))
    q, k, v = (normal(len(lengths), 300, n, width, seed=s) for s, n in enumerate((heads, groups, groups)))
    got: list[list[np.ndarray]] = [[] for _ in lengths]
    for step in steps:
        position = ops.to_host(step.positions_T)
        alive = [i for i, length in enumerate(lengths) if length > position[0]]
        starts = ops.to_host(step.query_starts_S1)
        sequence = np.repeat(alive, np.diff(starts))
        turned = ops.rope_kv_write(*(ops.array(x[sequence, position]) for x in (q, k, v)), cos_sin, step, kv)
        rows = ops.to_host(ops.attention(turned, step, kv, 0.3, window))
        for i, start, end in zip(alive, starts, starts[1:], strict=False):
            got[i].append(rows[start:end])
    for i, length in enumerate(lengths):
        keys, values = (np.repeat(x[i, :length].astype(np.float64), heads // groups, axis=1) for x in (k, v))
        scores = np.einsum("qhe,khe->hqk", q[i, :length], keys) * 0.3
        behind = np.arange(length)[:, None] - np.arange(length)
        scores[:, (behind < 0) | ((behind >= window) if window else False)] = -np.inf
        shares = torch.softmax(torch.tensor(scores), -1).numpy()
        expected = np.einsum("hqk,khe->qhe", shares, values).reshape(length, -1)
        np.testing.assert_allclose(np.concatenate(got[i]), expected, atol=2e-6)


def test_rope_turns_halves_and_reads_strided_views(ops: Ops) -> None:
    """Element i and i + E/2 are the two coordinates of a point, turned by the table's angle."""
    steps, kv = written(ops, [20], 20, 2, 1, 8)
    angles = np.outer(np.arange(20), [1.0, 0.1, 0.01, 0.001])
    table = np.concatenate((np.cos(angles), np.sin(angles)), axis=1).astype(np.float32)
    fused = normal(20, 32)
    held = ops.array(fused)
    views = (held[:, :16].reshape(20, 2, 8), held[:, 16:24].reshape(20, 1, 8), held[:, 24:].reshape(20, 1, 8))
    got = ops.to_host(ops.rope_kv_write(*views, ops.array(table), steps[0], kv))
    points = fused[:, :16].reshape(20, 2, 2, 4)
    turned = (points[:, :, 0] + 1j * points[:, :, 1]) * np.exp(1j * angles)[:, None]
    np.testing.assert_allclose(got, np.concatenate((turned.real, turned.imag), axis=-1), atol=1e-6)
    page, offset = divmod(int(ops.to_host(steps[0].slots_T)[17]), PAGE_SIZE)
    np.testing.assert_array_equal(ops.to_host(kv.v_pages)[page, 0, offset], fused[17, 24:])


def test_copy_pages(ops: Ops) -> None:
    kv = ops.new_kv(4, 2, 8, "float32")
    kv.k_pages[1], kv.v_pages[2] = 5.0, 7.0
    ops.copy_pages(kv, ops.array(np.array([1, 2], np.int32)), ops.array(np.array([3, 0], np.int32)))
    np.testing.assert_array_equal(ops.to_host(kv.k_pages)[:, 0, 0, 0], [0, 5, 0, 5])
    np.testing.assert_array_equal(ops.to_host(kv.v_pages)[:, 0, 0, 0], [7, 0, 7, 0])


# ---- sampling


def test_greedy_takes_the_lowest_of_equals(ops: Ops) -> None:
    logits = np.zeros((3, 50), np.float32)
    logits[1, [7, 31]] = 2
    logits[2, 49] = 1
    np.testing.assert_array_equal(ops.sample(ops.array(logits), sampling(3, temperature=0)), [0, 7, 49])


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"temperature": 0.3},
        {"top_k": 5},
        {"top_p": 0.5},
        {"min_p": 0.2},
        {"temperature": 1.7, "min_p": 0.05, "top_k": 12, "top_p": 0.8},
        {"top_p": 1e-6},
        {"min_p": 1.0},
    ],
)
def test_filters_keep_what_transformers_keeps(ops: Ops, how: dict[str, float]) -> None:
    """The token is the one of highest logit + noise among those that transformers' warpers leave."""
    logits, rows = normal(64, 100) * 2, 64
    warpers = LogitsProcessorList([TemperatureLogitsWarper(float(how.get("temperature", 1.0)))])
    if "min_p" in how:
        warpers.append(MinPLogitsWarper(how["min_p"]))
    if "top_k" in how:
        warpers.append(TopKLogitsWarper(int(how["top_k"])))
    if "top_p" in how:
        warpers.append(TopPLogitsWarper(how["top_p"]))
    warped = warpers(None, torch.tensor(logits)).double().numpy()
    noise = np.stack([gumbel_noise(2**40 + row, 7, 100) for row in range(rows)])
    np.testing.assert_array_equal(ops.sample(ops.array(logits), sampling(rows, **how)), np.argmax(warped + noise, 1))


def test_sampled_tokens_have_the_probabilities_of_softmax() -> None:
    """Pearson's chi-square over 20,000 positions of one row."""
    logits, draws = normal(12), 20_000
    how = sampling(draws)
    how["position"], how["seed"] = np.arange(draws), 3
    counts = np.bincount(ReferenceOps().sample(np.tile(logits, (draws, 1)), how), minlength=12)
    expected = torch.softmax(torch.tensor(logits).double(), -1).numpy() * draws
    assert ((counts - expected) ** 2 / expected).sum() < 24.7  # the 1 % point with 11 degrees of freedom


@pytest.mark.parametrize("temperature", [0, 1, 1e-39])
def test_masked_rows_and_overflowing_logits(ops: Ops, temperature: float) -> None:
    """A masked token is never drawn, no token where all are; 1e-39 turns logits into infinities."""
    logits = np.full((3, 10), -np.inf, np.float32)
    logits[0, 4] = 1.0
    logits[2, 3:] = np.abs(normal(7))
    tokens = ops.sample(ops.array(logits), sampling(3, temperature=temperature))
    assert tokens.dtype == np.int32
    assert tokens[:2].tolist() == [4, -1]
    assert tokens[2] >= 3
    if temperature != 1:
        assert tokens[2] == np.argmax(logits[2])


def test_top_logprobs(ops: Ops) -> None:
    logits = normal(5, 40)
    logits[0, 3] = logits[0, 20] = logits[0].max() + 1
    chosen = np.array([20, 1, 2, 3, 39], np.int32)
    got = ops.top_logprobs(ops.array(logits), chosen, 4)
    expected = torch.log_softmax(torch.tensor(logits).double(), -1).numpy()
    np.testing.assert_allclose(got.chosen_R, expected[np.arange(5), chosen], atol=1e-6)
    np.testing.assert_allclose(got.logprobs_RN, -np.sort(-expected, axis=1)[:, :4], atol=1e-6)
    np.testing.assert_array_equal(got.ids_RN[0, :2], [3, 20])
    np.testing.assert_array_equal(got.rank_R, [1 + np.sum(row > row[c]) for row, c in zip(logits, chosen, strict=True)])


# ---- choosing a set


def test_a_set_that_cannot_run_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="kernels=torch"):
        load("reference", 1, device="cuda")
    with pytest.raises(ConfigError, match=r"nonsense.*try cpu"):
        load("torch", 1, device="nonsense")
    monkeypatch.setattr("hexad.kernels.load._EXTENSION", "hexad.kernels._no_such_extension")
    with pytest.raises(ConfigError, match="not built"):
        load("native", 1)


def test_auto_falls_back_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hexad.kernels.load._EXTENSION", "hexad.kernels._no_such_extension")
    loaded = load("auto", 1)
    assert loaded.ops.name == "reference (numpy)"
    assert "not built" in loaded.note


def test_an_extension_that_does_not_load_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "hexad_broken_extension.py").write_text("raise ImportError('GLIBC_2.99 not found')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("hexad.kernels.load._EXTENSION", "hexad_broken_extension")
    assert "GLIBC_2.99" in load("auto", 1).note
    with pytest.raises(ConfigError, match=r"GLIBC_2\.99"):
        load("native", 1)


def test_the_cpu_path_does_not_import_torch() -> None:
    program = (
        "import sys, hexad.kernels.load, hexad.kernels.reference, hexad.models.build as b; "
        "b.families(); hexad.kernels.load.load('auto', 1); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_torch_set_takes_bfloat16_bits_as_they_are() -> None:
    x = normal(3, 5).astype(ml_dtypes.bfloat16)
    held = TorchOps().array(x)
    assert held.dtype == torch.bfloat16
    np.testing.assert_array_equal(held.float().numpy(), x.astype(np.float32))
