"""Structured outputs checked and compiled in a process of their own, outside the event loop.

It is started with the first one and kept warm. A bomb is killed by limits of time and memory, and the next one gets
a new process. Verdicts are remembered. That a process dies is a verdict only when it ran out of its time, or when
another one dies of the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
from collections import Counter, OrderedDict
from collections.abc import Iterable
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec

from hexad.engine.messages import READY, Verdict, encode
from hexad.engine.places import check_places
from hexad.engine.process import own_module
from hexad.errors import BadRequest, EngineUnavailable, Overloaded
from hexad.types import StructuredOutputs

MAX_REMEMBERED_BYTES = 4 * 2**20
MAX_WAITING = 64
START_TIMEOUT_S, TIMEOUT_S = 60.0, 10.0
"""For the vocabulary, then for a grammar, by the clock: the process may not get the time that its own limit counts."""


class GrammarProcess:
    def __init__(self, tokenizer: Path | None, eos_token_ids: Iterable[int]) -> None:
        self._command = own_module("hexad.engine.grammar_worker", str(tokenizer or ""), *map(str, eos_token_ids))
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._turns = WeakValueDictionary[str, asyncio.Lock]()
        """A client's own: each has one that waits for `_turn`, so that they take turns."""
        self._waiting = Counter[str]()
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()
        self._remembered = 0
        self._closed = False

    async def compile(self, wanted: StructuredOutputs, client: str = "") -> str:
        """The grammar that a request carries.

        Raises BadRequest, Overloaded when too many wait, in all or of this client, or the machine is too busy, and
        EngineUnavailable.
        """
        try:
            frame = encode(wanted)
        except (msgspec.MsgspecError, RecursionError, TypeError, ValueError, OverflowError) as error:
            raise BadRequest(f"structured_outputs cannot be read: {error}", param="structured_outputs") from None
        key = hashlib.sha256(frame).digest()
        verdict = self._verdicts.get(key)
        if verdict is None:
            check_places(self._waiting, client, MAX_WAITING, "structured outputs wait to be compiled", "may")
            self._waiting[client] += 1
            own = self._turns.setdefault(client, asyncio.Lock())
            try:
                async with own, self._turn:
                    verdict = self._verdicts.get(key) or await self._ask(frame)
            finally:
                self._waiting[client] -= 1
        self._remember(key, verdict)
        if verdict.problem:
            raise BadRequest(verdict.problem, param="structured_outputs")
        return verdict.grammar

    def _remember(self, key: bytes, verdict: Verdict) -> None:
        self._remembered += 0 if key in self._verdicts else verdict.size
        self._verdicts[key] = verdict
        self._verdicts.move_to_end(key)
        while self._remembered > MAX_REMEMBERED_BYTES and len(self._verdicts) > 1:
            self._remembered -= self._verdicts.popitem(last=False)[1].size

    async def _ask(self, frame: bytes) -> Verdict:
        for _ in range(2):
            try:
                if self._process is None or self._process.returncode is not None:
                    await asyncio.wait_for(self._start(), START_TIMEOUT_S)  # a large vocabulary takes its time
                return msgspec.msgpack.decode(await asyncio.wait_for(self._exchange(frame), TIMEOUT_S), type=Verdict)
            except asyncio.TimeoutError:
                await self._end()
                raise Overloaded(
                    f"a grammar was not compiled in {TIMEOUT_S:g} s, for the machine is busy; try again later"
                ) from None
            except (asyncio.IncompleteReadError, OSError):
                if await self._end() == -signal.SIGXCPU:
                    break
            except BaseException:  # the caller is gone, and its answer is still to come
                await self._end()
                raise
        return Verdict(
            problem="the grammar is too large: compiling it took more than 2 s or 512 MiB; use fewer or smaller "
            "repetitions, alternatives and values"
        )

    async def _exchange(self, frame: bytes) -> bytes:
        if self._process is None:
            raise EngineUnavailable("the engine was closed")
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(len(frame).to_bytes(4, "big") + frame)
        return await stdout.readexactly(int.from_bytes(await stdout.readexactly(4), "big"))

    async def _start(self) -> None:
        if self._closed:
            raise EngineUnavailable("the engine was closed")
        try:
            # A session of its own: Ctrl-C is for us to handle.
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            assert self._process.stdout is not None
            await self._process.stdout.readexactly(len(READY))
        except (asyncio.IncompleteReadError, OSError) as error:
            raise EngineUnavailable(
                f"the process that compiles grammars could not be started ({error}); see the server's log"
            ) from None

    async def rest(self) -> None:
        """Give the memory back, once nobody's grammar is being compiled; the next one starts a process again."""
        async with self._turn:
            await self._end()

    async def close(self) -> None:
        self._closed = True
        await self._end()

    async def _end(self) -> int | None:
        """What the process, if there is one, ended with: by itself, or now."""
        process, self._process = self._process, None
        if process is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)  # Process.kill may take the status of one that ended from `wait`
        return await process.wait()
