"""Costs of each range of a timeline: calls, host and GPU time, idle, kernels, copies, synchronizations.

Every piece of GPU work is in exactly one row. The GPU time of a row is the union of the intervals in which its work
ran, added over GPUs. The sum of a row adds all durations. They differ if work overlaps. Idle is the time in which a GPU
did nothing before work of the row began, within the outermost range around the launch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal, get_args

import msgspec
import numpy as np

from fluxperf.errors import UnknownNameError
from fluxperf.harness.timeline.busy import busy, busy_by
from fluxperf.harness.timeline.columns import Column, Cover, codes, distinct, empty, numbered
from fluxperf.harness.timeline.model import NONE, Timeline, What, Works
from fluxperf.harness.timeline.places import Level, Places
from fluxperf.harness.timeline.waiting import blocking_copies, waiting_copies

By = Literal["op", "block", "step", "range", "kernel"]
GROUPINGS: tuple[str, ...] = get_args(By)

#: Maximum number of kernels that a row lists. A table shows fewer.
MOST_KERNELS = 50


class CopyRow(msgspec.Struct, frozen=True, kw_only=True):
    """Copies of one direction between two kinds of memory."""

    direction: str
    source_memory: str
    target_memory: str
    count: int
    bytes: int
    gpu_ms: float


class KernelRow(msgspec.Struct, frozen=True, kw_only=True):
    """Launches of a kernel, and the sum of their durations."""

    name: str
    count: int
    gpu_ms: float


class WaitRow(msgspec.Struct, frozen=True, kw_only=True):
    """Calls of one name in which the host waited; ``kind`` is a synchronization, or a copy that returns when done."""

    call: str
    kind: str
    count: int
    ms: float
    longest_ms: float


class Row(msgspec.Struct, kw_only=True):
    """One range, or one kernel. ``calls`` counts the ranges that the row adds up (for a kernel its launches).

    ``host_ms`` is the time in those ranges on their threads, nested ranges included (for a kernel the time in its
    launch calls). ``sync_ms`` is the host's time in the blocking synchronizations that ``syncs`` counts. Copies that
    return when they are finished are only in `WaitRow`. ``top_kernels`` are the longest of ``kernel_names``.
    """

    name: str
    calls: int = 0
    host_ms: float = 0.0
    gpu_ms: float = 0.0
    gpu_sum_ms: float = 0.0
    idle_ms: float = 0.0
    kernels: int = 0
    memsets: int = 0
    decompressions: int = 0
    graphs: int = 0
    copies: list[CopyRow] = []
    syncs: int = 0
    sync_ms: float = 0.0
    kernel_names: int = 0
    top_kernels: list[KernelRow] = []


class GpuRow(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU: the span from its first to its last work, and the busy time in it."""

    gpu: int
    name: str
    span_ms: float
    busy_ms: float


class OverlapRow(msgspec.Struct, frozen=True, kw_only=True):
    """NCCL kernels on a GPU and all others: time of each, of both at once, and of exposed communication."""

    gpu: int
    communication_ms: float
    compute_ms: float
    overlap_ms: float
    exposed_ms: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A timeline by op, block, step, range or kernel, with a row of totals.

    ``in_ops`` is the share of the GPU time of all steps (sum of durations) that lies in their ops; ``None`` if no GPU
    worked in a step.
    """

    source: str
    tool: str
    product: str
    schema: str
    graph_mode: str
    by: str
    processes: int
    threads: int
    gpus: list[GpuRow]
    total: Row
    rows: list[Row]
    waits: list[WaitRow]
    overlaps: list[OverlapRow]
    notes: list[str]
    in_ops: float | None


def summarize(timeline: Timeline, by: str = "op", places: Places | None = None) -> Summary:
    """Summarizes a timeline.

    Args:
        timeline: an attributed timeline, its work ordered by time.
        by: one of ``GROUPINGS``.
        places: its places, if they are known already.

    Raises:
        UnknownNameError: there is no such grouping.
    """
    if by not in GROUPINGS:
        raise UnknownNameError("grouping", by, GROUPINGS)
    places = places or Places(timeline)
    gpus = _gpu_rows(timeline)
    rows = _Rows(timeline, places, by)
    rows.add_ranges()
    rows.add_work()
    rows.add_syncs()
    found, total = rows.finished()
    total.gpu_ms = sum(gpu.busy_ms for gpu in gpus)
    if by not in ("step", "block"):
        found.sort(key=lambda row: (-row.gpu_ms, -row.host_ms, row.name))
    return Summary(
        source=timeline.source,
        tool=timeline.tool,
        product=timeline.product,
        schema=timeline.schema,
        graph_mode=timeline.graph_mode,
        by=by,
        processes=len(timeline.processes),
        threads=len(timeline.threads),
        gpus=gpus,
        total=total,
        rows=found,
        waits=waits_by_call(timeline),
        overlaps=overlaps(timeline),
        notes=timeline.notes,
        in_ops=_in_ops(timeline, places),
    )


def kernel_labels(kinds: Sequence[What]) -> list[str]:
    """A label for each kind of work: a kernel's short name, or its full name if others share the short one."""
    full: dict[str, set[str]] = defaultdict(set)
    for what in kinds:
        full[what.name].add(what.full_name)
    return [what.full_name if what.full_name and len(full[what.name]) > 1 else what.name for what in kinds]


class _Sums:
    """Sums of work by row: the fields of `Row` about kernels, copies, memsets, decompressions and graphs.

    Args:
        work: the work.
        rows: for each piece the number of its row.
        number: of rows.
    """

    def __init__(self, work: Works, rows: Column, number: int) -> None:
        lasted = work.end_ns - work.start_ns
        self.gpu_ms = busy_by(work, rows, number) / 1e6
        self.gpu_sum_ms = np.bincount(rows, lasted, number) / 1e6
        self.counts = {
            kind: np.bincount(rows[work.flags(kind)], minlength=number)
            for kind in ("kernel", "memset", "decompression", "graph")
        }
        self._of_row: dict[int, list[tuple[int, int, float, float]]] = defaultdict(list)
        self._kinds, self._labels = work.kinds, kernel_labels(work.kinds)
        if len(work):
            groups, firsts = codes(rows, work.what)
            times = np.bincount(groups, minlength=len(firsts))
            spent, moved = np.bincount(groups, lasted), np.bincount(groups, work.bytes)
            columns = (rows[firsts], work.what[firsts], times, spent, moved)
            for row, what, *sums in zip(*(one.tolist() for one in columns), strict=True):
                self._of_row[row].append((what, *sums))

    def write(self, number: int, row: Row) -> None:
        """Fills the fields of a row."""
        row.gpu_ms, row.gpu_sum_ms = float(self.gpu_ms[number]), float(self.gpu_sum_ms[number])
        row.kernels, row.memsets, row.decompressions, row.graphs = (int(one[number]) for one in self.counts.values())
        kernels: dict[str, list[float]] = {}
        copies: dict[tuple[str, str, str], list[float]] = {}
        for place, times, spent, moved in self._of_row[number]:
            what = self._kinds[place]
            if what.copy is not None:
                copy = what.copy
                kind = (copy.direction, copy.source_memory, copy.target_memory)
                _plus(copies, kind, times * copy.count, moved, spent)
            elif what.kind == "kernel":
                _plus(kernels, self._labels[place], times, spent)
        row.copies = [
            CopyRow(
                direction=kind[0],
                source_memory=kind[1],
                target_memory=kind[2],
                count=int(n),
                bytes=int(size),
                gpu_ms=ns / 1e6,
            )
            for kind, (n, size, ns) in sorted(copies.items(), key=lambda item: (-item[1][2], item[0]))
        ]
        row.kernel_names = len(kernels)
        longest = sorted(kernels.items(), key=lambda item: (-item[1][1], item[0]))[:MOST_KERNELS]
        row.top_kernels = [KernelRow(name=name, count=int(n), gpu_ms=ns / 1e6) for name, (n, ns) in longest]


def _plus(sums: dict[Any, list[float]], key: Any, *values: float) -> None:
    held = sums.setdefault(key, [0.0] * len(values))
    for index, value in enumerate(values):
        held[index] += value


class _Rows:
    """Rows while they are added up, and one of totals."""

    def __init__(self, timeline: Timeline, places: Places, by: str) -> None:
        self._timeline = timeline
        self._places = places
        self._level: Level | None = None if by == "kernel" else by  # type: ignore[assignment]
        self._rows: dict[str, Row] = {}
        self._total = Row(name="total")

    def _row(self, name: str) -> Row:
        if name not in self._rows:
            self._rows[name] = Row(name=name)
        return self._rows[name]

    def _work_rows(self) -> tuple[Column, list[str]]:
        """The number of the row that each piece of work belongs to, and the names of rows."""
        work = self._timeline.work
        if self._level is not None:
            return self._places.rows_of(work, self._level)
        labels = zip(kernel_labels(work.kinds), work.kinds, strict=True)
        of_kind, names = numbered(label if what.copy is None else f"copy {what.name}" for label, what in labels)
        return of_kind[work.what], names

    def add_ranges(self) -> None:
        """Adds the count and the time of ranges, ordered by start."""
        ranges = self._timeline.ranges
        self._total.calls += len(ranges)
        lasted_ms = (ranges.end_ns - ranges.start_ns) / 1e6
        self._total.host_ms += float(lasted_ms[ranges.parent == NONE].sum())
        if self._level is None or not len(ranges):
            return
        order = np.lexsort((-ranges.end_ns, ranges.start_ns))
        rows, names = self._places.named(order, self._level)
        own = self._places.owners(order, self._level) == order
        counts, spent = np.bincount(rows[own], minlength=len(names)), np.bincount(rows[own], lasted_ms[order][own])
        first = np.full(len(names), len(order))
        np.minimum.at(first, rows[own], np.flatnonzero(own))
        for number in np.argsort(first, kind="stable").tolist():
            if counts[number]:
                target = self._row(names[number])
                target.calls += int(counts[number])
                target.host_ms += float(spent[number])

    def add_work(self) -> None:
        """Adds work of GPUs and their idle time."""
        work, idle = self._timeline.work, self._places.idle
        rows, names = self._work_rows()
        sums = _Sums(work, rows, len(names))
        everything = _Sums(work, empty(len(work)), 1)
        everything.write(0, self._total)
        idle_ms = np.bincount(rows[idle.work], idle.lasted_ns / 1e6, len(names))
        seen = np.unique(rows, return_index=True)
        for number in seen[0][np.argsort(seen[1])].tolist():
            row = self._row(names[number])
            sums.write(number, row)
            row.idle_ms += float(idle_ms[number])
        self._total.idle_ms += float(idle.lasted_ns.sum() / 1e6)
        if self._level is None and len(work):
            self._add_launches(rows, names)

    def _add_launches(self, rows: Column, names: list[str]) -> None:
        """In a table of kernels: adds launches, and the time in their calls, counted once per call."""
        work, calls = self._timeline.work, self._timeline.calls
        known = work.call != NONE
        _, firsts = codes(rows[known], work.call[known]) if known.any() else (empty(), empty())
        launch = work.call[known][firsts]
        spent = np.bincount(rows[known][firsts], calls.end_ns[launch] - calls.start_ns[launch], len(names))
        for number, launches in enumerate(np.bincount(rows, minlength=len(names)).tolist()):
            self._row(names[number]).calls = launches
            self._row(names[number]).host_ms = float(spent[number]) / 1e6

    def add_syncs(self) -> None:
        """Adds synchronizations that block the host."""
        waits = self._timeline.syncs.blocking
        blocked_ms = (waits.end_ns - waits.start_ns) / 1e6
        self._total.syncs, self._total.sync_ms = len(waits), float(blocked_ms.sum())
        if self._level is None:
            return
        rows, names = self._places.named(waits.range, self._level)
        counts, spent = np.bincount(rows, minlength=len(names)), np.bincount(rows, blocked_ms, len(names))
        for number, name in enumerate(names):
            self._row(name).syncs += int(counts[number])
            self._row(name).sync_ms += float(spent[number])

    def finished(self) -> tuple[list[Row], Row]:
        """The rows, and the row of totals."""
        return list(self._rows.values()), self._total


def _in_ops(timeline: Timeline, places: Places) -> float | None:
    """Share of the GPU time of steps that lies in ops."""
    work = timeline.work
    lasted = work.end_ns - work.start_ns
    inside = places.steps(work.range) != NONE
    in_step = int(lasted[inside].sum())
    around = np.where(work.captured != NONE, work.captured, work.range)
    in_op = int(lasted[inside & (places.owners(around, "op") != NONE)].sum())
    return in_op / in_step if in_step else None


def waits_by_call(timeline: Timeline) -> list[WaitRow]:
    """Waits of the host by call: synchronizations, and copies that return when they are finished."""
    waits = timeline.syncs.blocking
    calls, launch = timeline.calls, waiting_copies(timeline)
    names = [
        *((name, "synchronization") for name in waits.kinds),
        *((name, "copy to the host") for name, _ in calls.kinds),
        *((name, "copy to the device") for name, _ in calls.kinds),
    ]
    to_device = ~np.isin(launch, timeline.work.call[blocking_copies(timeline)])
    places = calls.what[launch] + len(waits.kinds) + to_device * len(calls.kinds)
    what = np.concatenate((waits.what, places))
    lasted = np.concatenate((waits.end_ns - waits.start_ns, calls.end_ns[launch] - calls.start_ns[launch]))
    rows = []
    for place in np.unique(what).tolist():
        own = lasted[what == place]
        name, kind = names[place]
        row = WaitRow(
            call=name, kind=kind, count=len(own), ms=float(own.sum()) / 1e6, longest_ms=float(own.max()) / 1e6
        )
        rows.append(row)
    return sorted(rows, key=lambda row: (-row.ms, row.call))


def overlaps(timeline: Timeline) -> list[OverlapRow]:
    """Overlap of communication and computing on each GPU that runs NCCL kernels."""
    work = timeline.work
    kernel, nccl = work.flags("kernel"), work.where(what.name.lower().startswith("nccl") for what in work.kinds)
    rows = []
    for gpu in distinct(work.gpu[kernel & nccl]).tolist():
        here = kernel & (work.gpu == gpu)
        talk, compute = (Cover(work.start_ns[one], work.end_ns[one]) for one in (here & nccl, here & ~nccl))
        spent = int((talk.ends - talk.starts).sum()) / 1e6
        hidden = int(compute.within(talk.starts, talk.ends).sum()) / 1e6
        computed = int((compute.ends - compute.starts).sum()) / 1e6
        rows.append(
            OverlapRow(
                gpu=gpu, communication_ms=spent, compute_ms=computed, overlap_ms=hidden, exposed_ms=spent - hidden
            )
        )
    return rows


def _gpu_rows(timeline: Timeline) -> list[GpuRow]:
    """Span and busy time of each GPU."""
    return [
        GpuRow(
            gpu=gpu,
            name=timeline.gpus.get(gpu, ""),
            span_ms=(found.last_ns - found.first_ns) / 1e6,
            busy_ms=found.busy_ns / 1e6,
        )
        for gpu, found in sorted(busy(timeline.work).items())
    ]
