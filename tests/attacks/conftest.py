"""A server as anybody starts it, and what must hold after every attack on it.

It has keys, because the engine's books are shown to an admin only; the attacker holds an ordinary key.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.conftest import MAX_MODEL_LEN, chat_model
from tests.server.running import Server, serving

__all__ = ["MAX_MODEL_LEN", "chat_model"]

USER, OTHER, ADMIN = "attacker-key-12345678", "neighbour-key-1234567", "admin-key-1234567890"
GOLDEN = {
    "prompt": [5, 9, 2, 7] * 9,
    "max_tokens": 24,
    "seed": 4,
    "temperature": 1.0,
    "logprobs": 2,
    "ignore_eos": True,
}


def settled(answer: httpx.Response) -> bool:
    """Answered, or refused for what it is. A machine that is too busy to find that out in time says so."""
    is_busy = "for the machine is busy" in answer.text and os.getloadavg()[0] > (os.cpu_count() or 1)
    return answer.status_code in (200, 400) or (answer.status_code == 429 and is_busy)


class Target(Server):
    """A server under attack."""

    def golden(self) -> Any:
        """What an ordinary request of somebody else is answered."""
        answer = self.http.post(self.url + "/v1/completions", json=GOLDEN, headers={"x-api-key": OTHER})
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"]

    def audit(self) -> Any:
        return self.http.get(self.url + "/debug/invariants", headers={"x-api-key": ADMIN}).json()

    def ask_admin(self, verb: str) -> Any:
        answer = self.http.post(f"{self.url}/admin/{verb}", json={}, headers={"x-api-key": ADMIN})
        assert answer.status_code == 200, answer.text
        return answer.json()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is computed meanwhile, however quick the machine is; who asks waits."""
        self.ask_admin("pause")
        try:
            yield
        finally:
            self.ask_admin("resume")

    def memory_mb(self) -> float:
        """Resident, of the server and its engine."""
        kilobytes = 0
        for pid in [self.process.pid, *self.engine_pids()]:
            kilobytes += int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0])
        return kilobytes / 1024

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@pytest.fixture(scope="session")
def shared_target(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    directory = tmp_path_factory.mktemp("target")
    keys = directory / "keys"
    keys.write_text(f"attacker:{USER}\nneighbour:{OTHER}\nadmin:{ADMIN}:admin\n")
    with serving(chat_model, directory / "log", "--api-keys", str(keys), "--kv-memory", "64MiB", kind=Target) as server:
        server.http.headers["x-api-key"] = USER
        yield server


@pytest.fixture(scope="session")
def answer_before(shared_target: Target) -> Any:
    return shared_target.golden()


@pytest.fixture
def target(shared_target: Target, answer_before: Any) -> Iterator[Target]:
    """After each attack: the same bits for somebody else, no page lost, no connection held, nothing in the books."""
    said = len(shared_target.log.read_text())
    yield shared_target
    assert shared_target.process.poll() is None, shared_target.log.read_text()[-3000:]
    assert shared_target.golden() == answer_before
    shared_target.until_idle(key=ADMIN)
    assert shared_target.audit() == {"ok": True, "broken": {}}
    assert shared_target.metrics(ADMIN)["hexad:engine_restarts_total"] == 0, "an engine process died"
    assert "Traceback" not in (log := shared_target.log.read_text()[said:]), log
