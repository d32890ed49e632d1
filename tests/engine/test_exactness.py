"""The exactness law through the whole engine, bitwise on tokens and log-probabilities.

How a request is run (company, chunks, cache, preemption, threads, another engine) must not
show in its answer. `test_mutants.py` shows that each law can fail.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hexad.kernels.load import native_problem
from hexad.testing.zoo import ZOO, write_model
from hexad.text.tokenizer import Tokenizer
from tests.engine.worlds import LAWS, World, workload

LENGTHS = [1, 2, 3, 7, 15, 16, 17, 18, 31, 32, 33, 34, 40, 47, 48, 49, 50, 63, 64, 65, 66, 80, 81, 95, 96, 97, 100, 111]
LENGTHS += [128, 129, 200, 270]
CASES = [
    ("native", "llama", "float32"),
    ("native", "qwen2-window", "bfloat16"),
    ("native", "qwen3-bias", "int8"),
    ("native", "llama-bias", "int4-32"),
    ("reference", "mistral-window", "float32"),
    ("reference", "qwen3", "bfloat16"),
]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    kernels, variant, dtype = request.param
    if kernels == "native" and (problem := native_problem()):
        if os.environ.get("CI"):
            pytest.fail(f"CI must test the native kernels, but {problem}")
        pytest.skip(problem)
    directory: Path = write_model(tmp_path_factory.mktemp("zoo") / variant, ZOO[variant])
    Tokenizer.of_bytes().save(directory)
    jobs = workload(LENGTHS, 24) if kernels == "native" else workload(LENGTHS[::3], 8)
    return World(directory, kernels, dtype, jobs)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_answer_is_always_the_same(world: World, law: Callable[[World], None]) -> None:
    law(world)
