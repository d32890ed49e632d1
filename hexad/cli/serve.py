"""`hexad serve MODEL`: the start-up report, then the server until SIGTERM."""

from __future__ import annotations

import argparse
import sys
import time

from hexad.cli.options import settings
from hexad.cli.report import loading_bar, startup_lines
from hexad.engine.async_llm import AsyncLLM
from hexad.server.run import serve


def run(args: argparse.Namespace) -> int:
    started = time.monotonic()
    config, _ = settings(args)
    with loading_bar(f"loading {config.model}") as progress:

        def on_ready(engine: AsyncLLM, address: str) -> None:
            for line in startup_lines(config.model_name, engine.model_config, engine.info):
                print(line, file=sys.stderr)
            print(f"address  {address}/v1 (OpenAI), {address}/docs, {address}/metrics", file=sys.stderr)
            print(f"ready    in {time.monotonic() - started:.1f} s; Ctrl-C stops", file=sys.stderr, flush=True)

        return serve(config, progress=progress, on_ready=on_ready)
