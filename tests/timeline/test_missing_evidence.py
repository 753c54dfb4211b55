"""Captures that lack something without saying so: a limit that is kept in them would prove nothing."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from fluxperf.harness.timeline.blind import blind_spots
from fluxperf.harness.timeline.correlating import calls_of
from fluxperf.harness.timeline.filtering import Filter, filtered
from fluxperf.harness.timeline.findings import KINDS, findings
from fluxperf.harness.timeline.model import NONE, Calls, Timeline
from fluxperf.harness.timeline.nsys import read_capture
from fluxperf.harness.timeline.reading import read_timeline
from fluxperf.harness.timeline.summary import summarize
from fluxperf.harness.timeline.trace import trace
from fluxperf.harness.timeline.trimming import trim
from tests.timeline.judging import codes
from tests.timeline.making import MS, US, Capture, example, process, thread

LIMITS = (*KINDS, "copies > 0", "waits > 0", "kernels > 1", "idle > 1 %")
LAUNCH, GRAPH = "cudaLaunchKernel_v7000", "cudaGraphLaunch_v10000"


def whole(graph_mode: str = "Node") -> Capture:
    """One kernel in `forward`, of which every limit is kept."""
    capture = Capture(graph_mode=graph_mode)
    capture.range("forward", 0, 2 * MS)
    capture.launch("kernel", 10 * US, 20 * US, 400 * US)
    return capture


def kernels(timeline: Timeline) -> dict[str, int]:
    return {row.name: row.kernels for row in summarize(timeline, "range").rows}


def undecided(timeline: Timeline) -> set[str]:
    return {limit for limit, code in codes(timeline, *LIMITS).items() if code == 2}


def edited(capture: Capture, folder: Path, *statements: str) -> Timeline:
    path = capture.write(folder / "capture.sqlite")
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)
    return read_capture(path)


def test_a_whole_capture_keeps_every_limit(tmp_path: Path):
    assert set(codes(whole().read(tmp_path), *LIMITS).values()) == {0}


@pytest.mark.parametrize("mode", ["Node", "Graph", ""])
@pytest.mark.parametrize(
    ("call", "told"), [(GRAPH, "1 launch"), (LAUNCH, "1 launch"), ("cuLaunchKernelEx", "1 launch")]
)
def test_a_launch_without_its_work_decides_nothing(mode, call, told, tmp_path: Path):
    capture = whole(mode)
    capture.call(call, 500 * US, 510 * US)
    path = capture.write(tmp_path / "x.sqlite")
    timeline = read_capture(path)
    assert undecided(timeline) == set(LIMITS)
    assert f"{told} of kernels or graphs without GPU work" in blind_spots(timeline)["host-copy"]
    assert any(note.startswith(told) for note in timeline.notes)
    trim(path, tmp_path / "trimmed.sqlite")
    assert undecided(read_capture(tmp_path / "trimmed.sqlite")) == set(LIMITS)
    # A part has what the whole lost, and the launches of work that another GPU did lose nothing.
    assert undecided(filtered(timeline, Filter(range="forward"))) == set(LIMITS)


def test_launches_that_have_no_work_lose_nothing_in_a_capture_or_around_one_of_the_driver(tmp_path: Path):
    capture = whole()
    capture.call("cudaStreamBeginCapture_v10000", 500 * US, 501 * US)
    capture.call(LAUNCH, 510 * US, 511 * US, tid=2)
    capture.call("cudaStreamEndCapture_v10000", 520 * US, 521 * US)
    number = capture.call("cuLaunchKernel", 602 * US, 604 * US)
    capture.call(LAUNCH, 600 * US, 610 * US)
    capture.kernel("other", 605 * US, 705 * US, number)
    number = capture.call(LAUNCH, 800 * US, 810 * US)
    capture.call("cuLaunchKernel", 802 * US, 804 * US)
    capture.kernel("other", 805 * US, 905 * US, number)
    capture.call("cudaLaunchHostFunc_v10000", 900 * US, 901 * US)
    (tmp_path / "whole").mkdir()
    assert capture.read(tmp_path / "whole").losses == []
    capture.call(LAUNCH, 530 * US, 531 * US)
    capture.call("cudaStreamBeginCapture_v10000", 1000 * US, 1001 * US, pid=200)
    capture.call(LAUNCH, 1510 * US, 1511 * US, pid=200)
    (row,) = capture.read(tmp_path).losses
    assert (row.text.split()[0], row.process) == ("1", process())


def test_a_launch_that_failed_has_no_work_to_lose(tmp_path: Path):
    capture = whole()
    capture.call(LAUNCH, 500 * US, 510 * US, returned=701)
    capture.call("cudaMemcpyAsync_v3020", 520 * US, 530 * US, returned=1)
    path = capture.write(tmp_path / "x.sqlite")
    trim(path, tmp_path / "trimmed.sqlite")
    for one in (path, tmp_path / "trimmed.sqlite"):
        assert undecided(read_capture(one)) == set()


def test_work_that_a_part_leaves_out_is_not_lost(tmp_path: Path):
    capture = whole()
    capture.launch("elsewhere", 500 * US, 520 * US, 50 * US, gpu=1)
    part = filtered(capture.read(tmp_path), Filter(gpu=0))
    assert (len(part.work), part.losses) == (1, [])


@pytest.mark.parametrize(
    ("table", "column", "word", "blind"),
    [
        ("CUPTI_ACTIVITY_KIND_RUNTIME", "nameId", "CUDA call", set(LIMITS)),
        ("CUPTI_ACTIVITY_KIND_KERNEL", "shortName", "kernel", set(LIMITS)),
        ("NVTX_EVENTS", "textId", "NVTX range", {"host-copy", "sync-in-loop"}),
    ],
)
def test_rows_whose_name_is_not_in_the_export_are_damaged(table, column, word, blind, tmp_path: Path):
    timeline = edited(whole(), tmp_path, f"DELETE FROM StringIds WHERE id = (SELECT {column} FROM {table} LIMIT 1)")
    assert [row.text for row in timeline.damage] == [f"1 {word} has no name in the export"]
    assert undecided(timeline) == blind


def test_a_range_without_a_name_is_not_damaged(tmp_path: Path):
    timeline = edited(whole(), tmp_path, "UPDATE NVTX_EVENTS SET textId = NULL")
    assert (timeline.damage, kernels(timeline)) == ([], {"(unnamed)": 1})


def test_times_that_no_clock_shows_are_damage(tmp_path: Path):
    far = 1 << 62
    moves = [
        f"UPDATE {name} SET start = start + {far}, end = end + {far}"
        for name in ("NVTX_EVENTS", "CUPTI_ACTIVITY_KIND_RUNTIME", "CUPTI_ACTIVITY_KIND_KERNEL")
    ]
    timeline = edited(whole(), tmp_path, *moves)
    assert [row.text for row in timeline.damage] == [
        f"1 {word} has an impossible time" for word in ("CUDA call", "kernel", "NVTX range")
    ]
    assert undecided(timeline) == set(LIMITS)
    assert "count with a duration of zero" not in timeline.notes[0]


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [(2, 1, {"host-copy": 1, "copies > 0": 1}), (7, 7, {"host-copy": 2, "copies > 0": 2, "pageable-copy": 2})],
)
@pytest.mark.parametrize("kind", [0, 14])
def test_a_copy_of_an_unknown_kind_goes_where_its_memory_says(kind, source, target, expected, tmp_path: Path):
    capture = whole()
    number = capture.call("cudaMemcpyAsync_v3020", 500 * US, 510 * US)
    capture.copy(kind, 515 * US, 520 * US, number, 4096, source=source, target=target)
    told = codes(capture.read(tmp_path), *LIMITS)
    assert {limit: told[limit] for limit in expected} == expected


def test_calls_of_another_runtime_say_nothing_of_waits(tmp_path: Path):
    capture = whole()
    capture.call("hipStreamSynchronize", 500 * US, 900 * US)
    timeline = capture.read(tmp_path)
    assert undecided(timeline) == {"item-sync", "module-loading", "sync-in-loop", "waits > 0"}
    assert "hipStreamSynchronize" in blind_spots(timeline)["sync-in-loop"]


def test_a_process_of_two_containers_with_one_pid_is_two(tmp_path: Path):
    capture = whole()
    for table, column in (("NVTX_EVENTS", "globalTid"), ("CUPTI_ACTIVITY_KIND_RUNTIME", "globalTid"),
                          ("CUPTI_ACTIVITY_KIND_KERNEL", "globalPid")):  # fmt: skip
        row = capture.rows[table][-1]
        capture.add(table, **{**row, column: int(str(row[column])) + (1 << 48)})
    timeline = capture.read(tmp_path)
    assert (len(timeline.processes), len(timeline.gpus)) == (2, 2)
    for part in (timeline, filtered(timeline, Filter(process=100))):
        assert kernels(part) == {"forward": 2}
    assert undecided(timeline) == set()


def test_instances_of_one_gpu_are_gpus(tmp_path: Path):
    capture = Capture()
    capture.add("TARGET_INFO_GPU", id=0, name="Example GPU", smCount=132)
    for pid, uuid in ((100, "MIG-1"), (200, "MIG-2"), (300, "MIG-2")):
        capture.add("TARGET_INFO_CUDA_DEVICE", gpuId=0, cudaId=0, pid=pid, uuid=uuid)
    for at in (10, 1010):
        capture.launch("kernel", at * US, (at + 10) * US, 30 * US)
    capture.launch("kernel", 50 * US, 60 * US, 500 * US, pid=200)
    capture.launch("kernel", 550 * US, 560 * US, 450 * US, pid=300)
    path = capture.write(tmp_path / "x.sqlite")
    trim(path, tmp_path / "trimmed.sqlite")
    assert b"MIG-" not in (tmp_path / "trimmed.sqlite").read_bytes()
    for one, names in ((path, ("MIG-1", "MIG-2")), (tmp_path / "trimmed.sqlite", ("device 0", "device 1"))):
        timeline = read_capture(one)
        assert timeline.gpus == {0: f"Example GPU ({names[0]})", 1: f"Example GPU ({names[1]})"}
        assert [(row.gpu, row.busy_ms) for row in summarize(timeline).gpus] == [(0, 0.06), (1, 0.95)]
        assert codes(timeline, "idle > 40 %") == {"idle > 40 %": 1}


def test_copies_that_were_called_for_and_are_not_there_decide_nothing_about_copies(tmp_path: Path):
    capture = whole()
    capture.call("cudaMemcpyAsync_v3020", 500 * US, 510 * US)
    timeline = capture.read(tmp_path)
    assert undecided(timeline) == {"host-copy", "item-sync", "pageable-copy", "copies > 0", "waits > 0"}


@pytest.mark.parametrize(("source", "target", "code"), [(None, None, 2), (2, None, 2), (0, 1, 1), (2, 1, 0)])
def test_memory_of_unknown_kind_is_not_counted_as_pageable_but_may_be(source, target, code, tmp_path: Path):
    capture = whole()
    number = capture.call("cudaMemcpyAsync_v3020", 500 * US, 510 * US)
    capture.copy(2, 515 * US, 520 * US, number, 4096, source=source, target=target)
    assert codes(capture.read(tmp_path), "pageable-copy") == {"pageable-copy": code}


def test_a_process_without_calls_may_have_waited(tmp_path: Path):
    capture = whole()
    capture.kernel("other", 100 * US, 110 * US, 7, pid=200)
    assert undecided(capture.read(tmp_path)) == {"item-sync", "launch-bound", "module-loading", "sync-in-loop",
                                                 "idle > 1 %", "waits > 0"}  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "missing"),
    [
        ("", None),
        (".*", None),
        ("CUPTI.*,NVTX_EVENTS,DIAGNOSTIC_EVENT,META.*,StringIds", None),
        ("CUPTI.*KERNEL,CUPTI.*RUNTIME,NVTX_EVENTS,META.*,StringIds", "CUPTI_ACTIVITY_KIND_MEMCPY"),
        ("CUPTI.*,META.*,StringIds,*", "DIAGNOSTIC_EVENT"),
    ],
)
def test_tables_that_an_export_left_out_decide_nothing(asked, missing, tmp_path: Path):
    capture = whole()
    capture.about["EXPORT_PARAM_TABLES_TO_EXPORT"] = asked
    path = capture.write(tmp_path / "x.sqlite")
    trim(path, tmp_path / "trimmed.sqlite")
    for one in (path, tmp_path / "trimmed.sqlite"):
        timeline = read_capture(one)
        assert undecided(timeline) == (set(LIMITS) if missing else set())
        assert missing is None or missing in timeline.losses[0].text


def test_versions_of_a_call_are_one_kind(tmp_path: Path):
    capture = whole()
    for turn in range(4):
        suffix = ("", "_v2", "_v2")[turn % 3]
        capture.call(f"cuCtxSynchronize{suffix}", (500 + 100 * turn) * US, (590 + 100 * turn) * US)
    timeline = capture.read(tmp_path)
    assert codes(timeline, "sync-in-loop") == {"sync-in-loop": 1}
    assert [(row.call, row.count) for row in summarize(timeline).waits] == [("cuCtxSynchronize", 4)]


def repeated() -> Capture:
    """Two launches with one id, and a wait whose record has the id of another call."""
    capture = Capture()
    for name, at in (("first", 0), ("second", 1000)):
        capture.range(name, at * US, (at + 400) * US)
        capture.call(LAUNCH, (at + 10) * US, (at + 12) * US, correlation=5)
        capture.kernel(name, (at + 20) * US, (at + 30) * US, 5)
        capture.call("cudaStreamSynchronize_v3020", (at + 40) * US, (at + 60) * US, correlation=6)
        capture.sync(3, (at + 41) * US, (at + 59) * US, 6)
    return capture


def test_an_id_that_comes_again_is_that_of_the_call_before(tmp_path: Path):
    timeline = repeated().read(tmp_path)
    rows = {row.name: (row.kernels, row.syncs) for row in summarize(timeline, "range").rows}
    assert rows == {"first": (1, 1), "second": (1, 1)}
    assert timeline.losses == []


def test_id_0_is_that_of_no_call(tmp_path: Path):
    capture = whole()
    capture.call("cudaFree_v3020", 1 * US, 2 * US, correlation=0)
    capture.copy(2, 500 * US, 510 * US, 0, 4096)
    assert [row.call for row in capture.read(tmp_path).work if row.kind == "copy"] == [NONE]


def expected(calls: Calls, process: int, correlation: int, at: int) -> int:
    """The call by its definition, one by one."""
    rows = [i for i in range(len(calls)) if calls[i].process == process and calls[i].correlation == correlation != 0]
    rows.sort(key=lambda i: calls[i].start_ns)
    kept = [
        i
        for last, i in zip([None, *rows], rows, strict=False)
        if last is None
        or calls[last].thread != calls[i].thread
        or calls[i].end_ns > calls[last].end_ns
        or calls[i].start_ns >= calls[last].end_ns
    ]
    before = [i for i in kept if calls[i].start_ns <= at]
    return before[-1] if before else kept[0] if kept else NONE


@pytest.mark.parametrize("seed", range(100))
def test_calls_are_found_by_their_ids(seed):
    chance = random.Random(seed)
    number, wanted = chance.randrange(12), chance.randrange(12)
    starts = [chance.randrange(-20, 100) for _ in range(number)]
    columns = {
        "what": [0] * number,
        "start_ns": starts,
        "end_ns": [start + chance.randrange(30) for start in starts],
        "thread": [chance.choice([1, 2]) << 24 | chance.choice([1, 2]) for _ in starts],
        "correlation": [chance.choice([0, 1, 2, 3, 1 << 50, -5]) for _ in starts],
    }
    calls = Calls([("call", "runtime")], **{name: np.array(column, np.int64) for name, column in columns.items()})
    asked = [
        (chance.choice([1, 2, 3]) << 24, chance.choice([0, 1, 2, 3, 1 << 50, -5, 9]), chance.randrange(-30, 120))
        for _ in range(wanted)
    ]
    told = np.array(asked, np.int64).reshape(wanted, 3).T
    assert calls_of(calls, *told).tolist() == [expected(calls, *row) for row in asked]


LAST = (1 << 63) - 1


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE DIAGNOSTIC_EVENT DROP COLUMN text",
        "ALTER TABLE ThreadNames DROP COLUMN nameId",
        "ALTER TABLE META_DATA_CAPTURE DROP COLUMN name",
        f"UPDATE PROFILER_OVERHEAD SET start = {-LAST}",
        f"UPDATE CUPTI_ACTIVITY_KIND_RUNTIME SET end = {LAST} WHERE rowid = 1",
        f"UPDATE CUPTI_ACTIVITY_KIND_MEMCPY SET deviceId = {1 << 62}",
    ],
)
def test_a_damaged_export_says_the_same_trimmed_and_as_a_trace(statement, tmp_path: Path):
    capture = example()
    capture.add("DIAGNOSTIC_EVENT", severity=1, text="Profiling has started.", timestamp=0)
    name = capture.string("Runtime Triggered Module Loading")
    capture.add("PROFILER_OVERHEAD", start=1, end=2, globalTid=thread(), nameId=name, overheadType=7)
    timeline = edited(capture, tmp_path, statement)
    trim(tmp_path / "capture.sqlite", tmp_path / "trimmed.sqlite")
    (tmp_path / "trace.json").write_text(trace(timeline), encoding="utf-8")
    for path in (tmp_path / "trimmed.sqlite", tmp_path / "trace.json"):
        again = read_timeline(path)
        assert codes(again, *LIMITS) == codes(timeline, *LIMITS)
        assert findings(again) == findings(timeline)
    assert max(timeline.gpus) <= 1
