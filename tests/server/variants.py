"""The shared tiny chat model with a larger vocabulary or another template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

import hexad
from hexad.testing.zoo import write_model

DEMO = Path(hexad.__file__).parent / "checkpoints" / "demo"
TEMPLATE = (DEMO / "chat_template.jinja").read_text()
THINKING = TEMPLATE.replace("assistant\\n' -}}\n{%- endif -%}", "assistant\\n<think>\\n' -}}\n{%- endif -%}")
"""Opens the reasoning itself, as DeepSeek-R1's does."""
assert THINKING != TEMPLATE


def write_variant(directory: Path, *, added: Sequence[str] = (), template: str = TEMPLATE, context: int = 2048) -> Path:
    """A model of random weights; `added`: tokens that its tokenizer has beside the demo model's."""
    backend = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    backend.add_tokens([AddedToken(name, special=False, normalized=False) for name in added])
    config = {
        "model_type": "llama",
        "vocab_size": backend.get_vocab_size(with_added_tokens=True),
        "max_position_embeddings": context,
        "bos_token_id": None,
        "eos_token_id": 2,
    }
    write_model(directory, config)
    backend.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_bytes((DEMO / "tokenizer_config.json").read_bytes())
    (directory / "chat_template.jinja").write_text(template)
    return directory
