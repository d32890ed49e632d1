"""Structured outputs checked and compiled in a process of their own, outside the event loop.

It is started with the first one, kept warm, and killed by its own limits of time and memory when a grammar is a
bomb; the next one gets a new process. Verdicts are remembered.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections import OrderedDict

import msgspec

from hexad.engine.messages import TryGrammar, TryVocabulary, Verdict, encode
from hexad.errors import BadRequest, Overloaded
from hexad.types import StructuredOutputs

BOOTSTRAP = (
    "import sys; sys.path[:] = sys.argv.pop().split(chr(10)); from hexad.engine.grammar_worker import main; main()"
)
MAX_REMEMBERED_BYTES = 4 * 2**20
MAX_WAITING = 64
TIMEOUT_S = 10.0
"""By the clock, should the process not get the processor time that its own limit counts."""
START_TIMEOUT_S = 60.0


class GrammarProcess:
    def __init__(self, vocabulary: TryVocabulary) -> None:
        self._vocabulary = vocabulary
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()
        self._remembered = 0

    async def compile(self, wanted: StructuredOutputs) -> str:
        """The grammar that a request carries. Raises BadRequest, or Overloaded when too many wait."""
        try:
            frame = encode(TryGrammar(wanted))
        except (msgspec.MsgspecError, RecursionError, TypeError, ValueError, OverflowError) as error:
            raise BadRequest(f"structured_outputs cannot be read: {error}", param="structured_outputs") from None
        key = hashlib.sha256(frame).digest()
        if key not in self._verdicts:
            if self._waiting >= MAX_WAITING:
                raise Overloaded(f"{self._waiting} structured outputs wait to be compiled; try again later")
            self._waiting += 1
            try:
                async with self._turn:
                    verdict = self._verdicts.get(key) or await self._ask(frame)
            finally:
                self._waiting -= 1
            self._remember(key, verdict)
        self._verdicts.move_to_end(key)
        verdict = self._verdicts[key]
        if verdict.problem:
            raise BadRequest(verdict.problem, param="structured_outputs")
        return verdict.grammar

    def _remember(self, key: bytes, verdict: Verdict) -> None:
        if key in self._verdicts:
            return
        self._verdicts[key] = verdict
        self._remembered += verdict.size
        while self._remembered > MAX_REMEMBERED_BYTES and len(self._verdicts) > 1:
            self._remembered -= self._verdicts.popitem(last=False)[1].size

    async def _ask(self, frame: bytes) -> Verdict:
        process = self._process = self._process or await self._start()
        try:
            answer = await asyncio.wait_for(_exchange(process, frame), TIMEOUT_S)
        except (asyncio.TimeoutError, asyncio.IncompleteReadError, OSError):
            await self.close()
            return Verdict(
                problem="the grammar is too large: compiling it took more than 2 s or 512 MiB; use fewer or smaller "
                "repetitions, alternatives and values"
            )
        except BaseException:  # the caller is gone, and its answer is still to come
            await self.close()
            raise
        return msgspec.msgpack.decode(answer, type=Verdict)

    async def _start(self) -> asyncio.subprocess.Process:
        # Our own import path, and a session of its own: Ctrl-C is for us to handle.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", BOOTSTRAP, "\n".join(sys.path)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._process = process
        _write(process, encode(self._vocabulary))
        return process

    async def rest(self) -> None:
        """Give the memory back, once nobody's grammar is being compiled; the next one starts a process again."""
        async with self._turn:
            await self.close()

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()


def _write(process: asyncio.subprocess.Process, frame: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(len(frame).to_bytes(4, "big") + frame)


async def _exchange(process: asyncio.subprocess.Process, frame: bytes) -> bytes:
    assert process.stdout is not None
    _write(process, frame)
    return await process.stdout.readexactly(int.from_bytes(await process.stdout.readexactly(4), "big"))
