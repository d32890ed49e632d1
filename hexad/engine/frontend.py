"""From what a user hands in to a checked `Request`: shared by `LLM` and `AsyncLLM`.

All refusals that need no engine happen here, before anything is queued.
"""

from __future__ import annotations

import hashlib
import os
import random
import secrets
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import msgspec

from hexad import __version__
from hexad.checkpoints.config import ModelConfig
from hexad.checkpoints.generation import GenerationDefaults, read_generation_defaults
from hexad.config import Config
from hexad.decoding.check import check_params
from hexad.engine.messages import Add, decode_command, encode
from hexad.engine.setup import Resolved, tokenizer_directory
from hexad.engine.stream import Stream
from hexad.errors import BadRequest
from hexad.scheduler.lifecycle import SchedulerConfig, refuse_unservable
from hexad.text.chat_template import ChatTemplate
from hexad.text.formats import Format, detect
from hexad.text.tokenizer import Tokenizer
from hexad.types import Request, SamplingParams

Prompt = str | list[int]

_TAIL_TOKENS = 32
"""Of a prompt, enough to see whether it has begun a reasoning section."""
_TAIL_BYTES = 64 * 2**10


class Frontend(msgspec.Struct):
    config: Config
    model_config: ModelConfig
    tokenizer: Tokenizer
    tokenizer_directory: Path | None
    """Where it came from; None: of bytes."""
    chat_template: ChatTemplate | None
    generation_defaults: GenerationDefaults
    limits: SchedulerConfig
    seeds: random.Random
    format: Format
    fingerprint: str
    """Names the engine's version, the model's files and its precision."""

    @classmethod
    def load(cls, config: Config, resolved: Resolved) -> Frontend:
        directory = tokenizer_directory(config, resolved)
        tokenizer = Tokenizer.open(directory)
        template = ChatTemplate.load(resolved.directory, tokenizer.special_tokens)
        return cls(
            config=config,
            model_config=resolved.model,
            tokenizer=tokenizer,
            tokenizer_directory=directory,
            chat_template=template,
            generation_defaults=read_generation_defaults(resolved.directory),
            limits=resolved.scheduler,
            seeds=random.Random(secrets.randbits(64) if config.seed is None else config.seed),
            format=detect("\n".join(template.sources.values()) if template else "", config.tool_format),
            fingerprint=_fingerprint(resolved),
        )

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams,
        *,
        request_id: str,
        priority: int = 0,
        cache_salt: str = "",
        add_special_tokens: bool = True,
        grammar: str = "",
        client: str = "",
        markers: bool = False,
    ) -> Stream:
        """A text is tokenized, without special tokens when a chat template has already written them.

        `grammar` is what `params.structured_outputs` was compiled to. `markers`: those of the model's reasoning and
        calls stay in the text, though they may be special tokens.

        Raises BadRequest (or ContextTooLong) for what can never be served.
        """
        ids = (
            self.tokenizer.encode(prompt, add_special_tokens=add_special_tokens) if isinstance(prompt, str) else prompt
        )
        max_tokens = params.max_tokens or max(1, self.limits.max_model_len - len(ids))
        seed = self.seeds.getrandbits(63) if params.seed is None else params.seed
        start, end = self._reasoning_ends(ids) if params.thinking_budget is not None else ([], [])
        request = Request(
            request_id=request_id,
            prompt_token_ids=list(ids),
            params=msgspec.structs.replace(params, max_tokens=max_tokens, seed=seed, structured_outputs=None),
            eos_token_ids=list(self.generation_defaults.eos_token_ids),
            bad_words_token_ids=self._bad_words(params.bad_words or ()),
            reasoning_start=start,
            reasoning_end=end,
            grammar=grammar,
            priority=priority,
            cache_salt=cache_salt,
            client=client,
        )
        self._check(request)
        visible = frozenset(self.format.tokens(self.tokenizer.token_id).values()) if markers else frozenset[int]()
        return Stream(request, prompt if isinstance(prompt, str) else None, self.tokenizer, visible)

    def _check(self, request: Request) -> None:
        """Raise BadRequest for what can never be served, and for what another process could not even read."""
        try:
            refuse_unservable(request, self.limits)  # first, for it is cheap
            check_params(request, vocab_size=self.model_config.vocab_size)
            decode_command(encode(Add(request)))
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
            raise BadRequest(f"the request holds a value of the wrong type: {error}") from None

    def _reasoning_ends(self, prompt_ids: list[int]) -> tuple[list[int], list[int]]:
        """The tokens that begin a reasoning section, none if the prompt has begun it, and those that end it."""
        if self.format.reasoning is None:
            raise BadRequest(
                f"thinking_budget is given, and the template of {self.config.model} shows no reasoning; leave it out",
                param="thinking_budget",
            )
        tail = self.tokenizer.decode(prompt_ids[-_TAIL_TOKENS:], skip_special_tokens=False)
        start, end = (self.tokenizer.encode(marker, add_special_tokens=False) for marker in self.format.reasoning)
        return [] if self.format.opens_reasoning(tail) else start, end

    def _bad_words(self, words: Seq[str]) -> list[list[int]]:
        """Each word as it is tokenized at the start of a text and, where that differs, behind a space (as vLLM)."""
        spelled: list[list[int]] = []
        for word in words:
            plain = self.tokenizer.encode(word.lstrip(), add_special_tokens=False)
            spaced = self.tokenizer.encode(" " + word.lstrip(), add_special_tokens=False)
            spelled.append(plain)
            if spaced[:1] != plain[:1] and len(spaced) == len(plain):
                spelled.append(spaced)
        return spelled

    def render(self, messages: list[dict[str, Any]], **options: Any) -> str:
        """A conversation as the model wants to read it. Raises BadRequest."""
        if self.chat_template is None:
            raise BadRequest(f"{self.config.model} has no chat template; send a plain prompt instead", param="messages")
        return self.chat_template.render(messages, **options)

    def default_params(self, **given: Any) -> SamplingParams:
        """SamplingParams whose unset fields come from the model's generation_config.json."""
        return SamplingParams(**{**sampling_fields(self.generation_defaults), **given})


def _fingerprint(resolved: Resolved) -> str:
    """Copies of a model have the same: of its files only names, sizes and last bytes count."""
    facts = [__version__, repr(resolved.model), repr(resolved.precision)]
    for path in sorted(resolved.directory.glob("*.safetensors")):
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            facts += [path.name, str(size), hashlib.sha256(file.read()).hexdigest()]
    return "fp_" + hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def sampling_fields(defaults: GenerationDefaults) -> dict[str, Any]:
    """What the model's author set, by the names of SamplingParams."""
    given = msgspec.structs.asdict(defaults)
    return {name: value for name, value in given.items() if name != "eos_token_ids" and value is not None}
