"""Models that the tests share, made once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hexad.bench.shapes import byte_tokenizer
from hexad.testing.zoo import ZOO, write_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights with a tokenizer of 256 bytes."""
    directory = write_model(tmp_path_factory.mktemp("tiny") / "llama", ZOO["llama"])
    (directory / "tokenizer.json").write_text(json.dumps(byte_tokenizer()))
    return directory
