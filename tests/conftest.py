"""Models that the tests share, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from hexad.testing.zoo import ZOO, write_model
from hexad.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights with a tokenizer of 256 bytes."""
    directory = write_model(tmp_path_factory.mktemp("tiny") / "llama", ZOO["llama"])
    Tokenizer.of_bytes().save(directory)
    return directory
