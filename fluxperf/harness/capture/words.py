"""The strip as text: costs by op in the part that it shows first, and the longest items of each row."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from fluxperf.harness.capture.rows import KINDS, Item, Rows
from fluxperf.harness.capture.windows import Window
from fluxperf.harness.pages.tables import MISSING, Cell, Column, Table
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown
from fluxperf.harness.timeline.model import NONE, Timeline
from fluxperf.harness.timeline.places import Places

#: Number of items of each row in the table.
LONGEST = 5

_ITEMS = (
    Column("Row", number=False),
    Column("Item", number=False, wide=True),
    Column("Kind", number=False),
    Column("Start", hint="from the start of the shown part"),
    Column("Duration"),
    Column("Bytes"),
    Column("Range", number=False, wide=True, hint="the innermost range around it, or around its launch call"),
)

_OPS = (
    Column("Op", number=False),
    Column("GPU time", hint="sum of the durations of kernels, copies and memsets"),
    Column("Share", hint="share of the GPU time of the shown part"),
    Column("Kernels"),
    Column("Down", hint="copies from device to host"),
    Column("Up", hint="copies from host to device"),
    Column("Bytes copied", hint="between host and device"),
)


def longest(rows: Rows, places: Places, window: Window) -> Table:
    """The longest items of each row in a window, row by row."""
    cells = []
    for group in rows.groups:
        label = ""
        for row in group.rows:
            label = label if row.label in ("", "overlapping") else row.label
            inside = [item for item in row.items if item.start_ns <= window.end_ns and item.end_ns >= window.start_ns]
            inside.sort(key=lambda item: (item.start_ns - item.end_ns, item.start_ns))
            cells += [_item(group.label, label, item, places, window) for item in inside[:LONGEST]]
    return Table(f"The {LONGEST} longest items of each row", _ITEMS, cells, tall=True)


def _item(group: str, row: str, item: Item, places: Places, window: Window) -> list[Cell]:
    start, length = item.start_ns - window.start_ns, item.end_ns - item.start_ns
    note = f"{units.count(item.merged)} short items that follow each other" if item.merged > 1 else ""
    return [
        Cell(shown(group, 60), note=row),
        Cell(shown(item.name, 96), note=note or (shown(item.detail, 60) if item.detail else "")),
        Cell(KINDS[item.kind]),
        Cell(units.signed_time(start / 1e9), start),
        Cell(units.time(length / 1e9), length),
        Cell(units.quantity(item.bytes, "B"), item.bytes) if item.bytes else MISSING,
        Cell(shown(places.path(item.range), 120)) if item.range != NONE else MISSING,
    ]


def by_op(timeline: Timeline, places: Places, window: Window) -> Table:
    """GPU time, kernels and copies of the work that was launched in a window, by op."""
    time: dict[str, int] = defaultdict(int)
    kernels: dict[str, int] = defaultdict(int)
    copies: dict[tuple[str, str], int] = defaultdict(int)
    moved: dict[str, int] = defaultdict(int)
    for row in timeline.work.taken(_launched_in(timeline, places, window)):
        op = places.of(row, "op")[0]
        time[op] += row.end_ns - row.start_ns
        kernels[op] += row.kind == "kernel"
        if row.copy is not None and row.copy.crossing:
            copies[op, row.copy.crossing] += row.copy.count
            moved[op] += row.bytes
    whole = sum(time.values())
    cells = [
        [
            Cell(shown(op, 96)),
            Cell(units.time(spent / 1e9), spent),
            Cell(units.percent(spent / whole), spent) if whole else MISSING,
            Cell(units.count(kernels[op]), kernels[op]),
            Cell(units.count(copies[op, "d2h"]), copies[op, "d2h"]),
            Cell(units.count(copies[op, "h2d"]), copies[op, "h2d"]),
            Cell(units.quantity(moved[op], "B"), moved[op]),
        ]
        for op, spent in sorted(time.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    return Table(f"{window.name}, by op: work launched in it", _OPS, cells, tall=len(cells) > 16)


def _launched_in(timeline: Timeline, places: Places, window: Window) -> NDArray[np.bool_]:
    """Whether each piece of work was launched in the range of a window or below it; all work for the whole capture."""
    around = timeline.work.range
    if window.range == NONE:
        return np.ones(len(around), bool)
    found: NDArray[np.bool_] = (places.steps(around) == window.range) | (places.roots(around) == window.range)
    return found
