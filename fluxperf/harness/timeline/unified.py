"""Ranges of migrations and page faults of unified memory, which have no launch call.

They are the only events that are assigned by time, as nothing else about them is recorded. Pages that a device moves or
uses belong to the kernel that ran on it at that time, and so to the range that launched this kernel. Pages that the
host uses belong to the range that was open at that time. A prefetch belongs to the call that requested it. If several
ranges are possible, none is assigned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from fluxperf.harness.timeline.columns import Column, codes, empty
from fluxperf.harness.timeline.model import NONE, Timeline, process_of
from fluxperf.harness.timeline.rows import FAULT, USER_PREFETCH, WITH_FAULT

_PREFETCHES = re.compile(r"(?:cuda|cu)Mem(?:Discard(?:AndPrefetch)?|Prefetch)")


class Opened(Protocol):
    """Ranges of a thread."""

    def at(self, times: Column) -> Column:
        """The innermost range that is open at each time, or ``NONE``."""


def place(timeline: Timeline, opened: Mapping[int, Opened]) -> int:
    """Fills in ``range`` of page faults, and of migrations without a call. Returns how many of these got one.

    Args:
        timeline: calls, work and waits with their ranges.
        opened: ranges of each thread.
    """
    work, faults = timeline.work, timeline.faults
    rows = np.flatnonzero(work.unified & (work.call == NONE))
    faults.range = empty(len(faults), NONE)
    copies = [what.copy for what in work.kinds]
    asked = work.where(copy is not None and copy.cause == USER_PREFETCH for copy in copies)[rows]
    of_host = work.where(
        copy is not None and copy.crossing == "d2h" and copy.cause in (FAULT, WITH_FAULT, "") for copy in copies
    )[rows]
    parts = {"calls": rows[asked], "host": rows[of_host], "kernels": rows[~asked & ~of_host]}
    work.range[parts["calls"]] = _of_prefetches(timeline, work.process[parts["calls"]], work.start_ns[parts["calls"]])
    work.range[parts["host"]] = _of_threads(opened, work.process[parts["host"]], work.start_ns[parts["host"]])
    at = (work.process, work.gpu, work.start_ns)
    work.range[parts["kernels"]] = _of_kernels(timeline, *(one[parts["kernels"]] for one in at))
    device = np.array([kind.side == "device" for kind in faults.kinds], bool)[faults.what]
    faults.range[device] = _of_kernels(timeline, faults.process[device], faults.gpu[device], faults.start_ns[device])
    faults.range[~device] = _of_threads(opened, faults.process[~device], faults.start_ns[~device])
    return int((work.range[rows] != NONE).sum())


def _of_threads(opened: Mapping[int, Opened], process: Column, times: Column) -> Column:
    """The only range that was open in each process at a time."""
    found, several = empty(len(times), NONE), np.zeros(len(times), bool)
    for thread, ranges in opened.items():
        rows = np.flatnonzero(process == process_of(thread))
        if len(rows):
            now = ranges.at(times[rows])
            several[rows] |= (found[rows] != NONE) & (now != NONE) & (now != found[rows])
            found[rows] = np.where(found[rows] == NONE, now, found[rows])
    found[several] = NONE
    return found


def _of_kernels(timeline: Timeline, process: Column, gpu: Column, times: Column) -> Column:
    """The range of the kernels that ran on a GPU at each time, if it is the same for all."""
    work = timeline.work
    found = empty(len(times), NONE)
    kernels = np.flatnonzero(work.flags("kernel"))
    if not len(times) or not len(kernels):
        return found
    numbers, firsts = codes(process, gpu)
    for number, first in enumerate(firsts.tolist()):
        rows = np.flatnonzero(numbers == number)
        own = kernels[(work.process[kernels] == process[first]) & (work.gpu[kernels] == gpu[first])]
        found[rows] = _shared(work.start_ns[own], work.end_ns[own], work.range[own], times[rows])
    return found


def _shared(starts: Column, ends: Column, ranges: Column, times: Column) -> Column:
    """The value that all intervals around a time share, or ``NONE``.

    Numbers are all equal if and only if the sum of their squares is n times the square of their mean. Sums over all
    intervals that started minus those over all that ended may overflow; their difference does not.
    """
    began, ended = np.argsort(starts, kind="stable"), np.argsort(ends, kind="stable")
    first = np.searchsorted(starts[began], times, "right")
    last = np.searchsorted(ends[ended], times, "right")
    values = ranges + 1
    number, total, squares = (
        np.r_[0, np.cumsum(one[began])][first] - np.r_[0, np.cumsum(one[ended])][last]
        for one in (np.ones_like(values), values, values * values)
    )
    mean = total // np.maximum(1, number)
    same = (number > 0) & (mean * number == total) & (mean * mean * number == squares)
    return np.where(same, mean - 1, NONE)


def _of_prefetches(timeline: Timeline, process: Column, times: Column) -> Column:
    """The range of the last requested prefetch, unless an earlier one that is not finished has another range."""
    calls, waits = timeline.calls, timeline.syncs.blocking
    found = empty(len(times), NONE)
    asks = np.array([bool(_PREFETCHES.match(name)) for name, _ in calls.kinds], bool)
    asked = np.flatnonzero(asks[calls.what]) if len(calls) else empty()
    for one in np.unique(process).tolist():
        rows, own = np.flatnonzero(process == one), asked[calls.process[asked] == one]
        own = own[np.argsort(calls.start_ns[own], kind="stable")]
        last = np.searchsorted(calls.start_ns[own], times[rows], "right") - 1
        ended = np.sort(waits.end_ns[waits.process == one])
        waited = np.r_[np.iinfo(np.int64).min, ended][np.searchsorted(ended, times[rows], "right")]
        first = np.minimum(np.searchsorted(calls.start_ns[own], waited), last)
        ranges = calls.range[own]
        changes = np.r_[0, np.cumsum(ranges[1:] != ranges[:-1])] if len(own) else empty(1)
        same = (last >= 0) & (changes[first] == changes[last])
        found[rows] = np.where(same, np.append(ranges, NONE)[last], NONE)
    return found
