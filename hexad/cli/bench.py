"""`hexad bench KIND`: figures on the terminal, and as JSON or a report if asked."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import platform
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec

import hexad
import hexad.config
from hexad.bench import compare, growth, offline, report
from hexad.bench.compare import DTYPES
from hexad.bench.document import WORKLOADS
from hexad.bench.install import PEERS, cache_dir
from hexad.bench.shapes import SHAPES, random_checkpoint, shape_directory
from hexad.bench.start import measure_start
from hexad.bench.workload import Figures, Workload, parse_span, table
from hexad.checkpoints.hub import resolve
from hexad.checkpoints.read_config import read_model_config
from hexad.cli.options import settings
from hexad.config import Config
from hexad.engine.setup import resolve_precision
from hexad.errors import ConfigError
from hexad.kernels.precision import FLOATS


def run(args: argparse.Namespace) -> int:
    if args.kind == "skills":
        from hexad.bench.run_skills import measure_skills

        print(measure_skills(settings(args)[0], args.examples))
        return 0
    if args.kind == "quality":
        return _quality(args)
    if args.kind == "start":
        print(measure_start())
        return 0
    for name in ("num_prompts", "repeats"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(args, name)}; it must be at least 1", param=name)
    if args.kind == "compare":
        return _compare(args)
    if args.kind == "growth":
        return _growth(args)
    if args.kind == "jump":
        from hexad.bench.jump import measure_jump

        config = settings(args)[0]
        if args.shape:
            config = dataclasses.replace(config, model=str(random_checkpoint(args.shape, cache_dir() / args.shape)))
        print(measure_jump(config, args.num_prompts, args.repeats))
        return 0
    if args.json:
        Path(args.json).touch()  # better to know now than after the runs
    with _given(args) as given:
        config, _ = hexad.config.resolve([("command line", given)])
        workload = Workload(
            input_len=parse_span(args.input_len),
            output_len=parse_span(args.output_len),
            num_prompts=args.num_prompts,
            concurrency=args.concurrency or 0,
            vocab_size=read_model_config(resolve(config.model, config.revision)).vocab_size,
        )
        rows = _offline(args, config, given, workload) if args.kind == "offline" else _serve(args, given, workload)
        print(table(rows))
        if len(rows) > 1:
            print("\n".join(_ratio(rows[0], other) for other in rows[1:]))
        if args.json:
            Path(args.json).write_text(json.dumps(_document(args, given, workload, rows), indent=2))
    return 0


def _quality(args: argparse.Namespace) -> int:
    from hexad.bench.quality import measure_quality

    config, origins = settings(args)
    if given := [name for name in ("dtype", "kernels", "load_format", "without") if origins[name] != "default"]:
        raise ConfigError(
            f"--{given[0]} does not go with `hexad bench quality`, which chooses it itself", param=given[0]
        )
    shape = args.shape or next(iter(SHAPES))
    print(measure_quality(config, shape, args.examples, Path(args.out), lambda line: print(line, flush=True)))
    return 0


def _compare(args: argparse.Namespace) -> int:
    peers = _words(args.peers, PEERS, "peers")
    names = _words(args.workloads, WORKLOADS, "workloads")
    bits = [int(word) for word in _words(args.bits, [str(width) for width in DTYPES], "bits")]
    if not names or not bits:
        raise ConfigError("--workloads and --bits need at least one each", param="workloads")
    config, origins = settings(args)
    if origins["model"] == "default":
        shape = args.shape or next(iter(SHAPES))
        checkpoint = random_checkpoint(shape, cache_dir() / shape)
    else:
        checkpoint = resolve(config.model, config.revision)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)

    def say(line: str) -> None:
        print(line, flush=True)

    document = compare.compare(checkpoint, peers, names, bits, args.repeats, out, say, resume=args.resume)
    print("\n" + report.markdown(document) + f"\nwritten: {out}/results.json, report.md, report.html and plots")
    return 0


def _growth(args: argparse.Namespace) -> int:
    with _given(args) as given:
        directory = resolve(given.get("model", "demo"), given.get("revision"))
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
        model = read_model_config(directory)
        growth.growth({**given, "model": str(directory)}, model, out, lambda line: print(line, flush=True))
    print(f"written: {out}/growth.json and plots")
    return 0


def _words(text: str, known: Collection[str], flag: str) -> list[str]:
    words = [word for word in text.split(",") if word]
    if unknown := [word for word in words if word not in known]:
        raise ConfigError(f"--{flag} has {unknown[0]!r}; known: {', '.join(known)}", param=flag)
    return words


@contextlib.contextmanager
def _given(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The settings that differ from the defaults; a --shape becomes a directory for as long as it is needed."""
    config, origins = settings(args)
    given = {name: getattr(config, name) for name, origin in origins.items() if origin != "default"}
    if not args.shape:
        yield given
        return
    longest = {"max_position_embeddings": 1 << 16} if args.kind == "growth" else {}
    with shape_directory(args.shape, **longest) as directory:
        yield {**given, "model": str(directory), "load_format": "dummy"}


def _offline(args: argparse.Namespace, config: Config, given: dict[str, Any], workload: Workload) -> list[Figures]:
    if args.peer:
        model = read_model_config(resolve(config.model, config.revision))
        dtype = resolve_precision(config, model).linear
        if dtype not in FLOATS:
            raise ConfigError(f"dtype is {config.dtype}; {args.peer} runs {' or '.join(FLOATS)}", param="dtype")
        given = {**given, "dtype": dtype}
    given = {**given, "model": str(resolve(config.model, config.revision))}
    return offline.compare(args.peer, given, workload, args.repeats)


def _serve(args: argparse.Namespace, given: dict[str, Any], workload: Workload) -> list[Figures]:
    if args.peer:
        raise ConfigError("--peer goes with `hexad bench offline`", param="peer")
    return offline.behind_http(given, workload, args.repeats)


def _ratio(ours: Figures, peer: Figures) -> str:
    return (
        f"{ours.name} over {peer.name}: time per token {ours.tpot_ms / peer.tpot_ms:.3f}x, "
        f"decode {ours.decode_tps / peer.decode_tps:.2f}x, "
        f"prefill {ours.prefill_tps / peer.prefill_tps:.2f}x, total {ours.total_tps / peer.total_tps:.2f}x"
    )


def _document(
    args: argparse.Namespace, given: dict[str, Any], workload: Workload, rows: list[Figures]
) -> dict[str, Any]:
    return {
        "hexad": hexad.__version__,
        "kind": args.kind,
        "machine": {"processor": platform.processor() or platform.machine(), "python": platform.python_version()},
        "model": args.shape or given.get("model", "demo"),
        "settings": {name: value for name, value in given.items() if name != "model"},
        "workload": msgspec.to_builtins(workload),
        "results": [msgspec.to_builtins(row) for row in rows],
    }
