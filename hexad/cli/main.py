"""`hexad VERB ...`: the parser, and nothing that takes time to import.

A verb's module is imported when it is called; each has `run(args) -> int`.
"""

from __future__ import annotations

import argparse
import difflib
import gc
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from hexad import __version__
from hexad.cli.options import add_settings
from hexad.errors import HexadError

EXAMPLES = """\
examples:
  hexad generate demo "Who is the baker?"                answer one prompt
  hexad chat demo                                        talk, with memory
  hexad serve Qwen/Qwen3-0.6B --port 8000                a page, and APIs for the clients you have
  echo "12 + 30 =" | hexad generate demo                 the prompt from stdin
  hexad generate demo "A place" --json-schema place.json an answer in a given shape
  hexad batch in.jsonl out.jsonl demo                    a file of requests, resumable
  hexad explain demo                                     every setting, and where it came from
  hexad doctor                                           this machine and its kernels
"""

VERBS = {
    "serve": "Serve a model over HTTP.",
    "generate": "Answer one prompt.",
    "chat": "Talk to a model.",
    "batch": "Answer a file of requests, in OpenAI's batch format.",
    "bench": "Measure speed and skills.",
    "explain": "Show the resolved settings and the memory plan.",
    "doctor": "Show the machine, the kernels and the measured bandwidth.",
    "completion": "Print a script that completes commands in your shell.",
}

POSITIONALS = {
    "serve": "[MODEL | NAME=MODEL ...]",
    "generate": "[MODEL] [PROMPT]",
    "chat": "[MODEL]",
    "batch": "IN.jsonl OUT.jsonl [MODEL | NAME=MODEL ...]",
    "bench": "offline|serve|compare|growth|jump|quality|skills|start [MODEL]",
    "explain": "[MODEL | NAME=MODEL ...]",
    "doctor": "",
    "completion": "bash|zsh|fish",
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of(show_all="--help-all" in (sys.argv[1:] if argv is None else argv))
    args, strange = parser.parse_known_args(argv)
    if strange:
        there = f"hexad {args.verb or 'VERB'} --help-all"
        near = difflib.get_close_matches(strange[0], ["--" + name.replace("_", "-") for name in vars(args)], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        parser.error(f"unrecognized arguments: {' '.join(strange)}{hint}; `{there}` shows what there is")
    if args.verb is None:
        parser.print_help()
        return 0
    try:
        gc.disable()  # nothing that is imported is garbage
        verb = importlib.import_module(f"hexad.cli.{args.verb}")
        gc.freeze()
        gc.enable()
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as `start` left it
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return int(verb.run(args))
    except HexadError as error:
        print(f"hexad: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a full disk, a file that cannot be written
        print(f"hexad: {f'{error.filename}: {error.strerror}' if error.filename else error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class _VerbParser(argparse.ArgumentParser):
    """Options may stand between the words, too: `serve a --port 1 b`. Where a `--` is given, they stand before."""

    _is_asked = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:  # type: ignore[override]
        if self._is_asked or "--" in args:
            return super().parse_known_args(args, namespace)
        self._is_asked = True  # argparse comes back twice: for the options, then for the words
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_asked = False


def parser_of(show_all: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hexad",
        usage="hexad VERB [MODEL] [options]",
        description=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="`hexad VERB --help` shows a verb's options, `hexad VERB --help-all` all of them.",
    )
    parser.add_argument("-V", "--version", action="version", version=f"hexad {__version__}")
    verbs = parser.add_subparsers(dest="verb", title="verbs", metavar="VERB", prog="hexad", parser_class=_VerbParser)
    for verb, help in VERBS.items():
        usage = f"hexad {verb} {POSITIONALS[verb]} [options]".replace("  ", " ")
        raw = argparse.RawDescriptionHelpFormatter
        _describe(verb, verbs.add_parser(verb, help=help, usage=usage, formatter_class=raw), show_all)
    return parser


def _describe(verb: str, parser: argparse.ArgumentParser, show_all: bool) -> None:
    parser.add_argument("--help-all", action="help", help="show every option")
    if verb == "serve":
        parser.description = (
            "examples:\n  hexad serve demo\n  hexad serve ./my-model --port 9000 --kv-memory 4GiB\n"
            "  hexad serve fast=./small big=./large --model-memory 24GiB --keep-alive 10m\n"
            "  hexad serve Qwen/Qwen3-0.6B --config hexad.yaml"
        )
        add_settings(parser, ("model", "engine", "server"), show_all)
    elif verb in ("generate", "chat"):
        parser.description = f"examples:\n  hexad {verb} demo" + (
            ' "Say hello."\n  cat notes.txt | hexad generate demo' * (verb == "generate")
        )
        add_settings(parser, ("model", "engine"), show_all)
        _add_sampling(parser)
        if verb == "generate":
            parser.add_argument("prompt", nargs="?", help="the prompt; default: standard input")
            parser.add_argument("--raw", action="store_true", help="do not apply the model's chat template")
        parser.add_argument("--system", metavar="TEXT", help="a system message")
    elif verb == "batch":
        parser.description = (
            "examples:\n  hexad batch in.jsonl out.jsonl demo\n"
            "  hexad batch in.jsonl out.jsonl Qwen/Qwen3-0.6B --kv-memory 4GiB\n\n"
            "Answers are written as they finish, with their custom_id. Run it again after a break: it goes on.\n"
            "The exit status is 1 when a request failed: its status_code and error stand in its line."
        )
        parser.add_argument("input", metavar="IN.jsonl", help="a request a line: custom_id, method, url, body")
        parser.add_argument("output", metavar="OUT.jsonl", help="where the answers go, or have gone")
        add_settings(parser, ("model", "engine"), show_all)
    elif verb == "bench":
        _add_bench(parser, show_all)
    elif verb == "completion":
        parser.description = (
            "examples:\n  source <(hexad completion bash)\n"
            "  hexad completion fish > ~/.config/fish/completions/hexad.fish"
        )
        parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    elif verb == "explain":
        parser.description = "examples:\n  hexad explain demo --dtype int4\n  hexad explain --config hexad.yaml"
        add_settings(parser, ("model", "engine", "server"), show_all)


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sampling", "Unset ones come from the model's generation_config.json.")
    group.add_argument(
        "--max-tokens", type=int, metavar="N", help="most tokens to generate; default: until the model ends"
    )
    group.add_argument("--temperature", type=float, metavar="X", help="0 is greedy")
    group.add_argument("--top-p", type=float, metavar="X")
    group.add_argument("--top-k", type=int, metavar="N")
    group.add_argument(
        "--seed", dest="sampling_seed", type=int, metavar="N", help="the same seed gives the same answer"
    )
    shape = group.add_mutually_exclusive_group()
    shape.add_argument("--json-schema", metavar="FILE", help="the answer is JSON that this schema allows")
    shape.add_argument("--regex", metavar="TEXT", help="the answer matches it, in the syntax of Rust's regex crate")
    group.add_argument("--stats", action="store_true", help="print tokens per second when done")


def _add_bench(parser: argparse.ArgumentParser, show_all: bool) -> None:
    parser.description = (
        "examples:\n"
        "  hexad bench offline demo --input-len 128 --output-len 128 --num-prompts 1 --json out.json\n"
        "  hexad bench serve demo --num-prompts 64 --concurrency 16\n"
        "  hexad bench offline --shape qwen3-0.5b --num-prompts 32 --peer transformers\n"
        "  hexad bench compare --peers openvino,llama.cpp --bits 8,4 --out report --resume\n"
        "  hexad bench growth --shape qwen3-0.5b --dtype bfloat16 --out report\n"
        "  hexad bench quality demo --examples 300 --out report\n"
        "  hexad bench jump demo --num-prompts 8\n"
        "  hexad bench skills demo\n"
        "  hexad bench start"
    )
    parser.add_argument(
        "kind",
        choices=("offline", "serve", "compare", "growth", "jump", "quality", "skills", "start"),
        help="what to measure",
    )
    add_settings(parser, ("model", "engine"), show_all)
    group = parser.add_argument_group("workload")
    group.add_argument("--input-len", default="128", metavar="N", help="prompt tokens, or a range 64:256 (default 128)")
    group.add_argument("--output-len", default="128", metavar="N", help="new tokens, or a range 32:96 (default 128)")
    group.add_argument("--num-prompts", type=int, default=1, metavar="N", help="requests (default %(default)s)")
    group.add_argument("--concurrency", type=int, metavar="N", help="serve: most requests at once; default: all")
    group.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="runs; the median is shown (default %(default)s)"
    )
    group.add_argument(
        "--shape", metavar="NAME", help="random weights of a known shape instead of (quality: beside) MODEL: qwen3-0.5b"
    )
    group.add_argument("--peer", choices=("transformers",), help="offline: run it side by side, in turns")
    group.add_argument(
        "--examples", type=int, default=50, metavar="N", help="skills, quality: questions a skill (default %(default)s)"
    )
    group.add_argument("--json", metavar="FILE", help="also write the figures there")
    group = parser.add_argument_group(
        "compare", "Peers are installed and models converted once, in ~/.cache/hexad/bench."
    )
    peers = "openvino,llama.cpp,vllm,onnxruntime-genai,ctranslate2,transformers"
    group.add_argument("--peers", default=peers, metavar="NAMES", help="(default %(default)s)")
    workloads = "W1,W2,W3,W4,W5,W6,concurrency,load"
    group.add_argument("--workloads", default=workloads, metavar="NAMES", help="(default %(default)s)")
    group.add_argument("--bits", default="16,8,4", metavar="BITS", help="weight bits (default %(default)s)")
    group.add_argument("--resume", action="store_true", help="go on with a run that ended too soon, in the same --out")
    group.add_argument(
        "--out",
        default="bench-report",
        metavar="DIR",
        help="compare, growth, quality: the report goes there (default %(default)s)",
    )


if __name__ == "__main__":
    sys.exit(main())
