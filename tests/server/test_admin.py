"""The admin's routes on a real server with three models in memory for two of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from hexad.config import resolve
from hexad.engine.setup import resolve_settings
from hexad.testing.zoo import random_weights, write_safetensors
from tests.server.running import AT_LAST_S, Server, serving

ADMIN, USER = "admin-key-0123456789", "user-key-0123456789"
HEADERS = {"Authorization": f"Bearer {ADMIN}"}
NAMES = ("a", "b", "c")
KV = "8MiB"
LONG = {"max_tokens": 1800, "ignore_eos": True, "temperature": 0.0, "return_token_ids": True}
SHORT = {**LONG, "max_tokens": 8}


@pytest.fixture(scope="module")
def directories(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("three")
    return {name: other_weights(chat_model, root / name, seed) for seed, name in enumerate(NAMES, 1)}


def other_weights(model: Path, directory: Path, seed: int) -> Path:
    shutil.copytree(model, directory)
    config = json.loads((directory / "config.json").read_text())
    write_safetensors(directory / "model.safetensors", random_weights(config, seed))
    return directory


@pytest.fixture(scope="module")
def served(directories: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    memory = resolve_settings(resolve([("test", {"model": str(directories["a"]), "kv_memory": KV})])[0]).memory
    budget = int(2.5 * (memory.weights + memory.scratch + memory.kv))
    folder = tmp_path_factory.mktemp("admin")
    keys = folder / "keys"
    keys.write_text(f"boss:{ADMIN}:admin\nana:{USER}\n")
    keys.chmod(0o600)
    models = [f"{name}={directory}" for name, directory in directories.items()]
    options = ("--kv-memory", KV, "--model-memory", str(budget), "--api-keys", str(keys))
    with serving(models, folder / "log", *options) as server:
        server.http.headers.update(HEADERS)
        yield server


@pytest.fixture(autouse=True)
def _as_it_was(served: Server) -> Iterator[None]:
    """After each test the server answers, and nothing is left."""
    yield
    for verb in ("wake", "resume"):
        admin(served, verb)
    ask(served, "a")
    served.until_idle(key=ADMIN)
    assert served.http.get(served.url + "/debug/invariants").json() == {"ok": True, "broken": {}}


def admin(server: Server, verb: str, status: int = 200, **body: object) -> Any:
    answer = server.http.post(f"{server.url}/admin/{verb}", json=body, timeout=60)
    assert answer.status_code == status, answer.text
    return answer.json()


def states(server: Server) -> dict[str, str]:
    shown = server.http.get(server.url + "/admin/models").json()["models"]
    return {model["name"]: model["state"] for model in shown}


def ask(server: Server, name: str, body: dict[str, Any] = SHORT) -> list[int]:
    answer = server.post("/v1/completions", {"model": name, "prompt": "Tell me", **body})
    assert answer.status_code == 200, answer.text
    tokens: list[int] = answer.json()["choices"][0]["token_ids"]
    return tokens


def until(server: Server, **wanted: object) -> None:
    """Wait until `a` is shown like this."""
    deadline = time.monotonic() + AT_LAST_S
    while not wanted.items() <= (found := server.http.get(server.url + "/admin/models").json()["models"][0]).items():
        assert time.monotonic() < deadline, (wanted, found)
        time.sleep(0.01)


class Stream:
    """A streamed completion, read in a thread of its own."""

    def __init__(self, server: Server, name: str) -> None:
        self.tokens: list[int] = []
        self.has_begun = threading.Event()
        self._server, self._name = server, name
        self._before = server.metrics()["hexad:generation_tokens_total"]
        self.ended: Future[list[int]] = ThreadPoolExecutor(1).submit(self._read)
        assert self.has_begun.wait(AT_LAST_S)

    def arrived(self) -> list[int]:
        """Its tokens, where nobody else is given any: all that the server has."""
        self._server.until(lambda found: found["hexad:generation_tokens_total"] == self._before + len(self.tokens))
        return list(self.tokens)

    def _read(self) -> list[int]:
        body = {"model": self._name, "prompt": "Tell me", "stream": True, **LONG}
        url = self._server.url + "/v1/completions"
        with httpx.stream("POST", url, json=body, headers=HEADERS, timeout=60) as answer:
            assert answer.status_code == 200
            lines = [line for line in self._counted(answer) if line]
        assert lines[-1] == "data: [DONE]", lines[-1]
        return self.tokens

    def _counted(self, answer: httpx.Response) -> Iterator[str]:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                self.tokens += json.loads(line[6:])["choices"][0]["token_ids"]
                self.has_begun.set()
            yield line


def kill_engines(server: Server) -> None:
    for pid in server.engine_pids():
        os.kill(pid, signal.SIGKILL)


def caught(server: Server, stop: str, kill: bool = False) -> Stream:
    """A stream of `a` that `stop` has reached in its middle. When one was over before, another is begun."""
    for _ in range(20):
        stream = Stream(server, "a")
        if kill:
            kill_engines(server)
        assert admin(server, stop, model="a")["models"][0]["state"] == {"pause": "paused", "sleep": "asleep"}[stop]
        while not stream.ended.done():
            found = server.metrics()
            if found["hexad:num_requests_running"] + found["hexad:num_requests_waiting"]:
                return stream
        admin(server, {"pause": "resume", "sleep": "wake"}[stop], model="a")
    raise AssertionError("it was always over before")


def tree_memory(server: Server) -> int:
    """Bytes that the server and its engines hold alone or share (proportional set size)."""
    total = 0
    for pid in (server.process.pid, *server.engine_pids()):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def test_only_an_admins_key_opens_them(served: Server) -> None:
    for headers, status in (({"authorization": ""}, 401), ({"authorization": f"Bearer {USER}"}, 403)):
        for method, path in (("GET", "/admin/models"), ("POST", "/admin/unload")):
            answer = served.http.request(method, served.url + path, json={"model": "a"}, headers=headers)
            assert answer.status_code == status, (path, answer.text)
    assert states(served)["a"] == "loaded"


def test_all_are_listed_and_load_when_they_are_asked(served: Server) -> None:
    listed = served.http.get(served.url + "/v1/models").json()["data"]
    assert [model["id"] for model in listed] == list(NAMES) and {model["max_model_len"] for model in listed} == {2048}
    said = {name: ask(served, name) for name in NAMES}
    assert len({tuple(tokens) for tokens in said.values()}) == 3
    with ThreadPoolExecutor(12) as pool:
        many = [name for name in NAMES for _ in range(4)]
        assert list(pool.map(lambda name: ask(served, name), many)) == [said[name] for name in many]
    answer = served.post("/v1/completions", {"model": "d", "prompt": "x"})
    assert answer.status_code == 404 and "'a', 'b', 'c'" in answer.json()["error"]["message"]


def test_unload_waits_for_what_runs_and_the_next_request_loads_again(served: Server) -> None:
    alone = ask(served, "a", LONG)
    stream = Stream(served, "a")
    with ThreadPoolExecutor(2) as pool:
        unloaded = pool.submit(admin, served, "unload", model="a")
        again = pool.submit(ask, served, "a", LONG)
        assert stream.ended.result() == alone
        unloaded.result()
        assert again.result() == alone
    assert admin(served, "unload", model="a")["models"][0]["memory"] == 0
    assert states(served)["a"] == "unloaded"
    loaded = admin(served, "load", model="a", pinned=True)["models"][0]
    assert (loaded["state"], loaded["pinned"], loaded["dtype"]) == ("loaded", True, "float32")
    config = json.loads((Path(loaded["model"]) / "config.json").read_text())
    parameters = sum(tensor.size for tensor in random_weights(config, 0).values())
    assert loaded["parameters"] == pytest.approx(parameters, rel=1e-3)
    for name in ("b", "c"):
        ask(served, name)
    assert states(served) == {"a": "loaded", "b": "unloaded", "c": "loaded"}
    admin(served, "load", model="a", pinned=False)
    for line in (r"info +b was loaded in \d+\.\d s$", "info +b was unloaded$"):
        served.says(line)


@pytest.mark.parametrize("kill", [False, True], ids=["", "killed"])
@pytest.mark.parametrize(("stop", "go"), [("pause", "resume"), ("sleep", "wake")])
def test_a_stream_stands_still_and_goes_on(served: Server, stop: str, go: str, kill: bool) -> None:
    alone = ask(served, "a", LONG)
    stream = caught(served, stop, kill)
    before = stream.arrived()
    if kill and stop == "pause":
        kill_engines(served)
    time.sleep(0.2)
    assert stream.arrived() == before and len(before) < len(alone)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, served, "a")
        until(served, users=2)
        assert not waiting.done()
        admin(served, go, model="a")
        assert waiting.result() == alone[:8]
    assert stream.ended.result() == alone


def test_what_is_paused_and_then_unloaded_can_be_resumed(served: Server) -> None:
    alone = ask(served, "a", LONG)
    stream = caught(served, "pause")
    with ThreadPoolExecutor(1) as pool:
        unloaded = pool.submit(admin, served, "unload", model="a")
        until(served, state="leaving")
        assert not unloaded.done()
        admin(served, "resume", model="a")
        unloaded.result()
    assert stream.ended.result() == alone


@pytest.mark.parametrize("level", [1, 2])
def test_sleep_gives_the_memory_back(served: Server, level: int) -> None:
    ask(served, "b")
    admin(served, "load", model="a")
    before, pids = tree_memory(served), served.engine_pids()
    held = admin(served, "sleep", level=level)
    assert [model["memory"] for model in held["models"]] == [0, 0, 0]
    assert served.engine_pids() == [] and len(pids) == 2
    assert before - tree_memory(served) > 2 * 8 * 2**20, "less than the KV caches"
    assert served.http.get(served.url + "/health").status_code == 200
    assert admin(served, "sleep", 400, level=3)["error"]["param"] == "level"
    admin(served, "wake")
    assert len(served.engine_pids()) == 2


def test_a_drained_model_refuses_until_it_is_resumed(served: Server) -> None:
    admin(served, "load", model="a")
    with ThreadPoolExecutor(1) as pool:
        with served.standing_still():
            running = pool.submit(ask, served, "a", LONG)
            until(served, users=1)
            assert admin(served, "drain", model="a", timeout=0)["drained"] is False
            refused = served.post("/v1/completions", {"model": "a", "prompt": "x"})
            assert refused.status_code == 503 and "drained" in refused.json()["error"]["message"]
        assert admin(served, "drain", timeout=30)["drained"] is True and len(running.result()) == LONG["max_tokens"]
    assert served.http.get(served.url + "/health").status_code == 503
    admin(served, "resume")
    assert served.http.get(served.url + "/health").status_code == 200


def test_flushing_forgets_prefixes(served: Server) -> None:
    prompt = {"model": "a", "prompt": "once upon a time " * 40, **SHORT}

    def cached() -> int:
        details = served.post("/v1/completions", prompt).json()["usage"]["prompt_tokens_details"]
        return int(details["cached_tokens"])

    cached()
    assert cached() > 0
    admin(served, "flush_cache", model="a")
    assert cached() == 0


def test_weights_are_updated_under_load(served: Server, directories: dict[str, Path], tmp_path: Path) -> None:
    new = other_weights(directories["a"], tmp_path / "new", 9)
    back = shutil.copytree(directories["a"], tmp_path / "back")
    old_answer = ask(served, "a", LONG)
    admin(served, "unload", model="b")
    admin(served, "unload", model="c")
    streams = [Stream(served, "a") for _ in range(3)]
    with ThreadPoolExecutor(1) as pool:
        updated = pool.submit(admin, served, "update_weights", model="a", directory=str(new))
        while not updated.done():
            streams.append(Stream(served, "a"))
        assert updated.result()["beside"] is True
    new_answer = ask(served, "a", LONG)
    assert new_answer != old_answer
    said = [stream.ended.result() for stream in streams]
    assert said[:3] == [old_answer] * 3
    assert all(each in (old_answer, new_answer) for each in said)
    admin(served, "update_weights", model="a", directory=str(back))
    assert ask(served, "a", LONG) == old_answer


def test_weights_of_another_model_are_refused(served: Server, directories: dict[str, Path], tmp_path: Path) -> None:
    wider, other_words, broken = (shutil.copytree(directories["a"], tmp_path / name) for name in ("w", "t", "b"))
    config = json.loads((wider / "config.json").read_text())
    (wider / "config.json").write_text(json.dumps({**config, "rope_theta": 5.0}))
    (other_words / "tokenizer.json").write_bytes((directories["a"] / "tokenizer.json").read_bytes() + b" ")
    (broken / "model.safetensors").write_bytes(b"nothing")
    served_now = next(m["model"] for m in served.http.get(served.url + "/admin/models").json()["models"])
    for directory, why in (
        (wider, "rope is Rope(theta=5.0"),
        (other_words, "has another tokenizer.json"),
        (broken, "model.safetensors"),
        (tmp_path / "none", "is no directory"),
        (Path(served_now), "is being served"),
    ):
        refused = admin(served, "update_weights", 400, model="a", directory=str(directory))["error"]
        assert why in refused["message"] and refused["param"] == "directory"
    assert states(served)["a"] == "loaded"


def test_a_body_is_checked(served: Server) -> None:
    assert admin(served, "unload", 400)["error"]["param"] == "model"
    assert admin(served, "pause", 400, model="a", levle=1)["error"]["param"] == "levle"
    assert admin(served, "load", 404, model="d")["error"]["code"] == "model_not_found"
    admin(served, "unload", model="c")
    assert "load it first" in admin(served, "pause", 400, model="c")["error"]["message"]


def test_no_body_asks_for_what_an_empty_object_asks(served: Server) -> None:
    def post(path: str) -> httpx.Response:
        return served.http.post(f"{served.url}/admin/{path}")

    for verb, state in (("pause", "paused"), ("resume", "loaded"), ("sleep", "asleep"), ("wake", "loaded")):
        answer = post(verb)
        assert answer.status_code == 200 and states(served)["a"] == state, answer.text
    assert post("flush_cache").status_code == 200 and post("drain").json()["drained"] is True
    assert post("load").json()["error"]["param"] == "model"
    refused = post("sleep?model=b&level=1")
    assert refused.status_code == 400 and "?model=b" in refused.json()["error"]["message"]
    assert "asleep" not in states(served).values(), "not the others"
