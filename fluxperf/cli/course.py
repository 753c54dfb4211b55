"""``fluxperf history --course``: the time to denoise from the first commit on a GPU to the newest, per GPU model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from fluxperf.engine.phases import PHASES
from fluxperf.errors import RecordError
from fluxperf.files import write_whole
from fluxperf.harness.committed import committed_records
from fluxperf.harness.facts.course import Mark, course, quickest
from fluxperf.harness.places import Place
from fluxperf.harness.records import read_many
from fluxperf.harness.revisions import moments
from fluxperf.harness.text import units
from fluxperf.published import BASELINE
from fluxperf.workloads import HEADLINE


def course_of(places: Sequence[Place], committed: bool, repo: Path) -> list[Mark]:
    """Times of the headline workload in records.

    Args:
        places: files, folders, patterns and URLs of records.
        committed: also read every record that a commit stored in a folder among them.
        repo: checkout that knows the dates of commits.

    Raises:
        RecordError: no record of that workload was measured on a GPU.
    """
    records = [record for file in read_many(places) for record in file.records]
    for place in places if committed else ():
        records += [record for record, *_ in committed_records(place, [])]
    marks = course(records, HEADLINE, moments(repo))
    if not marks:
        raise RecordError(
            f"history {places[0]}: expected GPU records of {HEADLINE}, found none. Measure some on a GPU."
        )
    return marks


def course_table(marks: Sequence[Mark]) -> Table:
    """Table of each record time: shorter than all earlier times on its GPU model with the same pauses."""
    view = Table(
        title=f"{HEADLINE}: times that were shorter than all earlier ones, by GPU and pause",
        caption="Medians. Rest: idle seconds before each generation. Compare only rows\nof one GPU and one rest.",
        title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1),
    )  # fmt: skip
    for heading in ("card", "rest", "day", "commit", "rung", "4 steps", "n", "before over it"):
        view.add_column(heading, justify="right" if heading in ("rest", "4 steps", "n", "before over it") else "left",
                        no_wrap=True)  # fmt: skip
    before: Mark | None = None
    for mark in quickest(marks):
        same = before is not None and (before.card, before.rest_s) == (mark.card, mark.rest_s)
        view.add_row(
            mark.card.removeprefix("NVIDIA ").partition(" ")[0],
            f"{mark.rest_s:g} s" if mark.rest_s else "none",
            mark.day,
            mark.commit[:8] or "not named",
            mark.rung,
            units.time(mark.seconds).replace(units.NBSP, " "),
            str(mark.samples),
            f"{before.seconds / mark.seconds:.2f}" if same and before else "",
        )
        before = mark
    return view


def draw_course(marks: Sequence[Mark], path: Path) -> None:
    """Writes the picture."""
    # matplotlib takes a second to import. The other commands need not pay for it.
    from fluxperf.harness.report.plots.course import course_chart

    write_whole(path, course_chart(marks, [phase.name for phase in PHASES], HEADLINE, BASELINE))
