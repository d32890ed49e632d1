"""Faults 24 and 25, and what a default server shows to the world: sockets, code from models, messages."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hexad
from hexad.engine import messages
from tests.attacks.conftest import ADMIN, USER, Target
from tests.server.running import serving

HOUSE = Path(hexad.__file__).parent
FORBIDDEN = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "code", "runpy"}
METHODS = {"recv_pyobj", "send_pyobj", "popen", "load_module", "exec_module"}
CALLS = {"eval", "exec", "os.system", "torch.load", "numpy.load", "np.load"}


def test_nothing_in_the_house_can_unpickle_or_evaluate() -> None:
    """But the compiler of chat templates, whose sandbox has tests of its own, and torch.load, which is not there."""
    found = []
    for path in HOUSE.rglob("*.py"):
        if "peers" in path.parts:  # run by hand, in the environments of other engines
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name.partition(".")[0] for alias in node.names if alias.name in FORBIDDEN]
            elif isinstance(node, ast.ImportFrom) and node.module in FORBIDDEN:
                names = [str(node.module)]
            elif isinstance(node, ast.Call):
                whose = ast.unparse(node.func)
                names = [whose] if whose in CALLS or whose.rpartition(".")[2] in METHODS else []
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                names += [whose] if given.get("shell") == "True" or "trust_remote_code" in given else []
            found += [f"{path.relative_to(HOUSE)}:{getattr(node, 'lineno', 0)} {name}" for name in names]
    assert found == []


DECODERS: dict[str, Callable[[bytes], Any]] = {
    name: getattr(messages, name) for name in dir(messages) if name.startswith("decode")
}


NOISE = st.recursive(st.none() | st.integers(-(2**63), 2**64 - 1) | st.text(), st.lists).map(msgspec.msgpack.encode)


@pytest.mark.parametrize("name", DECODERS)
@given(noise=st.binary(max_size=300) | NOISE)
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_a_message_is_decoded_by_its_schema_or_refused(name: str, noise: bytes) -> None:
    try:
        DECODERS[name](noise)
    except (msgspec.DecodeError, ValueError):  # BadRequest, from the ranges of a parameter, is one of ours
        pass
    except hexad.errors.HexadError:
        pass


def _listening(pids: list[int]) -> set[str]:
    """The addresses that these processes listen on, from /proc."""
    inodes = set()
    for pid in pids:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and fields[3] in ("0A", "07"):
                found.add(fields[1])
    return found


def test_only_the_door_listens_and_only_here(target: Target) -> None:
    address = int.from_bytes(socket.inet_aton("127.0.0.1"), "little")
    assert _listening([target.process.pid, *target.engine_pids()]) == {f"{address:08X}:{target.port:04X}"}


def test_the_socket_between_the_processes_is_nobody_elses(target: Target) -> None:
    bound = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if "engine.sock" in line]
    ours = [Path(path) for path in bound if Path(path).exists()]
    assert ours and all(path.parent.stat().st_mode & 0o077 == 0 for path in ours)


def test_code_that_comes_with_a_model_never_runs(chat_model: Path, tmp_path: Path) -> None:
    model, canary = tmp_path / "poisoned", tmp_path / "canary"
    shutil.copytree(chat_model, model)
    code = f"open({str(canary)!r}, 'w').write('ran')\n"
    for name in ("modeling_llama.py", "configuration_llama.py", "tokenization.py", "setup.py", "__init__.py"):
        (model / name).write_text(code)
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((model / name).read_text())
        content["auto_map"] = {"AutoConfig": "configuration_llama.C", "AutoModelForCausalLM": "modeling_llama.M"}
        content["auto_map"]["AutoTokenizer"] = ["tokenization.T", None]
        content["trust_remote_code"] = True
        (model / name).write_text(json.dumps(content))
    (model / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR.")
    (model / "chat_template.jinja").write_text(
        (model / "chat_template.jinja").read_text() + "{% if false %}{{ ''.__class__.__mro__ }}{% endif %}"
    )
    with serving(model, tmp_path / "log") as server:
        assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 2}).status_code == 200
        chat = server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2})
        assert chat.status_code in (200, 400)
    assert not canary.exists()


def test_admin_and_debug_take_an_admins_key(target: Target) -> None:
    from hexad.server.app import ROUTES

    for route in ROUTES:
        if route.access == "admin":
            path = route.path.replace("{name:path}", "x")
            for key, status in (("", 401), ("x" * 20, 401), (USER, 403)):
                headers = {"x-api-key": key} if key else {"x-api-key": ""}
                answer = target.http.request(route.method, target.url + path, headers=headers)
                assert answer.status_code == status, (route.path, key, answer.text)


def test_the_books_are_looked_through(target: Target) -> None:
    assert target.http.get(target.url + "/debug/invariants", headers={"x-api-key": ADMIN}).json()["ok"] is True
