"""The op table: what every kernel set offers, and the shapes it is called with.

Legend of shape suffixes: T tokens of this step, S sequences, R rows whose logits are
wanted, V vocabulary, D hidden size, K and N a linear's inputs and outputs, H query heads,
G key-value heads, E head dimension, P pages.

Activations are float32 between ops in the CPU sets, whatever the weights' dtype.
The law: a row's result does not depend on the other rows, on the chunking, or on the
number of threads. (The torch set does not promise it.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec
import numpy as np

Array = Any
"""numpy.ndarray in the CPU sets, torch.Tensor in the torch set. Models use ops and plain views only."""

Dtype = Literal["float32", "bfloat16"]

WeightFormat = Literal["float32", "bfloat16", "int8", "int4-128", "int4-64", "int4-32"]
"""How a linear keeps its weights. int8 has a scale an output, int4 one for each 128, 64 or 32 inputs of it."""

PAGE_SIZE = 16
"""Tokens in a page of KV cache: the lanes of one AVX-512 register of float32."""

TILE_OUTPUTS = 16
"""A packed weight holds whole tiles of this many outputs."""

LEAVES = 8
"""Row-parallel linears sum K in this many fixed leaves, by a fixed tree, so that tensor
parallelism over 1, 2, 4 or 8 ranks gives the same bits."""


class Step(msgspec.Struct, frozen=True):
    """One forward pass over T tokens of S sequences, each sequence's tokens contiguous and ascending."""

    token_ids_T: Array
    """int32"""
    positions_T: Array
    """int32"""
    slots_T: Array
    """int32: page * PAGE_SIZE + offset where each token's key and value are written."""
    query_starts_S1: Array
    """int32 [S+1]: the first row of each sequence; the last entry is T."""
    context_lens_S: Array
    """int32: keys that a sequence's last row sees (tokens computed before plus those in this step)."""
    page_table_SP: Array
    """int32: the pages of each sequence, in order, padded with 0."""
    output_rows_R: Array
    """int32: ascending rows whose logits are wanted."""


class KV(NamedTuple):
    """The KV cache of one layer, P pages of PAGE_SIZE tokens: the first axis. The rest is the set's own."""

    k_pages: Array
    v_pages: Array


SAMPLING = np.dtype(
    [("temperature", "f4"), ("top_k", "i4"), ("top_p", "f4"), ("min_p", "f4"), ("seed", "u8"), ("position", "i8")]
)
"""How a row is sampled. temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 keep all tokens; `position` is that
of the token to be drawn, in its sequence."""


class TopLogprobs(NamedTuple):
    """Natural logarithms of softmax(logits), ties broken by the lower token id."""

    chosen_R: np.ndarray
    rank_R: np.ndarray
    """1 + the number of tokens with a greater logit."""
    ids_RN: np.ndarray
    logprobs_RN: np.ndarray


class Ops(Protocol):
    """A kernel set. Host arrays (`np.ndarray`) go in once at load; everything else stays an `Array`."""

    @property
    def name(self) -> str:
        """For people: "native (avx512)", "reference (numpy)", "torch (cuda)"."""

    def array(self, host: np.ndarray) -> Array:
        """A step's metadata or a small weight on this set's device; the dtype stays."""

    def to_host(self, x: Array) -> np.ndarray: ...

    def pack_linear(self, weight_NK: np.ndarray, format: WeightFormat, *, leaves: int = 1) -> Any:
        """Bind a weight (float32, bfloat16 or float16 on the host) once, in this set's own layout.

        `leaves` is 1 or LEAVES; leaf i covers inputs [i*K//leaves, (i+1)*K//leaves), of int4 groups
        of inputs by the same rule; int8 sums are exact and need none. Rounded to nearest:

        - int8: scale = max(greatest magnitude of the output / 127, 2^-126), q = rint(w * (1 / scale)).
        - int4-G: scale = w of greatest magnitude in the group (the first such) / -8 (llama.cpp's Q4_0) or / -9, as
          bfloat16; q = rint(w * (1 / scale)) within -8..7. The scale with less squared error, summed in float32
          in the order of the inputs; -8 where equal. A scale below 2^-126 is 0, and so is its q.

        An output (int8) or group (int4) that is not finite has the scale NaN.
        """

    def compile(self, forward: Callable[[Step, list[KV]], Array], kvs: list[KV]) -> Callable[[Step], Array]:
        """`forward` over these pages, as fast as this set can call it; its result is valid until the next call."""

    def linear(self, x_TK: Array, weight: Any, bias_N: Array | None = None) -> Array:
        """x @ weight.T + bias -> [T, N] float32. Each output sums K ascending within a leaf.

        bfloat16 rounds x. int8 and int4 quantize it as int8 weights are, over a row (int8) or a group
        of inputs (int4); what is not finite there makes all outputs of its row NaN. int8:
        (float32(sum of products) * x_scale) * w_scale. int4: within a leaf, groups ascending,
        acc = fma(float32(sum of products), x_scale * w_scale, acc) from 0.
        """

    def embedding(self, table_VD: Array, token_ids_T: Array) -> Array:
        """Rows of a float32 or bfloat16 table -> [T, D] float32."""

    def take_rows(self, x_TD: Array, rows_R: Array) -> Array: ...

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        """Over the last axis of [T, D] or [T, H, E] (rows may be strided); a new contiguous array."""

    def add_rms_norm(self, x_TD: Array, residual_TD: Array, weight_D: Array, eps: float) -> Array:
        """residual += x, in place; returns rms_norm(residual)."""

    def rope_kv_write(self, q_THE: Array, k_TGE: Array, v_TGE: Array, cos_sin: Array, step: Step, kv: KV) -> Array:
        """Rotate q and k (halves, as Hugging Face's rotate_half), write k and v to their slots.

        `cos_sin` is float32 [max_position, E]: cosines of the E/2 frequencies, then sines.
        Returns the rotated q, [T, H, E] contiguous; inputs may be strided views.
        """

    def attention(self, q_THE: Array, step: Step, kv: KV, scale: float, window: int) -> Array:
        """Causal attention over pages -> [T, H*E]. `window` > 0: a query at position p sees keys > p - window."""

    def silu_mul(self, gate_up: Array) -> Array:
        """[T, 2*I], gate then up -> silu(gate) * up, [T, I]."""

    def sample(self, logits_RV: Array, how_R: np.ndarray) -> np.ndarray:
        """Token ids, int32 [R]; `how_R` is of the dtype SAMPLING.

        -1 for a row that holds NaN or +inf, or only -inf.

        Greedy takes the lowest id among equals. Otherwise: logits / temperature; keep tokens whose
        probability is at least min_p times the greatest; of those the top_k; of those (renormalised)
        the smallest set whose probability reaches top_p; then Gumbel-max with the noise of
        `philox.py`. A temperature so small that the division overflows is greedy.
        """

    def top_logprobs(self, logits_RV: Array, token_ids_R: np.ndarray, n: int) -> TopLogprobs: ...

    def new_kv(self, num_pages: int, num_kv_heads: int, head_dim: int, dtype: Dtype) -> KV:
        """Zeroed pages; memory is touched only when written."""

    def reserve_pages(self, kv: KV, first: int, last: int) -> None:
        """Take the memory of pages [first, last) from the system before they are written; from any thread."""

    def copy_pages(self, kv: KV, sources: Array, targets: Array) -> None: ...


@runtime_checkable
class PackingOps(Protocol):
    """A set whose packed weights are bytes that can be kept in a file and mapped again."""

    @property
    def layout(self) -> str:
        """Names what `packed_parts` gives: other bytes for the same weight, another name."""

    def packed_parts(self, weight: Any) -> dict[str, np.ndarray]:
        """The bytes of a packed weight, uint8 vectors that are read-only and live as long as it."""

    def adopt_linear(
        self, parts: Mapping[str, np.ndarray], outputs: int, inputs: int, format: WeightFormat, leaves: int
    ) -> Any:
        """A weight over `parts`, without a copy of them. Raises KernelError unless all sizes are as they must be."""
