"""The report printed on A4: everything is expanded, and no word of a table or paragraph is lost."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from tests.browser.conftest import Opener

pytestmark = pytest.mark.browser

#: Words that a reader sees on the page, without those that are not printed.
WORDS = """() => Array.from(document.querySelectorAll(
    "main h2, main h3, main p, main li, main td, main th, main dt, main dd"))
  .filter((element) => !element.closest(
    "noscript, .terms, .again, .folded, .switch, .strip-bar, .strip-keys, .strip-tip"))
  .map((element) => element.textContent)"""


#: Elements that would extend beyond the printed sheet. Plots clip to their frame in any case.
OUTSIDE = """() => Array.from(document.querySelectorAll("main *:not(svg *)"))
  .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
  .map((element) => element.outerHTML.slice(0, 120))"""

#: Pixels of A4's long side without the page's margins.
ACROSS = round((297 - 24) / 25.4 * 96)


def letters(text: str) -> str:
    """A text without white space, so that line breaks do not matter."""
    return re.sub(r"\s+", "", text)


def test_it_prints_to_a4_without_losing_content(everything: Path, opened: Opener):
    pypdf = pytest.importorskip("pypdf", reason="reads what was printed; comes with the test extra")
    page = opened(everything)
    page.select_option("#switch", "view-1")  # what the switch hides is printed in any case
    printed = pypdf.PdfReader(io.BytesIO(page.pdf(prefer_css_page_size=True, print_background=True)))
    for sheet in printed.pages:
        assert {round(float(side) * 25.4 / 72) for side in sheet.mediabox[2:]} == {210, 297}
    text = letters("".join(sheet.extract_text() for sheet in printed.pages))
    assert len(printed.pages) < 120
    wanted = [word for said in page.evaluate(WORDS) for word in said.split() if len(word) > 3]
    assert len(wanted) > 2000
    assert [word for word in wanted if letters(word) not in text] == []


def test_nothing_leaves_the_sheet(hostile: Path, opened: Opener):
    page = opened(hostile, ACROSS)
    page.emulate_media(media="print")
    page.evaluate("document.querySelectorAll('details:not(.raw)').forEach((one) => { one.open = true; })")
    assert page.evaluate(OUTSIDE) == []
