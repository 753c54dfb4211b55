"""The report for everybody: axe-core finds nothing serious, in both themes, with everything unfolded."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from tests.browser.conftest import Opener

pytestmark = pytest.mark.browser

#: Most rows of a table, points of a list and marks of a plot are alike, and axe would check all of them for a minute.
#: Of those that differ only in text and position, one per section stays.
FEWER = """() => {
  const places = /^(d|[xy][12]?|c[xy]|r|points|transform|width|height|id|title|(xlink:)?href|clip-path|data-.*)$/;
  const of = (one) => [one.tagName, !one.children.length && !!one.textContent.trim(), ...Array.from(one.attributes,
    ({name, value}) => places.test(name) ? name : `${name}=${value.replace(/[0-9.]+(px|%|em)/g, "")}`)].join();
  for (const section of document.querySelectorAll("main > section")) {
    const known = new Set();
    for (const one of section.querySelectorAll("tbody tr, li, svg :is(path, rect, line, circle, use)")) {
      const kind = [one, ...one.querySelectorAll("*")].map(of).join("|");
      if (known.has(kind)) one.remove();
      known.add(kind);
    }
  }
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
    """Also in the last row of a table, the last point of a list and the last mark of a plot."""
    page = opened(everything)
    page.evaluate("""() => {
      const last = (holders, what) => [...document.querySelectorAll(holders)]
        .filter((one) => one.getClientRects().length)
        .map((one) => [...one.querySelectorAll(what)]).sort((one, other) => other.length - one.length)[0].at(-1);
      last("#ladder tbody", "tr").cells[1].insertAdjacentHTML("beforeend", "<button></button>");
      last("#ladder ul, #ladder ol, #summary ul", "li").insertAdjacentHTML("beforeend", "<a href='#ladder'></a>");
      last("#ladder svg", "path").setAttribute("role", "img");
    }""")
    page.evaluate(FEWER)
    page.evaluate("""document.querySelectorAll("main > section").forEach((one) => {
      if (!["summary", "ladder"].includes(one.id)) one.remove();
    })""")
    page.evaluate(axe)
    assert {found[1] for found in page.evaluate(RUN)} == {"button-name", "link-name", "svg-img-alt"}
