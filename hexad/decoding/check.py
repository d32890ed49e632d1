"""What a request may ask of a vocabulary, checked once when it is accepted.

`SamplingParams` checks its own ranges; this module adds the limits that only the model knows.
It does not know the context length, nor what the tokens mean.
"""

from __future__ import annotations

from collections.abc import Iterable

from hexad.errors import BadRequest
from hexad.types import Request


def check_params(request: Request, vocab_size: int) -> None:
    """Every token that `request` names is in the vocabulary, and it asks for no more tokens than there are.

    End-of-sequence ids are the checkpoint's, not the user's: one beyond the vocabulary is merely
    never drawn. Raises BadRequest, naming the parameter, what was found and the limit.
    """
    params = request.params
    for name, count in (("logprobs", params.logprobs), ("prompt_logprobs", params.prompt_logprobs)):
        if count is not None and count > vocab_size:
            raise BadRequest(
                f"{name} is {count}, but the vocabulary has only {vocab_size} tokens; ask for fewer", param=name
            )
    _check_tokens("prompt", request.prompt_token_ids, vocab_size)
    _check_tokens("generated", request.generated, vocab_size)
    _check_tokens("logit_bias", params.logit_bias or (), vocab_size)
    _check_tokens("allowed_token_ids", params.allowed_token_ids or (), vocab_size)
    _check_tokens("stop_token_ids", params.stop_token_ids, vocab_size)
    for word in request.bad_words_token_ids:
        if not word:
            raise BadRequest("bad_words holds a word without tokens; remove it", param="bad_words")
        _check_tokens("bad_words", word, vocab_size)


def _check_tokens(name: str, token_ids: Iterable[int], vocab_size: int) -> None:
    for token in token_ids:
        if not 0 <= token < vocab_size:
            raise BadRequest(f"{name} holds token {token}; the vocabulary has tokens 0 to {vocab_size - 1}", param=name)
