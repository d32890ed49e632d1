"""The contestants of one number of weight bits on all workloads, in turns.

Run by run within a workload, so that a noisy machine is noisy for all; what has no turn is
stopped. One that fails has a row with the reason, and gets another chance in the next workload.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from hexad.bench.contestant import Contestant, OutOfMemory
from hexad.bench.document import ARRIVALS, CONCURRENCIES, LOADS, WORKLOADS, Row, workloads
from hexad.bench.workload import Run, Workload, figures
from hexad.errors import HexadError
from hexad.placement.memory import available_memory

FAR_BEHIND = 1.5
"""A peer this many times slower than the best one on W3 is not measured under load: it would take hours."""
ENOUGH_S = 30.0
"""As many runs of a contestant as fit in it, at least one: the slow do not hold up the others."""

Say = Callable[[str], None]


def runs_of(seconds: float, repeats: int) -> int:
    """How often a workload is run that takes so long."""
    return max(1, min(repeats, int(ENOUGH_S / max(seconds, 1e-9))))


@dataclass(slots=True)
class Group:
    """The contestants of one number of weight bits, Hexad first, and what was measured of them.

    `save` is called when the contestants are done with something; what `rows` has is not measured again.
    """

    bits: int
    contestants: list[Contestant]
    vocab_size: int
    repeats: int
    say: Say
    save: Callable[[], None]
    rows: list[Row] = field(default_factory=list)

    def run(self, names: Sequence[str]) -> None:
        """W6 goes first: it ends with all closed."""
        known = workloads(self.vocab_size)
        for name in sorted(set(names), key=lambda name: (name != "W6", list(WORKLOADS).index(name))):
            if name == "W6":
                self.cold()
            elif name in LOADS:
                self.under_load(name, known["W3"], LOADS[name])
            elif name == "concurrency":
                self.more_and_more(known["W3"])
            else:
                self.steady(name, known[name])

    def done(self, workload: str, **facts: Any) -> bool:
        rows = (row for row in self.rows if row.workload == workload)
        return any(all(getattr(row, key) == value for key, value in facts.items()) for row in rows)

    def cold(self) -> None:
        """The first start of each fills the file cache and is not counted."""
        if self.done("W6"):
            return
        starts: dict[str, list[float]] = {c.name: [] for c in self.contestants}
        failed = set()
        for run in range(self.repeats + 1):
            for c in self.contestants:
                if c.name in failed or (starts[c.name] and run > runs_of(starts[c.name][0], self.repeats)):
                    continue
                try:
                    taken = self.start(c)
                except HexadError as error:
                    self.fail("W6", c, error)
                    failed.add(c.name)
                    continue
                self.say(f"{self.bits} bits  W6  {c.name}: {taken:.2f} s" + " (not counted)" * (run == 0))
                c.close()
                if run:
                    starts[c.name].append(taken)
        self.rows += [Row(workload="W6", bits=self.bits, name=name, seconds=s) for name, s in starts.items() if s]
        self.save()

    def steady(self, name: str, workload: Workload) -> None:
        """A run that is not counted finds out whether the first request should go ahead and compute what all share."""
        if self.done(name):
            return
        ahead: dict[str, bool] = {}
        few = msgspec.structs.replace(workload, num_prompts=min(2, workload.num_prompts))
        for c in self.contestants:
            both = workload.shared and c.continuous
            warm, ways = (workload, (False, True)) if both else (few, (False,))
            taken = {way: run.seconds for way in ways if (run := self.attempt(name, c, warm, -1 - way, way))}
            if taken:
                ahead[c.name] = min(taken, key=lambda way: taken[way])
        able = [c for c in self.contestants if c.name in ahead]
        self.turns(name, workload, able, self.repeats, ahead=ahead)

    def more_and_more(self, workload: Workload) -> None:
        """W3 is the last point. Who would take too long for the next one, or failed, is not asked."""
        able = list(self.contestants)
        for count in CONCURRENCIES[:-1]:
            some = msgspec.structs.replace(workload, num_prompts=count)
            self.turns("concurrency", some, able, 1, concurrency=count)
            seconds = {row.name: row.seconds for row in self.rows if row.concurrency == count}
            able = [c for c in able if seconds.get(c.name) and 2 * seconds[c.name][0] < ENOUGH_S]
        for row in [row for row in self.rows if row.workload == "W3" and row.figures]:
            if not self.done("concurrency", name=row.name, concurrency=CONCURRENCIES[-1]):
                last = msgspec.structs.replace(row, workload="concurrency", concurrency=CONCURRENCIES[-1], note="W3")
                self.rows.append(last)

    def under_load(self, name: str, workload: Workload, loads: Sequence[float]) -> None:
        """W5: Hexad beside each peer at that peer's load. load: all beside each other, at loads of the best peer."""
        best = {row.name: min(row.seconds) for row in self.rows if row.workload == "W3" and row.seconds}
        peers = [c for c in self.contestants[1:] if c.continuous and c.name in best]
        least = min((best[c.name] for c in peers), default=0.0)
        near = [c for c in peers if best[c.name] <= FAR_BEHIND * least]
        for c in peers:
            if c not in near and not self.done(name, name=c.name):
                note = f"{c.name}: not run, for W3 takes over {FAR_BEHIND:g} times as long as the best peer's"
                self.rows.append(Row(workload=name, bits=self.bits, name=c.name, peer=c.name, error=note))
        for share in loads:
            pairs = [[c] for c in near] if name == "W5" else [sorted(near, key=lambda c: best[c.name])]
            for pair in filter(None, pairs):
                rate = share * workload.num_prompts / best[pair[0].name]
                arriving = msgspec.structs.replace(workload, num_prompts=ARRIVALS[name], rate=rate)
                contestants = [self.contestants[0], *pair]
                repeats = max(1, self.repeats // 2) if name == "W5" else 1
                self.turns(name, arriving, contestants, repeats, peer=pair[0].name, rate=rate)

    def turns(
        self,
        name: str,
        workload: Workload,
        contestants: Sequence[Contestant],
        repeats: int,
        ahead: dict[str, bool] | None = None,
        **facts: Any,
    ) -> None:
        if facts and self.done(name, **facts):
            return
        runs: dict[str, list[Run]] = {c.name: [] for c in contestants}
        for run in range(repeats):
            for c in contestants:
                done = runs[c.name]
                if len(done) < run or (done and run >= runs_of(done[0].seconds, repeats)):  # it failed, or is slow
                    continue
                if more := self.attempt(name, c, workload, run, bool(ahead and ahead[c.name]), **facts):
                    done.append(more)
        cold = {row.name: statistics.median(row.seconds) for row in self.rows if row.workload == "W6" and row.seconds}
        for c in contestants:
            if done := runs[c.name]:
                note = "first request ahead" if ahead and ahead[c.name] else ""
                shown = figures(c.name, workload, done, cold.get(c.name, 0.0))
                seconds = [run.seconds for run in done]
                self.rows.append(
                    Row(workload=name, bits=self.bits, name=c.name, figures=shown, seconds=seconds, note=note, **facts)
                )
        self.save()

    def attempt(
        self, name: str, c: Contestant, workload: Workload, run: int, ahead: bool = False, **facts: Any
    ) -> Run | None:
        """None for a failure. Who was killed for want of memory tries again with all of it."""
        for alone in (False, True):
            try:
                if not c.loaded:
                    self.start(c)
                done = c.run(workload, run, ahead=ahead)
                break
            except HexadError as error:
                if alone or not isinstance(error, OutOfMemory):
                    self.fail(name, c, error, **facts)
                    return None
                self.say(f"{self.bits} bits  {name}  {error}; again, with the others closed")
                c.needed_bytes = sys.maxsize
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

    def fail(self, name: str, c: Contestant, error: HexadError, **facts: Any) -> None:
        self.say(f"{self.bits} bits  {name}  {error}")
        if not self.done(name, name=c.name, **facts):
            self.rows.append(Row(workload=name, bits=self.bits, name=c.name, error=str(error)[:300], **facts))
