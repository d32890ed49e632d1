"""`hexad bench compare`: Hexad and its peers on the same cores, in turns, the machine's ceilings beside them."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

import hexad
from hexad.bench import contestant, install, plan, report
from hexad.bench.document import Document, Entry, Floor, Row
from hexad.bench.group import Group, Say
from hexad.checkpoints.config import ModelConfig
from hexad.checkpoints.read_config import read_model_config
from hexad.errors import ConfigError, HexadError
from hexad.kernels.load import load, native_problem
from hexad.kernels.threads import default_threads, processor

DTYPES = {16: "bfloat16", 8: "int8", 4: "int4"}
MAX_MODEL_LEN = 1152
"""What the peers that plan for a length get: W4 needs 1,088."""
READ_BYTES = 2 << 30


def compare(
    checkpoint: Path,
    peers: Sequence[str],
    names: Sequence[str],
    bits: Sequence[int],
    repeats: int,
    out: Path,
    say: Say = print,
    python: Callable[[str, Path], Path] = install.install,
    resume: bool = False,
) -> Document:
    """Run everything; writes results.json, report.md and report.html into `out`, anew after each measurement.

    `python` gives the interpreter of a peer, and makes its environment. With `resume`, what an earlier run of the same
    contestants left in results.json is kept. Raises ConfigError where it was another comparison.
    """
    threads, model = default_threads(), read_model_config(checkpoint)
    names = [*names, "W3"] if {"W5", "load", "concurrency"} & set(names) else names
    groups: dict[int, Group] = {}
    entries: list[Entry] = []
    floors: list[Floor] = []

    def document() -> Document:
        rows = [row for group in groups.values() for row in group.rows]
        return _document(checkpoint.name, model, threads, floors, entries, rows)

    def save() -> None:
        _write(document(), out)

    for width in bits:
        settings = {"model": str(checkpoint), "dtype": DTYPES[width], "kv_memory": "2GiB", "threads": threads}
        ours = contestant.hexad(settings, log=out / f"hexad-{width}.log")
        entries.append(Entry(name="hexad", bits=width, what=DTYPES[width], packages=[f"hexad=={hexad.__version__}"]))
        groups[width] = Group(width, [ours], model.vocab_size, repeats, say, save)
    for name in peers:
        entries += _add_peer(name, checkpoint, threads, groups, out, say, python)
    if resume and (found := _earlier(out, document(), say)):
        floors += found.floors
        for group in groups.values():
            group.rows += found.find_all(group.bits)
    left = plan.plan(groups.values(), names, repeats, layer_weights(model) + model.vocab_size * model.hidden_size)
    say(plan.shown(left))
    floors.append(measure_floor(threads, f"start, {_now()}"))
    for group in groups.values():
        try:
            group.run(names)
        finally:
            for c in group.contestants:
                c.close()
        floors.append(measure_floor(threads, f"after {group.bits} bits, {_now()}"))
        save()
    return document()


def _earlier(out: Path, now: Document, say: Say) -> Document | None:
    """What an earlier run left. Raises ConfigError where it compared something else."""
    file = out / "results.json"
    if not file.is_file():
        say(f"{file} does not exist: nothing to resume, starting from nothing")
        return None
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Document)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{file} cannot be resumed: {error}; leave out --resume", param="resume") from None
    for what in ("hexad", "processor", "threads", "kernels", "model", "layer_weights", "contestants"):
        if (there := getattr(found, what)) != (here := getattr(now, what)):
            raise ConfigError(f"{file} is of {what} {there}, not {here}; leave out --resume", param="resume")
    say(f"{file}: {len(found.rows)} rows are kept")
    return found


def _document(
    name: str, model: ModelConfig, threads: int, floors: list[Floor], entries: list[Entry], rows: list[Row]
) -> Document:
    return Document(
        date=_now(),
        hexad=hexad.__version__,
        processor=processor(),
        threads=threads,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        python=platform.python_version(),
        kernels=load("auto", threads).ops.name,
        model=name,
        layer_weights=layer_weights(model),
        head_weights=model.vocab_size * model.hidden_size,
        floors=floors,
        entries=entries,
        rows=rows,
    )


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="minutes")


def _write(document: Document, out: Path) -> None:
    unfinished = out / "results.json.unfinished"  # who is killed here leaves the last one whole
    unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(document)))
    unfinished.replace(out / "results.json")
    (out / "report.md").write_text(report.markdown(document))
    (out / "report.html").write_text(report.html(document))
    for file, svg in report.plots(document).items():
        (out / file).write_text(svg)


def _add_peer(
    name: str,
    checkpoint: Path,
    threads: int,
    groups: dict[int, Group],
    out: Path,
    say: Say,
    python: Callable[[str, Path], Path],
) -> list[Entry]:
    """Install, convert for each number of bits, and join the groups; what fails becomes the reason in its entry."""
    peer, entries = install.PEERS[name], []
    for bits in sorted(groups.keys() & peer.formats.keys(), reverse=True):
        say(f"{name}: {peer.formats[bits]}")
        error = ""
        log = out / f"{name}-{bits}.log"
        try:
            interpreter = python(name, log)
            model = install.convert(name, interpreter, checkpoint, bits, log)
        except HexadError as failure:
            error = str(failure)
            say(f"{name}: {error}")
        else:
            command = [str(interpreter), contestant.peer_script(name)]
            settings = {"model": str(model), "bits": bits, "dtype": DTYPES[16], "threads": threads}
            settings["max_model_len"] = MAX_MODEL_LEN
            groups[bits].contestants.append(
                contestant.Contestant(name, command, settings, continuous=peer.continuous, log=log)
            )
        packages = list(peer.requirements)
        entries.append(Entry(name=name, bits=bits, what=peer.formats[bits], packages=packages, error=error))
    return entries


def measure_floor(threads: int, when: str) -> Floor:
    """Reads of 2 GB and chains of independent multiply-adds by all threads; nothing without the native kernels."""
    if native_problem():
        return Floor(when=when)
    ops: Any = load("native", threads).ops
    rates = {dtype: max(ops.arithmetic_rate(dtype) for _ in range(3)) for dtype in ("float32", "bfloat16", "int8")}
    if rates["int8"] < 1.2 * rates["float32"]:  # a build that knows no rate of integers gives that of float32
        rates["int8"] = 0.0
    return Floor(when=when, read_gb=max(ops.read_bandwidth(READ_BYTES) for _ in range(3)), **rates)


def layer_weights(model: ModelConfig) -> int:
    """Of the linears of all layers."""
    attention = (2 * model.num_heads + 2 * model.num_kv_heads) * model.head_dim
    return model.num_layers * model.hidden_size * (attention + 3 * model.intermediate_size)
