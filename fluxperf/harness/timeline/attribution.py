"""Which range a call, a copy or a kernel belongs to: by launch call and thread, never by overlap in time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter

from fluxperf.harness.timeline.model import NONE, Call, Node, Range, Sync, Timeline, Work
from fluxperf.words import plural


def attribute(timeline: Timeline) -> None:
    """Fills in ``parent`` of ranges, ``range`` of calls, and ``call`` and ``range`` of work and synchronizations.

    A correlation id is unique within its process only. A graph's nodes share the correlation id of the call that
    launched the graph, and get the range in which they were captured, where the capture saw that. Work without a call
    in the capture keeps ``NONE``; a sentence in ``notes`` counts it.
    """
    by_thread = _by_thread(timeline.ranges)
    for thread, indices in by_thread.items():
        _nest(timeline.ranges, indices, thread)
    calls_of: dict[int, list[Call]] = defaultdict(list)
    for call in timeline.calls:
        calls_of[call.thread].append(call)
    for thread, calls in calls_of.items():
        calls.sort(key=attrgetter("start_ns"))
        around = _innermost(calls, timeline.ranges, by_thread.get(thread, []))
        for call, index in zip(calls, around, strict=True):
            call.range = index
    _capture(timeline, by_thread)
    launches = _launches(timeline.calls)
    _join(timeline.syncs, launches, timeline.calls)
    unlaunched = _join(timeline.work, launches, timeline.calls)
    if unlaunched:
        timeline.notes.append(
            f"{unlaunched} of {len(timeline.work)} pieces of GPU work without a launch call in the capture (migrations "
            "of unified memory, a capture that began after the call, or calls that were not traced), which is under "
            "(no range)."
        )


def _by_thread(ranges: list[Range]) -> dict[int, list[int]]:
    """Indices of ranges by thread, in the order in which they began; of two that began together the longer first."""
    found: dict[int, list[int]] = defaultdict(list)
    for index, row in enumerate(ranges):
        for thread in {row.thread, row.end_thread}:
            found[thread].append(index)
    for indices in found.values():
        indices.sort(key=lambda index: ranges[index].end_ns, reverse=True)
        indices.sort(key=lambda index: ranges[index].start_ns)
    return found


def _innermost(rows: Iterable[Call] | Iterable[Node], ranges: list[Range], indices: list[int]) -> Iterator[int]:
    """For each row of one thread, in the order of time, the innermost range that is open when it begins, or ``NONE``.

    Whatever began last is on top of the stack, so dropping closed ranges from the top alone finds the innermost, also
    where start/end ranges overlap without nesting; what closed below is dropped when it comes up.
    """
    stack: list[int] = []
    to_come = iter(indices)
    following = next(to_come, NONE)
    for row in rows:
        at_ns = row.start_ns
        while following != NONE and (begins_ns := ranges[following].start_ns) <= at_ns:
            while stack and ranges[stack[-1]].end_ns <= begins_ns:
                stack.pop()
            stack.append(following)
            following = next(to_come, NONE)
        while stack and ranges[stack[-1]].end_ns <= at_ns:
            stack.pop()
        yield stack[-1] if stack else NONE


def _capture(timeline: Timeline, by_thread: dict[int, list[int]]) -> None:
    """Sets the range in which each node of a graph was captured.

    A node that runs is a copy, made when the graph was instantiated, of one that was created while a stream was
    captured, in the order of the captured calls: the range is the one that was open then on that thread.
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
        nodes.sort(key=attrgetter("start_ns"))
        around = _innermost(nodes, timeline.ranges, by_thread.get(thread, []))
        places.update(((node.process, node.id), index) for node, index in zip(nodes, around, strict=True))
    unknown = set()
    for row in timeline.work:
        if row.graph_node is None:
            continue
        key = (row.process, row.graph_node)
        seen = {key}
        # A graph may be cloned before it is instantiated; a copy may be told as created, too, where it was made.
        while key in originals and (row.process, originals[key]) not in seen:
            key = (row.process, originals[key])
            seen.add(key)
        row.captured = places.get(key, NONE)
        if row.captured == NONE:
            unknown.add((row.process, row.graph_node))
    if unknown:
        timeline.notes.append(
            f"Captured outside of any range, or before the capture began: {plural(len(unknown), 'node')} of CUDA "
            "graphs. Such work is under the range that launched the graph."
        )


def _nest(ranges: list[Range], indices: list[int], thread: int) -> None:
    """Sets the parent of each range that began on this thread: the innermost earlier one that holds all of it."""
    stack: list[int] = []
    for index in indices:
        row = ranges[index]
        while stack and ranges[stack[-1]].end_ns <= row.start_ns:
            stack.pop()
        if stack and ranges[stack[-1]].end_ns < row.end_ns:
            # Start/end ranges that overlap leave closed ones below the top; without them the search stays short.
            stack = [i for i in stack if ranges[i].end_ns > row.start_ns]
        if row.thread == thread:
            row.parent = next((i for i in reversed(stack) if ranges[i].end_ns >= row.end_ns), NONE)
        stack.append(index)


def _launches(calls: list[Call]) -> dict[int, dict[int, int]]:
    """By process and correlation id the index of the call; of several the one that began first."""
    found: dict[int, dict[int, int]] = defaultdict(dict)
    for index, call in enumerate(calls):
        of_process = found[call.process]
        before = of_process.setdefault(call.correlation, index)
        if before != index and call.start_ns < calls[before].start_ns:
            of_process[call.correlation] = index
    return found


def _join(rows: Sequence[Work] | Sequence[Sync], launches: dict[int, dict[int, int]], calls: list[Call]) -> int:
    """Sets call and range of each row, and returns how many have no call."""
    missing = 0
    nothing: dict[int, int] = {}
    for row in rows:
        index = launches.get(row.process, nothing).get(row.correlation, NONE)
        row.call = index
        if index == NONE:
            missing += 1
        else:
            row.range = calls[index].range
    return missing
