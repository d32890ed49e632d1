"""What a user sees of a request while it runs: text, stop strings, log-probabilities.

A stream is fed the engine's outputs and grows one `RequestOutput`. It also knows how to ask
for the rest of itself, should the engine process die. It knows no transport.
"""

from __future__ import annotations

import msgspec

from hexad.text.detokenizer import Detokenizer
from hexad.text.stop import StopMatcher
from hexad.text.tokenizer import Tokenizer
from hexad.types import CompletionOutput, Failure, Logprob, Request, RequestOutput, SequenceOutput, TokenLogprobs


class _Choice:
    """One answer's text machinery."""

    def __init__(
        self, request: Request, output: CompletionOutput, tokenizer: Tokenizer, visible: frozenset[int]
    ) -> None:
        self.output = output
        self.params = request.params
        skips = request.params.skip_special_tokens
        self.detokenizer = Detokenizer(tokenizer, request.prompt_token_ids, skips, visible)
        self.stops = StopMatcher(request.params.stop, request.params.include_stop_str_in_output)

    def push(self, token_id: int) -> bool:
        """Add a token; True when a stop string is complete."""
        self.output.token_ids.append(token_id)
        return self._emit(self.detokenizer.push(token_id))

    def _emit(self, text: str) -> bool:
        if len(self.output.token_ids) <= self.params.min_tokens:
            self.output.text += text
            return False
        emitted, stopped = self.stops.push(text)
        self.output.text += emitted
        if stopped is not None:
            self.output.finish_reason = "stop"
            self.output.stop_reason = stopped
        return stopped is not None

    def flush(self) -> bool:
        """Emit what was held back; True when that completed a stop string."""
        stopped = self._emit(self.detokenizer.finish())
        if not stopped:
            self.output.text += self.stops.flush()
        return stopped


class Stream:
    def __init__(
        self, request: Request, prompt: str | None, tokenizer: Tokenizer, visible: frozenset[int] = frozenset()
    ) -> None:
        """`visible`: special tokens that are part of the text, although special tokens are skipped."""
        self.request = request
        self.error: Failure | None = None
        self._tokenizer = tokenizer
        self.output = RequestOutput(
            request_id=request.request_id,
            prompt=prompt,
            prompt_token_ids=request.prompt_token_ids,
            outputs=[CompletionOutput(index=i) for i in range(request.params.n)],
        )
        self._choices = [_Choice(request, output, tokenizer, visible) for output in self.output.outputs]
        if request.params.prompt_logprobs is not None:
            self.output.prompt_logprobs = [None] * len(request.prompt_token_ids)
        if request.params.logprobs is not None:
            for output in self.output.outputs:
                output.logprobs = []
                output.cumulative_logprob = 0.0

    @property
    def finished(self) -> bool:
        return self.output.finished

    def feed(self, gained: SequenceOutput) -> list[int]:
        """Take in what the engine computed; returns the choices that the engine should stop computing.

        What comes for a choice that has already ended (tokens behind a stop string) is dropped.
        """
        choice = self._choices[gained.choice]
        output = choice.output
        self._take_prompt(gained)
        if output.finish_reason is not None:
            return []
        for i, token_id in enumerate(gained.token_ids):
            if gained.logprobs is not None and output.logprobs is not None:
                output.logprobs.append(self._named(gained.logprobs[i]))
                output.cumulative_logprob = (output.cumulative_logprob or 0.0) + gained.logprobs[i].logprobs[0]
            if choice.push(token_id):
                self._note_finished()
                return [] if gained.finish_reason else [gained.choice]
        if gained.finish_reason is not None:
            self._finish(choice, gained)
        return []

    def _finish(self, choice: _Choice, gained: SequenceOutput) -> None:
        if not choice.flush():
            choice.output.finish_reason = gained.finish_reason
            choice.output.stop_reason = gained.stop_reason
        self.error = self.error or gained.error
        self._note_finished()

    def end(self, cause: Failure | None = None) -> None:
        """End every unfinished choice, without the engine's help: "error" with a cause, "abort" without."""
        self.error = self.error or cause
        for choice in self._choices:
            if choice.output.finish_reason is None and not choice.flush():
                choice.output.finish_reason = "error" if cause else "abort"
        self._note_finished()

    def _note_finished(self) -> None:
        self.output.finished = all(output.finish_reason is not None for output in self.output.outputs)

    def _take_prompt(self, gained: SequenceOutput) -> None:
        if gained.choice == 0 and gained.num_cached_tokens and not self.output.outputs[0].token_ids:
            self.output.num_cached_tokens = gained.num_cached_tokens
        if gained.prompt_logprobs is not None and self.output.prompt_logprobs is not None:
            for position, entry in enumerate(gained.prompt_logprobs, gained.prompt_logprobs_start):
                self.output.prompt_logprobs[position] = self._named(entry)

    def _named(self, entry: TokenLogprobs) -> dict[int, Logprob]:
        """The chosen token, then the top N, each with its text and rank."""
        named: dict[int, Logprob] = {}
        for i, (token_id, logprob) in enumerate(zip(entry.token_ids, entry.logprobs, strict=True)):
            if token_id not in named:
                named[token_id] = Logprob(logprob, entry.rank if i == 0 else i, self._tokenizer.token_text(token_id))
        return named

    def remaining(self) -> list[Request]:
        """Requests that, together, go on exactly where this stream stands."""
        outputs = self.output.outputs
        if not any(output.token_ids or output.finish_reason for output in outputs):
            return [self.request]
        alone = msgspec.structs.replace(self.request.params, n=1)
        return [
            msgspec.structs.replace(self.request, params=alone, choice=output.index, generated=list(output.token_ids))
            for output in outputs
            if output.finish_reason is None
        ]
