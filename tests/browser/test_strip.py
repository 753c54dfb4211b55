"""The strip in a real browser: it draws, zooms, pans, measures, selects and searches by mouse, touch and keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxperf.harness.capture.page import page
from fluxperf.harness.text import units
from tests.browser.devtools import Browser
from tests.browser.strips import STRIP, Shown, alpha
from tests.report.captures import everything

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("strip") / "everything.html"
    path.write_text(page(everything()), encoding="utf-8")
    return path


@pytest.fixture
def shown(browser: Browser, path: Path) -> Shown:
    return Shown(browser, path)


def test_it_draws(shown: Shown):
    colours = shown.browser.run("""(() => {
      const canvas = document.querySelector('.strip-canvas');
      const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      const seen = new Set();
      for (let at = 0; at < data.length; at += 4) if (data[at + 3] === 255) seen.add(data.slice(at, at + 3).join());
      return seen.size;
    })()""")
    assert colours > 12


def test_copies_to_the_device_are_above_and_copies_to_the_host_below(shown: Shown):
    rows = shown.browser.run(f"({STRIP}).painter.tops[{STRIP}.data.rows.findIndex((row) => row.of === 'stream')]")
    for name, upper, lower in (("Host-to-Device", 255, 0), ("Device-to-Host", 0, 255), ("flash", 255, 255)):
        x = int(shown.place(name)[0] - shown.left)
        assert (alpha(shown.browser, x, rows + 4), alpha(shown.browser, x, rows + 28)) == (upper, lower), name


def test_the_first_view_is_the_step(shown: Shown):
    low, high = shown.view()
    assert (round(low), round(high)) == (-27_000, 1_827_000)


def test_keys_zoom_pan_and_return(shown: Shown):
    browser = shown.browser
    shown.focus()
    before = shown.view()
    browser.press("+")
    low, high = shown.view()
    assert high - low == pytest.approx((before[1] - before[0]) / 1.5)
    browser.press("ArrowRight")
    assert shown.view()[0] == pytest.approx(low + 0.15 * (high - low))
    browser.press("Home")
    assert shown.view()[0] == pytest.approx(0)
    browser.press("End")
    assert shown.view()[1] == pytest.approx(1_800_000)
    browser.press("ArrowLeft")
    assert shown.view()[1] < 1_800_000
    browser.press("-")
    browser.press("0")
    assert shown.view() == pytest.approx(before)


def test_focus_is_visible_and_tab_leaves_the_timeline(shown: Shown):
    browser = shown.browser
    browser.run("document.querySelector('.strip-buttons button:last-child').focus()")
    browser.press("Tab")
    assert browser.run("document.activeElement.className") == "strip-canvas"
    assert browser.run("getComputedStyle(document.activeElement).outlineWidth") == "2px"
    browser.press("Tab")
    assert browser.run("document.activeElement.className") != "strip-canvas"


def test_the_wheel_zooms_at_the_pointer_and_leaves_the_page_alone_until_it_is_asked(shown: Shown):
    browser = shown.browser
    x, y = shown.place("flash")
    before = shown.view()
    browser.mouse("Wheel", x, y, deltaX=0, deltaY=-200)
    assert shown.view() == before, "the page scrolls"
    browser.run("document.querySelector('.strip').scrollIntoView({behavior: 'instant'})")
    browser.mouse("Wheel", x, y, deltaX=0, deltaY=-200, modifiers=2)
    low, high = shown.view()
    assert high - low == pytest.approx((before[1] - before[0]) * 1.0018**-200)
    assert shown.place("flash")[0] == pytest.approx(x, abs=1.5)
    browser.mouse("Wheel", x, y, deltaX=0, deltaY=100, modifiers=8)
    assert shown.view()[0] > low, "Shift pans"


def test_dragging_pans_and_selects_nothing(shown: Shown):
    browser = shown.browser
    x, y = shown.place("flash")
    low, high = shown.view()
    browser.mouse("Pressed", x, y)
    for step in range(1, 6):
        browser.mouse("Moved", x - 20 * step, y, button="left", buttons=1)
    browser.mouse("Released", x - 100, y)
    assert shown.view()[0] > low
    assert shown.place("flash")[0] == pytest.approx(x - 100, abs=1.5)
    assert browser.run(f"{STRIP}.state.selected") == -1
    assert shown.view()[1] - shown.view()[0] == pytest.approx(high - low)


def test_two_fingers_zoom_where_they_are(shown: Shown):
    browser = shown.browser
    x, y = shown.place("flash")
    low, high = shown.view()
    browser.send("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)
    try:
        for kind, apart in (("touchStart", 50), ("touchMove", 75), ("touchMove", 100)):
            points = [{"x": x - apart, "y": y, "id": 1}, {"x": x + apart, "y": y, "id": 2}]
            browser.send("Input.dispatchTouchEvent", type=kind, touchPoints=points)
        browser.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    finally:
        browser.send("Emulation.setTouchEmulationEnabled", enabled=False)
    assert shown.view()[1] - shown.view()[0] == pytest.approx((high - low) / 2, rel=0.05)
    assert shown.place("flash")[0] == pytest.approx(x, abs=30)
    assert browser.run(f"{STRIP}.state.selected") == -1


def test_the_pointer_shows_what_it_is_over(shown: Shown):
    shown.browser.mouse("Moved", *shown.place("Host-to-Device"))
    text = shown.text(".strip-tip")
    for part in ("Host-to-Device", "100 µs from 40.0 µs", "4.00 MB", "copy, host to device", "stream 7"):
        assert part in text
    assert "step 1 / double 0 / qkv_heads" in text
    shown.focus()
    shown.browser.press("Escape")
    assert shown.browser.run("document.querySelector('.strip-tip').hidden") is True


def test_a_click_selects_and_tells_everything(shown: Shown):
    shown.click(*shown.place("qkv"))
    text = shown.text(".strip-detail")
    for part in ("qkv", "void qkv<float>(float*)", "150 µs", "210 µs", f"grid 64{units.BY}1{units.BY}1, block 128"):
        assert part in text
    assert "cudaLaunchKernel, called 100 µs before this item began" in text
    said = shown.text(".strip-live")
    assert said.startswith("qkv, kernel, 210 µs from 150 µs, GPU 0 Example GPU, stream 7, 100, range step 1")
    shown.click(shown.left + 4, shown.top + 4)
    assert shown.browser.run("document.querySelector('.strip-detail').hidden") is True


def test_keys_select_items_and_rows(shown: Shown):
    browser = shown.browser
    shown.focus()
    browser.press(".")
    assert shown.text(".strip-live").startswith("Host-to-Device")
    browser.press(".")
    assert shown.text(".strip-live").startswith("qkv, kernel")
    browser.press(",")
    assert shown.text(".strip-live").startswith("Host-to-Device")
    browser.press("ArrowDown")
    assert "stream 7, 100, further row" in shown.text(".strip-live")
    browser.press("ArrowUp")
    browser.press("ArrowUp")
    assert "CUDA call" in shown.text(".strip-live")
    browser.press("ArrowUp")
    assert "host waits" in shown.text(".strip-live")
    browser.press("Enter")
    low, high = shown.view()
    start, end = browser.run(
        f"(() => {{ const item = {STRIP}.data.item({STRIP}.state.selected); return [item.start, item.end]; }})()"
    )
    assert low < start < end < high
    assert high - low == pytest.approx((end - start) * 1.4)
    browser.press("Escape")
    assert browser.run(f"{STRIP}.state.selected") == -1


def test_a_stretch_is_measured_by_mouse(shown: Shown):
    browser = shown.browser
    x, y = shown.place("qkv")
    low, _ = shown.view()
    ends = [shown.left + (time - low) * shown.width / (1.03 * 1.8e6) for time in (50_000, 350_000)]
    browser.mouse("Pressed", ends[0], y, modifiers=8)
    browser.mouse("Moved", x, y, button="left", buttons=1, modifiers=8)
    browser.mouse("Moved", ends[1], y, button="left", buttons=1, modifiers=8)
    browser.mouse("Released", ends[1], y, modifiers=8)
    assert shown.view()[0] == low, "it does not pan"
    text = shown.text(".strip-detail")
    assert "Measured: 300 µs" in text
    assert f"busy 100.0 %; 1 {units.BY} copy, host to device; 3 {units.BY} kernel; 4.00 MB" in text
    shown.focus()
    browser.press("Escape")
    assert browser.run(f"{STRIP}.state.stretch") is None
    assert browser.run("document.querySelector('.strip-detail').hidden") is True


def test_a_stretch_is_measured_by_keys(shown: Shown):
    browser = shown.browser
    shown.focus()
    browser.press(".")
    browser.press("m")
    assert "Measured: 100 µs" in shown.text(".strip-live")
    for _ in range(3):
        browser.press(".")
    browser.press("m")
    said = shown.text(".strip-live")
    assert "Measured: 970 µs" in said, "from the copy to the end of flash"
    assert "GPU 0 Example GPU busy 88.7 %" in said


def test_search_counts_and_goes_from_match_to_match(shown: Shown):
    browser = shown.browser
    browser.run("document.querySelector('.strip-search').focus()")
    for letter in "flash":
        browser.press(letter)
    assert shown.text(".strip-found") == "6 found, 900 µs on GPUs", "three kernels, and the gaps before them"
    browser.press("Enter")
    assert "of 6 found" in shown.text(".strip-found")
    assert "flash" in shown.text(".strip-live")
    first = browser.run(f"{STRIP}.state.selected")
    browser.press("Enter")
    assert browser.run(f"{STRIP}.state.selected") != first
    browser.press("Enter", shift=True)
    assert browser.run(f"{STRIP}.state.selected") == first
    browser.run("document.querySelector('.strip-search').value = 'nothing such'")
    browser.press("x")
    assert shown.text(".strip-found") == "0 found"


def test_another_step_and_everything_can_be_shown(shown: Shown):
    choose = """(() => { const box = document.querySelector('.strip-choice'); box.value = '%d';
      box.dispatchEvent(new Event('change')); return document.querySelector('.strip-canvas').ariaLabel; })()"""
    assert shown.browser.run(choose % 0) == "Timeline of step 0"
    assert shown.view()[0] == pytest.approx(-2_027_000, abs=20)
    assert shown.browser.run(choose % -1) == "Timeline of everything in this page"
    low, high = shown.view()
    assert low < -2_000_000
    assert high > 3_800_000


def test_an_unchosen_step_is_paler(shown: Shown):
    pale = "(() => {{ const S = {strip}; const row = S.data.rows.find((row) => row.of === 'stream'); return " \
        "Array.from(row.thing, (thing, at) => S.painter.tone(row.first + at, thing, S.state)); }})()"  # fmt: skip
    tones = shown.browser.run(pale.format(strip=STRIP))
    assert sorted(set(tones)) == [0, 1]
    assert tones.count(0) * 2 == tones.count(1)
