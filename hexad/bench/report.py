"""What `hexad bench compare` shows: report.md for a repository, report.html for a browser, from one `Document`."""

from __future__ import annotations

import html as markup
import re
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from hexad.bench import plot
from hexad.bench.document import WORKLOADS, Document, Row

COLUMNS = ("W1 decode", "W2 prefill", "W3 batch", "W4 prefix", "W5 first token", "W5 between tokens", "W6 start")

QUIET_CPUS = 0.2


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    text: str
    head: list[str]
    lines: list[list[str]]


def value(column: str, row: Row) -> float:
    """The figure that a workload is judged by; 0 where there is none."""
    f, workload = row.figures, column[:2]
    if workload in ("W3", "W4", "W6"):
        return statistics.median(row.seconds) if row.seconds else 0.0
    if f is None:
        return 0.0
    return {
        "W1": f.decode_tps,
        "W2": f.prefill_tps,
        "W5 first token": f.ttft_p99_ms,
        "W5 between tokens": f.gap_p99_ms,
    }[column if workload == "W5" else workload]


def ratio(column: str, ours: Row, theirs: Row) -> float:
    """How many times better Hexad is; 0 where one has no figure."""
    a, b = value(column, ours), value(column, theirs)
    if not a or not b:
        return 0.0
    return a / b if column[:2] in ("W1", "W2") else b / a


def against_best(document: Document, column: str, bits: int) -> tuple[float, str]:
    """Hexad against the peer that comes nearest to it or leads it most: (times better, peer); (0, "") for none."""
    rows = document.find(column[:2], bits)
    pairs = [(ours, row) for row in rows for ours in rows
             if ours.name == "hexad" and row.name != "hexad" and ours.peer == row.peer]  # fmt: skip
    found = [(times, theirs.name) for ours, theirs in pairs if (times := ratio(column, ours, theirs))]
    return min(found, default=(0.0, ""))


def tables(document: Document) -> list[Table]:
    widths = sorted({entry.bits for entry in document.entries}, reverse=True)
    return [_ratios(document, widths), _floor(document), *(_figures(document, bits) for bits in widths),
            *_under_load(document), *_failures(document)]  # fmt: skip


def _ratios(document: Document, widths: list[int]) -> Table:
    lines = []
    for bits in widths:
        found = [against_best(document, column, bits) for column in COLUMNS]
        lines.append([f"{bits} bits", *(f"{times:.2f}x {name}" if name else "-" for times, name in found)])
    text = "How many times faster than the best peer at the same weight bits (below 1: slower), and which peer that is."
    return Table("Hexad against the best peer", text, ["weights", *COLUMNS], lines)


def _floor(document: Document) -> Table:
    head = ["", "reads, GB/s", "int8, TOP/s", "bfloat16, TFLOP/s", "float32, TFLOP/s"]
    best = msgspec.structs.replace(document.floor, when="best") if len(document.floors) > 1 else None
    lines = [[f.when, *map(_show, (f.read_gb, f.int8, f.bfloat16, f.float32))] for f in [*document.floors, best] if f]
    text = (
        "Measured in the same run by all cores: reads of 2 GB, and chains of multiply-adds with no memory in the way. "
        "Shares below are of the best; where the reads differ, so did the memory while others were measured."
    )
    return Table("What the machine can do", text, head, lines)


def _figures(document: Document, bits: int) -> Table:
    cells = {(row.workload, row.name): row for row in document.find_all(bits)}

    def cell(workload: str, name: str, show: Callable[[Row], str]) -> str:
        row = cells.get((workload, name))
        return "-" if row is None else f"died: {_briefly(row)}" if row.error else show(row)

    lines = []
    for entry in (entry for entry in document.entries if entry.bits == bits):
        peaks = [row.figures.peak_rss_mib for (_, name), row in cells.items() if name == entry.name and row.figures]
        lines.append(
            [
                entry.name,
                entry.what,
                cell("W1", entry.name, lambda row: f"{_show(value('W1', row))} ({_read_share(document, row)})"),
                cell("W1", entry.name, lambda row: f"{row.figures.ttft_ms:.0f}" if row.figures else "-"),
                cell("W2", entry.name, lambda row: f"{_show(value('W2', row))} ({_rate_share(document, row)})"),
                cell("W3", entry.name, lambda row: f"{value('W3', row):.2f} ({_output(row)})"),
                cell("W4", entry.name, lambda row: f"{value('W4', row):.2f}" + " *" * bool(row.note)),
                cell("W6", entry.name, lambda row: f"{value('W6', row):.2f}"),
                f"{max(peaks):,.0f}" if peaks else "-",
            ]
        )
    head = ["", "weights", "W1 tok/s (of reads)", "W1 first token ms", "W2 tok/s (of peak)", "W3 s (tok/s)", "W4 s",
            "W6 s", "peak MiB"]  # fmt: skip
    text = (
        "Medians. Of reads: weight bytes of a token (linears and head at their nominal bits; scales and KV cache not "
        "counted) times tokens a second, over the read bandwidth. Of peak: operations of the layers' linears over the "
        "machine's int8 rate (bfloat16's at 16 bits). *: with the first request ahead of the others, which was faster."
    )
    return Table(f"{bits}-bit weights", text, head, lines)


def _briefly(row: Row) -> str:
    """The first words of an error; all of it stands with what did not run."""
    return re.split("[:.,] ", row.error.removeprefix(f"{row.name}: "))[0][:30]


def _read_share(document: Document, row: Row) -> str:
    weight_bytes = (document.layer_weights + document.head_weights) * row.bits / 8
    return _share(value("W1", row) * weight_bytes, document.floor.read_gb * 1e9)


def _rate_share(document: Document, row: Row) -> str:
    floor = document.floor
    peak = max(floor.bfloat16, floor.float32) if row.bits == 16 else floor.int8
    return _share(value("W2", row) * 2 * document.layer_weights, peak * 1e12)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "-"


def _output(row: Row) -> str:
    return _show(row.figures.output_tps) if row.figures else "-"


def _under_load(document: Document) -> Iterable[Table]:
    head = ["weights", "load set by", "requests/s", "", "first token p50 ms", "p99", "between tokens p50 ms", "p99"]
    lines = [
        [f"{row.bits} bits", row.peer, f"{row.rate:.2f}", row.name, _show(f.ttft_ms), _show(f.ttft_p99_ms),
         _show(f.gap_p50_ms), _show(f.gap_p99_ms)]
        for row in document.rows if row.workload == "W5" and (f := row.figures)
    ]  # fmt: skip
    if lines:
        yield Table("W5: under load", "The same arrivals for both of a pair.", head, lines)


def _failures(document: Document) -> Iterable[Table]:
    """A line for each reason of a contestant, with all the workloads that it cost."""
    cost: dict[tuple[str, int, str], list[str]] = {
        (entry.name, entry.bits, entry.error): ["all"] for entry in document.entries if entry.error
    }
    for row in document.rows:
        if row.error:
            lost = cost.setdefault((row.name, row.bits, row.error), [])
            lost += [row.workload] * (row.workload not in lost)
    lines = [[name, f"{bits} bits", ", ".join(lost), why] for (name, bits, why), lost in cost.items()]
    if lines:
        yield Table("What did not run", "", ["", "weights", "workload", "why"], lines)


def plots(document: Document) -> dict[str, str]:
    """File name -> SVG."""
    colours = {name: i for i, name in enumerate(dict.fromkeys(entry.name for entry in document.entries))}

    def curves(rows: Iterable[Row], point: Callable[[Row], tuple[float, float]]) -> list[plot.Series]:
        points: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            if row.figures:
                points.setdefault(row.name, []).append(point(row))
        return [plot.Series(name, points[name], colours[name]) for name in sorted(points, key=colours.__getitem__)]

    drawn = {}
    for bits in sorted({row.bits for row in document.rows}, reverse=True):
        title, what = f"Throughput, {bits}-bit weights", "output tokens a second"
        points = curves(document.find("concurrency", bits), lambda row: (row.concurrency, _figure(row, "output_tps")))
        drawn[f"throughput-{bits}.svg"] = plot.chart(title, "requests at once", what, points)
        loaded = document.find("load", bits) or document.find("W5", bits)
        title = f"Latency under load, {bits}-bit weights"
        for file, figure, what in (
            ("first-token", "ttft_p99_ms", "p99 to first token, ms"),
            ("between-tokens", "gap_p99_ms", "p99 between tokens, ms"),
        ):
            points = curves(loaded, lambda row, figure=figure: (row.rate, _figure(row, figure)))  # type: ignore[misc]
            drawn[f"{file}-{bits}.svg"] = plot.chart(title, "requests a second", what, points, log_y=True)
    return {file: svg for file, svg in drawn.items() if svg}


def _figure(row: Row, name: str) -> float:
    return float(getattr(row.figures, name))


def _show(x: float) -> str:
    return plot.number(x) if x else "-"


def _facts(document: Document) -> list[str]:
    d = document
    busy = max((row.figures.other_cpus for row in d.rows if row.figures), default=0.0)
    millions = (d.layer_weights + d.head_weights) / 1e6
    return [
        f"{d.date}. {d.processor}, {d.threads} cores, {d.memory_gib:.0f} GiB. Python {d.python}.",
        f"Hexad {d.hexad}, kernels {d.kernels}. Model {d.model}: {millions:.0f} M weights in linears and head.",
        "All took turns, run by run, on the same cores; each gave exactly the tokens that were asked for.",
        *[f"Other processes took up to {busy:.1f} CPUs during a run: the figures are noisy."] * (busy > QUIET_CPUS),
    ]


def _versions(document: Document) -> dict[str, str]:
    return {entry.name: ", ".join(entry.packages) for entry in document.entries}


def markdown(document: Document) -> str:
    parts = ["# Hexad and its peers", *_facts(document)]
    for table in tables(document):
        rule = ["---"] * len(table.head)
        grid = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
                         for line in [table.head, rule, *table.lines])  # fmt: skip
        parts += [f"## {table.title}", *[table.text] * bool(table.text), grid]
    parts += ["## Workloads and versions", "\n".join(f"- {name}: {what}" for name, what in WORKLOADS.items())]
    parts.append("\n".join(f"- {name}: {packages}" for name, packages in _versions(document).items()))
    return "\n\n".join(parts) + "\n"


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Hexad and its peers</title><style>
:root{{color-scheme:light dark;--ink:#1b1f24;--soft:#667080;--line:#e3e6ea;--paper:#fff;--good:#15803d;--bad:#b91c1c}}
@media(prefers-color-scheme:dark){{:root{{--ink:#e8eaed;--soft:#9aa4b2;--line:#2d333b;--paper:#15181d;--good:#4ade80;
--bad:#f87171}}}}
body{{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1240px;margin:2.5rem auto;
padding:0 1.2rem}}h1{{font-size:1.7rem;margin:0 0 .4rem}}h2{{font-size:1.15rem;margin:2.2rem 0 .3rem}}
p,li{{color:var(--soft);margin:.2rem 0}}table{{border-collapse:collapse;width:100%;margin:.6rem 0;font-size:.9rem;
font-variant-numeric:tabular-nums}}th,td{{padding:.35rem .6rem;text-align:right;white-space:nowrap;
border-bottom:1px solid var(--line)}}
th{{color:var(--soft);font-weight:500}}th:first-child,td:first-child,.words td,.words th{{text-align:left}}
.words td{{white-space:normal}}
.ours td{{font-weight:600}}.good{{color:var(--good);font-weight:600}}.bad{{color:var(--bad);font-weight:600}}
.wide{{overflow-x:auto}}.plots{{display:grid;grid-template-columns:repeat(auto-fit,minmax(440px,1fr));gap:1rem}}
.plots svg{{width:100%;border:1px solid var(--line);border-radius:8px}}</style>
<h1>Hexad and its peers</h1>{facts}{tables}<h2>Plots</h2><div class="plots">{plots}</div>
<h2>Workloads and versions</h2><ul>{workloads}{versions}</ul></html>
"""


def html(document: Document) -> str:
    """One page: no script, nothing from elsewhere."""

    def items(pairs: dict[str, str]) -> str:
        return "".join(f"<li><b>{markup.escape(k)}</b>: {markup.escape(v)}</li>" for k, v in pairs.items())

    return PAGE.format(
        facts="".join(f"<p>{markup.escape(fact)}</p>" for fact in _facts(document)),
        tables="".join(_html_table(table) for table in tables(document)),
        plots="".join(plots(document).values()),
        workloads=items(WORKLOADS),
        versions=items(_versions(document)),
    )


def _html_table(table: Table) -> str:
    def cell(text: str) -> str:
        times = text.partition("x ")[0] if "x " in text else ""
        mark = "" if not times.replace(".", "").isdigit() else ' class="good"' if float(times) >= 1 else ' class="bad"'
        return f"<td{mark}>{markup.escape(text)}</td>"

    head = "".join(f"<th>{markup.escape(text)}</th>" for text in table.head)
    lines = "".join(f"<tr{' class=ours' * ('hexad' in line)}>{''.join(map(cell, line))}</tr>" for line in table.lines)
    words = ' class="words"' * (table.head[-1] == "why")
    intro = f"<p>{markup.escape(table.text)}</p>" if table.text else ""
    body = f'<div class="wide"><table{words}><tr>{head}</tr>{lines}</table></div>'
    return f"<h2>{markup.escape(table.title)}</h2>{intro}{body}"
