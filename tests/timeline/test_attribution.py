"""Work is attributed to the range of its launch call: known answers, and properties of any capture."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxperf.harness.timeline.model import NONE, Timeline, process_id
from fluxperf.harness.timeline.summary import GROUPINGS, summarize
from tests.timeline.making import US, Capture, Variant, example

BOTH = pytest.mark.parametrize("variant", ["2023", "2025"])


def owners(timeline: Timeline) -> dict[str, list[str]]:
    """The range path of each piece of work, by name; two of one name must agree."""
    found: dict[str, list[str]] = {}
    for row in timeline.work:
        path = [timeline.ranges[index].name for index in timeline.chain(row.range)]
        assert found.setdefault(row.name, path) == path
    return found


@BOTH
def test_a_kernel_that_runs_in_another_range_belongs_to_the_range_of_its_launch(variant: Variant, tmp_path: Path):
    capture = Capture(variant)
    capture.range("A", 0, 10 * US)
    capture.range("B", 20 * US, 90 * US)
    capture.launch("launched_in_a", 5 * US, 30 * US, 40 * US)
    capture.launch("launched_in_b", 25 * US, 70 * US, 5 * US)
    assert owners(capture.read(tmp_path)) == {"launched_in_a": ["A"], "launched_in_b": ["B"]}


@BOTH
def test_the_innermost_of_nested_ranges_and_none_outside(variant: Variant, tmp_path: Path):
    capture = Capture(variant)
    capture.range("outer", 0, 100 * US)
    capture.range("inner", 10 * US, 50 * US)
    capture.launch("in_inner", 20 * US, 200 * US, US)
    capture.launch("after_inner", 60 * US, 210 * US, US)
    capture.launch("after_all", 120 * US, 220 * US, US)
    assert owners(capture.read(tmp_path)) == {
        "in_inner": ["outer", "inner"],
        "after_inner": ["outer"],
        "after_all": [],
    }


def test_overlapping_start_end_ranges_go_by_the_one_that_began_last(tmp_path: Path):
    capture = Capture()
    capture.started("first", 0, 50 * US)
    capture.started("second", 30 * US, 100 * US)
    for name, at in (("one", 10), ("two", 40), ("three", 70), ("four", 101)):
        capture.launch(name, at * US, (200 + at) * US, US)
    assert owners(capture.read(tmp_path)) == {"one": ["first"], "two": ["second"], "three": ["second"], "four": []}


def test_a_start_end_range_holds_calls_of_the_threads_that_begin_and_end_it(tmp_path: Path):
    capture = Capture()
    capture.started("request", 0, 100 * US, tid=1, end_tid=2)
    for tid in (1, 2, 3):
        capture.launch(f"thread_{tid}", 50 * US, (100 + tid) * US, US, tid=tid)
    assert owners(capture.read(tmp_path)) == {"thread_1": ["request"], "thread_2": ["request"], "thread_3": []}


def test_a_range_of_another_thread_holds_nothing(tmp_path: Path):
    capture = Capture()
    capture.range("main", 0, 100 * US, tid=1)
    capture.launch("worker", 50 * US, 60 * US, US, tid=2)
    assert owners(capture.read(tmp_path)) == {"worker": []}


@BOTH
def test_processes_that_share_correlation_ids_stay_apart(variant: Variant, tmp_path: Path):
    capture = Capture(variant)
    for pid, name in ((100, "left"), (200, "right")):
        capture.range(name, 0, 50 * US, pid=pid)
        capture.call("cudaLaunchKernel_v7000", 10 * US, 12 * US, pid=pid, correlation=1)
        capture.kernel(f"kernel_{name}", 20 * US, 30 * US, 1, pid=pid, gpu=0)
    timeline = capture.read(tmp_path)
    assert owners(timeline) == {"kernel_left": ["left"], "kernel_right": ["right"]}
    assert [process_id(process) for process in timeline.processes] == [100, 200]


def test_gpus_are_those_of_the_machine_however_a_process_numbers_them(tmp_path: Path):
    capture = Capture()
    for pid, gpu in ((100, 0), (200, 3)):
        capture.add("TARGET_INFO_GPU", id=gpu, name=f"GPU number {gpu}")
        capture.add("TARGET_INFO_CUDA_DEVICE", gpuId=gpu, cudaId=0, pid=pid)
        capture.launch("kernel", 0, 10 * US, 10 * US, pid=pid, gpu=0)
    timeline = capture.read(tmp_path)
    assert timeline.gpus == {0: "GPU number 0", 3: "GPU number 3"}
    assert summarize(timeline).total.gpu_ms == pytest.approx(0.02), "busy at the same time, but two GPUs"


def test_two_processes_on_one_gpu_are_busy_once(tmp_path: Path):
    capture = Capture()
    for pid in (100, 200):
        capture.add("TARGET_INFO_CUDA_DEVICE", gpuId=0, cudaId=0, pid=pid)
        capture.launch("kernel", 0, 10 * US, 10 * US, pid=pid)
    total = summarize(capture.read(tmp_path)).total
    assert (total.gpu_ms, total.gpu_sum_ms) == pytest.approx((0.01, 0.02))


def test_nodes_of_a_graph_belong_to_the_range_that_launched_it(tmp_path: Path):
    capture = Capture()
    capture.range("step 0", 0, 50 * US)
    launch = capture.call("cudaGraphLaunch_v10000", 10 * US, 15 * US)
    for node in (1, 2, 3):
        capture.kernel(f"node_{node}", (20 + 10 * node) * US, (25 + 10 * node) * US, launch, node=node)
    capture.copy(2, 70 * US, 71 * US, launch, 512, node=4)
    timeline = capture.read(tmp_path)
    assert set(map(tuple, owners(timeline).values())) == {("step 0",)}
    assert [row.graph_node for row in timeline.work] == [1, 2, 3, 4]


def test_work_without_a_call_is_counted_in_a_note(tmp_path: Path):
    capture = Capture()
    capture.range("A", 0, 50 * US)
    capture.launch("known", 10 * US, 20 * US, US)
    capture.kernel("trimmed", 30 * US, 31 * US, 999)
    timeline = capture.read(tmp_path)
    assert owners(timeline) == {"known": ["A"], "trimmed": []}
    assert any("1 of 2 pieces of GPU work have no launch call" in note for note in timeline.notes)


def test_the_parent_of_a_range_holds_all_of_it(tmp_path: Path):
    capture = Capture()
    capture.range("outer", 0, 100 * US)
    capture.started("sticks_out", 50 * US, 150 * US)
    capture.range("within", 60 * US, 70 * US)
    capture.launch("kernel", 1 * US, 2 * US, US)
    timeline = capture.read(tmp_path)
    parents = {row.name: row.parent for row in timeline.ranges}
    assert parents["sticks_out"] == NONE
    assert timeline.ranges[parents["within"]].name == "sticks_out"


times = st.integers(0, 10_000)
spans = st.tuples(times, st.integers(0, 5_000))


@settings(max_examples=60, deadline=None)
@given(
    ranges=st.lists(
        st.tuples(st.sampled_from(["step 1", "double 2", "op", "other"]), spans, st.integers(1, 2)), max_size=12
    ),
    started=st.lists(st.tuples(spans, st.integers(1, 2), st.integers(1, 2)), max_size=4),
    work=st.lists(st.tuples(times, spans, st.integers(1, 3), st.integers(0, 1)), min_size=1, max_size=30),
)
def test_every_piece_of_work_is_in_one_row_and_busy_is_at_most_the_sum(ranges, started, work):
    capture = Capture()
    for name, (start, length), tid in ranges:
        capture.range(name, start, start + length, tid=tid)
    for (start, length), tid, end_tid in started:
        capture.started("started", start, start + length, tid=tid, end_tid=end_tid)
    for called, (start, length), tid, gpu in work:
        number = capture.call("cudaLaunchKernel", called, called + 10, tid=tid)
        capture.kernel("kernel", start + 1, start + 1 + length, number, gpu=gpu)
    with tempfile.TemporaryDirectory() as folder:
        timeline = capture.read(Path(folder))
    for row in timeline.work:
        if row.range != NONE:
            around, call = timeline.ranges[row.range], timeline.calls[row.call]
            assert around.start_ns <= call.start_ns < around.end_ns
            assert call.thread in (around.thread, around.end_thread)
    for by in GROUPINGS:
        summary = summarize(timeline, by)
        assert sum(row.kernels for row in summary.rows) == len(work) == summary.total.kernels
        assert sum(row.gpu_sum_ms for row in summary.rows) == pytest.approx(summary.total.gpu_sum_ms)
        assert all(row.gpu_ms <= row.gpu_sum_ms + 1e-9 for row in (*summary.rows, summary.total))
        assert sum(row.idle_ms for row in summary.rows) == pytest.approx(summary.total.idle_ms)
        assert sum(gpu.busy_ms for gpu in summary.gpus) == pytest.approx(summary.total.gpu_ms)
        assert all(gpu.busy_ms <= gpu.span_ms + 1e-9 for gpu in summary.gpus)


def test_both_variants_of_the_schema_tell_the_same(tmp_path: Path):
    found = []
    for variant in ("2023", "2025"):
        folder = tmp_path / variant
        folder.mkdir()
        rows = summarize(example(variant).read(folder)).rows
        found.append([(row.name, row.calls, row.gpu_ms, row.kernels, row.idle_ms, row.syncs) for row in rows])
    assert found[0] == found[1]
