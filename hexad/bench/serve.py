"""`hexad bench serve`: a server in a process of its own, and a load generator on its socket.

The generator speaks plain HTTP/1.1 over asyncio streams, so that on a small machine it takes as
little as it can from the server it measures.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hexad.bench.workload import Figures, Run, Workload, figures
from hexad.errors import HexadError

START_TIMEOUT_S = 300.0
MODEL_NAME = "bench"


@contextmanager
def server(flags: Sequence[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`hexad serve` with these flags, until the block ends."""
    command = [sys.executable, "-m", "hexad.cli.main", "serve", *flags]
    command += ["--port", str(port), "--served-model-name", MODEL_NAME]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise HexadError(f"the server did not start; try `hexad serve {' '.join(flags)}`")
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def measure(flags: Sequence[str], workload: Workload, concurrency: int, repeats: int) -> Figures:
    """One run that is not counted, then `repeats`; figures as a client sees them."""
    port = free_port()
    started = time.monotonic()
    with server(flags, port) as process:
        small = Workload(input_len=(8, 8), output_len=(1, 1), num_prompts=1, vocab_size=workload.vocab_size)
        asyncio.run(_load(port, small, 1, -1))
        cold_start_s = time.monotonic() - started
        runs = []
        for run in range(repeats + 1):
            seconds, first, last, tokens = asyncio.run(_load(port, workload, concurrency, run))
            runs.append(
                Run(
                    seconds=seconds,
                    first_token_s=first,
                    last_token_s=last,
                    output_tokens=tokens,
                    peak_rss_bytes=tree_rss(process.pid),
                )
            )
    return figures("hexad serve", workload, runs[1:], cold_start_s)


async def _load(
    port: int, workload: Workload, concurrency: int, run: int
) -> tuple[float, list[float], list[float], int]:
    """Send all prompts, at most `concurrency` at once. Times count from each request's own start."""
    seats = asyncio.Semaphore(concurrency)
    started = time.perf_counter()

    async def ask(prompt: list[int], length: int) -> tuple[float, float, int]:
        async with seats:
            return await _stream(port, prompt, length)

    answers = await asyncio.gather(*(ask(prompt, length) for prompt, length in workload.requests(run)))
    seconds = time.perf_counter() - started
    return seconds, [a[0] for a in answers], [a[1] for a in answers], sum(a[2] for a in answers)


async def _stream(port: int, prompt: list[int], output_len: int) -> tuple[float, float, int]:
    """One streamed completion: seconds to its first and last token, and their number."""
    body = json.dumps(
        {
            "model": MODEL_NAME,
            "prompt": prompt,
            "max_tokens": output_len,
            "min_tokens": output_len,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    status = await reader.readline()
    if b" 200 " not in status:
        answer = (await reader.read()).decode(errors="replace")
        raise HexadError(f"the server answered {status.decode().strip()}: {answer.rsplit(chr(10), 1)[-1]}")
    first = last = 0.0
    tokens = 0
    async for line in reader:
        if not line.startswith(b"data: {"):
            continue
        event: dict[str, Any] = json.loads(line[6:])
        if "error" in event:
            raise HexadError(f"the server answered {event['error']}")
        if event.get("usage"):
            tokens = event["usage"]["completion_tokens"]
        elif event["choices"]:
            last = time.perf_counter() - started
            first = first or last
    writer.close()
    if tokens != output_len:
        raise HexadError(f"the server gave {tokens} tokens, not {output_len}")
    return first, last, tokens


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.2):
            return True
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tree_rss(pid: int) -> int:
    """Resident bytes of a process and its children, now; 0 where there is no /proc."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:  # it ended while we looked
            continue
        if str(pid) in (fields["Pid"].strip(), fields["PPid"].strip()) and "VmRSS" in fields:
            total += int(fields["VmRSS"].split()[0]) * 1024
    return total
