"""Ops: time of each in an observed run, and its implementation at every rung."""

from __future__ import annotations

from fluxperf.harness.facts.ceilings import Ceiling
from fluxperf.harness.facts.provenance import provenance
from fluxperf.harness.facts.rates import OpRate, beyond_step, rates_of, reached
from fluxperf.harness.facts.study import TWIN_NOTE, Ladder, Rung, Study, median_of
from fluxperf.harness.facts.work import op_joules, outer
from fluxperf.harness.pages.panels import Block, Fold, Panel, Text, banner, present, source
from fluxperf.harness.pages.tables import MISSING, Cell, Column, Table
from fluxperf.harness.records import Record
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown

_COLUMNS = (
    Column("Op", number=False),
    Column("Within", number=False, hint="the model op that called it"),
    Column("Section", number=False),
    Column("Calls"),
    Column("Time", hint="all calls of one forward, in an observed run"),
    Column("Share", hint="share of the time of all ops"),
    Column("Bytes", hint="bytes that it must move"),
    Column("Work", hint="floating point operations that it must do"),
)


_ENERGY = Column("Energy", hint="joules of a step, distributed by time: the energy of an op at the step's mean power")

_INTRO = (
    "Times are from an observed run: they show where the time goes inside a rung, but totals must not be compared. "
    "The time of an op within another is part of that op's time."
)

#: Number of ops of the quickest rung in the first table.
_TOP = 12

#: Changes of an op's time up to this share are not marked, as times of observed runs are single samples.
_NEGLIGIBLE = 0.02


def op_panels(study: Study) -> list[Block]:
    """The op tables of every ladder with op rows."""
    ladders = [ladder for ladder in study.ladders if any(record.ops for record in ladder.records)]
    panels: list[Block] = [_view(study, ladder) for ladder in ladders]
    return [Text(_INTRO), *(panels or [Text("No record has op rows.")])]


def _view(study: Study, ladder: Ladder) -> Panel:
    """The ops with the most time at the quickest rung, then all ops rung by rung."""
    chosen = [rung for rung in ladder.timed if rung.record and rung.record.ops]
    best = min(chosen, key=lambda rung: median_of(rung.record), default=None)
    before = [rung for rung in chosen if best and rung.info and chosen.index(rung) < chosen.index(best)]
    content: list[Block] = [banner(TWIN_NOTE, "twin")] if ladder.twin else []
    table = _top(study, ladder, best, before[-1] if before else None) if best else None
    if table and best and best.record:
        content += [source(f"{provenance([best.record])} Observed run: one sample of each op, no spread."), table]
    content += [_rung(rung, rung.record, twin=ladder.twin) for rung in ladder.measured if rung.record]
    return Panel(ladder.title, content, ladder.view)


def _top(study: Study, ladder: Ladder, best: Rung, before: Rung | None) -> Table | None:
    """The ops with the most time at a rung, each with its change since the rung before and its ceiling."""
    record = best.record
    if record is None:
        return None
    rates, old = rates_of(record), {rate.op: rate for rate in rates_of(before.record if before else None)}
    whole = sum(rate.time_s for rate in rates)
    ceilings = {} if ladder.twin else study.ceilings_of(ladder.machine)
    since = f"since {before.label}" if before else "since the rung before"
    columns = (
        Column("Op", number=False),
        Column("Calls"),
        Column("Time", hint="all calls of one forward, in an observed run"),
        Column("Share", hint="share of the time of all ops"),
        Column(f"Change {since}", hint="of the time of the same op; a new op has no change"),
        Column("Share of ceiling", hint="minimum time for its bytes and operations, divided by the measured time"),
        Column(
            "Bound by", number=False, hint="memory, or products of a dtype: the resource that sets the minimum time"
        ),
    )
    rows = [
        [
            Cell(shown(rate.op, 64)),
            Cell(units.count(rate.calls), rate.calls),
            Cell(units.time(rate.time_s), rate.time_s, tag="twin" if ladder.twin else ""),
            Cell(units.percent(rate.time_s / whole), rate.time_s) if whole > 0 else MISSING,
            _changed(rate, old.get(rate.op)),
            *_ceiling(record, rate, ceilings),
        ]
        for rate in rates[:_TOP]
    ]
    left = f"; {len(rates) - _TOP} more below" if len(rates) > _TOP else ""
    caption = f"Ops of {best.label}, the quickest rung, longest first{left}"
    over = None if ladder.twin else beyond_step(record)
    if over is None:
        return Table(caption, columns, rows)
    # Shares of a ceiling would be wrong, so both of its columns are left out.
    return Table(f"{caption}. No share of a ceiling: {over.reason}", columns[:-2], [row[:-2] for row in rows])


def _changed(rate: OpRate, old: OpRate | None) -> Cell:
    if old is None or old.time_s <= 0:
        return Cell("new here" if old is None else "—", kind="missing")
    change = rate.time_s / old.time_s - 1
    kind = "good" if change < -_NEGLIGIBLE else "bad" if change > _NEGLIGIBLE else "same"
    return Cell(units.change(change), change, f"from {units.time(old.time_s)}", kind=kind)


def _ceiling(record: Record, rate: OpRate, ceilings: dict[str, Ceiling]) -> tuple[Cell, Cell]:
    found = reached(record, rate, ceilings)
    if found is None:
        return MISSING, MISSING
    ceiling = ceilings[found.by]
    note = "" if ceiling.kind == "measured" else "published peak"
    if found.share > 1:
        # An op that moves all its bytes cannot exceed the ceiling.
        text = f"over 100{units.NBSP}%"
        return Cell(text, found.share, "views or caches: not all bytes moved", kind="missing"), Cell(
            found.by, None, note
        )
    return Cell(units.percent(found.share), found.share, f"least {units.time(found.least_s)}"), Cell(
        found.by, None, note
    )


def _table(record: Record, name: str, *, twin: bool) -> Table:
    whole = sum(row.time_s for row in outer(record.ops))
    longest = sorted(record.ops, key=lambda row: -row.time_s)
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
        for row in longest
    ]
    joules = {id(row): value for row, value in op_joules(record)}
    if not joules:
        return Table(f"{name}: ops of one forward", _COLUMNS, rows)
    for cells, row in zip(rows, longest, strict=True):
        cells.append(Cell(units.quantity(joules[id(row)], "J"), joules[id(row)]))
    caption = f"{name}: ops of one forward; joules are shares of the joules of a step, not measured per op"
    return Table(caption, [*_COLUMNS, _ENERGY], rows)


def _rung(rung: Rung, record: Record, *, twin: bool) -> Fold:
    table = _table(record, rung.label, twin=twin) if record.ops else None
    where = source(f"{provenance([record])} Observed run: totals must not be compared.")
    note = f"{len(table.rows)} rows" if table else ""
    return Fold(f"{rung.label}, every op by block", [where, table or Text("No op was recorded.")], note=note)


def phase_panels(study: Study) -> list[Block]:
    """The phase table of every ladder, with the changes since the measured rung before."""
    folds = [_phases(ladder) for ladder in study.climbing if any(record.phase_table for record in ladder.records)]
    return [Panel("Implementation of each op", folds)] if folds else []


def _phases(ladder: Ladder) -> Fold:
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
    caption = "Implementation of each op; marked if it differs from the rung before it that has a record"
    content = present(source(provenance(ladder.records)), Table(caption, columns, rows))
    return Fold(ladder.title, content, view=ladder.view)


def _implementation(name: str | None, before: str | None, *, first: bool) -> Cell:
    if name is None:
        return MISSING if before is None else Cell("none", tag="changed", kind="changed")
    text = shown(name, 40)
    if first:
        return Cell(text)
    return Cell(text, kind="same") if name == before else Cell(text, tag="changed", kind="changed")
