"""Profiles without a GPU: the model runs on the host, and CUPTI's stand-in records a copy and a kernel for each of its
own.

The run's counts and the recording are independent; the comparison must find every planted difference.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fluxperf.engine.device.observers import NvtxRanges
from fluxperf.errors import DeviceError, TimelineError
from fluxperf.harness.timeline.findings import findings
from fluxperf.harness.timeline.ledger import Ledger, compare, read_ledger, write_ledger
from fluxperf.harness.timeline.model import NONE, Timeline
from fluxperf.harness.timeline.reading import read_timeline
from fluxperf.harness.timeline.recorder import Recorder
from fluxperf.harness.timeline.summary import summarize
from fluxperf.harness.timeline.trace import trace
from fluxperf.profiling import profile
from fluxperf.workloads import Prepared, prepare, workload_named

Plant = Callable[[Any, str], None]


class Launches:
    """An observer that launches a kernel for each op that is not composed, which the host device does not do."""

    def __init__(self, gpu: Any, device: Any, plant: Plant | None) -> None:
        self.gpu, self.device, self.plant = gpu, device, plant

    def enter_section(self, section: str, index: int) -> None:
        pass

    def leave_section(self) -> None:
        pass

    def enter_op(self, op: str, composed: bool) -> None:
        if not composed:
            self.gpu.launch(f"_Z{len(op)}{op}Pf")
            self.device.launches += 1
        if self.plant:
            self.plant(self.gpu, op)

    def leave_op(self, args: tuple[Any, ...], result: Any) -> None:
        pass


def on_a_gpu(prepared: Prepared, gpu: Any, plant: Plant | None = None) -> Prepared:
    """Makes the host device's copies and launches visible to CUPTI's stand-in."""
    device, door, observed = prepared.device, prepared.device.door, prepared.observed
    upload, download = door._upload, door._download
    device.launches = 0

    def up(numbers: Any, out: Any) -> Any:
        gpu.copy(1, numbers.nbytes, 2, 3)
        gpu.synchronize()
        return upload(numbers, out)

    def down(array: Any) -> Any:
        gpu.copy(2, array.nbytes, 3, 2)
        gpu.synchronize()
        return download(array)

    door._upload, door._download = up, down
    prepared.observed = lambda *watching: observed(*watching, Launches(gpu, device, plant))  # type: ignore[method-assign]
    return prepared


def recorded(
    fake: Any, rung: str = "baseline", plant: Plant | None = None, measured: int = 1, warmup: int = 1
) -> tuple[Timeline, Ledger]:
    prepared = on_a_gpu(prepare(rung, workload_named("tiny"), device="host"), fake.gpu, plant)
    recorder = Recorder(4242, cupti=fake.cupti, settle=lambda: None)
    ledger = profile(
        prepared, measured, warmup, lambda: NvtxRanges(rung, recorder.domain), recorder.start, recorder.stop
    )
    assert prepared.device.door.watch is None
    return recorder.timeline("x.json", {0: "Example GPU"}, "python"), ledger


@pytest.mark.parametrize(("rung", "measured", "warmup"), [("baseline", 1, 0), ("baseline", 2, 1), ("fused", 3, 1)])
def test_a_recording_equals_the_ledger(fake: Any, rung: str, measured: int, warmup: int) -> None:
    timeline, ledger = recorded(fake, rung, measured=measured, warmup=warmup)
    comparison = compare(timeline, ledger)
    assert comparison.problems == []
    assert len(comparison.agreed) == 2
    copies = sum(row.count for row in ledger.copies)
    assert (copies > 100) == (rung == "baseline")
    assert sum(row.copy is not None for row in timeline.work) == copies
    assert {row.name for row in timeline.ranges if row.name.startswith("step ")} == {
        f"step {n}" for n in range(measured)
    }
    assert sum(row.launches for row in ledger.launches) == sum(row.kind == "kernel" for row in timeline.work) > 50


def test_work_is_in_its_op_and_copies_in_the_ranges_of_their_labels(fake: Any) -> None:
    timeline, ledger = recorded(fake)
    assert timeline.notes == []
    assert all(row.call != NONE and row.range != NONE for row in timeline.work)
    for row in timeline.work:
        around = timeline.ranges[row.range]
        if row.copy is not None:
            assert around.payload == row.bytes
            assert around.name in {copy.label for copy in ledger.copies}
        elif row.kind == "kernel":
            assert row.name == around.name, "a kernel of an op has its name here"
    summary = summarize(timeline)
    assert summary.in_ops is not None
    assert summary.in_ops > 0.98
    assert {call.api for call in timeline.calls} == {"runtime"}
    assert [thread.id & 0xFFFFFF for thread in timeline.threads] == [threading.get_native_id()]
    assert "host-copy" in {row.finding for row in findings(timeline)}


def test_nothing_of_the_warm_up_is_in_the_recording(fake: Any) -> None:
    cold, _ = recorded(fake, warmup=0)
    warm, _ = recorded(fake, warmup=3)
    assert len(cold.work) == len(warm.work)
    assert len(cold.ranges) == len(warm.ranges)


def test_a_copy_beside_the_door_is_named(fake: Any) -> None:
    done: list[str] = []

    def plant(gpu: Any, op: str) -> None:
        if op == "layer_norm" and not done:
            done.append(op)
            gpu.copy(2, 4, 3, 1)

    comparison = compare(*recorded(fake, "fused", plant, warmup=0))
    assert comparison.problems == []  # the fused rung calls no layer_norm of its own
    comparison = compare(*recorded(fake, "baseline", plant, warmup=0))
    (problem,) = comparison.problems
    assert problem.endswith(
        "the ledger has 0 copies of 0 B, the timeline 1 copy of 4 B. The copy did not go through the door."
    )
    assert "layer_norm / d2h" in problem


@pytest.mark.parametrize("what", ["copy", "bytes", "kernel", "range"])
def test_what_the_recording_lacks_is_named(fake: Any, what: str) -> None:
    timeline, ledger = recorded(fake)
    index = next(i for i, row in enumerate(timeline.work) if (row.kind == "kernel") == (what == "kernel"))
    work = timeline.work
    if what == "bytes":
        work.bytes[index] -= 4
    elif what == "range":
        work.range[index] = NONE
    else:
        timeline.work = work.taken(np.arange(len(work)) != index)
    problems = compare(timeline, ledger).problems
    assert len(problems) == (2 if what == "range" else 1)
    assert "fewer kernels than launches" in problems[0] if what == "kernel" else "the ledger has" in problems[0]


def test_work_outside_of_ops_is_reported(fake: Any) -> None:
    timeline, ledger = recorded(fake, "fused")
    block = next(i for i, row in enumerate(timeline.ranges) if row.name == "double 0")
    work = timeline.work
    kernel = next(i for i, row in enumerate(work) if row.kind == "kernel" and row.range != NONE)
    work.range[kernel], work.end_ns[kernel] = block, work.start_ns[kernel] + 10**9
    assert any(problem.startswith("Ops account for 0") for problem in compare(timeline, ledger).problems)


def test_the_trace_is_the_whole_recording(fake: Any, tmp_path: Path) -> None:
    timeline, ledger = recorded(fake, measured=2)
    path = tmp_path / "x.json"
    path.write_text(trace(timeline))
    again = read_timeline(path)
    first = min(row.start_ns for row in timeline.ranges)
    assert (again.tool, again.product, again.gpus) == ("CUPTI", timeline.product, {0: "Example GPU"})
    assert compare(again, ledger) == compare(timeline, ledger)
    one, two = (msgspec.to_builtins(summarize(each)) for each in (timeline, again))
    assert {**one, "source": ""} == {**two, "source": ""}
    one, two = ([msgspec.structs.replace(row, range="") for row in findings(each)] for each in (timeline, again))
    assert one == two
    assert [row.start_ns - first for row in timeline.syncs] == [row.start_ns for row in again.syncs]


def test_a_ledger_is_read_as_it_was_written(fake: Any, tmp_path: Path) -> None:
    _, ledger = recorded(fake, "fused")
    write_ledger(tmp_path / "x.json", ledger)
    assert read_ledger(tmp_path / "x.json") == ledger
    text = json.loads((tmp_path / "x.json").read_text())
    for damaged, says in (
        ("", "expected a ledger written by"),
        ("[]", "expected a ledger written by"),
        (json.dumps({**text, "schema": 2}), "expected a ledger of schema 1, got 2"),
        (json.dumps({**text, "copies": 3}), "expected a ledger written by"),
    ):
        (tmp_path / "x.json").write_text(damaged)
        with pytest.raises(TimelineError) as error:
            read_ledger(tmp_path / "x.json")
        assert says in str(error.value)
    with pytest.raises(TimelineError, match="No such file"):
        read_ledger(tmp_path / "y.json")


def test_dropped_records_are_an_error(fake: Any) -> None:
    with pytest.raises(DeviceError, match=r"profile: expected all records, but CUPTI dropped \d+ records"):
        recorded(fake, plant=lambda gpu, op: gpu.copy(drop=True) if op == "attention" else None, warmup=0, measured=1)
