"""Inclusive time: costs of each range with its children, as a tree of paths.

A range's GPU time is the union of the intervals of all work launched in it and below. Its projection reaches from the
start of the first to the end of the last of that work, which `nsys stats` reports as nvtx_gpu_proj_sum. Turns of one
path are one row, with the shortest, median and longest turn. Work of a graph is below the range that launched the
graph, in the ranges in which its nodes were captured. Work launched in two ranges that do not contain each other, as in
interleaved domains, counts in both.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxperf.harness.timeline.columns import Column, codes, empty, sums, union_ns
from fluxperf.harness.timeline.crossing import calls_beside
from fluxperf.harness.timeline.findings import crossing
from fluxperf.harness.timeline.model import NONE, Timeline, Waits
from fluxperf.harness.timeline.places import NO_RANGE, Places, normal

#: Maximum levels of a tree. Deeper ranges, as of a recursion, count in the turn at the last level.
_DEEPEST = 60


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of the turns of a range: of all, and the shortest, median and longest."""

    total_ms: float
    min_ms: float
    median_ms: float
    max_ms: float


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """A range, or turns of one, with its children: the longest child first.

    ``host`` is the time in the range. ``projected`` is the time from the first to the last GPU work of a turn (``None``
    if there is none), ``gpu_ms`` the time in which that work ran, ``idle_ms`` the idle time of a GPU before it.
    ``copies`` are those between host and device.
    """

    name: str
    path: str
    calls: int
    host: Spread
    projected: Spread | None
    gpu_ms: float
    idle_ms: float
    kernels: int
    copies: int
    copy_bytes: int
    waits: int
    wait_ms: float
    children: list[Branch] = []

    def rows(self, depth: int = 0) -> Iterator[tuple[int, Branch]]:
        """This branch and all below it, each with its depth."""
        yield depth, self
        for child in self.children:
            yield from child.rows(depth + 1)


class _Nodes:
    """Turns of ranges, and of the ranges in which nodes of graphs were captured, each below the launch of its graph.

    Every turn has a number: ranges first, by their index. ``path`` is the number of a turn's path, or ``NONE`` if the
    turn is too deep.
    """

    def __init__(self, timeline: Timeline) -> None:
        ranges, work = timeline.ranges, timeline.work
        self.parent, names = ranges.parent.tolist(), ranges.name.tolist()
        self.of_work = work.range.copy()
        rows = np.flatnonzero(work.captured != NONE)
        known: dict[tuple[int, int], int] = {}
        numbers, firsts = codes(work.range[rows], work.captured[rows]) if len(rows) else (empty(), empty())
        ends = []
        for first in rows[firsts].tolist():
            around = launch = int(work.range[first])
            held = set(timeline.chain(launch))
            for index in timeline.chain(int(work.captured[first])):
                if index in held:  # the graph was captured and launched inside of it
                    continue
                number = known.get((launch, index))
                if number is None:
                    number = known[launch, index] = len(self.parent)
                    self.parent.append(around)
                    names.append(names[index])
                around = number
            ends.append(around)
        self.of_work[rows] = np.array(ends, np.int64)[numbers]
        self.parent.append(NONE)  # the last turn, which NONE indexes, holds rows outside of all ranges
        self._paths(ranges.names, names, np.lexsort((-ranges.end_ns, ranges.start_ns)).tolist())

    def _paths(self, texts: list[str], names: list[int], order: list[int]) -> None:
        """Numbers paths, outer paths before inner ones."""
        in_path = [normal(text) for text in texts]
        ids: dict[tuple[int, str], int] = {}
        number = len(self.parent) - 1
        path, depth, held = [NONE] * number, [0] * number, list(range(number))
        for turn in [*order, *range(len(order), number)]:
            parent = self.parent[turn]
            depth[turn] = 0 if parent == NONE else depth[parent] + 1
            if depth[turn] >= _DEEPEST:
                held[turn] = held[parent]
                continue
            key = (NONE if parent == NONE else path[parent], in_path[names[turn]])
            path[turn] = ids.setdefault(key, len(ids))
        self.path, self.depth = np.array([*path, len(ids)], np.int64), np.array([*depth, 0], np.int64)
        self._held = np.array([*held, number], np.int64)
        self.keys = [*ids, (NONE, NO_RANGE)]
        self.parents = np.array(self.parent, np.int64)

    def levels(self, turns: Column, beside: tuple[Column, Column]) -> Iterator[tuple[Column, Column]]:
        """For each depth, the deepest first: rows in a turn at that depth, in ascending order, and those turns.

        Args:
            turns: the innermost turn around each row.
            beside: rows that also lie in another turn, and those turns.
        """
        at = self._held[turns]
        depth = np.append(self.depth, NONE)
        up = np.append(self.parents, NONE)
        more = depth[beside[1]]
        for level in range(int(max(depth[at].max(initial=NONE), more.max(initial=NONE))), NONE, -1):
            rows = np.flatnonzero(depth[at] == level)
            below, also = at[rows], np.flatnonzero(more == level)
            at[rows] = up[below]
            if len(also):
                rows, below = (
                    np.concatenate(pair) for pair in zip((rows, below), (one[also] for one in beside), strict=True)
                )
                order = np.argsort(rows, kind="stable")
                rows, below = rows[order], below[order]
            yield rows, below


def tree(timeline: Timeline, places: Places) -> list[Branch]:
    """The outermost ranges with their children, the longest first. One of them holds all rows outside of ranges."""
    nodes = _Nodes(timeline)
    measures = _measures(timeline, places, nodes)
    number = len(nodes.keys)
    children: list[list[int]] = [[] for _ in range(number + 1)]
    for path, (parent, _) in enumerate(nodes.keys):
        children[parent].append(path)
    by_path = np.argsort(nodes.path, kind="stable")
    turns = np.split(by_path, np.searchsorted(nodes.path[by_path], np.arange(number)))[1:]
    found: dict[int, Branch] = {}
    for path in range(number - 1, -1, -1):  # inner paths have higher numbers
        below = [found[child] for child in children[path]]
        found[path] = _branch(nodes.keys[path][1], measures, turns[path], below)
    *roots, outside = (found[path] for path in children[NONE])
    seen = [msgspec.structs.replace(outside, calls=0)] if outside.projected or outside.waits else []
    return _named([*_sorted(roots), *seen], "")


def _sorted(rows: list[Branch]) -> list[Branch]:
    return sorted(rows, key=lambda row: (-row.gpu_ms, -row.host.total_ms, row.name))


def _named(rows: list[Branch], above: str) -> list[Branch]:
    """The rows with their paths."""
    found = []
    for row in rows:
        path = f"{above} / {row.name}" if above else row.name
        found.append(msgspec.structs.replace(row, path=path, children=_named(row.children, path)))
    return found


class _Measures(msgspec.Struct):
    """Costs of each turn with its children. ``last_ns`` is before ``first_ns`` if no work was launched."""

    host_ns: Column
    busy_ns: NDArray[np.float64]
    idle_ns: NDArray[np.float64]
    first_ns: Column
    last_ns: Column
    kernels: Column
    copies: Column
    bytes: Column
    waits: Column
    wait_ns: Column


def _measures(timeline: Timeline, places: Places, nodes: _Nodes) -> _Measures:
    ranges, work, waits = timeline.ranges, timeline.work, timeline.syncs.blocking
    number = len(nodes.parent)
    found = _Measures(
        np.concatenate((ranges.end_ns - ranges.start_ns, empty(number - len(ranges)))),
        np.zeros(number),
        np.zeros(number),
        empty(number, np.iinfo(np.int64).max),
        empty(number, np.iinfo(np.int64).min),
        *(empty(number) for _ in range(5)),
    )
    crosses, kernel = crossing(work), work.flags("kernel")
    counts = np.array([what.copy.count if what.copy else 0 for what in work.kinds], np.int64)
    counts = counts[work.what] * crosses if len(work) else empty()
    idle = empty(len(work))
    idle[places.idle.work] = places.idle.lasted_ns
    gpus, _ = codes(work.gpu) if len(work) else (empty(), empty())
    several = int(gpus.max()) + 1 if len(gpus) else 1
    of_work, of_waits = _beside(timeline, nodes, waits)
    for rows, turns in nodes.levels(nodes.of_work, of_work):
        if len(rows):
            spent = union_ns(work.start_ns[rows], work.end_ns[rows], turns * several + gpus[rows], number * several)
            found.busy_ns += spent.reshape(number, several).sum(1)
            found.idle_ns += sums(turns, idle[rows], number)
            np.minimum.at(found.first_ns, turns, work.start_ns[rows])
            np.maximum.at(found.last_ns, turns, work.end_ns[rows])
            found.kernels += sums(turns, kernel[rows].astype(np.int64), number).astype(np.int64)
            found.copies += sums(turns, counts[rows], number).astype(np.int64)
            found.bytes += sums(turns, work.bytes[rows] * crosses[rows], number).astype(np.int64)
    for rows, turns in nodes.levels(waits.range, of_waits):
        found.waits += np.bincount(turns, minlength=number)
        found.wait_ns += sums(turns, (waits.end_ns - waits.start_ns)[rows], number).astype(np.int64)
    return found


def _beside(timeline: Timeline, nodes: _Nodes, waits: Waits) -> tuple[tuple[Column, Column], tuple[Column, Column]]:
    """Work and waits with additional turns in which they were launched, besides the ones around them."""
    work, calls = timeline.work, timeline.calls
    telling = np.zeros(len(calls) + 1, bool)
    telling[work.call] = telling[waits.call] = True  # NONE is -1 and indexes the last element: no call
    turns, made = calls_beside(timeline.ranges, calls, np.flatnonzero(telling[:-1]))
    if not len(turns):
        return (empty(), empty()), (empty(), empty())
    deep = nodes.path[turns] == NONE
    turns, made = turns[~deep], made[~deep]
    return _joined(work.call, turns, made), _joined(waits.call, turns, made)


def _joined(of_row: Column, turns: Column, made: Column) -> tuple[Column, Column]:
    """Rows of these calls, each with the turn of its call."""
    order = np.argsort(of_row, kind="stable")
    first, last = (np.searchsorted(of_row[order], made, side) for side in ("left", "right"))
    number = last - first
    at = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number) + np.repeat(first, number)
    return order[at], np.repeat(turns, number)


def _spread(values_ns: Column) -> Spread:
    ms = values_ns / 1e6
    return Spread(
        total_ms=float(ms.sum()), min_ms=float(ms.min()), median_ms=float(np.median(ms)), max_ms=float(ms.max())
    )


def _branch(name: str, measures: _Measures, turns: Column, children: list[Branch]) -> Branch:
    launched = turns[measures.last_ns[turns] >= measures.first_ns[turns]]
    return Branch(
        name=name,
        path="",
        calls=len(turns),
        host=_spread(measures.host_ns[turns]),
        projected=_spread((measures.last_ns - measures.first_ns)[launched]) if len(launched) else None,
        gpu_ms=float(measures.busy_ns[turns].sum()) / 1e6,
        idle_ms=float(measures.idle_ns[turns].sum()) / 1e6,
        kernels=int(measures.kernels[turns].sum()),
        copies=int(measures.copies[turns].sum()),
        copy_bytes=int(measures.bytes[turns].sum()),
        waits=int(measures.waits[turns].sum()),
        wait_ms=float(measures.wait_ns[turns].sum()) / 1e6,
        children=_sorted(children),
    )
