"""The page's formulas against latex2mathml, as trees of what is drawn."""

from __future__ import annotations

import random
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.server.web.browsing import PHONE, expect, shown
from tests.server.web.test_markdown import renderer

latex2mathml = pytest.importorskip("latex2mathml.converter", reason="latex2mathml is not installed")

FORMULAS = [
    r"x = \frac{-b + \sqrt{b^2 - 4ac}}{2a}",
    r"\sum_{i=1}^{n} x_i^2 \leq \prod_{k=0}^\infty (1 + 3.14 y_{k,i})",
    r"\lim_{x \to 0} \frac{\sin x}{x} = 1",
    r"A = \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} + \begin{bmatrix} a \\ b \end{bmatrix}",
    r"f(x) = \begin{cases} x & \text{if } x \ge 0 \\ -x & \text{otherwise} \end{cases}",
    r"\hat{y} = f'(x)_1^2 + \vec v",
    r"\left( \frac{a}{b} \right)^{n} \in \mathbb{R}^{d} \times \mathcal{L}",
    r"\left\{ a \right. + \left[ b \right]",
    r"\sqrt[3]{8} = 2, \binom{n}{k}",
    r"e^{i\pi} + 1 = 0",
    r"\frac12 x^10 + \frac a b",
    r"\log_2 n + \ln (n) - \alpha\beta^{\gamma_\delta}",
    r"\int_0^\infty e^{-x^2}\,dx",
    r"\forall x \in A \cup B: x \neq \emptyset \implies {a}_{b}",
]
SAME = {"munder": "msub", "mover": "msup", "munderover": "msubsup", "\u2032": "'"}
ROWS = ("math", "mrow", "mtd", "msqrt")


def tree(element: ElementTree.Element) -> Any:
    """Without groups that change nothing, the space between, and what belongs to the look of a sign."""
    tag = element.tag.rpartition("}")[2]
    parts = [part for child in element if not child.tag.endswith("mspace") if (part := tree(child)) != ""]
    if not len(element):
        return SAME.get(element.text or "", (element.text or "").strip("\xa0"))
    if tag in ROWS:
        parts = [inner for part in parts for inner in (part[1:] if part[0] == "mrow" else [part])]
    if tag in ("mrow", "math"):
        return parts[0] if len(parts) == 1 else ["mrow", *parts]
    return [SAME.get(tag, tag), *parts]


DRAWN = """async ([module, texts]) => {
  const { formula } = await import(module);
  const written = new XMLSerializer();
  return texts.map((text) => formula(text, false)).map((found) => found && written.serializeToString(found));
}"""


def drawn(page: Any, *texts: str) -> list[str | None]:
    found: list[str | None] = page.evaluate(DRAWN, [renderer(page).replace("render.js", "maths.js"), texts])
    return found


def test_formulas_are_those_of_latex2mathml(page: Any) -> None:
    for text, found in zip(FORMULAS, drawn(page, *FORMULAS), strict=True):
        assert found, text
        assert tree(ElementTree.fromstring(found)) == tree(ElementTree.fromstring(latex2mathml.convert(text))), text


@pytest.mark.parametrize(
    "text", [r"\nope{x}", r"\frac{a}{b", "a}", "", "a & b", r"\left( a", r"\begin{tikz}\end{tikz}"]
)
def test_what_is_not_known_is_not_drawn(page: Any, text: str) -> None:
    assert drawn(page, text) == [None]


def test_no_formula_fails(page: Any) -> None:
    rng = random.Random(1)
    pieces = [part for text in FORMULAS for part in text.split(" ")] + list(r"{}^_&'\$é🎉<")
    pieces += [r"\\", r"\end{cases}", r"\right", "{" * 100, r"\frac" * 500, "x^" * 500]
    drawn(page, *("".join(rng.choices(pieces, k=rng.randrange(1, 12))) for _ in range(2000)))


SPOKEN = r"""Inline \( a_1 * b * c_2 \), $x^2$ and \(\nope{x} * y *\). It costs $5 and $10.

So:
\[
\frac{a}{b}
- c
\]

$$ \nope * a * $$

1. One
   $$
   x
   $$"""


def test_formulas_in_an_answer(page: Any, tmp_path: Any) -> None:
    shown(page, tmp_path, SPOKEN)
    expect(page.locator(".markdown math")).to_have_count(4)
    expect(page.locator(".markdown mfrac")).to_have_count(1)
    expect(page.locator(".markdown > p").first).to_contain_text(r"\(\nope{x} * y *\). It costs $5 and $10.")
    expect(page.locator(".markdown .maths > code")).to_have_text(r"$$ \nope * a * $$")
    expect(page.locator(".markdown li .maths math")).to_have_count(1)
    expect(page.locator(".markdown :is(em, ul)")).to_have_count(0)


def test_a_long_formula_scrolls_and_the_page_does_not(page: Any, tmp_path: Any) -> None:
    page.set_viewport_size(PHONE)
    formula = " + ".join(f"a_{{{number}}}" for number in range(30))
    shown(page, tmp_path, f"Inline \\( {formula} \\) and\n\n- ${formula}$\n\n$$ {formula} $$")
    expect(page.locator(".markdown math")).to_have_count(3)
    assert page.locator("#scroller").evaluate("scroller => scroller.scrollWidth - scroller.clientWidth") == 0
