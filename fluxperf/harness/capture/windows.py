"""Parts of a capture that the strip can show, and the one that it shows first.

A strip shows steps. If a capture has none, an outermost range is used like a step. Without ranges the whole capture is
the only part.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np

from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown
from fluxperf.harness.timeline.busy import busy_by, busy_ns
from fluxperf.harness.timeline.columns import Column, codes
from fluxperf.harness.timeline.model import NONE, Timeline, process_id, thread_id
from fluxperf.harness.timeline.places import Places

#: Maximum number of parts that the strip offers: those nearest to the one shown first.
MOST_WINDOWS = 200


class Window(NamedTuple):
    """A part of a capture: from the start of its range to the end of the range, or of the work launched in it.

    ``range`` is the index of the step's range, or ``NONE`` for the whole capture. ``gpu_ns`` is the time in which GPUs
    ran work that was launched in it.
    """

    name: str
    start_ns: int
    end_ns: int
    range: int
    gpu_ns: int


class Windows(NamedTuple):
    """The parts in the order of time, the position of the one that is shown first, and the reason for it.

    ``kind`` is their kind: steps, outermost ranges, or captures.
    """

    rows: list[Window]
    first: int
    why: str
    kind: str

    @property
    def shown(self) -> Window:
        """The part that is shown first."""
        return self.rows[self.first]


def windows(timeline: Timeline, places: Places) -> Windows:
    """Steps with GPU work and the one of median GPU time; else outermost ranges; else the whole capture."""
    owners = places.steps(timeline.work.range)
    stepped = bool((owners != NONE).any())
    if not stepped:
        owners = places.roots(timeline.work.range)
    rows = _owned(timeline, owners)
    if not rows:
        return Windows([whole(timeline)], 0, _WHOLE, "captures")
    groups: dict[str, list[Window]] = defaultdict(list)
    for row in rows:
        groups["" if stepped else places.path(row.range)].append(row)
    group = max(groups.values(), key=lambda group: sum(row.gpu_ns for row in group))
    # With an even number, the earlier of the two in the middle: a real part, not a mean of two.
    median = sorted(group, key=lambda row: (row.gpu_ns, row.start_ns))[(len(group) - 1) // 2]
    first = rows.index(median)
    least = max(0, min(first - MOST_WINDOWS // 2, len(rows) - MOST_WINDOWS))
    kept = rows[least : least + MOST_WINDOWS]
    kind = "steps" if stepped else "outermost ranges"
    why = _reason(median, group, kind)
    why += f" The {len(kept)} of {len(rows)} {kind} nearest to it can be selected." if len(kept) < len(rows) else ""
    return Windows(_told_apart(timeline, kept), first - least, why, kind)


_WHOLE = "The capture has no range that launched GPU work, so the whole capture is shown."


def whole(timeline: Timeline) -> Window:
    """The whole capture as one part."""
    listed = (timeline.ranges, timeline.work, timeline.calls, timeline.syncs)
    start = min((int(rows.start_ns.min()) for rows in listed if len(rows)), default=0)
    end = max((int(rows.end_ns.max()) for rows in listed if len(rows)), default=start)
    return Window("whole capture", start, end, NONE, busy_ns(timeline.work))


def _owned(timeline: Timeline, owners: Column) -> list[Window]:
    ranges, work = timeline.ranges, timeline.work.taken(owners != NONE)
    held = owners[owners != NONE]
    if not len(held):
        return []
    numbers, firsts = codes(held)
    spent = busy_by(work, numbers, len(firsts)).tolist()
    last = np.zeros(len(firsts), np.int64)
    np.maximum.at(last, numbers, work.end_ns)
    found = [
        Window(
            ranges.names[ranges.name[owner]],
            int(ranges.start_ns[owner]),
            int(max(ranges.end_ns[owner], end)),
            owner,
            round(busy),
        )
        for owner, end, busy in zip(held[firsts].tolist(), last.tolist(), spent, strict=True)
    ]
    return sorted(found, key=lambda row: (row.start_ns, row.range))


def _told_apart(timeline: Timeline, rows: list[Window]) -> list[Window]:
    """The rows with names that distinguish processes, threads, and turns of one name."""
    ranges = [timeline.ranges[row.range] for row in rows]
    processes = len({row.process for row in ranges}) > 1
    threads = len({(row.process, row.thread) for row in ranges}) > len({row.process for row in ranges})
    names = []
    for row, around in zip(rows, ranges, strict=True):
        process = f", process {process_id(around.process)}" if processes else ""
        thread = f", thread {thread_id(around.thread)}" if threads else ""
        names.append(shown(row.name, 60) + process + thread)
    counts, turns = Counter(names), Counter[str]()
    for position, name in enumerate(names):
        if counts[name] > 1:
            turns[name] += 1
            names[position] = f"{name} (turn {turns[name]})"
    return [row._replace(name=name) for row, name in zip(rows, names, strict=True)]


def _reason(row: Window, group: list[Window], kind: str) -> str:
    time = units.time(row.gpu_ns / 1e9)
    if len(group) == 1:
        text = f"None of the other {kind} in the capture has GPU work ({time} in this one)."
    else:
        text = f"Of {len(group)} {kind} with GPU work it is the one with the median GPU time ({time})."
    return text if kind == "steps" else f"The capture has no range named “step N”. {text}"
