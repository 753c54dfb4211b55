"""When GPUs were busy, and when they were not."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fluxperf.harness.timeline.model import NONE, Timeline, Work
from fluxperf.harness.timeline.places import Places


def busy_ns(rows: Iterable[Work]) -> int:
    """Union of the intervals of work that comes in the order of its beginnings, GPUs added."""
    union = 0
    busy_until: dict[int, int] = {}
    for row in rows:
        start_ns, end_ns = row.start_ns, row.end_ns
        until = busy_until.get(row.gpu, start_ns)
        if end_ns > until:
            union += end_ns - (until if until > start_ns else start_ns)
            busy_until[row.gpu] = end_ns
    return union


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
    ranges = timeline.ranges
    for index, row in enumerate(timeline.work):
        start_ns, end_ns, gpu = row.start_ns, row.end_ns, row.gpu
        before = busy_until.get(gpu, start_ns)
        if start_ns > before:
            root = places.root(row.range)
            begun = before if root == NONE else max(before, ranges[root].start_ns)
            if start_ns > begun:
                found.append(Gap(begun, start_ns, index))
        if end_ns > before or gpu not in busy_until:
            busy_until[gpu] = end_ns if end_ns > before else before
    return found
