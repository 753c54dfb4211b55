"""The page at different screen widths: the ladder's tables fit a wide screen, and the page never scrolls sideways."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxperf.files import write_whole
from fluxperf.harness.report.html import render
from fluxperf.published import context
from tests.browser.devtools import Browser
from tests.report import evidence
from tests.report import pages as made

pytestmark = pytest.mark.browser

#: Width that a table needs beyond its container, by section.
BEYOND = """Array.from(document.querySelectorAll(".table .scroll"))
  .filter((one) => one.offsetWidth && one.scrollWidth > one.clientWidth)
  .map((one) => [one.closest("section").id, one.scrollWidth - one.clientWidth])"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ladders with the texts of the real one, several records of each rung, and numbers of realistic length."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    ladder = evidence.ladder()
    older = [made.on_gpu(record.rung, 301.25, created_utc="2026-01-01T00:00:00Z") for record in ladder]
    files = made.files_of(*ladder, *older, *made.twins())
    write_whole(path, render(files, context("fluxperf run --all")))
    return path


def beyond(browser: Browser, page: Path, width: int) -> list[list[object]]:
    browser.open(page, width)
    sides = browser.run("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert sides == 0, "the page itself never scrolls sideways"
    found: list[list[object]] = browser.run(BEYOND)
    return found


def test_no_table_of_the_ladder_scrolls_on_a_wide_screen(browser: Browser, report: Path):
    assert [row for row in beyond(browser, report, 1440) if row[0] == "ladder"] == []
    assert [row for row in beyond(browser, report, 768) if row[0] == "ladder"], "what is too narrow would be seen"
    beyond(browser, report, 390)
