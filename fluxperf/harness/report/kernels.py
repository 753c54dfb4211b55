"""Single kernels: times of back-to-back calls, and the share of the machine's copy bandwidth that they reach."""

from __future__ import annotations

from fluxperf.harness.facts.ceilings import MEMORY
from fluxperf.harness.facts.provenance import provenance, unique, where
from fluxperf.harness.facts.samples import samples_of, spread_of, summary_of
from fluxperf.harness.facts.study import Study, newest
from fluxperf.harness.pages.panels import Block, Panel, present, source
from fluxperf.harness.pages.tables import MISSING, Cell, Column, Table
from fluxperf.harness.records import Record
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown

_COLUMNS = (
    Column("Kernel", number=False),
    Column("Time per call", hint="median of batches of back-to-back calls, with smallest and largest batch"),
    Column("Batches", hint=f"processes {units.BY} batches of each"),
    Column("Rate", hint="bytes that the op must move, divided by the time per call"),
    Column("Share of memory ceiling", hint="share of the ceiling of memory"),
)


def kernel_panels(study: Study) -> list[Block]:
    """A table of kernels for each machine with records of them."""
    machines = unique(map(where, study.kernels))
    return [_view(study, name, [row for row in study.kernels if where(row) == name]) for name in machines]


def _view(study: Study, machine: str, records: list[Record]) -> Panel:
    latest = [newest([row for row in records if row.rung == name]) for name in unique(row.rung for row in records)]
    chosen = [record for record in latest if record]
    ceiling = study.ceilings_of(machine).get(MEMORY)
    rows = [_row(record, ceiling.rate if ceiling else None) for record in chosen]
    caption = "Single kernels" + (f"; memory: {ceiling.source}" if ceiling else "; the memory rate is not known")
    content = present(source(provenance(chosen, "call")), Table(caption, _COLUMNS, rows))
    return Panel(f"Single kernels on {machine}", content)


def _row(record: Record, memory: float | None) -> list[Cell]:
    found = summary_of(record, "call")
    size = record.settings.get("bytes", "")
    if not found:
        return [Cell(shown(record.rung, 64)), Cell("no time", kind="missing"), MISSING, MISSING, MISSING]
    rate = int(size) / found.median if size.isdecimal() and len(size) < 20 else None
    return [
        Cell(shown(record.rung, 64)),
        Cell(units.time(found.median), found.median, spread_of(found)),
        Cell(samples_of(record, "call"), found.samples),
        Cell(units.quantity(rate, "B/s"), rate) if rate is not None else MISSING,
        Cell(units.percent(rate / memory), rate / memory) if rate is not None and memory else MISSING,
    ]
