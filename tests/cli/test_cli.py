"""The verbs, as a person types them: real processes, the built-in model."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hexad.checkpoints.hub import DEMO_DIRECTORY
from hexad.cli.main import main

VERBS = ("serve", "generate", "chat", "batch", "bench", "explain", "doctor")


def hexad(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hexad.cli.main", *words], input=stdin, capture_output=True, text=True, timeout=120
    )


def test_generate_answers_and_repeats_itself() -> None:
    once = hexad("generate", "demo", "Who are you?")
    again = hexad("generate", "demo", "Who are you?")
    assert once.returncode == 0 and "Hexad" in once.stdout
    assert (once.stdout, once.stderr) == (again.stdout, "")


def test_the_prompt_may_come_from_stdin() -> None:
    assert hexad("generate", "demo", stdin="Who are you?\n").stdout == hexad("generate", "demo", "Who are you?").stdout


def test_a_seed_repeats_a_sampled_answer() -> None:
    flags = ("generate", "demo", "Once", "--raw", "--temperature", "20", "--max-tokens", "40")
    assert hexad(*flags, "--seed", "3").stdout == hexad(*flags, "--seed", "3").stdout
    assert hexad(*flags, "--seed", "3").stdout != hexad(*flags, "--seed", "4").stdout


def test_an_answer_takes_the_shape_that_is_asked_for(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Oslo"]}}, "required": ["city"]}
    (tmp_path / "schema.json").write_text(json.dumps(schema | {"additionalProperties": False}))
    shown = hexad("generate", "demo", "A city?", "--json-schema", str(tmp_path / "schema.json"))
    assert json.loads(shown.stdout)["city"] in ("Paris", "Oslo") and not shown.stderr
    assert re.fullmatch(
        r"[0-9]{3}-[0-9]{4}\n", hexad("generate", "demo", "A number?", "--regex", "[0-9]{3}-[0-9]{4}").stdout
    )


def test_an_answer_that_was_cut_says_so() -> None:
    cut = hexad("generate", "demo", "Who are you?", "--max-tokens", "2")
    assert "--max-tokens" in cut.stderr


def test_chat_remembers() -> None:
    talk = hexad("chat", "demo", stdin="Who are you?\n/reset\nWho are you?\n/exit\n")
    first, second = talk.stdout.strip().splitlines()
    assert first == second and talk.returncode == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("generate", "/nowhere/at/all", "x"), "/nowhere/at/all"),
        (("generate", "demo", "x", "--temperature", "-1"), "temperature is -1.0"),
        (("generate", "demo", "x", "--kv-memory", "900TiB"), "set kv_memory to at most"),
        (("generate", "demo", "x", "--max-model-len", "999999", "--kv-memory", "1MiB"), "max_model_len"),
        (("serve", "demo", "--config", "/nowhere.yaml"), "cannot read --config"),
        (("bench", "offline", "--shape", "tiny"), "unknown shape"),
        (("bench", "offline", "demo", "--repeats", "0"), "--repeats is 0"),
        (("bench", "quality", "--dtype", "int8"), "--dtype does not go with `hexad bench quality`"),
        (("generate", "demo", ""), "the prompt is empty"),
        (("generate", "demo", "x", "--regex", "("), "regex"),
        (("generate", "demo", "x", "--json-schema", "/nowhere.json"), "/nowhere.json cannot be read"),
    ],
)
def test_errors_are_plain_words(words: tuple[str, ...], told: str) -> None:
    failed = hexad(*words)
    assert failed.returncode == 2
    assert told in failed.stderr and "Traceback" not in failed.stderr


def test_explain_shows_each_value_and_its_origin(tmp_path: Path) -> None:
    (tmp_path / "hexad.yaml").write_text("# mine\n\nmax-num-seqs: 7\n")
    shown = hexad("explain", "demo", "--config", str(tmp_path / "hexad.yaml"), "--port", "81").stdout
    lines = {line.split()[0]: line for line in shown.splitlines() if line.startswith("  ")}
    assert "7" in lines["max_num_seqs"] and "hexad.yaml, line 3" in lines["max_num_seqs"]
    assert "81" in lines["port"] and "command line" in lines["port"]
    assert "from the checkpoint" in lines["dtype"]
    assert "hermes" in lines["tool_format"] and "from the chat template" in lines["tool_format"]
    assert "tokens" in shown and "packed weights           made at each start" in shown
    assert "what the kernel and the cgroup leave" in lines["available"]
    shown = hexad("explain", "demo", "--model-memory", "1GiB").stdout
    assert re.search(r"available +1.00 GiB +model_memory\n", shown)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "port: 81\nmax-num-sequences: 7\n",
            "unknown setting 'max-num-sequences' in {}, line 2; did you mean max_num_seqs?",
        ),
        ("port: 81\nseed: 1\nport: 82\n", "{}, line 3: port is given twice"),
        ("port: many\n", "port is 'many'"),
        ("- port\n", "must hold `setting: value` lines"),
        ("", "must hold `setting: value` lines"),
        ("port: [\n", "is not YAML"),
    ],
)
@pytest.mark.parametrize("verb", ["explain", "serve"])
def test_a_wrong_file_is_refused_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, text: str, told: str
) -> None:
    path = tmp_path / "hexad.yaml"
    path.write_text(text)
    assert main([verb, "demo", "--config", str(path)]) == 2
    assert told.format(path) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["serve", "demo", "--prot", "80"], "did you mean --port?; `hexad serve --help-all`"),
        (["serve", "demo", "--tls_cert=x"], "did you mean --tls-cert?"),
        (["generate", "demo", "--max_tokens", "3"], "did you mean --max-tokens?"),
        (["serve", "demo", "--zzz"], "arguments: --zzz; `hexad serve --help-all` shows what there is"),
    ],
)
def test_an_unknown_flag_is_refused_with_the_nearest_one(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert told in capsys.readouterr().err


def test_doctor_measures_the_machine() -> None:
    shown = hexad("doctor").stdout
    assert re.search(r"bandwidth +(?!0\.0 )\d+\.\d GB/s", shown) and "portable" in shown


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_examples_first(verb: str) -> None:
    shown = hexad(verb, "--help").stdout
    everything = hexad(verb, "--help-all").stdout
    if verb != "doctor":
        assert 0 < shown.index("examples:") < shown.index("options:")
    assert len(shown.split("--")) <= len(everything.split("--"))
    assert not re.search("SUPPRESS|<object", shown + everything)
    assert len([line for line in shown.splitlines() if line.strip().startswith("--")]) <= 24
    assert verb != "serve" or len([line for line in everything.splitlines() if line.strip().startswith("--")]) <= 40


def test_bench_writes_figures_for_machines(tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    words = ("--input-len", "32", "--output-len", "8", "--num-prompts", "3", "--repeats", "1", "--json", str(report))
    assert "TTFT" in hexad("bench", "offline", "demo", *words).stdout
    (row,) = json.loads(report.read_text())["results"]
    assert row["ttft_ms"] > 0 and row["decode_tps"] > 0 and row["peak_rss_mib"] > 10 and row["cold_start_s"] > 0


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended while we looked
        return b""


def test_bench_serve_measures_through_the_socket(tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    words = ("--input-len", "32", "--output-len", "8", "--num-prompts", "4", "--repeats", "1", "--json", str(report))
    (tmp_path / "mine").symlink_to(DEMO_DIRECTORY)
    shown = hexad("bench", "serve", str(tmp_path / "mine"), "--concurrency", "2", *words)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(report.read_text())["results"][0]["output_tps"] > 0
    deadline = time.monotonic() + 20
    while any(bytes(tmp_path / "mine") in _content(path) for path in Path("/proc").glob("[0-9]*/cmdline")):
        assert time.monotonic() < deadline, "the server is not gone with what measured it"
        time.sleep(0.05)


def test_bench_jump_compares_the_answers() -> None:
    shown = hexad("bench", "jump", "demo", "--num-prompts", "1", "--repeats", "1").stdout
    fewer = re.search(r"([\d.]+)x fewer steps.* the same with and without", shown)
    assert fewer and float(fewer[1]) > 2


def test_bench_start_holds_the_promises_of_a_light_engine() -> None:
    """Bounds that a busy machine still keeps; the figures are in docs/performance.md."""
    shown = hexad("bench", "start").stdout
    idle, installed = (int(re.search(rf"{what}.*?(\d+) M", shown)[1]) for what in ("idle server", "installed"))  # type: ignore[index]
    assert 0 < idle < 200 and 0 < installed < 200


COMMAND = """
import os, signal, sys
class CtrlC:
    def find_spec(self, name, *_):
        if name == {at!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, CtrlC())
from hexad.cli import start  # as the script that pip makes
sys.exit(start())
"""


@pytest.mark.parametrize("is_ignored", [False, True])
@pytest.mark.parametrize(
    ("at", "status"),
    [
        ("hexad.cli.main", -signal.SIGINT),
        ("hexad.config", -signal.SIGINT),
        ("numpy", -signal.SIGINT),
        ("readline", 130),
    ],
)
def test_ctrl_c_ends_a_command_without_a_word(at: str, status: int, is_ignored: bool) -> None:
    """While it is imported, and while its verb runs. -SIGINT is 130 to a shell, like 130."""
    # What the command inherits; a script's `hexad ... &` is to ignore it.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if is_ignored else signal.default_int_handler)
    try:
        command = [sys.executable, "-c", COMMAND.format(at=at), "chat", "demo"]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.returncode, done.stderr, done.stdout) == (0 if is_ignored else status, "", "")


def test_help_imports_nothing_heavy() -> None:
    script = "import sys, hexad, hexad.cli.main as m; m.main([]); print(*sys.modules, file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stderr.split()
    assert not {"numpy", "tokenizers", "torch", "fastapi", "zmq"} & set(loaded)


def test_the_cpu_path_imports_no_torch() -> None:
    script = (
        "import sys, hexad\nfrom hexad.engine import worker, async_llm\nfrom hexad.server import run\n"
        "hexad.LLM('demo').generate('hi')\nprint('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"
