"""The contestant `hexad serve`: a server in a process of its own, and a load generator on its socket.

The generator speaks plain HTTP/1.1 over asyncio streams, so that on a small machine it takes as
little as it can from the server it measures.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from hexad.bench.contestant import die_with_parent
from hexad.bench.peers import protocol
from hexad.engine.process import own_module
from hexad.errors import HexadError

START_TIMEOUT_S = 300.0
MODEL_NAME = "bench"


def load(settings: dict[str, Any]) -> protocol.Run:
    _, port = start(settings)
    return lambda message: asyncio.run(_load(port, message))


def start(settings: dict[str, Any]) -> tuple[subprocess.Popen[bytes], int]:
    """A server with these settings, and its port. It answers when this returns."""
    flags = [*_flags(settings), "--port", "0", "--served-model-name", MODEL_NAME]
    command = own_module("hexad.cli.main", "serve", *flags)
    deadline = time.monotonic() + START_TIMEOUT_S
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stderr=said, preexec_fn=die_with_parent)
        while not (page := re.search(rb"^page .*:(\d+)$", os.pread(said.fileno(), 1 << 16, 0), re.MULTILINE)):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise HexadError(f"the server did not start; try `hexad serve {' '.join(flags)}`")
            time.sleep(0.02)
    return process, int(page[1])


def _flags(settings: dict[str, Any]) -> list[str]:
    flags = [settings.get("model", "demo")]
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif name != "model" and value != "":
            flags += [f"--{flag}", str(value)]
    return flags


async def _load(port: int, message: dict[str, Any]) -> list[list[float]]:
    """Send each request when it arrives; returns when each token came."""
    requests = message["requests"]
    seats = asyncio.Semaphore(message.get("concurrency") or len(requests))

    async def ask(prompt: list[int], length: int, arrival: float) -> list[float]:
        await asyncio.sleep(arrival)
        async with seats:
            return await _stream(port, prompt, length)

    return await asyncio.gather(*(ask(*request) for request in requests))


async def _stream(port: int, prompt: list[int], length: int) -> list[float]:
    """One streamed completion."""
    body = json.dumps(
        {
            "model": MODEL_NAME,
            "prompt": prompt,
            "max_tokens": length,
            "min_tokens": length,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "return_token_ids": True,
        }
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    status = await reader.readline()
    if b" 200 " not in status:
        answer = (await reader.read()).decode(errors="replace")
        raise HexadError(f"the server answered {status.decode().strip()}: {answer.rsplit(chr(10), 1)[-1]}")
    moments: list[float] = []
    async for line in reader:
        if line.startswith(b"data: {"):
            event: dict[str, Any] = json.loads(line[6:])
            if "error" in event:
                raise HexadError(f"the server answered {event['error']}")
            moments += [time.perf_counter()] * sum(len(choice["token_ids"]) for choice in event["choices"])
    writer.close()
    return moments


def resident_bytes(field: str, parent: int) -> int:
    """`VmRSS` (now) or `VmHWM` (at most) of the children of a process and theirs, together."""
    total, family = 0, {parent}
    for path in sorted(Path("/proc").glob("[0-9]*/status"), key=lambda path: int(path.parent.name)):
        try:
            status = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        except OSError:  # it ended while we looked
            continue
        if int(status["PPid"]) in family:
            family.add(int(status["Pid"]))
            total += int(status.get(field, "0").split()[0]) * 1024
    return total


if __name__ == "__main__":
    protocol.main(load, peak=lambda: resident_bytes("VmHWM", os.getpid()))
