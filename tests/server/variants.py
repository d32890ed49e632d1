"""Tiny chat models: random weights with the demo model's tokenizer and chat template."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

import hexad
from hexad.testing.zoo import write_model

DEMO = Path(hexad.__file__).parent / "checkpoints" / "demo"
QWEN = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>")
"""The tokens with which Qwen's models fill in the middle."""
EMPTY: Mapping[str, int] = {}


def write_variant(
    directory: Path,
    *,
    added: Sequence[str] = (),
    context: int = 2048,
    eos: int | None = 2,
    sizes: Mapping[str, int] = EMPTY,
    dtype: str = "float32",
) -> Path:
    """`added`: tokens that its tokenizer has beside the demo model's. Without `eos` an answer never ends by itself.
    `sizes`: those of config.json that are not to be tiny."""
    backend = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    backend.add_tokens([AddedToken(name, special=False, normalized=False) for name in added])
    config = {
        "model_type": "llama",
        "vocab_size": backend.get_vocab_size(with_added_tokens=True),
        "max_position_embeddings": context,
        "bos_token_id": None,
        "eos_token_id": eos,
        **sizes,
    }
    write_model(directory, config, dtype=dtype)
    backend.save(str(directory / "tokenizer.json"))
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(DEMO / name, directory)
    return directory
