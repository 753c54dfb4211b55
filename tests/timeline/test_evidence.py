"""Evidence decides, not a code or a word: exports as different versions of Nsight Systems write them, case by case."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from fluxperf.errors import TimelineError
from fluxperf.harness.timeline.blind import blind_spots
from fluxperf.harness.timeline.findings import KINDS, findings
from fluxperf.harness.timeline.limits import read_limits
from fluxperf.harness.timeline.model import Timeline
from fluxperf.harness.timeline.nsys import read_capture
from fluxperf.harness.timeline.summary import Summary, summarize
from tests.timeline.judging import codes
from tests.timeline.making import US, Capture, lossy, thread

COPY, WAIT = "cudaMemcpyAsync_v3020", "cudaStreamSynchronize_v3020"


def shown(timeline: Timeline, by: str = "range") -> Summary:
    return summarize(timeline, by)


def turns(capture: Capture, name: str = "op {}") -> list[int]:
    """A step of four ranges with a kernel each; returns their begin times."""
    capture.range("step 1", 0, 4000 * US)
    begun = [10 * US + turn * 900 * US for turn in range(4)]
    for turn, at in enumerate(begun):
        capture.range(name.format(turn), at, at + 800 * US)
        capture.launch("kernel", at + 10 * US, at + 20 * US, 480 * US)
    return begun


def items(kind: int | None, **copied: int) -> Capture:
    """Four `.item()` calls, whose wait is recorded with the given type, or not at all."""
    capture = Capture()
    for at in turns(capture):
        call = capture.call(COPY, at + 30 * US, at + 40 * US)
        capture.copy(2, at + 505 * US, at + 507 * US, call, 4, source=2, target=1, **copied)
        call = capture.call(WAIT, at + 45 * US, at + 510 * US)
        if kind is not None:
            capture.sync(kind, at + 46 * US, at + 509 * US, call)
    return capture


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 99, None])
def test_a_wait_is_classified_by_its_call_whatever_its_record_says(kind, tmp_path: Path):
    timeline = items(kind).read(tmp_path)
    total = shown(timeline).total
    assert (total.syncs, total.sync_ms) == (4, pytest.approx(1.86))
    assert [(row.call, row.count) for row in shown(timeline).waits] == [("cudaStreamSynchronize", 4)]
    told = codes(timeline)
    assert told == dict.fromkeys(KINDS, 0) | dict.fromkeys(
        ("host-copy", "item-sync", "launch-bound", "sync-in-loop"), 1
    )


@pytest.mark.parametrize("kind", [0, 1, 4])
def test_a_device_is_waited_for_whatever_the_type(kind, tmp_path: Path):
    capture = Capture()
    for at in turns(capture, "op"):
        call = capture.call("cudaDeviceSynchronize_ptsz_v3020", at + 30 * US, at + 510 * US)
        capture.sync(kind, at + 31 * US, at + 509 * US, call)
    timeline = capture.read(tmp_path)
    assert shown(timeline).total.syncs == 4
    assert codes(timeline, "sync-in-loop", "item-sync") == {"sync-in-loop": 1, "item-sync": 0}
    assert {row.seen for row in findings(timeline) if row.finding == "sync-in-loop"} == {"cudaDeviceSynchronize_ptsz"}


def test_a_call_of_the_driver_inside_of_one_of_the_runtime_is_the_same_wait(tmp_path: Path):
    capture = Capture()
    for at in turns(capture):
        capture.call("cudaDeviceSynchronize_v3020", at + 30 * US, at + 510 * US)
        capture.call("cuCtxSynchronize", at + 31 * US, at + 509 * US)
    assert shown(capture.read(tmp_path)).total.syncs == 4


@pytest.mark.parametrize("name", ["cudaEventQuery_v3020", "cudaStreamQuery_v3020", "cuEventQuery"])
def test_a_query_is_no_wait(name, tmp_path: Path):
    capture = Capture()
    for at in turns(capture, "op"):
        call = capture.call(COPY, at + 30 * US, at + 34 * US)
        capture.copy(2, at + 505 * US, at + 507 * US, call, 4, source=2, target=1)
        capture.sync(1, at + 46 * US, at + 47 * US, capture.call(name, at + 45 * US, at + 48 * US))
    timeline = capture.read(tmp_path)
    assert (shown(timeline).total.syncs, shown(timeline).waits) == (0, [])
    assert codes(timeline, "item-sync", "sync-in-loop") == {"item-sync": 0, "sync-in-loop": 0}


@pytest.mark.parametrize(("target", "until", "waits"), [(0, 512, 4), (0, 40, 0), (1, 512, 0), (7, 512, 4), (7, 40, 0)])
def test_a_read_that_returns_when_it_is_done_is_a_wait_if_its_memory_is_pageable(target, until, waits, tmp_path: Path):
    capture = Capture()
    capture.add("ENUM_CUDA_MEM_KIND", id=7, name="CUDA_MEMOPR_MEMORY_KIND_UNKNOWN", label="Unknown")
    for at in turns(capture):
        call = capture.call(COPY, at + 30 * US, at + until * US)
        capture.copy(2, at + 505 * US, at + 507 * US, call, 4, source=2, target=target)
    timeline = capture.read(tmp_path)
    assert sum(row.count for row in shown(timeline).waits) == waits
    assert codes(timeline, "item-sync") == {"item-sync": int(waits > 0)}


@pytest.mark.parametrize(
    ("call", "source", "until", "waits"),
    [
        ("cudaMemcpy_v3020", 1, 600, 4),
        ("cuMemcpyHtoD_v2", 0, 600, 4),
        ("cuMemcpyHtoD_v2", 0, 500, 0),
        (COPY, 1, 600, 0),
    ],
)
def test_a_copy_to_the_device_is_waited_for_if_its_call_is_not_asynchronous(call, source, until, waits, tmp_path: Path):
    capture = Capture()
    for at in turns(capture):
        number = capture.call(call, at + 30 * US, at + until * US)
        capture.copy(1, at + 505 * US, at + 507 * US, number, 1 << 20, source=source, target=2)
    timeline = capture.read(tmp_path)
    rows = [(row.kind, row.count) for row in shown(timeline).waits]
    assert rows == [("copy to the device", waits)] * (waits > 0)
    assert codes(timeline, "waits > 3", "waits in step 1 > 2 ms", "item-sync") == {
        "waits > 3": int(waits > 0), "waits in step 1 > 2 ms": int(waits > 0), "item-sync": 0,
    }  # fmt: skip


def test_copies_that_no_call_launched_are_found(tmp_path: Path):
    lone = "(no recorded launch call)"
    for name, kind, memory, place in (("copies", 2, 0, lone), ("migrations", 12, 7, "forward")):
        capture = Capture()
        capture.range("forward", 0, 4000 * US)
        capture.launch("kernel", 10 * US, 20 * US, 80 * US)
        for turn in range(50):
            capture.copy(kind, (200 + turn * 50) * US, (240 + turn * 50) * US, 90_000 + turn, 1 << 20, target=memory)
        (folder := tmp_path / name).mkdir()
        timeline = capture.read(folder)
        assert codes(timeline, "host-copy", "copies > 0") == {"host-copy": 1, "copies > 0": 1}
        (row,) = [row for row in findings(timeline) if row.finding == "host-copy"]
        assert (row.range, row.count) == (place, 50)


def test_copies_outside_of_every_range_may_be_those_of_a_forward(tmp_path: Path):
    capture = lossy()
    capture.copy(2, 5000 * US, 5001 * US, capture.call(COPY, 4500 * US, 4510 * US), 4096, source=2, target=1)
    timeline = capture.read(tmp_path)
    assert codes(timeline, "host-copy", "item-sync", "copies in forward > 0") == {
        "host-copy": 2, "item-sync": 0, "copies in forward > 0": 2,
    }  # fmt: skip
    assert "1 copy between host and device outside of every range" in blind_spots(timeline)["host-copy"]


def test_a_capture_without_gpu_work_decides_nothing(tmp_path: Path):
    capture = Capture()
    capture.range("forward", 0, 100 * US)
    capture.call("cudaDeviceSynchronize", 10 * US, 20 * US)
    timeline = capture.read(tmp_path)
    assert codes(timeline) == dict.fromkeys(KINDS, 2)


def loading(table: str, **values: object) -> Capture:
    capture = Capture()
    capture.range("forward", 0, 20_000 * US)
    capture.launch("first", 10 * US, 20 * US, 90 * US)
    call = capture.call("cudaLaunchKernel_v7000", 150 * US, 17_500 * US)
    capture.kernel("second", 17_490 * US, 17_600 * US, call)
    name = capture.string("Runtime Triggered Module Loading")
    capture.add(table, start=160 * US, end=17_480 * US, globalTid=thread(), nameId=name, **values)
    return capture


@pytest.mark.parametrize(
    ("table", "values"),
    [("CUPTI_ACTIVITY_KIND_OVERHEAD", {"overheadType": 6}), ("PROFILER_OVERHEAD", {"overheadType": 7}),
     ("PROFILER_OVERHEAD", {}), ("CUPTI_ACTIVITY_KIND_JIT", {"overheadType": 2})],
)  # fmt: skip
def test_loading_is_no_late_launch_and_a_graph_is_no_answer(table, values, tmp_path: Path):
    timeline = loading(table, **values).read(tmp_path)
    assert codes(timeline, "launch-bound", "module-loading") == {"launch-bound": 0, "module-loading": 1}
    (row,) = [row for row in findings(timeline) if row.finding == "module-loading"]
    assert row.cost_ms == pytest.approx(17.38)
    assert "warm-up" in row.advice
    assert "capture" not in row.advice


@pytest.mark.parametrize(
    ("call", "seen", "advice"),
    [
        ("cudaMalloc_v3020", "memory was allocated or freed", "reuse"),
        ("cuLibraryLoadData", "the runtime loaded or compiled code", "warm-up"),
        ("cudaDeviceSynchronize_v3020", "the host had waited for the GPU", "launch the next work before it"),
        ("cudaGraphInstantiate_v12000", "a graph was instantiated or updated", "once"),
        ("cudaFuncGetAttributes_v3020", "the host was busy with CUDA calls", "fewer calls"),
        (None, "the host ran code between CUDA calls", "CUDA graph"),
    ],
)
def test_why_a_launch_came_late(call, seen, advice, tmp_path: Path):
    capture = Capture()
    capture.range("forward", 0, 2000 * US)
    capture.launch("first", 10 * US, 20 * US, 90 * US)
    if call:
        capture.call(call, 120 * US, 900 * US)
    capture.launch("second", 905 * US, 910 * US, 100 * US)
    (row,) = [row for row in findings(capture.read(tmp_path)) if row.finding in ("launch-bound", "module-loading")]
    assert row.seen == f"GPU idle: {seen}"
    assert advice in row.advice


def test_a_launch_that_another_thread_holds_up(tmp_path: Path):
    capture = Capture()
    capture.range("forward", 0, 2000 * US)
    capture.launch("first", 10 * US, 20 * US, 90 * US)
    capture.call("cudaMalloc_v3020", 100 * US, 890 * US, tid=2)
    number = capture.call("cudaLaunchKernel_v7000", 115 * US, 900 * US)
    capture.kernel("second", 905 * US, 950 * US, number)
    (row,) = [row for row in findings(capture.read(tmp_path)) if row.finding == "launch-bound"]
    assert row.seen == "GPU idle: a call of another thread blocked the launch"


def test_a_microsecond_of_idle_time_fails_no_busy_capture(tmp_path: Path):
    capture = Capture()
    capture.range("forward", 0, 2000 * US)
    capture.launch("first", 10 * US, 20 * US, 900 * US)
    capture.launch("second", 919 * US, 922 * US, 900 * US)
    timeline = capture.read(tmp_path)
    assert [row.finding for row in findings(timeline)] == ["launch-bound"]
    told = codes(timeline, "launch-bound", "launch-bound > 1 us", "idle > 2 %", "idle > 0.1 %", "idle >= 2 us")
    assert list(told.values()) == [0, 1, 0, 1, 1]


def test_limits_of_measures(tmp_path: Path):
    timeline = items(3).read(tmp_path)
    told = codes(
        timeline, "waits > 1 ms", "waits > 3", "waits > 4", "waits in op * > 1.8 ms", "copies > 16 B", "copies >= 16 B",
        "copies in op 1 > 0", "copies in op 1 > 1", "copies in nowhere > 0", "kernels > 3", "item-sync > 5",
    )  # fmt: skip
    assert list(told.values()) == [1, 1, 0, 1, 0, 1, 1, 0, 2, 1, 0]


@pytest.mark.parametrize("text", ["idle", "idle > 2", "idle > x %", "waits > 3 B", "waits 3", "> 2 %", ""])
def test_what_is_no_limit(text):
    with pytest.raises(Exception, match=r"--fail-on .*expected|unknown finding"):
        read_limits([text], {})


def test_a_range_that_is_never_closed_is_no_parent(tmp_path: Path):
    capture = Capture()
    capture.add("DIAGNOSTIC_EVENT", severity=1, text="Profiling has stopped.", timestamp=900 * US)
    for turn in range(6):
        at = turn * 100 * US
        # Nsight Systems closes open ranges when it stops; older exports leave the end empty.
        capture.range("left open", at + 5 * US, None if turn % 2 else 900 * US)
        capture.range(f"iteration {turn}", at + 10 * US, at + 90 * US)
        capture.launch("kernel", at + 20 * US, at + 30 * US, 30 * US)
    timeline = capture.read(tmp_path)
    rows = {row.name: row.kernels for row in shown(timeline).rows}
    assert rows == {"iteration *": 6, "left open": 0}
    assert any("Never closed: 6 ranges ('left open')" in note for note in timeline.notes)


def test_a_note_of_graphs_only_where_one_was_launched(tmp_path: Path):
    for name, launched in (("with", True), ("without", False)):
        capture = Capture(graph_mode="Graph")
        capture.range("forward", 0, 100 * US)
        capture.launch("kernel", 10 * US, 20 * US, 20 * US)
        if launched:
            capture.call("cudaGraphLaunch_v10000", 30 * US, 31 * US)
        (folder := tmp_path / name).mkdir()
        timeline = capture.read(folder)
        assert any("traced as a whole" in note for note in timeline.notes) == launched
        assert ("host-copy" in blind_spots(timeline)) == launched


def test_processes_that_both_see_a_gpu_0_are_kept_apart_unless_it_is_known_to_be_one(tmp_path: Path):
    for name, known, gpus in (("unknown", False, 2), ("known", True, 1)):
        capture = Capture()
        for pid in (100, 200):
            if known:
                capture.add("TARGET_INFO_CUDA_DEVICE", gpuId=0, cudaId=0, pid=pid)
            capture.launch("kernel", 10 * US, 20 * US, 480 * US, pid=pid)
        (folder := tmp_path / name).mkdir()
        timeline = capture.read(folder)
        assert len(shown(timeline).gpus) == gpus
        assert any("are shown separately" in note for note in timeline.notes) != known


def test_a_machine_with_one_process_needs_no_map_of_gpus(tmp_path: Path):
    capture = lossy()
    other = {"start": 900 * US, "end": 950 * US, "deviceId": 0, "contextId": 1, "streamId": 7}
    name = capture.string("elsewhere")
    capture.add(
        "CUPTI_ACTIVITY_KIND_KERNEL", globalPid=2 << 48 | 100 << 24, correlationId=1, shortName=name,
        demangledName=name, gridX=1, gridY=1, gridZ=1, blockX=1, blockY=1, blockZ=1, **other,
    )  # fmt: skip
    timeline = capture.read(tmp_path)
    assert (len(timeline.gpus), any("shown separately" in note for note in timeline.notes)) == (2, False)


def test_work_without_a_process_is_that_of_the_one_that_calls(tmp_path: Path):
    path = lossy().write(tmp_path / "x.sqlite")
    edit(path, "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET globalPid = NULL")
    assert {row.name: row.kernels for row in shown(read_capture(path)).rows} == {"step *": 1}


@pytest.mark.parametrize("name", ["aten::mul, seq = {}, op_id = {}", "aten::add, sizes = [[{}, {}]]", "layer [{},{}]"])
@pytest.mark.parametrize("step", ["step {}", "batch {}"])
@pytest.mark.parametrize("by", ["op", "range"])
def test_numbers_in_names_are_one_place_in_and_out_of_steps(name, step, by, tmp_path: Path):
    capture = Capture()
    for turn in range(3):
        at = turn * 1000 * US
        capture.range(step.format(turn), at, at + 900 * US)
        for index in range(8):
            begun = at + (10 + index * 100) * US
            capture.range(name.format(turn * 8 + index, index), begun, begun + 90 * US)
            capture.launch("kernel", begun + 5 * US, begun + 15 * US, 28 * US)
    assert [row.kernels for row in shown(capture.read(tmp_path), by).rows if row.kernels] == [24]


def test_schema_3_0_has_another_table_of_versions(tmp_path: Path):
    path = items(3).write(tmp_path / "x.sqlite")
    renamed(path, "META_DATA_EXPORT", "EXPORT_META_DATA", "3.0.0")
    timeline = read_capture(path)
    assert (timeline.schema, shown(timeline).total.syncs) == ("3.0.0", 4)
    renamed(path, "EXPORT_META_DATA", "META_DATA_EXPORT", "2.9.1")
    with pytest.raises(TimelineError, match=r"EXPORT_SCHEMA_VERSION of 3\.x, got '2\.9\.1'"):
        read_capture(path)


def test_a_newer_minor_is_read_and_reported_with_what_was_not(tmp_path: Path):
    capture = items(3)
    capture.about["EXPORT_SCHEMA_VERSION"] = "3.99.0"
    path = capture.write(tmp_path / "x.sqlite")
    table = "CUPTI_ACTIVITY_KIND_TELEPORT"
    edit(path, f"CREATE TABLE {table} (start, end)", f"INSERT INTO {table} VALUES (1, 2)")
    (note,) = [note for note in read_capture(path).notes if "3.99.0" in note]
    assert "newer than 3.25" in note
    assert "CUPTI_ACTIVITY_KIND_TELEPORT" in note


def test_a_table_may_carry_a_version_in_its_name(tmp_path: Path):
    path = items(3).write(tmp_path / "x.sqlite")
    edit(path, "ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL RENAME TO CUPTI_ACTIVITY_KIND_KERNEL_V3")
    assert shown(read_capture(path)).total.kernels == 4


def renamed(path: Path, old: str, new: str, version: str) -> None:
    edit(
        path,
        f"ALTER TABLE {old} RENAME TO {new}",
        f"UPDATE {new} SET value = '{version}' WHERE name = 'EXPORT_SCHEMA_VERSION'",
    )


def edit(path: Path, *statements: str) -> None:
    """Changes an export by SQL."""
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
