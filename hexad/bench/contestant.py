"""One engine in a process of its own, as `hexad bench` measures it (protocol: `peers/protocol.py`).

All contestants are measured alike and none sees another's memory. One that is not measured is
stopped (SIGSTOP to its process group), so that no thread of it spins on the cores of another.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from hexad.bench.workload import Run, Workload
from hexad.engine.process import own_module
from hexad.errors import HexadError

PEERS = Path(__file__).parent / "peers"
UNKNOWN_BYTES = 8 << 30
"""What a contestant is given room for before it has run: the hungriest takes 6.4 GiB."""
SPARE_BYTES = 1 << 30
PR_SET_PDEATHSIG = 1
CLOSE_S = 10.0
TIMEOUT_S = 600.0
"""For one answer: four times the slowest run seen on a quiet machine."""


class OutOfMemory(HexadError):
    """The system killed a contestant, as it does when memory is gone."""


class Contestant:
    """`command` speaks the protocol and loads `settings`; `what` says in words what it runs."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        settings: dict[str, Any],
        *,
        what: str = "",
        continuous: bool = True,
        log: Path = Path(os.devnull),
    ) -> None:
        self.name, self.what, self.continuous = name, what, continuous
        self._command, self._settings, self._log = command, settings, log
        self._process: subprocess.Popen[str] | None = None
        self.needed_bytes = UNKNOWN_BYTES

    @property
    def loaded(self) -> bool:
        return self._process is not None

    def start(self) -> float:
        """Load, and stop again; returns the seconds from process start to first token."""
        started = time.time()
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                preexec_fn=_prepare,
                env=with_bytecode(),
            )
        answer = self._ask(self._settings)
        return float(answer["first_token_at"]) - started

    def run(self, workload: Workload, run: int, *, ahead: bool = False) -> Run:
        """Raises HexadError when the contestant fails, or gives another number of tokens than each request asks."""
        arrivals = workload.arrivals(run)
        requests = workload.requests(run)
        answer = self._ask(
            {
                "requests": [[*request, moment] for request, moment in zip(requests, arrivals, strict=True)],
                "shared": workload.shared,
                "ahead": ahead,
                "concurrency": workload.concurrency,
            }
        )
        self.needed_bytes = answer["peak_rss_bytes"] + SPARE_BYTES
        counts = [len(moments) for moments in answer["token_s"]]
        asked = [length for _, length in requests]
        if counts != asked:
            wrong = next(i for i, count in enumerate(counts) if count != asked[i])
            self.close()
            raise HexadError(f"{self.name} gave {counts[wrong]} tokens for request {wrong}, not {asked[wrong]}")
        return Run(
            seconds=answer["seconds"],
            first_token_s=[moments[0] - at for moments, at in zip(answer["token_s"], arrivals, strict=True)],
            last_token_s=[moments[-1] - at for moments, at in zip(answer["token_s"], arrivals, strict=True)],
            output_tokens=sum(counts),
            peak_rss_bytes=answer["peak_rss_bytes"],
            gaps_s=[b - a for moments in answer["token_s"] for a, b in zip(moments, moments[1:], strict=False)],
            other_cpus=answer["other_cpus"],
        )

    def close(self) -> int:
        """Returns the exit status, of a process that a signal ended the negative signal; 0 where none ran."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
        try:  # its input ends, and so may what it still keeps for the next start
            process.communicate(timeout=CLOSE_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        return process.returncode

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        watch = threading.Timer(TIMEOUT_S, give_up)
        answer: dict[str, Any] = {}
        try:
            os.killpg(process.pid, signal.SIGCONT)
            watch.start()
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
            if line := process.stdout.readline():
                answer = msgspec.json.decode(line, type=dict)
        except (BrokenPipeError, ProcessLookupError, msgspec.DecodeError):  # it ended
            pass
        finally:
            watch.cancel()
        if not answer or "error" in answer:
            status = self.close()
            if late.is_set():
                raise HexadError(f"{self.name}: no answer in {TIMEOUT_S:g} s")
            if status == -signal.SIGKILL:
                raise OutOfMemory(f"{self.name}: out of memory: the system killed it")
            raise HexadError(f"{self.name}: {answer.get('error') or self._last_words(status)}")
        os.killpg(process.pid, signal.SIGSTOP)
        return answer

    def _last_words(self, status: int) -> str:
        lines = self._log.read_text(errors="replace").split("\n") if self._log.is_file() else []
        return f"ended with status {status}. " + next((line for line in reversed(lines) if line.strip()), "")


def die_with_parent() -> None:
    """A stopped process whose parent was killed would stay for ever."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def with_bytecode() -> dict[str, str]:
    """The environment, where a start leaves compiled modules for the next one, as an installation does."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _prepare() -> None:
    """Where memory ends, a contestant is what the system kills, and nothing else of the user's."""
    die_with_parent()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def hexad(settings: dict[str, Any], name: str = "hexad", **options: Any) -> Contestant:
    return Contestant(name, own_module("hexad.bench.run_hexad"), settings, **options)


def peer_script(name: str) -> str:
    return str(PEERS / f"run_{name.replace('.', '_').replace('-', '_')}.py")
