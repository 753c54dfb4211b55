"""The strip works at all widths and themes, on paper, with hostile names, very many events, and without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fluxperf.harness.capture.page import page
from tests.browser.devtools import Browser
from tests.browser.strips import STRIP, Shown, alpha
from tests.report.captures import MS, Making, everything, many

pytestmark = pytest.mark.browser

HOSTILE = "</script><img src=x onerror=alert(1)>\u202e\n\0🙂" + "y" * 10_000


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strips")
    (folder / "everything.html").write_text(page(everything()), encoding="utf-8")
    (folder / "hostile.html").write_text(page(everything(HOSTILE)), encoding="utf-8")
    (folder / "large.html").write_text(page(many(24_500)), encoding="utf-8")
    return folder


@pytest.fixture
def shown(browser: Browser, pages: Path) -> Shown:
    return Shown(browser, pages / "everything.html")


@pytest.mark.parametrize("name", ["everything", "hostile", "large"])
def test_it_opens_without_a_console_message_or_a_request(browser: Browser, pages: Path, name: str):
    Shown(browser, pages / f"{name}.html")
    assert browser.console == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:,"))] == []
    assert browser.run("document.querySelectorAll('img').length") == 0


def test_what_is_thinner_than_a_pixel_is_as_dark_as_it_covers(browser: Browser, tmp_path: Path):
    made = Making()
    made.range("step 0", 0, 100 * MS)
    for start, distance in ((10 * MS, 1000), (30 * MS, 2000), (50 * MS, 8000)):
        for turn in range(2 * MS // distance):
            made.run("tiny", turn, start + turn * distance, 1000, called_for=1)
    path = tmp_path / "dense.html"
    path.write_text(page(made.done()), encoding="utf-8")
    shown = Shown(browser, path)
    y = browser.run(f"{STRIP}.painter.tops[{STRIP}.data.rows.findIndex((row) => row.of === 'stream')]") + 16
    low, high = shown.view()
    x = [int((at * MS - low) * shown.width / (high - low)) for at in (11, 31, 51, 77)]
    full, half, eighth, none = (alpha(browser, at, y) for at in x)
    assert full == 255
    assert 255 > half > eighth > none == 0
    browser.run(f"{STRIP}.look({10 * MS}, {10 * MS} + 20_000)")
    browser.frame()
    assert alpha(browser, 100, y) == 255, "one by one they are as dark as any"


def test_the_theme_may_change_while_it_is_shown(shown: Shown):
    light = shown.browser.run(f"{STRIP}.painter.fills.kernel")
    shown.browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    shown.browser.frame()
    assert shown.browser.run(f"{STRIP}.painter.fills.kernel") != light


def test_a_narrower_window_is_filled_again(shown: Shown):
    shown.browser.send("Emulation.setDeviceMetricsOverride", width=800, height=900, deviceScaleFactor=2, mobile=False)
    shown.browser.frame()
    width, pixels, drawn = shown.browser.run(
        f"[document.querySelector('.strip-canvas').getBoundingClientRect().width, {STRIP}.canvas.width, {STRIP}.width]"
    )
    assert width < shown.width
    assert drawn == int(width)
    assert pixels == 2 * drawn


@pytest.mark.parametrize("width", [1440, 768, 390])
@pytest.mark.parametrize("name", ["everything", "hostile"])
def test_nothing_overflows(browser: Browser, pages: Path, width: int, name: str):
    shown = Shown(browser, pages / f"{name}.html", width)
    shown.browser.run(f"{STRIP}.key('.')")
    browser.mouse("Moved", shown.left + shown.width - 20, shown.top + 40)
    assert browser.run("document.documentElement.scrollWidth") <= width
    beyond = browser.run("""Array.from(document.querySelectorAll('.strip *, .strip-tip')).filter((element) =>
      element.getBoundingClientRect().right > innerWidth + 1 && !element.closest('.scroll, .strip-labels'))
      .map((element) => element.className || element.tagName)""")
    assert beyond == []
    axis, canvas = browser.run(
        "['.strip-axis', '.strip-canvas'].map((name) => document.querySelector(name).getBoundingClientRect().x)"
    )
    assert axis == pytest.approx(canvas, abs=1)


def test_hostile_names_are_text(browser: Browser, pages: Path):
    shown = Shown(browser, pages / "hostile.html")
    shown.focus()
    browser.press(".")
    text = shown.text(".strip-detail")
    assert "</script><img src=x onerror=alert(1)>\\u202e\\u000a\\u0000🙂yy" in text
    assert "characters)" in text
    assert browser.console == []


def test_both_themes_colour_the_picture(browser: Browser, pages: Path):
    fills = {}
    for scheme in ("light", "dark"):
        Shown(browser, pages / "everything.html", scheme=scheme)
        fills[scheme] = browser.run(f"{STRIP}.painter.fills")
        assert all(fills[scheme].values())
        assert len(set(fills[scheme].values())) == len(fills[scheme])
    assert all(fills["light"][kind] != fills["dark"][kind] for kind in fills["light"])


def contrast(first: str, second: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_in_the_picture_can_be_read(browser: Browser, pages: Path, scheme: str):
    Shown(browser, pages / "everything.html", scheme=scheme)
    fills, inks = browser.run(f"[{STRIP}.painter.fills, {STRIP}.painter.inks]")
    paper = browser.run(f"{STRIP}.painter.colours.paper")
    on = {kind: paper if kind == "idle" else fill for kind, fill in fills.items()}
    assert {kind: round(contrast(on[kind], inks[kind]), 1) for kind in on if contrast(on[kind], inks[kind]) < 4.5} == {}


def test_paper_is_light_and_the_screen_comes_back(browser: Browser, pages: Path):
    shown = Shown(browser, pages / "everything.html", scheme="dark")
    dark = browser.run(f"{STRIP}.painter.fills.kernel")
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run(f"{STRIP}.painter.fills.kernel") != dark
    assert browser.run("document.querySelector('.strip-canvas').getBoundingClientRect().right") < 1080
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run(f"{STRIP}.painter.fills.kernel") == dark
    assert browser.run("document.querySelector('.strip-canvas').getBoundingClientRect().width") == shown.width


def test_of_fifty_thousand_events_a_frame_draws_what_its_pixels_hold(browser: Browser, pages: Path, measure: Any):
    """Counts, instead of timing, the events that frames visit and draw, at several zoom levels."""
    shown = Shown(browser, pages / "large.html")
    frames = browser.run(f"""(async () => {{
      const strip = {STRIP};
      const pen = strip.canvas.getContext("2d");
      const [all, near] = [{{}}, {{}}];
      let frame = all;
      const counted = (of, name, what) => {{
        const real = of[name];
        of[name] = (...given) => {{ frame[what] = (frame[what] || 0) + 1; return real.apply(of, given); }};
      }};
      for (const name of ["fillRect", "strokeRect", "fillText"]) counted(pen, name, "marks");
      counted(strip.painter, "tone", "items");
      strip.show(-1);
      strip.draw();
      frame = {{}};
      for (let turn = 0; turn < 30; turn++) strip.zoom(1 / 1.15);
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      frame = near;
      strip.draw();
      return [all, near, strip.data.rows.length];
    }})()""")
    everything, near, rows = frames
    for name, frame in (("all", everything), ("near", near)):
        for what, count in frame.items():
            measure(f"strip of 50,000 events: {what} of a frame", name, count)
    assert everything["items"] > 50_000
    assert everything["marks"] < rows * shown.width / 2, "what is thinner than a pixel is drawn together"
    assert near["items"] < everything["items"] / 1.15**30 * 2, "what is beside the view is not looked at"
    assert near["marks"] < everything["marks"]
