"""What all tests share: models made once, and how property tests run."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from hexad.testing.zoo import ZOO, write_model
from hexad.text.tokenizer import Tokenizer

# The same examples in every run, however busy the machine is. Who looks for new ones leaves out `derandomize`.
settings.register_profile("hexad", derandomize=True, deadline=None)
settings.load_profile("hexad")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights with a tokenizer of 256 bytes."""
    directory = write_model(tmp_path_factory.mktemp("tiny") / "llama", ZOO["llama"])
    Tokenizer.of_bytes().save(directory)
    return directory
