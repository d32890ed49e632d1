"""The memory plan: what will be held, before anything is loaded, by arithmetic.

It knows byte counts only; `sizes.py` derives them from a model's configuration.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from hexad.errors import OutOfMemory
from hexad.kernels.ops import PAGE_SIZE

KV_SHARE = 0.5
"""Of the memory that weights and scratch leave, the most that an unset `kv_memory` takes."""


class MemoryPlan(msgspec.Struct, kw_only=True, frozen=True):
    """Bytes, and the pages that they buy."""

    available: int
    weights: int
    scratch: int
    num_pages: int
    page_bytes: int

    @property
    def kv(self) -> int:
        return self.num_pages * self.page_bytes

    @property
    def left(self) -> int:
        return self.available - self.weights - self.scratch - self.kv

    @property
    def kv_tokens(self) -> int:
        return self.num_pages * PAGE_SIZE


def available_memory() -> int:
    """Bytes that can be taken without swapping: the least of what the kernel and the cgroup say."""
    limits = [_meminfo_available()]
    for folder, limit, used in (
        ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            free = int(Path(folder, limit).read_text()) - int(Path(folder, used).read_text())
            limits.append(free + _file_cache(Path(folder, "memory.stat").read_text()))
        except (OSError, ValueError, KeyError):  # no such controller, or "max"
            continue
    return max(0, min(limits))


def _file_cache(stat: str) -> int:
    """Bytes that the cgroup counts as used and gives back when they are wanted."""
    values = dict(line.split() for line in stat.splitlines())
    prefix = "total_" if "total_inactive_file" in values else ""
    return sum(int(values[f"{prefix}{kind}_file"]) for kind in ("inactive", "active"))


def _meminfo_available() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def plan_memory(
    *,
    weights: int,
    scratch: int,
    kv_bytes_per_token: int,
    model_max_len: int,
    max_model_len: int | None,
    max_num_seqs: int,
    kv_memory: int | None,
    available: int,
    sharers: int = 1,
) -> tuple[MemoryPlan, int]:
    """The plan and the context length that it supports.

    An unset `kv_memory` becomes what `max_num_seqs` full contexts need, at most KV_SHARE of
    what is left, and of that an equal part where several models share it. An unset `max_model_len`
    becomes the model's own limit, or what the cache holds.

    Raises OutOfMemory with what is needed, what is there and a value that would fit.
    """
    page_bytes = kv_bytes_per_token * PAGE_SIZE
    left = available - weights - scratch
    if left < page_bytes:
        raise OutOfMemory(
            f"the model needs {gib(weights)} for weights and {gib(scratch)} for scratch, and "
            f"{gib(available)} are available; use a smaller model or free some memory",
            param="model",
        )
    context_pages = -(-(max_model_len or model_max_len) // PAGE_SIZE)
    if kv_memory is None:
        num_pages = min(int(left * KV_SHARE / sharers) // page_bytes, context_pages * max_num_seqs)
    elif kv_memory > left:
        raise OutOfMemory(
            f"kv_memory is {gib(kv_memory)}, and {gib(left)} are left beside {gib(weights)} of weights and "
            f"{gib(scratch)} of scratch; set kv_memory to at most {left // 2**20}MiB",
            param="kv_memory",
        )
    else:
        num_pages = kv_memory // page_bytes
    fits = num_pages * PAGE_SIZE
    if max_model_len is not None and fits < max_model_len:
        raise OutOfMemory(
            f"max_model_len {max_model_len} needs {gib(context_pages * page_bytes)} of KV cache, and "
            f"{gib(num_pages * page_bytes)} are planned; set max_model_len to at most {fits}, "
            f"or raise kv_memory to {-(-context_pages * page_bytes // 2**20)}MiB",
            param="max_model_len",
        )
    if fits < 2:
        raise OutOfMemory(
            f"kv_memory is {kv_memory} bytes, less than one page of {page_bytes}; raise it", param="kv_memory"
        )
    plan = MemoryPlan(available=available, weights=weights, scratch=scratch, num_pages=num_pages, page_bytes=page_bytes)
    return plan, max_model_len or min(model_max_len, fits)


def gib(size: int) -> str:
    """Bytes for people."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
