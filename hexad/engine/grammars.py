"""The grammars of an engine: compiled beside the loop, walked beside the forward pass.

What is kept here may be dropped at any moment: it is worked out again from the request and its tokens.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from hexad.scheduler.sequence import Sequence as Choice
from hexad.text.tokenizer import Tokenizer
from hexad.types import SamplingParams, StructuredOutputs

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from hexad.decoding.grammar import Bits, Vocabulary, Walk

MAX_COMPILED = 64
MAX_COMPILED_CHARS = 4 * 2**20
"""Grammars that are kept compiled, and the length of their texts together."""


def load_vocabulary(tokenizer: Tokenizer, eos_token_ids: Sequence[int]) -> Vocabulary:
    """A quarter of a second for 150,000 tokens; the library too is loaded only now."""
    vocabulary: Vocabulary = importlib.import_module("hexad.decoding.grammar").Vocabulary(tokenizer, eos_token_ids)
    return vocabulary


class Grammars:
    """`load` makes the vocabulary, when it is first needed. `jump`: forced tokens are taken at once.

    `max_walks` is the number of choices that run at the same time.
    """

    def __init__(self, load: Callable[[], Vocabulary], jump: bool, max_walks: int) -> None:
        self._load = load
        self._jump = jump
        self._max_walks = max_walks
        self._vocabulary: Vocabulary | None = None
        self._compiled: OrderedDict[str, Future[LLMatcher]] = OrderedDict()
        self._walks: OrderedDict[tuple[str, int], Walk] = OrderedDict()
        # One thread each: a long compilation does not hold up masks, and a walk is not entered twice.
        self._compiler = ThreadPoolExecutor(1, "grammar-compiler")
        self._walker = ThreadPoolExecutor(1, "grammar-masks")

    def accept(self, wanted: StructuredOutputs) -> str:
        """The grammar of a request in this process. Raises BadRequest."""
        grammar = self._compiler.submit(lambda: self._loaded().grammar(wanted)).result()
        self.compile(grammar).result()
        return grammar

    def compile(self, grammar: str) -> Future[LLMatcher]:
        """Raises, from the future, BadRequest for a grammar that cannot be served."""
        if grammar in self._compiled:
            self._compiled.move_to_end(grammar)
            return self._compiled[grammar]
        future = self._compiled[grammar] = self._compiler.submit(lambda: self._loaded().compile(grammar))
        chars = sum(map(len, self._compiled))
        while len(self._compiled) > MAX_COMPILED or (chars > MAX_COMPILED_CHARS and len(self._compiled) > 1):
            chars -= len(self._compiled.popitem(last=False)[0])
        return future

    def _loaded(self) -> Vocabulary:
        if self._vocabulary is None:
            self._vocabulary = self._load()
        return self._vocabulary

    def allowed(self, choice: Choice, tokens: Sequence[int]) -> Future[Bits] | None:
        """The tokens that may follow `tokens`, prompt and answer; None for all of them."""
        grammar = choice.request.grammar
        if not grammar:
            return None
        begun = self._walks.get(choice.key) or self.compile(grammar)
        return self._walker.submit(self._allowed, choice.key, begun, tokens[choice.num_prompt :])

    def _allowed(self, key: tuple[str, int], begun: Walk | Future[LLMatcher], generated: Sequence[int]) -> Bits:
        """What is walked holds on to its grammar, which need not be among the compiled ones any more."""
        if isinstance(begun, Future):
            walk: Walk = importlib.import_module("hexad.decoding.grammar").Walk(begun.result())
        else:
            walk = begun
        walk.follow(generated)
        self._walks[key] = walk
        self._walks.move_to_end(key)
        if len(self._walks) > self._max_walks:
            self._walks.popitem(last=False)
        return walk.allowed()

    def gained(self, choice: Choice, token: int) -> tuple[list[int], bool]:
        """After `allowed` has been asked for and `token` was drawn: what must follow it, and whether nothing may."""
        walk = self._walks[choice.key]
        walk.follow([*walk.tokens, token])
        forced = walk.jump() if self._jump and _may_jump(choice.request.params) else []
        if walk.complete:
            del self._walks[choice.key]
        return forced, walk.complete


def _may_jump(params: SamplingParams) -> bool:
    """Nobody asked for the logits of forced tokens, and nothing beside the grammar could rule them out."""
    wants_logits = params.logprobs is not None
    is_narrowed = params.allowed_token_ids is not None or params.bad_words or params.thinking_budget is not None
    return not (wants_logits or is_narrowed or (params.min_tokens and params.stop_token_ids))
