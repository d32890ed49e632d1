"""The tokenizer against transformers' AutoTokenizer, on tokenizers of the four kinds in use."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from hexad.errors import BadRequest, CheckpointError
from hexad.text.tokenizer import Tokenizer

PIECES = [
    "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>", "<think>", "<late>",
    "<|endoftext|>", "<0x41>", " ", "  ", "\n", "\t\n ", "the dog", "doesn't", "日本", "😀", "👩‍👩‍👧", "é", "e\u0301",
    "▁", "\u200d", "\0",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=8).map("".join)
OFTEN = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="session")
def pair(tokenizer_directory: Path) -> tuple[Tokenizer, Any]:
    return Tokenizer.load(tokenizer_directory), AutoTokenizer.from_pretrained(tokenizer_directory)


@given(TEXTS, st.booleans())
@OFTEN
def test_encoding_is_that_of_transformers(pair: tuple[Tokenizer, Any], text: str, add: bool) -> None:
    ours, theirs = pair
    assert ours.encode(text, add_special_tokens=add) == theirs.encode(text, add_special_tokens=add)


@given(TEXTS)
@OFTEN
def test_literal_encoding_has_no_added_token_and_decodes_to_the_text(pair: tuple[Tokenizer, Any], text: str) -> None:
    ours, theirs = pair
    ids = ours.encode(text, add_special_tokens=False, allow_special=False)
    assert ids == theirs._encode_without_added_tokens(text)
    assert not set(ids) & (ours.special_token_ids - {theirs.unk_token_id})


@pytest.mark.parametrize("text", ["", "hello the dog", " x"])
def test_literal_encoding_adds_the_same_bos(pair: tuple[Tokenizer, Any], text: str) -> None:
    ours, _ = pair
    assert ours.encode(text, allow_special=False) == ours.encode(text)


@given(st.lists(st.integers(0, 520), max_size=12), st.booleans())
@OFTEN
def test_decoding_is_that_of_transformers(pair: tuple[Tokenizer, Any], ids: list[int], skip: bool) -> None:
    ours, theirs = pair
    ids = [token_id for token_id in ids if token_id <= ours.max_token_id]
    assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)


def test_names_and_sizes_are_those_of_transformers(pair: tuple[Tokenizer, Any]) -> None:
    ours, theirs = pair
    assert ours.vocab_size == len(theirs)
    assert ours.bos_token_id == theirs.bos_token_id
    assert ours.token_id(ours.special_tokens["eos_token"]) == theirs.eos_token_id
    assert ours.special_tokens == theirs.special_tokens_map
    assert set(theirs.all_special_ids) <= ours.special_token_ids


def test_token_text_keeps_the_space_and_bytes_join_to_the_text(tokenizer_directory: Path) -> None:
    tokenizer = Tokenizer.load(tokenizer_directory)
    ids = tokenizer.encode("The dog 😀", add_special_tokens=False)
    assert b"".join(map(tokenizer.token_bytes, ids)).decode().removeprefix(" ") == "The dog 😀"
    assert " dog" in "".join(map(tokenizer.token_text, ids))
    eos = tokenizer.token_id(tokenizer.special_tokens["eos_token"])
    assert eos is not None and tokenizer.token_text(eos) in ("</s>", "<|im_end|>", "<|eot_id|>")
    assert tokenizer.token_bytes(10**9) == b""


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\ud83d\ude00"])
@pytest.mark.parametrize("allow_special", [True, False])
def test_a_lone_surrogate_is_a_bad_request(tokenizer_directory: Path, text: str, allow_special: bool) -> None:
    with pytest.raises(BadRequest, match="lone surrogate"):
        Tokenizer.load(tokenizer_directory).encode(text, allow_special=allow_special)


@pytest.mark.parametrize("token_id", [-1, 10**6, 2**32, 2**70])
def test_an_id_outside_the_vocabulary_is_a_bad_request(tokenizer_directory: Path, token_id: int) -> None:
    with pytest.raises(BadRequest, match=str(token_id)):
        Tokenizer.load(tokenizer_directory).decode([1, token_id])


WORD_PIECE = {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}
DAMAGE = {
    "truncated": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "not an object": lambda text: "[]",
    "another decoder": lambda text: json.dumps(json.loads(text) | WORD_PIECE),
    "no decoder": lambda text: json.dumps(json.loads(text) | {"decoder": None}),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_tokenizer_is_named(tokenizer_directories: dict[str, Path], tmp_path: Path, damage: str) -> None:
    text = (tokenizer_directories["llama2"] / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(DAMAGE[damage](text))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


LISTED = [{"x": {}}, {"1": "a"}, {"1": {"content": 3}}, [1], {"1": {"content": "a", "special": 7}}]


@pytest.mark.parametrize("listed", LISTED)
def test_damaged_added_tokens_are_named(tokenizer_directories: dict[str, Path], tmp_path: Path, listed: Any) -> None:
    (tmp_path / "tokenizer.json").write_text((tokenizer_directories["llama2"] / "tokenizer.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": listed}))
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json"):
        Tokenizer.load(tmp_path)
