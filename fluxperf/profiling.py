"""Profiling: steps of a prepared rung run under a profiler, and their work is counted. Engine and harness meet here.

If steps of the rung are launches of a CUDA graph, the graph is profiled: it is captured again when the profiler is on,
with observers that mark the op of each node, and only its launches are in the profile. Its op-by-op form, with gaps
between launches that the graph does not have, is available on request.
"""

from __future__ import annotations

import datetime
import itertools
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import fluxperf
from fluxperf.engine.device.base import Device
from fluxperf.engine.device.observers import LedgerScopes, NvtxRanges, Observer
from fluxperf.engine.device.transfers import Crossing
from fluxperf.engine.executors import Sampler
from fluxperf.engine.ops.meter import OpMeter
from fluxperf.engine.ops.specs import PRODUCTS
from fluxperf.errors import ConfigError
from fluxperf.harness.measure.environment import commit, machine
from fluxperf.harness.records import OpRow
from fluxperf.harness.timeline.ledger import CopyCount, LaunchCount, Ledger
from fluxperf.record_rows import algorithms, op_rows, rung_policy, workload_row
from fluxperf.workloads import Prepared, Workload


class OpLaunches:
    """Observer that counts launches by block and innermost op, without waiting for the GPU.

    Args:
        device: device with the launches.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._blocks: list[str] = []
        self._ops: list[str] = []
        self._seen = device.launches or 0
        self.counts: Counter[tuple[str, str]] = Counter()

    def _settle(self) -> None:
        """Assigns launches since the last boundary to what was open since then."""
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
    """Refuses numbers of steps that exceed a generation.

    Raises:
        ConfigError: a generation has fewer.
    """
    for option, number in (("--measured-steps", measured), ("--warmup", warmup)):
        if number > workload.steps:
            raise ConfigError(
                f"profile {option} {number}: expected at most the {workload.steps} steps of workload "
                f"{workload.name!r}. Ask for fewer, or add --steps {number}."
            )


class _Form(Protocol):
    """How steps are run: prepared before the profiler is on, given observers when it is, then run."""

    name: Literal["ops", "graph"]
    untraced_steps_s: list[float]

    def attach(self, *observers: Observer) -> None:
        """Attaches observers to the following steps."""

    def take(self, measured: int) -> Counter[tuple[str, str]]:
        """Runs the first steps of a generation. Returns launches by block and op, for a graph those inside of it."""


class _ByOp:
    """Launches every op.

    Args:
        prepared: the rung.
        warmup: steps to run first, as a separate generation.
    """

    name: Literal["ops", "graph"] = "ops"

    def __init__(self, prepared: Prepared, warmup: int) -> None:
        self._prepared, self.untraced_steps_s = prepared, list[float]()
        self._launches = OpLaunches(prepared.device)
        self._sampler: Sampler | None = None
        if warmup:
            # Observed like the profiled steps, so that their kernels are loaded: a graph may launch other kernels.
            observed = prepared.observed(OpLaunches(prepared.device))
            observed.denoise(prepared.latents, prepared.request, steps=warmup)

    def attach(self, *observers: Observer) -> None:
        self._launches = OpLaunches(self._prepared.device)
        self._sampler = self._prepared.observed(self._launches, *observers)

    def take(self, measured: int) -> Counter[tuple[str, str]]:
        if self._sampler is not None:
            self._sampler.denoise(self._prepared.latents, self._prepared.request, steps=measured)
        return self._launches.counts


class _AsGraph:
    """Runs a step as one launch of a graph.

    Work that is done once per image is done before the profiler is on, and so is the first capture: its compilation,
    choices and allocations are complete when the step is captured again.

    Args:
        prepared: the rung, whose steps are launches of a graph.
        warmup: steps to run first, as a separate generation.
    """

    name: Literal["ops", "graph"] = "graph"

    def __init__(self, prepared: Prepared, warmup: int) -> None:
        self._prepared = prepared
        steps = prepared.start()
        for _ in range(warmup):
            steps.take()
        self.untraced_steps_s = _timed_steps(prepared)
        self._steps = prepared.start()
        self._captured: Counter[tuple[str, str]] = Counter()
        self._sampler: Sampler | None = None

    def attach(self, *observers: Observer) -> None:
        launches = OpLaunches(self._prepared.device)
        self._prepared.observed(launches, *observers).recapture(self._steps)
        self._captured = launches.counts
        self._sampler = self._prepared.observed(*observers)

    def take(self, measured: int) -> Counter[tuple[str, str]]:
        if self._sampler is not None:
            self._sampler.take(self._steps, measured)
        return self._captured


def _timed_steps(prepared: Prepared) -> list[float]:
    """Seconds of each step of one unobserved generation on the device's clock."""
    device, steps = prepared.device, prepared.start()
    device.synchronize()
    marks = [device.mark()]
    for _ in range(prepared.workload.steps):
        steps.take()
        marks.append(device.mark())
    return [device.elapsed_s(*pair) for pair in itertools.pairwise(marks)]


def profile(
    prepared: Prepared,
    measured: int,
    warmup: int,
    open_ranges: Callable[[], NvtxRanges],
    start: Callable[[], None],
    stop: Callable[[], None],
    by_op: bool = False,
) -> Ledger:
    """Runs the first steps of a generation between two calls that switch a profiler on and off.

    Args:
        prepared: the rung.
        measured: number of profiled steps.
        warmup: steps that run before, as a separate generation.
        open_ranges: makes NVTX ranges or their replacement; called when the profiler is on, so that it sees their
            names.
        start: switches the profiler on; called when the device is idle.
        stop: switches it off; called when the device has finished all profiled work.
        by_op: launch every op, even if a step is a launch of a graph.

    Returns:
        The work of the profiled steps, as counted by the run itself.
    """
    device, door = prepared.device, prepared.device.door
    form: _Form = _AsGraph(prepared, warmup) if prepared.replays and not by_op else _ByOp(prepared, warmup)
    device.synchronize()
    start()
    try:
        ranges = open_ranges()
        form.attach(LedgerScopes(door.ledger), ranges)
        since, door.watch = len(door.ledger.crossings), ranges
        begun_s = time.perf_counter()
        launches = form.take(measured)
        device.synchronize()
        seconds = time.perf_counter() - begun_s
        crossings = door.ledger.crossings[since:]
    finally:
        door.watch = None
        stop()
    revision, dirty = commit(Path(fluxperf.__file__).resolve().parent.parent)
    return Ledger(
        fluxperf=fluxperf.__version__,
        workload=prepared.workload.name,
        rung=prepared.phase.name,
        steps=measured,
        warmup=warmup,
        seconds=seconds,
        copies=_copies(crossings),
        launches=[LaunchCount(block=block, op=op, launches=n) for (block, op), n in launches.items()],
        form=form.name,
        created_utc=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=revision,
        dirty=dirty,
        machine=machine(device.describe()),
        sizes=workload_row(prepared.workload, prepared.source),
        policy=rung_policy(prepared),
        ops=_ops_of_a_step(prepared),
        products=list(PRODUCTS),
        **algorithms(device.trials())._asdict(),
        untraced_steps_s=form.untraced_steps_s,
    )


def _ops_of_a_step(prepared: Prepared) -> list[OpRow]:
    """Ops of one step, launched one by one and counted; without work that an executor does once per image."""
    meter = OpMeter(prepared.device)
    steps = prepared.observed(meter).start(prepared.latents, prepared.request)
    meter.totals.clear()
    steps.take()
    return op_rows(meter)


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
