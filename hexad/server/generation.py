"""What every generating endpoint shares: the parts it works with, and prompts to running requests.

It knows the engine's `generate`, and no dialect.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel

from hexad.engine.async_llm import AsyncLLM
from hexad.errors import ContextTooLong
from hexad.server.caller import Caller
from hexad.server.metrics import Metrics, RequestTimer
from hexad.text.fim import Infill, infill_prompt
from hexad.text.formats import Format
from hexad.types import RequestOutput, SamplingParams

_BIG_TEXT = 16 * 2**10
"""Characters; longer texts are tokenized in a thread."""
_COMPOSED = 4
"""Characters that a tokenizer's Unicode normalization may join into one."""
NO_PENALTY = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}

T = TypeVar("T")


def now() -> int:
    """Unix time in seconds, for `created`."""
    return int(time.time())


@dataclass(slots=True)
class Service:
    """What the endpoints work with."""

    engine: AsyncLLM
    model_name: str
    metrics: Metrics
    _longest_token: int = 0

    @property
    def format(self) -> Format:
        """How this model writes reasoning and tool calls."""
        return self.engine.frontend.format

    @property
    def fingerprint(self) -> str:
        """OpenAI's `system_fingerprint`: with another one, the same seed may answer differently."""
        return self.engine.frontend.fingerprint

    @property
    def reasoning_end(self) -> list[int]:
        """The tokens of the marker that ends a reasoning section; empty for a model that does not reason."""
        end = self.format.reasoning
        return self.engine.tokenizer.encode(end[1], add_special_tokens=False) if end else []

    def template_reads(self, *words: str) -> bool:
        """One of the words is in the model's chat template."""
        template = self.engine.chat_template
        return any(word in source for source in (template.sources.values() if template else ()) for word in words)

    async def encode(self, text: str, add_special_tokens: bool, allow_special: bool = True) -> list[int]:
        """Raises ContextTooLong at once for a text that no tokenization can fit into the context."""
        options = {"add_special_tokens": add_special_tokens, "allow_special": allow_special}
        return await self.beside(len(text), lambda: self.engine.tokenizer.encode(text, **options))

    async def infill(
        self, prefix: str, suffix: str, extra: Sequence[tuple[str, str]] = (), *, param: str = "suffix"
    ) -> Infill:
        """As `infill_prompt`. Raises BadRequest or ContextTooLong."""
        size = len(prefix) + len(suffix) + sum(len(name) + len(text) for name, text in extra)
        return await self.beside(size, lambda: infill_prompt(self.engine.tokenizer, prefix, suffix, extra, param=param))

    async def beside(self, size: int, work: Callable[[], T]) -> T:
        """Tokenize `size` characters, or spell so many tokens; long ones in a thread, so that other requests go on."""
        if size <= _BIG_TEXT:
            return work()
        most = self.engine.max_model_len * await asyncio.to_thread(self._longest) * _COMPOSED
        if size > most:
            raise ContextTooLong(
                f"prompt is too long: {size} characters; this model's maximum context length is "
                f"{self.engine.max_model_len} tokens, never more than {most} characters",
                param="prompt",
            )
        return await asyncio.to_thread(work)

    def _longest(self) -> int:
        """Bytes of the longest token: looked up when first needed, for it takes a while."""
        if not self._longest_token:
            tokenizer = self.engine.tokenizer
            self._longest_token = max(len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size))
        return self._longest_token

    def sampling_params(self, body: BaseModel, **own: Any) -> SamplingParams:
        """The body's parameters over the model's defaults; `own` are those a dialect names differently."""
        given = {
            name: value
            for name in SamplingParams.__struct_fields__
            if name not in own and (value := getattr(body, name, None)) is not None
        }
        if isinstance(stop := given.get("stop"), str):
            given["stop"] = [stop]
        return self.engine.frontend.default_params(**given, **own)


@dataclass(frozen=True, slots=True)
class Job:
    """One HTTP request's work: prompts that run side by side with the same parameters."""

    request_id: str
    prompts: list[list[int]]
    params: SamplingParams
    priority: int
    cache_salt: str
    caller: Caller
    markers: bool = False
    """Those of reasoning and calls stay in the text."""
    to_the_end: bool = False
    """With a `max_tokens` above what the context has room for, an answer ends with it; otherwise that is refused."""


async def run(service: Service, job: Job) -> AsyncGenerator[tuple[int, RequestOutput], None]:
    """Yield (index of the prompt, its output) when the output has grown.

    The output is the engine's own, grown in place, so a slow reader finds more, not more often.
    Closing the generator aborts all of the job.
    """
    grown: dict[int, RequestOutput] = {}
    wake = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []
    everything: asyncio.Future[list[None]] | None = None
    try:
        for index in range(len(job.prompts)):
            tasks.append(asyncio.create_task(_follow(service, job, index, grown, wake)))
            await asyncio.sleep(0)  # each is checked, and there may be a thousand
        everything = asyncio.gather(*tasks)
        everything.add_done_callback(lambda _: wake.set())
        while grown or not everything.done():
            await wake.wait()
            wake.clear()
            while grown:
                yield grown.popitem()
        everything.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *([everything] if everything else []), return_exceptions=True)


async def _follow(service: Service, job: Job, index: int, grown: dict[int, RequestOutput], wake: asyncio.Event) -> None:
    job.caller.record.model = service.model_name
    timer = RequestTimer(service.metrics, service.model_name)
    prompt, params = job.prompts[index], job.params
    if job.to_the_end and len(prompt) + (params.max_tokens or 0) > service.engine.max_model_len:
        params = msgspec.structs.replace(params, max_tokens=None)
    outputs = service.engine.generate(
        prompt,
        params,
        request_id=f"{job.request_id}-{index}",
        **job.caller.options(job.priority, job.cache_salt),
        markers=job.markers,
    )
    try:
        async for output in outputs:
            timer.grew(output)
            grown[index] = output
            wake.set()
    finally:
        timer.ended()
        if timer.output is not None:
            job.caller.note(timer.output, timer.first_token_s)


async def run_to_end(service: Service, job: Job) -> list[RequestOutput]:
    """The complete outputs, in the order of the prompts."""
    async with contextlib.aclosing(run(service, job)) as growth:
        outputs = {index: output async for index, output in growth}
    return [outputs[index] for index in range(len(job.prompts))]
