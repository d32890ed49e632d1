"""Sampling defaults that a model's author ships in `generation_config.json`.

As vLLM applies them with `--generation-config auto`: they replace the engine's defaults,
and a request's own values replace them. This module does not know requests.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from hexad.checkpoints.fields import Fields
from hexad.json_file import read_json_object


class GenerationDefaults(msgspec.Struct, frozen=True):
    """By the names of SamplingParams; None where the author said nothing."""

    eos_token_ids: tuple[int, ...] = ()
    """Any of them ends an answer."""
    temperature: float | None = None
    """0 where the author turned sampling off (`do_sample: false`)."""
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None
    """`max_new_tokens` in the file."""


def read_generation_defaults(directory: Path) -> GenerationDefaults:
    """Sampling from `generation_config.json`; end-of-sequence ids from there or else from `config.json`.

    Both files may be missing. Raises CheckpointError for values out of range.
    """
    generation = _fields(directory / "generation_config.json")
    eos = generation.token_ids("eos_token_id") or _fields(directory / "config.json").token_ids("eos_token_id")
    greedy = not generation.flag("do_sample", default=True)
    return GenerationDefaults(
        eos_token_ids=tuple(dict.fromkeys(eos)),
        temperature=0.0 if greedy else generation.bounded("temperature", 0.0, 100.0),
        top_p=generation.optional_number("top_p", 0.0, 1.0),
        top_k=generation.optional_integer("top_k", -1, 2**31 - 1),
        min_p=generation.bounded("min_p", 0.0, 1.0),
        repetition_penalty=generation.optional_number("repetition_penalty", 0.0, 100.0),
        max_tokens=generation.optional_integer("max_new_tokens", 1, 2**31 - 1),
    )


def _fields(path: Path) -> Fields:
    return Fields(read_json_object(path) if path.is_file() else {}, str(path))
