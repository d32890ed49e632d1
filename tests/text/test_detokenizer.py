"""Streaming text against decoding everything at once."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hexad.text.detokenizer import Detokenizer
from hexad.text.tokenizer import Tokenizer
from tests.text.test_tokenizer import TEXTS

OFTEN = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
IDS = st.lists(st.integers(0, 520) | st.integers(3, 258), max_size=14)


@pytest.fixture(scope="session")
def tokenizer(tokenizer_directory: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_directory)


def stream(tokenizer: Tokenizer, ids: list[int], prompt: list[int] | None = None, skip: bool = True) -> list[str]:
    detokenizer = Detokenizer(tokenizer, prompt or [], skip)
    return [*(detokenizer.push(token_id) for token_id in ids), detokenizer.finish()]


@given(TEXTS, st.booleans())
@OFTEN
def test_pieces_of_valid_text_add_up_and_hold_no_half_character(tokenizer: Tokenizer, text: str, skip: bool) -> None:
    ids = tokenizer.encode(text)
    pieces = stream(tokenizer, ids, skip=skip)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=skip)
    assert "".join(pieces).count("\ufffd") == text.count("\ufffd")
    assert pieces[-1] == ""


@given(IDS, st.booleans())
@OFTEN
def test_pieces_of_any_tokens_add_up(tokenizer: Tokenizer, ids: list[int], skip: bool) -> None:
    ids = [token_id for token_id in ids if token_id <= tokenizer.max_token_id]
    whole = tokenizer.decode(ids, skip_special_tokens=skip)
    pieces = stream(tokenizer, ids, skip=skip)
    if tokenizer.rules.byte_level or "\ufffd" not in whole:
        assert "".join(pieces) == whole
    # Whatever the tokens, no more than an incomplete character of three bytes is held back.
    skipped = tokenizer.special_token_ids if skip else ()
    arrived = sent = 0
    for token_id, piece in zip(ids, pieces, strict=False):
        arrived += 0 if token_id in skipped else len(tokenizer.token_bytes(token_id))
        sent += len(piece.encode())
        assert sent >= arrived - 3 - tokenizer.rules.leading_spaces


@given(TEXTS | IDS, st.integers(0, 20), st.booleans())
@OFTEN
def test_an_answer_continues_its_prompt(tokenizer: Tokenizer, source: str | list[int], cut: int, skip: bool) -> None:
    ids = tokenizer.encode(source) if isinstance(source, str) else source
    ids = [token_id for token_id in ids if token_id <= tokenizer.max_token_id]
    prompt, answer = ids[:cut], ids[cut:]
    of_prompt = Detokenizer(tokenizer, [], skip)
    before = "".join(of_prompt.push(token_id) for token_id in prompt)
    assert before + "".join(stream(tokenizer, answer, prompt, skip)) == "".join(stream(tokenizer, ids, skip=skip))


def test_a_character_is_sent_when_its_last_byte_arrives(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a😀b", add_special_tokens=False)
    pieces = stream(tokenizer, ids)
    shown = [piece for piece in pieces if piece]
    assert "".join(shown) == "a😀b"
    assert any("😀" in piece for piece in shown)


@pytest.mark.parametrize("count", [1, 5, 400])
def test_bytes_that_never_become_a_character_are_not_held_back(tokenizer: Tokenizer, count: int) -> None:
    wrong = next(token_id for token_id in range(tokenizer.vocab_size) if tokenizer.token_bytes(token_id) == b"\xff")
    assert stream(tokenizer, [wrong] * count) == ["\ufffd"] * count + [""]


def test_a_lone_lead_byte_appears_at_the_end_only(tokenizer: Tokenizer) -> None:
    lead = next(token_id for token_id in range(tokenizer.vocab_size) if tokenizer.token_bytes(token_id) == b"\xf0")
    assert stream(tokenizer, [lead]) == ["", "\ufffd"]


def test_complete_characters_in_a_damaged_run_of_byte_tokens_are_kept(tokenizer_directories: dict[str, Path]) -> None:
    tokenizer = Tokenizer.load(tokenizer_directories["llama2"])
    run = [tokenizer.token_id(f"<0x{byte:02X}>") for byte in "é".encode() + b"\xff"]
    assert "".join(stream(tokenizer, run)) == "é\ufffd"
    assert tokenizer.decode(run) == "\ufffd" * 3


def test_visible_special_tokens_are_not_skipped(tokenizer: Tokenizer) -> None:
    special = sorted(tokenizer.special_token_ids)[:2]
    ids = [*special, *tokenizer.encode("x y", add_special_tokens=False)]
    detokenizer = Detokenizer(tokenizer, [5], visible=frozenset(special[:1]))
    text = "".join(map(detokenizer.push, ids)) + detokenizer.finish()
    assert text.startswith(tokenizer.token_text(special[0]))
    assert tokenizer.token_text(special[1]) not in text
