"""What each range of a timeline cost: calls, host and GPU time, idle, kernels, copies, synchronizations.

Every piece of GPU work is in exactly one row. A row's GPU time is the union of the intervals in which its work ran (of
several GPUs added), its sum is of all durations: they differ where work overlaps. Idle is the time for which a GPU did
nothing before work of the row began, as far as it lies inside the outermost range around the launch.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, Literal, get_args

import msgspec
import numpy as np

from fluxperf.errors import UnknownNameError
from fluxperf.harness.timeline.busy import busy, busy_ns
from fluxperf.harness.timeline.model import NONE, Timeline, Work
from fluxperf.harness.timeline.places import NO_RANGE, Level, Places

By = Literal["op", "block", "step", "range", "kernel"]
GROUPINGS: tuple[str, ...] = get_args(By)

#: Ranges that launched and captured a piece of work: the first alone where nothing was captured, which costs less.
_Key = int | tuple[int, int]

#: Kernels that a row names.
_TOP = 5


class CopyRow(msgspec.Struct, frozen=True, kw_only=True):
    """Copies of one direction between two kinds of memory."""

    direction: str
    source_memory: str
    target_memory: str
    count: int
    bytes: int
    gpu_ms: float


class KernelRow(msgspec.Struct, frozen=True, kw_only=True):
    """Launches of a kernel, and their durations added."""

    name: str
    count: int
    gpu_ms: float


class Row(msgspec.Struct, kw_only=True):
    """One range, or one kernel: ``calls`` counts the ranges that the row adds up (for a kernel its launches).

    ``host_ms`` is the time in those ranges on their threads, what is nested in them included (for a kernel the time in
    its launch calls). ``sync_ms`` is the host's time in the blocking synchronizations that ``syncs`` counts.
    """

    name: str
    calls: int = 0
    host_ms: float = 0.0
    gpu_ms: float = 0.0
    gpu_sum_ms: float = 0.0
    idle_ms: float = 0.0
    kernels: int = 0
    memsets: int = 0
    graphs: int = 0
    copies: list[CopyRow] = []
    syncs: int = 0
    sync_ms: float = 0.0
    top_kernels: list[KernelRow] = []


class GpuRow(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU from its first to its last work: the span, and how much of it the GPU was busy."""

    gpu: int
    name: str
    span_ms: float
    busy_ms: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A timeline by op, block, step, range or kernel, with a row of totals.

    ``in_ops`` is the share of the GPU time of all steps (durations added) that lies in their ops; ``None`` where no GPU
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
    notes: list[str]
    in_ops: float | None


def summarize(timeline: Timeline, by: str = "op", places: Places | None = None) -> Summary:
    """Sums a timeline up.

    Args:
        timeline: an attributed timeline, its work in the order of time.
        by: one of ``GROUPINGS``.
        places: its places, where they are known already.

    Raises:
        UnknownNameError: no such grouping.
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
        notes=timeline.notes,
        in_ops=_in_ops(timeline, places),
    )


class _Sums:
    """What the work of one row adds up to: by kernel its launches and their time, by copy number, bytes and time."""

    def __init__(self) -> None:
        self.kernels: dict[str, list[int]] = {}
        self.copies: dict[tuple[str, str, str], list[int]] = {}
        self.kinds: Counter[str] = Counter()
        self.gpu_ns = 0

    def add(self, rows: Iterable[Work]) -> None:
        """Adds pieces of work."""
        kernels = self.kernels
        for row in rows:
            lasts = row.end_ns - row.start_ns
            self.gpu_ns += lasts
            if row.kind != "kernel":
                self._add_other(row, lasts)
            elif (held := kernels.get(row.name)) is None:
                kernels[row.name] = [1, lasts]
            else:
                held[0] += 1
                held[1] += lasts

    def _add_other(self, row: Work, lasts: int) -> None:
        self.kinds[row.kind] += 1
        if (copy := row.copy) is not None:
            kind = (copy.direction, copy.source_memory, copy.target_memory)
            _plus(self.copies, kind, copy.count, row.bytes, lasts)

    def join(self, other: _Sums) -> None:
        """Adds the sums of another row."""
        for name, sums in other.kernels.items():
            _plus(self.kernels, name, *sums)
        for kind, sums in other.copies.items():
            _plus(self.copies, kind, *sums)
        self.kinds += other.kinds
        self.gpu_ns += other.gpu_ns

    def write(self, row: Row) -> None:
        """Fills a row in."""
        row.gpu_sum_ms = self.gpu_ns / 1e6
        row.memsets, row.graphs = self.kinds["memset"], self.kinds["graph"]
        row.kernels = sum(count for count, _ in self.kernels.values())
        row.copies = [
            CopyRow(
                direction=kind[0], source_memory=kind[1], target_memory=kind[2], count=n, bytes=size, gpu_ms=ns / 1e6
            )
            for kind, (n, size, ns) in self.copies.items()
        ]
        longest = sorted(self.kernels.items(), key=lambda item: -item[1][1])[:_TOP]
        row.top_kernels = [KernelRow(name=name, count=n, gpu_ms=ns / 1e6) for name, (n, ns) in longest]


def _plus(sums: dict[Any, list[int]], key: Any, *values: int) -> None:
    held = sums.get(key)
    if held is None:
        sums[key] = list(values)
    else:
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
        self._sums = _Sums()

    def _row(self, name: str) -> Row:
        if name not in self._rows:
            self._rows[name] = Row(name=name)
        return self._rows[name]

    def _work_names(self) -> list[str]:
        """The row that each piece of work belongs to."""
        work, level = self._timeline.work, self._level
        if level is None:
            return [row.name if row.copy is None else f"copy {row.name}" for row in work]
        known: dict[_Key, str] = {}
        names = []
        for row in work:
            key = row.range if row.captured == NONE else (row.range, row.captured)
            name = known.get(key)
            if name is None:
                name = known[key] = self._places.of(row, level)[0]
            names.append(name)
        return names

    def add_ranges(self) -> None:
        """Counts ranges, in the order in which they began, and the time in them."""
        timeline = self._timeline
        order = sorted(range(len(timeline.ranges)), key=lambda index: timeline.ranges[index].start_ns)
        self._total.calls += len(order)
        for index in order:
            row = timeline.ranges[index]
            host_ms = (row.end_ns - row.start_ns) / 1e6
            if row.parent == NONE:
                self._total.host_ms += host_ms
            if self._level is not None:
                name, owner = self._places.at(index, self._level)
                if owner == index:
                    target = self._row(name)
                    target.calls += 1
                    target.host_ms += host_ms

    def add_work(self) -> None:
        """Counts what GPUs did, and what they did not."""
        names = self._work_names()
        groups: dict[str, list[Work]] = defaultdict(list)
        for row, name in zip(self._timeline.work, names, strict=True):
            groups[name].append(row)
        for name, work in groups.items():
            self._add(self._row(name), work)
        idle = self._places.idle
        idle_ms = (idle.end_ns - idle.start_ns) / 1e6
        number = {name: index for index, name in enumerate(groups)}
        rows = np.fromiter(map(number.__getitem__, names), np.int64, len(names))[idle.work]
        for name, spent_ms in zip(groups, np.bincount(rows, idle_ms, len(groups)).tolist(), strict=True):
            self._rows[name].idle_ms += spent_ms
        self._total.idle_ms += float(np.bincount(np.zeros_like(rows), idle_ms, 1)[0])

    def _add(self, target: Row, work: list[Work]) -> None:
        sums = _Sums()
        sums.add(work)
        sums.write(target)
        self._sums.join(sums)
        target.gpu_ms = busy_ns(work) / 1e6
        if self._level is None:
            target.calls = len(work)
            launches = {row.call for row in work if row.call != NONE}
            calls = (self._timeline.calls[index] for index in launches)
            target.host_ms = sum(call.end_ns - call.start_ns for call in calls) / 1e6

    def add_syncs(self) -> None:
        """Counts synchronizations that block the host."""
        for sync in self._timeline.syncs:
            if sync.blocks:
                blocked_ms = (sync.end_ns - sync.start_ns) / 1e6
                name = NO_RANGE if self._level is None else self._places.at(sync.range, self._level)[0]
                for row in (self._total, *([] if self._level is None else [self._row(name)])):
                    row.syncs += 1
                    row.sync_ms += blocked_ms

    def finished(self) -> tuple[list[Row], Row]:
        """The rows, and the row of totals but for its GPU time."""
        rows, total = list(self._rows.values()), self._total
        self._sums.write(total)
        total.gpu_sum_ms = sum(row.gpu_sum_ms for row in rows)
        return rows, total


def _in_ops(timeline: Timeline, places: Places) -> float | None:
    """Share of the GPU time of steps that lies in ops."""
    outside, in_step, in_op = 0, 1, 2
    known: dict[_Key, int] = {}
    spent = [0, 0, 0]
    for row in timeline.work:
        key = row.range if row.captured == NONE else (row.range, row.captured)
        where = known.get(key)
        if where is None:
            where = outside if places.step(row.range) == NONE else in_step
            if where == in_step and places.of(row, "op")[1] != NONE:
                where = in_op
            known[key] = where
        spent[where] += row.end_ns - row.start_ns
    steps_ns = spent[in_step] + spent[in_op]
    return spent[in_op] / steps_ns if steps_ns else None


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
