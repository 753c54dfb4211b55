"""When GPUs were busy, and when they were not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxperf.harness.timeline.columns import Column, codes, column, distinct, empty, union_ns
from fluxperf.harness.timeline.model import NONE, Calls, Work, Works


class Busy(NamedTuple):
    """A GPU from its first to its last work, and the union of the intervals in between in which it worked."""

    first_ns: int
    last_ns: int
    busy_ns: int


def busy(rows: Works | Sequence[Work]) -> dict[int, Busy]:
    """Busy time of each GPU, from work in the order of its beginnings."""
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
    """Union of the intervals of work that comes in the order of its beginnings, GPUs added."""
    return sum(gpu.busy_ns for gpu in busy(rows).values())


def busy_by(work: Works, groups: Column, number: int) -> NDArray[np.float64]:
    """`busy_ns` of each group of work; groups go from 0 to ``number`` - 1."""
    if not len(work):
        return np.zeros(number)
    both, firsts = codes(groups, work.gpu)
    spent = union_ns(work.start_ns, work.end_ns, both, len(firsts))
    return np.bincount(groups[firsts], spent, number).astype(np.float64)


def shares_ns(work: Works | Sequence[Work]) -> NDArray[np.float64]:
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

    @property
    def lasted_ns(self) -> Column:
        """How long each was."""
        found: Column = self.end_ns - self.start_ns
        return found

    def rows(self) -> list[Gap]:
        """The same as one object for each."""
        return [Gap(*row) for row in zip(*(column.tolist() for column in self), strict=True)]


def gaps(work: Works, opened_ns: Column, calls: Calls) -> Gaps:
    """Times in which a GPU did nothing between its first and its last work.

    A gap begins no earlier than the outermost range around the launch of the work that ended it, or, without a range,
    than the first call of its process: what lies before is not its doing.

    Args:
        work: in the order of its beginnings.
        opened_ns: for each range, when the outermost one around it began.
        calls: those of the capture.
    """
    # NONE, which is -1, finds the last: no range, which keeps no gap from beginning.
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
