"""Overheads and the gaps that they excuse: those of the launching thread, of a length that is possible."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxperf.harness.timeline.nsys import read_capture
from fluxperf.harness.timeline.trimming import trim
from tests.timeline.judging import codes
from tests.timeline.making import US, Capture, thread
from tests.timeline.test_missing_evidence import LAST, LAUNCH, edited, whole


def loading(kind: int = 7, *, correlation: int = 0, owner: int | None = None, tid: int = 1, pid: int = 100) -> Capture:
    """Code is loaded during a gap before a late launch; ``tid`` and ``pid`` are those of another call."""
    capture = whole()
    capture.call("cudaGetDevice_v3020", 450 * US, 451 * US, tid=tid, pid=pid)
    capture.call(LAUNCH, 500 * US, 1510 * US, correlation=77)
    capture.kernel("late", 1500 * US, 1550 * US, 77)
    capture.add(
        "CUPTI_ACTIVITY_KIND_OVERHEAD", start=510 * US, end=1490 * US, globalTid=owner, overheadType=kind,
        correlationId=correlation,
    )  # fmt: skip
    return capture


LOADED, HELD_UP, PROFILED = (
    {"launch-bound": late, "module-loading": loaded} for late, loaded in ((0, 1), (1, 0), (0, 0))
)


@pytest.mark.parametrize(
    ("capture", "expected"),
    [
        (loading(owner=thread()), LOADED),
        (loading(), LOADED),
        (loading(correlation=77), LOADED),
        (loading(correlation=77, tid=2), LOADED),
        (loading(correlation=999), LOADED),
        (loading(tid=2), HELD_UP),
        (loading(correlation=77, pid=200), HELD_UP),
        (loading(kind=5), HELD_UP),
        (loading(kind=5, correlation=77), PROFILED),
        (loading(owner=thread(tid=2)), HELD_UP),
    ],
)
def test_an_overhead_without_a_thread_is_of_the_one_that_it_must_be_of(capture, expected, tmp_path: Path):
    path = capture.write(tmp_path / "x.sqlite")
    trim(path, tmp_path / "trimmed.sqlite")
    for one in (path, tmp_path / "trimmed.sqlite"):
        assert codes(read_capture(one), "launch-bound", "module-loading") == expected


def test_an_overhead_that_lasts_for_ever_excuses_nothing(tmp_path: Path):
    capture = whole()
    capture.launch("late", 1500 * US, 1510 * US, 50 * US)
    name = capture.string("Runtime Triggered Module Loading")
    capture.add("PROFILER_OVERHEAD", start=1, end=2, globalTid=thread(), nameId=name, overheadType=7)
    timeline = edited(capture, tmp_path, f"UPDATE PROFILER_OVERHEAD SET start = {-LAST}, end = {LAST}")
    assert codes(timeline, "launch-bound", "module-loading") == {"launch-bound": 1, "module-loading": 0}
