"""A chart shows the numbers that it was given, at their places."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hexad.bench.plot import Series, _log_ticks, chart, number

SVG = "{http://www.w3.org/2000/svg}"
CURVES = [
    Series("hexad", [(1, 50.0), (4, 160.0), (32, 420.0)], 0),
    Series("peer <a>", [(1, 30.0), (4, 90.0), (32, 415.0)], 1),
]


def drawn(log_y: bool = False) -> ElementTree.Element:
    return ElementTree.fromstring(chart("Through & put", "requests", "tokens/s", CURVES, log_y=log_y))


@pytest.mark.parametrize("log_y", [False, True])
def test_points_lie_where_the_ticks_say(log_y: bool) -> None:
    """The scale is read back from the tick labels, as an eye does."""
    root = drawn(log_y)
    texts = [
        (float(t.get("x", 0)), float(t.get("y", 0)), t.text or "", t.get("text-anchor"))
        for t in root.iter(f"{SVG}text")
    ]
    y_ticks = sorted((float(text.replace(",", "")), y - 4) for _, y, text, anchor in texts if anchor == "end")
    x_ticks = {float(text): x for x, _, text, anchor in texts if anchor == "middle" and text.isdigit()}
    assert set(x_ticks) == {1, 4, 32}
    bend = math.log if log_y else float
    (low, low_at), (high, high_at) = y_ticks[0], y_ticks[-1]
    for circle in root.iter(f"{SVG}circle"):
        name, _, tip = (circle[0].text or "").partition(": ")
        value, at = (float(part.replace(",", "")) for part in tip.split(" at "))
        assert (at, value) in {curve.name: curve for curve in CURVES}[name].points
        share = (float(circle.get("cy", 0)) - low_at) / (high_at - low_at)
        assert share == pytest.approx((bend(value) - bend(low)) / (bend(high) - bend(low)), abs=0.005)
        assert float(circle.get("cx", 0)) == pytest.approx(x_ticks[at], abs=0.1)
    assert len(list(root.iter(f"{SVG}circle"))) == 6


@given(st.floats(1e-3, 1e6), st.floats(1, 1e5))
@example(0.009999999999999999, 1.0)
def test_logarithmic_ticks_ascend_around_all_points(low: float, span: float) -> None:
    ticks = _log_ticks(low, low * span)
    assert ticks[0] <= low * (1 + 1e-9) and ticks[-1] >= low * span * (1 - 1e-9) and 2 <= len(ticks) <= 12
    assert ticks == sorted(set(ticks))
    assert all(f"{tick:.0e}"[0] in "125" for tick in ticks)


def test_names_are_at_the_curves_ends_and_do_not_cover_each_other() -> None:
    labels = {t.text: float(t.get("y", 0)) for t in drawn().iter(f"{SVG}text") if t.get("class") == "name"}
    assert set(labels) == {"hexad", "peer <a>"}
    assert abs(labels["hexad"] - labels["peer <a>"]) >= 14


def test_it_needs_nothing_from_elsewhere() -> None:
    text = chart("t", "x", "y", CURVES)
    assert "prefers-color-scheme:dark" in text and "script" not in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_nothing_to_draw_is_nothing() -> None:
    assert chart("t", "x", "y", [Series("a", [(1, 0.0)])]) == ""


def test_one_point_is_drawn() -> None:
    assert "<circle" in chart("t", "x", "y", [Series("a", [(8, 3.0)])])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0123, "0.0123"), (1.0, "1"), (1.5, "1.5"), (12.34, "12.3"), (100.4, "100"), (12345.6, "12,346")],
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert number(value) == shown
