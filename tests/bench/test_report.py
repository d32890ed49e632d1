"""What a person reads in the report, against arithmetic done here by hand."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from hexad.bench import report
from hexad.bench.document import Document, Entry, Floor, Row
from hexad.bench.workload import Figures

NOTHING = Figures(
    name="", runs=1, seconds=1.0, ttft_ms=0.0, tpot_ms=0.0, prefill_tps=0.0, decode_tps=0.0, output_tps=0.0,
    total_tps=0.0, peak_rss_mib=1500.0, cold_start_s=0.0,
)  # fmt: skip


def row(workload: str, name: str, seconds: float = 1.0, **given: Any) -> Row:
    facts = {key: given.pop(key) for key in ("peer", "rate", "concurrency", "note") if key in given}
    measured = msgspec.structs.replace(NOTHING, name=name, **given)
    return Row(workload=workload, bits=8, name=name, seconds=[seconds], figures=measured, **facts)


DOCUMENT = Document(
    date="2026-01-02 03:04+00:00",
    hexad="0.1.0",
    processor="A CPU <of> ours",
    threads=2,
    memory_gib=24.0,
    python="3.11.7",
    kernels="native (avx512, 2 threads)",
    model="qwen3-0.5b",
    layer_weights=400_000_000,
    head_weights=100_000_000,
    floors=[
        Floor(when="begin", read_gb=50.0, float32=0.5, bfloat16=1.0, int8=1.5),
        Floor(when="end", read_gb=30.0, float32=0.4, bfloat16=0.9, int8=2.0),
    ],
    entries=[
        Entry(name="hexad", bits=8, what="int8", packages=["hexad==0.1.0"]),
        Entry(name="a", bits=8, what="int8 weights", packages=["a==1.2.3", "b==4"]),
        Entry(name="b", bits=8, what="Q8_0", error="pip | fell over"),
        Entry(name="c", bits=8, what="W8A8"),
    ],
    rows=[
        row("W1", "hexad", decode_tps=80.0, ttft_ms=111.0),
        row("W1", "a", decode_tps=50.0),
        row("W1", "c", decode_tps=20.0),
        row("W2", "hexad", prefill_tps=1500.0),
        row("W2", "a", prefill_tps=500.0),
        row("W2", "c", prefill_tps=3000.0),
        row("W3", "hexad", 10.0, output_tps=200.0),
        row("W3", "a", 25.0, output_tps=80.0),
        row("W4", "hexad", 4.0),
        row("W4", "a", 14.0, note="first request ahead"),
        Row(workload="W4", bits=8, name="c", error="c: out of memory"),
        Row(workload="W6", bits=8, name="hexad", seconds=[0.9, 0.7, 0.8]),
        Row(workload="W6", bits=8, name="a", seconds=[2.0]),
        row("W5", "hexad", peer="a", rate=1.5, ttft_p99_ms=400.0, gap_p99_ms=30.0),
        row("W5", "a", peer="a", rate=1.5, ttft_p99_ms=1000.0, gap_p99_ms=45.0),
        row("W5", "hexad", peer="c", rate=2.5, ttft_p99_ms=900.0, gap_p99_ms=60.0),
        row("W5", "c", peer="c", rate=2.5, ttft_p99_ms=990.0, gap_p99_ms=180.0),
        row("concurrency", "hexad", concurrency=1, output_tps=77.0),
        row("concurrency", "hexad", concurrency=32, output_tps=321.0),
        row("concurrency", "a", concurrency=32, output_tps=88.0),
    ],
)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("W1 decode", (1.6, "a")),  # 80 / 50
        ("W2 prefill", (0.5, "c")),  # 1500 / 3000
        ("W3 batch", (2.5, "a")),  # 25 / 10
        ("W4 prefix", (3.5, "a")),  # c failed
        ("W5 first token", (1.1, "c")),  # each pair at its own load: 1000 / 400 and 990 / 900
        ("W5 between tokens", (1.5, "a")),  # 45 / 30 and 180 / 60
        ("W6 start", (2.5, "a")),  # 2.0 / median of 0.9, 0.7, 0.8
    ],
)
def test_the_ratio_is_against_the_best_peer(column: str, expected: tuple[float, str]) -> None:
    times, name = report.against_best(DOCUMENT, column, 8)
    assert (pytest.approx(times), name) == expected


def test_without_a_peer_there_is_no_ratio() -> None:
    alone = msgspec.structs.replace(DOCUMENT, rows=[r for r in DOCUMENT.rows if r.name == "hexad"])
    assert report.against_best(alone, "W1", 8) == (0.0, "")


def grid(markdown: str, title: str) -> list[list[str]]:
    lines = markdown.split(f"## {title}\n")[1].split("\n## ")[0].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line.startswith("|")]


def test_markdown_has_the_ratios_first_then_figures_with_their_shares_of_the_floor() -> None:
    text = report.markdown(DOCUMENT)
    assert text.index("against the best peer") < text.index("What the machine can do") < text.index("8-bit weights")
    assert grid(text, "Hexad against the best peer")[2][:5] == ["8 bits", "1.60x a", "0.50x c", "2.50x a", "3.50x a"]
    begin, end, best = grid(text, "What the machine can do")[2:]
    assert begin == ["begin", "50", "1.5", "1", "0.5"] and end == ["end", "30", "2", "0.9", "0.4"]
    assert best == ["best", "50", "2", "1", "0.5"]
    hexad, a, b, c = grid(text, "8-bit weights")[2:]
    # 80 tok/s of 500 MB are 40 of 50 GB/s; 1500 tok/s of 0.8 GOP are 1.2 of 2 TOP/s
    assert hexad == ["hexad", "int8", "80 (80%)", "111", "1,500 (60%)", "10.00 (200)", "4.00", "0.80", "1,500"]
    assert a[6] == "14.00 *" and b[2:] == ["-"] * 7 and c[6] == "died: out of memory"
    failed = grid(text, "What did not run")[2:]
    assert failed == [["b", "8 bits", "all", "pip \\| fell over"], ["c", "8 bits", "W4", "c: out of memory"]]
    assert "2026-01-02" in text and "A CPU <of> ours" in text and "a==1.2.3, b==4" in text


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tips: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self._into: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._into = {"td": self.cells, "title": self.tips}.get(tag, self._into)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._into = None


def test_html_shows_every_cell_and_point_and_needs_nothing_from_elsewhere() -> None:
    page = _Page(report.html(DOCUMENT))
    for table in report.tables(DOCUMENT):
        for line in table.lines:
            assert all(cell in page.cells for cell in line if cell)
    assert {"hexad: 77 at 1", "hexad: 321 at 32", "a: 88 at 32", "hexad: 400 at 1.5", "c: 180 at 2.5"} <= set(page.tips)
    assert not page.tags & {"script", "link", "img", "iframe"} and not page.links
    assert "A CPU &lt;of&gt; ours" in report.html(DOCUMENT)


def test_a_document_survives_its_file() -> None:
    assert msgspec.json.decode(msgspec.json.encode(DOCUMENT), type=Document) == DOCUMENT


def test_a_busy_machine_is_told() -> None:
    assert "Other processes" not in report.markdown(DOCUMENT)
    noisy = msgspec.structs.replace(DOCUMENT, rows=[*DOCUMENT.rows, row("W1", "x", other_cpus=1.3)])
    assert "Other processes took up to 1.3 CPUs" in report.markdown(noisy)
