"""The strip's data as compact JSON: columns of whole numbers, differences instead of times, each text once.

An item's number is its position in the order of rows. Times are nanoseconds from the beginning of the part that is
shown first. ``start`` contains differences from the previous start; ``range`` and ``call`` contain differences of item
numbers plus one (0 first means none). A column whose values are all equal is stored as one value. The page's script
(``strip_data.js``) reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from fluxperf.harness.capture.rows import KINDS, Item, Rows, rows_of
from fluxperf.harness.capture.windows import Window, Windows, whole
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import script_json, shown
from fluxperf.harness.timeline.model import NONE, Timeline
from fluxperf.harness.timeline.places import Places

#: Maximum items of a page, and maximum bytes of their JSON.
MOST_ITEMS = 120_000
MOST_BYTES = 2_300_000

# Maximum characters of a name, and of a kernel's name with its template arguments.
_NAME, _FULL_NAME = 160, 400

# If there are too many items, neighbours of up to this many nanoseconds, and as close to each other, are merged. The
# limit is doubled until the rest fits.
_SHORTEST_MERGE_NS = 500


class Strip(NamedTuple):
    """The data of one strip: rows, the parts of the capture in it, the JSON, and sentences about omissions."""

    rows: Rows
    windows: Windows
    json: str
    left_out: list[str]


def strip_of(
    timeline: Timeline, places: Places, found: Windows, most_items: int = MOST_ITEMS, most_bytes: int = MOST_BYTES
) -> Strip:
    """The first part of the capture and as many parts around it as fit in the page.

    If the first part alone is too large, short neighbours on one row are merged, the shortest first.
    """
    while True:
        kept, span = _span(timeline, found, most_items)
        rows, merged_ns = _merged(rows_of(timeline, places, span), most_items)
        text = script_json(_document(timeline, rows, kept, span))
        if len(text) <= most_bytes:
            return Strip(rows, kept, text, [*_absent(found, kept, merged_ns), *rows.left_out])
        most_items = min(rows.number, most_items) * most_bytes // len(text) * 9 // 10


def _span(timeline: Timeline, found: Windows, most_items: int) -> tuple[Windows, Window]:
    """The parts that can be shown, and the time interval around them; the whole capture if it is small."""
    tables = (timeline.ranges, timeline.calls, timeline.work, timeline.syncs)
    listed = [np.sort(rows.start_ns) for rows in tables]

    def number(start: int, end: int) -> int:
        return sum(int(np.searchsorted(one, end, "right") - np.searchsorted(one, start)) for one in listed)

    everything = whole(timeline)
    if number(everything.start_ns, everything.end_ns) + len(timeline.work) <= most_items:
        return found, everything
    low = high = found.first
    grown = True
    while grown:
        grown = False
        for near_low, near_high in ((low - 1, high), (low, high + 1)):
            if near_low < 0 or near_high >= len(found.rows):
                continue
            start = found.rows[near_low].start_ns
            end = max(row.end_ns for row in found.rows[near_low : near_high + 1])
            if number(start, end) <= most_items * 2 // 3:  # a third is reserved for idle times
                low, high, grown = near_low, near_high, True
    rows = found.rows[low : high + 1]
    kept = found._replace(rows=rows, first=found.first - low)
    return kept, rows[0]._replace(end_ns=max(row.end_ns for row in rows))


def _merged(rows: Rows, most_items: int) -> tuple[Rows, int]:
    """The rows with at most about ``most_items`` items, and the length up to which neighbours were merged (or 0)."""
    limit_ns = 0
    found = rows
    while found.number > max(most_items, 2 * sum(len(group.rows) for group in rows.groups)):
        limit_ns = limit_ns * 2 or _SHORTEST_MERGE_NS
        found = Rows(
            [
                group._replace(rows=[row._replace(items=_joined(row.items, limit_ns)) for row in group.rows])
                for group in rows.groups
            ],
            rows.left_out,
        )
    return found, limit_ns


def _joined(items: list[Item], limit_ns: int) -> list[Item]:
    """Merges items of one kind if none of them, and no gap between them, is longer than the limit."""
    joined: list[Item] = []
    before: Item | None = None
    for item in items:
        last = joined[-1] if joined else None
        if (
            last is not None
            and before is not None
            and last.kind == item.kind
            and max(item.end_ns - item.start_ns, before.end_ns - before.start_ns) <= limit_ns
            and item.start_ns - before.end_ns <= limit_ns
        ):
            joined[-1] = last._replace(
                end_ns=max(last.end_ns, item.end_ns),
                name=last.name if last.name == item.name else f"short items ({KINDS[item.kind]})",
                full_name="",
                detail="",
                bytes=last.bytes + item.bytes,
                merged=last.merged + item.merged,
            )
        else:
            joined.append(item)
        before = item
    return joined


def _absent(found: Windows, kept: Windows, merged_ns: int) -> list[str]:
    texts = []
    if len(kept.rows) < len(found.rows):
        texts.append(
            f"The capture is too large for one page: it contains {len(kept.rows)} of {len(found.rows)} "
            f"{found.kind}, from {kept.rows[0].name} to {kept.rows[-1].name}."
        )
    if merged_ns:
        texts.append(
            f"Items of up to {units.time(merged_ns / 1e9)} that follow each other as closely on one row are drawn "
            "as one item, which shows their number."
        )
    return texts


class _Table:
    """Distinct values, and the index of each."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[Any, int] = {}

    def place(self, value: Any, make: Callable[[Any], Any] = lambda value: value) -> int:
        """The index of a value, which is stored in the form given by ``make``."""
        if value not in self._places:
            self._places[value] = len(self.values)
            self.values.append(make(value))
        return self._places[value]


def _document(timeline: Timeline, rows: Rows, kept: Windows, span: Window) -> dict[str, Any]:
    """The data in the form used by the page."""
    zero = kept.shown.start_ns
    texts, things = _Table(), _Table()
    numbers = _Numbers(timeline, rows)
    groups = []
    for group in rows.groups:
        columns = [
            {"of": row.of, "label": row.label, **_columns(row.items, zero, texts, things, numbers)}
            for row in group.rows
        ]
        groups.append({"label": shown(group.label, 160), "rows": columns})
    return {
        "kinds": list(KINDS),
        "words": list(KINDS.values()),
        "groups": groups,
        "texts": texts.values,
        "things": [list(column) for column in zip(*things.values, strict=True)],
        "windows": [
            [row.name, row.start_ns - zero, row.end_ns - zero, numbers.of_range(row.range) - 1, row.gpu_ns]
            for row in kept.rows
        ],
        "first": kept.first,
        "span": [span.start_ns - zero, span.end_ns - zero],
    }


class _Numbers:
    """The item numbers of ranges and calls, plus one; 0 for those on no row."""

    def __init__(self, timeline: Timeline, rows: Rows) -> None:
        self._timeline = timeline
        self._ranges: dict[int, int] = {}
        self._calls: dict[int, int] = {}
        number = 0
        for group in rows.groups:
            for row in group.rows:
                known = {"ranges": self._ranges, "calls": self._calls}.get(row.of)
                for item in row.items:
                    number += 1
                    if known is not None and item.merged == 1:
                        known[item.origin] = number

    def of_range(self, index: int) -> int:
        """The number of a range, or of the innermost one around it that is on a row."""
        passed = []
        while index != NONE and index not in self._ranges:
            passed.append(index)
            index = self._timeline.ranges[index].parent
        number = self._ranges.get(index, 0)
        # Ranges that a loop never closes nest without limit: each is visited once.
        self._ranges.update(dict.fromkeys(passed, number))
        return number

    def of_call(self, index: int) -> int:
        """The number of a call."""
        return self._calls.get(index, 0)


def _columns(items: list[Item], zero: int, texts: _Table, things: _Table, numbers: _Numbers) -> dict[str, Any]:
    def thing(item: Item) -> int:
        def made(_: Any) -> tuple[int, ...]:
            full = texts.place((item.full_name, _FULL_NAME), _cut) if item.full_name else -1
            detail = texts.place((item.detail, _NAME), _cut) if item.detail else -1
            return list(KINDS).index(item.kind), texts.place((item.name, _NAME), _cut), full, detail

        return things.place((item.kind, item.name, item.full_name, item.detail), made)

    starts = [item.start_ns - zero for item in items]
    return {
        "start": _differences(starts),
        "length": _packed([item.end_ns - item.start_ns for item in items]),
        "thing": _packed([thing(item) for item in items]),
        "range": _packed(_differences([numbers.of_range(item.range) for item in items])),
        "call": _packed(_differences([numbers.of_call(item.call) for item in items])),
        "bytes": [[at, item.bytes] for at, item in enumerate(items) if item.bytes],
        "merged": [[at, item.merged] for at, item in enumerate(items) if item.merged > 1],
    }


def _cut(value: tuple[str, int]) -> str:
    return shown(*value)


def _differences(values: list[int]) -> list[int]:
    return [*values[:1], *(after - before for before, after in pairwise(values))]


def _packed(values: list[int]) -> list[int] | int:
    return values[0] if values and min(values) == max(values) else values
