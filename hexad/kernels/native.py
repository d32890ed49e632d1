"""The native set: every op in C++ on the CPU's vector units, over a pool of pinned threads.

Python allocates the results and hands the arrays over; the extension checks each type, shape
and index before a kernel runs, and raises KernelError (see native/bind.cpp). It keeps the law of the rows bitwise,
within one instruction set. This module knows nothing of models.
"""

from __future__ import annotations

import os
from typing import Any

import ml_dtypes
import numpy as np

from hexad.errors import ConfigError, KernelError
from hexad.kernels.ops import KV, PAGE_SIZE, Dtype, Sampling, Step, TopLogprobs

try:
    from hexad.kernels import _native
except ImportError as error:
    raise ImportError(
        f"the native kernels cannot be loaded ({error}); install Hexad again where a C++ compiler is found, "
        "or use kernels=reference",
        name="hexad.kernels._native",
    ) from error

ISA_VARIABLE = "HEXAD_ISA"
"""The one environment variable of Hexad: forces an instruction set."""

_DTYPES: dict[str, Any] = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}


def available_isas() -> list[str]:
    """The instruction sets this build has and this CPU can run, best first: "avx512", "avx2", "portable"."""
    return _native.available_isas()


class NativeOps:
    """The C++ implementation of `hexad.kernels.ops.Ops`.

    `threads` counts the calling one. `isa` is one of `available_isas()`; None takes what
    HEXAD_ISA says, else the best. Raises ConfigError where it cannot run here.
    """

    def __init__(self, threads: int = 1, isa: str | None = None) -> None:
        chosen = isa or os.environ.get(ISA_VARIABLE) or available_isas()[0]
        if chosen not in available_isas():
            raise ConfigError(
                f"the instruction set {chosen!r} was asked for (isa, or {ISA_VARIABLE}), but this build on this CPU "
                f"has {', '.join(available_isas())}; choose one of them, or leave it out",
                param=ISA_VARIABLE if isa is None else "isa",
            )
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

    def array(self, host: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(host)

    def to_host(self, x: np.ndarray) -> np.ndarray:
        return x

    def pack_linear(self, weight_NK: np.ndarray, dtype: Dtype, *, leaves: int = 1) -> _native.LinearWeight:
        return self._engine.pack_linear(np.ascontiguousarray(weight_NK), dtype, leaves)

    def linear(self, x_TK: np.ndarray, weight: _native.LinearWeight, bias_N: np.ndarray | None = None) -> np.ndarray:
        out_TN = np.empty((len(x_TK), weight.outputs), np.float32)
        self._engine.linear(_dense(x_TK), weight, None if bias_N is None else _float32(bias_N), out_TN)
        return out_TN

    def embedding(self, table_VD: np.ndarray, token_ids_T: np.ndarray) -> np.ndarray:
        out_TD = np.empty((len(token_ids_T), table_VD.shape[1]), np.float32)
        self._engine.embedding(table_VD, token_ids_T, out_TD)
        return out_TD

    def take_rows(self, x_TD: np.ndarray, rows_R: np.ndarray) -> np.ndarray:
        return np.take(x_TD, rows_R, axis=0)

    def rms_norm(self, x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
        out = np.empty(x.shape, np.float32)
        self._engine.rms_norm(_dense(x), _float32(weight), eps, out)
        return out

    def add_rms_norm(self, x_TD: np.ndarray, residual_TD: np.ndarray, weight_D: np.ndarray, eps: float) -> np.ndarray:
        out_TD = np.empty(x_TD.shape, np.float32)
        self._engine.add_rms_norm(_dense(x_TD), residual_TD, _float32(weight_D), eps, out_TD)
        return out_TD

    def rope_kv_write(
        self, q_THE: np.ndarray, k_TGE: np.ndarray, v_TGE: np.ndarray, cos_sin: np.ndarray, step: Step, kv: KV
    ) -> np.ndarray:
        out_THE = np.empty(q_THE.shape, np.float32)
        inputs = _dense(q_THE), _dense(k_TGE), _dense(v_TGE)
        self._engine.rope_kv_write(*inputs, cos_sin, step.positions_T, step.slots_T, *kv, None, None, 0.0, out_THE)
        return out_THE

    def attention(self, q_THE: np.ndarray, step: Step, kv: KV, scale: float, window: int) -> np.ndarray:
        tokens, heads, head_dim = q_THE.shape
        out = np.empty((tokens, heads * head_dim), np.float32)
        self._engine.attention(
            np.ascontiguousarray(q_THE),
            step.positions_T,
            step.query_starts_S1,
            step.page_table_SP,
            *kv,
            scale,
            window,
            True,
            out,
        )
        return out

    def silu_mul(self, gate_up: np.ndarray) -> np.ndarray:
        out_TI = np.empty((len(gate_up), gate_up.shape[1] // 2), np.float32)
        self._engine.silu_mul(np.ascontiguousarray(gate_up), out_TI)
        return out_TI

    def sample(self, logits_RV: np.ndarray, how: Sampling) -> np.ndarray:
        """As `Ops.sample`. A row without a logit greater than -inf gives token 0, as in the reference set."""
        out_R = np.empty(len(logits_RV), np.int32)
        self._engine.sample(np.ascontiguousarray(logits_RV), *how, out_R)
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

    def copy_pages(self, kv: KV, sources: np.ndarray, targets: np.ndarray) -> None:
        for cache in kv:
            cache[targets] = cache[sources]

    def read_bandwidth(self, num_bytes: int = 256 << 20) -> float:
        """GB/s at which all threads together read memory (use several times the last-level cache)."""
        return self._engine.read_bandwidth(num_bytes) / 1e9

    def arithmetic_rate(self, dtype: Dtype) -> float:
        """TFLOP/s of all threads' multiply-adds over float32, or over pairs of bfloat16, with no memory in the way."""
        return self._engine.arithmetic_rate(dtype == "bfloat16") / 1e12


def _dense(x: np.ndarray) -> np.ndarray:
    """x itself where its last axis has no gaps, else a copy."""
    return x if x.strides[-1] == x.itemsize else np.ascontiguousarray(x)


def _float32(x: np.ndarray) -> np.ndarray:
    return x if x.dtype == np.float32 else x.astype(np.float32)
