"""`hexad chat MODEL`: a conversation on the terminal. /reset forgets it, /exit or Ctrl-D leaves."""

from __future__ import annotations

import argparse
import contextlib
import sys

from hexad.cli.generate import open_llm, sampling, write
from hexad.cli.options import settings
from hexad.engine.llm import LLM
from hexad.errors import ContextTooLong


def run(args: argparse.Namespace) -> int:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  line editing and history, where there is one
    config, _ = settings(args)
    llm = open_llm(config)
    opening = [{"role": "system", "content": args.system}] * bool(args.system)
    messages = list(opening)
    prompt = "> " if sys.stdin.isatty() else ""
    if prompt:
        print(f"{config.model_name}: /reset forgets, /exit leaves", file=sys.stderr)
    while True:
        try:
            line = input(prompt).strip()
        except EOFError:
            return 0
        if line == "/exit":
            return 0
        if line == "/reset":
            messages = list(opening)
        elif line:
            messages = _turn(llm, args, messages, line)


def _turn(llm: LLM, args: argparse.Namespace, messages: list[dict[str, str]], line: str) -> list[dict[str, str]]:
    """Answer one line; returns the conversation with both, or as it was when the context is full."""
    asked = [*messages, {"role": "user", "content": line}]
    try:
        text = llm.frontend.render(asked)
        answer = write(llm.stream(text, sampling(args, llm), add_special_tokens=False), args.stats)
    except ContextTooLong as error:
        print(f"{error}; /reset starts over", file=sys.stderr)
        return messages
    return [*asked, {"role": "assistant", "content": answer}]
