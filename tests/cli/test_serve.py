"""Which models `hexad serve` is told to serve, by words and by a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hexad.cli.main import parser_of
from hexad.cli.serve import served_by
from hexad.config import parse_seconds
from hexad.errors import ConfigError

FILE = """
threads: 2
keep_alive: 10m
models:
  fast:
    model: ./small
    max_num_seqs: 4
  big:
    model: ./large
    pinned: true
"""


def served(*words: str) -> list[tuple[str, str, bool]]:
    return [(each.name, each.config.model, each.pinned) for each in served_by(parser_of(True).parse_args(words))]


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "hexad.yaml").write_text(FILE)
    return str(tmp_path / "hexad.yaml")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), [("demo", "demo")]),
        (("./a/b",), [("b", "./a/b")]),
        (("a", "org/b", "--port", "0"), [("a", "a"), ("b", "org/b")]),
        (("a", "--port", "0", "org/b", "--threads", "1", "x=c"), [("a", "a"), ("b", "org/b"), ("x", "c")]),
        (("fast=./a", "big=org/b"), [("fast", "./a"), ("big", "org/b")]),
        (("./dir=1/a",), [("a", "./dir=1/a")]),
        (("a", "--served-model-name", "x"), [("x", "a")]),
    ],
)
def test_words(words: tuple[str, ...], expected: list[tuple[str, str]]) -> None:
    assert served("serve", *words) == [(name, model, False) for name, model in expected]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["generate", "demo", "--top-k", "3", "Who?"], {"model": "demo", "prompt": "Who?", "top_k": 3}),
        (["generate", "--top-k", "3", "demo", "--raw", "Who?"], {"model": "demo", "prompt": "Who?", "raw": True}),
        (["generate", "--top-k", "3", "--", "demo", "--who?"], {"model": "demo", "prompt": "--who?", "top_k": 3}),
        (["generate", "--", "demo", "--who?"], {"model": "demo", "prompt": "--who?"}),
        (["batch", "in", "--threads", "1", "out", "--port", "2", "a", "b"], None),
        (["batch", "in", "out", "--threads", "1", "a", "b"], {"input": "in", "output": "out", "model": ["a", "b"]}),
        (["bench", "--repeats", "1", "offline", "--json", "x", "demo"], {"kind": "offline", "model": "demo"}),
        (["completion", "bash"], {"shell": "bash"}),
        (["doctor"], {}),
    ],
)
def test_options_may_stand_between_the_words(words: list[str], expected: dict[str, Any] | None) -> None:
    if expected is None:
        with pytest.raises(SystemExit):
            parser_of(True).parse_args(words)
    else:
        found = vars(parser_of(True).parse_args(words))
        assert {name: found[name] for name in expected} == expected


def test_a_file_may_give_each_model_settings_of_its_own(file: str) -> None:
    both = [("fast", "./small", False), ("big", "./large", True)]
    assert served("serve", "--config", file) == both
    assert served("serve", "big", "demo", "--config", file) == [both[1], ("demo", "demo", False)]
    fast, big = served_by(parser_of(True).parse_args(["serve", "--config", file, "--max-queue", "7"]))
    assert (fast.config.max_num_seqs, big.config.max_num_seqs) == (4, 64)
    assert {(each.config.threads, each.config.keep_alive, each.config.max_queue) for each in (fast, big)} == {
        (2, 600.0, 7)
    }


def test_a_word_names_another_model_than_the_file(file: str) -> None:
    assert served("serve", "big=./other", "--config", file) == [("big", "./other", True)]
    assert served("explain", "--config", file) == served("serve", "--config", file)


def test_model_may_be_a_list(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("model: [a, x=b]")
    assert served("serve", "--config", str(tmp_path / "c")) == [("a", "a", False), ("x", "b", False)]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("models: [a]", "must be `NAME:"),
        ("models: {1: {model: demo}}", "must be `NAME:"),
        ("models:", "must be `NAME:"),
        ("models: {a: {model: b}}\nmodel: c", "line 2: model stands beside models"),
        ("models:\n  a: {threads: 1, threads: 2}", "line 2: models.a.threads is given twice"),
        ("models:\n  a: {model: b}\n  a: {model: c}", "line 3: models.a is given twice"),
        ("keep_alive: 10m\nkeep-alive: 5m", "line 2: keep_alive is given twice"),
        ("model: [a, b]\nserved-model-name: c", "write them as NAME=MODEL"),
        ("model: []", r"model is \[\]"),
        ("model: [demo, null]", "None"),
        ("model:", "None"),
        ("model: {a: b}", "name a directory"),
        ("allowed_origins: [https://a.example]", "allowed_origins is .*; it must be a text"),
        ("revision: 1.10", "revision is 1.1; it must be a text"),
        ("models: {a: {modle: x}}", "unknown setting 'modle' in .*, line 1, models.a"),
        ("models: {a: {port: 1}}", "port is one for all models"),
        ("models: {a: {served-model-name: b}}", "is one for all models"),
        ("models: {a: {pinned: 3}}", "pinned of a is 3"),
        ("model: [a, b]\nserved_model_name: c", "write them as NAME=MODEL"),
    ],
)
def test_what_a_file_must_not_say(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "c").write_text(content)
    with pytest.raises(ConfigError, match=why):
        served("serve", "--config", str(tmp_path / "c"))


def test_no_word_is_taken_for_another() -> None:
    for words in (["serve", ""], ["serve", "a", ""], ["generate", "", "Who?"]):
        with pytest.raises(ConfigError, match="name a directory"):
            served(*words)


def test_settings_may_be_merged_from_an_anchor(tmp_path: Path) -> None:
    (tmp_path / "c").write_text(
        "models:\n  a: &a {model: x, threads: 1, max-queue: 5}\n"
        "  a-b: {<<: *a, model: y}\n  a_b: {model: z, keep-alive: 1m}\n"
    )
    each = served_by(parser_of(True).parse_args(["serve", "--config", str(tmp_path / "c"), "--request-timeout", "1m"]))
    assert [(one.name, one.config.model, one.config.threads, one.config.max_queue) for one in each] == [
        ("a", "x", 1, 5),
        ("a-b", "y", 1, 5),
        ("a_b", "z", None, 1024),
    ]
    assert [one.config.request_timeout for one in each] == [60.0] * 3 and each[2].config.keep_alive == 60


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5", 1.5), ("10m", 600), ("1h30m", 5400), ("500ms", 0.5), ("-1", -1), ("0", 0)]
)
def test_durations_are_written_as_in_go(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "1 m", "10x", "nan", "inf", "1e5", "--1", "1m30"])
def test_other_durations_are_refused(text: Any) -> None:
    with pytest.raises(ConfigError, match="is not a duration"):
        parse_seconds(text)
