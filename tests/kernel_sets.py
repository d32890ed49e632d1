"""Kernel sets for tests that run on every one of them."""

import os

import pytest

from hexad.kernels.load import Kind, load, native_problem
from hexad.kernels.ops import Ops

KINDS: tuple[Kind, ...] = ("reference", "torch", "native")


def ops_of(kind: Kind, threads: int = 1) -> Ops:
    """The set. Where the native one is not built the test is skipped, but in CI it fails."""
    if kind == "native" and (problem := native_problem()):
        if os.environ.get("CI"):
            pytest.fail(f"CI must test the native kernels, but {problem}")
        pytest.skip(problem)
    return load(kind, threads).ops
