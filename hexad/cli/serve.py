"""`hexad serve MODEL [NAME=MODEL ...]`: the start-up report, then the server until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from hexad.cli.options import named_models
from hexad.cli.report import loading_bar, startup_lines
from hexad.engine.async_llm import AsyncLLM
from hexad.server.models import Served
from hexad.server.run import serve


def run(args: argparse.Namespace) -> int:
    started = time.monotonic()
    served = served_by(args)
    name, config, _ = served[0]
    with loading_bar(f"loading {config.model}") as progress:

        def on_ready(engine: AsyncLLM, address: str) -> None:
            others = [f"also     {', '.join(other.name for other in served[1:])}: loaded on demand"] * (len(served) > 1)
            for line in (
                *startup_lines(name, engine.frontend.model_config, engine.info),
                *others,
                f"page     {address}",
                f"APIs     {address}/v1 (OpenAI); every path and parameter: {address}/docs",
                f"ready    in {time.monotonic() - started:.1f} s; Ctrl-C stops",
            ):
                if config.log_format == "json":
                    logging.getLogger("hexad.server").info(line)
                else:
                    print(line, file=sys.stderr, flush=True)

        return serve(served, progress=progress, on_ready=on_ready)


def served_by(args: argparse.Namespace) -> list[Served]:
    """What a server is to serve. Raises ConfigError."""
    return [Served(each.name, each.config, each.pinned) for each in named_models(args)]
