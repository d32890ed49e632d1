"""The training model of the demo: a compact Llama in torch, and its export to the Hugging Face layout.

It knows the mathematics of `LlamaForCausalLM` and the names its weights have on disk. It does not know the data, the
tokenizer or the optimizer. Projections that read the same input are one matrix here (fewer, larger multiplications)
and are cut apart on export.

Shapes: B rows, T tokens, D hidden, H heads, E head size, F inner size, N chosen tokens.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """The size of the model; the defaults give about five million weights."""

    vocab: int = 3072
    hidden: int = 256
    inner: int = 640
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 64
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    max_positions: int = 2560


def rope_table(shape: Shape) -> tuple[Tensor, Tensor]:
    """cos and sin for each position and each half of a head: [max_positions, head_size / 2]."""
    steps = torch.arange(0, shape.head_size, 2, dtype=torch.float32) / shape.head_size
    angles = torch.outer(torch.arange(shape.max_positions, dtype=torch.float32), shape.rope_theta**-steps)
    return angles.cos(), angles.sin()


def rotate(x_bhte: Tensor, cos_te: Tensor, sin_te: Tensor) -> Tensor:
    """Llama's rotary embedding: the first half of a head is paired with its second half."""
    left, right = x_bhte.chunk(2, dim=-1)
    return torch.cat((left * cos_te - right * sin_te, right * cos_te + left * sin_te), dim=-1)


def attend(query: Tensor, key: Tensor, value: Tensor, block: int = 256) -> Tensor:
    """Causal attention, a block of queries at a time over the keys up to its end.

    On a CPU this takes a third to a half of the time of torch's fused kernel, whose backward pass is slow.
    """
    b, h, t, e = query.shape
    groups = key.shape[1]
    key, value = key.reshape(b * groups, t, e), value.reshape(b * groups, t, e)
    mixed: list[Tensor] = []
    for start in range(0, t, block):
        size = min(block, t - start)
        end = start + size
        mask = torch.full((size, end), -1e9, dtype=query.dtype).triu(start + 1).repeat(h // groups, 1)
        queries = query[:, :, start:end].reshape(b * groups, -1, e)
        scores = torch.baddbmm(mask, queries, key[:, :end].transpose(1, 2), alpha=e**-0.5)
        mixed.append(torch.bmm(scores.softmax(-1), value[:, :end]).view(b, h, size, e))
    return torch.cat(mixed, dim=2)


class Layer(nn.Module):
    """One block: attention and a gated MLP, each behind a norm and added to the stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.qkv_size = (shape.heads * shape.head_size, shape.kv_heads * shape.head_size)
        self.attention_norm = nn.Parameter(torch.ones(shape.hidden))
        self.mlp_norm = nn.Parameter(torch.ones(shape.hidden))
        query, key = self.qkv_size
        self.query_key = nn.Parameter(torch.empty(query + key, shape.hidden))
        self.value = nn.Parameter(torch.empty(key, shape.hidden))
        self.output = nn.Parameter(torch.empty(shape.hidden, query))
        self.gate = nn.Parameter(torch.empty(shape.inner, shape.hidden))
        self.up = nn.Parameter(torch.empty(shape.inner, shape.hidden))
        self.down = nn.Parameter(torch.empty(shape.hidden, shape.inner))
        for weight in (self.query_key, self.value, self.gate, self.up):
            nn.init.normal_(weight, std=shape.hidden**-0.5)
        for weight in (self.output, self.down):
            nn.init.normal_(weight, std=0.5 * weight.shape[1] ** -0.5 * shape.layers**-0.5)

    def forward(self, x_btd: Tensor, cos_te: Tensor, sin_te: Tensor) -> Tensor:
        x_btd = x_btd + self.attention(rms_norm(x_btd, self.attention_norm, self.shape.norm_eps), cos_te, sin_te)
        y_btd = rms_norm(x_btd, self.mlp_norm, self.shape.norm_eps)
        inner_btf = F.silu(linear(y_btd, self.gate)) * linear(y_btd, self.up)
        return x_btd + linear(inner_btf, self.down)

    def attention(self, x_btd: Tensor, cos_te: Tensor, sin_te: Tensor) -> Tensor:
        b, t, _ = x_btd.shape
        query_key = linear(x_btd, self.query_key).view(b, t, -1, self.shape.head_size).transpose(1, 2)
        query_key = rotate(query_key, cos_te, sin_te)
        query, key = query_key.split((self.shape.heads, self.shape.kv_heads), dim=1)
        value = linear(x_btd, self.value).view(b, t, -1, self.shape.head_size).transpose(1, 2)
        mixed = attend(query, key, value)
        return linear(mixed.transpose(1, 2).reshape(b, t, -1), self.output)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Weights are kept in float32 for the optimizer and multiplied in the type of the stream."""
    return F.linear(x, weight.to(x.dtype))


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), eps)


class DemoModel(nn.Module):
    """Token ids in, the logits of chosen positions out. The embedding is also the output matrix."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.randn(shape.vocab, shape.hidden) * 0.5 * shape.hidden**-0.5)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.Parameter(torch.ones(shape.hidden))
        cos, sin = rope_table(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, ids_bt: Tensor, chosen_n: Tensor, dtype: torch.dtype) -> Tensor:
        """`chosen_n` holds flat positions (row * T + column): only tokens with a loss pay for the output matrix."""
        t = ids_bt.shape[1]
        x_btd = F.embedding(ids_bt, self.embedding).to(dtype)
        cos_te, sin_te = self.cos[:t].to(dtype), self.sin[:t].to(dtype)
        for layer in self.layers:
            x_btd = layer(x_btd, cos_te, sin_te)
        x_nd = x_btd.reshape(-1, x_btd.shape[-1])[chosen_n]
        return linear(rms_norm(x_nd, self.norm, self.shape.norm_eps), self.embedding).float()

    def matrices(self) -> list[nn.Parameter]:
        """The two-dimensional weights inside the layers: those that Muon trains."""
        return [p for layer in self.layers for p in layer.parameters() if p.ndim == 2]

    def others(self) -> list[nn.Parameter]:
        """The embedding and the norms: those that AdamW trains."""
        return [self.embedding, self.norm, *(p for layer in self.layers for p in layer.parameters() if p.ndim == 1)]


def hf_weights(model: DemoModel) -> dict[str, Tensor]:
    """The weights under the names of `LlamaForCausalLM`, in bfloat16."""
    named: dict[str, Tensor] = {"model.embed_tokens.weight": model.embedding, "model.norm.weight": model.norm}
    for index, layer in enumerate(model.layers):
        assert isinstance(layer, Layer)
        query, key = layer.query_key.split(layer.qkv_size)
        parts = {
            "input_layernorm": layer.attention_norm, "post_attention_layernorm": layer.mlp_norm,
            "self_attn.q_proj": query, "self_attn.k_proj": key, "self_attn.v_proj": layer.value,
            "self_attn.o_proj": layer.output, "mlp.gate_proj": layer.gate, "mlp.up_proj": layer.up,
            "mlp.down_proj": layer.down,
        }  # fmt: skip
        named |= {f"model.layers.{index}.{name}.weight": weight for name, weight in parts.items()}
    return {name: weight.detach().to(torch.bfloat16).contiguous() for name, weight in named.items()}


def hf_config(shape: Shape, bos: int, eos: int, pad: int) -> dict[str, object]:
    """`config.json` as `LlamaConfig` reads it (and, for older readers, the flat `rope_theta`)."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": shape.max_positions,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def export(model: DemoModel, folder: Path, bos: int, eos: int, pad: int) -> None:
    """Writes config.json, generation_config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(hf_weights(model), folder / "model.safetensors", metadata={"format": "pt"})
    generation = {"bos_token_id": bos, "eos_token_id": [eos], "pad_token_id": pad, "do_sample": False}
    for name, content in (("config", hf_config(model.shape, bos, eos, pad)), ("generation_config", generation)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    (folder / "model.safetensors").chmod(0o644)


def save_checkpoint(model: DemoModel, path: Path, extra: dict[str, object]) -> None:
    """A file for resuming; written aside and moved, so that a reader never sees half of one."""
    aside = path.with_suffix(".part")
    torch.save({"shape": asdict(model.shape), "model": model.state_dict(), **extra}, aside)
    aside.rename(path)
