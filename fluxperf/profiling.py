"""Profiling: steps of a prepared rung run under a tool, and what they did is counted. Engine and harness meet here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import fluxperf
from fluxperf.engine.device.base import Device
from fluxperf.engine.device.observers import LedgerScopes, NvtxRanges
from fluxperf.engine.device.transfers import Crossing
from fluxperf.errors import ConfigError
from fluxperf.harness.timeline.ledger import CopyCount, LaunchCount, Ledger
from fluxperf.workloads import Prepared, Workload


class OpLaunches:
    """Observer that counts launches by block and innermost op; nothing that runs on the GPU is waited for.

    Args:
        device: whose launches.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._blocks: list[str] = []
        self._ops: list[str] = []
        self._seen = device.launches or 0
        self.counts: Counter[tuple[str, str]] = Counter()

    def _settle(self) -> None:
        """Gives launches since the last seam to what was open since then."""
        launched = (self._device.launches or 0) - self._seen
        if launched:
            self.counts[self._blocks[-1] if self._blocks else "", self._ops[-1] if self._ops else ""] += launched
            self._seen += launched

    def enter_section(self, section: str, index: int) -> None:
        """Opens a block."""
        self._settle()
        self._blocks.append(f"{section} {index}")
        self._ops.append("")

    def leave_section(self) -> None:
        """Closes it."""
        self._settle()
        self._blocks.pop()
        self._ops.pop()

    def enter_op(self, op: str, composed: bool) -> None:
        """Opens an op."""
        self._settle()
        self._ops.append(op)

    def leave_op(self, args: tuple[Any, ...], result: Any) -> None:
        """Closes it."""
        self._settle()
        self._ops.pop()


def check_steps(workload: Workload, measured: int, warmup: int) -> None:
    """Refuses numbers of steps that a generation does not have.

    Raises:
        ConfigError: there are fewer.
    """
    for option, number in (("--measured-steps", measured), ("--warmup", warmup)):
        if number > workload.steps:
            raise ConfigError(
                f"profile {option} {number}: expected at most the {workload.steps} steps of workload "
                f"{workload.name!r}. Ask for fewer, or add --steps {number}."
            )


def profile(
    prepared: Prepared,
    measured: int,
    warmup: int,
    open_ranges: Callable[[], NvtxRanges],
    start: Callable[[], None],
    stop: Callable[[], None],
) -> Ledger:
    """Runs the first steps of a generation between two calls that switch a tool on and off.

    Args:
        prepared: the rung.
        measured: steps that are profiled.
        warmup: steps that run before, as a generation of their own.
        open_ranges: makes NVTX ranges, or what stands in for them; called when the tool is on, so that it sees their
            names.
        start: switches the tool on; called when the device has nothing to do.
        stop: switches it off; called when the device has done all that was profiled.

    Returns:
        What the profiled steps did, as counted by the run itself.
    """
    device, door = prepared.device, prepared.device.door
    if warmup:
        # Observed as the profiled steps are, so that what they launch is loaded: a graph would launch other kernels.
        prepared.observed(OpLaunches(device)).denoise(prepared.latents, prepared.request, steps=warmup)
    device.synchronize()
    start()
    try:
        ranges, launches = open_ranges(), OpLaunches(device)
        sampler = prepared.observed(LedgerScopes(door.ledger), launches, ranges)
        since, door.watch = len(door.ledger.crossings), ranges
        begun_s = time.perf_counter()
        sampler.denoise(prepared.latents, prepared.request, steps=measured)
        device.synchronize()
        seconds = time.perf_counter() - begun_s
    finally:
        door.watch = None
        stop()
    return Ledger(
        fluxperf=fluxperf.__version__,
        workload=prepared.workload.name,
        rung=prepared.phase.name,
        steps=measured,
        warmup=warmup,
        seconds=seconds,
        copies=_copies(door.ledger.crossings[since:]),
        launches=[LaunchCount(block=block, op=op, launches=n) for (block, op), n in launches.counts.items()],
    )


def _copies(crossings: list[Crossing]) -> list[CopyCount]:
    """Copies summed by block, op, label and direction, in order of first appearance."""
    counts: Counter[tuple[Any, ...]] = Counter()
    sizes: Counter[tuple[Any, ...]] = Counter()
    for row in crossings:
        block = f"{row.section} {row.index}" if row.section else ""
        key = (block, row.op, row.label, row.direction)
        counts[key] += 1
        sizes[key] += row.bytes
    return [
        CopyCount(block=key[0], op=key[1], label=key[2], direction=key[3], count=number, bytes=sizes[key])
        for key, number in counts.items()
    ]
