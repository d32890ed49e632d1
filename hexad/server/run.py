"""A server process: engine and uvicorn, from start to drained."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import uvicorn
import uvloop

from hexad.config import Config
from hexad.engine.async_llm import AsyncLLM
from hexad.engine.setup import Progress
from hexad.errors import ConfigError
from hexad.server.app import build_app
from hexad.server.generation import Service
from hexad.server.metrics import Metrics
from hexad.server.models import Models
from hexad.server.protocol import Protocol

FLUSH_S = 5
"""After the drain: how long connections may take to accept their last bytes."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

OnReady = Callable[[AsyncLLM, str], None]
T = TypeVar("T")


def serve(config: Config, *, on_ready: OnReady, progress: Progress) -> int:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends at once. Returns the exit status.

    `on_ready` is given the engine and the address once connections are accepted. Raises
    ConfigError when the address cannot be had, and what `AsyncLLM.start` raises.
    """
    uvicorn_log = logging.getLogger("uvicorn.error")
    uvicorn_log.setLevel(logging.ERROR)  # what a client did wrong is told to the client
    # A stream that failed is cut on purpose, so that no reader takes it for complete.
    uvicorn_log.addFilter(lambda record: "without completing response" not in record.msg)
    # Bound before the model is loaded, so that a taken port is known at once.
    with _bind(config.host, config.port) as listener:
        uvloop.run(_serve(config, listener, on_ready, progress))
    return 0


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; give another --host or --port",
            param="port",
        ) from None
    return listener


async def _serve(config: Config, listener: socket.socket, on_ready: OnReady, progress: Progress) -> None:
    stop, stop_at_once = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, lambda: (stop_at_once if stop.is_set() else stop).set())
    engine = await _unless(stop, AsyncLLM.start(config, progress))
    if engine is None:
        # A download runs in a thread that cannot be cancelled; there is nothing else to end.
        os._exit(0)
    service = Service(engine, config.model_name, Metrics(engine.stats, config.model_name))
    server = _Server(_settings(Models([service])), lambda: on_ready(engine, _address(listener)))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await _unless(stop, asyncio.shield(serving))
        await _unless(stop_at_once, engine.drain(config.drain_timeout))
    finally:
        await engine.close()
        server.config.timeout_graceful_shutdown = 1 if stop_at_once.is_set() else FLUSH_S
        server.should_exit = True
        await serving


async def _unless(event: asyncio.Event, work: Awaitable[T]) -> T | None:
    """What `work` gives, or None when `event` comes first; it is cancelled then."""
    working = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(event.wait())
    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if working.done():
        return working.result()
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working
    return None


def _settings(models: Models) -> uvicorn.Config:
    return uvicorn.Config(
        build_app(models),
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """Signals are ours: uvicorn would stop listening at the first one, before the drain."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()
