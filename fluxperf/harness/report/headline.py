"""The headline: time of all steps and of one, against baseline, peers on the same GPU, target and floor."""

from __future__ import annotations

from fluxperf.harness.facts.beside_peers import beside_peers
from fluxperf.harness.facts.floor import floor_of
from fluxperf.harness.facts.provenance import commit_of, provenance
from fluxperf.harness.facts.samples import CERTAINTY, Speedup, certainty_of, samples_of, speedup, summary_of
from fluxperf.harness.facts.study import Ladder, Rung, Study
from fluxperf.harness.pages.panels import Block, Notes, Panel, Text, banner, present, source
from fluxperf.harness.pages.tables import MISSING, Cell, Column, Table
from fluxperf.harness.records import Record
from fluxperf.harness.report.around import around_panels, sized_ladders
from fluxperf.harness.report.plots.progress import progress
from fluxperf.harness.report.published import published_panel
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown

_NONE = "No record was measured on a GPU, so there is no headline: times of host twins say nothing about a GPU."

_PROGRESS = (
    "Only GPU times are on this axis. A dot is the median of one rung, its bar the range of the samples. A hollow "
    "dot is a single sample."
)

_COLUMNS = (
    Column("Against", number=False),
    Column("Its time", hint=f"all steps: median; with its {CERTAINTY}"),
    Column("Ours", hint="of the record that was measured under the same conditions"),
    Column("Times as long as ours", hint="median over median; above 1, ours is faster"),
    Column("Samples", hint=f"theirs, then ours; processes {units.BY} samples of each"),
    Column("From", number=False, wide=True),
)


def headline_panels(study: Study) -> list[Block]:
    """A headline for each ladder on a GPU, progress toward the target, and the published figures.

    A size without a first rung and without a peer is shown only in the table of sizes.
    """
    ladders = [one for one in study.climbing if not one.twin and one.best]
    around = around_panels(study)
    sized = {one.title for one in sized_ladders(study)} if around else set()
    held = [one for one in ladders if one.baseline or study.peers_of(one) or one.title not in sized]
    panels: list[Block] = [_view(study, one) for one in held or ladders]
    return [
        *(panels or [banner(_NONE)]),
        Panel("Progress toward the target, rung by rung", present(Text(_PROGRESS), progress(study, "progress"))),
        *around,
        published_panel(study),
    ]


def _view(study: Study, ladder: Ladder) -> Panel:
    best = ladder.best
    record = best.record if best else None
    found = summary_of(record)
    assert best
    assert record
    assert found, "a headline consists only of ladders with a time"
    step = summary_of(record, "step")
    sure = certainty_of(record, "step")
    each = f", {units.time(step.median)} a step ({sure})" if step else ""
    steps = units.plural(record.workload.steps, "step")
    about = f"Quickest rung: {best.label}, {steps} in {units.time(found.median)} ({certainty_of(record)}){each}."
    content = present(
        Text(about, "headline"),
        source(provenance([record])),
        Table("The quickest rung compared with other times", _COLUMNS, _rows(study, ladder, best, record)),
        Notes(_notes(study, ladder)),
    )
    return Panel(ladder.title, content, ladder.view)


def _rows(study: Study, ladder: Ladder, best: Rung, record: Record) -> list[list[Cell]]:
    rows = []
    base = ladder.baseline
    if base and best.name != ladder.start:
        rows.append(_measured(f"our {shown(ladder.start, 48)}", base, record, speedup(base, record)))
    rows += [_measured(peer.label, peer.record, ours, found) for peer, ours, found in beside_peers(study, ladder)]
    ours = summary_of(record)
    if ladder.workload.name == study.context.headline_workload and ours:
        published_ = study.context.published
        where = "published, on other hardware"
        rows.append(_given("target", published_.target_s, ours.median, "set in advance", record))
        rows.append(_given("published baseline", published_.baseline_s, ours.median, where, record))
        rows.append(
            _given(f"{shown(published_.peer_name, 32)}, published", published_.peer_s, ours.median, where, record)
        )
    floor = floor_of(study, ladder)
    if floor and ours:
        kind = "the floor" if floor.measured else "the floor at published peaks"
        rows.append(_given(kind, floor.time_s, ours.median, floor.source, record, computed=True))
    return rows


def _measured(name: str, other: Record | None, ours: Record, found: Speedup | None) -> list[Cell]:
    theirs, mine = summary_of(other), summary_of(ours)
    if other is None or theirs is None or mine is None or found is None:
        return [Cell(name), Cell("no time", kind="missing"), *[MISSING] * (len(_COLUMNS) - 2)]
    settings = _settings(other) if other.settings == ours.settings else "other settings than ours: see machines"
    return [
        Cell(name),
        Cell(units.time(theirs.median), theirs.median, certainty_of(other)),
        Cell(units.time(mine.median), mine.median, f"{shown(ours.rung, 48)}, {certainty_of(ours)}"),
        Cell(units.times(found.ratio), found.ratio, found.spread, kind="good" if found.ratio > 1 else "bad"),
        Cell(f"{samples_of(other)}; {samples_of(ours)}", theirs.samples),
        Cell(f"measured, {commit_of(other)}", None, settings),
    ]


def _settings(record: Record) -> str:
    told = [f"{shown(name, 24)} {shown(value, 24)}" for name, value in record.settings.items()]
    form = shown(record.policy.get("form", ""), 200) if record.policy.get("form") else ""
    return "; ".join(filter(None, [form, f"settings: {units.listing(told)}" if told else ""]))


def _given(
    name: str, seconds: float, ours: float, source: str, record: Record, *, computed: bool = False
) -> list[Cell]:
    """A row with a time that was not measured: set, published, or ``computed``."""
    ratio = seconds / ours
    text = units.time(seconds) if computed else units.given(seconds)
    return [
        Cell(name),
        Cell(text, seconds),
        Cell(units.time(ours), ours),
        Cell(units.times(ratio), ratio, kind="good" if ratio > 1 else ""),
        Cell(f"—; {samples_of(record)}"),
        Cell(shown(source, 500)),
    ]


def _notes(study: Study, ladder: Ladder) -> list[str]:
    notes = []
    told = {peer.name for peer, _, _ in beside_peers(study, ladder)}
    other = [peer.label for peer in study.peers_of(ladder) if peer.name not in told]
    if other:
        notes.append(
            f"Not compared, as no record of ours was measured under the same conditions: {units.listing(other)}."
        )
    if not study.peers_of(ladder):
        notes.append("No peer was measured on this machine.")
    if not floor_of(study, ladder):
        notes.append("No floor: op rows are missing, or a ceiling of memory or of the products' dtype.")
    return notes
