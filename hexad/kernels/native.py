"""The native set: every op in C++ on the CPU's vector units, over a pool of pinned threads.

Python allocates the results and hands the arrays over; the extension checks each type, shape
and index before a kernel runs, and raises KernelError (see native/bind.cpp). It keeps the law of the rows bitwise,
within one instruction set. This module knows nothing of models.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from hexad.errors import ConfigError, KernelError
from hexad.kernels.fuse import SWITCHES
from hexad.kernels.ops import KV, PAGE_SIZE, SAMPLING, Array, Dtype, Step, TopLogprobs, WeightFormat
from hexad.kernels.record import TokenIds, Traced, record

try:
    from hexad.kernels import _native
    from hexad.kernels.program import Program
except ImportError as error:
    raise ImportError(
        f"the native kernels cannot be loaded ({error}); install Hexad again where a C++ compiler is found, "
        "or use kernels=reference",
        name="hexad.kernels._native",
    ) from error

ISA_VARIABLE = "HEXAD_ISA"
"""The one environment variable of Hexad: forces an instruction set."""

_OPAQUE = np.dtype((np.void, SAMPLING.itemsize))
"""numpy reports the flags of structured arrays wrongly in `__array_struct__`."""

LAYOUT = "native 1"
"""Of packed weights, in native/weights.h. Whatever changes a byte of them raises the number."""

_NO_BYTES = np.empty(0, np.uint8)
_DTYPES: dict[str, Any] = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}


def available_isas() -> list[str]:
    """The instruction sets this build has and this CPU can run, best first: "avx512", "avx2", "portable".

    Others are "amx" on x86, "neon_dotprod" and "neon" on ARM.
    """
    return _native.available_isas()


class NativeOps:
    """The C++ implementation of `hexad.kernels.ops.Ops`.

    `threads` counts the calling one. `isa` is one of `available_isas()`; None takes what
    HEXAD_ISA says, else the best. `without` names optimisations to leave out (`fuse.SWITCHES`).
    Raises ConfigError where it cannot run here.
    """

    def __init__(self, threads: int = 1, isa: str | None = None, without: Collection[str] = ()) -> None:
        chosen = isa or os.environ.get(ISA_VARIABLE) or available_isas()[0]
        if chosen not in available_isas():
            raise ConfigError(
                f"the instruction set {chosen!r} was asked for (isa, or {ISA_VARIABLE}), but this build on this CPU "
                f"has {', '.join(available_isas())}; choose one of them, or leave it out",
                param=ISA_VARIABLE if isa is None else "isa",
            )
        if unknown := sorted(set(without) - set(SWITCHES)):
            raise ConfigError(
                f"without names {', '.join(unknown)}; what can be left out is {', '.join(SWITCHES)}", param="without"
            )
        self._without = without
        try:
            self._engine = _native.Engine(threads, chosen)
        except KernelError as error:
            raise ConfigError(str(error), param="threads") from None

    @property
    def name(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"native ({self.isa}, {threads})"

    @property
    def isa(self) -> str:
        return self._engine.isa

    @property
    def threads(self) -> int:
        return self._engine.threads

    def compile(self, forward: Callable[[Step, list[KV]], Array], kvs: list[KV]) -> Callable[[Step], np.ndarray]:
        """`forward` recorded once and replayed natively; the logits stay valid until the next call."""
        return Program(self._engine, record(forward, kvs), self._without)

    def array(self, host: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(host)

    def to_host(self, x: np.ndarray) -> np.ndarray:
        return x

    def pack_linear(self, weight_NK: np.ndarray, format: WeightFormat, *, leaves: int = 1) -> _native.LinearWeight:
        return self._engine.pack_linear(np.ascontiguousarray(weight_NK), format, leaves)

    def linear(self, x_TK: Array, weight: _native.LinearWeight, bias_N: Array | None = None) -> Array:
        if isinstance(x_TK, Traced):
            return x_TK.linear(weight, bias_N)
        out_TN = np.empty((len(x_TK), weight.outputs), np.float32)
        self._engine.linear(_dense(x_TK), weight, None if bias_N is None else _float32(bias_N), out_TN)
        return out_TN

    @property
    def layout(self) -> str:
        return LAYOUT

    def packed_parts(self, weight: _native.LinearWeight) -> dict[str, np.ndarray]:
        parts = {"tiles": weight.tiles, "scales": weight.scales, "sums": weight.sums}
        return {name: part for name, part in parts.items() if part.nbytes}

    def adopt_linear(
        self, parts: Mapping[str, np.ndarray], outputs: int, inputs: int, format: WeightFormat, leaves: int
    ) -> _native.LinearWeight:
        tiles, scales, sums = (parts.get(name, _NO_BYTES) for name in ("tiles", "scales", "sums"))
        return self._engine.adopt_linear(format, outputs, inputs, leaves, tiles, scales, sums)

    def embedding(self, table_VD: Array, token_ids_T: Array) -> Array:
        if isinstance(token_ids_T, TokenIds):
            return token_ids_T.embedding(table_VD)
        out_TD = np.empty((len(token_ids_T), table_VD.shape[1]), np.float32)
        self._engine.embedding(table_VD, token_ids_T, out_TD)
        return out_TD

    def take_rows(self, x_TD: Array, rows_R: Array) -> Array:
        if isinstance(x_TD, Traced):
            return x_TD.take_rows(rows_R)
        return np.take(x_TD, rows_R, axis=0)

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        if isinstance(x, Traced):
            return x.rms_norm(_float32(weight), eps)
        out = np.empty(x.shape, np.float32)
        self._engine.rms_norm(_dense(x), _float32(weight), eps, out)
        return out

    def add_rms_norm(self, x_TD: Array, residual_TD: Array, weight_D: Array, eps: float) -> Array:
        if isinstance(x_TD, Traced):
            return x_TD.add_rms_norm(residual_TD, _float32(weight_D), eps)
        out_TD = np.empty(x_TD.shape, np.float32)
        self._engine.add_rms_norm(_dense(x_TD), residual_TD, _float32(weight_D), eps, out_TD)
        return out_TD

    def rope_kv_write(self, q_THE: Array, k_TGE: Array, v_TGE: Array, cos_sin: Array, step: Step, kv: KV) -> Array:
        if isinstance(q_THE, Traced):
            return q_THE.rope_kv_write(k_TGE, v_TGE, cos_sin, kv)
        out_THE = np.empty(q_THE.shape, np.float32)
        inputs = _dense(q_THE), _dense(k_TGE), _dense(v_TGE)
        self._engine.rope_kv_write(*inputs, cos_sin, step.positions_T, step.slots_T, *kv, None, None, 0.0, out_THE)
        return out_THE

    def attention(self, q_THE: Array, step: Step, kv: KV, scale: float, window: int) -> Array:
        if isinstance(q_THE, Traced):
            return q_THE.attention(kv, scale, window)
        tokens, heads, head_dim = q_THE.shape
        out = np.empty((tokens, heads * head_dim), np.float32)
        rows = step.positions_T, step.query_starts_S1, step.page_table_SP
        self._engine.attention(np.ascontiguousarray(q_THE), *rows, *kv, scale, window, True, out)
        return out

    def silu_mul(self, gate_up: Array) -> Array:
        if isinstance(gate_up, Traced):
            return gate_up.silu_mul()
        out_TI = np.empty((len(gate_up), gate_up.shape[1] // 2), np.float32)
        self._engine.silu_mul(np.ascontiguousarray(gate_up), out_TI)
        return out_TI

    def sample(self, logits_RV: np.ndarray, how_R: np.ndarray) -> np.ndarray:
        out_R = np.empty(len(logits_RV), np.int32)
        self._engine.sample(np.ascontiguousarray(logits_RV), how_R.view(_OPAQUE), out_R)
        return out_R

    def top_logprobs(self, logits_RV: np.ndarray, token_ids_R: np.ndarray, n: int) -> TopLogprobs:
        rows = len(logits_RV)
        top = TopLogprobs(
            chosen_R=np.empty(rows, np.float32),
            rank_R=np.empty(rows, np.int32),
            ids_RN=np.empty((rows, n), np.int32),
            logprobs_RN=np.empty((rows, n), np.float32),
        )
        tokens_R = np.ascontiguousarray(token_ids_R, np.int32)
        self._engine.top_logprobs(np.ascontiguousarray(logits_RV), tokens_R, n, *top)
        return top

    def new_kv(self, num_pages: int, num_kv_heads: int, head_dim: int, dtype: Dtype) -> KV:
        """float32: keys [P, G, E, 16], values [P, G, 16, E]. bfloat16 in pairs of neighbouring dimensions and
        neighbouring keys, which one instruction multiplies and adds: [P, G, E/2, 16, 2] and [P, G, 8, E, 2]."""
        pairs = dtype == "bfloat16"
        keys = (head_dim // 2, PAGE_SIZE, 2) if pairs else (head_dim, PAGE_SIZE)
        values = (PAGE_SIZE // 2, head_dim, 2) if pairs else (PAGE_SIZE, head_dim)
        heads = (num_pages, num_kv_heads)
        return KV(np.zeros(heads + keys, _DTYPES[dtype]), np.zeros(heads + values, _DTYPES[dtype]))

    def reserve_pages(self, kv: KV, first: int, last: int) -> None:
        for cache in kv:
            page_bytes = cache.nbytes // len(cache)
            _native.populate(cache, first * page_bytes, (last - first) * page_bytes)

    def copy_pages(self, kv: KV, sources: np.ndarray, targets: np.ndarray) -> None:
        for cache in kv:
            cache[targets] = cache[sources]

    def read_bandwidth(self, num_bytes: int = 256 << 20) -> float:
        """GB/s at which all threads together read memory (use several times the last-level cache)."""
        return self._engine.read_bandwidth(num_bytes) / 1e9

    def arithmetic_rate(self, format: WeightFormat) -> float:
        """TFLOP/s of all threads' multiply-adds over float32, bfloat16 pairs or (TOP/s) bytes, from registers."""
        return self._engine.arithmetic_rate(format) / 1e12


def _dense(x: np.ndarray) -> np.ndarray:
    """x itself where its last axis has no gaps, else a copy."""
    return x if x.strides[-1] == x.itemsize else np.ascontiguousarray(x)


def _float32(x: np.ndarray) -> np.ndarray:
    return x if x.dtype == np.float32 else x.astype(np.float32)
