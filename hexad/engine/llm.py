"""`LLM`: the engine in this process, for offline work. Names and shapes are vLLM's."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from typing import Any

from hexad.config import Config, resolve
from hexad.engine.frontend import Frontend, Prompt
from hexad.engine.loop import Loop
from hexad.engine.messages import Abort, Add, Audited, Command, Outputs
from hexad.engine.setup import Progress, build_engine, no_progress, open_weights, resolve_settings
from hexad.engine.stream import Stream
from hexad.errors import BadRequest
from hexad.kernels.ops import Ops
from hexad.types import EngineStats, RequestOutput, SamplingParams


class _Mailbox:
    """The loop's inbox and outbox, when both ends live in one thread."""

    def __init__(self) -> None:
        self.commands: deque[Command] = deque()
        self.outputs: deque[Outputs] = deque()

    def drain(self) -> list[Command]:
        commands = list(self.commands)
        self.commands.clear()
        return commands

    def wait(self) -> None:
        """Nothing to wait for: who steps the loop also fills the inbox."""

    def send(self, report: Outputs | Audited) -> None:
        if isinstance(report, Outputs):
            self.outputs.append(report)


class LLM:
    """An engine in this process.

    `settings` are the fields of `hexad.config.Config`; a whole `Config` may stand for the model. `ops` is a kernel set
    of one's own, in place of the one that the setting `kernels` names.
    Raises CheckpointError, ConfigError or OutOfMemory, each with what was found and what to do.
    """

    def __init__(
        self, model: str | Config = "demo", *, progress: Progress = no_progress, ops: Ops | None = None, **settings: Any
    ) -> None:
        if isinstance(model, Config):
            given = dataclasses.replace(model, **settings)
        else:
            given, _ = resolve([("arguments", {"model": model, **settings})])
        resolved = resolve_settings(given)
        opened = open_weights(given, resolved, ops)
        self.frontend = Frontend.load(given, resolved)  # while the weights are read
        scheduler, runner, self.info = build_engine(given, resolved, opened, progress)
        self._mail = _Mailbox()
        self._loop = Loop(scheduler, runner, self._mail, self._mail)
        self._live: dict[str, Stream] = {}
        self._accepted = 0

    def generate(
        self,
        prompts: str | Seq[str] | Seq[int] | Seq[Seq[int]],
        sampling_params: SamplingParams | Seq[SamplingParams] | None = None,
        *,
        priority: Seq[int] | None = None,
        cache_salt: str = "",
    ) -> list[RequestOutput]:
        """Answer all prompts, in their order. A prompt is a text or a list of token ids.

        Raises BadRequest when a prompt cannot be served, RequestFailed or what else ended one; nothing
        of the call stays in the engine then.
        """
        return self._generate(_as_prompts(prompts), sampling_params, priority=priority, cache_salt=cache_salt)

    def _generate(
        self,
        prompts: Seq[Prompt],
        sampling_params: SamplingParams | Seq[SamplingParams] | None,
        *,
        priority: Seq[int] | None = None,
        **options: Any,
    ) -> list[RequestOutput]:
        params = _per_prompt("sampling_params", sampling_params or self.frontend.default_params(), len(prompts))
        priorities = _per_prompt("priority", priority if priority is not None else 0, len(prompts))
        streams = [
            self.submit(prompt, how, priority=rank, **options)
            for prompt, how, rank in zip(prompts, params, priorities, strict=True)
        ]
        for _ in self.run(streams):
            pass
        for index, stream in enumerate(streams):
            if stream.error is not None:
                raise stream.error.error(f"prompt {index}: ")
        return [stream.output for stream in streams]

    def stream(
        self, prompt: Prompt, sampling_params: SamplingParams | None = None, *, add_special_tokens: bool = True
    ) -> Iterator[RequestOutput]:
        """The same `RequestOutput`, as it grows, after each step."""
        params = sampling_params or self.frontend.default_params()
        stream = self.submit(prompt, params, add_special_tokens=add_special_tokens)
        for _ in self.run([stream]):
            yield stream.output
        if stream.error is not None:
            raise stream.error.error()

    def chat(
        self,
        messages: Seq[dict[str, Any]] | Seq[Seq[dict[str, Any]]],
        sampling_params: SamplingParams | Seq[SamplingParams] | None = None,
        *,
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Render each conversation through the model's chat template and answer it."""
        conversations: Seq[Any] = [messages] if messages and isinstance(messages[0], dict) else messages
        prompts = [
            self.frontend.render(
                conversation, tools=tools, add_generation_prompt=add_generation_prompt, **(chat_template_kwargs or {})
            )
            for conversation in conversations
        ]
        return self._generate(prompts, sampling_params, add_special_tokens=False)

    def stats(self) -> EngineStats:
        return self._loop.scheduler.stats()

    def submit(self, prompt: Prompt, params: SamplingParams, **options: Any) -> Stream:
        """Check a request; `run` computes it. `options` are those of `Frontend.stream`."""
        self._accepted += 1
        if params.structured_outputs is not None:
            options["grammar"] = self._loop.runner.grammars.accept(params.structured_outputs)
        return self.frontend.stream(prompt, params, request_id=f"req-{self._accepted}", **options)

    def run(self, streams: list[Stream]) -> Iterator[None]:
        """Step until all of `streams` have ended; closing the iterator early aborts the rest.

        Iterators may be open side by side: each step serves all of them.
        """
        mine = self.begin(streams)
        try:
            finished = False
            while not finished:
                if not mine.keys().isdisjoint(self._live):
                    self.step()
                finished = mine.keys().isdisjoint(self._live)
                yield
        finally:
            left = [request_id for request_id in mine if self._live.pop(request_id, None)]
            if left:
                self._mail.commands.extend(Abort(request_id) for request_id in left)
                self.step()

    def begin(self, streams: list[Stream]) -> dict[str, Stream]:
        """Put `streams` among those that `step` computes; returns them by request id."""
        mine = {stream.request.request_id: stream for stream in streams}
        self._live |= mine
        self._mail.commands.extend(Add(stream.request) for stream in streams)
        return mine

    def step(self) -> None:
        """One step of all that has begun and not ended."""
        self._loop.step()
        self._deliver()

    def _deliver(self) -> None:
        while self._mail.outputs:
            for gained in self._mail.outputs.popleft().outputs:
                stream = self._live.get(gained.request_id)
                if stream is None:
                    continue
                for choice in stream.feed(gained):
                    self._mail.commands.append(Abort(gained.request_id, choice))
                if stream.finished:
                    del self._live[gained.request_id]


def _as_prompts(prompts: Any) -> list[Prompt]:
    if isinstance(prompts, str):
        return [prompts]
    if not isinstance(prompts, (list, tuple)) or not prompts:
        raise BadRequest("prompts is empty or of no known kind; give texts or lists of token ids", param="prompts")
    return [list(prompts)] if isinstance(prompts[0], int) else list(prompts)


def _per_prompt(name: str, given: Any, count: int) -> list[Any]:
    if not isinstance(given, (list, tuple)):
        return [given] * count
    if len(given) != count:
        raise BadRequest(
            f"{name} has {len(given)} entries for {count} prompts; give one each, or one for all", param=name
        )
    return list(given)
