"""The report in a real browser without a network: no console message, no overflow, a switch, tables, both themes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Opener

pytestmark = pytest.mark.browser

WIDTHS = (390, 768, 1440)

#: Elements that extend beyond the window, except inside scrolling containers.
CLIPPED = """
() => Array.from(document.querySelectorAll(
    "p, li, h1, h2, h3, summary, .table, figure, pre, select, dl, .figures > div"))
  .filter((element) => element.offsetWidth && element.getBoundingClientRect().right > innerWidth + 1)
  .map((element) => element.outerHTML.slice(0, 120))
"""

#: Text that extends beyond its plot, or overlaps other text in it.
CROWDED = """
() => Array.from(document.querySelectorAll("figure svg")).flatMap((svg) => {
  const frame = svg.getBoundingClientRect();
  const boxes = Array.from(svg.querySelectorAll("text"), (text) => [text.textContent, text.getBoundingClientRect()]);
  const outside = boxes.filter(([, box]) => box.left < frame.left - 2 || box.right > frame.right + 2
    || box.top < frame.top - 2 || box.bottom > frame.bottom + 2).map(([text]) => `outside: ${text}`);
  const over = boxes.flatMap(([text, box], place) => boxes.slice(place + 1)
    .filter(([, other]) => Math.min(box.right, other.right) - Math.max(box.left, other.left) > 3
      && Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top) > 4)
    .map(([other]) => `${text} over ${other}`));
  return [...outside, ...over].map((said) => `${svg.querySelector("title").textContent}: ${said}`);
})
"""


def test_page_opens_without_request_or_console_message(hostile: Path, opened: Opener):
    page = opened(hostile)
    assert page.title() == "fluxperf report", "a script in a label would have changed it"
    assert page.locator("main > section").count() == 14


def test_console_messages_would_be_seen(hostile: Path, tmp_path: Path, opened: Opener):
    broken = tmp_path / "broken.html"
    broken.write_text(hostile.read_text(encoding="utf-8").replace("</body>", "<script>alert(1)</script></body>"))
    page = opened(broken)
    assert any("Content Security Policy" in said for said in page.heard), "the policy refuses any other script"
    page.heard.clear()


def test_nothing_overflows_is_clipped_or_overlaps(hostile: Path, opened: Opener):
    page = opened(hostile, WIDTHS[0])
    page.evaluate("document.querySelectorAll('details:not(.raw)').forEach((one) => { one.open = true; })")
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (theme, width)
            assert page.evaluate(CLIPPED) == [], (theme, width)
            assert page.evaluate(CROWDED) == [], (theme, width)


def firsts(table: Any) -> list[str]:
    return [text.split("\n")[0] for text in table.locator("tbody th").all_inner_texts()]


def test_tables_sort_from_the_keyboard(hostile: Path, opened: Opener):
    page = opened(hostile)
    ladder = page.locator("#ladder article", has=page.locator("h3", has_text="tiny, host twins on AMD EPYC 9R14"))
    table = ladder.locator("table").first
    before = firsts(table)
    assert before[0] == "baseline"
    button = table.locator("thead button", has_text="Denoise")
    button.focus()
    page.keyboard.press("Enter")
    assert table.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    timed = [name for name in before if name != "tensorcore"]
    assert firsts(table) == [*timed[::-1], "tensorcore"], "fp8 takes the shortest time; what has none comes last"
    page.keyboard.press("Space")
    assert table.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    assert firsts(table) == [*timed, "tensorcore"]


def test_the_switch_shows_one_workload_and_machine_at_once(hostile: Path, opened: Opener):
    page = opened(hostile)
    articles = page.locator("article[data-view]")
    everything = articles.count()
    assert page.locator("article[data-view]:visible").count() == everything
    page.locator("#switch").focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("#switch").input_value() == "view-1"
    shown = {one.get_attribute("data-view") for one in page.locator("article[data-view]:visible").all()}
    assert shown == {"view-1"}
    assert "hidden" in page.locator(".switch-note").inner_text()
    page.evaluate("location.hash = 'ladder-3'")
    page.wait_for_function("document.getElementById('ladder-3').hidden === false")
    assert page.locator("#switch").input_value() != "view-1", "a link into something hidden shows it"
    page.locator("#switch").focus()
    page.keyboard.press("Home")
    assert page.locator("article[data-view]:visible").count() == everything


def test_without_scripts_everything_stands_there(hostile: Path, opened: Opener):
    page = opened(hostile, scripts=False)
    assert page.locator("article[data-view]:visible").count() == page.locator("article[data-view]").count() > 3
    assert not page.locator(".switch").is_visible()
    assert page.locator("noscript").first.is_visible()


def test_words_are_explained_from_the_keyboard(hostile: Path, opened: Opener):
    page = opened(hostile)
    page.locator("#summary .terms button", has_text="twin").focus()
    page.keyboard.press("Enter")
    said = page.locator("[popover]:popover-open")
    assert "replaces a kernel" in said.inner_text()
    page.keyboard.press("Escape")
    assert said.count() == 0
    help_of = page.locator("#ladder details.help > summary").first
    help_of.focus()
    page.keyboard.press("Enter")
    assert page.locator("#ladder details.help[open] dd").first.is_visible()


def test_raw_records_open(hostile: Path, opened: Opener):
    page = opened(hostile)
    page.locator("details.folded > summary").click()
    page.locator("details.raw > summary").first.click()
    page.wait_for_function("document.querySelector('details.raw pre').textContent.length > 0")
    assert '"schema": 1' in page.locator("details.raw pre").first.inner_text()


def test_dark_theme_turns_the_page_and_its_plots(hostile: Path, opened: Opener):
    drawn = """() => Array.from(document.querySelectorAll("svg text"), (text) => getComputedStyle(text).fill)
      .filter((colour) => colour === getComputedStyle(document.body).color).length"""
    page = opened(hostile, 768)
    inks, grounds, counts = set(), set(), []
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        inks.add(page.evaluate("getComputedStyle(document.body).color"))
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        counts.append(page.evaluate(drawn))
    assert len(inks) == len(grounds) == 2
    assert counts[0] == counts[1] > 20, "text in plots has the page's colour in both themes"
