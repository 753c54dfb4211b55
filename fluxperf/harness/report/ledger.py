"""The transfer ledger: copies of the first rung, and copies per block at every rung."""

from __future__ import annotations

from collections.abc import Sequence

from fluxperf.harness.facts.adds_up import adds_up
from fluxperf.harness.facts.provenance import provenance
from fluxperf.harness.facts.study import Ladder, Rung, Study
from fluxperf.harness.pages.panels import Block, Group, Notes, Panel, Text, present, source
from fluxperf.harness.pages.tables import MISSING, Cell, Column, Table
from fluxperf.harness.records import BlockRow, LedgerRow, Record
from fluxperf.harness.report.plots.copies import labels
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown

_ABOUT = (
    "Down is device to host, up is host to device. Each count is exact: bytes cross between host and device in one "
    "place only, which counts them."
)


_SECTIONS = ("embed", "double", "single", "final")
_WAYS = {"d2h": "down", "h2d": "up"}

_Key = tuple[str, str, str, str]


def ledger_panels(study: Study) -> list[Block]:
    """The ledger of each ladder that has a record."""
    chosen = [ladder for ladder in study.climbing if ladder.measured]
    panels: list[Block] = [_view(ladder, f"ledger-{number}") for number, ladder in enumerate(chosen, start=1)]
    return [Text(_ABOUT), *(panels or [Text("No record.")])]


def _view(ladder: Ladder, prefix: str) -> Panel:
    base = ladder.baseline
    later = [rung for rung in ladder.measured if rung.name != ladder.start]
    content = present(
        source(provenance(ladder.records)),
        Notes(_notes(ladder, later)),
        labels(ladder, prefix),
        _blocks(ladder),
        Group("columns", [_by_op(base), _ledger(base, later)]) if base and base.ledger else None,
    )
    return Panel(ladder.title, content, ladder.view)


def _key(row: LedgerRow) -> _Key:
    return (row.direction, row.label, row.op, row.section)


def _ledger(base: Record, later: Sequence[Rung]) -> Table:
    columns = (
        Column("Label", number=False),
        Column("Direction", number=False),
        Column("Op", number=False),
        Column("Section", number=False),
        Column("Copies"),
        Column("Bytes"),
        Column("Later rungs", hint="copies with this label in the later rungs with a record; 0 is expected"),
    )
    rows = []
    for row in sorted(base.ledger, key=lambda row: -row.count):
        rows.append(
            [
                Cell(shown(row.label, 64)),
                Cell(_WAYS[row.direction]),
                _op(row.op),
                _section(row.section),
                Cell(units.count(row.count), row.count),
                Cell(units.quantity(row.bytes, "B"), row.bytes),
                _elsewhere(_key(row), later),
            ]
        )
    return Table("Copies of one forward of the baseline, by label", columns, rows, tall=True)


def _op(name: str) -> Cell:
    """An op; or no op for the output of a section, which is copied to where the next section works."""
    return Cell(shown(name, 48)) if name else Cell("(outside ops)", note="results of sections")


def _section(name: str) -> Cell:
    return Cell(shown(name, 32)) if name else MISSING


def _elsewhere(key: _Key, later: Sequence[Rung]) -> Cell:
    if not later:
        return MISSING._replace(note="no later record")
    found = [
        (rung.label, sum(row.count for row in rung.record.ledger if _key(row) == key)) for rung in later if rung.record
    ]
    total = sum(number for _, number in found)
    if not total:
        return Cell("0", 0, kind="same")
    names = units.listing([name for name, number in found if number], 3)
    return Cell(units.count(total), total, f"in {names}", kind="bad")


def _by_op(base: Record) -> Table:
    columns = (
        Column("Op", number=False),
        Column("Copies down"),
        Column("Copies up"),
        Column("Bytes down"),
        Column("Bytes up"),
        Column("Share of copies"),
    )
    sums: dict[str, list[int]] = {}
    for row in base.ledger:
        entry = sums.setdefault(row.op, [0, 0, 0, 0])
        entry[0 if row.direction == "d2h" else 1] += row.count
        entry[2 if row.direction == "d2h" else 3] += row.bytes
    whole = sum(entry[0] + entry[1] for entry in sums.values()) or 1
    rows = [
        [
            _op(op),
            Cell(units.count(entry[0]), entry[0]),
            Cell(units.count(entry[1]), entry[1]),
            Cell(units.quantity(entry[2], "B"), entry[2]),
            Cell(units.quantity(entry[3], "B"), entry[3]),
            Cell(units.percent((entry[0] + entry[1]) / whole), entry[0] + entry[1]),
        ]
        for op, entry in sorted(sums.items(), key=lambda item: -(item[1][0] + item[1][1]))
    ]
    return Table("Copies of one forward of the baseline, by op", columns, rows)


def _blocks(ladder: Ladder) -> Table:
    seen = {row.section for record in ladder.records for row in record.blocks}
    sections = [name for name in _SECTIONS if name in seen] + sorted(seen - set(_SECTIONS))
    columns = [Column("Rung", number=False)]
    for name in sections:
        title = f"{name} block" if name in ("double", "single") else shown(name, 24)
        columns.append(Column(title, number=False))
    columns += [Column("Whole forward", number=False), Column("Outside the forward", number=False)]
    rows = []
    for position, rung in enumerate(ladder.rungs):
        if not rung.record:
            gap = [MISSING._replace(text="no record"), *[MISSING] * (len(columns) - 2)]
            rows.append([Cell(rung.label, position), *gap])
            continue
        totals, setup = rung.record.totals, rung.record.setup_totals
        rows.append(
            [
                Cell(rung.label, position),
                *(block_cell([row for row in rung.record.blocks if row.section == name]) for name in sections),
                _pair(totals.d2h_copies, totals.h2d_copies),
                _pair(setup.d2h_copies, setup.h2d_copies),
            ]
        )
    return Table("Copies per block at each rung", columns, rows)


def _pair(down: int, up: int, note: str = "") -> Cell:
    kind = "same" if not down and not up else ""
    return Cell(f"{down:,} down / {up:,} up", down + up, note, kind=kind)


def block_cell(rows: Sequence[BlockRow]) -> Cell:
    """Copies of the blocks of one section: of each block if all are equal, else their range."""
    if not rows:
        return MISSING
    pairs = {(row.d2h_copies, row.h2d_copies) for row in rows}
    if len(pairs) == 1:
        down, up = pairs.pop()
        return _pair(down, up, f"each of {len(rows)}, all equal" if len(rows) > 1 else "")
    downs = [row.d2h_copies for row in rows]
    ups = [row.h2d_copies for row in rows]
    text = f"{_span(downs)} down / {_span(ups)} up"
    return Cell(text, sum(downs) + sum(ups), f"range over {len(rows)}, not all equal", kind="bad")


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,}{units.TO}{high:,}"


def _notes(ladder: Ladder, later: Sequence[Rung]) -> list[str]:
    notes = []
    if not ladder.baseline:
        notes.append("There is no record of the baseline, so there is no ledger of its copies.")
    elif not ladder.baseline.ledger:
        notes.append("The baseline's record has an empty ledger.")
    known = {_key(row) for row in ladder.baseline.ledger} if ladder.baseline else set()
    for rung in later:
        rows = [row for row in rung.record.ledger if _key(row) not in known] if rung.record else []
        if rows:
            names = units.listing([f"{shown(row.label, 48)} ({row.count:,} {_WAYS[row.direction]})" for row in rows], 5)
            notes.append(f"{rung.label} makes copies that the baseline does not make: {names}.")
    for rung in ladder.measured:
        if rung.record and not adds_up(rung.record):
            notes.append(f"{rung.label}: the ledger does not add up to the record's totals. One of them is wrong.")
    if all(adds_up(record) for record in ladder.records):
        notes.append("At every rung the ledger adds up to the record's totals, in copies and in bytes.")
    return notes
