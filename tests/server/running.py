"""A real server process, started as a user starts it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import httpx
from openai import AsyncOpenAI, OpenAI

T = TypeVar("T")
START_TIMEOUT_S = 90
AT_LAST_S = 30
"""What has not come by then never will, however busy the machine is."""


class Server:
    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self.url = self._address()
        self.port = 0 if "unix" in self.url else int(self.url.rsplit(":", 1)[1])
        self.http = httpx.Client(timeout=60)

    def _address(self) -> str:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            text = self.log.read_text()
            if "ready" in text and (found := re.search(r"https?://[\d.]+:\d+|http\+unix://\S+?(?=/v1)", text)):
                return found[0]
            time.sleep(0.02)
        raise AssertionError(f"the server did not start:\n{self.log.read_text()}")

    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0, timeout=60)

    def async_client(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0, timeout=60)

    def post(self, path: str, body: object) -> httpx.Response:
        return self.http.post(self.url + path, json=body)

    def metrics(self, key: str = "") -> dict[str, float]:
        """Samples by name, summed over labels."""
        samples: dict[str, float] = {}
        headers = {"x-api-key": key} if key else {}
        for line in self.http.get(self.url + "/metrics", headers=headers).text.splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.partition("{")[0]
                samples[name] = samples.get(name, 0.0) + float(value)
        return samples

    def until(self, holds: Callable[[dict[str, float]], bool], key: str = "", timeout_s: float = AT_LAST_S) -> None:
        """Wait until something holds of the metrics."""
        deadline = time.monotonic() + timeout_s
        while not holds(found := self.metrics(key)):
            assert time.monotonic() < deadline, f"not in {timeout_s} s: {found}"
            time.sleep(0.01)

    def until_idle(self, timeout_s: float = AT_LAST_S, key: str = "") -> None:
        """Wait until nothing runs or waits and every page is free or evictable."""
        gauges = ("hexad:num_requests_running", "hexad:num_requests_waiting", "hexad:kv_cache_usage_perc")
        self.until(lambda found: not any(found[name] for name in gauges), key, timeout_s)

    def says(self, pattern: str) -> str:
        """The line of the log where it is found, once it is there: a thread of the server writes them."""
        deadline = time.monotonic() + AT_LAST_S
        while (found := re.search(f".*(?:{pattern}).*\n", self.log.read_text(), re.MULTILINE)) is None:
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.log.read_text()[-3000:]}"
            time.sleep(0.01)
        return found[0]

    def engine_pid(self) -> int:
        """Of the engine that was started last."""
        return self.engine_pids()[-1]

    def engine_pids(self) -> list[int]:
        """Of its children; another one compiles grammars."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children if b"hexad.engine.worker" in _command(child)]

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Nobody gets a token meanwhile, however quick the machine is: its engines are stopped. After 10 s with
        work they would be taken for dead."""
        stopped = self.engine_pids()
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def caught(self, begin: Callable[[], T]) -> Iterator[T]:
        """What `begin` begins, standing still in its middle. One that was over before, on a busy machine, is begun
        again."""
        for _ in range(20):
            begun = begin()
            with self.standing_still():
                if self.metrics()["hexad:num_requests_running"]:
                    yield begun
                    return
        raise AssertionError("it was always over before")


def _command(pid: str) -> bytes:
    """Empty for a process that has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


S = TypeVar("S", bound=Server)


@contextlib.contextmanager
def serving(
    model: Path | list[str],
    log: Path,
    *options: str,
    kind: type[S] = Server,  # type: ignore[assignment]
) -> Iterator[S]:
    models = [str(model)] if isinstance(model, Path) else model
    command = [sys.executable, "-m", "hexad.cli.main", "serve", *models, "--port", "0", "--threads", "1", *options]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
        try:
            yield kind(process, log)
        finally:
            process.kill()
            process.wait()
