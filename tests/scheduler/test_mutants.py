"""The state machine has teeth: it finds every seeded bug."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from hexad.cache.invariants import InvariantBroken
from hexad.testing.fake_model import CanaryDied

from .machine import SchedulerMachine
from .mutants import MUTANTS

HUNT = settings(
    max_examples=400,
    stateful_step_count=40,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("name", MUTANTS)
def test_the_machine_kills(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name](monkeypatch)
    # IndexError: a page is taken that is not there, before anybody could look at the books.
    with pytest.raises((InvariantBroken, CanaryDied, IndexError)):
        run_state_machine_as_test(SchedulerMachine, settings=HUNT)
