"""PyTorch programs on one H200, captured by Nsight Systems 2025.3 and by PyTorch's profiler; and CUPTI's wait counts.

`planted` ran in two processes with faults in ranges that name them; `clean-graph` queued forwards, then launches of a
graph, and read the result once. `waits` waits in every way a known number of times, first to warm up, then in the range
`measured`; ``fluxperf witness`` counted the same program through CUPTI, in a run of its own. Exports were trimmed; of
polls in `planted` and `waits` the first 60 are left, and calls that only ask or create are gone. `programs/` has them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from fluxperf.harness.timeline.findings import KINDS, Finding, findings
from fluxperf.harness.timeline.model import NONE, Timeline
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.reading import read_timeline
from fluxperf.harness.timeline.summary import waits_by_call
from fluxperf.harness.timeline.tree import tree
from tests.timeline.judging import verdicts

EXPORTS = Path(__file__).parent / "exports"

#: Waits that CUPTI recorded in the range `measured`, by enclosing range: kind, number, milliseconds.
WITNESSED = {
    "streams": ("stream", 7, 6.993),
    "devices": ("context", 5, 4.933),
    "events": ("event", 3, 2.858),
    "items": ("stream", 11, 10.628),
    "pageable": ("stream", 4, 0.014),
    "contexts": ("context", 2, 2.005),
}
KIND_OF = {
    "cudaStreamSynchronize": "stream", "cudaDeviceSynchronize": "context", "cuCtxSynchronize": "context",
    "cudaEventSynchronize": "event",
}  # fmt: skip


def read(name: str) -> Timeline:
    return read_timeline(EXPORTS / name)


@pytest.fixture(scope="module")
def planted() -> Timeline:
    return read("h200-torch-planted.sqlite")


@pytest.fixture(scope="module")
def found(planted: Timeline) -> list[Finding]:
    return findings(planted)


@pytest.fixture(scope="module")
def kineto() -> Timeline:
    return read("h200-torch-kineto.json.gz")


def states(timeline: Timeline, *more: str) -> dict[str, str]:
    return {limit: row.state for limit, row in verdicts(timeline, *KINDS, *more).items()}


def test_waits_are_those_that_cupti_saw_in_each_range():
    timeline = read("h200-waits.sqlite")
    waits, seen, spent = timeline.syncs.blocking, Counter[tuple[str, str]](), Counter[str]()
    for row in waits:
        chain = [timeline.ranges[index].name for index in timeline.chain(row.range)]
        if chain[:1] == ["measured"]:
            seen[chain[-1], KIND_OF[row.kind]] += 1
            spent[chain[-1]] += row.end_ns - row.start_ns
    assert seen == {(place, kind): number for place, (kind, number, _) in WITNESSED.items()}
    for place, (_, _, ms) in WITNESSED.items():
        assert spent[place] / 1e6 == pytest.approx(ms, rel=0.05, abs=0.02), place


def test_copies_that_wait_are_in_the_table_and_in_the_limit():
    timeline = read("h200-waits.sqlite")
    copies = {row.call: row.count for row in waits_by_call(timeline) if row.kind == "copy to the host"}
    assert copies == {"cudaMemcpyAsync": 16, "cudaMemcpy": 4}
    broken = ["waits in blocking >= 4", "waits in blocking > 3.5 ms", "waits in pageable async >= 8"]
    kept = ["waits in blocking > 4", "waits in pageable async > 8", "waits in polls > 0", "waits in orders > 0"]
    told = states(timeline, *broken, *kept)
    assert [told[limit] for limit in broken + kept] == ["broken"] * 3 + ["kept"] * 4


@pytest.mark.parametrize(
    ("finding", "place", "count", "seen"),
    [
        ("item-sync", "iteration * / forward / item loop", 25, "then cudaStreamSynchronize, 100 B"),
        ("item-sync", "iteration * / forward / pageable reads", 20, "cudaMemcpyAsync, 640 B"),
        ("pageable-copy", "iteration * / forward / pageable reads", 40, "Device to Pageable, 20,972,160 B"),
        ("pageable-copy", "iteration * / forward / pageable writes", 5, "Pageable to Device, 5,242,880 B"),
        ("host-copy", "iteration * / forward / pinned reads", 5, "Device-to-Host, 5,242,880 B"),
        ("repeated-kernel", "iteration * / forward / small kernels", 120, "vectorized_elementwise_kernel"),
        ("sync-in-loop", "sync loop", 10, "cudaDeviceSynchronize"),
        ("sync-in-loop", "stream sync loop", 10, "cudaStreamSynchronize"),
        ("sync-in-loop", "event waits", 10, "cudaEventSynchronize"),
        ("sync-in-loop", "driver waits", 8, "cuCtxSynchronize"),
        ("launch-bound", "python between", 22, "GPU idle: the host ran code between CUDA calls"),
        ("launch-bound", "allocations", 14, "GPU idle: memory was allocated or freed"),
        ("launch-bound", "other thread", 46, "GPU idle: a call of another thread blocked the launch"),
        ("module-loading", "cold", 4, "GPU idle: the runtime loaded or compiled code"),
    ],
)
def test_a_planted_fault_has_its_place_its_number_and_its_cause(found, finding, place, count, seen):
    assert [row.count for row in found if (row.finding, row.range, row.seen) == (finding, place, seen)] == [count]


@pytest.mark.parametrize("place", ["polls", "stream order", "blocking copies"])
def test_what_waits_for_nothing_is_no_loop_of_waits(found, place):
    assert not [row for row in found if row.finding == "sync-in-loop" and row.range.endswith(place)]


def test_two_processes_domains_and_what_was_left_open(planted):
    assert len(planted.processes) == 2
    assert {"alpha", "beta"} < set(planted.ranges.domains)
    rows = {row.path: row for branch in tree(planted, Places(planted)) for _, row in branch.rows()}
    assert (rows["alpha *"].kernels, rows["beta *"].kernels, rows["left open"].kernels) == (12, 12, 0)
    replayed = rows["replay"].children[0].children
    assert [(row.name, row.kernels) for row in replayed] == [("captured matmul", 12), ("captured adds", 36)]
    assert any(note.startswith("Never closed: 2 ranges ('left open')") for note in planted.notes)


def test_a_clean_program_with_a_graph_and_one_read_passes():
    timeline = read("h200-torch-clean-graph.sqlite")
    told = states(timeline, "idle > 1 %", "copies in forward > 0", "waits > 1")
    assert (told.pop("page-fault"), set(told.values())) == ("undecided", {"kept"})
    assert timeline.work.flags("kernel").sum() == 240


@pytest.mark.parametrize(
    ("finding", "place", "count"),
    [
        ("item-sync", "iteration * / forward / item loop / aten::item / aten::_local_scalar_dense", 10),
        ("pageable-copy", "iteration * / forward / pageable reads / aten::copy_", 8),
        ("host-copy", "iteration * / forward / pageable reads / aten::copy_", 8),
        ("repeated-kernel", "iteration * / forward / small kernels / aten::add_", 48),
        ("sync-in-loop", "sync loop", 5),
        ("launch-bound", "python between / aten::mul_", 11),
    ],
)
def test_a_trace_of_pytorch_tells_the_same_faults(kineto, finding, place, count):
    assert [row.count for row in findings(kineto) if (row.finding, row.range) == (finding, place)] == [count]


def test_a_trace_of_pytorch_is_whole(kineto):
    assert (kineto.damage, kineto.losses) == ([], [])
    assert not (kineto.work.call == NONE).any()
    assert {row.call: row.count for row in waits_by_call(kineto)} == {
        "cudaMemcpyAsync": 8, "cudaStreamSynchronize": 10, "cudaDeviceSynchronize": 7,
    }  # fmt: skip
