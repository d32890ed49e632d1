"""The plan's arithmetic, against a model that is really allocated, and its refusals."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexad.errors import OutOfMemory
from hexad.kernels.ops import PAGE_SIZE
from hexad.placement.memory import available_memory, plan_memory

GIB = 2**30


def plan(**given: Any) -> Any:
    asked = {
        "weights": GIB,
        "scratch": GIB // 8,
        "kv_bytes_per_token": 100_000,
        "model_max_len": 8192,
        "max_model_len": None,
        "max_num_seqs": 64,
        "kv_memory": None,
        "available": 4 * GIB,
    }
    return plan_memory(**{**asked, **given})


@settings(max_examples=200)
@given(
    available=st.integers(0, 64 * GIB),
    weights=st.integers(1, 32 * GIB),
    per_token=st.integers(1, 10**6),
    kv_memory=st.none() | st.integers(1, 64 * GIB),
    max_model_len=st.none() | st.integers(2, 100_000),
)
def test_a_plan_never_promises_more_than_there_is(
    available: int, weights: int, per_token: int, kv_memory: int | None, max_model_len: int | None
) -> None:
    try:
        memory, context = plan(
            available=available,
            weights=weights,
            kv_bytes_per_token=per_token,
            kv_memory=kv_memory,
            max_model_len=max_model_len,
        )
    except OutOfMemory:
        return
    assert memory.left >= 0
    assert memory.weights + memory.scratch + memory.kv + memory.left == available
    assert 2 <= context <= memory.num_pages * PAGE_SIZE
    assert max_model_len is None or context == max_model_len


def test_an_unset_cache_holds_every_sequence_at_full_length_where_memory_allows() -> None:
    memory, context = plan(kv_bytes_per_token=10)
    assert (memory.num_pages, context) == (64 * 8192 // PAGE_SIZE, 8192)


def test_a_context_that_does_not_fit_is_refused_with_one_that_does() -> None:
    with pytest.raises(OutOfMemory, match="set max_model_len to at most") as refused:
        plan(max_model_len=8192, kv_memory=GIB // 2)
    fits = int(re.search(r"at most (\d+)", str(refused.value)).group(1))  # type: ignore[union-attr]
    assert plan(max_model_len=fits, kv_memory=GIB // 2)[1] == fits
    with pytest.raises(OutOfMemory):
        plan(max_model_len=fits + PAGE_SIZE, kv_memory=GIB // 2)


def test_a_cache_that_does_not_fit_is_refused_with_one_that_does() -> None:
    with pytest.raises(OutOfMemory, match="set kv_memory to at most") as refused:
        plan(kv_memory=8 * GIB)
    fits = int(re.search(r"at most (\d+)MiB", str(refused.value)).group(1)) * 2**20  # type: ignore[union-attr]
    assert plan(kv_memory=fits)[0].kv <= fits


def test_a_model_that_does_not_fit_is_refused_with_both_numbers() -> None:
    with pytest.raises(OutOfMemory, match=r"5\.00 GiB for weights.*4\.00 GiB are available"):
        plan(weights=5 * GIB)


def test_available_memory_is_below_the_machines() -> None:
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) * 1024
    assert 0 < available_memory() < total
