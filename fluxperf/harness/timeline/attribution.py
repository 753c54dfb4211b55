"""Assigns calls, copies and kernels to ranges: by launch call and thread, never by overlap in time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from fluxperf.harness.timeline.columns import Column, codes, empty, groups
from fluxperf.harness.timeline.correlating import calls_of
from fluxperf.harness.timeline.model import NONE, Node, Ranges, Timeline
from fluxperf.harness.timeline.unified import place
from fluxperf.harness.timeline.waiting import waits_of
from fluxperf.words import plural


def attribute(timeline: Timeline) -> None:
    """Fills in ``parent`` of ranges, ``range`` of calls, ``call`` and ``range`` of work, and the waits of the host.

    `calls_of` finds the call of a correlation id. Nodes of a graph share the correlation id of the call that launched
    the graph. They also get the range in which they were captured, if the capture recorded it. Work without a launch
    call in the capture keeps ``NONE``, and has a range only if it is of unified memory (`place`). A sentence in
    ``notes`` counts it. Ranges that were never closed contain nothing.
    """
    ranges, calls, work = timeline.ranges, timeline.calls, timeline.work
    open_at = {thread: _Open(ranges, indices, thread) for thread, indices in _by_thread(ranges)}
    calls.range = empty(len(calls), NONE)
    for thread, rows in groups(calls.thread):
        if thread in open_at:
            calls.range[rows] = open_at[thread].at(calls.start_ns[rows])
    _capture(timeline, open_at)
    work.call = calls_of(calls, work.process, work.correlation, work.start_ns)
    work.range = _at(calls.range, work.call)
    timeline.syncs = waits_of(timeline.syncs, calls, timeline.notes)
    placed = place(timeline, open_at)
    if placed:
        timeline.notes.append(
            f"{plural(placed, 'migration')} of unified memory, which have no launch call: assigned to the range of "
            "the kernel that ran at that time, to the host's open range, or to the prefetch."
        )
    unlaunched = int((work.call == NONE).sum()) - placed
    if unlaunched:
        timeline.notes.append(
            f"{unlaunched} of {len(work)} pieces of GPU work have no launch call in the capture and are under (no "
            "range). Possible reasons: migrations of unified memory, a launch before the capture began, or calls "
            "that were not traced."
        )


def _at(values: Column, indices: Column) -> Column:
    """Values at indices; ``NONE`` at index ``NONE``."""
    return np.append(values, NONE)[indices]


def _by_thread(ranges: Ranges) -> Iterator[tuple[int, Column]]:
    """Closed ranges by thread, in the order of their starts. Of two that start together, the longer comes first."""
    closed = np.flatnonzero(ranges.closed)
    elsewhere = closed[ranges.end_thread[closed] != ranges.thread[closed]]
    indices = np.concatenate((closed, elsewhere))
    threads = np.concatenate((ranges.thread[closed], ranges.end_thread[elsewhere]))
    for thread, rows in groups(threads):
        found = indices[rows]
        yield thread, found[np.lexsort((-ranges.end_ns[found], ranges.start_ns[found]))]


class _Open:
    """The innermost open range of one thread at any time: times at which it changes, and the range from then on.

    The range that started last is on top of the stack, so dropping closed ranges from the top finds the innermost one,
    even if start/end ranges overlap without nesting. A range that closed below the top is dropped when it reaches the
    top. On the way each range gets its parent: the innermost earlier range that contains all of it.
    """

    def __init__(self, ranges: Ranges, indices: Column, thread: int) -> None:
        if not self._nest(ranges, indices):
            self._search(ranges, indices, thread)

    def _nest(self, ranges: Ranges, indices: Column) -> bool:
        """Computes the same without a search, if all ranges nest and each takes time, as push/pop ranges do."""
        starts, ends = ranges.start_ns[indices], ranges.end_ns[indices]
        number = len(indices)
        times = np.concatenate((starts, ends))
        # Closings come before openings at the same time. Of closings at the same time, the range opened last is first.
        order = np.lexsort((np.r_[np.arange(number), np.arange(number, 0, -1)], np.repeat((1, 0), number), times))
        depth = np.cumsum(np.where(order < number, 1, -1))
        opening = np.flatnonzero(order < number)  # in the order of the ranges: by start, the longer first
        level = depth[opening]
        parent = empty(number, NONE)
        for deep in range(2, int(level.max()) + 1):
            own, around = np.flatnonzero(level == deep), np.flatnonzero(level == deep - 1)
            parent[own] = around[np.searchsorted(around, own) - 1]
        inner = parent != NONE
        elsewhere = ranges.end_thread[indices] != ranges.thread[indices]
        if (ends <= starts).any() or (ends[inner] > ends[parent[inner]]).any() or elsewhere.any():
            return False
        named = np.append(indices, NONE)
        ranges.parent[indices] = named[parent]
        closing = order >= number
        owners = np.where(closing, parent[order - number * closing], order)
        self._times = np.append(np.iinfo(np.int64).min, times[order])
        self._owners = np.append(NONE, named[owners])
        return True

    def _search(self, ranges: Ranges, indices: Column, thread: int) -> None:
        times, owners = [int(np.iinfo(np.int64).min)], [NONE]
        stack: list[int] = []
        starts, ends = ranges.start_ns[indices].tolist(), ranges.end_ns[indices].tolist()
        own = (ranges.thread[indices] == thread).tolist()
        named = indices.tolist()
        parents = {}
        for at, (start, end) in enumerate(zip(starts, ends, strict=True)):
            while stack and (closing := ends[stack[-1]]) <= start:
                stack.pop()
                while stack and ends[stack[-1]] <= closing:
                    stack.pop()
                times.append(closing)
                owners.append(named[stack[-1]] if stack else NONE)
            if stack and ends[stack[-1]] < end:
                # Overlapping start/end ranges leave closed ones below the top. Without those the search stays short.
                stack = [i for i in stack if ends[i] > start]
            if own[at]:
                holder = next((i for i in reversed(stack) if ends[i] >= end), NONE)
                parents[named[at]] = NONE if holder == NONE else named[holder]
            stack.append(at)
            times.append(start)
            owners.append(named[at])
        while stack:
            closing = ends[stack.pop()]
            while stack and ends[stack[-1]] <= closing:
                stack.pop()
            times.append(closing)
            owners.append(named[stack[-1]] if stack else NONE)
        self._times, self._owners = np.array(times, np.int64), np.array(owners, np.int64)
        ranges.parent[list(parents)] = list(parents.values())

    def at(self, times: Column) -> Column:
        """The range at each time, or ``NONE``."""
        found: Column = self._owners[np.searchsorted(self._times, times, "right") - 1]
        return found


def _capture(timeline: Timeline, open_at: dict[int, _Open]) -> None:
    """Sets the range in which each node of a graph was captured.

    A node that runs is a copy, made at instantiation, of a node that was created during stream capture. Creations
    follow the order of the captured calls. The range is the one that was open at the creation on that thread.
    """
    originals: dict[tuple[int, int], int] = {}
    places: dict[tuple[int, int], int] = {}
    created: dict[int, list[Node]] = defaultdict(list)
    for node in timeline.nodes:
        if node.original is None:
            created[node.thread].append(node)
        else:
            originals.setdefault((node.process, node.id), node.original)
    for thread, nodes in created.items():
        times = np.array([node.start_ns for node in nodes], np.int64)
        around = open_at[thread].at(times).tolist() if thread in open_at else [NONE] * len(nodes)
        places.update(((node.process, node.id), index) for node, index in zip(nodes, around, strict=True))
    work = timeline.work
    rows = np.flatnonzero(work.graph_node)
    if not len(rows):
        return
    numbers, firsts = codes(work.process[rows], work.graph_node[rows])
    owners, unknown = [], 0
    for first in rows[firsts].tolist():
        key = (int(work.process[first]), int(work.graph_node[first]))
        seen = {key}
        # A graph may be cloned before it is instantiated. A copy may also be reported as created in the place of the
        # copying.
        while key in originals and (key[0], originals[key]) not in seen:
            key = (key[0], originals[key])
            seen.add(key)
        owners.append(places.get(key, NONE))
        unknown += owners[-1] == NONE
    work.captured[rows] = np.array(owners, np.int64)[numbers]
    if unknown:
        timeline.notes.append(
            f"Captured outside of any range, or before this capture began: {plural(unknown, 'node')} of CUDA graphs. "
            "This work is under the range that launched the graph."
        )
