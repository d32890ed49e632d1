from typing import Literal

import numpy as np

from hexad.kernels.ops import WeightFormat

def available_isas() -> list[str]:
    """The instruction sets this build has and this CPU can run, best first."""

def populate(pages: np.ndarray, first_byte: int, bytes: int, /) -> None:
    """Have the system hand out this memory now; what lies in it stays. Raises KernelError beyond the array."""

def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]: ...

class LinearWeight:
    @property
    def outputs(self) -> int: ...
    @property
    def inputs(self) -> int: ...
    @property
    def leaves(self) -> int: ...
    @property
    def format(self) -> WeightFormat: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def tiles(self) -> np.ndarray:
        """Read-only uint8 [tiles * units * 64], the same on every instruction set; see native/kernels.h."""
    @property
    def scales(self) -> np.ndarray:
        """Read-only uint8: float32 [outputs, padded to 16] for int8, bfloat16 [tile][groups][16] for int4."""
    @property
    def sums(self) -> np.ndarray:
        """Read-only uint8: int32 [outputs, padded to 16] for int8, -128 times the sum of an output's weights."""

class Engine:
    def __init__(self, threads: int, isa: str) -> None: ...
    @property
    def threads(self) -> int: ...
    @property
    def isa(self) -> str: ...
    def pack_linear(self, weight_NK: np.ndarray, format: str, leaves: int, /) -> LinearWeight: ...
    def adopt_linear(
        self,
        format: str,
        outputs: int,
        inputs: int,
        leaves: int,
        tiles: np.ndarray,
        scales: np.ndarray,
        sums: np.ndarray,
    ) -> LinearWeight:
        """A weight over the bytes of another's `tiles`, `scales` and `sums` (uint8, at multiples of 64 bytes).

        They are used in place and kept alive; they must not change. Raises KernelError where a size does not fit.
        """
    def linear(
        self,
        x_TK: np.ndarray,
        weight: LinearWeight,
        bias_N: np.ndarray | None,
        out: np.ndarray,
        finish: Literal["store", "add", "silu_mul"] = "store",
    ) -> None:
        """`store`: out [T, N] = sums. `add`: out += sums. `silu_mul`: out [T, N/2] = silu(first half) * second half."""
    def embedding(self, table_VD: np.ndarray, token_ids_T: np.ndarray, out_TD: np.ndarray, /) -> None: ...
    def rms_norm(self, x: np.ndarray, weight: np.ndarray, eps: float, out: np.ndarray, /) -> None: ...
    def add_rms_norm(
        self, x_TD: np.ndarray, residual_TD: np.ndarray, weight_D: np.ndarray, eps: float, out_TD: np.ndarray, /
    ) -> None: ...
    def silu_mul(self, gate_up: np.ndarray, out_TI: np.ndarray, /) -> None: ...
    def rope_kv_write(
        self,
        q_THE: np.ndarray,
        k_TGE: np.ndarray,
        v_TGE: np.ndarray,
        cos_sin: np.ndarray,
        positions_T: np.ndarray,
        slots_T: np.ndarray,
        k_pages: np.ndarray,
        v_pages: np.ndarray,
        q_weight_E: np.ndarray | None,
        k_weight_E: np.ndarray | None,
        eps: float,
        out_THE: np.ndarray,
    ) -> None: ...
    def attention(
        self,
        q_THE: np.ndarray,
        positions_T: np.ndarray,
        query_starts_S1: np.ndarray,
        page_table_SP: np.ndarray,
        k_pages: np.ndarray,
        v_pages: np.ndarray,
        scale: float,
        window: int,
        cascade: bool,
        out: np.ndarray,
        /,
    ) -> None: ...
    def sample(
        self,
        logits_RV: np.ndarray,
        how_R: np.ndarray,
        out_R: np.ndarray,
        /,
    ) -> None: ...
    def top_logprobs(
        self,
        logits_RV: np.ndarray,
        token_ids_R: np.ndarray,
        n: int,
        chosen_R: np.ndarray,
        rank_R: np.ndarray,
        ids_RN: np.ndarray,
        logprobs_RN: np.ndarray,
        /,
    ) -> None: ...
    def read_bandwidth(self, bytes: int, /) -> float: ...
    def arithmetic_rate(self, format: str, /) -> float: ...

Operand = tuple[bool, int, int, int]
Norm = tuple[np.ndarray | None, float]

class Program:
    def __init__(self, engine: Engine, token_slots: list[int], wanted_slots: list[int], /) -> None: ...
    def embedding(self, table_VD: np.ndarray, out: Operand, /) -> None: ...
    def take_rows(self, x: Operand, width: int, out: Operand, /) -> None: ...
    def add(self, x: Operand, residual: Operand, width: int, out: Operand, /) -> None: ...
    def norm(self, x: Operand, heads: int, width: int, norm: Norm, out: Operand, /) -> None: ...
    def linear(
        self,
        weight: LinearWeight,
        x: Operand,
        norm: Norm,
        bias_N: np.ndarray | None,
        residual: bool,
        silu: bool,
        out: Operand,
        /,
    ) -> None: ...
    def silu_mul(self, x: Operand, width: int, out: Operand, /) -> None: ...
    def rope(
        self,
        q: Operand,
        k: Operand,
        v: Operand,
        heads: int,
        cos_sin: np.ndarray,
        k_pages: np.ndarray,
        v_pages: np.ndarray,
        q_norm: Norm,
        k_norm: Norm,
        out: Operand,
        /,
    ) -> None: ...
    def attention(
        self,
        q: Operand,
        heads: int,
        k_pages: np.ndarray,
        v_pages: np.ndarray,
        scale: float,
        window: int,
        cascade: bool,
        out: Operand,
        /,
    ) -> None: ...
    def run(
        self,
        token_ids_T: np.ndarray,
        positions_T: np.ndarray,
        slots_T: np.ndarray,
        query_starts_S1: np.ndarray,
        page_table_SP: np.ndarray,
        output_rows_R: np.ndarray,
        /,
    ) -> np.ndarray: ...
    def reset_clock(self, each: bool, /) -> None: ...
    def clock(self) -> tuple[float, int, list[float]]: ...
