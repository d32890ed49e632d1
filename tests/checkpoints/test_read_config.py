"""config.json as transformers understands it: values, windows, rotary frequencies; and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from hexad.checkpoints.config import ModelConfig
from hexad.checkpoints.read_config import parse_model_config, read_model_config
from hexad.errors import CheckpointError

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
FAMILIES = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, heads of their own size": ("llama", {"head_dim": 16, "num_key_value_heads": None}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama, old keys": ("llama", {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.5}}),
    "llama, llama3 rope": ("llama", {"rope_theta": 5e5, "rope_scaling": LLAMA3_ROPE}),
    "llama, new keys": ("llama", {"rope_parameters": {**LLAMA3_ROPE, "rope_theta": 7e5}}),
    "llama, yarn": ("llama", {"rope_scaling": {**YARN, "beta_fast": 16, "beta_slow": 2}}),
    "llama, yarn with mscale": ("llama", {"rope_scaling": {**YARN, "mscale": 1.5, "mscale_all_dim": 0.7}}),
    "llama, dtype": ("llama", {"dtype": "bfloat16", "rms_norm_eps": 1e-5}),
    "mistral, default window": ("mistral", {}),
    "mistral, window": ("mistral", {"sliding_window": 24, "rope_theta": 1e6}),
    "mistral, no window": ("mistral", {"sliding_window": None, "head_dim": None}),
    "mistral, head_dim": ("mistral", {"sliding_window": None, "head_dim": 20}),
    "qwen2": ("qwen2", {}),
    "qwen2, unused window": ("qwen2", {"use_sliding_window": False, "sliding_window": 16, "max_window_layers": 2}),
    "qwen2, window": ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2}),
    "qwen2, window everywhere": ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0}),
    "qwen2, layer types": (
        "qwen2",
        {
            "use_sliding_window": True,
            "sliding_window": 16,
            "layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention"],
        },
    ),
    "qwen2, yarn": ("qwen2", {"rope_scaling": {**YARN, "truncate": False}, "rope_theta": 1e6}),
    "qwen3": ("qwen3", {}),
    "qwen3, bias": ("qwen3", {"attention_bias": True, "head_dim": 8}),
    "qwen3, window": ("qwen3", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3}),
    "qwen3, attention factor": ("qwen3", {"rope_scaling": {**YARN, "attention_factor": 1.25}}),
}


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A directory with the raw keys, as an author would write them."""
    model_type, changes = VARIANTS[request.param]
    keys = {"model_type": model_type, **SMALL, **changes}
    (tmp_path / "config.json").write_text(json.dumps(keys))
    return tmp_path


def test_dimensions_are_those_of_the_model_that_transformers_builds(variant: Path) -> None:
    ours = read_model_config(variant)
    config = AutoConfig.from_pretrained(variant)
    model = AutoModelForCausalLM.from_config(config)
    layer = model.model.layers[0]
    assert tuple(layer.self_attn.q_proj.weight.shape) == (ours.num_heads * ours.head_dim, ours.hidden_size)
    assert tuple(layer.self_attn.k_proj.weight.shape) == (ours.num_kv_heads * ours.head_dim, ours.hidden_size)
    assert tuple(layer.mlp.gate_proj.weight.shape) == (ours.intermediate_size, ours.hidden_size)
    assert tuple(model.model.embed_tokens.weight.shape) == (ours.vocab_size, ours.hidden_size)
    assert len(model.model.layers) == ours.num_layers
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == ours.tie_word_embeddings
    assert (layer.self_attn.q_proj.bias is not None) == ours.attention_bias
    assert (layer.self_attn.o_proj.bias is not None) == ours.output_bias
    assert (layer.mlp.up_proj.bias is not None) == ours.mlp_bias
    assert model.model.norm.variance_epsilon == ours.rms_norm_eps
    assert config.max_position_embeddings == ours.max_position
    assert str(config.dtype or torch.float32).removeprefix("torch.") == ours.dtype


def allowed_keys(config: Any, window: int) -> torch.Tensor:
    """transformers' mask for 40 tokens, true where a query (row) sees a key (column)."""
    config._attn_implementation = "eager"
    make = create_sliding_window_causal_mask if window else create_causal_mask
    arguments = {
        "config": config,
        "inputs_embeds": torch.zeros(1, 40, config.hidden_size),
        "attention_mask": None,
        "past_key_values": None,
        "position_ids": torch.arange(40)[None],
    }
    return torch.as_tensor(make(**arguments)[0, 0] == 0)


def test_windows_are_those_of_the_layers_that_transformers_builds(variant: Path) -> None:
    ours = read_model_config(variant)
    config = AutoConfig.from_pretrained(variant)
    layers = AutoModelForCausalLM.from_config(config).model.layers
    if ours.model_type == "llama":
        assert set(ours.windows) == {0}
        assert getattr(config, "sliding_window", None) is None
    elif ours.model_type == "mistral":
        assert ours.windows == (config.sliding_window or 0,) * ours.num_layers
    else:
        assert ours.windows == tuple(layer.self_attn.sliding_window or 0 for layer in layers)
    queries, keys = torch.arange(40)[:, None], torch.arange(40)[None]
    for window in set(ours.windows):
        expected = (keys <= queries) & ((keys > queries - window) if window else True)
        assert torch.equal(allowed_keys(config, window), expected)


def test_rope_has_the_values_that_transformers_uses(variant: Path) -> None:
    rope = read_model_config(variant).rope
    theirs = AutoConfig.from_pretrained(variant).rope_parameters
    assert rope.kind == theirs["rope_type"]
    assert rope.theta == theirs["rope_theta"]
    if rope.kind != "default":
        assert rope.factor == theirs["factor"]
    if rope.kind in ("llama3", "yarn"):
        assert rope.original_max_position == theirs["original_max_position_embeddings"]
    for key in ("low_freq_factor", "high_freq_factor", "attention_factor", "mscale", "mscale_all_dim"):
        if key in theirs:
            assert getattr(rope, key) == theirs[key]
    if rope.kind == "yarn":
        assert rope.beta_fast == theirs.get("beta_fast", 32)
        assert rope.beta_slow == theirs.get("beta_slow", 1)
        assert rope.truncate == theirs.get("truncate", True)


def test_saved_by_transformers_reads_the_same(variant: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    saved = tmp_path_factory.mktemp("saved")
    AutoConfig.from_pretrained(variant).save_pretrained(saved)
    assert read_model_config(saved) == read_model_config(variant)


def test_yarn_extends_a_context_that_is_still_the_original_one() -> None:
    """As Qwen2.5's own page tells users to write it, and as vLLM reads it."""
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
    assert parse_model_config({"model_type": "qwen2", **SMALL, "rope_scaling": yarn}, "x").max_position == 2048


@pytest.mark.parametrize("model_type", FAMILIES)
def test_missing_keys_have_transformers_defaults(model_type: str, tmp_path: Path) -> None:
    sizes = {"vocab_size": 64, "hidden_size": 128, "intermediate_size": 48, "num_hidden_layers": 40}
    keys = {"model_type": model_type, **sizes, "num_attention_heads": 32}
    ours = parse_model_config(keys, "config.json")
    theirs = FAMILIES[model_type](**sizes, num_attention_heads=32)
    assert ours.max_position == theirs.max_position_embeddings
    assert ours.num_kv_heads == theirs.num_key_value_heads
    assert ours.rms_norm_eps == theirs.rms_norm_eps
    assert ours.head_dim == getattr(theirs, "head_dim", None) or 128 // 32
    assert ours.tie_word_embeddings == theirs.tie_word_embeddings
    assert ours.rope.theta == theirs.rope_parameters["rope_theta"]
    (tmp_path / "config.json").write_text(json.dumps(keys))
    assert read_model_config(tmp_path).dtype == "float32"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a family": ({"model_type": "gpt2"}, "model_type is gpt2.*llama, mistral, qwen2, qwen3"),
    "no family": ({"model_type": None}, "model_type is missing"),
    "quantization": ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config.*gptq"),
    "an activation": ({"hidden_act": "gelu"}, "hidden_act is gelu.*silu"),
    "architectures of another type": ({"architectures": 3}, "architectures is 3"),
    "a task": ({"architectures": ["LlamaForSequenceClassification"]}, "architectures"),
    "a rope": ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope_type is longrope.*yarn"),
    "an old rope": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "type is dynamic"),
    "a rope without its factor": ({"rope_scaling": {"type": "linear"}}, "factor is missing"),
    "rope by layer type": ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "full_attention"),
    "partial rotation": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    "partial rotation in the rope": ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    "frequencies in the wrong order": (
        {"rope_scaling": {**LLAMA3_ROPE, "high_freq_factor": 0.5}},
        "high_freq_factor is 0.5",
    ),
    "a dtype": ({"torch_dtype": "float8_e4m3fn"}, "torch_dtype is float8_e4m3fn.*bfloat16"),
    "no size": ({"hidden_size": None}, "hidden_size is missing"),
    "zero": ({"num_hidden_layers": 0}, "num_hidden_layers is 0.*from 1"),
    "negative": ({"vocab_size": -5}, "vocab_size is -5"),
    "huge": ({"vocab_size": 10**12}, "vocab_size is 1000000000000"),
    "a string": ({"hidden_size": "32"}, "hidden_size"),
    "a float": ({"hidden_size": 32.0}, "hidden_size is 32.0"),
    "a bool": ({"num_hidden_layers": True}, "num_hidden_layers is True"),
    "an infinite number": ({"rms_norm_eps": float("inf")}, "rms_norm_eps is inf"),
    "heads that do not share": ({"num_key_value_heads": 3}, "num_key_value_heads is 3.*divisor"),
    "heads that do not fit": ({"hidden_size": 33}, "hidden_size is 33"),
    "odd heads": ({"head_dim": 7}, "head_dim is 7.*even"),
    "windows in a family without": ({"layer_types": ["sliding_attention"] * 4}, "layer_types"),
    "too few layer types": ({"layer_types": ["full_attention"]}, "layer_types is 1 entries.*4"),
    "a bias the family does not have": ({"model_type": "mistral", "attention_bias": True}, "attention_bias"),
    "a window of nothing": ({"model_type": "mistral", "sliding_window": 0}, "sliding_window is 0"),
    "no object": ({"rope_scaling": [1]}, "rope_scaling"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_run_is_refused_by_name(case: str, tmp_path: Path) -> None:
    changes, message = REFUSED[case]
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "llama", **SMALL, **changes}).replace("Infinity", "1e999")
    )
    with pytest.raises(CheckpointError, match=rf"config\.json: .*{message}"):
        read_model_config(tmp_path)


NO_OBJECTS = ["", "[]", "{", '{"a": NaN}', '{"a": 1, "a": 1}', "\ufeff{}", "[" * 100_000, '{"a": -0}']


@pytest.mark.parametrize("text", NO_OBJECTS)
def test_what_is_no_json_object_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_model_config(tmp_path)


def test_a_directory_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        read_model_config(tmp_path)


def test_a_dtype_that_is_not_named_is_that_of_the_weights(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL), dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    keys = json.loads((tmp_path / "config.json").read_text())
    keys.pop("dtype", None)
    (tmp_path / "config.json").write_text(json.dumps(keys))
    config: ModelConfig = read_model_config(tmp_path)
    assert config.dtype == "bfloat16"
