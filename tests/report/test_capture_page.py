"""The page of a capture: its content, hostile input, its size and its building time."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluxperf.harness.capture import gaps, tables
from fluxperf.harness.capture.compared import compared
from fluxperf.harness.capture.page import page
from fluxperf.harness.capture.strip import scripts, sections, styles
from fluxperf.harness.pages.page import Part
from fluxperf.harness.pages.templates import environment, script_hash
from fluxperf.harness.text import units
from fluxperf.harness.timeline.differing import difference
from fluxperf.harness.timeline.findings import KINDS, findings
from fluxperf.harness.timeline.model import Loss, Timeline
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.summary import summarize
from fluxperf.harness.timeline.tree import tree
from tests.counting import growth
from tests.report.captures import MS, US, Making, events, everything, many
from tests.report.pages import Page
from tests.report.test_page_holds import HOSTILE, skeleton


@pytest.fixture(scope="module")
def html() -> str:
    return page(everything())


def plain(text: str) -> str:
    return " ".join(text.replace(units.NBSP, " ").split())


def drawn(section: Part) -> str:
    macros = environment("fluxperf.harness.pages").get_template("macros.html.j2").module
    return str(macros.drawn(section.content))  # type: ignore[attr-defined]


def histogram(timeline: Timeline) -> list[gaps.Bin]:
    return gaps.histogram(timeline, Places(timeline))


def judged(timeline: Timeline) -> str:
    return plain(gaps.judged(histogram(timeline), summarize(timeline))[0])


# What it says


def test_sections_are_there_with_what_a_reader_asks(html: str):
    said = {name: plain(text) for name, text in Page(html).sections.items()}
    assert "15 kernels, 15 copies, 3 blocking waits" in said["summary"]
    assert "of 2 processes and 2 threads" in said["summary"]
    assert "GPU 1 Second GPU" in said["summary"]
    assert "Tracing slows the host" in said["limits"]
    assert "The view begins with step 1, 1.80 ms long. Of 3 steps" in said["strip"]
    for kind in {row.finding for row in findings(everything())}:
        assert kind in said["findings"]
        assert KINDS[kind].advice in said["findings"]


def test_tables_agree_with_the_summary(html: str):
    rows = Page(html).rows
    total = summarize(everything()).total
    whole = next(row for row in rows if row[0] == "whole capture")
    assert whole[6] == str(total.kernels)
    assert whole[4] == "—" or "%" in whole[4]
    flash = next(row for row in rows if row[0] == "flash" and len(row) == 5)
    assert (flash[1], flash[3], flash[4]) == ("900 µs", "3", "300 µs")
    up = next(row for row in rows if row[0] == "Host-to-Device" and len(row) == 7)
    assert up[1:6] == ["Pageable", "Device", "3", "12.0 MB", "300 µs"]


def test_the_tree_has_every_range_below_the_one_around_it(html: str):
    view = tables.inclusive(tree(everything(), Places(everything())))
    assert view is not None
    (outermost, outside) = view.rows
    assert [outermost.cells[0].text, outside.cells[0].text] == ["step *", "(no range)"]
    assert [row.cells[0].text for row in outermost.rows[0].rows] == ["qkv_heads", "attention", "started"]
    assert [row.open for row in (outermost, outermost.rows[0], outermost.rows[0].rows[2])] == [True, True, True]
    said = html[html.index('<div class="tree"') : html.index('id="costs"')]
    assert said.count("<summary>\n<span") == 2, "rows with rows below them fold"
    assert said.count("<details open>") == 2
    assert re.sub(r"<[^>]*>|\s", "", said).count("attention") == 1


def test_a_tree_of_many_ranges_says_how_many_it_leaves_out():
    made = Making()
    made.range("step 0", 0, 10 * MS)
    for number in range(tables.MOST_BRANCHES + 5):
        made.range(f"part{chr(97 + number % 26)}{chr(97 + number // 26)}", number * 20 * US, number * 20 * US + 10 * US)
    view = tables.inclusive(tree(made.done(), Places(made.done())))
    assert view is not None
    assert len(view.rows[0].rows) == tables.MOST_BRANCHES
    assert view.rows[0].rows[-1].cells[0].text.replace(units.NBSP, " ") == "6 more rows"


def test_two_captures_are_one_page_of_what_changed():
    rows = Page(compared(difference(everything(), everything(" later")))).rows
    (gone,) = (row for row in rows if row[0].startswith("step * / double * / attention") and "only before" in row[0])
    (come,) = (row for row in rows if row[0].startswith("step * / double * / attention later"))
    assert (gone[4], come[4]) == ("3 → 0", "0 → 3")
    assert next(row for row in rows if row[0] == "total")[1:4] == ["3.48 ms", "3.48 ms", "—"]


def test_notes_and_blind_spots_are_said():
    timeline = everything()
    timeline.notes.append("12 events were <dropped>")
    timeline.losses.append(Loss("cuda", "12 events were <dropped>"))
    said = Page(page(timeline)).sections
    assert "12 events were <dropped>" in said["summary"]
    assert "proves nothing here: Nsight Systems may have lost events (12 events were <dropped>)" in said["findings"]


def test_a_capture_with_little_in_it_has_a_page_too():
    made = Making()
    made.run("copy", 0, 10 * US, 5 * US, "memset", size=4)
    said = Page(page(made.done())).sections
    assert "no kernel" in said["strip-kernels"]
    assert "No GPU of this capture was idle" in said["strip-gaps"]
    assert "The capture contains no copy" in said["copies"]
    calls = Making()
    calls.call("cudaMalloc", 0, MS)
    assert "whole capture" in Page(page(calls.done())).sections["strip"]


def test_advice_follows_the_cause():
    made = Making()
    made.range("forward", 0, 2 * MS)
    made.run("first", 0, 10 * US, 90 * US)
    made.call("cudaMalloc", 110 * US, 900 * US)
    made.run("second", 905 * US, 910 * US, 90 * US)
    said = Page(page(made.done())).sections["findings"]
    assert "Allocate before the loop" in said
    assert "capture a CUDA graph" not in said


# Gaps


def test_gaps_fall_into_their_bins_by_cause():
    made = Making()
    made.run("first", 0, 10 * US, 10 * US)
    made.run("close", 12 * US, 20 * US + 400, 10 * US)
    made.run("late", 40 * US, 43 * US, 10 * US)  # the GPU was idle from 30.4 us
    made.run("queued", 44 * US, 75 * US, 10 * US)  # launched before 53 us, when the GPU ran out
    timeline = made.done()
    timeline.work.call[-1] = -1
    unknown = histogram(timeline)
    timeline = made.done()
    found = {
        (one.low_ns, cause): one.idle_ns[cause]
        for one in histogram(timeline)
        for cause in one.counts
        if one.counts[cause]
    }
    assert found == {(200, "short"): 400, (10 * US, "late"): 12_600, (20 * US, "queued"): 22 * US}
    assert sum(one.counts["unknown"] for one in unknown) == 1
    assert all(after.low_ns == before.high_ns for before, after in pairwise(unknown))


@given(st.integers(1, 2**63))
def test_every_length_has_a_bin(length: int):
    step = gaps._step(length)
    assert gaps._edge(step) <= length < gaps._edge(step + 1)


def test_the_launch_bound_test_tells_the_three_cases_apart():
    late, queued, busy = Making(), Making(), Making()
    for turn in range(10):
        late.run("kernel", turn * 20 * US, turn * 20 * US + 5 * US, 5 * US)
        queued.run("kernel", turn * US, 100 * US + turn * 20 * US, 5 * US, called_for=500)
        busy.run("kernel", turn * US, 100 * US + turn * 20 * US, 20 * US - 100)
    assert judged(late.done()).startswith("Launch-bound: the host is late for 100.0 % of the idle time")
    assert judged(queued.done()).startswith("Not launch-bound: late launches explain 0.0 %")
    assert judged(busy.done()).startswith("Idle time is small")
    blind = queued.done()
    blind.work.call[:] = -1
    assert judged(blind).startswith("No verdict is possible")


def test_the_histogram_has_its_words_and_its_table():
    timeline = everything()
    places = Places(timeline)
    view = gaps.gaps_view(timeline, places, summarize(timeline, "op", places), "one")
    assert view.figure is not None
    assert view.table is not None
    assert "Idle time by length of the gap." in view.figure.words
    assert 'aria-labelledby="one-plot-title one-plot-words"' in view.figure.svg
    whole = sum(sum(one.idle_ns.values()) for one in histogram(timeline))
    assert sum(row[2].order or 0 for row in view.table.rows) == whole
    assert sum(gap.end_ns - gap.start_ns for gap in places.gaps) == whole


# Hostile input


def test_nothing_asks_the_network_and_the_policy_allows_the_one_script(html: str):
    for tag, attrs in Page(html).tags:
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        for name in ("src", "href", "action", "data"):
            value = attrs.get(name)
            assert value is None or value.startswith("#") or value == "data:,", (tag, name, value)
    assert not re.search(r"https?://|@import", html)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert f"script-src 'sha256-{script_hash(script)}'" in html


def test_the_same_capture_gives_the_same_page(html: str):
    assert page(everything()) == html


def test_ids_are_unique_and_belong_to_their_prefix():
    timeline = everything()
    both = "".join(drawn(section) for prefix in ("one", "two") for section in sections(timeline, prefix))
    ids = re.findall(r'\sid="([^"]*)"', both)
    assert len(ids) == len(set(ids)) > 4
    assert all(name.startswith(("one", "two")) for name in ids)


def test_sections_can_stand_on_another_page():
    found = sections(everything(), "cap")
    assert [section.anchor for section in found] == ["cap", "cap-gaps", "cap-kernels"]
    assert not any("<h2" in drawn(section) for section in found)
    assert ".strip-canvas" in styles()
    assert "new Strip(root)" in scripts()


def test_times_beyond_any_clock_are_drawn_all_the_same():
    made = Making()
    made.range("step 0", -(2**62), 2**62)
    made.run("before", -(2**62), -(2**61), 2**60)
    made.run("after", 0, 2**61, 2**61)
    made.run("nothing", 5, 5, 0)
    html = page(made.done())
    assert "step 0" in Page(html).sections["strip"]
    json.loads(embedded(html))


def embedded(html: str) -> str:
    (block,) = re.findall(r'<script type="application/json" class="strip-data">(.*?)</script>', html, re.DOTALL)
    return str(block)


@pytest.fixture(scope="module")
def plain_skeleton() -> list[tuple[str, tuple[str, ...]]]:
    return skeleton(page(everything("plain")))


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_hostile_names_add_no_element(text: str, plain_skeleton: list[tuple[str, tuple[str, ...]]]):
    html = page(everything(text))
    assert skeleton(html) == plain_skeleton
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f\u2028\u2029\x00\x1b]", html)
    block = embedded(html)
    assert not set("<>&") & set(block)
    assert block.isascii()
    json.loads(block)
    assert len(html) < 600_000
    html.encode()


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(text=st.text(st.characters(), max_size=40) | st.text("<>&\"'/!-[]{}%$\\#script \u202e", max_size=40))
def test_no_name_adds_an_element(text: str, plain_skeleton: list[tuple[str, tuple[str, ...]]]):
    html = page(everything(text))
    assert skeleton(html) == plain_skeleton
    assert not set("<>&") & set(embedded(html))


# Size and time


@pytest.fixture(scope="module")
def large() -> Timeline:
    return many(24_500)


def test_fifty_thousand_events_stay_below_the_limits(large: Timeline, measure):
    assert 50_000 <= events(large) < 60_000
    size = sum(len(drawn(section).encode()) for section in sections(large))
    measure("strip of 50,000 events: bytes", "page part", size)
    assert size < 2_500_000


def test_the_work_grows_with_the_events():
    timelines = {size: many(size) for size in (1000, 2000)}
    assert growth(lambda size: sections(timelines[size]), 1000) < 2.5


def test_any_number_of_events_stays_below_the_limits():
    timeline = many(30_000, steps=1, per_op=200)
    assert events(timeline) > 60_000
    assert sum(len(drawn(section).encode()) for section in sections(timeline)) < 2_500_000


def test_without_scripts_the_words_stay_and_no_empty_picture(html: str):
    hidden = {str(attrs.get("class")) for _, attrs in Page(html).tags if "hidden" in attrs}
    assert {"strip-bar", "strip-frame", "strip-keys", "strip-legend", "strip-detail"} <= hidden
    assert "<noscript><p" in html
