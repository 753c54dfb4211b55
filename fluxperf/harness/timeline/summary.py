"""What each range of a timeline cost: calls, host and GPU time, idle, kernels, copies, synchronizations.

Every piece of GPU work is in exactly one row. A row's GPU time is the union of the intervals in which its work ran (of
several GPUs added), its sum is of all durations: they differ where work overlaps. Idle is the time for which a GPU did
nothing before work of the row began, as far as it lies inside the outermost range around the launch.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Literal, get_args

import msgspec

from fluxperf.errors import UnknownNameError
from fluxperf.harness.timeline.model import NONE, Timeline, Work
from fluxperf.harness.timeline.places import NO_RANGE, Level, Places

By = Literal["op", "block", "step", "range", "kernel"]
GROUPINGS: tuple[str, ...] = get_args(By)

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
    """A timeline by op, block, step, range or kernel, with a row of totals."""

    source: str
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


class Gap(msgspec.Struct, frozen=True, gc=False):
    """A time in which a GPU did nothing, ended by the work of this index."""

    start_ns: int
    end_ns: int
    work: int


def gaps(timeline: Timeline, places: Places) -> list[Gap]:
    """Times in which a GPU did nothing between its first and its last work.

    A gap begins no earlier than the outermost range around the launch of the work that ended it: what lies before that
    range is not its doing.
    """
    found = []
    busy_until: dict[int, int] = {}
    for index, row in enumerate(timeline.work):
        before = busy_until.get(row.gpu, row.start_ns)
        root = places.root(row.range)
        begun = before if root == NONE else max(before, timeline.ranges[root].start_ns)
        if row.start_ns > begun:
            found.append(Gap(begun, row.start_ns, index))
        busy_until[row.gpu] = max(before, row.end_ns)
    return found


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
    rows = _Rows(timeline, places, by)
    rows.add_ranges()
    rows.add_work()
    rows.add_syncs()
    found, total = rows.finished()
    if by not in ("step", "block"):
        found.sort(key=lambda row: (-row.gpu_ms, -row.host_ms, row.name))
    return Summary(
        source=timeline.source,
        product=timeline.product,
        schema=timeline.schema,
        graph_mode=timeline.graph_mode,
        by=by,
        processes=len(timeline.processes),
        threads=len(timeline.threads),
        gpus=_gpu_rows(timeline),
        total=total,
        rows=found,
        notes=timeline.notes,
    )


class _Busy:
    """Sum and union of intervals that come in the order of their beginnings, by GPU."""

    def __init__(self) -> None:
        self.sum_ns = 0
        self.union_ns = 0
        self._until: dict[int, int] = {}

    def add(self, row: Work) -> None:
        until = self._until.get(row.gpu, row.start_ns)
        self.sum_ns += row.end_ns - row.start_ns
        if row.end_ns > until:
            self.union_ns += row.end_ns - max(until, row.start_ns)
            until = row.end_ns
        self._until[row.gpu] = until


class _Rows:
    """Rows while they are added up, with one of totals under the name ``None``."""

    def __init__(self, timeline: Timeline, places: Places, by: str) -> None:
        self._timeline = timeline
        self._places = places
        self._level: Level | None = None if by == "kernel" else by  # type: ignore[assignment]
        self._rows: dict[str, Row] = {}
        self._total = Row(name="total")
        self._busy: dict[str | None, _Busy] = defaultdict(_Busy)
        self._kernels: dict[str | None, Counter[str]] = defaultdict(Counter)
        self._kernel_ns: dict[str | None, Counter[str]] = defaultdict(Counter)
        self._copies: dict[str | None, dict[tuple[str, str, str], list[int]]] = defaultdict(dict)
        self._work_names = [self._work_name(row) for row in timeline.work]

    def _row(self, name: str) -> Row:
        if name not in self._rows:
            self._rows[name] = Row(name=name)
        return self._rows[name]

    def _work_name(self, row: Work) -> str:
        if self._level is None:
            return row.name if row.copy is None else f"copy {row.name}"
        return self._places.at(row.range, self._level)[0]

    def add_ranges(self) -> None:
        """Counts ranges, in the order in which they began, and the time in them."""
        timeline = self._timeline
        order = sorted(range(len(timeline.ranges)), key=lambda index: timeline.ranges[index].start_ns)
        for index in order:
            row = timeline.ranges[index]
            self._total.calls += 1
            if row.parent == NONE:
                self._total.host_ms += (row.end_ns - row.start_ns) / 1e6
            if self._level is not None:
                name, owner = self._places.at(index, self._level)
                if owner == index:
                    self._row(name).calls += 1
                    self._row(name).host_ms += (row.end_ns - row.start_ns) / 1e6

    def add_work(self) -> None:
        """Counts what GPUs did, and what they did not."""
        called: set[tuple[str, int]] = set()
        for row, name in zip(self._timeline.work, self._work_names, strict=True):
            self._row(name)
            for key in (name, None):
                self._add(row, key)
            if self._level is None:
                self._rows[name].calls += 1
                if row.call != NONE and (name, row.call) not in called:
                    called.add((name, row.call))
                    call = self._timeline.calls[row.call]
                    self._rows[name].host_ms += (call.end_ns - call.start_ns) / 1e6
        for gap in gaps(self._timeline, self._places):
            idle_ms = (gap.end_ns - gap.start_ns) / 1e6
            self._rows[self._work_names[gap.work]].idle_ms += idle_ms
            self._total.idle_ms += idle_ms

    def _add(self, row: Work, key: str | None) -> None:
        self._busy[key].add(row)
        target = self._total if key is None else self._rows[key]
        if row.kind == "kernel":
            target.kernels += 1
            self._kernels[key][row.name] += 1
            self._kernel_ns[key][row.name] += row.end_ns - row.start_ns
        elif row.kind == "memset":
            target.memsets += 1
        elif row.kind == "graph":
            target.graphs += 1
        if row.copy is not None:
            kind = (row.copy.direction, row.copy.source_memory, row.copy.target_memory)
            sums = self._copies[key].setdefault(kind, [0, 0, 0])
            sums[0] += row.copy.count
            sums[1] += row.bytes
            sums[2] += row.end_ns - row.start_ns

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
        """The rows, and the row of totals."""
        for key, row in (*self._rows.items(), (None, self._total)):
            row.gpu_ms = self._busy[key].union_ns / 1e6
            row.gpu_sum_ms = self._busy[key].sum_ns / 1e6
            row.copies = [
                CopyRow(
                    direction=kind[0],
                    source_memory=kind[1],
                    target_memory=kind[2],
                    count=sums[0],
                    bytes=sums[1],
                    gpu_ms=sums[2] / 1e6,
                )
                for kind, sums in self._copies[key].items()
            ]
            row.top_kernels = [
                KernelRow(name=name, count=self._kernels[key][name], gpu_ms=spent / 1e6)
                for name, spent in self._kernel_ns[key].most_common(_TOP)
            ]
        return list(self._rows.values()), self._total


def _gpu_rows(timeline: Timeline) -> list[GpuRow]:
    """Span and busy time of each GPU."""
    busy: dict[int, _Busy] = defaultdict(_Busy)
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for row in timeline.work:
        busy[row.gpu].add(row)
        first.setdefault(row.gpu, row.start_ns)
        last[row.gpu] = max(last.get(row.gpu, 0), row.end_ns)
    return [
        GpuRow(gpu=gpu, name=name, span_ms=(last[gpu] - first[gpu]) / 1e6, busy_ms=busy[gpu].union_ns / 1e6)
        for gpu, name in timeline.gpus.items()
    ]
