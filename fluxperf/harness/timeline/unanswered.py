"""Launches without GPU work in a capture: evidence that work is missing, whatever the profiler reports.

A launch inside of a stream's capture makes a node of a graph and no work. A launch that failed, and a copy of zero
bytes or from host to host, have no work either.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fluxperf.harness.timeline.columns import Column, Cover, distinct
from fluxperf.harness.timeline.model import Calls, Loss, Timeline, process_id
from fluxperf.words import plural

Mask = NDArray[np.bool_]

#: The names of launch calls, and what they launch as text.
_KINDS: dict[Literal["cuda", "copies"], tuple[re.Pattern[str], str]] = {
    "cuda": (re.compile(r"(?:cuda|cu)(?:Launch(?!HostFunc)|GraphLaunch)"), "kernels or graphs"),
    "copies": (re.compile(r"(?:cuda|cu)Memcpy"), "copies"),
}
_BEGINS = re.compile(r"(?:cuda|cu)StreamBeginCapture")
_ENDS = re.compile(r"(?:cuda|cu)StreamEndCapture")

#: Longer than any capture. Used for a stream capture whose end or start was not recorded.
_EVER = 1 << 61


def add_unanswered(timeline: Timeline, failed: Callable[[], Mask] | None = None) -> None:
    """Adds the result of `unanswered` to the losses of an attributed timeline, with a note for each."""
    found = unanswered(timeline, failed)
    or_failed = "" if failed is not None else ", or they failed"
    timeline.losses = [*timeline.losses, *found]
    why = f"events were lost, or the capture ended before{or_failed}"
    told = (f"{row.text} (process {process_id(row.process)}): {why}." for row in found)
    timeline.notes = [*timeline.notes, *told]


def unanswered(timeline: Timeline, failed: Callable[[], Mask] | None = None) -> list[Loss]:
    """A loss for each process with launches of kernels, graphs or copies that no work belongs to.

    Args:
        timeline: an attributed timeline.
        failed: returns for each call whether it failed; ``None`` if this is not known. It is called only if needed.
    """
    calls = timeline.calls
    has_work = np.zeros(len(calls) + 1, bool)
    has_work[timeline.work.call] = True
    found = []
    for of, (pattern, words) in _KINDS.items():
        rows = np.flatnonzero(named(calls, pattern))
        lone = rows[~has_work[rows]]
        if failed is not None and len(lone):
            lone = lone[~failed()[lone]]
        lone = lone[~_around_or_in(calls, lone, rows[has_work[rows]])]
        for process in distinct(calls.process[lone]).tolist():
            own = lone[calls.process[lone] == process]
            number = int((~_captured(calls, process, calls.start_ns[own])).sum())
            if number:
                told = f"{plural(number, 'launch', 'launches')} of {words} without GPU work in the capture"
                found.append(Loss(of, told, process))
    return found


def _around_or_in(calls: Calls, lone: Column, answered: Column) -> Mask:
    """Launches that contain a launch with work, or lie inside one: the runtime launches through a driver call."""
    found = np.zeros(len(lone), bool)
    for thread in distinct(calls.thread[lone]).tolist():
        rows, known = np.flatnonzero(calls.thread[lone] == thread), answered[calls.thread[answered] == thread]
        known = known[np.argsort(calls.start_ns[known], kind="stable")]
        starts, ends = np.append(calls.start_ns[known], _EVER), np.append(calls.end_ns[known], -_EVER)
        first, last = calls.start_ns[lone[rows]], calls.end_ns[lone[rows]]
        holds = starts[np.searchsorted(starts, first)] < last
        lies = ends[np.searchsorted(starts, first, "right") - 1] >= last
        found[rows] = holds | lies
    return found


def _captured(calls: Calls, process: int, times: Column) -> Mask:
    """Whether a stream of the process was being captured at each time."""
    own = calls.process == process
    begins, ends = (
        np.sort(one)
        for one in (
            calls.start_ns[own & named(calls, _BEGINS)],
            calls.end_ns[own & named(calls, _ENDS)],
        )
    )
    if not len(begins) and not len(ends):
        return np.zeros(len(times), bool)
    until = np.append(ends, _EVER)[np.searchsorted(ends, begins)]
    since = np.r_[-_EVER, begins][np.searchsorted(begins, ends)]
    cover = Cover(np.concatenate((begins, since)), np.concatenate((until, ends)))
    inside: Mask = cover.within(times, times + 1) > 0
    return inside


def named(calls: Calls, pattern: re.Pattern[str]) -> Mask:
    """Whether the name of each call begins with a pattern."""
    if not len(calls):
        return np.zeros(0, bool)
    of_kind = np.array([bool(pattern.match(name)) for name, _ in calls.kinds], bool)
    found: Mask = of_kind[calls.what]
    return found
