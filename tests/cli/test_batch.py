"""`hexad batch`: a file of requests, killed in the middle, gone on with, and refused where it is wrong."""

from __future__ import annotations

import codecs
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hexad.cli.main import main
from tests.cli.test_cli import hexad
from tests.server.openai_schemas import check

COMMAND = [sys.executable, "-m", "hexad.cli.main", "batch"]


def request(custom_id: str, body: dict[str, Any], url: str = "/v1/completions", method: str = "POST") -> dict[str, Any]:
    return {"custom_id": custom_id, "method": method, "url": url, "body": {"model": "demo"} | body}


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def answers(path: Path) -> dict[str, Any]:
    """What was answered, by custom_id, without what names a single run."""
    found = {}
    for line in path.read_text().splitlines():
        answer = json.loads(line)
        assert set(answer) == {"id", "custom_id", "response", "error"} and answer["error"] is None
        response = answer["response"]
        assert set(response) == {"status_code", "request_id", "body"} and response["request_id"] in answer["id"]
        assert answer["custom_id"] not in found, "answered once"
        body = response["body"]
        found[answer["custom_id"]] = response["status_code"], body.get("choices"), body.get("usage"), body.get("error")
    return found


def test_every_url_is_answered_as_the_server_answers(tmp_path: Path) -> None:
    lines = [
        request("a", {"prompt": "Once", "max_tokens": 8, "temperature": 0}),
        request("b", {"messages": [{"role": "user", "content": "Who are you?"}], "seed": 1}, "/v1/chat/completions"),
        request("c", {"input": "Who are you?", "temperature": 0}, "/v1/responses"),
        request("d", {"prompt": "x", "temperature": -1}),
        request("e", {"prompt": "x", "model": "gpt-9"}),
    ]
    done = hexad("batch", str(write(tmp_path / "in", lines)), str(tmp_path / "out"), "demo")
    assert done.returncode == 1 and "5 answers" in done.stderr and "2 failed" in done.stderr
    bodies = {line["custom_id"]: line["response"] for line in map(json.loads, (tmp_path / "out").open())}
    statuses = {custom_id: response["status_code"] for custom_id, response in bodies.items()}
    assert statuses == {"a": 200, "b": 200, "c": 200, "d": 400, "e": 404}
    for custom_id, schema in (
        ("a", "CreateCompletionResponse"),
        ("b", "CreateChatCompletionResponse"),
        ("c", "Response"),
        ("d", "ErrorResponse"),
    ):
        check(schema, bodies[custom_id]["body"])
    alone = hexad("generate", "demo", "Once", "--raw", "--max-tokens", "8", "--temperature", "0").stdout
    assert bodies["a"]["body"]["choices"][0]["text"] == alone.removesuffix("\n")


def test_a_batch_that_was_killed_goes_on_to_the_same_answers(tmp_path: Path) -> None:
    asked = {"max_tokens": 100, "temperature": 1.0, "ignore_eos": True}
    lines = [request(f"r{i}", asked | {"prompt": f"Once {i}", "seed": i}) for i in range(90)]
    given = write(tmp_path / "in", lines)
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert hexad("batch", str(given), str(whole), "demo").returncode == 0
    slowly = ["--max-num-seqs", "1"]  # so that seconds are left when 20 are done
    process = subprocess.Popen([*COMMAND, str(given), str(torn), "demo", *slowly])
    while not torn.exists() or torn.read_bytes().count(b"\n") < 20:
        assert process.poll() is None, "done before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = torn.read_bytes()
    assert 20 <= before.count(b"\n") < 90
    torn.write_bytes(before + before[:100])  # as if the last line had been cut off
    resumed = hexad("batch", str(given), str(torn), "demo")
    assert resumed.returncode == 0 and f"{before.count(bytes([10]))} of them from before" in resumed.stderr
    assert torn.read_bytes().startswith(before), "what was done stays"
    assert answers(torn) == answers(whole) and len(answers(whole)) == 90
    again = hexad("batch", str(given), str(torn), "demo")
    assert again.returncode == 0 and torn.stat().st_size == (tmp_path / "torn").stat().st_size


GOOD = request("a", {"prompt": "x"})
WRONG: list[tuple[Any, str]] = [
    ("{", "line 2: the body is not JSON"),
    ([1], "line 2: a request has custom_id, method, url and body; found list"),
    ({"custom_id": "b"}, "line 2: .* found custom_id"),
    (GOOD, "line 2: custom_id 'a' is that of an earlier line"),
    (GOOD | {"custom_id": "b", "url": "/v1/embeddings"}, "line 2: POST /v1/embeddings"),
    (GOOD | {"custom_id": "b", "method": "GET"}, "line 2: GET"),
    (request("b", {"stream": True}), "line 2: stream"),
    (request("", {}), "line 2: custom_id"),
]


@pytest.mark.parametrize(("line", "says"), WRONG)
def test_a_wrong_line_is_named_before_anything_runs(
    tmp_path: Path, line: Any, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = write(tmp_path / "in", [GOOD])
    given.write_text(given.read_text() + (line if isinstance(line, str) else json.dumps(line)) + "\n")
    assert main(["batch", str(given), str(tmp_path / "out"), "demo"]) == 2
    told = capsys.readouterr().err
    assert re.search(says, told) and (tmp_path / "out").read_text() == "", told


def test_a_file_that_windows_wrote(tmp_path: Path) -> None:
    given = tmp_path / "in"
    lines = [request(name, {"prompt": "Once", "max_tokens": 2}) for name in "ab"]
    given.write_bytes(codecs.BOM_UTF8 + "".join(json.dumps(line) + "\r\n" for line in lines).encode())
    assert hexad("batch", str(given), str(tmp_path / "out"), "demo").returncode == 0
    assert set(answers(tmp_path / "out")) == {"a", "b"}


def test_answers_to_something_else_are_not_added_to(tmp_path: Path) -> None:
    given = write(tmp_path / "in", [GOOD])
    other = write(tmp_path / "other", [{"custom_id": "z", "response": {"status_code": 200}, "error": None}])
    assert "answers 'z'" in hexad("batch", str(given), str(other), "demo").stderr
    assert "line 1 is no answer" in hexad("batch", str(given), str(given), "demo").stderr
    assert given.read_text() == json.dumps(GOOD) + "\n"
