"""`hexad serve MODEL [NAME=MODEL ...]`: the start-up report, then the server until SIGTERM."""

from __future__ import annotations

import argparse
import sys
import time

from hexad.cli.options import UNSET, file_sources, read_yaml
from hexad.cli.report import loading_bar, startup_lines
from hexad.config import FIELDS, resolve
from hexad.engine.async_llm import AsyncLLM
from hexad.errors import ConfigError
from hexad.server.models import Served
from hexad.server.run import serve


def run(args: argparse.Namespace) -> int:
    started = time.monotonic()
    served = served_by(args)
    name, config, _ = served[0]
    with loading_bar(f"loading {config.model}") as progress:

        def on_ready(engine: AsyncLLM, address: str) -> None:
            for line in startup_lines(name, engine.model_config, engine.info):
                print(line, file=sys.stderr)
            if len(served) > 1:
                print(f"also     {', '.join(other.name for other in served[1:])}: loaded on demand", file=sys.stderr)
            print(f"address  {address}/v1 (OpenAI), {address}/openapi.json, {address}/metrics", file=sys.stderr)
            print(f"ready    in {time.monotonic() - started:.1f} s; Ctrl-C stops", file=sys.stderr, flush=True)

        return serve(served, progress=progress, on_ready=on_ready)


def served_by(args: argparse.Namespace) -> list[Served]:
    """What a server is to serve: the models named on the command line, else the file's.

    In the file `model` may be a list, and `models` a section a model, by the name that clients use: settings of its
    own, which win over those beside it, and `pinned: true`. Raises ConfigError.
    """
    file, places = read_yaml(args.config) if args.config else ({}, {})
    sections = file.pop("models", None) or {}
    if not isinstance(sections, dict) or not all(isinstance(own, dict) for own in sections.values()):
        raise ConfigError(f"models in {args.config} must be `NAME: {{setting: value}}`", param="models")
    named = args.model or list(sections) or file.pop("model", FIELDS["model"].default)
    file.pop("model", None)
    flags = {key: value for key, value in vars(args).items() if key in FIELDS and value is not UNSET}
    sources = file_sources(file, places)
    served = []
    for given in named if isinstance(named, list) else [named]:
        name, model = _name_and_model(str(given))
        own = dict(sections.get(name or model, {}))
        pinned = own.pop("pinned", False)
        if not isinstance(pinned, bool):
            raise ConfigError(f"pinned of {given} is {pinned!r}; it must be true or false", param="pinned")
        about = (f"{places.get('models', args.config)}, models.{given}", {"model": model, **own})
        config, _ = resolve([*sources, about, ("command line", {**flags, "model": own.get("model", model)})])
        served.append(Served(name or (given if given in sections else config.model_name), config, pinned))
    if len(served) > 1 and any("served_model_name" in source for source in (file, flags)):
        raise ConfigError("served_model_name names one model, and several are given; write them as NAME=MODEL")
    return served


def _name_and_model(given: str) -> tuple[str | None, str]:
    """`NAME=MODEL`, or a model alone; a path may hold an equals sign behind its first slash."""
    name, equals, model = given.partition("=")
    return (name, model) if equals and name and model and "/" not in name else (None, given)
