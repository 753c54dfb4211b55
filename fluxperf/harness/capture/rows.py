"""The rows of the strip: ranges by depth, calls and waits of each thread, streams and idle times of each GPU.

Items of one row never overlap and are ordered by time, so that the items in view are found by bisection. Items that
overlap in one stream, or lie inside another range, are on a row of their own below.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from fluxperf.harness.capture.windows import Window
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown
from fluxperf.harness.timeline.busy import Gaps
from fluxperf.harness.timeline.causes import SHORTEST_GAP_NS, launched_late
from fluxperf.harness.timeline.model import NONE, Calls, Ranges, Timeline, Waits, Work, Works, process_id, thread_id
from fluxperf.harness.timeline.places import Places

#: Kinds of items, with their texts; the page's script identifies them by position.
KINDS = {
    "range": "NVTX range",
    "call": "CUDA call",
    "wait": "host waits",
    "order": "stream waits, the host does not",
    "kernel": "kernel",
    "graph": "graph, traced as a whole",
    "h2d": "copy, host to device",
    "d2h": "copy, device to host",
    "copy": "other copy",
    "memset": "memset",
    "late": "idle, next launch came late",
    "idle": "idle",
}

# Maximum rows: of nested ranges, of overlaps in a stream, of threads and of streams.
_DEEPEST = 12
_OVERLAPPING = 4
_MOST_GROUPS = 24
_MOST_STREAMS = 64


class Item(NamedTuple):
    """One item on a row.

    ``origin`` is its index among the capture's ranges or calls (else ``NONE``). ``range`` is the index of the innermost
    range around it or around its launch, ``call`` that of its launch call. ``merged`` is the number of items that it
    represents.
    """

    start_ns: int
    end_ns: int
    kind: str
    name: str
    range: int = NONE
    call: int = NONE
    bytes: int = 0
    full_name: str = ""
    detail: str = ""
    origin: int = NONE
    merged: int = 1


class Row(NamedTuple):
    """One row, with its items ordered by time; ``of`` is "ranges", "calls", "waits", "stream" or "idle"."""

    of: str
    label: str
    items: list[Item]


class Group(NamedTuple):
    """The rows of one thread, or of one GPU."""

    label: str
    rows: list[Row]


class Rows(NamedTuple):
    """Rows of a part of a capture, and sentences about items that did not fit."""

    groups: list[Group]
    left_out: list[str]

    @property
    def number(self) -> int:
        """Number of items on all rows."""
        return sum(len(row.items) for group in self.groups for row in group.rows)


def rows_of(timeline: Timeline, places: Places, window: Window) -> Rows:
    """Work in a window, with the ranges and calls that launched it."""
    inside = _Inside(timeline, window)
    left_out: list[str] = []
    threads = _threads(timeline, places, inside, left_out)
    gpus = _gpus(timeline, places, inside, window, left_out)
    return Rows([*threads, *gpus], left_out)


class _Inside:
    """Indices of the rows in a window."""

    def __init__(self, timeline: Timeline, window: Window) -> None:
        start, end = window.start_ns, window.end_ns

        def overlapping(rows: Ranges | Calls | Works | Waits) -> list[int]:
            found: list[int] = np.flatnonzero((rows.start_ns <= end) & (rows.end_ns >= start)).tolist()
            return found

        self.work = overlapping(timeline.work)
        self.syncs = overlapping(timeline.syncs)
        launching = set(timeline.work.call[self.work].tolist())
        self.calls = sorted(launching - {NONE} | set(overlapping(timeline.calls)))
        around = set(timeline.work.range[self.work].tolist())
        around |= set(timeline.calls.range[self.calls].tolist())
        around |= set(timeline.syncs.range[self.syncs].tolist())
        self.ranges = set(overlapping(timeline.ranges))
        for index in around - {NONE}:
            self.ranges.update(timeline.chain(index) if index not in self.ranges else ())


def _threads(timeline: Timeline, places: Places, inside: _Inside, left_out: list[str]) -> list[Group]:
    """A group for each thread that has ranges, calls or waits; the busiest ones if there are too many."""
    ranges: dict[tuple[int, int], list[int]] = defaultdict(list)
    calls: dict[tuple[int, int], list[Item]] = defaultdict(list)
    waits: dict[tuple[int, int], list[Item]] = defaultdict(list)
    for index in inside.ranges:
        ranges[timeline.ranges[index].process, timeline.ranges[index].thread].append(index)
    for index in inside.calls:
        row = timeline.calls[index]
        item = Item(row.start_ns, row.end_ns, "call", row.name, row.range, detail=f"{row.api} API", origin=index)
        calls[row.process, row.thread].append(item)
    for index in inside.syncs:
        sync = timeline.syncs[index]
        thread = NONE if sync.call == NONE else timeline.calls[sync.call].thread
        kind = "wait" if sync.blocks else "order"
        waits[sync.process, thread].append(
            Item(sync.start_ns, sync.end_ns, kind, sync.kind, sync.range, sync.call, detail=f"stream {sync.stream}")
        )
    keys = sorted(ranges.keys() | calls.keys() | waits.keys())
    if len(keys) > _MOST_GROUPS:
        busiest = sorted(keys, key=lambda key: -(len(ranges[key]) + len(calls[key]) + len(waits[key])))
        keys = sorted(busiest[:_MOST_GROUPS])
        left_out.append(f"Only the {_MOST_GROUPS} threads with the most ranges and calls of {len(busiest)} are drawn.")
    names = {(thread.process, thread.id): thread.name for thread in timeline.threads}
    groups = []
    for key in keys:
        stacked = _nested(timeline, places, ranges[key], left_out)
        rows = [Row("ranges", label, items) for label, items in stacked]
        rows += [
            Row("calls", "CUDA calls" if not at else "", items) for at, items in enumerate(_stacked(calls[key], 2))
        ]
        rows += [Row("waits", "waits" if not at else "", items) for at, items in enumerate(_stacked(waits[key], 2))]
        groups.append(Group(_thread_label(timeline, names.get(key, ""), key), rows))
    return groups


def _thread_label(timeline: Timeline, name: str, key: tuple[int, int]) -> str:
    thread = "a thread without a name in the capture" if key[1] == NONE else f"thread {thread_id(key[1])}"
    process = shown(timeline.processes.get(key[0]) or "process", 40)
    of = f" of {process} {process_id(key[0])}" if len(timeline.processes) > 1 else ""
    return f"Host, {thread}{of}" + (f" “{shown(name, 40)}”" if name else "")


def _nested(
    timeline: Timeline, places: Places, indices: list[int], left_out: list[str]
) -> list[tuple[str, list[Item]]]:
    """Ranges of one thread by depth. A range is drawn below the range around it, and below ranges that it overlaps."""
    ranges = timeline.ranges
    depths: dict[int, int] = {}
    ends: list[int] = []
    levels: list[list[int]] = []
    hidden = 0
    for index in sorted(indices, key=lambda index: (ranges[index].start_ns, -ranges[index].end_ns, index)):
        row = ranges[index]
        depth = depths.get(row.parent, -1) + 1
        while depth < len(ends) and ends[depth] > row.start_ns:
            depth += 1
        depths[index] = depth
        if depth >= _DEEPEST:
            hidden += 1
            continue
        while len(ends) <= depth:
            ends.append(0)
            levels.append([])
        ends[depth] = row.end_ns
        levels[depth].append(index)
    if hidden:
        left_out.append(f"{hidden:,} ranges lie deeper than {_DEEPEST} rows and are not drawn.")
    return [
        (
            _level(places, level),
            [
                Item(row.start_ns, row.end_ns, "range", row.name, row.parent, detail=row.domain, origin=index)
                for index, row in ((index, ranges[index]) for index in level)
            ],
        )
        for level in levels
    ]


def _level(places: Places, indices: list[int]) -> str:
    """The kind of the ranges of one row: steps, blocks, ops, or just ranges."""
    counts: dict[str, int] = defaultdict(int)
    for index in indices:
        if places.step(index) == index:
            counts["step"] += 1
        elif not places.in_step(index):
            counts["range"] += 1
        elif places.at(index, "block")[1] == index:
            counts["block"] += 1
        else:
            counts["op" if places.at(index, "op")[1] == index else "range"] += 1
    return max(counts, key=lambda name: counts[name], default="range")


def _stacked(items: list[Item], most: int) -> list[list[Item]]:
    """Items on as few rows as possible without overlap. On the last of ``most`` rows items are cut to fit."""
    rows: list[list[Item]] = []
    for item in sorted(items, key=lambda item: (item.start_ns, -item.end_ns)):
        free = next((row for row in rows if row[-1].end_ns <= item.start_ns), None)
        if free is not None:
            free.append(item)
        elif len(rows) < most:
            rows.append([item])
        else:
            free = min(rows, key=lambda row: row[-1].end_ns)
            start = free[-1].end_ns
            free.append(item._replace(start_ns=start, end_ns=max(start, item.end_ns)))
    return rows


def _gpus(timeline: Timeline, places: Places, inside: _Inside, window: Window, left_out: list[str]) -> list[Group]:
    """A group for each GPU: a row for each stream of each process, and one of idle times."""
    streams: dict[int, dict[tuple[int, int], list[Item]]] = defaultdict(lambda: defaultdict(list))
    for index in inside.work:
        row = timeline.work[index]
        streams[row.gpu][row.process, row.stream].append(_work_item(row, places))
    idle: dict[int, list[Item]] = defaultdict(list)
    gaps = places.idle
    inside_ns = (gaps.start_ns <= window.end_ns) & (gaps.end_ns >= window.start_ns)
    gaps = Gaps(*(column[inside_ns & (gaps.lasted_ns >= SHORTEST_GAP_NS)] for column in gaps))
    for late, start, end, index in zip(launched_late(timeline, gaps), *(one.tolist() for one in gaps), strict=True):
        row = timeline.work[index]
        kind = "late" if late else "idle"
        idle[row.gpu].append(Item(start, end, kind, f"before {row.name}", row.range, row.call))
    several = len({process for found in streams.values() for process, _ in found}) > 1
    groups = []
    for gpu, found in sorted(streams.items()):
        keys = sorted(found)
        if len(keys) > _MOST_STREAMS:
            keys = sorted(sorted(keys, key=lambda key: -len(found[key]))[:_MOST_STREAMS])
            left_out.append(
                f"Only the {_MOST_STREAMS} streams of GPU {gpu} with the most work of {len(found)} are drawn."
            )
        rows = []
        for process, stream in keys:
            label = f"stream {stream}" + (f", {process_id(process)}" if several else "")
            stacked = enumerate(_stacked(found[process, stream], _OVERLAPPING))
            rows += [Row("stream", "overlapping" if at else label, items) for at, items in stacked]
        name = shown(timeline.gpus.get(gpu) or "", 60) if timeline.gpus.get(gpu) else ""
        rows += [Row("idle", "idle", _stacked(idle[gpu], 1)[0])] if idle[gpu] else []
        groups.append(Group(f"GPU {gpu} {name}".strip(), rows))
    return groups


def _work_item(row: Work, places: Places) -> Item:
    kind: str = row.kind
    detail = ""
    if row.copy is not None:
        kind = row.copy.crossing or "copy"
        detail = f"{row.copy.source_memory} to {row.copy.target_memory}"
        detail += f", {row.copy.count:,} copies" if row.copy.count > 1 else ""
    elif row.kind == "decompression":
        kind = "copy"  # the hardware reads compressed bytes and writes others, as a copy does
    elif row.kind == "kernel" and row.shape and None not in row.shape:
        grid, block = (units.BY.join(map(str, part)) for part in (row.shape[:3], row.shape[3:]))
        detail = f"grid {grid}, block {block}"
    if row.graph_node is not None:
        detail += ", graph node" if row.captured == NONE else f", graph node, captured in {places.path(row.captured)}"
    return Item(
        row.start_ns,
        row.end_ns,
        kind,
        row.name,
        row.range,
        row.call,
        bytes=row.bytes,
        full_name="" if row.full_name == row.name else row.full_name,
        detail=detail.removeprefix(", "),
    )
