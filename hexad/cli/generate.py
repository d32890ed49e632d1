"""`hexad generate MODEL "prompt"`: one answer, streamed to standard output."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hexad.cli.options import settings
from hexad.cli.report import loading_bar
from hexad.config import Config
from hexad.engine.llm import LLM
from hexad.errors import BadRequest
from hexad.json_file import read_json_object
from hexad.types import RequestOutput, SamplingParams, StructuredOutputs


def run(args: argparse.Namespace) -> int:
    config, _ = settings(args)
    prompt = args.prompt if args.prompt is not None else _read_prompt()
    if not prompt:
        raise BadRequest("the prompt is empty; give one as an argument or on standard input", param="prompt")
    llm = open_llm(config)
    is_raw = args.raw or llm.frontend.chat_template is None
    if is_raw and args.system:
        raise BadRequest("--system needs a chat template; leave it out", param="system")
    if not is_raw:
        opening = [{"role": "system", "content": args.system}] * bool(args.system)
        prompt = llm.frontend.render([*opening, {"role": "user", "content": prompt}])
    write(llm.stream(prompt, sampling(args, llm), add_special_tokens=is_raw), args.stats)
    return 0


def _read_prompt() -> str:
    if sys.stdin.isatty():
        print("reading the prompt from the terminal; Ctrl-D ends it", file=sys.stderr)
    return sys.stdin.read().rstrip("\n")


def open_llm(config: Config) -> LLM:
    """The engine, after a loading bar; says so when it runs on other kernels than it should."""
    with loading_bar(f"loading {config.model}") as progress:
        llm = LLM(config, progress=progress)
    if llm.info.kernels_note:
        print(f"hexad: {llm.info.kernels_note}", file=sys.stderr)
    return llm


def sampling(args: argparse.Namespace, llm: LLM) -> SamplingParams:
    """The flags over the model's own defaults; without --max-tokens, until the model or the context ends it."""
    given: dict[str, Any] = {
        "temperature": args.temperature,
        "top_p": args.top_p,
        "top_k": args.top_k,
        "seed": args.sampling_seed,
        "structured_outputs": _shape(args),
    }
    named = {name: value for name, value in given.items() if value is not None}
    return llm.frontend.default_params(max_tokens=args.max_tokens, **named)


def _shape(args: argparse.Namespace) -> StructuredOutputs | None:
    if args.json_schema is not None:
        return StructuredOutputs(json=read_json_object(Path(args.json_schema)))
    return None if args.regex is None else StructuredOutputs(regex=args.regex)


def write(outputs: Iterable[RequestOutput], stats: bool) -> str:
    """Print an answer as it grows; returns the whole text."""
    started = time.perf_counter()
    first, shown = 0.0, 0
    last: RequestOutput | None = None
    for last in outputs:
        answer = last.outputs[0]
        if answer.token_ids and not first:
            first = time.perf_counter()
        print(answer.text[shown:], end="", flush=True)
        shown = len(answer.text)
    print()
    assert last is not None  # an engine that neither answers nor fails would be a bug
    if answer.finish_reason == "length":
        print(f"[stopped at {len(answer.token_ids)} tokens; --max-tokens raises the limit]", file=sys.stderr)
    if stats:
        seconds = time.perf_counter() - first
        rate = (len(answer.token_ids) - 1) / seconds if seconds > 0 else 0.0
        print(
            f"[{len(last.prompt_token_ids)} prompt tokens, first token after {1e3 * (first - started):.0f} ms, "
            f"{len(answer.token_ids)} tokens at {rate:.0f} a second]",
            file=sys.stderr,
        )
    return answer.text
