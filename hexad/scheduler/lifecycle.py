"""The two ends of a request's life: whether it can be taken, and which token ends it."""

from __future__ import annotations

import msgspec

from hexad.errors import BadRequest, ContextTooLong
from hexad.kernels.ops import PAGE_SIZE
from hexad.scheduler.plan import Result
from hexad.scheduler.sequence import Sequence
from hexad.types import FinishReason, Request


class SchedulerConfig(msgspec.Struct, frozen=True):
    """All sizes, known before the first request."""

    num_pages: int
    max_num_seqs: int
    """Choices that run at the same time."""
    max_num_batched_tokens: int
    """The token budget of one step."""
    max_model_len: int
    """Tokens of prompt and answer together."""
    prefix_caching: bool = True
    page_size: int = PAGE_SIZE


def max_new_tokens(request: Request, config: SchedulerConfig) -> int:
    """`max_tokens`, or all that the context holds."""
    asked = request.params.max_tokens
    return config.max_model_len - len(request.prompt_token_ids) if asked is None else asked


def refuse_unservable(request: Request, config: SchedulerConfig) -> None:
    """Raise BadRequest for what could never run to its end, with the numbers and the way out."""
    prompt, new = len(request.prompt_token_ids), max_new_tokens(request, config)
    if prompt == 0:
        raise BadRequest("the prompt is empty; give at least one token", param="prompt")
    if prompt >= config.max_model_len:
        raise ContextTooLong(
            f"prompt is too long: {prompt} tokens > {config.max_model_len - 1} maximum: this model's maximum context "
            f"length is {config.max_model_len} tokens, the answer's among them; shorten it",
            param="prompt",
        )
    if prompt + new > config.max_model_len:
        raise ContextTooLong(
            f"the prompt has {prompt} tokens and max_tokens is {new}, together {prompt + new}; this model's maximum "
            f"context length is {config.max_model_len}; lower max_tokens to at most {config.max_model_len - prompt}, "
            "or send less",
            param="max_tokens",
        )
    needed = -(-(prompt + new) // config.page_size)
    if needed > config.num_pages:
        raise ContextTooLong(
            f"a prompt of {prompt} tokens and max_tokens {new} need {needed} pages of KV cache; there are "
            f"{config.num_pages} ({config.num_pages * config.page_size} tokens); shorten the prompt, lower max_tokens, "
            "or give the KV cache more memory",
            param="max_tokens",
        )
    if request.params.n > config.max_num_seqs:
        raise BadRequest(
            f"n is {request.params.n}; at most {config.max_num_seqs} answers run at a time; "
            "lower n or raise max_num_seqs",
            param="n",
        )
    if request.generated and (request.params.n > 1 or len(request.generated) >= new):
        raise BadRequest(
            f"{len(request.generated)} generated tokens are given with n {request.params.n} and max_tokens {new}; "
            "resume one choice at a time, and only an unfinished one",
            param="generated",
        )


def extend(sequence: Sequence, gained: Result, max_new: int) -> tuple[FinishReason | None, int | None]:
    """Append the token that was drawn and those that must follow it, up to one that ends it.

    Returns (finish_reason, stop_reason); (None, None) while it goes on.
    """
    tokens = [gained.token_id, *gained.forced]
    for taken, token in enumerate(tokens, 1):
        sequence.tokens.append(token)
        reason, stop_token = ending(sequence, max_new)
        if gained.complete and taken == len(tokens) and reason != "stop":
            return "stop", None
        if reason is not None:
            return reason, stop_token
    return None, None


def ending(sequence: Sequence, max_new: int) -> tuple[FinishReason | None, int | None]:
    """(finish_reason, stop_reason) after its newest token."""
    request, token = sequence.request, sequence.tokens[-1]
    if sequence.num_generated >= request.params.min_tokens:
        if token in request.eos_token_ids and not request.params.ignore_eos:
            return "stop", None
        if token in request.params.stop_token_ids:
            return "stop", token
    return ("length", None) if sequence.num_generated >= max_new else (None, None)
