"""Unified memory: migrations and page faults of two captures on an H200, by range, and what proves that there are none.

`managed.py` ran under Nsight Systems 2025.3 without an option, and with ``--cuda-um-gpu-page-faults=true``. What the
tables hold is counted by SQL that goes by time alone: in the exports one kernel runs at a time, on one thread.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from fluxperf.harness.timeline.blind import blind_spots
from fluxperf.harness.timeline.filtering import Filter, filtered
from fluxperf.harness.timeline.findings import Finding, findings
from fluxperf.harness.timeline.model import NONE, Timeline
from fluxperf.harness.timeline.nsys import read_capture
from fluxperf.harness.timeline.reading import read_timeline
from fluxperf.harness.timeline.summary import summarize
from fluxperf.harness.timeline.trace import trace
from fluxperf.harness.timeline.trimming import trim
from fluxperf.harness.timeline.unified import _shared
from tests.timeline.judging import codes, verdicts
from tests.timeline.making import US, Capture, process

EXPORTS = Path(__file__).parent / "exports"
NAMES = ("h200-managed-gpu.sqlite", "h200-managed-plain.sqlite")
WORDS = {1: "user prefetch", 2: "page fault", 3: "speculative prefetch"}
DIRECTIONS = {11: "Unified Host-to-Device", 12: "Unified Device-to-Host"}

#: Ranges by the number of their beginning, of the innermost that is open when a row of `m` begins; `k` is the kernel.
BY_TIME = """
SELECT m.copyKind, m.migrationCause, m.bytes, m."end" - m.start, (
    SELECT n.text FROM NVTX_EVENTS n
    WHERE n.start <= m.start AND m.start < n."end" ORDER BY n.start DESC LIMIT 1
), EXISTS (
    SELECT 1 FROM CUPTI_ACTIVITY_KIND_KERNEL k WHERE k.start <= m.start AND m."end" <= k."end"
) FROM CUPTI_ACTIVITY_KIND_MEMCPY m
"""


def rows(name: str, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(EXPORTS / name)) as connection:
        return connection.execute(query).fetchall()


def by_place(found: list[Finding], kind: str) -> dict[tuple[str, str], tuple[int, int, float]]:
    """Number, bytes and nanoseconds by the last range of a path and what was seen."""
    return {
        (row.range.rpartition(" / ")[2], row.seen.rsplit(", ", 1)[0] if row.bytes else row.seen): (
            row.count, row.bytes, round(row.cost_ms * 1e6),
        )
        for row in found
        if row.finding == kind
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_migration_is_found_in_its_range(name):
    counts, moved, spent = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for kind, cause, size, lasted, place, in_kernel in rows(name, BY_TIME):
        assert in_kernel == (kind == 11 and cause != 1), "what the device touched lies in the kernel that touched it"
        key = (str(place), f"{DIRECTIONS[kind]}, {WORDS[cause]}")
        counts[key], moved[key], spent[key] = counts[key] + 1, moved[key] + size, spent[key] + lasted
    expected = {key: (counts[key], moved[key], spent[key]) for key in counts}
    assert len(expected) == 7
    timeline = read_capture(EXPORTS / name)
    found = findings(timeline)
    seen = {key: value for key, value in by_place(found, "page-fault").items() if "GPU" not in key[1]}
    asked = ("prefetch", "Unified Host-to-Device, user prefetch")
    assert seen == {key: value for key, value in expected.items() if key != asked}
    copies = {row.name.rpartition(" / ")[2]: sum(copy.count for copy in row.copies) for row in shown(timeline)}
    assert {place: number for place, number in copies.items() if number} == Counter(
        {place: sum(number for (of, _), number in counts.items() if of == place) for place, _ in counts}
    )
    # A range is not a forward for what was moved in it: only that of the kernels is one.
    (copied,) = by_place(found, "host-copy").items()
    forward = [expected[key] for key in expected if key[0] == "forward"]
    assert copied == (("forward", "Unified Host-to-Device"), tuple(map(sum, zip(*forward, strict=True))))


def shown(timeline: Timeline) -> list:
    return summarize(timeline, "range").rows


def test_page_faults_of_a_gpu_are_those_of_the_kernel_that_ran():
    name = "h200-managed-gpu.sqlite"
    served = rows(name, 'SELECT start, "end", numberOfPageFaults FROM CUDA_UM_GPU_PAGE_FAULT_EVENTS ORDER BY start')
    ranges = rows(name, "SELECT start, \"end\" FROM NVTX_EVENTS WHERE text = 'forward'")
    within = [row for row in served if any(start <= row[0] < end for start, end in ranges)]
    assert (len(served), len(within)) == (4, 3)
    seen = by_place(findings(read_capture(EXPORTS / name)), "page-fault")
    stalled = sum(end - start for start, end, _ in within)
    assert seen["forward", "page faults of a GPU (read)"] == (sum(row[2] for row in within), 0, stalled)
    assert seen["(no range)", "page faults of a GPU (read)"] == (2, 0, served[0][1] - served[0][0])


@pytest.mark.parametrize(
    ("name", "limit", "code"),
    [
        ("h200-managed-gpu.sqlite", "page-fault", 1),
        ("h200-managed-gpu.sqlite", "page-fault in host writes > 11", 1),
        ("h200-managed-gpu.sqlite", "page-fault in host writes > 12", 0),
        ("h200-managed-gpu.sqlite", "page-fault in prefetch", 0),
        ("h200-managed-gpu.sqlite", "page-fault in forward > 1.9 ms", 1),
        ("h200-managed-gpu.sqlite", "page-fault in forward > 1900 \u03bcs", 1),
        ("h200-managed-gpu.sqlite", "page-fault in host writes > 2.09 MB", 1),
        ("h200-managed-gpu.sqlite", "page-fault in host writes > 2.1 MB", 0),
        ("h200-managed-gpu.sqlite", "copies in prefetch > 1", 0),
        ("h200-managed-gpu.sqlite", "copies in prefetch > 2 MB", 1),
        ("h200-managed-gpu.sqlite", "copies in forward > 228", 1),
        ("h200-managed-gpu.sqlite", "copies in forward > 229", 0),
        ("h200-managed-plain.sqlite", "page-fault in forward > 197", 1),
        ("h200-managed-plain.sqlite", "page-fault in forward > 198", 2),
        ("h200-managed-plain.sqlite", "page-fault in prefetch", 2),
        ("h200-managed-plain.sqlite", "launch-bound in prefetch", 2),
        ("h200-waits.sqlite", "page-fault", 2),
        ("h200-torch-kineto.json.gz", "page-fault", 2),
    ],
)
def test_a_limit_is_kept_only_where_the_capture_can_show_it(name, limit, code):
    assert codes(read_timeline(EXPORTS / name), limit) == {limit: code}


def test_a_capture_says_what_was_not_recorded_of_unified_memory():
    plain, trained = (blind_spots(read_timeline(EXPORTS / name)) for name in (NAMES[1], "h200-torch-kineto.json.gz"))
    assert "--cuda-um-gpu-page-faults=true" in plain["page-fault"]
    assert "migrations of unified memory were not recorded" in trained["page-fault"]


@pytest.mark.parametrize("name", NAMES)
def test_trimmed_exports_and_traces_say_the_same(name, tmp_path: Path):
    whole = read_capture(EXPORTS / name)
    trim(EXPORTS / name, tmp_path / "trimmed.sqlite")
    (tmp_path / "trace.json").write_text(trace(whole), encoding="utf-8")
    for path in (tmp_path / "trimmed.sqlite", tmp_path / "trace.json"):
        again = read_timeline(path)
        assert findings(again) == findings(whole)
        assert blind_spots(again) == blind_spots(whole)
        assert (again.faults_of, again.graph_mode) == (whole.faults_of, "Node")


def touched(**more: int) -> Capture:
    """A kernel in `forward` with a fault and a migration, while a second thread has a range open."""
    capture = Capture()
    capture.range("forward", 0, 500 * US)
    capture.range("loader", 0, 2000 * US, tid=2)
    capture.launch("kernel", 10 * US, 20 * US, 400 * US)
    moved = {"source": 7, "target": 7, "size": 4096, "correlation": 0}
    capture.copy(11, 100 * US, 110 * US, cause=2, **moved)
    capture.add(
        "CUDA_UM_GPU_PAGE_FAULT_EVENTS", start=90 * US, end=120 * US, globalPid=process(), deviceId=0,
        numberOfPageFaults=3, faultAccessType=2,
    )  # fmt: skip
    capture.copy(12, more.get("at", 600) * US, (more.get("at", 600) + 2) * US, cause=2, **moved)
    capture.add("CUDA_UM_CPU_PAGE_FAULT_EVENTS", start=more.get("at", 600) * US, globalPid=process())
    return capture


def test_what_the_host_touched_is_in_the_only_range_that_was_open(tmp_path: Path):
    (tmp_path / "two").mkdir()
    alone, shared = touched().read(tmp_path), touched(at=300).read(tmp_path / "two")
    assert by_place(findings(alone), "page-fault") == {
        ("forward", "Unified Host-to-Device, page fault"): (1, 4096, 10_000),
        ("forward", "page faults of a GPU (write)"): (3, 0, 30_000),
        ("loader", "Unified Device-to-Host, page fault"): (1, 4096, 2_000),
        ("loader", "page faults of the host"): (1, 0, 0),
    }
    assert codes(alone, "page-fault in loader > 2", "copies in loader > 1") == {
        "page-fault in loader > 2": 0, "copies in loader > 1": 0,
    }  # fmt: skip
    # Two threads had a range open: nothing says which of them touched it.
    told = verdicts(shared, "page-fault in loader", "copies in loader > 0")
    assert [row.state for row in told.values()] == ["undecided", "undecided"]
    assert "2 page faults" in told["page-fault in loader"].reason


def test_parts_keep_migrations_and_faults_of_theirs(tmp_path: Path):
    timeline = touched().read(tmp_path)
    for wanted, number, faults in ((Filter(range="forward"), 1, 3), (Filter(range="loader"), 1, 1)):
        part = filtered(timeline, wanted)
        assert (int(part.work.unified.sum()), int(part.faults.number.sum())) == (number, faults), wanted
    late = filtered(timeline, Filter(between_ms=(0.5, 2)))
    assert [row.side for row in late.faults] == ["host"]


def prefetches(waited: bool) -> Capture:
    capture = Capture()
    capture.range("first", 0, 100 * US)
    capture.range("second", 200 * US, 300 * US)
    capture.launch("kernel", 1 * US, 2 * US, 3 * US)
    capture.call("cudaMemPrefetchAsync_v12020", 10 * US, 12 * US)
    if waited:
        capture.call("cudaStreamSynchronize_v3020", 110 * US, 180 * US)
    capture.call("cudaMemPrefetchAsync_v12020", 210 * US, 212 * US)
    for at in (50, 250):
        capture.copy(11, at * US, (at + 1) * US, 0, 1 << 21, source=7, target=7, cause=1)
    return capture


@pytest.mark.parametrize(("waited", "second"), [(True, "second"), (False, "(no range)")])
def test_a_prefetch_is_of_the_call_that_asked_unless_it_may_be_of_another(waited, second, tmp_path: Path):
    timeline = prefetches(waited).read(tmp_path)
    places = [timeline.ranges[row.range].name if row.range != NONE else "(no range)" for row in timeline.work][1:]
    assert places == ["first", second]
    assert codes(timeline, "page-fault") == {"page-fault": 0}


@pytest.mark.parametrize(
    ("said", "code"), [("", 0), ("CUDA device 0: Unified Memory cannot be traced on devices that don't support", 2)]
)
def test_a_machine_on_which_migrations_are_not_recorded_proves_nothing(said, code, tmp_path: Path):
    capture = Capture()
    capture.about["EXPORT_PARAM_TABLES_TO_EXPORT"] = ""  # no table was left out
    capture.range("forward", 0, 500 * US)
    capture.launch("kernel", 10 * US, 20 * US, 400 * US)
    if said:
        capture.add("DIAGNOSTIC_EVENT", severity=2, text=said, globalPid=process(), timestamp=0)
    (tmp_path / "unused").mkdir()
    assert codes(capture.read(tmp_path / "unused"), "host-copy", "page-fault") == {"host-copy": 0, "page-fault": code}
    capture.call("cudaMallocManaged_v6000", 1 * US, 5 * US)
    path = capture.write(tmp_path / "used.sqlite")
    trim(path, tmp_path / "trimmed.sqlite")
    for one in (path, tmp_path / "trimmed.sqlite"):
        assert codes(read_capture(one), "host-copy", "copies > 0") == {"host-copy": code, "copies > 0": code}


def test_exports_that_do_not_say_why_pages_moved_decide_nothing_of_faults(tmp_path: Path):
    capture = Capture()
    capture.range("forward", 0, 500 * US)
    capture.launch("kernel", 10 * US, 20 * US, 400 * US)
    capture.copy(11, 100 * US, 110 * US, 0, 4096, source=7, target=7)
    timeline = capture.read(tmp_path)
    assert codes(timeline, "page-fault", "copies in forward > 0") == {"page-fault": 2, "copies in forward > 0": 1}


def test_what_all_intervals_around_a_time_share():
    chance = np.random.default_rng(1)
    for _ in range(300):
        number = int(chance.integers(0, 8))
        starts = chance.integers(0, 20, number)
        ends, values = starts + chance.integers(0, 12, number), chance.choice([NONE, 3, (1 << 40) + 1], number)
        times = np.arange(-1, 34)
        held = [{int(v) for s, e, v in zip(starts, ends, values, strict=True) if s <= t < e} for t in times]
        expected = [one.pop() if len(one) == 1 else NONE for one in held]
        assert _shared(starts, ends, values, times).tolist() == expected
