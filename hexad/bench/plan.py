"""How long a comparison will take: a guess from what each contestant took on the machine of docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hexad.bench.document import ARRIVALS, LOADS, WORKLOADS, workloads
from hexad.bench.group import ENOUGH_S, FAR_BEHIND, Group, runs_of

REFERENCE_WEIGHTS = 473e6
UNKNOWN = (8.0, 5.0, 60.0, 25.0, 5.0)
SECONDS: Mapping[tuple[str, int], tuple[float, float, float, float, float]] = {
    ("hexad", 16): (2.2, 1.6, 12, 4, 0.5),
    ("openvino", 16): (4.5, 2.6, 30, 10, 2),
    ("vllm", 16): (3.5, 2.2, 25, 8, 25),
    ("llama.cpp", 16): (4, 5, 45, 20, 0.5),
    ("transformers", 16): (7, 3, 55, 50, 3),
    ("ctranslate2", 16): (0, 0, 0, 0, 2),
    ("hexad", 8): (1.4, 0.8, 6, 2, 0.4),
    ("hexad", 4): (0.9, 0.8, 6, 2, 0.3),
    ("openvino", 8): (2.1, 1.2, 13, 5, 1.4),
    ("openvino", 4): (1.8, 1.1, 12, 5, 2),
    ("vllm", 8): (2, 0.9, 9.5, 3.3, 20),
    ("vllm", 4): (4.4, 2.6, 22, 7, 27),
    ("llama.cpp", 8): (2.4, 4, 40, 16, 0.3),
    ("llama.cpp", 4): (1.6, 2.4, 25, 13, 0.4),
    ("onnxruntime-genai", 8): (2.5, 4, 50, 18, 0.6),
    ("onnxruntime-genai", 4): (1.7, 2.8, 34, 12, 0.6),
    ("ctranslate2", 8): (7.4, 2.9, 145, 90, 0.6),
}
"""One run of W1, W2, W3 and W4 of the 0.5B model, and a start; those of 16 bits roughly."""


def plan(groups: Iterable[Group], names: Sequence[str], repeats: int, weights: int) -> dict[tuple[int, str], float]:
    """Seconds for each number of bits and workload that is not done yet."""
    left = {}
    for group in groups:
        scale = weights / REFERENCE_WEIGHTS
        taken = {c.name: [s * scale for s in SECONDS.get((c.name, group.bits), UNKNOWN)] for c in group.contestants}
        near = [taken[c.name][2] for c in group.contestants[1:] if c.continuous]
        near = [seconds for seconds in near if seconds <= FAR_BEHIND * min(near)]
        for name in sorted(set(names), key=list(WORKLOADS).index):
            if name in LOADS:
                seconds = _under_load(name, near)
            else:
                seconds = sum(_seconds(name, taken[c.name], repeats, c.continuous) for c in group.contestants)
            if not group.done(name):
                left[group.bits, name] = seconds
    return left


def _seconds(name: str, taken: Sequence[float], repeats: int, continuous: bool) -> float:
    """Of one contestant, with what is not counted: in W4 two runs, to decide whether a request goes ahead."""
    if name == "W6":
        return taken[4] * (1 + runs_of(taken[4], repeats))
    if name == "concurrency":
        return min(taken[2], 2 * ENOUGH_S)
    one = taken[list(workloads(1)).index(name)]
    return one * (runs_of(one, repeats) + {"W1": 1, "W2": 1, "W3": 0.2, "W4": 2 if continuous else 0.4}[name])


def _under_load(name: str, near: Sequence[float]) -> float:
    """So many of W3's 32 requests, at a share of what a peer can do; no peer is faster than it can."""
    of = ARRIVALS[name] / 32
    if name == "W5":
        return sum(2 * of * seconds / share for seconds in near for share in LOADS[name])
    return sum(of * max(seconds, min(near) / share) for share in LOADS[name] for seconds in [*near[:1], *near])


def shown(left: Mapping[tuple[int, str], float]) -> str:
    """A line for each number of bits, and the sum."""
    lines = []
    for bits in dict.fromkeys(bits for bits, _ in left):
        cells = [f"{name} {seconds:.0f} s" for (width, name), seconds in left.items() if width == bits]
        lines.append(f"{bits} bits: {', '.join(cells)}")
    return "\n".join([*lines, f"about {sum(left.values()) / 60:.0f} minutes on a quiet machine like ours"])
