"""Work of a CUDA graph is attributed to the op that was captured, and to the step that launched it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxperf.harness.timeline.findings import findings
from fluxperf.harness.timeline.model import NONE, Timeline
from fluxperf.harness.timeline.reading import read_timeline
from fluxperf.harness.timeline.summary import summarize
from fluxperf.harness.timeline.trace import trace
from tests.timeline.making import MS, US, Capture

OPS = ("qkv_heads", "attention", "linear_gelu")


def captured(instantiations: int = 1, launches: int = 2, pid: int = 100) -> Capture:
    """A block is captured op by op, instantiated, and launched in steps; the nodes that run are copies of the captured
    ones.

    The copies are numbered in reverse, so that only their originals give the order of the capture.
    """
    capture = Capture()
    capture.range("double 3", 0, 90 * US, pid=pid)
    for index, op in enumerate(OPS):
        capture.range(op, (10 + 20 * index) * US, (25 + 20 * index) * US, pid=pid)
        capture.node(1 + index, (12 + 20 * index) * US, pid=pid)
    before = 0
    for copy in range(1, instantiations + 1):
        for index in range(len(OPS)):
            capture.node(copy * 100 - index, 100 * US, before * 100 - index if before else 1 + index, pid=pid)
        before = copy
    for step in range(launches):
        at = (step + 1) * MS
        capture.range(f"step {step}", at, at + 900 * US, pid=pid)
        number = capture.call("cudaGraphLaunch_v10000", at + 10 * US, at + 20 * US, pid=pid)
        for index, op in enumerate(OPS):
            begun = at + (50 + 100 * index) * US
            node = instantiations * 100 - index if instantiations else 1 + index
            capture.kernel(op, begun, begun + (index + 1) * 10 * US, number, node=node, pid=pid)
    return capture


def rows(timeline: Timeline, by: str) -> dict[str, tuple[int, float]]:
    return {row.name: (row.kernels, row.gpu_ms) for row in summarize(timeline, by).rows if row.kernels}


@pytest.mark.parametrize("instantiations", [0, 1, 3])
def test_nodes_are_in_the_ops_that_were_captured_and_in_the_steps_that_launched_them(instantiations, tmp_path: Path):
    timeline = captured(instantiations).read(tmp_path)
    assert timeline.notes == []
    assert rows(timeline, "op") == {op: (2, pytest.approx(0.02 * (index + 1))) for index, op in enumerate(OPS)}
    assert rows(timeline, "block") == {"double 3": (6, pytest.approx(0.12))}
    assert rows(timeline, "step") == {f"step {step}": (3, pytest.approx(0.06)) for step in range(2)}
    assert summarize(timeline).in_ops == 1


def test_a_copy_that_is_reported_as_created_too_goes_by_its_original(tmp_path: Path):
    capture = captured()
    capture.range("instantiate", 95 * US, 120 * US)
    for index in range(len(OPS)):
        capture.node(100 - index, 99 * US)
    assert set(rows(capture.read(tmp_path), "op")) == set(OPS)


def test_findings_name_both_places(tmp_path: Path):
    capture = captured()
    for node, at in ((100, 500), (99, 600)):
        capture.copy(2, MS + at * US, MS + (at + 50) * US, 1, 4096, node=node)
    copies = {row.range for row in findings(capture.read(tmp_path)) if row.finding == "host-copy"}
    assert copies == {"step * / double * / qkv_heads", "step * / double * / attention"}


def test_nodes_that_nobody_saw_created_stay_with_the_launch(tmp_path: Path):
    capture = captured()
    capture.rows["CUDA_GRAPH_NODE_EVENTS"] = [
        row for row in capture.rows["CUDA_GRAPH_NODE_EVENTS"] if row["graphNodeId"] != 2
    ]
    timeline = capture.read(tmp_path)
    assert rows(timeline, "op")["(outside ops)"] == (2, pytest.approx(0.04))
    (note,) = timeline.notes
    assert note.startswith("Captured outside of any range, or before this capture began: 1 node of CUDA graphs.")
    assert summarize(timeline).in_ops == pytest.approx(8 / 12)


def test_without_the_table_a_graphs_work_is_its_launchs(tmp_path: Path):
    capture = captured()
    del capture.rows["CUDA_GRAPH_NODE_EVENTS"]
    timeline = capture.read(tmp_path)
    assert {row.captured for row in timeline.work} == {NONE}
    assert set(rows(timeline, "op")) == {"(outside ops)"}


def test_node_ids_are_those_of_their_process_and_circles_end(tmp_path: Path):
    capture = captured(launches=1)
    other = captured(launches=1, pid=200)
    for name in ("NVTX_EVENTS", "CUDA_GRAPH_NODE_EVENTS", "CUPTI_ACTIVITY_KIND_RUNTIME", "CUPTI_ACTIVITY_KIND_KERNEL"):
        capture.rows[name] += other.rows[name]
    for row in capture.rows["CUDA_GRAPH_NODE_EVENTS"][-3:]:
        row["originalGraphNodeId"] = row["graphNodeId"]  # a copy of itself, which no driver makes
    timeline = capture.read(tmp_path)
    places = [(row.process >> 24 & 0xFFFFFF, row.captured != NONE) for row in timeline.work]
    assert sorted(places) == [(100, True)] * 3 + [(200, False)] * 3


def test_a_trace_keeps_where_nodes_were_captured(tmp_path: Path):
    timeline = captured().read(tmp_path)
    (tmp_path / "x.json").write_text(trace(timeline))
    again = read_timeline(tmp_path / "x.json")
    assert rows(again, "op") == rows(timeline, "op")
    assert [row.captured for row in again.work] == [row.captured for row in timeline.work]
