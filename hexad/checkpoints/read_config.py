"""Reads `config.json` of the model families that Hexad runs, as transformers reads it.

What a missing key means, and which layers slide, follows transformers' configuration
classes (`models/*/configuration_*.py`, `modeling_rope_utils.py`), with old and new key
names. What Hexad cannot run is refused by name. This module does not know what the
numbers are used for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec

from hexad.checkpoints.config import CheckpointDtype, ModelConfig, Rope
from hexad.checkpoints.fields import Fields
from hexad.checkpoints.weights import Weights, has_weights
from hexad.errors import CheckpointError
from hexad.json_file import read_json_object

DTYPES = ("float32", "bfloat16", "float16")


class _Family(msgspec.Struct, frozen=True):
    """What transformers assumes of a family where `config.json` is silent."""

    max_position: int
    num_kv_heads: int | None = None
    """None: as many as query heads."""
    head_dim: int | None = None
    """None: hidden_size / num_attention_heads."""
    sliding_window: int | None = None
    qkv_bias: bool = False
    bias_keys: tuple[str, ...] = ()
    """Of attention_bias and mlp_bias, the keys that this family obeys."""
    qk_norm: bool = False
    layered_window: bool = False
    """The window holds from layer `max_window_layers` on, and only if `use_sliding_window`."""


_FAMILIES = {
    "llama": _Family(max_position=2048, bias_keys=("attention_bias", "mlp_bias")),
    "mistral": _Family(max_position=131072, num_kv_heads=8, sliding_window=4096),
    "qwen2": _Family(max_position=32768, num_kv_heads=32, sliding_window=4096, qkv_bias=True, layered_window=True),
    "qwen3": _Family(
        max_position=32768,
        num_kv_heads=32,
        head_dim=128,
        sliding_window=4096,
        bias_keys=("attention_bias",),
        qk_norm=True,
        layered_window=True,
    ),
}


def read_model_config(directory: Path) -> ModelConfig:
    """The configuration in `directory/config.json`; a dtype it does not name is that of the weights.

    Raises CheckpointError naming the file, the key, what was found and what is allowed.
    """
    path = directory / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{directory} has no config.json; a model is a directory in Hugging Face's layout")
    values = read_json_object(path)
    if values.get("dtype") is None and values.get("torch_dtype") is None and has_weights(directory):
        values["dtype"] = Weights.open(directory).main_dtype
    return parse_model_config(values, str(path))


def parse_model_config(values: dict[str, Any], source: str) -> ModelConfig:
    """Like `read_model_config`; `source` names the file in errors."""
    config = Fields(values, source)
    model_type = config.choice("model_type", tuple(_FAMILIES))
    family = _FAMILIES[model_type]
    _refuse_unsupported(config, model_type, family)

    hidden_size = config.integer("hidden_size", 1, 2**17)
    num_layers = config.integer("num_hidden_layers", 1, 1024)
    num_heads = config.integer("num_attention_heads", 1, 1024)
    kv_default = num_heads if config.is_null("num_key_value_heads") else family.num_kv_heads or num_heads
    num_kv_heads = config.integer("num_key_value_heads", 1, num_heads, default=kv_default)
    if num_heads % num_kv_heads:
        raise config.error("num_key_value_heads", num_kv_heads, f"a divisor of num_attention_heads {num_heads}")
    head_dim = _head_dim(config, family, hidden_size, num_heads)
    max_position = config.integer("max_position_embeddings", 1, 2**27, default=family.max_position)
    rope = _rope(config, max_position)
    if rope.kind == "yarn":
        # Many authors leave max_position_embeddings at the length before YaRN; it then says nothing of the context.
        max_position = max(max_position, int(rope.factor * rope.original_max_position))
    attention_bias = family.qkv_bias or _obeyed_flag(config, family, "attention_bias")
    return ModelConfig(
        model_type=model_type,
        vocab_size=config.integer("vocab_size", 1, 2**24),
        hidden_size=hidden_size,
        intermediate_size=config.integer("intermediate_size", 1, 2**20),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        max_position=max_position,
        rms_norm_eps=config.number("rms_norm_eps", 0.0, 1.0, default=1e-6),
        rope=rope,
        windows=_windows(config, family, num_layers),
        tie_word_embeddings=config.flag("tie_word_embeddings", default=False),
        attention_bias=attention_bias,
        output_bias=attention_bias and not family.qkv_bias,
        mlp_bias=_obeyed_flag(config, family, "mlp_bias"),
        qk_norm=family.qk_norm,
        dtype=_dtype(config),
    )


def _refuse_unsupported(config: Fields, model_type: str, family: _Family) -> None:
    for key in ("quantization_config", "compression_config"):
        if not config.is_absent(key):
            method = config.section(key).raw("quant_method", "unnamed")
            raise config.error(key, f"quantization by {method!r}", "float32, bfloat16 or float16 weights")
    architectures = config.raw("architectures", [])
    if not isinstance(architectures, list) or not all(str(name).endswith("ForCausalLM") for name in architectures):
        raise config.error("architectures", architectures, "a model that generates text (...ForCausalLM)")
    config.choice("hidden_act", ("silu",), default="silu")
    if config.number("partial_rotary_factor", 0.0, 1.0, default=1.0) != 1.0:
        raise config.error("partial_rotary_factor", config.raw("partial_rotary_factor"), "1.0")
    for key in ("attention_bias", "mlp_bias"):
        found = config.flag(key, default=False)
        if found and key not in family.bias_keys and not (key == "attention_bias" and family.qkv_bias):
            raise config.error(key, found, f"false: {model_type} models have no such bias")


def _obeyed_flag(config: Fields, family: _Family, key: str) -> bool:
    return key in family.bias_keys and config.flag(key, default=False)


def _head_dim(config: Fields, family: _Family, hidden_size: int, num_heads: int) -> int:
    default = family.head_dim
    if default is None:
        default = hidden_size // num_heads
        if config.is_absent("head_dim") and hidden_size % num_heads:
            raise config.error("hidden_size", hidden_size, f"a multiple of num_attention_heads {num_heads}")
    head_dim = config.integer("head_dim", 2, 1024, default=default)
    if head_dim % 2:
        raise config.error("head_dim", head_dim, "an even number: rotary embedding turns pairs")
    return head_dim


def _windows(config: Fields, family: _Family, num_layers: int) -> tuple[int, ...]:
    used = family.sliding_window is not None and not config.is_null("sliding_window")
    if family.layered_window:
        used = used and config.flag("use_sliding_window", default=False)
    window = config.integer("sliding_window", 1, 2**31 - 1, default=family.sliding_window) if used else 0
    first = config.integer("max_window_layers", 0, 2**31 - 1, default=28) if family.layered_window else 0
    derived = tuple(window if index >= first else 0 for index in range(num_layers))

    if config.is_absent("layer_types"):
        return derived
    names = config.strings("layer_types", ("full_attention", "sliding_attention", "attention"))
    if len(names) != num_layers:
        raise config.error("layer_types", f"{len(names)} entries", f"num_hidden_layers entries: {num_layers}")
    if "sliding_attention" in names and not window:
        raise config.error("layer_types", "sliding_attention without a window", "a sliding_window that is in use")
    named = tuple(window if name == "sliding_attention" else 0 for name in names)
    # transformers' Mistral and Llama do not read layer_types; obeying it here would change the model.
    if not family.layered_window and named != derived:
        raise config.error("layer_types", sorted(set(names)), "one kind of layer, as transformers runs this model_type")
    return named


def _dtype(config: Fields) -> CheckpointDtype:
    key = "torch_dtype" if config.is_absent("dtype") else "dtype"
    name = config.raw(key, None)
    if isinstance(name, str):
        name = name.removeprefix("torch.")
    if name is None:
        return "float32"
    if name not in DTYPES:
        raise config.error(key, name, ", ".join(DTYPES))
    return cast(CheckpointDtype, name)


def _rope(config: Fields, max_position: int) -> Rope:
    key = "rope_parameters" if config.is_absent("rope_scaling") else "rope_scaling"
    rope = config.section(key)
    for nested in ("full_attention", "sliding_attention"):
        if not rope.is_absent(nested):
            raise config.error(key, f"its own parameters for {nested}", "one set for all layers")
    theta = rope if not rope.is_absent("rope_theta") else config
    if rope.number("partial_rotary_factor", 0.0, 1.0, default=1.0) != 1.0:
        raise rope.error("partial_rotary_factor", rope.raw("partial_rotary_factor"), "1.0")
    base = theta.number("rope_theta", 0.0, 1e12, default=10000.0)
    kind = rope.choice(
        "type" if rope.is_absent("rope_type") else "rope_type",
        ("default", "linear", "llama3", "yarn"),
        default="default",
    )
    if kind == "default":
        return Rope(theta=base)
    if kind == "linear":
        return Rope(theta=base, kind="linear", factor=rope.number("factor", 0.0, 1e6))
    return _long_rope(config, rope, kind, base, max_position)


def _long_rope(config: Fields, rope: Fields, kind: str, theta: float, max_position: int) -> Rope:
    key = "original_max_position_embeddings"
    holder = rope if config.is_absent(key) else config
    original = holder.integer(key, 1, 2**27, default=max_position)
    if kind == "llama3":
        low = rope.number("low_freq_factor", 0.0, 1e6)
        high = rope.number("high_freq_factor", 0.0, 1e6)
        if high <= low:
            raise rope.error("high_freq_factor", high, f"more than low_freq_factor {low}")
        factor = rope.number("factor", 0.0, 1e6)
        return Rope(
            theta=theta, kind="llama3", factor=factor, original_max_position=original,
            low_freq_factor=low, high_freq_factor=high,
        )  # fmt: skip
    return Rope(
        theta=theta,
        kind="yarn",
        factor=rope.number("factor", 0.0, 1e6, default=max_position / original),
        original_max_position=original,
        beta_fast=rope.number("beta_fast", 0.0, 1e6, default=32.0),
        beta_slow=rope.number("beta_slow", 0.0, 1e6, default=1.0),
        attention_factor=rope.optional_number("attention_factor", 0.0, 1e6),
        mscale=rope.optional_number("mscale", 0.0, 1e6),
        mscale_all_dim=rope.optional_number("mscale_all_dim", 0.0, 1e6),
        truncate=rope.flag("truncate", default=True),
    )
