"""The torch set: every op on any torch device. The only module that imports torch.

A second oracle on the CPU, and the way to a GPU. It does not promise the same bits in every
batch: torch chooses its algorithms by shape. Sampling that is not greedy goes through the
reference set on the host, so that noise and filters are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from hexad.errors import ConfigError
from hexad.kernels.ops import KV, PAGE_SIZE, Dtype, Step, TopLogprobs, WeightFormat
from hexad.kernels.quantize import quantize_weight
from hexad.kernels.reference import ReferenceOps

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class IntegerLinear(NamedTuple):
    """An int8 or int4 weight, as `hexad.kernels.quantize.Quantized` has it."""

    values: torch.Tensor
    scales: torch.Tensor


class TorchOps:
    """The torch implementation of `hexad.kernels.ops.Ops`; activations are float32."""

    def __init__(self, device: str = "cpu") -> None:
        try:
            self.device = torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"device is {device!r}, which this torch cannot use ({str(error).splitlines()[0]}); "
                "try cpu, or cuda where torch sees a GPU",
                param="device",
            ) from None
        self.name = f"torch ({device})"
        self._host = ReferenceOps()

    def array(self, host: np.ndarray) -> torch.Tensor:
        if host.dtype.name == "bfloat16":  # torch does not know ml_dtypes, but the bits are the same
            return torch.tensor(host.view(np.int16), device=self.device).view(torch.bfloat16)
        return torch.tensor(host, device=self.device)

    def to_host(self, x: torch.Tensor) -> np.ndarray:
        host: np.ndarray = x.cpu().numpy()
        return host

    def pack_linear(
        self, weight_NK: np.ndarray, format: WeightFormat, *, leaves: int = 1
    ) -> torch.Tensor | IntegerLinear:
        if format in DTYPES:
            return self.array(weight_NK).to(DTYPES[format])
        return IntegerLinear(*(self.array(part) for part in quantize_weight(weight_NK, format)))

    def compile(
        self, forward: Callable[[Step, list[KV]], torch.Tensor], kvs: list[KV]
    ) -> Callable[[Step], torch.Tensor]:
        return lambda step: forward(step, kvs)

    def linear(
        self, x_TK: torch.Tensor, weight: torch.Tensor | IntegerLinear, bias_N: torch.Tensor | None = None
    ) -> torch.Tensor:
        """A bfloat16 weight takes rows rounded to bfloat16 and, in torch, gives such sums too.

        Integers are multiplied and summed as whole numbers in float64, and groups of them too.
        """
        if isinstance(weight, IntegerLinear):
            out_TN = _integer_linear(x_TK, weight)
        else:
            out_TN = F.linear(x_TK.to(weight.dtype), weight).float()
        return out_TN if bias_N is None else out_TN + bias_N

    def embedding(self, table_VD: torch.Tensor, token_ids_T: torch.Tensor) -> torch.Tensor:
        return F.embedding(token_ids_T, table_VD).float()

    def take_rows(self, x_TD: torch.Tensor, rows_R: torch.Tensor) -> torch.Tensor:
        return x_TD[rows_R]

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight

    def add_rms_norm(
        self, x_TD: torch.Tensor, residual_TD: torch.Tensor, weight_D: torch.Tensor, eps: float
    ) -> torch.Tensor:
        residual_TD += x_TD
        return self.rms_norm(residual_TD, weight_D, eps)

    def rope_kv_write(
        self,
        q_THE: torch.Tensor,
        k_TGE: torch.Tensor,
        v_TGE: torch.Tensor,
        cos_sin: torch.Tensor,
        step: Step,
        kv: KV,
    ) -> torch.Tensor:
        cos, sin = cos_sin[step.positions_T][:, None, :].chunk(2, dim=-1)
        pages, offsets = step.slots_T // PAGE_SIZE, step.slots_T % PAGE_SIZE
        kv.k_pages[pages, :, :, offsets] = _rotate(k_TGE, cos, sin).to(kv.k_pages.dtype)
        kv.v_pages[pages, :, offsets, :] = v_TGE.to(kv.v_pages.dtype)
        return _rotate(q_THE, cos, sin)

    def attention(self, q_THE: torch.Tensor, step: Step, kv: KV, scale: float, window: int) -> torch.Tensor:
        """Sequence by sequence: its pages side by side, and a mask of what each row sees."""
        _, groups, head_dim, _ = kv.k_pages.shape
        starts, context_lens = step.query_starts_S1.tolist(), step.context_lens_S.tolist()
        out = []
        for sequence, context_len in enumerate(context_lens):
            rows = slice(starts[sequence], starts[sequence + 1])
            pages = step.page_table_SP[sequence, : -(-context_len // PAGE_SIZE)]
            keys_GCE = kv.k_pages[pages].permute(1, 0, 3, 2).reshape(groups, -1, head_dim)[:, :context_len]
            values_GCE = kv.v_pages[pages].transpose(0, 1).reshape(groups, -1, head_dim)[:, :context_len]
            at_C = torch.arange(context_len, device=self.device)
            positions_T1 = step.positions_T[rows, None]
            sees_TC = at_C <= positions_T1
            if window > 0:
                sees_TC &= at_C > positions_T1 - window
            attended_HTE = F.scaled_dot_product_attention(
                q_THE[rows].transpose(0, 1)[None],
                keys_GCE.float()[None],
                values_GCE.float()[None],
                attn_mask=sees_TC,
                scale=scale,
                enable_gqa=True,
            )[0]
            out.append(attended_HTE.transpose(0, 1).flatten(1))
        return torch.cat(out)

    def silu_mul(self, gate_up: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up

    def sample(self, logits_RV: torch.Tensor, how_R: np.ndarray) -> np.ndarray:
        if how_R["temperature"].any():
            return self._host.sample(self.to_host(logits_RV), how_R)
        ids_V = torch.arange(logits_RV.shape[1], dtype=torch.int32, device=self.device)
        greatest_R1 = logits_RV.max(dim=-1, keepdim=True).values
        first_R = torch.where(logits_RV == greatest_R1, ids_V, ids_V[-1]).min(dim=-1).values
        return self.to_host(torch.where(greatest_R1[:, 0].isfinite(), first_R, -1).to(torch.int32))

    def top_logprobs(self, logits_RV: torch.Tensor, token_ids_R: np.ndarray, n: int) -> TopLogprobs:
        return self._host.top_logprobs(self.to_host(logits_RV), token_ids_R, n)

    def new_kv(self, num_pages: int, num_kv_heads: int, head_dim: int, dtype: Dtype) -> KV:
        def zeros(*shape: int) -> Any:
            return torch.zeros(shape, dtype=DTYPES[dtype], device=self.device)

        return KV(
            zeros(num_pages, num_kv_heads, head_dim, PAGE_SIZE),
            zeros(num_pages, num_kv_heads, PAGE_SIZE, head_dim),
        )

    def reserve_pages(self, kv: KV, first: int, last: int) -> None:
        """Torch has its own ways."""

    def copy_pages(self, kv: KV, sources: torch.Tensor, targets: torch.Tensor) -> None:
        for cache in kv:
            cache[targets] = cache[sources]


def _integer_linear(x_TK: torch.Tensor, weight: IntegerLinear) -> torch.Tensor:
    """As `hexad.kernels.quantize.quantize_rows`, then group by group."""
    outputs, groups, size = weight.values.shape
    x_TGK = F.pad(x_TK, (0, groups * size - x_TK.shape[1])).reshape(len(x_TK), groups, size)
    greatest_TG1 = x_TGK.abs().amax(dim=-1, keepdim=True)
    finite_TG1 = greatest_TG1.isfinite()
    scales_TG1 = (greatest_TG1 / 127).clamp(min=torch.finfo(torch.float32).tiny)
    values_TGK = torch.where(finite_TG1, (x_TGK * (1 / scales_TG1)).round(), 0).double()
    scales_TG1 = torch.where(finite_TG1, scales_TG1, torch.nan).double()
    out_TN = torch.zeros(len(x_TK), outputs, dtype=torch.float64, device=x_TK.device)
    for group in range(groups):
        sums_TN = values_TGK[:, group] @ weight.values[:, group].double().T
        out_TN += sums_TN * scales_TG1[:, group] * weight.scales[:, group]
    return out_TN.float()


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """[T, H, E] turned by [T, 1, E/2] angles: element i pairs with element i + E/2."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
