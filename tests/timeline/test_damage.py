"""Rows with impossible times are counted by kind and reported, and limits cannot pass on them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fluxperf.harness.timeline.blind import blind_spots
from fluxperf.harness.timeline.findings import KINDS
from fluxperf.harness.timeline.model import Timeline
from fluxperf.harness.timeline.nsys import read_capture
from fluxperf.harness.timeline.reading import read_timeline
from fluxperf.harness.timeline.trace import trace
from fluxperf.harness.timeline.trimming import trim
from tests.timeline.making import US, Capture

TABLES = {
    "CUPTI_ACTIVITY_KIND_KERNEL": ("kernel", "kernels"),
    "CUPTI_ACTIVITY_KIND_MEMCPY": ("copy", "copies"),
    "CUPTI_ACTIVITY_KIND_MEMSET": ("memset", "memsets"),
    "CUPTI_ACTIVITY_KIND_MEM_DECOMPRESS": ("decompression", "decompressions"),
    "CUPTI_ACTIVITY_KIND_RUNTIME": ("CUDA call", "CUDA calls"),
    "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION": ("synchronization", "synchronizations"),
    "NVTX_EVENTS": ("NVTX range", "NVTX ranges"),
}
#: Limits that an NVTX range without an end does not affect.
PLACED = {"host-copy", "sync-in-loop"}


def whole(begins: int = 0) -> Capture:
    """Three repetitions of all event kinds in a step, none of them damaged."""
    capture = Capture()
    capture.range("step 0", begins, begins + 900 * US)
    for turn in range(3):
        at = begins + (10 + 100 * turn) * US
        capture.range("op", at, at + 90 * US)
        capture.launch("kernel", at + US, at + 4 * US, 20 * US)
        capture.copy(8, at + 30 * US, at + 32 * US, capture.call("cudaMemcpyAsync", at + 5 * US, at + 6 * US), 64)
        capture.memset(at + 33 * US, at + 34 * US, capture.call("cudaMemsetAsync", at + 7 * US, at + 8 * US), 64)
        call = capture.call("cuMemBatchDecompressAsync", at + 8 * US, at + 9 * US)
        capture.decompress(at + 35 * US, at + 36 * US, call, 64)
        call = capture.call("cudaStreamSynchronize", at + 9 * US, at + 40 * US)
        capture.sync(3, at + 9 * US, at + 40 * US, call)
    return capture


def read(folder: Path, *changes: str) -> Timeline:
    path = whole().write(folder / "capture.sqlite")
    with closing(sqlite3.connect(path)) as connection:
        for change in changes:
            connection.execute(change)
        connection.commit()
    return read_capture(path)


def test_a_whole_capture_is_not_damaged(tmp_path: Path):
    timeline = read(tmp_path)
    assert timeline.damage == []
    assert not [note for note in timeline.notes if "Damaged" in note]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("table", TABLES)
def test_each_kind_that_ends_before_it_begins_is_said_and_keeps_no_limit(table, number, tmp_path: Path):
    last = f"SELECT rowid FROM {table} WHERE end - start < 100000 ORDER BY rowid DESC LIMIT {number}"
    timeline = read(tmp_path, f"UPDATE {table} SET end = start - 5 WHERE rowid IN ({last})")
    told = (
        f"1 {TABLES[table][0]} ends before it begins" if number == 1 else f"2 {TABLES[table][1]} end before they begin"
    )
    assert [row.text for row in timeline.damage] == [told]
    assert [note for note in timeline.notes if note.startswith(f"Damaged: {told}.")]
    blind = blind_spots(timeline)
    assert {name for name, reason in blind.items() if told in reason} == (
        PLACED if table == "NVTX_EVENTS" else set(KINDS)
    )
    # A trace says it, too.
    (tmp_path / "trace.json").write_text(trace(timeline), encoding="utf-8")
    again = read_timeline(tmp_path / "trace.json")
    assert (again.damage, blind_spots(again)) == (timeline.damage, blind)


def test_work_without_times_is_damage(tmp_path: Path):
    timeline = read(tmp_path, "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET start = 0, end = 0 WHERE rowid = 1")
    assert [row.text for row in timeline.damage] == ["1 piece of GPU work has no time and is left out"]
    assert set(blind_spots(timeline)) == set(KINDS)


@pytest.mark.parametrize("start", [0, -1])
@pytest.mark.parametrize("table", [table for table in TABLES if "_KIND_M" in table or "KERNEL" in table])
def test_work_that_begins_at_0_before_its_launch_call_is_damage(start, table, tmp_path: Path):
    path = whole(5_000_000 * US).write(tmp_path / "x.sqlite")
    assert read_capture(path).damage == []
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE {table} SET start = {start} WHERE rowid = 2")
    trim(path, tmp_path / "trimmed.sqlite")
    for one in (path, tmp_path / "trimmed.sqlite"):
        timeline = read_capture(one)
        assert [row.text for row in timeline.damage] == ["1 piece of GPU work begins at 0, before its launch call"]
        assert timeline.notes[0].startswith("Damaged: 1 piece of GPU work begins at 0")
        assert set(blind_spots(timeline)) == set(KINDS)


@pytest.mark.parametrize("called", [-20, 5])
def test_work_at_0_is_not_damaged_if_its_call_is_not_later_or_unknown(called, tmp_path: Path):
    capture = whole(5_000_000 * US)
    capture.kernel("first", 0, 10 * US, capture.call("cudaLaunchKernel", called * US, called * US + 2))
    capture.kernel("first", -1, 10 * US, 999_999, stream=8)
    path = capture.write(tmp_path / "x.sqlite")
    trim(path, tmp_path / "trimmed.sqlite")
    for one in (path, tmp_path / "trimmed.sqlite"):
        assert read_capture(one).damage == []


def test_a_range_that_was_never_closed_is_not_damaged(tmp_path: Path):
    assert read(tmp_path, "UPDATE NVTX_EVENTS SET end = NULL WHERE rowid = 2").damage == []


def test_events_of_pytorch_with_impossible_times_are_damage(tmp_path: Path):
    def event(category: str, ts: object, dur: float, **args: int) -> dict[str, object]:
        return {"ph": "X", "cat": category, "name": "x", "pid": 1, "tid": 1, "ts": ts, "dur": dur, "args": args}

    events = [
        event("cpu_op", 1, 50), event("cuda_runtime", 2, -1, correlation=1), event("kernel", 4, -3, correlation=1),
        event("kernel", 1e300, 1, correlation=2), event("gpu_memcpy", -1e16, 1, correlation=2),
        event("kernel", 9, 1, correlation=1), event("python_function", 1, -1),
    ]  # fmt: skip
    del events[4]["ts"]
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"schemaVersion": 1, "traceEvents": events}), encoding="utf-8")
    timeline = read_timeline(path)
    assert [row.text for row in timeline.damage] == [
        "1 CUDA call ends before it begins", "1 kernel ends before it begins", "1 kernel has no time and is left out",
        "1 copy has no time and is left out",
    ]  # fmt: skip
    assert [(row.start_ns, row.end_ns) for row in timeline.work] == [(4000, 4000), (9000, 10_000)]
    assert set(blind_spots(timeline)) == set(KINDS)
