"""`hexad completion`: Tabs pressed in real shells."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from hexad.config import FIELDS
from tests.cli.test_cli import hexad


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        done = hexad("completion", shell)
        assert done.returncode == 0 and not done.stderr
        (folder / shell).write_text(done.stdout)
    return {shell: folder / shell for shell in ("bash", "zsh", "fish")}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a model of the hub, and a directory that holds another."""
    (tmp_path / ".cache/huggingface/hub/models--Qwen--Qwen3-0.6B/snapshots").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.json").write_text("{}")
    (tmp_path / "other").mkdir()
    (tmp_path / "in.jsonl").write_text("")
    return tmp_path


CASES = [
    ("hexad b", ["batch", "bench"]),
    ("hexad serve ", ["demo", "Qwen/Qwen3-0.6B", "./mine"]),
    ("hexad serve demo Qw", ["Qwen/Qwen3-0.6B"]),
    ("hexad serve --port 81 d", ["demo"]),
    ("hexad serve oth", ["other"]),
    ("hexad generate demo ", []),
    ("hexad explain --dtype b", ["bfloat16"]),
    ("hexad serve demo --log-format ", ["text", "json"]),
    ("hexad serve --allowed", ["--allowed-origins", "--allowed-hosts"]),
    ("hexad chat --port", []),
    ("hexad bench of", ["offline"]),
    ("hexad batch in", ["in.jsonl"]),
    ("hexad batch in.jsonl out.jsonl de", ["demo"]),
    ("hexad completion ", ["bash", "zsh", "fish"]),
]


def completed(shell: str, script: Path, home: Path, line: str) -> list[str]:
    words = line.split(" ")
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    if shell == "fish":
        program = f"source {script}; complete -C '{line}'"
    else:
        quoted = " ".join(f"'{word}'" for word in words)
        program = f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _hexad; "
        program += 'printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run([shell, "-c", program], cwd=home, env=environment, capture_output=True, text=True, check=True)
    assert not done.stderr, done.stderr
    return [found.partition("\t")[0].rstrip("/") for found in done.stdout.splitlines() if found]


@pytest.mark.parametrize(("line", "words"), CASES, ids=[case[0] for case in CASES])
def test_bash_offers_what_fits(scripts: dict[str, Path], home: Path, line: str, words: list[str]) -> None:
    assert completed("bash", scripts["bash"], home, line) == words


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(("line", "words"), CASES, ids=[case[0] for case in CASES])
def test_fish_offers_what_fits(scripts: dict[str, Path], home: Path, line: str, words: list[str]) -> None:
    if "oth" not in line and line != "hexad generate demo ":  # fish knows no places, and completes paths itself
        offered = completed("fish", scripts["fish"], home, line)
        assert {word.removeprefix("./") for word in words} <= set(offered)


def _typed(command: list[str], home: Path, text: str, until: str, timeout_s: float = 20) -> str:
    """What a terminal shows after `text` was typed into an interactive shell."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(home)
        os.execvpe(command[0], command, {"HOME": str(home), "PATH": os.environ["PATH"], "TERM": "dumb", "PS1": "> "})
    shown = ""
    try:
        os.write(terminal, text.encode())
        deadline = time.monotonic() + timeout_s
        while not re.search(until, shown):
            assert time.monotonic() < deadline, shown
            if select.select([terminal], [], [], 0.1)[0]:
                shown += os.read(terminal, 65536).decode("utf-8", "replace")
                shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b.|[\x07\x08]", "", shown)
        return shown
    finally:
        os.close(terminal)
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_a_tab_in_an_interactive_bash(scripts: dict[str, Path], home: Path) -> None:
    text = f"source {scripts['bash']}\nhexad serve Qw\t --dtype bf\t"
    _typed(["bash", "--norc", "--noprofile", "-i"], home, text, "serve Qwen/Qwen3-0.6B +--dtype bfloat16")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_a_tab_in_an_interactive_zsh(scripts: dict[str, Path], home: Path) -> None:
    text = f"source {scripts['zsh']}\nhexad serve Qw\t --dtype bf\t"
    _typed(["zsh", "-f", "-i"], home, text, "serve Qwen/Qwen3-0.6B +--dtype bfloat16")


def test_a_tab_takes_less_than_a_tenth_of_a_second(scripts: dict[str, Path], home: Path) -> None:
    """Of a processor, whatever else is running."""
    program = f"source {scripts['bash']}; COMP_WORDS=(hexad serve ''); COMP_CWORD=2; "
    program += "TIMEFORMAT='%U %S'; time for i in 1 2 3 4 5 6 7 8 9 10; do _hexad; done"
    done = subprocess.run(["bash", "-c", program], cwd=home, capture_output=True, text=True, check=True)
    assert sum(map(float, done.stderr.replace(",", ".").split())) / 10 < 0.1


def test_every_setting_is_offered(scripts: dict[str, Path], home: Path) -> None:
    offered = completed("bash", scripts["bash"], home, "hexad serve --")
    assert {"--" + name.replace("_", "-") for name in FIELDS if name != "model"} <= set(offered)
