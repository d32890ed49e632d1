"""The engine process: the loop between two ends of one unix socket.

`python -m hexad.engine.worker ADDRESS SUPERVISOR_PID`, started by the supervisor. It keeps nothing that the
supervisor could not hand to its successor, so it may be killed at any moment.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path

import zmq

from hexad.config import Config
from hexad.engine.loop import Loop
from hexad.engine.messages import REFUSED, Audited, Command, Configure, Loading, Outputs, Ready, decode_command, encode
from hexad.engine.setup import build_engine, open_weights, resolve_settings
from hexad.errors import HexadError
from hexad.types import Failure

PARENT_CHECK_MS = 1000
"""How often an idle engine looks whether its supervisor is still there."""


class _Socket:
    """The loop's inbox and outbox. Exits the process when the supervisor is gone."""

    def __init__(self, address: str, supervisor_pid: int) -> None:
        self._socket = zmq.Context().socket(zmq.PAIR)
        self._socket.set_hwm(0)
        self._socket.setsockopt(zmq.LINGER, 1000)  # a last word to a supervisor that is gone must not hold us
        self._socket.connect(address)
        self._address = address
        self._supervisor_pid = supervisor_pid

    def first(self) -> Configure:
        while not self._socket.poll(PARENT_CHECK_MS):
            self._check_supervisor()
        message = decode_command(self._socket.recv())
        if not isinstance(message, Configure):
            raise TypeError(f"the first message is {type(message).__name__}, not Configure")
        return message

    def _check_supervisor(self) -> None:
        if os.getppid() == self._supervisor_pid:
            return
        directory = Path(self._address.removeprefix("ipc://")).parent
        if directory.name.startswith("hexad-"):  # nobody else is left to remove it
            shutil.rmtree(directory, ignore_errors=True)
        sys.exit(0)

    def drain(self) -> list[Command]:
        self._check_supervisor()
        commands: list[Command] = []
        while self._socket.poll(0):
            message = decode_command(self._socket.recv())
            assert not isinstance(message, Configure)
            commands.append(message)
        return commands

    def wait(self) -> None:
        self._socket.poll(PARENT_CHECK_MS)

    def send(self, report: Outputs | Audited | Loading | Ready | Failure) -> None:
        self._socket.send(encode(report))


def main(address: str, supervisor_pid: int) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole terminal; the supervisor decides
    socket = _Socket(address, supervisor_pid)
    config = Config(**socket.first().settings)
    try:
        resolved = resolve_settings(config)
        opened = open_weights(config, resolved)
        scheduler, runner, info = build_engine(
            config, resolved, opened, lambda fraction: socket.send(Loading(fraction))
        )
    except Exception as error:
        if not isinstance(error, HexadError):
            traceback.print_exc()
            error = HexadError(f"the engine could not start: {type(error).__name__}: {error}")
        socket.send(Failure.of(error))
        return REFUSED
    loop = Loop(scheduler, runner, socket, socket)
    gc.collect()
    gc.freeze()
    socket.send(Ready(info))
    while True:
        loop.step()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
