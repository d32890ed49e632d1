"""The op sets under which the laws must hold alike."""

from __future__ import annotations

from typing import Literal

import pytest

from hexad.errors import ConfigError
from hexad.kernels.load import load
from hexad.kernels.ops import Ops


@pytest.fixture(scope="session", params=["reference", "native"])
def ops(request: pytest.FixtureRequest) -> Ops:
    kind: Literal["reference", "native"] = request.param
    try:
        return load(kind, threads=2).ops
    except ConfigError as missing:
        pytest.skip(str(missing))
