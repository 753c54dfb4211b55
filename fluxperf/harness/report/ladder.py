"""The ladder: expected and measured speedup of each rung, with plots of time and copies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from fluxperf.harness.facts.adds_up import agrees
from fluxperf.harness.facts.climbs import climbs
from fluxperf.harness.facts.inputs import PhaseInfo
from fluxperf.harness.facts.provenance import provenance
from fluxperf.harness.facts.samples import Speedup, samples_of, speedup, spread_of, summary_of
from fluxperf.harness.facts.study import SAMPLE_NOTE, TWIN_NOTE, Ladder, Rung, Study
from fluxperf.harness.facts.work import work_of
from fluxperf.harness.metrics import Metric, exact_metrics, value_of
from fluxperf.harness.pages.panels import Block, Fold, Group, Notes, Panel, Terms, Text, banner, present, source
from fluxperf.harness.pages.tables import MISSING, Cell, Column, Table
from fluxperf.harness.records import IN_TURNS_WITH, Record
from fluxperf.harness.report.ops import phase_panels
from fluxperf.harness.report.plots.copies import copies
from fluxperf.harness.report.plots.speedups import speedups
from fluxperf.harness.report.plots.waterfall import waterfall
from fluxperf.harness.stats import Summary
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown
from fluxperf.harness.text.terms import RELATIVE

_MEASURED = (
    "speedup over the rung before, median over median; with a 95 % bootstrap interval over processes if both have "
    "at least three, else with the range of all samples"
)

#: Columns before those of the metric table and of the error.
_FIRST = (
    Column("Rung", number=False, hint="in the ladder's order"),
    Column("Expected", hint="speedup over the rung before, expected in advance"),
    Column(
        "Measured",
        hint=_MEASURED,
    ),
    Column("Over baseline", hint="speedup over the ladder's first rung"),
    Column("Denoise", hint="all steps: median, with smallest and largest sample"),
    Column("Step", hint="one step: median, with smallest and largest sample"),
    Column("Samples", hint=f"processes {units.BY} samples of each; of several records the newest"),
)

#: Further columns, shown if a record of the ladder has values for them.
_WORK = (
    Column("Cycles", hint="one step on the GPU's own clock: the work at any clock frequency"),
    Column("Clock", hint="mean of the multiprocessors over one step"),
    Column(
        "Energy",
        hint="joules of the whole GPU in the window of samples, by its energy counter, divided by the number of steps",
    ),
    Column("Energy per work", hint="joules divided by the required operations of a step"),
)

_ERROR = Column("Error", hint=f"relative L2 error of the final latents, {RELATIVE}")

# The columns after the first and before this one compare rungs. Peers do not have them.
_CLIMB = 4

# Number of ops that are named as the reason of a phase's speedup.
_MOVERS = 3


def ladder_panels(study: Study) -> list[Block]:
    """The ladders, then the peers, each with table and plots; then their implementations."""
    panels: list[Block] = [_view(study, ladder, number) for number, ladder in enumerate(study.ladders, start=1)]
    return [*(panels or [Text("No record.")]), *phase_panels(study)]


def _view(study: Study, ladder: Ladder, number: int) -> Panel:
    climbing, anchor = ladder.ran_as != "peer", f"ladder-{number}"
    drawn = (waterfall(ladder, anchor), speedups(study, ladder, anchor), copies(ladder, anchor)) if climbing else ()
    figures = present(*drawn)
    changes = [(rung.label, rung.info.change) for rung in ladder.rungs if rung.info] if climbing else []
    content = present(
        Text(_about(ladder)),
        source(provenance(ladder.records)),
        banner(SAMPLE_NOTE, "sample") if ladder.sample else None,
        banner(TWIN_NOTE, "twin") if ladder.twin else None,
        _table(ladder),
        Fold(
            "What each rung changes, in the code that made this page",
            [Terms(changes)],
            "help changes",
            open=number == 1,
        )
        if changes
        else None,
        Notes(_notes(ladder)),
        _phases(study, ladder) if climbing and study.context.phases else None,
        Group("plots", figures) if figures else None,
    )
    return Panel(ladder.title, content, ladder.view, anchor)


def _about(ladder: Ladder) -> str:
    row = ladder.workload
    return (
        f"{shown(row.model, 48)}, {row.height} {units.BY} {row.width} pixels, "
        f"{units.plural(row.text_tokens, 'text token')}, {units.plural(row.steps, 'step')}, "
        f"batch {row.batch}; weights: {shown(row.weights)}."
    )


def _table(ladder: Ladder) -> Table:
    start = ladder.baseline
    rows = []
    for position, rung in enumerate(ladder.rungs):
        before = ladder.rungs[position - 1] if position else None
        if rung.record is None:
            rows.append(_missing(rung, position))
        else:
            rows.append(_row(ladder, rung, rung.record, position, before, start))
    caption = "One row per rung; copies, bytes, calls and launches are those of one forward"
    against = {record.error.against for record in ladder.records if record.error}
    if len(against) == 1:
        # Written once above the table instead of in every row.
        caption += f"; errors are against {shown(against.pop(), 64)}"
        rows = [[*row[:-1], row[-1]._replace(note="")] for row in rows]
    columns = [*_FIRST, *(Column(metric.heading, hint=metric.hint) for metric in _counts()), _ERROR]
    if any(work_of(record) for record in ladder.records):
        place = len(_FIRST)
        columns[place:place] = _WORK
        rows = [[*row[:place], *_work(rung.record), *row[place:]] for row, rung in zip(rows, ladder.rungs, strict=True)]
    if ladder.ran_as == "peer":
        return Table(caption, [columns[0], *columns[_CLIMB:]], [[row[0], *row[_CLIMB:]] for row in rows])
    return Table(caption, columns, rows)


def _counts() -> list[Metric]:
    """The exact metrics with a column."""
    return [metric for metric in exact_metrics() if metric.heading]


def _missing(rung: Rung, position: int) -> list[Cell]:
    cells = [_name(rung, position), _expected(rung), Cell("no record", kind="missing")]
    return cells + [MISSING] * (len(_FIRST) + len(_counts()) + 1 - len(cells))


def _row(
    ladder: Ladder, rung: Rung, record: Record, position: int, before: Rung | None, start: Record | None
) -> list[Cell]:
    tag = "twin" if ladder.twin else ""
    denoise = summary_of(record)
    return [
        _name(rung, position, peer=ladder.ran_as == "peer"),
        _expected(rung),
        _over(before, rung, tag),
        _ratio(speedup(start, record), tag) if rung.name != ladder.start else Cell(units.times(1.0), 1.0, "start"),
        _time(denoise, tag),
        _time(summary_of(record, "step"), tag),
        Cell(samples_of(record), float(denoise.samples) if denoise else None, _of_many(rung)),
        *(_count(record, metric) for metric in _counts()),
        _error(ladder, record),
    ]


def _name(rung: Rung, position: int, *, peer: bool = False) -> Cell:
    return Cell(rung.label, position, rung.info.phase if rung.info else "" if peer else "not in the ladder")


def _expected(rung: Rung) -> Cell:
    if not rung.info or not rung.info.expected:
        return MISSING
    low, high = rung.info.expected
    return Cell(units.bounds(low, high), low)


def _over(before: Rung | None, rung: Rung, tag: str) -> Cell:
    """The speedup over the rung before. There is none across a missing rung, as it would combine several changes."""
    if before is None or rung.info is None or before.info is None:
        return MISSING
    if before.record is None:
        return Cell("—", None, f"no {before.label}", kind="missing")
    return _ratio(speedup(before.record, rung.record), tag)


def _ratio(found: Speedup | None, tag: str) -> Cell:
    if not found:
        return MISSING
    return Cell(units.times(found.ratio), found.ratio, found.spread, tag)


def _time(found: Summary | None, tag: str) -> Cell:
    if not found:
        return Cell("no time", kind="missing")
    return Cell(units.time(found.median), found.median, spread_of(found), tag)


def _count(record: Record, metric: Metric) -> Cell:
    value = value_of(record, metric)
    return MISSING if value is None else Cell(units.written(value, metric.unit), value)


def _work(record: Record | None) -> list[Cell]:
    """Cycles, clock and joules of a step."""
    work = work_of(record) if record else None
    if work is None:
        return [MISSING] * len(_WORK)
    told = ((work.cycles, "cycles"), (work.clock_hz, "Hz"), (work.joules, "J"), (work.joules_per_tflop, "J/TFLOP"))
    return [MISSING if value is None else Cell(units.quantity(value, unit), value) for value, unit in told]


def _of_many(rung: Rung) -> str:
    return f"newest of {len(_alone(rung))}" if len(_alone(rung)) > 1 else ""


def _alone(rung: Rung) -> list[Record]:
    """The records of a rung that ran alone, which come first; all records if there are none, or for a peer."""
    return [one for one in rung.records if IN_TURNS_WITH not in one.settings] or list(rung.records)


def _error(ladder: Ladder, record: Record) -> Cell:
    if record.error is None and any(one.error and one.error.rung == record.rung for one in ladder.records):
        return Cell("reference", kind="missing")
    if record.error is None:
        return Cell("no figure", kind="missing")
    reference, *_ = record.error.against.split(",")  # the rest, such as "final latents", is the same for all
    return Cell(units.error(record.error.relative), record.error.relative, f"against {shown(reference, 48)}")


def _phases(study: Study, ladder: Ladder) -> Table:
    columns = (
        Column("Mission phase", number=False),
        Column("From", number=False),
        Column("To", number=False),
        Column("Expected"),
        Column("Measured", hint="median over median, with interval or range"),
        Column("Verdict", number=False),
        Column(
            "Why: ops with the largest change", number=False, hint="seconds of one observed forward, before and after"
        ),
    )
    rows = [_phase(phase, ladder, position) for position, phase in enumerate(study.context.phases)]
    names = [info.name for info in study.context.ladder]
    for climb in climbs(study, ladder)[len(rows) :]:
        ends = names[names.index(climb.name) - 1 :][:2]
        rows.append(_beyond(f"Beyond: {climb.name}", len(rows), ends, climb.found, ladder))
    published, best = study.context.published, ladder.best
    if ladder.workload.name == study.context.headline_workload and best and best.name != ladder.start:
        whole, least = speedup(ladder.baseline, best.record), published.baseline_s / published.target_s
        row = _beyond("All of them", len(rows), [ladder.start, best.name], whole, ladder)
        start, end = units.given(published.baseline_s), units.given(published.target_s)
        row[3] = Cell(f"over {units.times(least)}", least, f"{start} to below {end}")
        row[5] = _verdict(whole, least, least, twin=ladder.twin)
        rows.append(row)
    return Table("The mission's phases, expected and measured", columns, rows)


def _beyond(name: str, position: int, ends: Sequence[str], found: Speedup | None, ladder: Ladder) -> list[Cell]:
    """A row of a rung without an expected speedup of the mission."""
    before, after = (ladder.at(end) for end in ends)
    return [
        Cell(shown(name, 48), position),
        *(Cell(shown(end, 48)) for end in ends),
        MISSING,
        _ratio(found, "twin" if ladder.twin else ""),
        Cell("nothing expected", kind="missing") if found else Cell("not measured", kind="missing"),
        _movers(before, after, twin=ladder.twin),
    ]


def _phase(phase: PhaseInfo, ladder: Ladder, position: int) -> list[Cell]:
    low, high = phase.expected
    found = speedup(ladder.at(phase.before), ladder.at(phase.after))
    return [
        Cell(phase.name, position),
        Cell(phase.before),
        Cell(phase.after),
        Cell(units.bounds(low, high), low),
        _ratio(found, "twin" if ladder.twin else ""),
        _verdict(found, low, high, twin=ladder.twin),
        _movers(ladder.at(phase.before), ladder.at(phase.after), twin=ladder.twin),
    ]


def _movers(before: Record | None, after: Record | None, *, twin: bool) -> Cell:
    """The ops whose time changed most between two rungs. A primitive counts with the model op that called it."""
    if before is None or after is None or twin:
        return MISSING
    old, new = _seconds_by_op(before), _seconds_by_op(after)
    changed = sorted(old.keys() | new.keys(), key=lambda op: -abs(old[op] - new[op]))[:_MOVERS]
    found = [f"{shown(op, 32)} {units.time(old[op])} to {units.time(new[op])}" for op in changed if old[op] != new[op]]
    return Cell("; ".join(found)) if found else MISSING


def _seconds_by_op(record: Record) -> defaultdict[str, float]:
    seconds: defaultdict[str, float] = defaultdict(float)
    for row in record.ops:
        seconds[row.within or row.op] += row.time_s
    return seconds


def _verdict(found: Speedup | None, low: float, high: float, *, twin: bool) -> Cell:
    """How the measured speedup compares with the expected one. Twins get none, as the expectation is for a GPU."""
    if not found:
        return Cell("not measured", kind="missing")
    if twin:
        return Cell("not measured on a GPU", kind="missing")
    if found.ratio < low:
        return Cell("below the expectation", kind="bad")
    if found.ratio > high:
        return Cell("above the expectation", kind="good")
    return Cell("as expected", kind="good")


def _notes(ladder: Ladder) -> list[str]:
    notes = []
    missing = [rung.label for rung in ladder.rungs if not rung.record]
    if missing:
        notes.append(f"No record of {units.listing(missing)}: no speedup is given across a missing rung.")
    turns = [
        rung.label
        for rung in ladder.measured
        if rung.record and IN_TURNS_WITH not in rung.record.settings and len(_alone(rung)) < rung.held
    ]
    if turns and ladder.ran_as != "peer":
        notes.append(
            f"Records of {units.listing(turns)} in turns with a peer are beside that peer in the headline. The "
            "records here ran alone."
        )
    many = [f"{rung.label} ({len(_alone(rung))})" for rung in ladder.measured if len(_alone(rung)) > 1]
    if many:
        notes.append(f"Several records of {units.listing(many)}: the newest is shown, the others are in the raw data.")
    for rung in ladder.measured:
        if rung.record and rung.record.witness and not agrees(rung.record):
            notes.append(f"{rung.label}: the witness and the ledger counted different copies. One of them is wrong.")
    confirmed = [rung.label for rung in ladder.measured if rung.record and rung.record.witness and agrees(rung.record)]
    if confirmed:
        notes.append(f"The witness counted the same copies and bytes: {units.listing(confirmed)}.")
    return notes
