"""Events that the tool may have lost: which of its warnings say so, and which limits are then undecided."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxperf.harness.timeline.filtering import Filter, filtered
from fluxperf.harness.timeline.findings import KINDS
from fluxperf.harness.timeline.model import Damage
from tests.timeline.judging import codes, verdicts
from tests.timeline.making import US, lossy

CUDA = "Not all CUDA events might have been collected."
NVTX = "Not all NVTX events might have been collected."
MISSING = "Number of CUPTI events produced: \t31, CUPTI buffers: 49 of 50. Some CUPTI events might be missing."
UNSTARTED = "CUDA profiling might have not been started correctly."


@pytest.mark.parametrize("text", [CUDA, MISSING, UNSTARTED, "12 events were dropped", "The trace buffer was full."])
def test_a_loss_of_cuda_decides_nothing(text, tmp_path: Path):
    timeline = lossy((text, 100)).read(tmp_path)
    assert codes(timeline) == dict.fromkeys(KINDS, 2)
    assert any(text in note for note in timeline.notes)
    assert [(row.severity, row.text) for row in timeline.diagnostics] == [("warning", text)]


def test_a_loss_of_ranges_decides_nothing_that_rests_on_them(tmp_path: Path):
    told = codes(lossy((NVTX, 100)).read(tmp_path))
    assert told == dict.fromkeys(KINDS, 0) | {"host-copy": 2, "sync-in-loop": 2}


@pytest.mark.parametrize("limit", [*KINDS, "idle > 1 ms", "waits > 0", "copies > 0", "kernels > 1"])
def test_a_loss_of_ranges_decides_nothing_about_one_of_them(limit, tmp_path: Path):
    name, *more = limit.split(" ", 1)
    wanted, part = " ".join((f"{name} in step *", *more)), Filter(range="step *")
    whole = lossy().read(tmp_path)
    assert codes(whole, wanted) | codes(filtered(whole, part), limit) == {wanted: 0, limit: 0}
    (tmp_path / "lossy").mkdir()
    less = lossy((NVTX, 100)).read(tmp_path / "lossy")
    whole.damage = [Damage("ranges", "1 NVTX range ends before it begins")]
    for timeline in (less, whole):
        assert codes(timeline, wanted) | codes(filtered(timeline, part), limit) == {wanted: 2, limit: 2}
    reason = verdicts(whole, wanted)[wanted].reason
    assert reason.count("NVTX range ends") == 1


@pytest.mark.parametrize(
    "said",
    [
        ((UNSTARTED, 200), ("No CUDA events collected. Does the process use CUDA?", 200)),
        (("cuDNN profiling might have not been started correctly.", 100),),
        (("Not all OS runtime libraries events might have been collected.", 100),),
        (("Buffers holding CUDA trace data will be flushed on CudaProfilerStop() call.", 100),),
    ],
)
def test_what_is_said_of_a_helper_process_or_of_what_is_not_read_loses_nothing(said, tmp_path: Path):
    assert codes(lossy(*said).read(tmp_path)) == dict.fromkeys(KINDS, 0)


@pytest.mark.parametrize(("collected", "lone", "decided"), [(2, False, True), (3, False, False), (2, True, False)])
def test_a_capture_that_its_program_ends_is_believed_if_it_is_whole(collected, lone, decided, tmp_path: Path):
    said = ("Profiling started due to cudaProfilerStart API invoked in the application.",
            f"Number of CUDA events collected: \t{collected}.", CUDA)  # fmt: skip
    capture = lossy(*((text, 100) for text in said))
    if lone:
        capture.call("cudaLaunchKernel_v7000", 600 * US, 601 * US)
    timeline = capture.read(tmp_path)
    assert set(codes(timeline).values()) == ({0} if decided else {2})
    assert any("nothing is missing" in note for note in timeline.notes) == decided
