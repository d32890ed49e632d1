"""The reference set: every op in numpy, as plainly as it can be said.

It is the oracle of the other sets, and what runs where no C++ compiler was found. It keeps the
law too: whatever sums floats does so row by row, in calls whose shapes depend on the model
only, so that a row's bits depend on nothing but the row. It knows nothing of models.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from hexad.errors import KernelError
from hexad.kernels.ops import KV, LEAVES, PAGE_SIZE, Dtype, Step, TopLogprobs, WeightFormat
from hexad.kernels.philox import gumbel_noise
from hexad.kernels.quantize import Quantized, fma, quantize_rows, quantize_weight

DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}

BLOCK_KEYS = 128
"""Keys that attention looks at together, counted from position 0 of the sequence."""


class PackedLinear(NamedTuple):
    """A weight as contiguous leaves over the inputs, leaf i [N, K_i], all float32 or all bfloat16."""

    leaves: tuple[np.ndarray, ...]

    @property
    def inputs(self) -> int:
        return sum(leaf.shape[1] for leaf in self.leaves)


class IntegerLinear(NamedTuple):
    """An int8 weight as one group of inputs, or an int4 one. Leaf i covers groups [i*n//leaves, (i+1)*n//leaves)."""

    weight: Quantized
    inputs: int
    format: WeightFormat
    leaves: int


class ReferenceOps:
    """The numpy implementation of `hexad.kernels.ops.Ops`."""

    name = "reference (numpy)"

    def array(self, host: np.ndarray) -> np.ndarray:
        return host

    def to_host(self, x: np.ndarray) -> np.ndarray:
        return x

    def pack_linear(
        self, weight_NK: np.ndarray, format: WeightFormat, *, leaves: int = 1
    ) -> PackedLinear | IntegerLinear:
        if leaves not in (1, LEAVES):
            raise KernelError(f"leaves is {leaves}; it must be 1 or {LEAVES}", param="leaves")
        if weight_NK.ndim != 2 or weight_NK.dtype not in DTYPES.values():
            raise KernelError(
                f"a linear's weight is {weight_NK.dtype} {list(weight_NK.shape)}; "
                f"it must be [N, K] of {', '.join(DTYPES)}",
                param="weight_NK",
            )
        inputs = weight_NK.shape[1]
        if format not in DTYPES:
            return IntegerLinear(quantize_weight(weight_NK, format), inputs, format, leaves)
        bounds = [leaf * inputs // leaves for leaf in range(leaves + 1)]
        parts = (weight_NK[:, low:high] for low, high in itertools.pairwise(bounds))
        return PackedLinear(tuple(np.array(part, DTYPES[format], order="C") for part in parts))

    def compile(self, forward: Callable[[Step, list[KV]], np.ndarray], kvs: list[KV]) -> Callable[[Step], np.ndarray]:
        return lambda step: forward(step, kvs)

    def linear(
        self, x_TK: np.ndarray, weight: PackedLinear | IntegerLinear, bias_N: np.ndarray | None = None
    ) -> np.ndarray:
        if x_TK.shape[1] != weight.inputs:
            found = f"a linear of {weight.inputs} inputs was called with rows of {x_TK.shape[1]}"
            raise KernelError(found, param="x_TK")
        x_TK = np.ascontiguousarray(x_TK)
        out_TN = _integer_linear(x_TK, weight) if isinstance(weight, IntegerLinear) else _float_linear(x_TK, weight)
        if bias_N is not None:
            out_TN += bias_N
        return out_TN

    def embedding(self, table_VD: np.ndarray, token_ids_T: np.ndarray) -> np.ndarray:
        return np.asarray(table_VD[token_ids_T], np.float32)

    def take_rows(self, x_TD: np.ndarray, rows_R: np.ndarray) -> np.ndarray:
        return np.take(x_TD, rows_R, axis=0)

    def rms_norm(self, x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
        x = np.ascontiguousarray(x)
        mean_square = np.mean(np.square(x), axis=-1, keepdims=True, dtype=np.float32)
        normed: np.ndarray = x * (np.float32(1) / np.sqrt(mean_square + np.float32(eps))) * weight
        return normed

    def add_rms_norm(self, x_TD: np.ndarray, residual_TD: np.ndarray, weight_D: np.ndarray, eps: float) -> np.ndarray:
        residual_TD += x_TD
        return self.rms_norm(residual_TD, weight_D, eps)

    def rope_kv_write(
        self, q_THE: np.ndarray, k_TGE: np.ndarray, v_TGE: np.ndarray, cos_sin: np.ndarray, step: Step, kv: KV
    ) -> np.ndarray:
        half = q_THE.shape[-1] // 2
        angles_T1E = cos_sin[step.positions_T][:, None, :]
        cos, sin = angles_T1E[..., :half], angles_T1E[..., half:]
        pages, offsets = step.slots_T // PAGE_SIZE, step.slots_T % PAGE_SIZE
        kv.k_pages[pages, :, :, offsets] = _rotate(k_TGE, cos, sin)
        kv.v_pages[pages, :, offsets, :] = v_TGE
        return _rotate(q_THE, cos, sin)

    def attention(self, q_THE: np.ndarray, step: Step, kv: KV, scale: float, window: int) -> np.ndarray:
        tokens, heads, head_dim = q_THE.shape
        groups = kv.k_pages.shape[1]
        out_THE = np.empty((tokens, heads, head_dim), np.float32)
        for sequence, context_len in enumerate(step.context_lens_S):
            keys, values = _gather(kv, step.page_table_SP[sequence], int(context_len))
            for row in range(step.query_starts_S1[sequence], step.query_starts_S1[sequence + 1]):
                q_GRE = q_THE[row].reshape(groups, heads // groups, head_dim) * np.float32(scale)
                out_GRE = _attend(q_GRE, keys, values, int(step.positions_T[row]), window)
                out_THE[row] = out_GRE.reshape(heads, head_dim)
        return out_THE.reshape(tokens, heads * head_dim)

    def silu_mul(self, gate_up: np.ndarray) -> np.ndarray:
        half = gate_up.shape[1] // 2
        gate, up = np.ascontiguousarray(gate_up[:, :half]), gate_up[:, half:]
        with np.errstate(over="ignore"):  # exp(-gate) = inf gives 0, which is right
            activated: np.ndarray = gate / (np.float32(1) + np.exp(-gate)) * up
        return activated

    def sample(self, logits_RV: np.ndarray, how_R: np.ndarray) -> np.ndarray:
        tokens_R = np.full(len(logits_RV), -1, np.int32)
        for row in np.flatnonzero(np.isfinite(logits_RV.max(axis=1))):
            tokens_R[row] = _sample_row(logits_RV[row], *how_R[row].item())
        return tokens_R

    def top_logprobs(self, logits_RV: np.ndarray, token_ids_R: np.ndarray, n: int) -> TopLogprobs:
        wide_RV = logits_RV.astype(np.float64)
        greatest_R1 = wide_RV.max(axis=1, keepdims=True)
        normaliser_R1 = greatest_R1 + np.log(np.exp(wide_RV - greatest_R1).sum(axis=1, keepdims=True))
        logprobs_RV = (wide_RV - normaliser_R1).astype(np.float32)
        chosen_R1 = np.asarray(token_ids_R).reshape(-1, 1)
        rank_R = 1 + np.sum(logits_RV > np.take_along_axis(logits_RV, chosen_R1, 1), axis=1)
        ids_RN = np.argsort(-logits_RV, axis=1, kind="stable")[:, :n]
        return TopLogprobs(
            chosen_R=np.take_along_axis(logprobs_RV, chosen_R1, 1)[:, 0],
            rank_R=rank_R.astype(np.int32),
            ids_RN=ids_RN.astype(np.int32),
            logprobs_RN=np.take_along_axis(logprobs_RV, ids_RN, 1),
        )

    def new_kv(self, num_pages: int, num_kv_heads: int, head_dim: int, dtype: Dtype) -> KV:
        return KV(
            np.zeros((num_pages, num_kv_heads, head_dim, PAGE_SIZE), DTYPES[dtype]),
            np.zeros((num_pages, num_kv_heads, PAGE_SIZE, head_dim), DTYPES[dtype]),
        )

    def reserve_pages(self, kv: KV, first: int, last: int) -> None:
        """Nothing to gain here."""

    def copy_pages(self, kv: KV, sources: np.ndarray, targets: np.ndarray) -> None:
        for cache in kv:
            cache[targets] = cache[sources]


def _float_linear(x_TK: np.ndarray, weight: PackedLinear) -> np.ndarray:
    """Row by row: one matrix product over all rows would be blocked by how many there are."""
    if weight.leaves[0].dtype != np.float32:
        x_TK = x_TK.astype(weight.leaves[0].dtype).astype(np.float32)
    leaves = [leaf.astype(np.float32, copy=False) for leaf in weight.leaves]
    columns = np.cumsum([0] + [leaf.shape[1] for leaf in leaves])
    out_TN = np.empty((len(x_TK), len(leaves[0])), np.float32)
    for row, x_K in enumerate(x_TK):
        sums = [leaf @ x_K[columns[i] : columns[i + 1]] for i, leaf in enumerate(leaves)]
        out_TN[row] = _sum_leaves(sums)
    return out_TN


def _integer_linear(x_TK: np.ndarray, packed: IntegerLinear) -> np.ndarray:
    """Whole numbers are exact in float64 below 2^53, in whatever order a matrix product sums them."""
    weight, x = packed.weight, quantize_rows(x_TK, packed.weight.values.shape[2])
    sums_GTN = np.matmul(
        x.values.transpose(1, 0, 2).astype(np.float64), weight.values.transpose(1, 2, 0).astype(np.float64)
    ).astype(np.float32)
    if packed.format == "int8":
        scaled: np.ndarray = sums_GTN[0] * x.scales * weight.scales[:, 0]
        return scaled
    groups, bounds = len(sums_GTN), range(packed.leaves + 1)
    sums = []
    for low, high in itertools.pairwise(i * groups // packed.leaves for i in bounds):
        sum_TN = np.zeros(sums_GTN.shape[1:], np.float32)
        for group in range(low, high):
            sum_TN = fma(sums_GTN[group], x.scales[:, group, None] * weight.scales[:, group], sum_TN)
        sums.append(sum_TN)
    return _sum_leaves(sums)


def _sum_leaves(sums: list[np.ndarray]) -> np.ndarray:
    while len(sums) > 1:
        sums = [left + right for left, right in zip(sums[::2], sums[1::2], strict=True)]
    return sums[0]


def _rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """[T, H, E] turned by [T, 1, E/2] angles: element i pairs with element i + E/2."""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    return np.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)


def _gather(kv: KV, page_ids: np.ndarray, context_len: int) -> tuple[np.ndarray, np.ndarray]:
    """A sequence's cache, as whole blocks B of float32 keys [B, G, E, 128] and values [B, G, 128, E].

    What lies behind `context_len` is 0, so that nothing an earlier owner of a page left there,
    not even a NaN, is ever multiplied in.
    """
    pages_a_block = BLOCK_KEYS // PAGE_SIZE
    blocks = -(-context_len // BLOCK_KEYS)
    used = page_ids[: -(-context_len // PAGE_SIZE)]
    _, groups, head_dim, _ = kv.k_pages.shape
    keys = np.zeros((blocks * pages_a_block, groups, head_dim, PAGE_SIZE), np.float32)
    values = np.zeros((blocks * pages_a_block, groups, PAGE_SIZE, head_dim), np.float32)
    keys[: len(used)], values[: len(used)] = kv.k_pages[used], kv.v_pages[used]
    if tail := context_len % PAGE_SIZE:
        keys[len(used) - 1, :, :, tail:] = 0
        values[len(used) - 1, :, tail:, :] = 0
    keys = keys.reshape(blocks, pages_a_block, groups, head_dim, PAGE_SIZE).transpose(0, 2, 3, 1, 4)
    values = values.reshape(blocks, pages_a_block, groups, PAGE_SIZE, head_dim).transpose(0, 2, 1, 3, 4)
    return (
        np.ascontiguousarray(keys).reshape(blocks, groups, head_dim, BLOCK_KEYS),
        np.ascontiguousarray(values).reshape(blocks, groups, BLOCK_KEYS, head_dim),
    )


def _attend(q_GRE: np.ndarray, keys: np.ndarray, values: np.ndarray, position: int, window: int) -> np.ndarray:
    """One row of queries (R query heads to each of G key heads) over its visible blocks, ascending.

    Online softmax (Milakov and Gimelshein, 2018): a running greatest score rescales what was
    summed before. Blocks out of the window's sight are not visited.
    """
    first = max(0, position - window + 1) if window > 0 else 0
    greatest_GR1 = np.full((*q_GRE.shape[:2], 1), -np.inf, np.float32)
    total_GR1 = np.zeros_like(greatest_GR1)
    out_GRE = np.zeros_like(q_GRE)
    for block in range(first // BLOCK_KEYS, position // BLOCK_KEYS + 1):
        at = np.arange(block * BLOCK_KEYS, (block + 1) * BLOCK_KEYS)
        visible = (at >= first) & (at <= position)
        scores = np.where(visible, q_GRE @ keys[block], np.float32(-np.inf))
        new_greatest = np.maximum(greatest_GR1, scores.max(axis=-1, keepdims=True))
        shrink = np.exp(greatest_GR1 - new_greatest)
        shares = np.exp(scores - new_greatest)
        total_GR1 = total_GR1 * shrink + shares.sum(axis=-1, keepdims=True)
        out_GRE = out_GRE * shrink + shares @ values[block]
        greatest_GR1 = new_greatest
    attended: np.ndarray = out_GRE / total_GR1
    return attended


def _sample_row(
    logits_V: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float, seed: int, position: int
) -> int:
    """One token of one row, sampled as the fields of SAMPLING say; the order of the filters is that of `Ops.sample`."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        scaled_V = (logits_V / np.float32(temperature)).astype(np.float64)
    if temperature == 0 or not np.isfinite(scaled_V.max()):
        return int(np.argmax(logits_V))
    order = np.argsort(-scaled_V, kind="stable")
    odds = np.exp(scaled_V[order] - scaled_V[order[0]])
    kept = int(np.count_nonzero(odds >= min_p))
    if top_k > 0:
        kept = min(kept, top_k)
    if top_p < 1:
        reached = np.cumsum(odds[:kept])
        kept = min(kept, 1 + int(np.count_nonzero(reached < top_p * reached[-1])))
    candidates = np.sort(order[:kept])
    scores = scaled_V[candidates] + gumbel_noise(seed, position, len(logits_V))[candidates]
    return int(candidates[np.argmax(scores)])
