"""`AsyncLLM`: the engine behind a supervisor, for servers.

The engine runs in a process of its own. All that a request has become lives here, so when that
process dies a new one is started and every stream goes on where it stopped, with the same tokens.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from hexad.config import Config
from hexad.engine.frontend import Frontend, Prompt
from hexad.engine.grammar_process import GrammarProcess
from hexad.engine.messages import (
    Abort,
    Add,
    Audit,
    Audited,
    Command,
    EngineInfo,
    Outputs,
    Pause,
    Report,
    ResetCache,
    Resume,
)
from hexad.engine.places import check_places
from hexad.engine.process import EngineDied, EngineProcess
from hexad.engine.setup import Progress, no_progress, resolve_settings
from hexad.engine.stream import Stream
from hexad.errors import BadRequest, DeadlineExceeded, EngineUnavailable, RequestFailed
from hexad.text.chat_template import ChatTemplate
from hexad.text.tokenizer import Tokenizer
from hexad.types import EngineStats, Failure, RequestOutput, SamplingParams

logger = logging.getLogger(__name__)

SUSPECT_DEATHS = 2
"""Engine deaths at which a request ran, after which it is first tried alone: who kills an engine then is the cause."""
MAX_DEATHS = 8
"""After so many it fails, whoever was their cause: those who kill only in company are never found."""
HUNG_S = 10.0
"""An engine process with work that has neither spoken nor computed for so long is taken for dead."""
STUCK_S = 600.0
"""The same for one that computes: no step takes that long."""
RESTART_DELAYS_S = (0.0, 1.0, 5.0)
"""Waits before each attempt to start a new engine process; when all fail, the engine is unavailable."""
TOO_LATE = "the request's time was over before the engine was given it; allow it more"


@dataclass(slots=True, eq=False)
class _Live:
    stream: Stream
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    deaths: int = 0
    arrived: float = field(default_factory=time.monotonic)


class AsyncLLM:
    """Use `await AsyncLLM.start(config)`; then `generate`, `abort`, `stats`, `drain`, `close`.

    `pause` and `sleep` stop every request where it is; after `resume` or `wake` it goes on with the same tokens.
    """

    def __init__(self, config: Config, frontend: Frontend, process: EngineProcess, info: EngineInfo) -> None:
        self.config = config
        self.info = info
        self.frontend = frontend
        self.restarts = 0
        self.paused = False
        self.asleep = False
        self._process = process
        self._ready = True
        self._live: dict[str, _Live] = {}
        self._suspects: list[_Live] = []
        """While there are any, the first of them has the engine for itself."""
        self._stats = self._without_engine()
        self._ids = itertools.count(1)
        self._grammars = GrammarProcess(frontend.tokenizer_directory, frontend.generation_defaults.eos_token_ids)
        self._closing = False
        self._switching = asyncio.Lock()
        self._stands_still = False
        self._reported = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._awake = self._last_word = 0.0
        self._audits: list[asyncio.Future[str | None]] = []
        self._supervision = asyncio.create_task(self._supervise())
        self._watch = asyncio.create_task(self._watch_for_silence())

    @classmethod
    async def start(cls, config: Config, progress: Progress = no_progress) -> AsyncLLM:
        """Raises CheckpointError, ConfigError, OutOfMemory or EngineUnavailable."""
        resolved = await asyncio.to_thread(resolve_settings, config)
        try:
            process, info = await EngineProcess.spawn(config, progress)
        except EngineDied as death:
            raise EngineUnavailable(f"the engine process died while it started: {death}") from None
        try:
            frontend = Frontend.load(config, resolved)
        except BaseException:
            await process.stop()
            raise
        # The engine planned by itself, a moment later: what it has is what counts.
        frontend.limits = replace(resolved.scheduler, num_pages=info.memory.num_pages, max_model_len=info.max_model_len)
        return cls(config, frontend, process, info)

    @property
    def tokenizer(self) -> Tokenizer:
        return self.frontend.tokenizer

    @property
    def chat_template(self) -> ChatTemplate | None:
        return self.frontend.chat_template

    @property
    def max_model_len(self) -> int:
        return self.info.max_model_len

    @property
    def healthy(self) -> bool:
        return (self._ready or self.asleep) and not self._closing

    @property
    def gone(self) -> bool:
        """It will answer no request any more."""
        return self._closing or (self._supervision.done() and not self.asleep)

    @property
    def engine_pid(self) -> int:
        return self._process.pid

    def stats(self) -> EngineStats:
        """As the engine last reported them."""
        return replace(self._stats, num_restarts=self.restarts)

    async def generate(
        self,
        prompt: Prompt,
        params: SamplingParams,
        *,
        request_id: str | None = None,
        deadline: float | None = None,
        **options: Any,
    ) -> AsyncIterator[RequestOutput]:
        """Yield the same `RequestOutput`, as it grows; steps may be coalesced for a slow reader.

        `deadline` is a time of `time.monotonic`. `options` are those of `Frontend.stream`: priority,
        cache_salt, add_special_tokens, client. Closing the iterator aborts the request. Raises BadRequest
        before the first item for what can never be served, Overloaded or EngineUnavailable when it cannot
        be now, DeadlineExceeded when its time is over, and after the last item, when a choice failed,
        RequestFailed, or EngineUnavailable where the engine is gone.
        """
        if params.structured_outputs is not None:
            self.check_open(options.get("client", ""))
            compiling = self._grammars.compile(params.structured_outputs, options.get("client", ""))
            try:
                options["grammar"] = await asyncio.wait_for(compiling, _left(deadline))
            except asyncio.TimeoutError:
                raise DeadlineExceeded(TOO_LATE) from None
        left = _left(deadline)
        if left is not None and left <= 0:
            raise DeadlineExceeded(TOO_LATE)
        live = self._accept(prompt, params, request_id, options)
        timer = None if left is None else asyncio.get_running_loop().call_later(left, self._end_late, live)
        try:
            await self._send(Add(live.stream.request))
            finished = False
            while not finished:
                await live.grown.wait()
                live.grown.clear()
                finished = live.stream.finished  # read before the reader runs: it may grow meanwhile
                yield live.stream.output
            if live.stream.error is not None:
                raise live.stream.error.error()
        finally:
            if timer is not None:
                timer.cancel()
            self._live.pop(live.stream.request.request_id, None)
            if not self._live:
                self._idle.set()
            if live.stream.error is not None or not live.stream.finished:
                await self._send(Abort(live.stream.request.request_id))

    def _end_late(self, live: _Live) -> None:
        made = sum(len(output.token_ids) for output in live.stream.output.outputs)
        what = f"it had {made} tokens" if live.stream.output.queue_s is not None else "it was still in the queue"
        why = f"the request's time was over before it was complete: {what}; ask for less, or allow more time"
        self._fail(live, DeadlineExceeded(why))

    def _accept(self, prompt: Prompt, params: SamplingParams, request_id: str | None, options: dict[str, Any]) -> _Live:
        """The engine knows a request by an id of ours: a caller may use theirs again at once."""
        self.check_open(options.get("client", ""))
        if request_id is not None and self._called(request_id):
            raise BadRequest(f"request id {request_id!r} is in use; choose another", param="request_id")
        key = f"req-{next(self._ids)}"
        stream = self.frontend.stream(prompt, params, request_id=key, **options)
        stream.output.request_id = request_id or key
        live = self._live[key] = _Live(stream)
        self._idle.clear()
        return live

    def check_open(self, client: str) -> None:
        """Raises EngineUnavailable, and Overloaded when the queue is full, for everybody or for this client."""
        if self._closing:
            raise EngineUnavailable("the server is shutting down; send the request to another one")
        if self.gone:
            raise EngineUnavailable("the engine process could not be restarted; see the server's log")
        seqs, queue = self.config.max_num_seqs, self.config.max_queue
        taken = Counter(live.stream.request.client for live in self._live.values())
        limit = f"max_num_seqs {seqs} and max_queue {queue} allow"
        check_places(taken, client, seqs + queue, "requests are running or waiting", limit)

    def _called(self, request_id: str) -> _Live | None:
        """The live request that its caller gave this id."""
        return next((live for live in self._live.values() if live.stream.output.request_id == request_id), None)

    async def abort(self, request_id: str) -> None:
        """End a request; its iterator ends with finish_reason "abort". Unknown ids are fine."""
        if live := self._called(request_id):
            live.stream.end()
            live.grown.set()
            await self._send(Abort(live.stream.request.request_id))

    async def reset_prefix_cache(self) -> None:
        await self._send(ResetCache())

    async def pause(self) -> None:
        """Stop between two steps, and return once nothing runs; new requests queue. `resume` goes on."""
        self.paused = True
        self._stands_still = False  # every Pause is answered
        await self._send(Pause())
        while self.paused and self._ready and not self._stands_still:
            self._reported.clear()
            await self._reported.wait()

    async def resume(self) -> None:
        self.paused = False
        await self._send(Resume())

    async def sleep(self) -> None:
        """End the engine process, which gives all its memory back; requests, running and new, wait for `wake`."""
        await asyncio.shield(self._switch(self._sleep))  # half of it would leave a process that nobody knows

    async def _switch(self, turn: Callable[[], Awaitable[None]]) -> None:
        async with self._switching:
            await turn()

    async def _sleep(self) -> None:
        if self.gone or self.asleep:
            return
        self.asleep = True
        self._ready = False
        self._reported.set()
        self._supervision.cancel()
        await asyncio.gather(self._supervision, return_exceptions=True)
        await asyncio.gather(self._process.stop(), self._grammars.rest())
        self._stats = self._without_engine()

    async def wake(self) -> None:
        """Start an engine process again and hand it every request. Raises what `start` raises, and sleeps on then."""
        await asyncio.shield(self._switch(self._wake))

    async def _wake(self) -> None:
        if not self.asleep:
            return
        try:
            process, _ = await EngineProcess.spawn(self._as_planned(), no_progress)
        except EngineDied as death:
            raise EngineUnavailable(f"the engine process died while it started: {death}") from None
        if self._closing:
            return await process.stop()
        self._process = process
        self._supervision = asyncio.create_task(self._supervise())
        self.asleep = False
        await self._hand_over()

    async def audit(self) -> str | None:
        """The scheduler's invariant that does not hold, if there is one. Raises EngineUnavailable without an answer."""
        asked: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._audits.append(asked)
        await self._send(Audit())
        try:
            return await asyncio.wait_for(asked, HUNG_S)
        except asyncio.TimeoutError:
            raise EngineUnavailable(f"the engine did not answer within {HUNG_S} seconds") from None

    async def drain(self, timeout_s: float) -> None:
        """Refuse new requests; give the running ones `timeout_s`, then fail them."""
        self._closing = True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except asyncio.TimeoutError:
            self._fail_all("the server shut down before the request was complete")

    async def close(self) -> None:
        self._closing = True
        self._ready = False
        for task in (self._watch, self._supervision):
            task.cancel()
        await asyncio.gather(self._watch, self._supervision, return_exceptions=True)
        self._fail_all("the engine was closed")
        await asyncio.gather(self._process.stop(), self._grammars.close())

    async def _send(self, command: Command) -> None:
        """While the engine is restarted or a suspect is alone nothing is sent: then it is given all that is live."""
        if self._ready and not self._suspects:
            await self._process.send(command)

    async def _supervise(self) -> None:
        try:
            while True:
                try:
                    if self._suspects:
                        await self._try_alone()
                    reports = await self._process.receive()
                except EngineDied as death:
                    if not await self._restart(str(death)):
                        return
                    continue
                for report in reports:
                    await self._hear(report)
        except Exception:  # a defect of ours: better an error to everybody than silence
            logger.exception("the supervision of the engine failed")
            self._ready = False
            self._fail_all("the supervision of the engine failed; see the server's log")

    async def _hear(self, report: Report) -> None:
        self._last_word = self._awake
        if isinstance(report, Outputs):
            await self._deliver(report)
        elif isinstance(report, Audited):
            asked, self._audits = self._audits, []
            for each in asked:
                if not each.done():
                    each.set_result(report.broken)

    async def _watch_for_silence(self) -> None:
        """End an engine process that hangs (stopped, or waiting for ever); the supervision sees it die."""
        spent, computed = self._process.cpu_time(), self._last_word
        while True:
            await asyncio.sleep(HUNG_S / 5)
            now = self._awake = self._awake + HUNG_S / 5  # while we were held up ourselves nobody could be heard
            awaited = self._live or (self.paused and not self._stands_still)
            if not (awaited and self._ready):
                self._last_word = now
            if (latest := self._process.cpu_time()) != spent:
                spent, computed = latest, now
            silent = now - self._last_word
            if silent > HUNG_S / 2:
                await self._send(Audit())  # a paused engine has nothing to report, but it can answer
            if silent > STUCK_S or min(silent, now - computed) > HUNG_S:
                logger.error("the engine process has said nothing for %.0f s; ending it", silent)
                self._process.kill()

    async def _deliver(self, report: Outputs) -> None:
        self._stats = report.stats
        self._stands_still = report.paused
        self._reported.set()
        for request_id in report.admitted:
            if (waited := self._live.get(request_id)) and waited.stream.output.queue_s is None:
                waited.stream.output.queue_s = time.monotonic() - waited.arrived
        for gained in report.outputs:
            live = self._live.get(gained.request_id)
            if live is None:
                continue
            try:
                ended = live.stream.feed(gained)
            except Exception as error:  # whatever it is, it belongs to this request alone
                logger.exception("request %s failed", live.stream.output.request_id)
                self._fail(live, error)
                ended = list(range(live.stream.request.params.n))
            for choice in ended:
                await self._send(Abort(gained.request_id, choice))
            live.grown.set()

    async def _restart(self, death: str) -> bool:
        """Start a new engine process and hand it every live stream; False when none will start."""
        self._ready = False
        self._reported.set()
        logger.error("the engine process died (%s); restarting it for %d live requests", death, len(self._live))
        await self._process.stop()
        self._blame(death)
        self._stats = self._without_engine()
        for delay in RESTART_DELAYS_S:
            await asyncio.sleep(delay)
            try:
                self._process, _ = await EngineProcess.spawn(self._as_planned(), no_progress)
            except Exception as error:  # the system may refuse a process or a socket, too
                logger.error("the engine process could not be restarted: %s", error)
                continue
            self.restarts += 1
            self._ready = True
            if not self._suspects:
                await self._hand_over()
            return True
        self._fail_all("the engine process died and could not be restarted")
        return False

    def _blame(self, death: str) -> None:
        alone, suspects = self._suspects[:1], self._suspects[1:]
        if not alone:
            suspects = [live for live in self._live.values() if live.stream.output.queue_s is not None]
            if all(live.deaths >= SUSPECT_DEATHS for live in suspects):  # tried already: its last report was lost
                suspects = list(self._live.values())
        for live in alone or suspects:
            live.deaths += 1
            if alone or live.deaths >= MAX_DEATHS:
                why = f"the engine process died {live.deaths} times while this request ran ({death})"
                self._fail(live, RequestFailed(why))
        self._suspects = [live for live in suspects if live.deaths >= SUSPECT_DEATHS]

    async def _try_alone(self) -> None:
        """Compute one token of each suspect, to see whether the engine lives. Raises EngineDied."""
        while self._suspects:
            left = 0
            for request in self._suspects[0].stream.remaining():
                params = replace(request.params, max_tokens=len(request.generated) + 1, min_tokens=0)
                await self._process.send(Add(replace(request, request_id="alone", params=params)))
                left += params.n
            while left:
                for report in await self._process.receive():
                    await self._hear(report)
                    if isinstance(report, Outputs):
                        left -= sum(each.finish_reason is not None for each in report.outputs)
            del self._suspects[0]
        await self._hand_over()

    def _as_planned(self) -> Config:
        """The configuration with the memory plan fixed, so that what was accepted still fits."""
        return dataclasses.replace(self.config, kv_memory=self.info.memory.kv, max_model_len=self.info.max_model_len)

    def _without_engine(self) -> EngineStats:
        pages, waiting = self.info.memory.num_pages, sum(not live.stream.finished for live in self._live.values())
        return EngineStats(num_pages=pages, num_free_pages=pages, num_waiting=waiting)

    async def _hand_over(self) -> None:
        """To a new process: all that is live."""
        self._ready = True
        self._suspects = []
        self._stands_still = False
        if self.paused:
            await self._send(Pause())
        if self._audits:
            await self._send(Audit())
        for live in list(self._live.values()):
            if not live.stream.finished:
                for request in live.stream.remaining():
                    await self._send(Add(request))

    def _fail(self, live: _Live, cause: Exception) -> None:
        if not live.stream.finished:
            live.stream.end(Failure.of(cause))
            live.grown.set()

    def _fail_all(self, cause: str) -> None:
        self._reported.set()
        for live in self._live.values():
            self._fail(live, EngineUnavailable(cause))


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - time.monotonic()
