"""Each law of `worlds.py` can fail: engines with one seeded defect, and a law that must notice it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from hexad.decoding import sampler, state
from hexad.engine import setup
from hexad.engine.stream import Stream
from hexad.kernels.load import Loaded
from hexad.kernels.ops import KV, Step, TopLogprobs
from hexad.kernels.reference import ReferenceOps
from hexad.scheduler import lifecycle, scheduler
from hexad.scheduler.memory import Memory
from hexad.scheduler.plan import Result
from hexad.scheduler.sequence import Sequence
from hexad.types import FinishReason, Request
from tests.engine import worlds
from tests.engine.worlds import World, workload

NUDGE = np.float32(1 + 2**-20)
"""Far below what any comparison of texts would see."""

Patch = Callable[[pytest.MonkeyPatch], None]


def linear_that_sees_how_many_rows_there_are(patch: pytest.MonkeyPatch) -> None:
    honest = ReferenceOps.linear

    def linear(self: ReferenceOps, x: np.ndarray, weight: Any, bias: np.ndarray | None = None) -> np.ndarray:
        out = honest(self, x, weight, bias)
        return out * NUDGE if len(x) % 2 else out

    patch.setattr(ReferenceOps, "linear", linear)


def attention_that_sees_other_sequences(patch: pytest.MonkeyPatch) -> None:
    honest = ReferenceOps.attention

    def attention(self: ReferenceOps, q: np.ndarray, step: Step, kv: KV, scale: float, window: int) -> np.ndarray:
        out = honest(self, q, step, kv, scale, window)
        return out * NUDGE if len(step.context_lens_S) > 1 else out

    patch.setattr(ReferenceOps, "attention", attention)


def keys_that_are_coarser_when_decoded(patch: pytest.MonkeyPatch) -> None:
    honest = ReferenceOps.rope_kv_write

    def write(self: ReferenceOps, q: np.ndarray, k: np.ndarray, v: np.ndarray, *rest: Any) -> np.ndarray:
        return honest(self, q, k, v.astype(np.float16).astype(np.float32) if len(v) == 1 else v, *rest)

    patch.setattr(ReferenceOps, "rope_kv_write", write)


def pages_that_are_not_copied(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ReferenceOps, "copy_pages", lambda *_: None)


def noise_with_a_memory(patch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    patch.setattr("hexad.kernels.reference.gumbel_noise", lambda seed, position, size: rng.gumbel(size=size))


def noise_of_a_row_instead_of_a_seed(patch: pytest.MonkeyPatch) -> None:
    honest = ReferenceOps.sample

    def sample(self: ReferenceOps, logits: np.ndarray, how_R: np.ndarray) -> np.ndarray:
        how_R = how_R.copy()
        how_R["seed"] += np.arange(len(logits), dtype=np.uint64)
        return honest(self, logits, how_R)

    patch.setattr(ReferenceOps, "sample", sample)


def noise_that_counts_from_the_prompt_on(patch: pytest.MonkeyPatch) -> None:
    honest = sampler._sampling

    def sampling(states: list[state.RowState]) -> np.ndarray:
        how_R = honest(states)
        how_R["position"] = [one.num_generated for one in states]
        return how_R

    patch.setattr(sampler, "_sampling", sampling)


def choices_that_share_their_noise(patch: pytest.MonkeyPatch) -> None:
    honest = state.RowState.of

    def of(request: Request, choice: int, *rest: Any) -> state.RowState:
        return honest(request, 0, *rest)

    patch.setattr(state.RowState, "of", of)


def logprobs_normalised_over_the_batch(patch: pytest.MonkeyPatch) -> None:
    def top_logprobs(self: ReferenceOps, logits: np.ndarray, tokens: np.ndarray, n: int) -> TopLogprobs:
        shifted = logits - logits.max()
        logprobs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        ids = np.argsort(-logits, axis=1, kind="stable")[:, :n]
        rows = np.arange(len(logits))
        rank = 1 + (logits > logits[rows, tokens][:, None]).sum(axis=1)
        return TopLogprobs(logprobs[rows, tokens], rank, ids, np.take_along_axis(logprobs, ids, 1))

    patch.setattr(ReferenceOps, "top_logprobs", top_logprobs)


def prompt_scores_that_trust_the_cache(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Memory, "reads_cache", lambda self, sequence: self._caching)


def a_resumed_stream_that_repeats_a_token(patch: pytest.MonkeyPatch) -> None:
    honest = Stream.remaining

    def remaining(self: Stream) -> list[Request]:
        return [msgspec.structs.replace(each, generated=each.generated[:-1]) for each in honest(self)]

    patch.setattr(Stream, "remaining", remaining)


def threads_that_split_a_sum(patch: pytest.MonkeyPatch) -> None:
    class Threaded(ReferenceOps):
        nudge = np.float32(1)

        def linear(self, x_TK: np.ndarray, weight: Any, bias_N: np.ndarray | None = None) -> np.ndarray:
            return super().linear(x_TK, weight, bias_N) * self.nudge

    def load(kind: str, threads: int, *_: object) -> Loaded:
        ops = Threaded()
        ops.nudge = NUDGE if threads > 1 else np.float32(1)
        return Loaded(ops, "")

    patch.setattr(setup, "load", load)


def a_jump_over_the_end(patch: pytest.MonkeyPatch) -> None:
    """Only the last of the tokens that are taken at once may end an answer."""

    def extend(sequence: Sequence, gained: Result, max_new: int) -> tuple[FinishReason | None, int | None]:
        sequence.tokens += [gained.token_id, *gained.forced]
        reason, stop_token = lifecycle.ending(sequence, max_new)
        return ("stop", None) if gained.complete and reason is None else (reason, stop_token)

    patch.setattr(scheduler, "extend", extend)


KILLS: list[tuple[Patch, Callable[[World], None]]] = [
    (linear_that_sees_how_many_rows_there_are, worlds.a_batch_changes_nothing),
    (linear_that_sees_how_many_rows_there_are, worlds.chunks_change_nothing),
    (linear_that_sees_how_many_rows_there_are, worlds.a_prefix_hit_changes_nothing),
    (linear_that_sees_how_many_rows_there_are, worlds.preemption_changes_nothing),
    (linear_that_sees_how_many_rows_there_are, worlds.going_on_elsewhere_changes_nothing),
    (linear_that_sees_how_many_rows_there_are, worlds.a_cached_prompt_scores_alike),
    (attention_that_sees_other_sequences, worlds.a_batch_changes_nothing),
    (attention_that_sees_other_sequences, worlds.a_prefix_of_another_changes_nothing),
    (keys_that_are_coarser_when_decoded, worlds.an_answer_in_the_prompt_changes_nothing),
    (keys_that_are_coarser_when_decoded, worlds.preemption_changes_nothing),
    (pages_that_are_not_copied, worlds.four_answers_are_four_requests),
    (noise_with_a_memory, worlds.a_batch_changes_nothing),
    (noise_with_a_memory, worlds.going_on_elsewhere_changes_nothing),
    (noise_of_a_row_instead_of_a_seed, worlds.a_batch_changes_nothing),
    (noise_that_counts_from_the_prompt_on, worlds.an_answer_in_the_prompt_changes_nothing),
    (choices_that_share_their_noise, worlds.four_answers_are_four_requests),
    (logprobs_normalised_over_the_batch, worlds.a_batch_changes_nothing),
    (prompt_scores_that_trust_the_cache, worlds.a_cached_prompt_scores_alike),
    (a_resumed_stream_that_repeats_a_token, worlds.going_on_elsewhere_changes_nothing),
    (threads_that_split_a_sum, worlds.threads_change_nothing),
    (a_jump_over_the_end, worlds.jumping_changes_nothing),
]


def world(tiny_model: Path) -> World:
    return World(tiny_model, "reference", "float32", workload([3, 17, 40, 49, 66, 70, 95, 130], max_tokens=16))


@pytest.mark.parametrize("law", worlds.LAWS, ids=lambda law: law.__name__)
def test_the_laws_hold_without_a_defect(tiny_model: Path, law: Callable[[World], None]) -> None:
    law(world(tiny_model))


@pytest.mark.parametrize(("defect", "law"), KILLS, ids=lambda function: function.__name__)
def test_a_defect_is_noticed(
    tiny_model: Path, defect: Patch, law: Callable[[World], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    defect(monkeypatch)
    with pytest.raises(AssertionError):
        law(world(tiny_model))
