"""Ops: what each cost in an observed run, and which implementation each had at every rung."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fluxperf.harness.records import OpRow, Record
from fluxperf.harness.report import units
from fluxperf.harness.report.escape import shown
from fluxperf.harness.report.study import Ladder, Study, provenance
from fluxperf.harness.report.tables import MISSING, Cell, Column, Table

_COLUMNS = (
    Column("Op", number=False),
    Column("Within", number=False, hint="the model op that called it"),
    Column("Section", number=False),
    Column("Calls"),
    Column("Time", hint="all calls of one forward, of an observed run"),
    Column("Share", hint="of the time of all ops"),
    Column("Bytes", hint="that it must move"),
    Column("Work", hint="floating point operations that it must do"),
)


class OpsRung(NamedTuple):
    """The ops of one rung."""

    name: str
    provenance: str
    table: Table | None


class OpsView(NamedTuple):
    """The ops of one ladder, rung by rung."""

    title: str
    twin: bool
    rungs: list[OpsRung]


class PhasesView(NamedTuple):
    """Which implementation each op has, rung by rung, in one ladder."""

    title: str
    provenance: str
    table: Table


def build(study: Study) -> list[OpsView]:
    """The op tables of every ladder."""
    return [_view(ladder) for ladder in study.ladders if ladder.measured]


def _view(ladder: Ladder) -> OpsView:
    rungs = []
    for rung in ladder.measured:
        if rung.record:
            table = _table(rung.record, rung.label, twin=ladder.twin) if rung.record.ops else None
            rungs.append(OpsRung(rung.label, provenance([rung.record]), table))
    return OpsView(ladder.title, ladder.twin, rungs)


def _table(record: Record, name: str, *, twin: bool) -> Table:
    whole = whole_time(record.ops)
    rows = [
        [
            Cell(shown(row.op, 64)),
            Cell(shown(row.within, 64)) if row.within else MISSING,
            Cell(shown(row.section, 32)) if row.section else MISSING,
            Cell(units.count(row.count), row.count),
            Cell(units.time(row.time_s), row.time_s, tag="twin" if twin else ""),
            Cell(units.percent(row.time_s / whole), row.time_s) if whole > 0 else MISSING,
            Cell(units.quantity(row.bytes, "B"), row.bytes),
            Cell(units.quantity(row.flops, "FLOP"), row.flops),
        ]
        for row in sorted(record.ops, key=lambda row: -row.time_s)
    ]
    return Table(f"{name}: ops of one forward", _COLUMNS, rows)


def whole_time(rows: Sequence[OpRow]) -> float:
    """Seconds of all ops; one that ran within another that has a row of its own is part of that one."""
    outer = {(row.op, row.section) for row in rows}
    return sum(row.time_s for row in rows if row.within in ("", row.op) or (row.within, row.section) not in outer)


def build_phases(study: Study) -> list[PhasesView]:
    """The phase table of every ladder, with what each rung changes from the measured rung before it."""
    return [_phases(ladder) for ladder in study.climbing if any(record.phase_table for record in ladder.records)]


def _phases(ladder: Ladder) -> PhasesView:
    measured = [(rung.label, rung.record.phase_table) for rung in ladder.measured if rung.record]
    ops = list(dict.fromkeys(op for _, table in measured for op in table))
    columns = [Column("Op", number=False), *(Column(name, number=False) for name, _ in measured)]
    rows = []
    for op in ops:
        cells = [Cell(shown(op, 48))]
        before: str | None = None
        for position, (_, table) in enumerate(measured):
            cells.append(_implementation(table.get(op), before, first=position == 0))
            before = table.get(op)
        rows.append(cells)
    caption = "Implementation of each op; marked where it differs from the last rung before that has a record"
    return PhasesView(ladder.title, provenance(ladder.records), Table(caption, columns, rows))


def _implementation(name: str | None, before: str | None, *, first: bool) -> Cell:
    if name is None:
        return MISSING if before is None else Cell("none", tag="changed", kind="changed")
    text = shown(name, 40)
    if first:
        return Cell(text)
    return Cell(text, kind="same") if name == before else Cell(text, tag="changed", kind="changed")
