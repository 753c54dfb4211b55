"""Panels around the headline: sizes beside the sustained bound, whole pictures, and errors beside a peer's."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from fluxperf.harness.facts.documents import Beside, Quality, QualityRow
from fluxperf.harness.facts.pictures import pictures_shown
from fluxperf.harness.facts.provenance import provenance, unique, where
from fluxperf.harness.facts.samples import CERTAINTY, certainty_of, samples_of, summary_of
from fluxperf.harness.facts.study import Ladder, Study
from fluxperf.harness.facts.sustained import sustained_of
from fluxperf.harness.pages.panels import Block, Panel, Text, present, source
from fluxperf.harness.pages.tables import MISSING, Cell, Column, Table
from fluxperf.harness.records import Record, variant
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown

#: Stages of a picture in their order, as records name them.
_STAGES = ("text_encode", "noise", "denoise", "vae_decode", "png")


def around_panels(study: Study) -> list[Block]:
    """Panels for the parts that have data."""
    return [panel for panel in (_sizes(study), _pictures(study), *_errors(study)) if panel is not None]


def sized_ladders(study: Study) -> list[Ladder]:
    """The ladders for the table of sizes: measured on this machine and with a bound, if there are several."""
    found = [
        one
        for one in study.climbing
        if not one.twin and not one.sample and any(sustained_of(study.context, rung.record) for rung in one.timed)
    ]
    return found if len(found) > 1 else []


def _sizes(study: Study) -> Panel | None:
    """Every workload on a GPU: a step of each of its newest rungs over the sustained bound."""
    ladders = sized_ladders(study)
    names = unique(rung.name for one in ladders for rung in one.timed if sustained_of(study.context, rung.record))[-2:]
    if not ladders:
        return None
    several = len({one.machine for one in ladders}) > 1
    columns = [Column("Workload", number=False)]
    for number, name in enumerate(names):
        hints = (f"time of all steps divided by their number; with the {CERTAINTY}", "bound divided by the time")
        step, share = hints if not number else ("", "")
        columns += [Column(f"{shown(name, 48)}, a step", hint=step), Column("Share of sustained bound", hint=share)]
    labels = [Cell(one.label, None, one.machine if several else "") for one in ladders]
    rows = [[label, *_size(study, one, names)] for label, one in zip(labels, ladders, strict=True)]
    told = [record for one in ladders for name in names if (record := one.at(name))]
    about = (
        "The sustained bound is the time of a step's matrix products and attention alone, at "
        f"{study.context.sustained_source}. It is not an upper limit: a cool GPU, another model of GPU, or "
        "attention over more tokens may be faster."
    )
    content = present(Text(about), source(provenance(told)), Table("A step at each size, and its bound", columns, rows))
    return Panel("Sizes beside the sustained bound", content, anchor="sizes")


def _size(study: Study, ladder: Ladder, names: list[str]) -> list[Cell]:
    cells = []
    for name in names:
        record = ladder.at(name)
        found, near = summary_of(record), sustained_of(study.context, record)
        step_s = found.median / ladder.workload.steps if found else 0.0
        cells += [
            Cell(units.time(step_s), step_s, f"all: {certainty_of(record)}") if found else MISSING,
            Cell(units.percent(near.share), near.share, f"bound {units.time(near.step_s)}") if near else MISSING,
        ]
    return cells


def _pictures(study: Study) -> Panel | None:
    """From a prompt to a file: stages of each rung, then the peers in turns with the last rung."""
    records = pictures_shown(study)
    if not records:
        return None
    columns = (
        Column("Who", number=False),
        Column("Picture", hint=f"from the prompt to the file: median; with its {CERTAINTY}"),
        *(
            Column(shown(stage), hint="median of the same pictures; of a peer, of a few of its own")
            for stage in _STAGES
        ),
        Column("Ours in turns", hint="median and range of our pictures, taken in turns with this peer's"),
        Column("Samples", hint=f"processes {units.BY} samples of each"),
    )
    rows = [_picture(record) for record in records]
    machines = {record.machine.gpu for record in records}
    for _, document in study.extras.documents.pictures:
        if document.machine.get("gpu") in machines:
            pairs = ((rung.rung, one) for rung in document.rungs for one in rung.peers)
            rows += [_peer(rung, one) for rung, one in pairs if one.picture_s and one.fluxperf_picture_s]
    about = "One process loads a whole model and makes all of its pictures, so there is a range and no interval."
    table = Table("Seconds by stage, text encoders, VAE and file included", columns, rows)
    return Panel(
        "From a prompt to a file",
        present(Text(about), source(provenance(records, "picture")), table),
        anchor="pictures",
    )


def _picture(record: Record) -> list[Cell]:
    whole = summary_of(record, "picture")
    assert whole, "chosen by its time"
    stages = [summary_of(record, stage) for stage in _STAGES]
    return [
        Cell(shown(variant(record), 48), None, where(record)),
        Cell(units.time(whole.median), whole.median, certainty_of(record, "picture")),
        *(Cell(units.time(one.median), one.median) if one else MISSING for one in stages),
        MISSING,
        Cell(samples_of(record, "picture"), whole.samples),
    ]


def _peer(rung: str, one: Beside) -> list[Cell]:
    theirs, ours = one.picture_s, one.fluxperf_picture_s
    longer = units.times(median(theirs) / median(ours))
    told = f"{shown(rung, 24)}: {units.time_range(min(ours), max(ours))}; peer {longer} as long"
    stages = [one.stages_s.get(stage) for stage in _STAGES]
    return [
        Cell(shown(one.name, 48), None, shown(one.form, 120)),
        Cell(units.time(median(theirs)), median(theirs), units.time_range(min(theirs), max(theirs))),
        *(Cell(units.time(median(times)), median(times)) if times else MISSING for times in stages),
        Cell(units.time(median(ours)), median(ours), told),
        Cell(f"1{units.NBSP}{units.BY}{units.NBSP}{len(theirs)}", len(theirs)),
    ]


def _errors(study: Study) -> list[Panel]:
    """Errors of rungs and peers on the same weights, from each document of a machine of the records."""
    machines = {record.machine.gpu for record in study.records}
    return [_quality(name, one) for name, one in study.extras.documents.quality if one.machine.get("gpu") in machines]


def _quality(name: str, document: Quality) -> Panel:
    columns = (
        Column("Who", number=False),
        Column("Precision", number=False),
        Column("Worst step", hint="largest relative L2 error of one forward from the reference's latents"),
        Column("Final latents", hint="relative L2 error after all steps of a generation"),
    )
    rows = [
        [Cell(shown(row.name, 48), None, shown(row.group, 24)), Cell(shown(row.precision, 24)), *_figures(row)]
        for row in document.rows
        if row.group != "layers"
    ]
    machine = shown(str(document.machine.get("gpu") or document.machine.get("cpu") or "an unknown machine"), 64)
    told = (
        f"Machine: {machine}. Commit: {shown(str(document.commit or 'not named')[:10])}. Document: {shown(name, 64)}."
    )
    caption = f"Errors against {shown(document.reference, 48)}, same weights and inputs; {_of(document.workload)}"
    return Panel("Errors beside those of peers", present(source(told), Table(caption, columns, rows)), anchor="errors")


def _of(workload: Mapping[str, str | int]) -> str:
    return shown(str(workload.get("name", "a workload")), 48)


def _figures(row: QualityRow) -> list[Cell]:
    """The largest error of a step, and that of the final latents, over all seeds."""
    figures = row.figures or {}
    steps, latents = (
        [seed for seed in figures.get(name, []) if isinstance(seed, list) and seed] for name in ("forward", "latents")
    )
    if not steps or not latents:
        return [Cell("not run", None, shown(row.reason or "", 200), kind="missing"), MISSING]
    worst, final = max(map(max, steps)), max(seed[-1] for seed in latents)
    return [Cell(units.error(worst), worst), Cell(units.error(final), final)]
