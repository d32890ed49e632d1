"""A server process: engine and uvicorn, from start to drained."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import resource
import signal
import socket
import ssl
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import uvicorn
import uvloop
from fastapi import FastAPI

from hexad.config import Config
from hexad.engine.async_llm import AsyncLLM
from hexad.engine.setup import Progress
from hexad.errors import ConfigError
from hexad.server.app import build_app
from hexad.server.auth import Keys
from hexad.server.log import write_logs
from hexad.server.models import Models, Served
from hexad.server.protocol import HEAD_S, KEEP_ALIVE_S, MAX_CONNECTIONS, Protocol, Refused
from hexad.server.tracing import start_tracing
from hexad.server.traffic import Traffic
from hexad.server.wire import unless

FLUSH_S = 5
"""After the drain: how long connections may take to accept their last bytes."""
TRACES_S = 2.0
"""After that: how long the trace collector may take to accept the last spans."""
UNIX = "unix:"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

OnReady = Callable[[AsyncLLM, str], None]


def serve(served: Sequence[Served], *, on_ready: OnReady, progress: Progress) -> NoReturn:
    """Load the first model and serve all until one of STOP_SIGNALS, then drain; a second one ends at once.

    The server's own settings are those of the first. `on_ready` is given its engine and the address once connections
    are accepted. Ends the process, with status 0. Raises ConfigError when the address, the keys or the certificate
    cannot be had or two models have one name, and what `AsyncLLM.start` raises.
    """
    config = served[0].config
    write_logs(config.log_format)
    keys = Keys.load(config.api_keys)
    _check_certificate(config)
    _allow_many_connections()
    uvicorn_log = logging.getLogger("uvicorn.error")
    uvicorn_log.setLevel(logging.ERROR)  # what a client did wrong is told to the client
    # A stream that failed is cut on purpose, so that no reader takes it for complete.
    uvicorn_log.addFilter(lambda record: "without completing response" not in record.msg)
    # Bound before the model is loaded, so that a taken port is known at once.
    with _bind(config.host, config.port) as listener:
        try:
            uvloop.new_event_loop().run_until_complete(_serve(served, keys, listener, on_ready, progress))
        finally:
            if config.host.startswith(UNIX):
                Path(config.host.removeprefix(UNIX)).unlink(missing_ok=True)
    logging.shutdown()
    os._exit(0)  # a download runs in a thread that cannot be cancelled, and would be waited for


def _check_certificate(config: Config) -> None:
    if config.tls_cert is None or config.tls_key is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.tls_cert, config.tls_key, "")
    except (OSError, ValueError) as error:
        pair = f"--tls-cert {config.tls_cert} and --tls-key {config.tls_key}"
        raise ConfigError(
            f"{pair} cannot be used: {error}; give PEM files that belong together", param="tls_cert"
        ) from None


def _allow_many_connections() -> None:
    """A process may open few files by default; each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


def _bind_unix(path: Path) -> socket.socket:
    """A socket that only this user can open. One that a dead server left behind is replaced."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.setblocking(False)
                if probe.connect_ex(str(path)) != errno.ECONNREFUSED:  # it may be too busy to answer
                    raise OSError("another server listens there")
            path.unlink()
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {UNIX}{path}: {error.strerror or error}; give another path", param="host"
        ) from None
    return listener


def _bind(host: str, port: int) -> socket.socket:
    if host.startswith(UNIX):
        return _bind_unix(Path(host.removeprefix(UNIX)))
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


async def _serve(
    served: Sequence[Served], keys: Keys, listener: socket.socket, on_ready: OnReady, progress: Progress
) -> None:
    config = served[0].config
    stop, stop_at_once = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        if (number, signal.getsignal(number)) != (signal.SIGHUP, signal.SIG_IGN):  # as under nohup
            loop.add_signal_handler(number, lambda: (stop_at_once if stop.is_set() else stop).set())
    models = Models(served)
    await unless(stop.wait(), models.load(None, progress))
    if (first := models.find(None).service) is None:
        return await models.close()
    tracing = start_tracing()
    traffic = Traffic(tracing)
    app = build_app(models, config, keys, traffic)
    server = _Server(
        _settings(app, config), traffic.refused, lambda: on_ready(first.engine, _address(config, listener))
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await unless(stop.wait(), asyncio.shield(serving))
        await unless(stop_at_once.wait(), models.shut(config.drain_timeout))
    finally:
        await models.close()
        server.config.timeout_graceful_shutdown = 1 if stop_at_once.is_set() else FLUSH_S
        server.should_exit = True
        await serving
        if tracing is not None:
            closing = asyncio.create_task(asyncio.to_thread(tracing.close))
            if (await asyncio.wait({closing}, timeout=TRACES_S))[1]:
                told = "the trace collector did not take the last spans in %g s: they are lost"
                logging.getLogger("hexad.server").warning(told, TRACES_S)


def _settings(app: FastAPI, config: Config) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        ssl_certfile=config.tls_cert,
        ssl_keyfile=config.tls_key,
        http=Protocol,
        timeout_keep_alive=KEEP_ALIVE_S,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )


def _address(config: Config, listener: socket.socket) -> str:
    scheme = "http" if config.tls_cert is None else "https"
    if config.host.startswith(UNIX):
        return f"{scheme}+unix://{config.host.removeprefix(UNIX)}"
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class _Server(uvicorn.Server):
    """Signals are ours: uvicorn would stop listening at the first one, before the drain."""

    def __init__(self, config: uvicorn.Config, refused: Refused, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._refused = refused
        self._on_started = on_started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's own gives TLS handshakes a minute."""
        config, listen = self.config, asyncio.get_running_loop().create_server

        def protocol() -> Protocol:
            return Protocol(refused=self._refused, config=config, server_state=self.server_state, app_state={})

        tls: dict[str, Any] = {"ssl": config.ssl, "ssl_handshake_timeout": HEAD_S} if config.ssl else {}
        self.servers = [await listen(protocol, sock=each, backlog=config.backlog, **tls) for each in sockets or ()]
        gc.freeze()  # else each full collection looks at all modules again, 70 ms in which nobody is answered
        self.started = True
        self._on_started()
