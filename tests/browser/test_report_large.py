"""A page with a thousand commits, fifty metrics and a timeline of fifty thousand events: it is small, and is drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxperf.files import write_whole
from fluxperf.harness.facts.inputs import Extras
from fluxperf.harness.report.html import render
from tests.browser.conftest import Opener
from tests.report import captures, evidence
from tests.report import pages as made

pytestmark = pytest.mark.browser

PAINTED = """() => new Promise((done) => {
  const seen = (entries) => {
    const first = entries.find((entry) => entry.name === "first-contentful-paint");
    if (first) done(first.startTime);
  };
  new PerformanceObserver((list) => seen(list.getEntries())).observe({type: "paint", buffered: true});
})"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    timeline = captures.many(24_500)
    assert captures.events(timeline) > 50_000
    files = made.files_of(*evidence.ladder(), *evidence.peers())
    extras = Extras(history=evidence.course(1000, 50), ceilings=evidence.CEILINGS, timeline=timeline)
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_whole(path, render(files, made.CONTEXT, extras))
    return path


def test_it_is_below_five_megabytes(report: Path):
    assert 500_000 < report.stat().st_size < 5_000_000


def test_it_is_on_the_screen(report: Path, opened: Opener):
    page = opened(report)
    assert page.evaluate(PAINTED) > 0
    assert page.locator("#history .spark").count() == 50
