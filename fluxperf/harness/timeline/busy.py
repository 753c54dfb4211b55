"""When GPUs were busy, and when they were not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from fluxperf.harness.timeline.model import NONE, Work


class Busy(NamedTuple):
    """A GPU from its first to its last work, and the union of the intervals in between in which it worked."""

    first_ns: int
    last_ns: int
    busy_ns: int


def busy(rows: Iterable[Work]) -> dict[int, Busy]:
    """What each GPU did in work that comes in the order of its beginnings."""
    found: dict[int, list[int]] = {}
    for row in rows:
        start_ns, end_ns = row.start_ns, row.end_ns
        held = found.get(row.gpu)
        if held is None:
            found[row.gpu] = [start_ns, end_ns, end_ns - start_ns]
            continue
        until_ns = held[1]
        if end_ns > until_ns:
            held[1] = end_ns
            held[2] += end_ns - (until_ns if until_ns > start_ns else start_ns)
    return {gpu: Busy(*held) for gpu, held in found.items()}


def busy_ns(rows: Iterable[Work]) -> int:
    """Union of the intervals of work that comes in the order of its beginnings, GPUs added."""
    return sum(gpu.busy_ns for gpu in busy(rows).values())


class Gap(msgspec.Struct, frozen=True, gc=False):
    """A time in which a GPU did nothing, ended by the work of this index."""

    start_ns: int
    end_ns: int
    work: int


def gaps(work: Sequence[Work], opened_ns: Sequence[int]) -> list[Gap]:
    """Times in which a GPU did nothing between its first and its last work.

    A gap begins no earlier than the outermost range around the launch of the work that ended it: what lies before that
    range is not its doing.

    Args:
        work: in the order of its beginnings.
        opened_ns: for each range, when the outermost one around it began.
    """
    found = []
    busy_until: dict[int, int] = {}
    for index, row in enumerate(work):
        start_ns, end_ns, gpu = row.start_ns, row.end_ns, row.gpu
        before = busy_until.get(gpu)
        if before is None:
            busy_until[gpu] = end_ns
            continue
        if start_ns > before:
            opened = before if row.range == NONE else opened_ns[row.range]
            begun = opened if opened > before else before
            if start_ns > begun:
                found.append(Gap(begun, start_ns, index))
        if end_ns > before:
            busy_until[gpu] = end_ns
    return found
