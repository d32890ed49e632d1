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
from hexad.bench import contestant, install, report
from hexad.bench.document import Document, Entry, Floor, Row
from hexad.bench.group import Group, Say
from hexad.checkpoints.config import ModelConfig
from hexad.checkpoints.read_config import read_model_config
from hexad.errors import HexadError
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
) -> Document:
    """Run everything; writes results.json, report.md and report.html into `out`, anew after each workload.

    `python` gives the interpreter of a peer, and makes its environment.
    """
    threads, model = default_threads(), read_model_config(checkpoint)
    names = [*names, "W3"] if {"W5", "load"} & set(names) else names
    groups = {}
    entries = []
    for width in bits:
        settings = {"model": str(checkpoint), "dtype": DTYPES[width], "kv_memory": "2GiB", "threads": threads}
        ours = contestant.hexad(settings, log=out / f"hexad-{width}.log")
        entries.append(Entry(name="hexad", bits=width, what=DTYPES[width], packages=[f"hexad=={hexad.__version__}"]))
        groups[width] = Group(width, [ours], model.vocab_size, repeats, say)
    for name in peers:
        entries += _add_peer(name, checkpoint, threads, groups, out, say, python)
    floor, document = measure_floor(threads), None
    for group in groups.values():
        try:
            for _ in group.run(names):
                rows = [row for each in groups.values() for row in each.rows]
                document = _document(checkpoint.name, model, threads, floor, entries, rows)
                _write(document, out)
        finally:
            for c in group.contestants:
                c.close()
        floor = _better(floor, measure_floor(threads))
    assert document is not None
    document = msgspec.structs.replace(document, floor=floor)
    _write(document, out)
    return document


def _document(
    name: str, model: ModelConfig, threads: int, floor: Floor, entries: list[Entry], rows: list[Row]
) -> Document:
    return Document(
        date=datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
        hexad=hexad.__version__,
        processor=processor(),
        threads=threads,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        python=platform.python_version(),
        kernels=load("auto", threads).ops.name,
        model=name,
        layer_weights=layer_weights(model),
        head_weights=model.vocab_size * model.hidden_size,
        floor=floor,
        entries=entries,
        rows=rows,
    )


def _write(document: Document, out: Path) -> None:
    (out / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(document)))
    (out / "report.md").write_text(report.markdown(document))
    (out / "report.html").write_text(report.html(document))


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


def measure_floor(threads: int) -> Floor:
    """Reads of 2 GB and chains of independent multiply-adds by all threads; nothing without the native kernels."""
    if native_problem():
        return Floor()
    ops: Any = load("native", threads).ops
    rates = {dtype: max(ops.arithmetic_rate(dtype) for _ in range(3)) for dtype in ("float32", "bfloat16", "int8")}
    if rates["int8"] < 1.2 * rates["float32"]:  # a build that knows no rate of integers gives that of float32
        rates["int8"] = 0.0
    return Floor(read_gb=max(ops.read_bandwidth(READ_BYTES) for _ in range(3)), **rates)


def _better(a: Floor, b: Floor) -> Floor:
    return Floor(**{name: max(getattr(a, name), getattr(b, name)) for name in Floor.__struct_fields__})


def layer_weights(model: ModelConfig) -> int:
    """Of the linears of all layers."""
    attention = (2 * model.num_heads + 2 * model.num_kv_heads) * model.head_dim
    return model.num_layers * model.hidden_size * (attention + 3 * model.intermediate_size)
