"""Training text of the demo: conversations made of skill examples, as token ids with the tokens to learn marked.

It does not know the model. Every conversation is drawn from the training side of the split.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hexad.bench.harbour import ADJECTIVES, NOUNS
from hexad.bench.skill_base import Example, Message, Tool
from hexad.bench.skill_tools import tools
from hexad.bench.skills import SKILLS, arithmetic, assistant, example, retrieve, user

DRILL = "Practise sums."
LONGEST = 2400  # longer documents, which are a few, are left out
PARTS = 4  # batches a step
SYSTEM_TEXTS = (
    "You are a helpful assistant.", "You are Hexad's demo model.", "Answer briefly.", "Be kind and precise.",
    "You are a friendly guide.", "Answer in one sentence.", "You are a function calling AI model.",
)  # fmt: skip


@dataclass(frozen=True)
class Mix:
    """How often each skill begins a conversation, how long texts for retrieval are, how many documents are drills."""

    shares: tuple[float, ...]
    longest: int
    drills: float


@dataclass(frozen=True)
class Document:
    """Token ids; for each token the index of the skill whose answer it belongs to, or -1 where nothing is learned."""

    ids: np.ndarray
    skills: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Rows of similar length, padded on the right; `chosen` are the flat positions whose next token is learned."""

    ids: Tensor
    chosen: Tensor
    targets: Tensor
    skills: Tensor


def conversation(rng: random.Random, mix: Mix) -> list[Example]:
    """One to six examples that become one conversation. Only the first one may bring tools."""
    first = rng.choices(SKILLS, mix.shares)[0]
    if first == "retrieve":
        return [retrieve(rng, False, mix.longest, questions=rng.randint(1, 12))]
    if first == "tools":
        return [tools(rng, False, questions=rng.choices((1, 2, 3, 4), (4, 3, 2, 1))[0])]
    found = [example(first, rng, False)]
    while len(found) < 6 and rng.random() < 0.6:
        skill = first if rng.random() < 0.5 else rng.choices(SKILLS, mix.shares)[0]
        if skill not in ("tools", "retrieve"):
            found.append(example(skill, rng, False))
    return found


def drill(rng: random.Random) -> list[Example]:
    """Dozens of sums in one reply. Adding takes many more examples than the other skills, and these are cheap."""
    lines = [arithmetic(rng, False).answer for _ in range(rng.randint(12, 40))]
    return [Example("arithmetic", [user(DRILL)], None, "\n".join(lines), DRILL)]


def messages_of(rng: random.Random, examples: list[Example]) -> tuple[list[Message], list[Tool] | None]:
    """The turns of all examples with their answers, now and then behind a system message."""
    messages: list[Message] = []
    if rng.random() < 0.2:
        text = rng.choice(SYSTEM_TEXTS)
        if rng.random() < 0.5:
            text += f" You like {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}s."
        messages.append({"role": "system", "content": text})
    for each in examples:
        messages += [*each.messages, assistant(each.answer)]
    return messages, examples[0].tools


class Encoder:
    """Turns conversations into documents, through the same chat template that users get."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.header = tokenizer.encode("<|im_start|>assistant\n")
        (self.end,) = tokenizer.encode("<|im_end|>")
        self.pad = tokenizer.pad_token_id
        self.equals = tokenizer.encode(" =")[-1]
        self.newline = self.header[-1]
        assert len(self.header) == 3, "the template's words must be single tokens"

    def documents(self, rng: random.Random, mix: Mix, count: int) -> list[Document]:
        talks = [drill(rng) if rng.random() < mix.drills else conversation(rng, mix) for _ in range(count)]
        texts = []
        for talk in talks:
            messages, schemas = messages_of(rng, talk)
            texts.append(self.tokenizer.apply_chat_template(messages, tools=schemas, tokenize=False))
        rows = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [self.mark(row, talk) for row, talk in zip(rows, talks, strict=True) if len(row) <= LONGEST]

    def mark(self, row: list[int], talk: list[Example]) -> Document:
        """Marks the tokens of each answer, its end included, with the skill it shows."""
        ids = np.array(row, dtype=np.int64)
        marks = np.full(len(ids), -1, dtype=np.int64)
        starts = np.flatnonzero(ids == self.header[0])
        starts = [s + 3 for s in starts if s + 2 < len(ids) and ids[s + 1] == self.header[1]]
        owners = [SKILLS.index(each.skill) for each in talk for _ in range(1 + answered(each))]
        ends = np.flatnonzero(ids == self.end)
        for start, owner in zip(starts, owners, strict=True):
            marks[start : ends[np.searchsorted(ends, start)] + 1] = owner
        if talk[0].key == DRILL:
            marks[~self.results(ids)] = -1
        return Document(ids, marks)

    def results(self, ids: np.ndarray) -> np.ndarray:
        """In a drill only what follows an equals sign can be learned: the numbers before it are random."""
        after = np.zeros(len(ids), dtype=bool)
        for index in range(1, len(ids)):
            if ids[index - 1] == self.equals:
                after[index] = True
            else:
                after[index] = after[index - 1] and ids[index - 1] not in (self.newline, self.end)
        return after


def answered(each: Example) -> int:
    """How many turns of the assistant an example has before its answer."""
    return sum(message["role"] == "assistant" for message in each.messages)


def batch_of(documents: list[Document], width: int, pad: int) -> Batch:
    ids = np.full((len(documents), width), pad, dtype=np.int64)
    marks = np.full((len(documents), width), -1, dtype=np.int64)
    for row, document in enumerate(documents):
        ids[row, : len(document.ids)] = document.ids
        marks[row, : len(document.ids) - 1] = document.skills[1:]
    chosen = np.flatnonzero(marks.reshape(-1) >= 0)
    following = np.roll(ids, -1, axis=1).reshape(-1)
    parts = (ids, chosen, following[chosen], marks.reshape(-1)[chosen])
    return Batch(*(torch.from_numpy(part) for part in parts))


def batches(documents: list[Document], tokens: int, pad: int, rng: random.Random) -> list[Batch]:
    """Documents of similar length together, in batches of at most `tokens` padded tokens, in random order."""
    groups: list[list[Document]] = [[]]
    for document in sorted(documents, key=lambda d: len(d.ids)):
        if groups[-1] and padded(document) * (len(groups[-1]) + 1) > tokens:
            groups.append([])
        groups[-1].append(document)
    rng.shuffle(groups)
    return [batch_of(group, padded(group[-1]), pad) for group in groups]


def padded(document: Document) -> int:
    """Widths are multiples of 16, so that few different shapes occur."""
    return -(-len(document.ids) // 16) * 16


def steps(encoder: Encoder, seed: int, mix: Mix, tokens: int) -> Iterator[list[Batch]]:
    """Endless steps of batches with about `tokens` padded tokens each; half a dozen steps share one sorting."""
    rng = random.Random(seed)
    while True:
        pool: list[Document] = []
        size = 0
        while size < 6 * tokens:
            fresh = encoder.documents(rng, mix, 64)
            pool += fresh
            size += sum(padded(document) for document in fresh)
        waiting = batches(pool, tokens // PARTS, encoder.pad, rng)
        while len(waiting) >= PARTS:
            yield [waiting.pop() for _ in range(PARTS)]
