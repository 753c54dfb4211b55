"""Times in which GPUs were busy, and gaps between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxperf.harness.timeline.columns import Column, codes, column, distinct, empty, union_ns
from fluxperf.harness.timeline.model import NONE, Calls, Work, Works


class Busy(NamedTuple):
    """A GPU from its first to its last work, with the union of the intervals in which it worked."""

    first_ns: int
    last_ns: int
    busy_ns: int


def busy(rows: Works | Sequence[Work]) -> dict[int, Busy]:
    """Busy time of each GPU. Work must be ordered by start."""
    if not len(rows):
        return {}
    starts, ends, gpus = (column(rows, name) for name in ("start_ns", "end_ns", "gpu"))
    numbers, firsts = codes(gpus)
    spent = union_ns(starts, ends, numbers, len(firsts))
    found = {}
    for number, first in enumerate(firsts.tolist()):
        own = numbers == number
        found[int(gpus[first])] = Busy(int(starts[own].min()), int(ends[own].max()), int(spent[number]))
    return found


def busy_ns(rows: Works | Sequence[Work]) -> int:
    """Union of the intervals of work that is ordered by start, summed over GPUs."""
    return sum(gpu.busy_ns for gpu in busy(rows).values())


def busy_by(work: Works, groups: Column, number: int) -> NDArray[np.float64]:
    """`busy_ns` of each group of work. Groups are numbered from 0 to ``number`` - 1."""
    if not len(work):
        return np.zeros(number)
    both, firsts = codes(groups, work.gpu)
    spent = union_ns(work.start_ns, work.end_ns, both, len(firsts))
    return np.bincount(groups[firsts], spent, number).astype(np.float64)


def shares_ns(work: Works | Sequence[Work]) -> NDArray[np.float64]:
    """The share of its GPU's busy time that each piece of work gets, in nanoseconds. Shares add up to the busy time.

    While k pieces run at the same time, each gets 1/k of that time.
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
    """A time in which a GPU was idle. ``work`` is the index of the work that ended it."""

    start_ns: int
    end_ns: int
    work: int


class Gaps(NamedTuple):
    """Columns of `Gap` fields, ordered by the work that ended each gap."""

    start_ns: Column
    end_ns: Column
    work: Column

    @property
    def lasted_ns(self) -> Column:
        """Length of each gap."""
        found: Column = self.end_ns - self.start_ns
        return found

    def rows(self) -> list[Gap]:
        """The gaps as objects."""
        return [Gap(*row) for row in zip(*(column.tolist() for column in self), strict=True)]


def gaps(work: Works, opened_ns: Column, calls: Calls) -> Gaps:
    """Times in which a GPU was idle between its first and its last work.

    A gap starts no earlier than the outermost range around the launch of the work that ended it; without a range, no
    earlier than the first call of its process. Time before that is not caused by this work.

    Args:
        work: work ordered by start.
        opened_ns: for each range, when the outermost range around it started.
        calls: calls of the capture.
    """
    # NONE is -1 and indexes the last element: no range, which does not delay the start of a gap.
    opened = np.append(opened_ns, np.iinfo(np.int64).min)[work.range]
    if len(processes := distinct(work.process)) > 1:
        of_calls = calls.process
        for process in processes.tolist():
            if (own := of_calls == process).any():
                outside = (work.process == process) & (work.range == NONE)
                opened[outside] = calls.start_ns[own].min()
    found = []
    for gpu in distinct(work.gpu).tolist():
        indices = np.flatnonzero(work.gpu == gpu)
        busy_until = np.maximum.accumulate(work.end_ns[indices])[:-1]
        indices = indices[1:]
        begun = np.maximum(busy_until, opened[indices])
        idle = work.start_ns[indices] > begun
        found.append((begun[idle], indices[idle]))
    begun, indices = (np.concatenate([row[i] for row in found] or [empty()]) for i in range(2))
    order = np.argsort(indices)
    return Gaps(begun[order], work.start_ns[indices[order]], indices[order])
