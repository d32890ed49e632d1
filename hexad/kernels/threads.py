"""The processor, and how many kernel threads it wants: one a physical core that this process may use."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def usable_processors() -> list[int]:
    """Logical processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def processor() -> str:
    """Its name, for people."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def default_threads() -> int:
    """Physical cores (hyperthreads count once) among the usable processors, at most what the cgroup grants."""
    cores = {_core(processor) for processor in usable_processors()}
    return max(1, min(len(cores), _cgroup_processors() or len(cores)))


def _cgroup_processors() -> int | None:
    """The cgroup's CPU quota in whole processors, None where there is no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return None


def _core(processor: int) -> tuple[str, str] | int:
    topology = Path(f"/sys/devices/system/cpu/cpu{processor}/topology")
    try:
        return (topology / "physical_package_id").read_text(), (topology / "core_id").read_text()
    except OSError:  # no sysfs: count it as a core of its own
        return processor
