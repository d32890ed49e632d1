"""The contestants of one number of weight bits on all workloads, in turns.

Run by run within a workload, so that a noisy machine is noisy for all; what has no turn is
stopped. One that fails has a row with the reason, and gets another chance in the next workload.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from hexad.bench.contestant import Contestant
from hexad.bench.document import CONCURRENCIES, LOADS, WORKLOADS, Row, workloads
from hexad.bench.workload import Run, Workload, figures
from hexad.errors import HexadError
from hexad.placement.memory import available_memory

FAR_BEHIND = 2.0
"""A peer this many times slower than the best one on W3 is not measured under load: it would take hours."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Group:
    """The contestants of one number of weight bits, Hexad first, and what was measured of them."""

    bits: int
    contestants: list[Contestant]
    vocab_size: int
    repeats: int
    say: Say
    rows: list[Row] = field(default_factory=list)
    cold_start_s: dict[str, float] = field(default_factory=dict)

    def run(self, names: Sequence[str]) -> Iterator[str]:
        """Yields each workload when it is done. W6 goes first: it ends with all closed."""
        known = workloads(self.vocab_size)
        for name in sorted(set(names), key=lambda name: (name != "W6", list(WORKLOADS).index(name))):
            if name == "W6":
                self.cold()
            elif name in LOADS:
                self.under_load(name, known["W3"], LOADS[name])
            elif name == "concurrency":
                for count in CONCURRENCIES:
                    workload = msgspec.structs.replace(known["W3"], num_prompts=count)
                    self.turns(name, workload, self.contestants, 1, concurrency=count)
            else:
                self.steady(name, known[name])
            yield name

    def cold(self) -> None:
        """The first start of each fills the file cache and is not counted."""
        starts: dict[str, list[float]] = {}
        for run in range(self.repeats + 1):
            for c in self.contestants:
                try:
                    taken = self.start(c)
                except HexadError as error:
                    self.fail("W6", c, error)
                    continue
                self.say(f"{self.bits} bits  W6  {c.name}: {taken:.2f} s" + " (not counted)" * (run == 0))
                c.close()
                if run:
                    starts.setdefault(c.name, []).append(taken)
        self.cold_start_s = {name: statistics.median(seconds) for name, seconds in starts.items()}
        self.rows += [Row(workload="W6", bits=self.bits, name=name, seconds=s) for name, s in starts.items()]

    def steady(self, name: str, workload: Workload) -> None:
        """A run that is not counted finds out whether the first request should go ahead and compute what all share."""
        ahead: dict[str, bool] = {}
        few = msgspec.structs.replace(workload, num_prompts=min(2, workload.num_prompts))
        warm = workload if workload.shared else few
        for c in self.contestants:
            ways = (False, True) if workload.shared and c.continuous else (False,)
            taken = {way: run.seconds for way in ways if (run := self.attempt(name, c, warm, -1 - way, way))}
            if taken:
                ahead[c.name] = min(taken, key=lambda way: taken[way])
        able = [c for c in self.contestants if c.name in ahead]
        self.turns(name, workload, able, self.repeats, ahead=ahead)

    def under_load(self, name: str, workload: Workload, loads: Sequence[float]) -> None:
        """Hexad beside each peer, on the same arrivals."""
        best = {row.name: min(row.seconds) for row in self.rows if row.workload == "W3" and row.seconds}
        peers = [c for c in self.contestants[1:] if c.continuous and c.name in best]
        for peer in peers:
            if best[peer.name] > FAR_BEHIND * min(best[c.name] for c in peers):
                note = f"not run: W3 takes over {FAR_BEHIND:.0f} times as long as the best peer's"
                self.rows.append(Row(workload=name, bits=self.bits, name=peer.name, peer=peer.name, error=note))
                continue
            for share in loads:
                rate = share * workload.num_prompts / best[peer.name]
                arriving = msgspec.structs.replace(workload, num_prompts=64 if name == "W5" else 32, rate=rate)
                pair = [self.contestants[0], peer]
                self.turns(name, arriving, pair, max(1, self.repeats // 2), peer=peer.name, rate=rate)

    def turns(
        self,
        name: str,
        workload: Workload,
        contestants: Sequence[Contestant],
        repeats: int,
        ahead: dict[str, bool] | None = None,
        **facts: Any,
    ) -> None:
        runs: dict[str, list[Run]] = {c.name: [] for c in contestants}
        for run in range(repeats):
            for c in contestants:
                if len(runs[c.name]) < run:  # it failed
                    continue
                if done := self.attempt(name, c, workload, run, bool(ahead and ahead[c.name])):
                    runs[c.name].append(done)
        for c in contestants:
            if done_all := runs[c.name]:
                note = "first request ahead" if ahead and ahead[c.name] else ""
                shown = figures(c.name, workload, done_all, self.cold_start_s.get(c.name, 0.0))
                seconds = [run.seconds for run in done_all]
                self.rows.append(
                    Row(workload=name, bits=self.bits, name=c.name, figures=shown, seconds=seconds, note=note, **facts)
                )

    def attempt(self, name: str, c: Contestant, workload: Workload, run: int, ahead: bool = False) -> Run | None:
        try:
            if not c.loaded:
                self.start(c)
            done = c.run(workload, run, ahead=ahead)
        except HexadError as error:
            self.fail(name, c, error)
            return None
        self.say(
            f"{self.bits} bits  {name}  {c.name}: {done.seconds:.2f} s"
            + " (not counted)" * (run < 0)
            + f", others took {done.other_cpus:.1f} CPUs" * (done.other_cpus > 0.2)
        )
        return done

    def start(self, c: Contestant) -> float:
        c.close()
        loaded = [other for other in self.contestants if other.loaded]
        while loaded and available_memory() < c.needed_bytes:
            loaded.pop(0).close()
        return c.start()

    def fail(self, name: str, c: Contestant, error: HexadError) -> None:
        self.say(f"{self.bits} bits  {name}  {error}")
        if not any(row.workload == name and row.name == c.name and row.error for row in self.rows):
            self.rows.append(Row(workload=name, bits=self.bits, name=c.name, error=str(error)[:300]))
