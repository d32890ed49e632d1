"""Settings: where values come from, and that nothing unknown or ill-typed slips through."""

from __future__ import annotations

import dataclasses

import pytest

from hexad.config import FIELDS, Config, parse_bytes, resolve
from hexad.errors import ConfigError


def test_later_sources_win_and_origins_are_kept() -> None:
    config, origins = resolve([("hexad.yaml", {"port": 9000, "threads": 2}), ("command line", {"port": "9001"})])
    assert (config.port, config.threads) == (9001, 2)
    assert (origins["port"], origins["threads"], origins["host"]) == ("command line", "hexad.yaml", "default")


def test_an_unknown_key_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="unknown setting 'max-num-seq' in a.yaml; did you mean max_num_seqs?"):
        resolve([("a.yaml", {"max-num-seq": 3})])


@pytest.mark.parametrize(
    "given",
    [
        {"port": "http"},
        {"port": 70000},
        {"port": 1.5},
        {"port": True},
        {"dtype": "int3"},
        {"prefix_caching": "maybe"},
        {"max_num_seqs": 0},
        {"max_num_seqs": 512, "max_num_batched_tokens": 64},
        {"kv_memory": "4 parsecs"},
        {"threads": None, "port": None},
        {"host": None},
        {"allowed_origins": "https://a.example/"},
        {"allowed_origins": "https://a.example, b.example"},
        {"allowed_hosts": "a.example:8000"},
        {"allowed_hosts": "https://a.example"},
        {"allowed_hosts": "a b"},
        {"request_timeout": "1 day"},
    ],
)
def test_values_that_do_not_fit_are_refused_by_name(given: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve([("test", given)])
    what = str(refused.value)
    assert any(name in what for name in given) or "is not a size" in what or "is not a duration" in what


def test_pages_and_names_that_may_be_allowed() -> None:
    for name, words in (
        ("allowed_origins", "*"),
        ("allowed_origins", "https://a.example,http://localhost:3000 , null, app://obsidian.md, tauri://localhost,"),
        ("allowed_hosts", "*"),
        ("allowed_hosts", "a.example, my_box, 10.0.0.1, [::1]"),
    ):
        assert getattr(resolve([("test", {name: words})])[0], name) == words


@pytest.mark.parametrize(
    ("text", "size"), [("4GiB", 4 << 30), ("1.5G", 3 << 29), ("512MB", 512_000_000), ("1000", 1000), ("2 KiB", 2048)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


def test_every_setting_says_what_it_is() -> None:
    assert {f.name for f in dataclasses.fields(Config)} == set(FIELDS)
    assert all(len(f.metadata["help"]) > 20 for f in FIELDS.values())
