"""The report for everybody: axe-core finds nothing serious, in both themes, with everything unfolded."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from tests.browser.conftest import Opener

pytestmark = pytest.mark.browser

#: Rows of a table and marks of a plot are alike: axe looks at all of them for a minute, at a few of each for seconds.
FEWER = """() => {
  for (const row of document.querySelectorAll("tbody tr:nth-child(n + 6), li:nth-child(n + 9)")) row.remove();
  for (const svg of document.querySelectorAll("svg"))
    [...svg.querySelectorAll("path, rect, line, circle, use")].slice(20).forEach((mark) => mark.remove());
}"""
RUN = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
  .map((one) => [one.impact, one.id, one.nodes.length, one.nodes[0].html.slice(0, 160)])"""


@pytest.fixture(scope="module")
def axe() -> str:
    pytest.importorskip("axe_playwright_python", reason="holds axe-core; comes with the test extra")
    return (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (390, "dark")])
def test_axe_finds_no_violation(everything: Path, opened: Opener, axe: str, width: int, theme: str):
    page = opened(everything, width, theme)
    folded = "details.help, figure details" if width == 1440 else "details.help"
    page.evaluate(f"document.querySelectorAll('{folded}').forEach((one) => {{ one.open = true; }})")
    page.evaluate(FEWER)
    page.evaluate(axe)
    assert page.evaluate(RUN) == []


def test_axe_would_find_one(everything: Path, opened: Opener, axe: str):
    page = opened(everything)
    page.evaluate(FEWER)
    page.evaluate("document.querySelectorAll('main > section').forEach((one, place) => { if (place) one.remove(); })")
    page.evaluate("document.querySelector('main').insertAdjacentHTML('beforeend', '<button></button>')")
    page.evaluate(axe)
    assert [found[:2] for found in page.evaluate(RUN)] == [["critical", "button-name"]]
