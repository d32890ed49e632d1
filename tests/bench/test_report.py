"""What a person reads in the report, against arithmetic done here by hand."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from hexad.bench import report
from hexad.bench.document import Document, Entry, Floor, Row
from hexad.bench.workload import Figures

BASE = Figures(
    name="", runs=1, seconds=1.0, ttft_ms=0.0, tpot_ms=0.0, prefill_tps=0.0, decode_tps=0.0, output_tps=0.0,
    total_tps=0.0, peak_rss_mib=1500.0, cold_start_s=0.0,
)  # fmt: skip


def row(workload: str, name: str, seconds: float = 1.0, bits: int = 8, **given: float | str | int) -> Row:
    facts = {key: given.pop(key) for key in ("peer", "rate", "concurrency", "note", "error") if key in given}
    measured = Figures(**{**BASE.__struct_asdict__(), "name": name, **given}) if hasattr(BASE, "__struct_asdict__") else None
    return Row(workload=workload, bits=bits, name=name, seconds=[seconds], figures=measured, **facts)  # type: ignore[arg-type]
