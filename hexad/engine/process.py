"""One engine process, seen from its supervisor: start it, talk to it, notice its death."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio

from hexad import errors
from hexad.config import Config
from hexad.engine.messages import Command, Configure, EngineInfo, Loading, Ready, Refused, Report, decode_report, encode
from hexad.engine.setup import Progress
from hexad.errors import HexadError

SOCKET = "engine.sock"
MAX_BYTES = 64 * 2**10
"""Of reports that are read at once, about 500 tokens: everything else in the supervisor waits for them."""
BOOTSTRAP = (
    "import sys; sys.path[:] = sys.argv.pop().split(chr(10)); "
    "from hexad.engine.worker import main; sys.exit(main(sys.argv[1], int(sys.argv[2])))"
)


class EngineDied(Exception):
    """The process is gone; the text says how."""


class EngineProcess:
    def __init__(self, process: asyncio.subprocess.Process, socket: zmq.asyncio.Socket, directory: Path) -> None:
        self._process = process
        self._socket = socket
        self._directory = directory
        self._exit = asyncio.ensure_future(process.wait())

    @classmethod
    async def spawn(cls, config: Config, progress: Progress) -> tuple[EngineProcess, EngineInfo]:
        """Start a process and wait until it is ready.

        Raises the HexadError that the engine refused its configuration with, or EngineDied.
        """
        directory = _private_directory()
        socket = zmq.asyncio.Context.instance().socket(zmq.PAIR)
        engine = None
        try:
            socket.set_hwm(0)
            socket.setsockopt(zmq.LINGER, 0)
            address = f"ipc://{directory}/{SOCKET}"
            socket.bind(address)
            # Our own import path, and a session of its own: Ctrl-C is for us to handle.
            command = (sys.executable, "-c", BOOTSTRAP, address, str(os.getpid()), "\n".join(sys.path))
            process = await asyncio.create_subprocess_exec(*command, start_new_session=True)
            engine = cls(process, socket, directory)
            # Sent once the other end is there; a process that dies before is noticed beside.
            asyncio.ensure_future(socket.send(encode(Configure(dataclasses.asdict(config)))))
            return engine, await engine._ready(progress)
        except BaseException:
            if engine is not None:
                await engine.stop()
            else:
                socket.close()
                shutil.rmtree(directory, ignore_errors=True)
            raise

    async def _ready(self, progress: Progress) -> EngineInfo:
        while True:
            for report in await self.receive():
                match report:
                    case Loading(fraction):
                        progress(fraction)
                    case Ready(info):
                        return info
                    case Refused(kind, message):
                        raise _as_error(kind, message)
                    case other:
                        raise EngineDied(f"it sent {type(other).__name__} before it was ready")

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    def cpu_time(self) -> object:
        """Grows while the process computes (proc(5): utime and stime of all threads). Elsewhere it always differs."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        except OSError:
            return object()

    async def send(self, command: Command) -> None:
        """Never waits: to a process that is gone nothing is sent, for its successor is given all that is live."""
        with contextlib.suppress(zmq.Again):
            await self._socket.send(encode(command), zmq.NOBLOCK)

    async def receive(self) -> list[Report]:
        """What it has said meanwhile, one report at least. Raises EngineDied when it has ended and all was read.

        Whoever is behind reads at once all there is, takes several steps as one, and catches up; others have their
        turn between two reads.
        """
        said, size = list[bytes](), 0
        with contextlib.suppress(zmq.Again):
            while size < MAX_BYTES:
                said.append(await self._socket.recv(zmq.NOBLOCK))
                size += len(said[-1])
        if said:
            await asyncio.sleep(0)
        else:
            said.append(await self._next())
        return [decode_report(each) for each in said]

    async def _next(self) -> bytes:
        message: asyncio.Future[bytes] = asyncio.ensure_future(self._socket.recv())
        either: set[asyncio.Future[Any]] = {message, self._exit}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not message.done() and not await self._socket.poll(0):
            message.cancel()
            raise EngineDied(_how_it_ended(self._exit.result()))
        return await message

    async def stop(self) -> None:
        """End the process, at once: it holds nothing that would be lost."""
        self.kill()
        await asyncio.shield(self._exit)
        self._socket.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def _private_directory() -> Path:
    """Mode 0700, so that nobody else can reach the socket; where its path would be too long for one, in /tmp."""
    directory = tempfile.mkdtemp(prefix="hexad-")
    if len(f"{directory}/{SOCKET}") > zmq.IPC_PATH_MAX_LEN:
        os.rmdir(directory)
        directory = tempfile.mkdtemp(prefix="hexad-", dir="/tmp")
    return Path(directory)


def _how_it_ended(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"


def _as_error(kind: str, message: str) -> HexadError:
    """The error by its name in `hexad.errors`, so that a refusal crosses the process border as it was."""
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, HexadError):
        return found(message)
    return HexadError(f"the engine could not start: {kind}: {message}")
