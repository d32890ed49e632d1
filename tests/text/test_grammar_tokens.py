"""A grammar over each family of tokenizers: what is spelled is what the tokenizer would spell, byte for byte."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np

from hexad.decoding.grammar import Vocabulary, Walk
from hexad.text.detokenizer import Detokenizer
from hexad.text.tokenizer import Tokenizer
from hexad.types import StructuredOutputs

TEXTS = ["name", '{"name":"', "self.scheduler", " step", "for ever\n\n", "naïve 🌊", ""]
SCHEMA = {
    "type": "object",
    "properties": {"self scheduler": {"enum": [1, "two words", "🌊"]}, "step": {"type": "string", "maxLength": 6}},
    "required": ["self scheduler", "step"],
    "additionalProperties": False,
}


def test_text_inside_an_answer_is_spelled_without_anything_in_front(tokenizer_directory: Path) -> None:
    tokenizer = Tokenizer.load(tokenizer_directory)
    for text in TEXTS:
        ids = tokenizer.encode_inside(text)
        assert ids is not None and b"".join(map(tokenizer.token_bytes, ids)) == text.encode()


def test_walks_spell_valid_answers(tokenizer_directory: Path) -> None:
    tokenizer = Tokenizer.load(tokenizer_directory)
    eos = tokenizer.token_id(tokenizer.special_tokens["eos_token"])
    assert eos is not None
    vocabulary = Vocabulary(tokenizer, [eos])
    matcher = vocabulary.compile(vocabulary.grammar(StructuredOutputs(json=SCHEMA)))
    for seed in range(10):
        rng, walk = random.Random(seed), Walk(matcher)
        forced = 0
        while not walk.complete:
            forced += len(walk.jump())
            if not walk.complete:
                free = np.flatnonzero(np.unpackbits(walk.allowed(), bitorder="little")).tolist()
                walk.follow([*walk.tokens, rng.choice(free)])
        prompt = tokenizer.encode("a prompt")
        detokenizer = Detokenizer(tokenizer, prompt, True)
        text = "".join(map(detokenizer.push, walk.tokens)) + detokenizer.finish()
        answer = json.loads(text)
        assert answer["self scheduler"] in (1, "two words", "🌊") and len(answer["step"]) <= 6
        assert forced > 3
