"""The loop's inbox, and the lobby before it, where requests stay while their grammar is compiled.

So no step waits for a grammar, and the loop knows nothing of them.
"""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Protocol

from hexad.engine.grammars import Grammars
from hexad.engine.messages import Abort, Add, Command
from hexad.types import Request

if TYPE_CHECKING:
    from llguidance import LLMatcher

POLL_S = 0.01
"""How long an idle loop looks at nothing but what is being compiled."""


class Inbox(Protocol):
    def drain(self) -> list[Command]:
        """All commands that have arrived, without waiting."""

    def wait(self) -> None:
        """Return when there may be a command."""


class Lobby:
    """An inbox before the loop's."""

    def __init__(self, inbox: Inbox, grammars: Grammars) -> None:
        self._inbox = inbox
        self._grammars = grammars
        self._waiting: list[tuple[Add, Future[LLMatcher]]] = []

    def drain(self) -> list[Command]:
        commands: list[Command] = []
        for command in self._inbox.drain():
            if isinstance(command, Add) and command.request.grammar:
                self._waiting.append((command, self._grammars.compile(command.request.grammar)))
                continue
            if isinstance(command, Abort):
                self._waiting = [each for each in self._waiting if not _is_all_of(command, each[0].request)]
            commands.append(command)
        ready = [each for each in self._waiting if each[1].done()]
        self._waiting = [each for each in self._waiting if each not in ready]
        return commands + [add for add, _ in ready]

    def wait(self) -> None:
        if self._waiting:
            wait([compiled for _, compiled in self._waiting], POLL_S, FIRST_COMPLETED)
        else:
            self._inbox.wait()


def _is_all_of(abort: Abort, request: Request) -> bool:
    """Whether `abort` leaves nothing of `request` to be done."""
    is_one = request.params.n == 1 and abort.choice == request.choice
    return abort.request_id == request.request_id and (abort.choice is None or is_one)
