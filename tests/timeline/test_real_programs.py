"""Two PyTorch programs on one H100, captured by Nsight Systems 2025.3 and trimmed: one with planted faults, one clean.

The planted one ran in two processes, each with `.item()` in a loop, pageable reads and writes, waits in a loop, polls,
streams that wait for each other, a CUDA graph, allocations, first launches, interleaved domains, and a range left open.
The clean one queued six forwards between cudaProfilerStart and cudaProfilerStop.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxperf.harness.timeline.findings import KINDS, Finding, findings
from fluxperf.harness.timeline.model import Timeline
from fluxperf.harness.timeline.nsys import read_capture
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.summary import waits_by_call
from fluxperf.harness.timeline.tree import tree
from tests.timeline.judging import verdicts

EXPORTS = Path(__file__).parent / "exports"


@pytest.fixture(scope="module")
def planted() -> Timeline:
    return read_capture(EXPORTS / "h100-torch-planted.sqlite")


@pytest.fixture(scope="module")
def found(planted: Timeline) -> list[Finding]:
    return findings(planted)


def states(timeline: Timeline) -> dict[str, str]:
    told = verdicts(timeline, *KINDS, "idle > 5 %", "copies in forward > 0")
    return {limit: row.state for limit, row in told.items()}


def test_every_planted_fault_fails_and_the_clean_program_passes(planted):
    # Page faults of unified memory were not asked for, so nothing shows that there are none.
    told = states(planted)
    assert (told.pop("page-fault"), set(told.values())) == ("undecided", {"broken"})
    clean = read_capture(EXPORTS / "h100-torch-clean.sqlite")
    told = states(clean)
    assert (told.pop("page-fault"), set(told.values())) == ("undecided", {"kept"})
    assert sum("nothing is missing" in note for note in clean.notes) == 2
    assert [(row.call, row.count) for row in waits_by_call(clean)] == [("cudaDeviceSynchronize", 1)]


@pytest.mark.parametrize(
    ("finding", "place", "count", "seen"),
    [
        ("item-sync", "iteration * / forward / item loop", 30, "then cudaStreamSynchronize, 120 B"),
        ("item-sync", "iteration * / forward / pageable reads", 24, "cudaMemcpyAsync, 768 B"),
        ("pageable-copy", "iteration * / forward / pageable reads", 48, "Device to Pageable, 25,166,592 B"),
        ("pageable-copy", "iteration * / forward / pageable writes", 6, "Pageable to Device, 6,291,456 B"),
        ("host-copy", "iteration * / forward / item loop", 30, "Device-to-Host, 120 B"),
        ("sync-in-loop", "started / sync loop", 10, "cudaDeviceSynchronize"),
        ("sync-in-loop", "started / polls", 10, "cudaEventSynchronize"),
        ("module-loading", "cold", None, "GPU idle: the runtime loaded or compiled code"),
        ("launch-bound", "started / allocations", None, "GPU idle: memory was allocated or freed"),
    ],
)
def test_a_planted_fault_has_its_place_and_its_cause(found, finding, place, count, seen):
    (row,) = [row for row in found if (row.finding, row.range, row.seen) == (finding, place, seen)]
    assert count is None or row.count == count


def test_waits_are_those_of_cupti_by_call(planted):
    # CUPTI saw 31 and 5 of the first and the last in one process; a first run waits for the device more often.
    waits = {row.call: row.count for row in waits_by_call(planted) if row.kind == "synchronization"}
    assert waits == {"cudaStreamSynchronize": 62, "cudaDeviceSynchronize": 36, "cudaEventSynchronize": 10}


def test_what_was_left_open_holds_nothing_and_graphs_are_known_by_what_was_captured(planted):
    assert any("Never closed: 2 ranges ('left open')" in note for note in planted.notes)
    branches = {row.path: row for branch in tree(planted, Places(planted)) for _, row in branch.rows()}
    assert branches["left open"].children == []
    replay = branches["started / graph / replay"]
    assert [(row.name, row.kernels) for row in replay.children] == [("captured matmul", 6), ("captured add", 18)]
    assert (replay.calls, replay.kernels) == (6, 24)
