"""I1 to I15 hold whatever happens, in whatever order."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from .machine import SchedulerMachine

TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(
    max_examples=300,
    stateful_step_count=40,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
