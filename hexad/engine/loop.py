"""The one loop: admit, plan, run, commit. It knows no clock, no transport and no text."""

from __future__ import annotations

from typing import Protocol

from hexad.cache.invariants import InvariantBroken
from hexad.engine.inbox import Inbox, Lobby
from hexad.engine.messages import Abort, Add, Audit, Audited, Command, Outputs, Pause, ResetCache, Resume
from hexad.engine.runner import Runner
from hexad.errors import HexadError
from hexad.scheduler.plan import Plan, StepResult
from hexad.scheduler.scheduler import Scheduler
from hexad.types import Failure, Request, SequenceOutput


class Outbox(Protocol):
    def send(self, report: Outputs | Audited) -> None: ...


class Loop:
    def __init__(self, scheduler: Scheduler, runner: Runner, inbox: Inbox, outbox: Outbox) -> None:
        self.scheduler = scheduler
        self.runner = runner
        self.inbox = Lobby(inbox, runner.grammars)
        self.outbox = outbox
        self.paused = False

    def step(self) -> None:
        self._obey(self.inbox.drain())
        plan = None if self.paused else self.scheduler.next_plan()
        if plan is None:
            return self.inbox.wait()
        self._send(self.scheduler.commit(plan, self._run(plan)))

    def _run(self, plan: Plan) -> StepResult:
        """An interrupt (Ctrl-C) fails what was running and leaves the engine fit for the next request."""
        if self.scheduler.admitted:
            self._send([])  # whoever waits for a seat is told now, not at the end of the step
        try:
            return self.runner.run(plan)
        except BaseException:
            interrupted = {chunk.sequence.key: Failure("interrupted") for chunk in plan.chunks}
            self._send(self.scheduler.commit(plan, StepResult(failed=interrupted)))
            raise

    def _obey(self, commands: list[Command]) -> None:
        outputs: list[SequenceOutput] = []
        for command in commands:
            match command:
                case Add(request):
                    try:
                        self.scheduler.add(request)
                    except HexadError as error:
                        outputs.extend(_refusals(request, Failure.of(error)))
                case Abort(request_id, choice):
                    outputs.extend(self.scheduler.abort(request_id, choice))
                case ResetCache():
                    self.scheduler.reset_prefix_cache()
                case Pause() | Resume():
                    self.paused = isinstance(command, Pause)
                case Audit():
                    self.outbox.send(Audited(self._broken()))
        if commands:
            self._send(outputs)

    def _broken(self) -> str | None:
        try:
            self.scheduler.check_invariants()
        except InvariantBroken as broken:
            return str(broken)
        return None

    def _send(self, outputs: list[SequenceOutput]) -> None:
        admitted, self.scheduler.admitted = self.scheduler.admitted, []
        self.outbox.send(Outputs(outputs, self.scheduler.stats(), admitted=admitted, paused=self.paused))


def _refusals(request: Request, cause: Failure) -> list[SequenceOutput]:
    return [
        SequenceOutput(request_id=request.request_id, choice=request.choice + i, finish_reason="error", error=cause)
        for i in range(request.params.n)
    ]
