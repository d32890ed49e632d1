"""Logits rows to tokens and log-probabilities; a row that cannot be served fails alone.

This module does not know where the logits came from, nor what happens to the tokens.
Shape suffixes: R rows, V vocabulary, T prompt positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hexad.decoding.processors import Row, needs_processing, process
from hexad.decoding.state import RowState
from hexad.errors import RequestFailed, Unsatisfiable
from hexad.kernels.ops import SAMPLING, Array, Ops
from hexad.types import Failure, TokenLogprobs

GREEDY_BELOW = 1e-5
"""A temperature below this is 0, as in vLLM: dividing by it would overflow."""


class Pick(NamedTuple):
    """What one row became: a token, or the cause of its failure (then `token_id` is -1)."""

    token_id: int
    logprobs: TokenLogprobs | None = None
    error: Failure | None = None


def pick(ops: Ops, logits_RV: Array, states: Sequence[RowState]) -> list[Pick]:
    """Draws the next token of each row of float32 logits [R, V], which stay as they are.

    Log-probabilities, where a row asks for them, are those of its unprocessed logits. A
    row's token and log-probabilities depend on that row and its state alone.
    """
    if not states:
        return []
    errors: dict[int, Failure] = {}
    edited_RV = _edited(ops, logits_RV, states, errors)
    tokens = ops.sample(edited_RV, _sampling(states)).tolist()
    for row, token in enumerate(tokens):
        if token < 0 and row not in errors:
            errors[row] = Failure(_defect(ops.to_host(edited_RV)[row]))
    logprobs = _row_logprobs(ops, logits_RV, tokens, states, errors)
    return [
        Pick(-1, error=errors[row]) if row in errors else Pick(token, logprobs.get(row))
        for row, token in enumerate(tokens)
    ]


def prompt_logprobs(ops: Ops, logits_TV: Array, token_ids: Sequence[int], n: int) -> list[TokenLogprobs]:
    """What T rows of logits [T, V] said about the prompt tokens that followed them.

    `token_ids[i]` is the token after row i. Raises RequestFailed where a row holds NaN or +inf.
    """
    host_TV = ops.to_host(logits_TV)
    for row in np.flatnonzero(~np.isfinite(host_TV.max(axis=1))).tolist():  # the maximum tells NaN, +inf and only -inf
        raise RequestFailed(f"{_defect(host_TV[row])}, before prompt token {token_ids[row]}")
    return _top_logprobs(ops, logits_TV, token_ids, [n] * len(token_ids))


def _defect(row_V: Row) -> str:
    for name, found_V in (("NaN", np.isnan(row_V)), ("+inf", np.isposinf(row_V))):
        if found_V.any():
            return (
                f"logits of this request hold {name} at token {int(found_V.argmax())} "
                f"({int(found_V.sum())} of {len(row_V)} values)"
            )
    return f"logits of this request are -inf for all {len(row_V)} tokens"


def _edited(ops: Ops, logits_RV: Array, states: Sequence[RowState], errors: dict[int, Failure]) -> Array:
    """The logits with processed rows in place; a row whose processing failed is noted in `errors`."""
    edits = [row for row, state in enumerate(states) if needs_processing(state)]
    if not edits:
        return logits_RV
    edited_RV = ops.to_host(logits_RV).copy()
    for row in edits:
        try:
            edited_RV[row] = _processed(states[row], edited_RV[row])
        except Exception as error:  # whatever it is, it belongs to this request alone
            errors[row] = Failure.of(error)
    return ops.array(edited_RV)


def _processed(state: RowState, row_V: Row) -> Row:
    if not np.isfinite(row_V.max()):
        raise RequestFailed(_defect(row_V))
    with np.errstate(over="ignore"):  # reported below, by name
        out_V = process(state, row_V)
    peak = out_V.max()
    if peak == -np.inf:
        raise Unsatisfiable(
            "no token is left to choose: structured_outputs, allowed_token_ids, bad_words, min_tokens and logit_bias "
            f"of this request rule out all {len(row_V)} tokens at position {state.position}; relax one of them"
        )
    if not np.isfinite(peak):
        raise Unsatisfiable(f"after penalties and logit_bias, {_defect(out_V)}; use milder values")
    return out_V


def _sampling(states: Sequence[RowState]) -> np.ndarray:
    rows = [
        (p.temperature if p.temperature >= GREEDY_BELOW else 0.0, max(p.top_k, 0), p.top_p, p.min_p, s.seed, s.position)
        for s, p in ((state, state.params) for state in states)
    ]
    return np.array(rows, SAMPLING)


def _row_logprobs(
    ops: Ops, logits_RV: Array, tokens: list[int], states: Sequence[RowState], errors: dict[int, Failure]
) -> dict[int, TokenLogprobs]:
    counts = {
        row: state.params.logprobs
        for row, state in enumerate(states)
        if state.params.logprobs is not None and row not in errors
    }
    if not counts:
        return {}
    if len(counts) < len(states):
        logits_RV = ops.take_rows(logits_RV, ops.array(np.array(list(counts), np.int32)))
    found = _top_logprobs(ops, logits_RV, [tokens[row] for row in counts], list(counts.values()))
    return dict(zip(counts, found, strict=True))


def _top_logprobs(ops: Ops, logits_RV: Array, token_ids: Sequence[int], counts: Sequence[int]) -> list[TokenLogprobs]:
    """One call for all rows; each row keeps its own number of alternatives."""
    if not token_ids:
        return []
    top = ops.top_logprobs(logits_RV, np.array(token_ids, np.int32), max(counts))
    rows = zip(token_ids, counts, *(part.tolist() for part in top), strict=True)
    return [
        TokenLogprobs(token_ids=[token, *ids[:count]], logprobs=[chosen, *values[:count]], rank=rank)
        for token, count, chosen, rank, ids, values in rows
    ]
