"""Structured outputs checked and compiled in a process of their own, outside the event loop.

It is started with the first one and kept warm. A bomb is killed by limits of time and memory, and the next one gets
a new process. Verdicts are remembered.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import msgspec

from hexad.engine.messages import Verdict, encode
from hexad.errors import BadRequest, Overloaded
from hexad.types import StructuredOutputs

BOOTSTRAP = (
    "import sys; sys.path[:] = sys.argv.pop().split(chr(10)); from hexad.engine.grammar_worker import main; "
    "main(sys.argv[1], [int(token) for token in sys.argv[2:]])"
)
MAX_REMEMBERED_BYTES = 4 * 2**20
MAX_WAITING = 64
TIMEOUT_S = 10.0
"""By the clock, should the process not get the processor time that its own limit counts."""


class GrammarProcess:
    def __init__(self, tokenizer: Path | None, eos_token_ids: Iterable[int]) -> None:
        self._arguments = (str(tokenizer or ""), *map(str, eos_token_ids))
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()
        self._remembered = 0

    async def compile(self, wanted: StructuredOutputs) -> str:
        """The grammar that a request carries. Raises BadRequest, or Overloaded when too many wait."""
        try:
            frame = encode(wanted)
        except (msgspec.MsgspecError, RecursionError, TypeError, ValueError, OverflowError) as error:
            raise BadRequest(f"structured_outputs cannot be read: {error}", param="structured_outputs") from None
        key = hashlib.sha256(frame).digest()
        if key not in self._verdicts and self._waiting >= MAX_WAITING:
            raise Overloaded(f"{self._waiting} structured outputs wait to be compiled; try again later")
        self._waiting += 1
        try:
            async with self._turn:
                verdict = self._verdicts.pop(key, None)
                self._remembered -= verdict.size if verdict else 0
                verdict = verdict or await self._ask(frame)
                self._remember(key, verdict)
        finally:
            self._waiting -= 1
        if verdict.problem:
            raise BadRequest(verdict.problem, param="structured_outputs")
        return verdict.grammar

    def _remember(self, key: bytes, verdict: Verdict) -> None:
        self._verdicts[key] = verdict
        self._remembered += verdict.size
        while self._remembered > MAX_REMEMBERED_BYTES and len(self._verdicts) > 1:
            self._remembered -= self._verdicts.popitem(last=False)[1].size

    async def _ask(self, frame: bytes) -> Verdict:
        try:
            answer = await asyncio.wait_for(self._exchange(frame), TIMEOUT_S)
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

    async def _exchange(self, frame: bytes) -> bytes:
        if self._process is None or self._process.returncode is not None:
            # Our own import path, and a session of its own: Ctrl-C is for us to handle.
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", BOOTSTRAP, *self._arguments, "\n".join(sys.path)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(len(frame).to_bytes(4, "big") + frame)
        return await stdout.readexactly(int.from_bytes(await stdout.readexactly(4), "big"))

    async def rest(self) -> None:
        """Give the memory back, once nobody's grammar is being compiled; the next one starts a process again."""
        async with self._turn:
            await self.close()

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
