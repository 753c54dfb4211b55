"""The page of two captures: changes from one to the other by range, op and kernel."""

from __future__ import annotations

from fluxperf.harness.capture.page import LIMITS, named
from fluxperf.harness.capture.tables import MOST_ROWS, left_out
from fluxperf.harness.pages.page import Page, Part
from fluxperf.harness.pages.panels import Block, Notes, Numbers, Text
from fluxperf.harness.pages.tables import MISSING, Cell, Column, Table
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown
from fluxperf.harness.timeline.differing import Change, Difference

_COLUMNS = (
    Column("GPU before", hint="GPU time in the first capture"),
    Column("GPU after", hint="GPU time in the second capture"),
    Column("Change", hint="share of the GPU time; 100 % for a row that only one capture has"),
    Column("Calls"),
    Column("Kernels"),
    Column("Copies", hint="between host and device by range, all by op"),
    Column("Waits", hint="synchronizations that block the host"),
    Column("Idle", hint="time in which a GPU was idle before work of the row began"),
)

_COUNTS = ("calls", "kernels", "copies", "waits")


def compared(found: Difference) -> str:
    """The whole page as HTML, which needs no network. The same captures give the same page, byte for byte."""
    before, after = shown(found.before, 160), shown(found.after, 160)
    levels = {"range": found.ranges, "op": found.ops, "kernel": found.kernels}
    told = Text(
        f"{before}, then {after}. GPU times of a traced run: use them to see changes, not as measurements.", "source"
    )
    captions = ("By range, children included", "By op", "By kernel, sum of durations")
    tables = [
        Part(f"{level}s", f"By {level}", [_table(caption, level, rows, found.total), told])
        for caption, (level, rows) in zip(captions, levels.items(), strict=True)
    ]
    summary: list[Block] = [
        Text(f"From {before} to {after}. {_moved(found)}", "lede"),
        Numbers(_figures(found.total)),
        told,
    ]
    parts = [
        Part("summary", "What changed", summary),
        *tables,
        Part("limits", "Limits of captures", [Notes(LIMITS)]),
    ]
    heading = f"{named(found.before)} → {named(found.after)}"
    return Page(f"{heading}: fluxperf timeline", "fluxperf timeline", heading, parts).html()


def _moved(found: Difference) -> str:
    """The number of rows that only one capture has, as a sentence."""
    counts = [
        units.plural(sum(row.seen == seen for row in rows), f"{level} {seen}", f"{level}s {seen}")
        for level, rows in (("range", found.ranges), ("kernel", found.kernels))
        for seen in ("only before", "only after")
    ]
    return f"There are {units.listing(counts)}."


def _figures(total: Change) -> list[tuple[str, str, str, str]]:
    before, after = total.before, total.after
    times = [("GPU busy", before.gpu_ms, after.gpu_ms), ("GPU idle", before.idle_ms, after.idle_ms)]
    rows = [
        (name, f"{units.time(new / 1e3)}", f"was {units.time(old / 1e3)}{_share(old, new)}", "")
        for name, old, new in times
    ]
    for name in ("copies", "waits"):
        old, new = getattr(before, name), getattr(after, name)
        rows.append((name.capitalize(), units.count(new), f"was {units.count(old)}{_share(old, new)}", ""))
    return rows


def _share(old: float, new: float) -> str:
    return f" ({units.change(new / old - 1)})" if old and new != old else ""


def _table(caption: str, level: str, rows: list[Change], total: Change) -> Table:
    cells = [_row(row) for row in rows[:MOST_ROWS]]
    if len(rows) > MOST_ROWS:
        cells.append(left_out(len(rows) - MOST_ROWS, len(_COLUMNS)))
    cells.append(_row(total))
    columns = (Column(level.capitalize(), number=False, wide=True), *_COLUMNS)
    return Table(caption, columns, cells, tall=len(cells) > 16)


def _row(row: Change) -> list[Cell]:
    before, after = row.before, row.after
    share = units.change(after.gpu_ms / before.gpu_ms - 1) if before.gpu_ms and after.gpu_ms else ""
    moved = Cell(units.signed_time(row.gpu_ms / 1e3), row.gpu_ms, note=share) if row.gpu_ms else MISSING
    return [
        Cell(shown(row.name, 200), note="" if row.seen == "in both" else row.seen),
        *(Cell(units.time(side.gpu_ms / 1e3), side.gpu_ms) if side.gpu_ms else MISSING for side in (before, after)),
        moved,
        *(_count(getattr(before, name), getattr(after, name)) for name in _COUNTS),
        Cell(units.time(after.idle_ms / 1e3), after.idle_ms, note=f"was {units.time(before.idle_ms / 1e3)}")
        if before.idle_ms or after.idle_ms
        else MISSING,
    ]


def _count(old: int, new: int) -> Cell:
    """A number of both captures; both values if they differ."""
    if old == new:
        return Cell(units.count(new), new) if new else MISSING
    return Cell(f"{units.count(old)} → {units.count(new)}", new, kind="changed")
