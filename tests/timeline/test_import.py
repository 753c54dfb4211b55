"""Reading exports: what is accepted, what is refused and how, and that a large one takes seconds."""

from __future__ import annotations

import random
import re
import sqlite3
import stat
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from fluxperf.errors import TimelineError
from fluxperf.harness.timeline.findings import Finding, findings
from fluxperf.harness.timeline.model import NONE, Timeline
from fluxperf.harness.timeline.nsys import read_capture
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.summary import Summary, summarize
from fluxperf.harness.timeline.trace import trace_parts
from tests.counting import growth
from tests.timeline.making import US, Capture, example


def refusal(path: Path) -> str:
    with pytest.raises(TimelineError) as error:
        read_capture(path)
    return str(error.value)


def test_what_a_capture_says_about_itself(tmp_path: Path):
    timeline = example().read(tmp_path)
    assert (timeline.schema, timeline.product, timeline.graph_mode) == ("3.24.14", "2025.1.1.100", "Node")
    assert timeline.gpus == {0: "Example GPU"}
    assert list(timeline.processes.values()) == ["python"]
    assert [thread.name for thread in timeline.threads] == ["main"]
    assert {row.domain for row in timeline.ranges} == {"fluxperf"}
    assert timeline.notes == []
    assert {call.name for call in timeline.calls} == {"cudaMemcpyAsync", "cudaLaunchKernel", "cudaStreamSynchronize"}


@pytest.mark.parametrize("variant", ["2023", "2025"])
@pytest.mark.parametrize(
    ("kind", "memory", "crossing", "unified"),
    [
        (1, (0, 2), "h2d", False),
        (2, (2, 1), "d2h", False),
        (8, (2, 2), "", False),
        (10, (2, 2), "", False),
        (11, (4, 4), "h2d", True),
        (12, (4, 4), "d2h", True),
        (99, (7, 7), "", False),
    ],
)
def test_kinds_of_copies(variant, kind, memory, crossing, unified, tmp_path: Path):
    capture = Capture(variant)
    capture.copy(kind, US, 2 * US, 1, 4096, source=memory[0], target=memory[1])
    (row,) = capture.read(tmp_path).work
    assert row.copy is not None
    assert (row.copy.crossing, row.copy.unified, row.bytes) == (crossing, unified, 4096)
    assert row.copy.pageable == (memory[0] == 0)
    assert row.copy.source_memory == {0: "Pageable", 2: "Device", 4: "Managed", 7: "Unknown"}[memory[0]]


def test_numbers_of_an_enum_come_from_its_table(tmp_path: Path):
    capture = Capture()
    capture.add("ENUM_CUDA_MEMCPY_OPER", id=77, name="CUDA_MEMCPY_KIND_DTOH", label="To the host")
    capture.add("ENUM_CUPTI_SYNC_TYPE", id=9, name="CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_NEW_SYNCHRONIZE", label="New")
    capture.copy(77, US, 2 * US, 1, 8)
    capture.sync(9, US, 2 * US, 1)
    timeline = capture.read(tmp_path)
    assert timeline.work[0].copy is not None
    assert (timeline.work[0].copy.direction, timeline.work[0].copy.crossing) == ("To the host", "d2h")
    assert (timeline.syncs[0].kind, timeline.syncs[0].blocks) == ("New", True)


@pytest.mark.parametrize("variant", ["2023", "2025"])
def test_only_waits_of_the_host_block(variant, tmp_path: Path):
    capture = Capture(variant)
    for kind in (1, 2, 3, 4):
        capture.sync(kind, kind * US, (kind + 1) * US, capture.call("cuSync", kind * US, (kind + 1) * US))
    assert [sync.blocks for sync in capture.read(tmp_path).syncs] == [True, False, True, True]


def test_copies_of_a_batch_are_all_counted(tmp_path: Path):
    capture = Capture()
    capture.copy(1, US, 2 * US, 1, 800, count=8)
    (row,) = summarize(capture.read(tmp_path)).total.copies
    assert (row.count, row.bytes) == (8, 800)


def test_graphs_that_were_traced_as_a_whole_are_reported(tmp_path: Path):
    capture = Capture(graph_mode="Graph")
    number = capture.call("cudaGraphLaunch", 0, US)
    capture._gpu("GRAPH_TRACE", 2 * US, 9 * US, number, 100, 0, 7, graphId=5)
    timeline = capture.read(tmp_path)
    assert [(row.kind, row.name) for row in timeline.work] == [("graph", "graph 5")]
    assert any("inside a graph are missing from the capture" in note for note in timeline.notes)


@pytest.mark.parametrize("text", [None, ""])
def test_a_name_is_its_text_or_else_a_registered_one(text, tmp_path: Path):
    capture = Capture()
    capture.launch("kernel", 5 * US, 10 * US, 10 * US)
    for text_id in (capture.string("registered"), None):
        capture.add("NVTX_EVENTS", start=0, end=US, eventType=59, text=text, textId=text_id, globalTid=1)
    assert [row.name for row in capture.read(tmp_path).ranges] == ["registered", "(unnamed)"]


def test_a_range_that_never_closed_is_drawn_to_the_end_and_holds_nothing(tmp_path: Path):
    capture = Capture()
    capture.range("open", US, None)
    capture.launch("kernel", 5 * US, 10 * US, 10 * US)
    timeline = capture.read(tmp_path)
    assert timeline.ranges[0].end_ns == 20 * US
    assert not timeline.ranges[0].closed
    assert timeline.work[0].range == NONE
    assert any("Never closed: 1 range ('open')." in note for note in timeline.notes)


def test_a_file_that_is_not_there_and_a_folder(tmp_path: Path):
    assert "No such file" in refusal(tmp_path / "nothing.sqlite")
    assert "Is a directory" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 4096, b"SQLite format 2\0" + b"x" * 500])
def test_a_file_that_is_not_sqlite(content: bytes, tmp_path: Path):
    path = tmp_path / "x.sqlite"
    path.write_bytes(content)
    told = refusal(path)
    assert "expected an SQLite file" in told
    assert ".json or .json.gz" in told
    assert "nsys export" in refusal(path)


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.9])
def test_a_file_that_was_cut_off(kept: float, tmp_path: Path):
    path = example().write(tmp_path / "x.sqlite")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    assert "the file is truncated" in refusal(path)


def test_damaged_pages_are_an_error_or_a_timeline_and_never_a_traceback(tmp_path: Path):
    whole = example().write(tmp_path / "x.sqlite").read_bytes()
    rng = random.Random(3)
    path = tmp_path / "damaged.sqlite"
    refused = 0
    for _ in range(120):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 20, 400))):
            data[rng.randrange(100, len(data))] = rng.randrange(256)
        path.write_bytes(bytes(data))
        try:
            timeline = read_capture(path)
        except TimelineError:
            refused += 1
        else:
            summarize(timeline)
            findings(timeline)
    assert refused > 10


@pytest.mark.parametrize("version", ["2.7.1", "4.0.0", "", "three", "99"])
def test_an_unknown_major_lists_the_known_ones(version: str, tmp_path: Path):
    capture = example()
    capture.about["EXPORT_SCHEMA_VERSION"] = version
    message = refusal(capture.write(tmp_path / "x.sqlite"))
    assert "expected an EXPORT_SCHEMA_VERSION of 3.x" in message
    assert repr(version or "(empty)") in message


def test_another_database_is_not_an_export(tmp_path: Path):
    path = tmp_path / "x.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (name)")
    connection.commit()
    connection.close()
    assert "with a table META_DATA_EXPORT; found songs" in refusal(path)


def test_an_empty_capture(tmp_path: Path):
    capture = Capture()
    assert "the capture is empty: no kernel" in refusal(capture.write(tmp_path / "x.sqlite"))
    capture = Capture()
    capture.range("A", 0, US)
    message = refusal(capture.write(tmp_path / "y.sqlite"))
    assert "it has NVTX ranges but no kernel" in message
    assert "nsys profile -t cuda,nvtx" in message


def test_missing_tables_and_columns_are_named(tmp_path: Path):
    path = example().write(tmp_path / "x.sqlite")
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL DROP COLUMN correlationId")
    connection.commit()
    assert "columns correlationId of table CUPTI_ACTIVITY_KIND_KERNEL" in refusal(path)
    connection.execute("DROP TABLE StringIds")
    connection.commit()
    connection.close()
    assert "expected table StringIds" in refusal(path)


def test_tables_that_hold_other_types_do_not_break(tmp_path: Path):
    path = example().write(tmp_path / "x.sqlite")
    connection = sqlite3.connect(path)
    for table, column, value in (
        ("CUPTI_ACTIVITY_KIND_KERNEL", "start", None),
        ("CUPTI_ACTIVITY_KIND_KERNEL", "gridX", "text"),
        ("CUPTI_ACTIVITY_KIND_MEMCPY", "bytes", None),
        ("CUPTI_ACTIVITY_KIND_RUNTIME", "globalTid", b"\xff\xfe"),
        ("NVTX_EVENTS", "text", b"\xff\xfe"),
        ("CUPTI_ACTIVITY_KIND_SYNCHRONIZATION", "end", -(2**63)),
        ("CUPTI_ACTIVITY_KIND_KERNEL", "end", 2**63 - 1),
    ):
        connection.execute(f'UPDATE {table} SET "{column}" = ?', (value,))
    connection.commit()
    connection.close()
    timeline = read_capture(path)
    assert summarize(timeline).total.kernels == 52
    findings(timeline)


@pytest.mark.parametrize(
    ("value", "shown"), [("text", "'text'"), ("", "'an empty text'"), (b"\xff", "'.'"), ("1.5", "'1.5'")]
)
@pytest.mark.parametrize("table", ["CUPTI_ACTIVITY_KIND_KERNEL", "NVTX_EVENTS"])
def test_a_time_that_is_a_text_is_of_a_damaged_page(tmp_path: Path, table: str, value: object, shown: str):
    """For example mixed-up SQLite pages: this table holds another one's rows, and its own are missing."""
    path = example().write(tmp_path / "x.sqlite")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f'UPDATE {table} SET "end" = ? WHERE rowid = 3', (value,))
        connection.commit()
    said = refusal(path)
    assert re.search(
        rf"whole numbers of nanoseconds in start and end of table {table}, got {shown}\. The file is dam", said
    )


def test_a_report_needs_nsys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    report = tmp_path / "x.nsys-rep"
    assert "no such file" in refusal(report)
    report.write_bytes(b"report")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "expected nsys on PATH or in an install path to export it, found none" in refusal(report)


def test_a_report_is_exported_with_nsys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = example().write(tmp_path / "made.sqlite")
    report = tmp_path / "x.nsys-rep"
    report.write_bytes(b"report")
    program = tmp_path / "nsys"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for script, says in ((f'cp "{made}" "$5"\n', ""), ("echo broken report >&2; exit 3\n", "broken report")):
        program.write_text(f"#!/bin/sh\n{script}")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        if says:
            assert says in refusal(report)
        else:
            assert read_capture(report).source == str(report)


def entangled(path: Path, number: int) -> Path:
    """A capture with ranges that never close on one thread, and overlapping ranges on another."""
    capture = Capture()
    for index in range(number):
        at = index * 10 * US
        capture.range("leaked", at, None, tid=1)
        capture.started("request", at, at + 15 * US, tid=2)
        capture.launch("kernel", at + US, at + 4 * US, US, tid=1 + index % 2)
    return capture.write(path)


def test_ranges_that_never_close_and_ranges_that_overlap_stay_cheap(tmp_path: Path):
    paths = {number: entangled(tmp_path / f"{number}.sqlite", number) for number in (500, 1000, 10_000)}
    assert growth(lambda number: analysed(paths[number]), 500) < 2.5
    _, summary, found = analysed(paths[10_000])
    assert found
    assert summary.total.kernels == 10_000
    assert max(len(row.name) for row in summary.rows) < 1_100
    assert [row.name for row in summary.rows if row.kernels] == ["request", "(no range)"]


SHARE = 10


def busy(path: Path, kernels: int) -> Path:
    """A capture of that many kernels, and a fifth as many ranges."""
    capture = Capture()
    for index in range(kernels):
        at = index * 10 * US
        if index % 10 == 0:
            capture.range(f"double {index % 19}", at, at + 99 * US)
        if index % 10 == 5:
            capture.range("op", at + US, at + 9 * US)
        number = capture.call("cudaLaunchKernel_v7000", at + 2 * US, at + 4 * US)
        capture.kernel(f"kernel_{index % 40}", at + 6 * US, at + 12 * US, number)
    return capture.write(path)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A share of a million kernels and 200,000 ranges."""
    return busy(tmp_path_factory.mktemp("large") / "large.sqlite", 1_000_000 // SHARE)


def analysed(path: Path) -> tuple[Timeline, Summary, list[Finding]]:
    timeline = read_capture(path)
    places = Places(timeline)
    return timeline, summarize(timeline, "op", places), findings(timeline, places)


def test_no_python_runs_for_a_kernel(tmp_path: Path):
    paths = {number: busy(tmp_path / f"{number}.sqlite", number) for number in (2000, 4000)}
    timelines = {number: read_capture(path) for number, path in paths.items()}
    assert growth(lambda number: read_capture(paths[number]), 2000) < 1.1
    places = {number: Places(timeline) for number, timeline in timelines.items()}
    assert growth(lambda number: list(trace_parts(timelines[number], places[number])), 2000) < 1.1
    assert growth(lambda number: analysed(paths[number]), 2000) < 1.4


def test_every_kernel_of_many_is_counted_once(large: Path):
    timeline, summary, found = analysed(large)
    kernels = 1_000_000 // SHARE
    assert (len(timeline.ranges), summary.total.kernels) == (200_000 // SHARE, kernels)
    assert [(row.name, row.kernels) for row in summary.rows] == [
        ("(outside ops)", 9 * kernels // 10),
        ("op", kernels // 10),
    ]
    assert sum(row.count for row in found if row.finding == "launch-bound") == kernels - 1


def test_a_million_kernels_take_less_than_600_megabytes(large: Path):
    tracemalloc.start()
    try:
        held = analysed(large)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held[1].total.kernels == 1_000_000 // SHARE
    assert peak < 6e8 / SHARE, f"{peak:,} B"
