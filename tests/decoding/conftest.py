"""The op sets under which the laws must hold alike."""

from __future__ import annotations

import os

import pytest

from hexad.kernels.load import load, native_problem
from hexad.kernels.ops import Ops


@pytest.fixture(scope="session", params=["reference", "native"])
def ops(request: pytest.FixtureRequest) -> Ops:
    if request.param == "native" and (problem := native_problem()):
        if os.environ.get("CI"):
            pytest.fail(f"CI must test the native kernels, but {problem}")
        pytest.skip(problem)
    return load(request.param, threads=2).ops
