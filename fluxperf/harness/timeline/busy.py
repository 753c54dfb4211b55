"""When GPUs were busy, and when they were not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxperf.harness.timeline.model import Work

#: Whole numbers, one for each row.
Column = NDArray[np.int64]


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


def shares_ns(work: Sequence[Work]) -> NDArray[np.float64]:
    """Nanoseconds that each piece of work has of its GPU's busy time, which is all they add up to.

    Where k pieces run side by side, each has 1/k of that time.
    """
    starts, ends, gpus = column(work, "start_ns"), column(work, "end_ns"), column(work, "gpu")
    shares = np.zeros(len(work))
    for gpu in np.unique(gpus):
        own = np.flatnonzero(gpus == gpu)
        times = np.unique(np.concatenate((starts[own], ends[own])))
        first, last = np.searchsorted(times, starts[own]), np.searchsorted(times, ends[own])
        change = np.bincount(first, minlength=len(times)) - np.bincount(last, minlength=len(times))
        running = np.cumsum(change)[:-1]
        each = np.divide(np.diff(times), running, out=np.zeros(len(running)), where=running > 0)
        until = np.concatenate((np.zeros(1), np.cumsum(each)))
        shares[own] = until[last] - until[first]
    return shares


class Gap(msgspec.Struct, frozen=True, gc=False):
    """A time in which a GPU did nothing, ended by the work of this index."""

    start_ns: int
    end_ns: int
    work: int


class Gaps(NamedTuple):
    """`Gap` after `Gap`, a column for each field, in the order of the work that ended them."""

    start_ns: Column
    end_ns: Column
    work: Column

    def rows(self) -> list[Gap]:
        """The same as one object for each."""
        return [Gap(*row) for row in zip(*(column.tolist() for column in self), strict=True)]


def column(rows: Sequence[Any], name: str) -> Column:
    """One field of all rows."""
    return np.fromiter(map(attrgetter(name), rows), np.int64, len(rows))


def gaps(work: Sequence[Work], opened_ns: Sequence[int]) -> Gaps:
    """Times in which a GPU did nothing between its first and its last work.

    A gap begins no earlier than the outermost range around the launch of the work that ended it: what lies before that
    range is not its doing.

    Args:
        work: in the order of its beginnings.
        opened_ns: for each range, when the outermost one around it began.
    """
    starts, ends, gpus = column(work, "start_ns"), column(work, "end_ns"), column(work, "gpu")
    # NONE, which is -1, finds the last: no range, which keeps no gap from beginning.
    opened = np.array([*opened_ns, np.iinfo(np.int64).min], np.int64)[column(work, "range")]
    found = []
    for gpu in sorted(set(gpus.tolist())):
        indices = np.flatnonzero(gpus == gpu)
        busy_until = np.maximum.accumulate(ends[indices])[:-1]
        indices = indices[1:]
        begun = np.maximum(busy_until, opened[indices])
        idle = starts[indices] > begun
        found.append((begun[idle], indices[idle]))
    begun, indices = (np.concatenate([row[i] for row in found] or [np.zeros(0, np.int64)]) for i in range(2))
    order = np.argsort(indices)
    return Gaps(begun[order], starts[indices[order]], indices[order])
