"""Fill in the middle: a prompt that shows a model what stands before and behind the place where it writes.

The tokens' names and the order of the parts are those of llama.cpp's `/infill` (`src/llama-vocab.cpp`,
`tools/server/server-common.cpp`); the pattern of a repository is Qwen2.5-Coder's (arXiv:2409.12186). Nothing is
cut to fit. This module does not know models, contexts or wire formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from hexad.errors import BadRequest
from hexad.text.tokenizer import Tokenizer
from hexad.types import SamplingParams

MARKS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),  # CodeLlama
    ("<PRE>", "<SUF>", "<MID>"),
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),  # GLM
    ("<|prefix|>", "<|suffix|>", "<|middle|>"),  # Falcon
)
REPOSITORY = ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>")
FILE = "<|file_sep|>"
ENDS = ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "▁<EOT>", "<EOT>", "<|endoftext|>", *REPOSITORY, FILE)
"""What a model writes behind the middle."""

SNIPPET = "\n\n--- snippet ---\n\n"
"""Before each further text, for a model without a token for files."""


class Infill(NamedTuple):
    """A prompt, and what ends its answer beside the model's own ends."""

    token_ids: list[int]
    stop_token_ids: list[int]
    stop: list[str]
    """Ends whose tokens are not special: their text would show, so it is cut off."""

    def stopping(self, params: SamplingParams) -> SamplingParams:
        return msgspec.structs.replace(
            params, stop=[*params.stop, *self.stop], stop_token_ids=[*params.stop_token_ids, *self.stop_token_ids]
        )


def infill_prompt(
    tokenizer: Tokenizer, prefix: str, suffix: str, extra: Sequence[tuple[str, str]] = (), *, param: str = "suffix"
) -> Infill:
    """The prompt after which a model writes what stands between `prefix` and `suffix`.

    `extra`: names and texts of other files. Token names that the texts hold stay plain text.
    Raises BadRequest, naming `param`, for a model that has no such tokens.
    """
    before, behind, middle = _marks(tokenizer, param)
    ids = _files(tokenizer, extra) if extra else []
    opening = tokenizer.encode("", add_special_tokens=True)[:1]
    if opening == [tokenizer.bos_token_id]:
        ids += opening
    ids += [before, *_plain(tokenizer, prefix), behind, *_plain(tokenizer, suffix), middle]
    ends = {name: token for name in ENDS if (token := tokenizer.token_id(name)) is not None}
    return Infill(
        ids,
        [token for token in ends.values() if token in tokenizer.special_token_ids],
        [name for name, token in ends.items() if token not in tokenizer.special_token_ids],
    )


def _marks(tokenizer: Tokenizer, param: str) -> list[int]:
    for names in MARKS:
        ids = [token for name in names if (token := tokenizer.token_id(name)) is not None]
        if len(ids) == len(names):
            return ids
    wanted = " or ".join(", ".join(names) for names in MARKS[:2])
    raise BadRequest(
        f"{param} needs a model that can fill in the middle; this one's tokenizer has no such tokens ({wanted}, ...). "
        f"Use a code model, or leave {param} out",
        param=param,
    )


def _plain(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False, allow_special=False) if text else []


def _files(tokenizer: Tokenizer, extra: Sequence[tuple[str, str]]) -> list[int]:
    """Other files, and that another one begins."""
    repository = next((token for name in REPOSITORY if (token := tokenizer.token_id(name)) is not None), None)
    file = tokenizer.token_id(FILE)
    ids = [] if repository is None else [repository, *_plain(tokenizer, "myproject\n")]
    for name, text in extra:
        ids += _plain(tokenizer, SNIPPET + text) if file is None else [file, *_plain(tokenizer, f"{name}\n{text}")]
    return ids if file is None else [*ids, file, *_plain(tokenizer, "filename\n")]
