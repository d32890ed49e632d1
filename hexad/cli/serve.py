"""`hexad serve MODEL [NAME=MODEL ...]`: the start-up report, then the server until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable
from functools import partial

from hexad.cli.options import named_models
from hexad.cli.report import loading_bar, startup_lines
from hexad.engine.async_llm import AsyncLLM
from hexad.server.models import Served
from hexad.server.run import serve

log = logging.getLogger("hexad.server")


def run(args: argparse.Namespace) -> int:
    started = time.monotonic()
    served = served_by(args)
    name, config, _ = served[0]
    with loading_bar(f"loading {config.model}") as progress:

        def on_ready(engine: AsyncLLM, address: str) -> None:
            to_stderr = partial(print, file=sys.stderr, flush=True)
            say: Callable[[str], None] = log.info if config.log_format == "json" else to_stderr
            for line in startup_lines(name, engine.frontend.model_config, engine.info):
                say(line)
            if len(served) > 1:
                say(f"also     {', '.join(other.name for other in served[1:])}: loaded on demand")
            say(f"page     {address}")
            say(f"APIs     {address}/v1 (OpenAI); every path and parameter: {address}/docs")
            say(f"ready    in {time.monotonic() - started:.1f} s; Ctrl-C stops")

        return serve(served, progress=progress, on_ready=on_ready)


def served_by(args: argparse.Namespace) -> list[Served]:
    """What a server is to serve. Raises ConfigError."""
    return [Served(each.name, each.config, each.pinned) for each in named_models(args)]
