"""The strip's data: the selected step, its rows, and columns that agree with the capture."""

from __future__ import annotations

import json
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxperf.harness.capture.rows import KINDS, rows_of
from fluxperf.harness.capture.strip_data import strip_of
from fluxperf.harness.capture.windows import windows
from fluxperf.harness.capture.words import by_op, longest
from fluxperf.harness.text import units
from fluxperf.harness.timeline.model import NONE, Timeline
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.summary import summarize
from tests.report.captures import MS, US, Making, everything, many

SCRIPTS = sorted(
    (
        path
        for house in ("capture", "pages")
        for path in (resources.files(f"fluxperf.harness.{house}") / "assets").iterdir()
        if path.name.endswith(".js")
    ),
    key=lambda path: path.name,
)


def strip(timeline: Timeline, **limits: int) -> Any:
    places = Places(timeline)
    return strip_of(timeline, places, windows(timeline, places), **limits)


def decoded(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Items as the page's script decodes them, in the order of their indices."""
    items = []
    for group in document["groups"]:
        for row in group["rows"]:
            size = len(row["start"])
            column = {
                name: [row[name]] * size if isinstance(row[name], int) else row[name]
                for name in ("length", "thing", "range", "call")
            }
            start, around, call = 0, -1, -1
            for at in range(size):
                start += row["start"][at]
                around += column["range"][at]
                call += column["call"][at]
                kind, name, full, detail = (part[column["thing"][at]] for part in document["things"])
                items.append(
                    {
                        "of": row["of"],
                        "start": start,
                        "end": start + column["length"][at],
                        "kind": document["kinds"][kind],
                        "name": document["texts"][name],
                        "full": document["texts"][full] if full >= 0 else "",
                        "detail": document["texts"][detail] if detail >= 0 else "",
                        "range": around,
                        "call": call,
                        "bytes": dict(row["bytes"]).get(at, 0),
                        "merged": dict(row["merged"]).get(at, 1),
                    }
                )
    return items


# The selected step


def test_the_step_of_median_gpu_time_is_shown_first_and_says_why():
    timeline = everything()
    found = windows(timeline, Places(timeline))
    assert [row.name for row in found.rows] == ["step 0", "step 1", "step 2"]
    assert found.shown.name == "step 1"
    assert "Of 3 steps" in found.why
    assert "median GPU time" in found.why
    assert found.shown.start_ns == 2 * MS
    assert found.shown.end_ns == 3800 * US


def test_a_step_lasts_until_its_work_is_done():
    made = Making()
    made.range("step 0", 0, 10 * US)
    made.run("late", 5 * US, 50 * US, 20 * US)
    timeline = made.done()
    assert windows(timeline, Places(timeline)).shown.end_ns == 70 * US


def test_of_an_even_number_the_earlier_median_is_shown():
    made = Making()
    for step, lasts in enumerate((5, 40, 10, 20)):
        made.range(f"step {step}", step * MS, step * MS + 500 * US)
        made.run("kernel", step * MS, step * MS + 10 * US, lasts * US)
    timeline = made.done()
    assert windows(timeline, Places(timeline)).shown.name == "step 2"


def test_without_steps_an_outermost_range_stands_for_one():
    made = Making()
    for turn in range(3):
        made.range("iteration", turn * MS, turn * MS + 500 * US)
        made.run("kernel", turn * MS, turn * MS + 10 * US, (turn + 1) * 10 * US)
    made.range("setup", 9 * MS, 10 * MS)
    made.run("kernel", 9 * MS, 9 * MS + 5 * US, US)
    timeline = made.done()
    found = windows(timeline, Places(timeline))
    assert [row.name for row in found.rows] == [
        "iteration (turn 1)",
        "iteration (turn 2)",
        "iteration (turn 3)",
        "setup",
    ]
    assert found.shown.name == "iteration (turn 2)"
    assert "no range named “step N”" in found.why


def test_without_ranges_the_whole_capture_is_shown():
    made = Making()
    made.run("kernel", 10 * US, 20 * US, US)
    timeline = made.done()
    found = windows(timeline, Places(timeline))
    assert [row.name for row in found.rows] == ["whole capture"]
    assert (found.shown.start_ns, found.shown.end_ns) == (10 * US, 21 * US)
    assert decoded(json.loads(strip(timeline).json))[-1]["name"] == "kernel"


def test_steps_of_two_processes_are_distinguished():
    made = Making()
    for process in (100, 200):
        made.range("step 0", 0, MS, process=process)
        made.run("kernel", US, 10 * US, US, process=process)
    timeline = made.done()
    assert [row.name for row in windows(timeline, Places(timeline)).rows] == [
        "step 0, process 100",
        "step 0, process 200",
    ]


def test_steps_of_two_threads_are_distinguished():
    made = Making()
    for thread in (1, 2):
        made.range("step 0", 0, MS, thread=thread)
        made.run("kernel", US, 10 * US, US, thread=thread, gpu=thread)
    timeline = made.done()
    assert [row.name for row in windows(timeline, Places(timeline)).rows] == ["step 0, thread 1", "step 0, thread 2"]


def test_the_nearest_of_very_many_stretches_can_be_chosen():
    made = Making()
    for turn in range(500):
        made.range("iteration", turn * 10 * US, turn * 10 * US + 9 * US)
        made.run("kernel", turn * 10 * US, turn * 10 * US + 3 * US, 1000 + turn)
    timeline = made.done()
    found = windows(timeline, Places(timeline))
    assert len(found.rows) == 200
    assert found.shown.gpu_ns == 1000 + 249
    assert "The 200 of 500 outermost ranges nearest to it can be selected." in found.why


# Rows


def test_every_kind_of_item_has_its_row():
    timeline = everything()
    places = Places(timeline)
    rows = rows_of(timeline, places, windows(timeline, places).shown)
    labels = {group.label: [row.label for row in group.rows] for group in rows.groups}
    assert labels == {
        "Host, thread 1 of python 100 “main”": ["step", "block", "op", "op", "CUDA calls", "waits"],
        "Host, thread 1 of python 200 “main”": ["CUDA calls"],
        "GPU 0 Example GPU": ["stream 7, 100", "overlapping", "stream 13, 100", "idle"],
        "GPU 1 Second GPU": ["stream 7, 200", "idle"],
    }
    assert {item.kind for group in rows.groups for row in group.rows for item in row.items} == set(KINDS)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 120), st.booleans()), max_size=30),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 60), st.integers(0, 2)), max_size=40),
)
def test_items_of_a_row_never_overlap_and_none_is_lost(ranges: list[Any], launches: list[Any]):
    made = Making()
    for start, lasts, pushed in ranges:
        made.range("a", start * US, (start + lasts) * US, pushed=pushed)
    for start, lasts, stream in launches:
        made.run("k", start * US, (start + 3) * US, lasts * US, stream=stream)
    timeline = made.done()
    rows = strip(timeline).rows
    for group in rows.groups:
        for row in group.rows:
            for before, after in zip(row.items, row.items[1:], strict=False):
                assert before.end_ns <= after.start_ns
                assert before.start_ns <= before.end_ns
    count = {
        of: sum(len(row.items) for g in rows.groups for row in g.rows if row.of == of) for of in ("ranges", "stream")
    }
    hidden = any("deeper" in text for text in rows.left_out)
    assert count["ranges"] == len(ranges) or hidden
    assert count["stream"] == len(launches)


def test_ranges_without_end_do_not_make_endless_rows():
    made = Making()
    for depth in range(3000):
        made.range("turn", depth * US, 10 * MS)
        made.run("kernel", depth * US, depth * US + 500, 100)
    found = strip(made.done())
    assert sum(row.of == "ranges" for group in found.rows.groups for row in group.rows) == 12
    assert any("2,988 ranges lie deeper" in text for text in found.left_out)
    items = decoded(json.loads(found.json))
    assert {items[item["range"]]["of"] for item in items if item["of"] == "stream"} == {"ranges"}


# The data in the page


def test_the_columns_say_what_the_capture_says():
    timeline = everything()
    document = json.loads(strip(timeline).json)
    items = decoded(document)
    zero = windows(timeline, Places(timeline)).shown.start_ns
    works = [item for item in items if item["of"] == "stream"]
    assert sorted((item["start"], item["end"], item["name"], item["bytes"]) for item in works) == sorted(
        (row.start_ns - zero, row.end_ns - zero, row.name, row.bytes) for row in timeline.work
    )
    for item in works:
        (row,) = [row for row in timeline.work if (row.start_ns - zero, row.name) == (item["start"], item["name"])]
        call = timeline.calls[row.call]
        assert (items[item["call"]]["of"], items[item["call"]]["start"]) == ("calls", call.start_ns - zero)
        expected = timeline.ranges[row.range].name if row.range != NONE else None
        assert (items[item["range"]]["name"] if item["range"] >= 0 else None) == expected
    copy = next(item for item in works if item["kind"] == "h2d")
    assert copy["detail"] == "Pageable to Device"
    kernel = next(item for item in works if item["name"] == "qkv")
    shape = f"64{units.BY}1{units.BY}1, block 128{units.BY}1{units.BY}1"
    assert (kernel["full"], kernel["detail"]) == ("void qkv<float>(float*)", f"grid {shape}")
    ranges = [item for item in items if item["of"] == "ranges"]
    op = next(item for item in ranges if item["name"] == "qkv_heads")
    assert items[op["range"]]["name"] == "double 0"
    for name, _start, _end, number, _gpu in document["windows"]:
        assert items[number]["name"] == name
    assert document["windows"][document["first"]][1] == 0


def test_gaps_name_the_work_that_ended_them_and_whether_its_launch_was_late():
    items = [item for item in decoded(json.loads(strip(everything()).json)) if item["of"] == "idle"]
    found = {(item["kind"], item["name"], item["end"] - item["start"]) for item in items if 0 <= item["start"] < 2 * MS}
    assert ("late", "before flash", 110 * US) in found
    assert ("idle", "before Device-to-Host", 20 * US) in found


def test_a_capture_that_is_too_large_keeps_the_first_step_and_says_what_is_missing():
    timeline = many(2000, steps=10)
    whole, part = strip(timeline), strip(timeline, most_items=2000)
    assert len(whole.windows.rows) == 10
    assert not whole.left_out
    assert 1 <= len(part.windows.rows) < 10
    assert part.windows.shown == whole.windows.shown
    assert part.rows.number <= 2000
    assert f"it contains {len(part.windows.rows)} of 10 steps" in part.left_out[0]


def test_a_step_that_is_too_large_joins_short_neighbours_and_counts_them():
    timeline = many(3000, steps=1)
    found = strip(timeline, most_items=1500)
    assert found.rows.number <= 1500
    assert any("drawn as one" in text for text in found.left_out)
    items = decoded(json.loads(found.json))
    assert sum(item["merged"] for item in items if item["of"] == "stream") == len(timeline.work)
    copies = [item for item in items if item["kind"] in ("h2d", "d2h")]
    assert sum(item["merged"] for item in copies) == sum(row.copy is not None for row in timeline.work)
    assert sum(item["bytes"] for item in copies) == sum(row.bytes for row in timeline.work)


def test_bytes_are_bounded_whatever_the_names():
    made = Making()
    made.range("step 0", 0, 100 * MS)
    for number in range(1500):
        made.run("\U0001f642" * 300 + str(number), number * 50 * US, number * 50 * US + 3 * US, 40 * US)
    found = strip(made.done(), most_bytes=300_000)
    assert len(found.json) <= 300_000
    assert found.left_out


# In words


def test_the_tables_say_what_the_strip_shows():
    timeline = everything()
    places = Places(timeline)
    found = strip(timeline)
    shown = found.windows.shown
    ops = {row[0].text: row for row in by_op(timeline, places, shown).rows}
    assert set(ops) == {"qkv_heads", "attention"}, "that of the other process was launched in no step"
    assert sum(row[1].order or 0 for row in ops.values()) == sum(
        row.end_ns - row.start_ns
        for row in timeline.work
        if row.range != NONE and places.step(row.range) == shown.range
    )
    table = longest(found.rows, places, shown)
    first = [row for row in table.rows if row[0].note == "stream 7, 100"]
    assert [row[1].text for row in first] == ["flash", "qkv", "Host-to-Device", "graph", "Device-to-Device", "overlap"]
    assert first[0][4].text.replace("\N{NO-BREAK SPACE}", " ") == "300 µs"


def test_by_op_of_the_whole_capture_agrees_with_the_summary():
    made = Making()
    made.run("kernel", 10 * US, 20 * US, US)
    timeline = made.done()
    places = Places(timeline)
    (row,) = by_op(timeline, places, windows(timeline, places).shown).rows
    assert row[1].order == summarize(timeline, "op", places).total.gpu_sum_ms * 1e6


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_write_text_and_never_markup(script: Traversable):
    text = script.read_text(encoding="utf-8")
    for way in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "fetch(",
        "import(",
    ):
        assert way not in text
