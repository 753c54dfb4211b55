"""Exports without any copy, although calls ask for copies: the table of copies may be missing.

A table without rows is not exported, so a table that was left out looks the same. Copies inside of a graph and
migrations of unified memory have no launch call of their own that would be left without work.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from fluxperf.harness.timeline.model import Loss, Timeline
from fluxperf.harness.timeline.unanswered import Mask, named
from fluxperf.words import plural

_GRAPHS = re.compile(r"(?:cuda|cu)GraphLaunch")
_NODES = re.compile(r"(?:cuda|cu)(?:Memcpy|GraphAddMemcpyNode)")
_PREFETCHES = re.compile(r"(?:cuda|cu)Mem(?:DiscardAnd)?Prefetch")
_MANAGED = re.compile(r"(?:cuda|cu)(?:MallocManaged|MemAllocManaged)")


def add_uncopied(timeline: Timeline, failed: Callable[[], Mask], *, whole: bool) -> None:
    """Adds a loss and a note to a timeline without copies that has calls which ask for some.

    Args:
        timeline: an attributed timeline.
        failed: returns for each call whether it returned an error; called only if it matters.
        whole: whether the export says that it has all tables. Otherwise memory that can migrate is reason enough.
    """
    calls, work = timeline.calls, timeline.work
    if work.flags("copy").any():
        return
    shown = timeline.graph_mode.lower() != "graph" and not work.flags("graph").any()
    asking = {
        "copies in a graph": _NODES if shown and named(calls, _GRAPHS).any() else None,
        "prefetches of unified memory": _PREFETCHES,
        "allocations of unified memory": None if whole else _MANAGED,
    }
    worked = np.zeros(len(calls) + 1, bool)
    worked[work.call] = True
    for words, pattern in asking.items():
        lone = named(calls, pattern) & ~worked[:-1] if pattern else np.zeros(0, bool)
        number = int((lone & ~failed()).sum()) if lone.any() else 0
        if number:
            told = f"the export has no copies, but {plural(number, 'call')} for {words}"
            timeline.losses = [*timeline.losses, Loss("copies", told)]
            timeline.notes = [*timeline.notes, f"Incomplete: {told}. Export the whole report again."]
            return
