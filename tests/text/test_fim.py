"""Fill-in-the-middle prompts, spelled out as the models' authors publish them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

import hexad
from hexad.errors import BadRequest
from hexad.text.fim import MARKS, Infill, infill_prompt
from hexad.text.tokenizer import Tokenizer
from hexad.types import SamplingParams

DEMO = Path(hexad.__file__).parent / "checkpoints" / "demo"
QWEN = [*MARKS[0], "<|repo_name|>", "<|file_sep|>"]


def _tokenizer(directory: Path, plain: list[str], special: Sequence[str] = ()) -> Tokenizer:
    backend = Backend.from_file(str(DEMO / "tokenizer.json"))
    backend.add_tokens([AddedToken(name, special=False, normalized=False) for name in plain])
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    directory.mkdir(exist_ok=True)
    backend.save(str(directory / "tokenizer.json"))
    return Tokenizer.load(directory)


def _spelled(tokenizer: Tokenizer, prompt: Infill) -> str:
    return tokenizer.decode(prompt.token_ids, skip_special_tokens=False)


@pytest.mark.parametrize("marks", MARKS, ids=lambda marks: marks[0])
def test_the_middle_comes_last(marks: tuple[str, str, str], tmp_path: Path) -> None:
    tokenizer = _tokenizer(tmp_path, [], list(marks))
    prompt = infill_prompt(tokenizer, "def f(x):\n    return ", "\n\nprint(f(1))")
    assert _spelled(tokenizer, prompt) == f"{marks[0]}def f(x):\n    return {marks[1]}\n\nprint(f(1)){marks[2]}"
    named = [token for token in prompt.token_ids if token in tokenizer.special_token_ids]
    assert named == [tokenizer.token_id(name) for name in marks]


def test_a_repository_as_qwen_shows_it(tmp_path: Path) -> None:
    tokenizer = _tokenizer(tmp_path, QWEN)
    prompt = infill_prompt(tokenizer, "a = ", "\n", [("one.py", "x = 1\n"), ("two.py", "y = 2\n")])
    assert _spelled(tokenizer, prompt) == (
        "<|repo_name|>myproject\n<|file_sep|>one.py\nx = 1\n<|file_sep|>two.py\ny = 2\n<|file_sep|>filename\n"
        "<|fim_prefix|>a = <|fim_suffix|>\n<|fim_middle|>"
    )
    bare = _tokenizer(tmp_path / "bare", list(MARKS[1]))
    prompt = infill_prompt(bare, "a", "b", [("one.py", "x = 1")])
    assert _spelled(bare, prompt) == "\n\n--- snippet ---\n\nx = 1<fim_prefix>a<fim_suffix>b<fim_middle>"


def test_what_ends_the_middle(tmp_path: Path) -> None:
    tokenizer = _tokenizer(tmp_path, QWEN)
    params = infill_prompt(tokenizer, "a", "b").stopping(SamplingParams(stop=["x"], stop_token_ids=[7]))
    assert params.stop_token_ids == [7, tokenizer.token_id("<|endoftext|>")]
    assert params.stop == ["x", "<|repo_name|>", "<|file_sep|>"]


def test_a_token_written_in_the_code_stays_text(tmp_path: Path) -> None:
    tokenizer = _tokenizer(tmp_path, [], list(MARKS[0]))
    prompt = infill_prompt(tokenizer, 'mark = "<|fim_middle|>"', "<|im_end|>")
    assert prompt.token_ids.count(tokenizer.token_id("<|fim_middle|>")) == 1  # type: ignore[arg-type]
    assert tokenizer.token_id("<|im_end|>") not in prompt.token_ids
    assert '"<|fim_middle|>"<|fim_suffix|><|im_end|>' in _spelled(tokenizer, prompt)


def test_a_model_that_cannot_is_refused_by_name() -> None:
    with pytest.raises(BadRequest, match="fim_prefix") as refused:
        infill_prompt(Tokenizer.load(DEMO), "a", "b", param="input_suffix")
    assert refused.value.param == "input_suffix"
