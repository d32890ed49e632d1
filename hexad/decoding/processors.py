"""What a request's parameters do to its logits before a token is drawn.

Each processor is a pure function of (state, row), over a float32 row [V]: it returns the row
itself where it has nothing to do, a new row otherwise. Order and meaning are vLLM's
(`v1/sample/sampler.py`). Temperature, top_k, top_p, min_p and the noise are not here: they
belong to the kernels' `sample`. This module does not know other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from hexad.decoding.state import RowState

Row = NDArray[np.float32]
Processor = Callable[[RowState, Row], Row]


def needs_processing(state: RowState) -> bool:
    """False: every processor would return the row as it is."""
    params = state.params
    return bool(
        params.repetition_penalty != 1.0
        or params.frequency_penalty != 0.0
        or params.presence_penalty != 0.0
        or state.num_generated < params.min_tokens
        or state.request.bad_words_token_ids
        or params.logit_bias
        or params.allowed_token_ids is not None
        or (params.thinking_budget is not None and _end_of_thought(state) is not None)
        or state.allowed is not None
    )


def process(state: RowState, row_V: Row) -> Row:
    """All processors in order. `row_V` stays as it is."""
    for processor in PROCESSORS:
        row_V = processor(state, row_V)
    return row_V


_ROWS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
_PENALTIES = np.where(_ROWS, np.float32(0), np.float32(-np.inf))
"""[256, 8]: what a byte of a mask adds to eight logits. Adding is 15 times as fast as choosing."""


def grammar(state: RowState, row_V: Row) -> Row:
    """Only what the grammar allows stays possible; no token beyond those that it knows."""
    if state.allowed is None:
        return row_V
    mask = state.allowed.result()
    bits = np.zeros(-(-len(row_V) // 8), np.uint8)
    bits[: len(mask)] = mask[: len(bits)]
    out_V: Row = row_V + _PENALTIES.take(bits, axis=0).reshape(-1)[: len(row_V)]
    return out_V


def allowed_tokens(state: RowState, row_V: Row) -> Row:
    """Only `allowed_token_ids` stay possible."""
    if state.params.allowed_token_ids is None:
        return row_V
    allowed = np.array(state.params.allowed_token_ids, dtype=np.int64)
    out_V = np.full_like(row_V, -np.inf)
    out_V[allowed] = row_V[allowed]
    return out_V


def bad_words(state: RowState, row_V: Row) -> Row:
    """The last token of a bad word is impossible where the tokens before it were just generated."""
    generated = state.generated if state.request.bad_words_token_ids else ()
    last_tokens = [word[-1] for word in state.request.bad_words_token_ids if _ends_with(generated, word[:-1])]
    return _masked(row_V, last_tokens)


def min_tokens(state: RowState, row_V: Row) -> Row:
    """No end-of-sequence and no stop token before `min_tokens` were generated, even with `ignore_eos`."""
    if state.num_generated >= state.params.min_tokens:
        return row_V
    # A checkpoint may name an end-of-sequence token beyond its own vocabulary.
    eos = [token for token in state.request.eos_token_ids if token < len(row_V)]
    return _masked(row_V, [*eos, *state.params.stop_token_ids])


def logit_bias(state: RowState, row_V: Row) -> Row:
    """Adds each token's bias."""
    bias = state.params.logit_bias
    if not bias:
        return row_V
    out_V: Row = row_V.copy()
    out_V[list(bias)] += np.array(list(bias.values()), dtype=np.float32)
    return out_V


def repetition_penalty(state: RowState, row_V: Row) -> Row:
    """Tokens of prompt and answer: positive logits are divided by the penalty, others multiplied.

    As in CTRL (Keskar et al. 2019, arXiv:1909.05858, section 4.1) with the usual care for signs.
    """
    penalty = np.float32(state.params.repetition_penalty)
    if penalty == 1.0:
        return row_V
    seen = np.unique(np.array(state.known, dtype=np.int64))
    out_V: Row = row_V.copy()
    out_V[seen] = np.where(row_V[seen] > 0, row_V[seen] / penalty, row_V[seen] * penalty)
    return out_V


def frequency_penalty(state: RowState, row_V: Row) -> Row:
    """Subtracts the penalty once for each time that the token was generated."""
    penalty = np.float32(state.params.frequency_penalty)
    if penalty == 0.0 or state.num_generated == 0:
        return row_V
    seen, counts = np.unique(np.array(state.generated, dtype=np.int64), return_counts=True)
    out_V: Row = row_V.copy()
    out_V[seen] -= penalty * counts.astype(np.float32)
    return out_V


def presence_penalty(state: RowState, row_V: Row) -> Row:
    """Subtracts the penalty from every token that was generated."""
    penalty = np.float32(state.params.presence_penalty)
    if penalty == 0.0 or state.num_generated == 0:
        return row_V
    out_V: Row = row_V.copy()
    out_V[np.unique(np.array(state.generated, dtype=np.int64))] -= penalty
    return out_V


def thinking_budget(state: RowState, row_V: Row) -> Row:
    """Only the next token of the marker that ends the reasoning, once the reasoning has used up its budget."""
    token = _end_of_thought(state)
    if token is None:
        return row_V
    out_V = np.full_like(row_V, -np.inf)
    out_V[token] = row_V[token]
    return out_V


PROCESSORS: tuple[Processor, ...] = (
    grammar,
    allowed_tokens,
    bad_words,
    min_tokens,
    logit_bias,
    repetition_penalty,
    frequency_penalty,
    presence_penalty,
    thinking_budget,
)


def _end_of_thought(state: RowState) -> int | None:
    """The token that must come because a reasoning section is over its budget, and is not closed."""
    budget, start, end = state.params.thinking_budget, state.request.reasoning_start, state.request.reasoning_end
    # GLM begins a line first.
    lead = 1 if start and list(state.generated[1 : 1 + len(start)]) == start else 0
    spent = state.num_generated - lead - len(start)
    if budget is None or not budget <= spent < budget + len(end):
        return None
    generated = list(state.generated)
    inside = generated[lead + len(start) :]
    is_closed = any(inside[at : at + len(end)] == end for at in range(spent))
    if generated[lead : lead + len(start)] != start or is_closed:
        return None
    return end[max(length for length in range(len(end)) if _ends_with(inside, end[:length]))]


def _ends_with(tokens: Sequence[int], tail: Sequence[int]) -> bool:
    return len(tail) <= len(tokens) and list(tokens[len(tokens) - len(tail) :]) == list(tail)


def _masked(row_V: Row, token_ids: list[int]) -> Row:
    if not token_ids:
        return row_V
    out_V: Row = row_V.copy()
    out_V[token_ids] = -np.inf
    return out_V
