import numpy as np

def available_isas() -> list[str]:
    """The instruction sets this build has and this CPU can run, best first."""

def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]: ...

class LinearWeight:
    @property
    def outputs(self) -> int: ...
    @property
    def inputs(self) -> int: ...
    @property
    def leaves(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def nbytes(self) -> int: ...

class Engine:
    def __init__(self, threads: int, isa: str) -> None: ...
    @property
    def threads(self) -> int: ...
    @property
    def isa(self) -> str: ...
    def pack_linear(self, weight_NK: np.ndarray, dtype: str, leaves: int, /) -> LinearWeight: ...
    def linear(self, x_TK: np.ndarray, weight: LinearWeight, bias_N: np.ndarray | None, out_TN: np.ndarray) -> None: ...
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
        temperature_R: np.ndarray,
        top_k_R: np.ndarray,
        top_p_R: np.ndarray,
        min_p_R: np.ndarray,
        seed_R: np.ndarray,
        position_R: np.ndarray,
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
    def arithmetic_rate(self, pairs: bool, /) -> float: ...
