"""The whole of `hexad bench compare` and `growth` on the built-in model, in real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hexad.bench import install, plan
from hexad.bench.compare import compare
from hexad.bench.contestant import Contestant, hexad
from hexad.bench.document import Document, Row
from hexad.bench.group import Group
from hexad.bench.install import PEERS, cache_dir
from hexad.bench.shapes import SHAPES, random_checkpoint
from hexad.bench.workload import Workload
from hexad.checkpoints.hub import resolve
from hexad.cli.main import main
from hexad.engine.llm import LLM
from hexad.errors import HexadError

SMALL = Workload(input_len=(8, 16), output_len=(2, 5), num_prompts=3, vocab_size=3000)


def test_hexad_is_the_one_that_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what lies in the working directory: the sources in a clone have no kernels."""
    (tmp_path / "hexad").mkdir()
    (tmp_path / "hexad" / "__init__.py").write_text("raise SystemExit('another one')")
    monkeypatch.setattr(sys, "path", [str(Path(path).absolute()) for path in sys.path])
    monkeypatch.chdir(tmp_path)
    engine = hexad({"model": "demo", "kv_memory": "16MiB", "threads": 1})
    try:
        assert engine.start() > 0
    finally:
        engine.close()


def test_a_peer_that_fails_is_a_row_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hexad.bench.compare.default_threads", lambda: 1)
    monkeypatch.setattr("hexad.bench.compare.READ_BYTES", 1 << 26)

    def python(name: str, log: Path) -> Path:
        """transformers is in this environment; nothing else is."""
        if name != "transformers":
            raise HexadError("no such wheel")
        return Path(sys.executable)

    said: list[str] = []
    compare(resolve("demo", None), ["vllm", "transformers"], ["W1"], [16], 1, tmp_path, said.append, python)
    document = msgspec.json.decode((tmp_path / "results.json").read_bytes(), type=Document)
    rows = {(row.workload, row.name): row for row in document.rows}
    assert set(rows) == {("W1", "hexad"), ("W1", "transformers")}
    assert all(row.figures and row.figures.decode_tps > 0 for row in rows.values())
    assert [entry.error for entry in document.entries] == ["", "no such wheel", ""]
    assert document.floor.read_gb > 1 and document.floor.float32 > 0.01
    assert "no such wheel" in (tmp_path / "report.md").read_text()
    ratio = (tmp_path / "report.md").read_text().split("| 16 bits |")[1].split("|")[0]
    assert ratio.strip().endswith("x transformers")


def test_the_command_compares_hexad_alone_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hexad.bench.compare.READ_BYTES", 1 << 26)
    words = ["bench", "compare", "demo", "--peers", "", "--bits", "16", "--workloads", "W4,W6,concurrency"]
    assert main([*words, "--repeats", "1", "--out", str(tmp_path)]) == 0
    document = msgspec.json.decode((tmp_path / "results.json").read_bytes(), type=Document)
    assert [row.workload for row in document.rows] == ["W6", "W3", "W4", *["concurrency"] * 6]
    assert not any(row.error for row in document.rows)
    assert (tmp_path / "report.md").read_text() in capsys.readouterr().out
    assert (tmp_path / "report.html").read_text().count("<circle") == 6
    assert (tmp_path / "throughput-16.svg").read_text() in (tmp_path / "report.html").read_text()


def script(tmp_path: Path, body: str) -> Contestant:
    """A contestant whose every answer is `body`."""
    file = tmp_path / "contestant.py"
    file.write_text(
        "import json, sys, time\nsys.stdin.readline()\nprint(json.dumps({'first_token_at': time.time()}), flush=True)\n"
        f"for line in sys.stdin:\n    requests = json.loads(line)['requests']\n    {body}\n"
    )
    return Contestant("fake", [sys.executable, str(file)], {}, log=tmp_path / "log")


ANSWER = "print(json.dumps({'seconds': 1, 'token_s': [[1.0] * (n - %d) for _, n, _ in requests],"
ANSWER += " 'peak_rss_bytes': 1, 'other_cpus': 0}), flush=True)"


def test_a_contestant_that_gives_too_few_tokens_is_refused(tmp_path: Path) -> None:
    right = script(tmp_path, ANSWER % 0)
    right.start()
    assert right.run(SMALL, 0).output_tokens == SMALL.output_tokens()
    right.close()
    wrong = script(tmp_path, ANSWER % 1)
    wrong.start()
    with pytest.raises(HexadError, match=r"fake gave \d tokens for request 0, not \d"):
        wrong.run(SMALL, 0)
    assert not wrong.loaded


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print(json.dumps({'error': 'out of luck'}), flush=True)", "fake: out of luck"),
        ("sys.exit('the last words')", "fake: ended with status 1. the last words"),
        ("import os; os.kill(os.getpid(), 9)", "fake: out of memory: the system killed it"),
        ("sys.stdout.write('{\"sec'); sys.stdout.flush(); sys.exit(3)", "fake: ended with status 3"),
    ],
)
def test_a_contestant_that_dies_says_why(tmp_path: Path, body: str, message: str) -> None:
    c = script(tmp_path, body)
    c.start()
    with pytest.raises(HexadError, match=message):
        c.run(SMALL, 0)
    assert not c.loaded


def test_a_contestant_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hexad.bench.contestant.CLOSE_S", 0.2)
    c = script(tmp_path, "time.sleep(60)")
    c.start()
    monkeypatch.setattr("hexad.bench.contestant.TIMEOUT_S", 0.5)
    started = time.monotonic()
    with pytest.raises(HexadError, match=r"fake: no answer in 0\.5 s"):
        c.run(SMALL, 0)
    assert not c.loaded and time.monotonic() - started < 20


def group(contestants: list[Contestant], saved: list[int], repeats: int = 3) -> Group:
    return Group(8, contestants, 3000, repeats, lambda line: None, lambda: saved.append(1))


def test_who_is_killed_for_memory_runs_again_with_the_others_closed(tmp_path: Path) -> None:
    """The other holds the memory for as long as it is loaded, as far as the first knows."""
    other = script(tmp_path, ANSWER % 0)
    (tmp_path / "b").mkdir()
    mark = tmp_path / "loaded"
    once = f"import os; os.kill(os.getpid(), 9) if os.path.exists({str(mark)!r}) else None; {ANSWER % 0}"
    hungry = script(tmp_path / "b", once)
    other.name, hungry.name = "other", "hungry"
    close = other.close

    def closes() -> int:
        mark.unlink(missing_ok=True)
        return close()

    other.close = closes  # type: ignore[method-assign]
    saved: list[int] = []
    both = group([other, hungry], saved, 1)
    try:
        other.start()
        mark.touch()
        both.turns("W1", SMALL, [hungry], 1)
        assert not other.loaded and hungry.loaded
    finally:
        hungry.close()
        close()
    assert [(row.name, row.error, row.seconds) for row in both.rows] == [("hungry", "", [1])] and saved == [1]


@pytest.mark.parametrize(("seconds", "runs"), [(1, 3), (12, 2), (25, 1), (400, 1)])
def test_the_slow_run_less_often(tmp_path: Path, seconds: int, runs: int) -> None:
    c = script(tmp_path, (ANSWER % 0).replace("'seconds': 1", f"'seconds': {seconds}"))
    one = group([c], [])
    try:
        one.turns("W1", SMALL, [c], 3)
    finally:
        c.close()
    assert one.rows[0].seconds == [seconds] * runs


def test_a_death_costs_a_cell_and_no_more(tmp_path: Path) -> None:
    """The workload of 1,024 tokens kills it; W1 and W3 have figures."""
    c = script(tmp_path, f"len(requests[0][0]) == 1024 and sys.exit('too long'); {ANSWER % 0}")
    saved: list[int] = []
    one = group([c], saved)
    try:
        one.run(["W1", "W2", "W3"])
    finally:
        c.close()
    found = {row.workload: row.error or row.seconds for row in one.rows}
    assert found == {"W1": [1, 1, 1], "W2": "fake: ended with status 1. too long", "W3": [1, 1, 1]} and len(saved) == 3


def test_a_run_that_ended_too_soon_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hexad.bench.compare.READ_BYTES", 1 << 26)
    words = ["bench", "compare", "demo", "--peers", "", "--repeats", "1", "--out", str(tmp_path), "--resume"]

    def rows(bits: str, workloads: str) -> list[Row]:
        assert main([*words, "--bits", bits, "--workloads", workloads]) == 0
        return msgspec.json.decode((tmp_path / "results.json").read_bytes(), type=Document).rows

    first = rows("8", "W1")
    assert "nothing to resume" in capsys.readouterr().out
    second = rows("8", "W1,W2")
    assert second[:1] == first and [row.workload for row in second] == ["W1", "W2"]
    assert main([*words, "--bits", "4", "--workloads", "W1"]) == 2
    assert "leave out --resume" in capsys.readouterr().err
    (tmp_path / "results.json").write_text('{"date": 3}')
    assert main([*words, "--bits", "8", "--workloads", "W1"]) == 2
    assert "cannot be resumed" in capsys.readouterr().err


def test_the_plan_is_of_what_is_left(tmp_path: Path) -> None:
    ours, slow = Contestant("hexad", [], {}), Contestant("ctranslate2", [], {}, continuous=False)
    of = group([ours, slow], [])
    weights = 473_000_000
    left = plan.plan([of], ["W1", "W3", "W5"], 3, weights)
    assert left[8, "W3"] == pytest.approx(6 * 3.2 + 145 * 1.2)  # 145 s are run once
    assert left[8, "W5"] == 0  # no peer takes requests while others run
    assert plan.plan([of], ["W3"], 3, weights // 2)[8, "W3"] == pytest.approx(3 * 3.2 + 72.5 * 1.2)
    of.rows.append(Row(workload="W3", bits=8, name="hexad"))
    assert set(plan.plan([of], ["W1", "W3"], 3, weights)) == {(8, "W1")}
    assert "W1" in plan.shown(left) and "minutes" in plan.shown(left)


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


def test_a_resting_contestant_is_stopped_and_dies_with_its_parent() -> None:
    """`T` is stopped: it cannot take a core from the one that is measured."""
    code = (
        "import sys; from hexad.bench.contestant import hexad\n"
        "c = hexad({'model': 'demo'}); c.start(); print(c._process.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_for(lambda: state(pid) == "T")
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        wait_for(lambda: state(pid) in ("gone", "Z"))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_arrivals_are_kept_and_first_tokens_count_from_them() -> None:
    spread = msgspec.structs.replace(SMALL, num_prompts=6, rate=20.0)
    c = hexad({"model": "demo"})
    try:
        c.start()
        run = c.run(spread, 0)
    finally:
        c.close()
    assert run.seconds >= spread.arrivals(0)[-1]
    assert all(0 < first < run.seconds for first in run.first_token_s)
    assert len(run.gaps_s) == run.output_tokens - 6


def test_growth_writes_points_and_plots(tmp_path: Path) -> None:
    words = ["bench", "growth", "demo", "--max-model-len", "512", "--out", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "hexad.cli.main", *words], check=True, capture_output=True)
    grown = json.loads((tmp_path / "growth.json").read_text())
    assert [point[0] for point in grown["concurrency"]["points"]] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert [point[0] for point in grown["context"]["points"]] == [128, 256]
    for name in ("concurrency", "context", "prefill"):
        points = grown[name]["points"]
        assert all(figure > 0 for _, figure, _ in points)
        assert points == sorted(points, key=lambda point: point[2])  # peak memory never falls
        assert (tmp_path / f"growth-{name}.svg").read_text().count("<circle") == len(points)


def test_the_random_checkpoint_is_one_that_others_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    tiny = {**SHAPES["qwen3-0.5b"], "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 128}
    monkeypatch.setitem(SHAPES, "tiny", {**tiny, "num_hidden_layers": 1})
    directory = random_checkpoint("tiny", tmp_path / "tiny")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(directory)
    assert theirs.num_parameters() > 1000 * 64
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    text = "Round trip: 12 + 30 = 42, gr\u00fc\u00dfe!"
    assert len(tokenizer) == 1000 and tokenizer.decode(tokenizer.encode(text)) == text
    llm = LLM(str(directory), kv_memory=1 << 24)
    assert llm.frontend.tokenizer.encode(text, add_special_tokens=False) == tokenizer.encode(text)
    assert random_checkpoint("tiny", directory) == directory  # written once


def test_the_cache_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "hexad" / "bench"
    folder = cache_dir() / "venv-vllm"
    folder.mkdir(parents=True)
    (folder / "hexad-requirements.txt").write_text("\n".join(PEERS["vllm"].requirements))
    assert install.install("vllm", tmp_path / "log") == folder / "bin" / "python"  # complete: nothing is installed


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_installs_converts_and_runs(name: str, tmp_path: Path) -> None:
    """Downloads up to 2 GB a peer, unless they are in the cache."""
    bits = min(PEERS[name].formats)
    shape = next(iter(SHAPES))
    checkpoint = random_checkpoint(shape, cache_dir() / shape)
    document = compare(checkpoint, [name], ["W1", "W4"], [bits], 1, tmp_path)
    assert not [row.error for row in document.rows if row.error and row.name == name]
    assert {row.workload for row in document.rows if row.name == name} == {"W1", "W4"}
