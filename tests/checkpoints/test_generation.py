"""Sampling defaults against transformers' GenerationConfig, and values that are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig

from hexad.checkpoints.generation import GenerationDefaults, read_generation_defaults
from hexad.errors import CheckpointError

KEYS = ("top_p", "top_k", "min_p", "repetition_penalty")


def write(directory: Path, generation: dict[str, Any] | None, config: dict[str, Any] | None = None) -> Path:
    for name, content in (("generation_config.json", generation), ("config.json", config)):
        if content is not None:
            (directory / name).write_text(json.dumps(content))
    return directory


@pytest.mark.parametrize(
    "values",
    [
        {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "eos_token_id": [7, 9]},
        {"do_sample": True, "repetition_penalty": 1.05, "min_p": 0.05, "eos_token_id": 7, "max_new_tokens": 100},
        {},
    ],
)
def test_values_are_those_that_transformers_saved(tmp_path: Path, values: dict[str, Any]) -> None:
    GenerationConfig(**values).save_pretrained(tmp_path)
    ours = read_generation_defaults(tmp_path)
    theirs = GenerationConfig.from_pretrained(tmp_path)
    for key in KEYS:
        assert getattr(ours, key) == getattr(theirs, key)
    assert (ours.temperature, ours.max_tokens) == (theirs.temperature, theirs.max_new_tokens)
    eos = values.get("eos_token_id", ())
    assert ours.eos_token_ids == (tuple(eos) if isinstance(eos, (list, tuple)) else (eos,))


def test_sampling_turned_off_is_greedy(tmp_path: Path) -> None:
    assert read_generation_defaults(write(tmp_path, {"do_sample": False, "temperature": 0.7})).temperature == 0.0


def test_end_of_sequence_falls_back_to_config(tmp_path: Path) -> None:
    assert read_generation_defaults(write(tmp_path, None, {"eos_token_id": [3, 2, 3]})).eos_token_ids == (3, 2)
    assert read_generation_defaults(write(tmp_path, {"eos_token_id": 5}, {"eos_token_id": 3})).eos_token_ids == (5,)


def test_without_files_nothing_is_set(tmp_path: Path) -> None:
    assert read_generation_defaults(tmp_path) == GenerationDefaults()


@pytest.mark.parametrize(
    "values",
    [{"temperature": -1}, {"temperature": "hot"}, {"top_p": 0}, {"top_p": 1.5}, {"top_k": -2}, {"eos_token_id": -1},
     {"eos_token_id": "</s>"}, {"eos_token_id": [1, True]}, {"do_sample": 1}, {"max_new_tokens": 0}, {"min_p": 2},
     {"repetition_penalty": 0}, {"top_k": 2.5}],
)  # fmt: skip
def test_values_out_of_range_are_named(tmp_path: Path, values: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=rf"generation_config\.json: {next(iter(values))} is"):
        read_generation_defaults(write(tmp_path, values))
