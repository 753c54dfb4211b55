"""Blocks: seconds of a double and of a single block inside forwards, between marks on the device, per rung."""

from __future__ import annotations

from typing import Any

from .rungs import RUNGS, SAMPLES, WORKLOADS, need_gpu_for, prepared


class Marks:
    """An observer that marks the device's time at the begin and end of each block.

    Args:
        device: sets the marks.
    """

    def __init__(self, device: Any) -> None:
        self._device = device
        self._open: list[tuple[str, Any]] = []
        #: Section, begin and end of every block so far.
        self.spans: list[tuple[str, Any, Any]] = []

    def enter_section(self, section: str, index: int) -> None:
        """A block begins."""
        self._open.append((section, self._device.mark()))

    def leave_section(self) -> None:
        """The innermost block ends."""
        section, start = self._open.pop()
        self.spans.append((section, start, self._device.mark()))

    def enter_op(self, op: str, composed: bool) -> None:
        """Does nothing: ops are not marked."""

    def leave_op(self, args: tuple[Any, ...], result: Any) -> None:
        """Does nothing."""


class Blocks:
    """Times of one kind of block; a sample is the mean over the blocks of a forward."""

    params = (("double", "single"), RUNGS, WORKLOADS)
    param_names = ("block", "rung", "workload")
    timeout = 600
    version = "1"

    def setup(self, block: str, rung: str, workload: str) -> None:
        """Skips benchmarks that cannot run here."""
        need_gpu_for(workload, rung)
        prepared(rung, workload)

    def track_block(self, block: str, rung: str, workload: str) -> dict[str, Any]:
        """Seconds of one block."""
        run = prepared(rung, workload)
        marks = Marks(run.device)
        forwards = run.observed(marks).begin(run.request)
        forwards.velocity(run.latents, 0)
        return {"samples": [self._once(run, marks, forwards, block) for _ in range(SAMPLES)], "number": 1}

    def _once(self, run: Any, marks: Marks, forwards: Any, block: str) -> float:
        """Mean seconds of one kind of block in one forward."""
        marks.spans.clear()
        forwards.velocity(run.latents, 0)
        run.device.synchronize()
        times = [run.device.elapsed_s(start, end) for section, start, end in marks.spans if section == block]
        return sum(times) / len(times)

    track_block.unit = "seconds"
