"""Samples per process: spread, A/A band and the smallest detectable change of each rung."""

from __future__ import annotations

from statistics import median

from fluxperf.harness.calibration import Calibrated
from fluxperf.harness.facts.bands import narrowed
from fluxperf.harness.facts.calibrated import calibrated, committed, pooled
from fluxperf.harness.facts.commands import calibrate_command
from fluxperf.harness.facts.provenance import provenance
from fluxperf.harness.facts.samples import FEWEST_PROCESSES, samples_of, spread_of, summary_of, usable
from fluxperf.harness.facts.study import TWIN_NOTE, Ladder, Rung, Study
from fluxperf.harness.pages.panels import Block, Notes, Panel, Text, banner, present, source
from fluxperf.harness.pages.tables import MISSING, Cell, Column, Table
from fluxperf.harness.records import Record
from fluxperf.harness.report.plots.spread import spread
from fluxperf.harness.stats import Summary
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown

_COLUMNS = (
    Column("Rung", number=False),
    Column("Processes"),
    Column("Samples", hint=f"processes {units.BY} samples of each"),
    Column("Median", hint="of the processes' medians, with smallest and largest sample"),
    Column("Between processes", hint="largest deviation of a process's median from the median"),
    Column("Within processes", hint="largest deviation of a sample from the median of its process"),
    Column(
        "A/A spread", hint="standard deviation of the log ratios of pairs of the same program on this kind of machine"
    ),
    Column("Smallest detectable change", hint="minimum detectable effect: with the pairs, alpha and power beside it"),
    Column("Stopped by", number=False, hint="why a process took no more samples: count, precision or time"),
)


def stability_panels(study: Study) -> list[Block]:
    """The samples of every ladder with a time, peers included."""
    ladders = [ladder for ladder in study.ladders if any(usable(record) for record in ladder.records)]
    panels: list[Block] = [_view(study, ladder, f"samples-{number}") for number, ladder in enumerate(ladders, start=1)]
    return [*(panels or [Text("No record has a time.")])]


def _view(study: Study, given: Ladder, prefix: str) -> Panel:
    ladder = given._replace(rungs=tuple(map(pooled, given.rungs)))
    found = {rung.name: calibrated(study, rung.record) for rung in ladder.measured if rung.record}
    bands = {name: row.spread for name, row in found.items() if row}
    rows = [_row(rung, rung.record, found[rung.name]) for rung in ladder.measured if rung.record]
    content = present(
        banner(TWIN_NOTE, "twin") if ladder.twin else None,
        spread(ladder, prefix, bands) or source(provenance(ladder.records)),
        Table("Spread of the time of all steps at each rung", _COLUMNS, rows),
        Notes([*_notes(ladder, bands), *_wide(ladder, found)]),
    )
    return Panel(ladder.title, content, ladder.view)


def _row(rung: Rung, record: Record, known: Calibrated | None) -> list[Cell]:
    found, processes = summary_of(record), usable(record)
    if not found:
        return [Cell(rung.label), *[MISSING] * (len(_COLUMNS) - 2), Cell("no time", kind="missing")]
    middles = [median(samples) for samples in processes]
    between = max(abs(middle / found.median - 1) for middle in middles)
    within = max(
        abs(value / middle - 1) for samples, middle in zip(processes, middles, strict=True) for value in samples
    )
    several = any(len(samples) > 1 for samples in processes)
    return [
        Cell(rung.label),
        Cell(units.count(found.processes), found.processes),
        Cell(samples_of(record), found.samples),
        Cell(units.time(found.median), found.median, spread_of(found)),
        Cell(units.percent(between), between) if found.processes > 1 else Cell("one process", kind="missing"),
        Cell(units.percent(within), within) if several else _by_steps(found),
        Cell(units.percent(known.spread), known.spread) if known else Cell("not calibrated", kind="missing"),
        _detectable(known),
        Cell(units.listing(sorted({row.stopped for row in record.sampling})) or "not recorded"),
    ]


def _by_steps(found: Summary) -> Cell:
    """Spread within a process that took one sample: that of its steps, if it has them."""
    if not found.steps:
        return Cell("one sample", kind="missing")
    within = max(found.high / found.median - 1, 1 - found.low / found.median)
    return Cell(units.percent(within), within, f"by {found.steps} steps")


def _detectable(known: Calibrated | None) -> Cell:
    if known is None:
        return Cell("not known", kind="missing")
    if known.detectable is None:
        return Cell("none", None, f"{units.plural(known.pairs, 'pair is', 'pairs are')} too few", kind="bad")
    forked = ", of forked processes" if known.forked else ""
    note = f"{units.plural(known.pairs, 'pair')}, alpha {known.alpha:g}, power {known.power:g}{forked}"
    return Cell(units.percent(known.detectable), known.detectable, note)


def _notes(ladder: Ladder, bands: dict[str, float]) -> list[str]:
    notes = []
    many = [f"{rung.label} ({rung.held})" for rung in ladder.measured if committed(rung.record) and rung.held > 1]
    if many:
        notes.append(f"Records of one commit with the same settings are combined: {units.listing(many)}.")
    few = [
        rung.label
        for rung in ladder.measured
        if (found := summary_of(rung.record)) and found.processes < FEWEST_PROCESSES
    ]
    if few:
        notes.append(
            f"Fewer than {FEWEST_PROCESSES} processes: {units.listing(few)}. Samples of one process are not "
            "independent, so these have a range and no confidence interval."
        )
    slow = [rung.label for rung in ladder.measured if (found := summary_of(rung.record)) and found.steps]
    if slow:
        notes.append(
            f"A generation of {units.listing(slow)} takes minutes: each process takes one, whose steps are its samples."
        )
    unsettled = [
        rung.label
        for rung in ladder.measured
        if rung.record and any(row.settled is False for row in rung.record.sampling)
    ]
    if unsettled:
        notes.append(f"The warm-up had not settled when sampling began: {units.listing(unsettled)}.")
    lacking = [rung.label for rung in ladder.measured if rung.name not in bands]
    if lacking and ladder.ran_as == "kernel":
        notes.append(
            f"Not calibrated on this kind of machine: {units.listing(lacking)}. {calibrate_command(ladder)} "
            "measures its A/A spread."
        )
    return notes


def _wide(ladder: Ladder, found: dict[str, Calibrated | None]) -> list[str]:
    """Advice for each rung whose band is too wide."""
    advice = {name: narrowed(ladder, name, known) for name, known in found.items()}
    return [f"{shown(name, 48)}: {one.text} {one.command}" for name, one in advice.items() if one]
