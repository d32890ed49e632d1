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

from hexad.config import Config
from hexad.engine.messages import REFUSED, Command, Configure, EngineInfo, Loading, Ready, Report, decode_report, encode
from hexad.engine.setup import Progress
from hexad.types import Failure

SOCKET = "engine.sock"
START_HUNG_S = 60.0
"""A process that starts and has neither spoken nor computed for so long is taken for dead: disks and networks stall."""
MAX_BYTES = 64 * 2**10
"""Of reports that are read at once, about 500 tokens: everything else in the supervisor waits for them."""
LAST_WORD_S = 10.0
"""For an engine's reason to arrive, which is on its way."""
BOOTSTRAP = (
    "import runpy, sys; sys.path[:] = sys.argv.pop().split(chr(10)); del sys.argv[0]; "
    "runpy.run_module(sys.argv[0], run_name='__main__')"
)


def own_module(name: str, *words: str) -> tuple[str, ...]:
    """The command of a module of this Hexad. `-m` would look into the working directory first, where another may lie:
    its sources, without the kernels."""
    return sys.executable, "-c", BOOTSTRAP, name, *words, "\n".join(sys.path)


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
            command = own_module("hexad.engine.worker", address, str(os.getpid()))
            # A session of its own: Ctrl-C is for us to handle.
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
        spent = None
        while True:
            receiving = asyncio.ensure_future(self.receive())
            while not (await asyncio.wait({receiving}, timeout=START_HUNG_S))[0]:
                before, spent = spent, self.cpu_time()
                if spent == before:
                    raise EngineDied(f"it has neither spoken nor computed for {START_HUNG_S:g} s")
            for report in receiving.result():
                match report:
                    case Loading(fraction):
                        progress(fraction)
                    case Ready(info):
                        return info
                    case Failure() as refusal:
                        raise refusal.error()
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
        if self._exit.done() and self._exit.result() == REFUSED:  # its end is seen sooner than what it said before
            await asyncio.wait({message}, timeout=LAST_WORD_S)
        if not message.done() and not await self._socket.poll(0):
            message.cancel()
            raise EngineDied(_how_it_ended(self._exit.result()))
        return await message

    async def stop(self) -> None:
        """End the process, at once: it holds nothing that would be lost."""
        self.kill()
        self._socket.close()  # before anything is awaited: whoever awaits this may be cancelled again
        shutil.rmtree(self._directory, ignore_errors=True)
        await asyncio.shield(self._exit)


def _private_directory() -> Path:
    """Mode 0700, so that nobody else can reach the socket; where its path would be too long for one, in /tmp."""
    directory = tempfile.mkdtemp(prefix="hexad-")
    if len(f"{directory}/{SOCKET}") > zmq.IPC_PATH_MAX_LEN:
        os.rmdir(directory)
        directory = tempfile.mkdtemp(prefix="hexad-", dir="/tmp")
    return Path(directory)


def _how_it_ended(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"
