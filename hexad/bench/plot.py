"""Line charts as SVG text: no library, no script, readable in light and dark, alone or inside a page."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 62, 146, 62, 46
LABEL_STEP = 15
STYLE = """
.plot{font:12px system-ui,sans-serif;--ink:#1b1f24;--soft:#667080;--line:#e3e6ea;--paper:#fff;
--c0:#c2410c;--c1:#1d6fb8;--c2:#15803d;--c3:#7c3aed;--c4:#a16207;--c5:#0e7490;--c6:#be185d}
@media(prefers-color-scheme:dark){.plot{--ink:#e8eaed;--soft:#9aa4b2;--line:#2d333b;--paper:#15181d;
--c0:#fb923c;--c1:#60a5fa;--c2:#4ade80;--c3:#c4b5fd;--c4:#facc15;--c5:#22d3ee;--c6:#f472b6}}
.plot text{fill:var(--soft)}.plot .title{fill:var(--ink);font-size:14px;font-weight:600}
.plot .grid{stroke:var(--line)}.plot .curve{fill:none;stroke-width:2;stroke-linejoin:round}
.plot .first{stroke-width:3.2}.plot .name{font-weight:600}
"""
COLOURS = 7


@dataclass(frozen=True, slots=True)
class Series:
    """A curve; the first of a chart is drawn strongest. `colour` keeps a name's colour across charts."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0


def chart(title: str, x_label: str, y_label: str, curves: Sequence[Series], *, log_y: bool = False) -> str:
    """x is logarithmic, with a tick at each x that occurs; y is linear from 0, or logarithmic. x and y above 0."""
    curves = [Series(c.name, sorted((x, y) for x, y in c.points if y > 0), c.colour) for c in curves]
    curves = [c for c in curves if c.points]
    if not curves:
        return ""
    xs = sorted({x for c in curves for x, _ in c.points})
    ys = [y for c in curves for _, y in c.points]
    y_ticks = _log_ticks(min(ys), max(ys)) if log_y else _linear_ticks(max(ys))
    place_x = _scale(xs[0], xs[-1], LEFT, WIDTH - RIGHT, log=True)
    place_y = _scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP, log=log_y)
    parts = [_text(LEFT - 40, 22, title, "title", "start")]
    for y in y_ticks:
        at = place_y(y)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(_text(LEFT - 8, at + 4, number(y), "tick", "end"))
    for x in _apart(xs, place_x):
        parts.append(_text(place_x(x), HEIGHT - BOTTOM + 18, number(x), "tick", "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, "axis", "middle"))
    parts.append(_text(LEFT - 40, 38, y_label, "axis", "start"))
    ends = _spread([place_y(c.points[-1][1]) for c in curves])
    for i, c in reversed(list(enumerate(curves))):
        colour = f"var(--c{c.colour % COLOURS})"
        dots = [(place_x(x), place_y(y)) for x, y in c.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
        parts.append(f'<polyline class="curve{" first" * (i == 0)}" stroke="{colour}" points="{path}"/>')
        for (x, y), (given_x, given_y) in zip(dots, c.points, strict=True):
            tip = html.escape(f"{c.name}: {number(given_y)} at {number(given_x)}")
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour}"><title>{tip}</title></circle>')
        label = f'<text class="name" x="{WIDTH - RIGHT + 10}" y="{ends[i] + 4:.1f}" style="fill:{colour}">'
        parts.append(f"{label}{html.escape(c.name)}</text>")
    body = "\n".join(parts)
    return (
        f'<svg class="plot" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)}">\n<style>{STYLE}</style>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="var(--paper)"/>\n{body}\n</svg>\n'
    )


def number(value: float) -> str:
    """Three significant digits, thousands grouped."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _scale(low: float, high: float, start: float, stop: float, *, log: bool) -> Callable[[float], float]:
    bend = math.log if log else float
    span = bend(high) - bend(low)
    return lambda value: start + (stop - start) * ((bend(value) - bend(low)) / span if span else 0.5)


def _linear_ticks(top: float) -> list[float]:
    """From 0 to above `top` in 4 to 8 steps of 1, 2 or 5 times a power of ten."""
    step = 10.0 ** math.floor(math.log10(top))
    step = next(step * part for part in (0.1, 0.2, 0.5, 1, 2) if top / (step * part) <= 8)
    return [step * i for i in range(math.ceil(top / step - 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """From below `low` to above `high`: powers of ten, between few of them 2 and 5 times those too."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    parts = (1, 2, 5) if last - first <= 2 else (1,)
    ticks = [part * 10.0**power for power in range(first, max(last, first + 1) + 1) for part in parts]
    begin = max(i for i, tick in enumerate(ticks) if tick <= low)
    return ticks[begin : max(begin + 2, 1 + min(i for i, tick in enumerate(ticks) if tick >= high))]


def _apart(xs: Sequence[float], place: Callable[[float], float]) -> list[float]:
    """Those that leave room for their text."""
    kept: list[float] = []
    for x in xs:
        if not kept or place(x) - place(kept[-1]) >= 34:
            kept.append(x)
    return kept


def _spread(positions: Sequence[float]) -> list[float]:
    """The same heights, moved apart so that a line of text fits between any two."""
    moved = list(positions)
    order = sorted(range(len(moved)), key=lambda i: moved[i])
    for above, below in zip(order, order[1:], strict=False):
        moved[below] = max(moved[below], moved[above] + LABEL_STEP)
    return moved
