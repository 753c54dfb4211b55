"""The page: sections built from records, drawn by Jinja into one HTML file that asks the network for nothing.

A section is a row of ``SECTIONS``: an anchor, a title, a builder that makes plain data of a study, and a template
with the section's name in ``assets/``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from fluxperf.harness.capture.strip import scripts, sections, styles
from fluxperf.harness.facts import summary
from fluxperf.harness.facts.commands import commands
from fluxperf.harness.facts.inputs import NOTHING, Context, Extras
from fluxperf.harness.facts.study import SAMPLE_NOTE, TWIN_NOTE, Study, survey
from fluxperf.harness.pages.templates import asset, environment, script_hash
from fluxperf.harness.records import RecordsFile
from fluxperf.harness.report import (
    headline,
    judgement,
    kernels,
    ladder,
    ledger,
    machines,
    ops,
    past,
    raw,
    roofline,
    stability,
)
from fluxperf.harness.text.terms import TERMS


class Section(NamedTuple):
    """One section of the page; ``assets/<anchor>.html.j2`` draws what ``build`` returns.

    ``terms`` are its words. A part on the timeline has no builder: it shows the capture, which is drawn once.
    """

    anchor: str
    title: str
    build: Callable[[Study], Any] | None
    terms: tuple[str, ...] = ()


class Part(NamedTuple):
    """A section with what its template draws, and the commands that make it again."""

    section: Section
    view: Any
    commands: list[str]


def _ladders(study: Study) -> dict[str, Any]:
    return {"ladders": ladder.ladder_views(study), "phases": ops.phase_views(study)}


def _ops(study: Study) -> dict[str, Any]:
    return {"ops": ops.op_views(study), "kernels": kernels.kernel_views(study)}


SECTIONS = (
    Section("summary", "Summary", summary.summarized, ("rung", "forward", "twin", "peer", "floor")),
    Section(
        "verdict",
        "Verdict",
        judgement.verdict_view,
        ("verdict", "outcome", "UNSURE", "base, head", "exact", "minimum detectable effect"),
    ),
    Section("machines", "Machines and comparability", machines.machines_view, ("twin", "sample")),
    Section(
        "headline",
        "Headline",
        headline.headline_of,
        ("denoise", "step", "peer", "floor", "ceiling", "interval", "range"),
    ),
    Section("ladder", "The ladder", _ladders, ("rung", "phase", "interval", "range", "twin", "down, up", "sync")),
    Section(
        "samples",
        "Samples of each process",
        stability.stability_views,
        ("process", "sample", "A/A", "A/A band", "minimum detectable effect"),
    ),
    Section("timeline", "Timeline of one step", None, ("step",)),
    Section("ledger", "Transfer ledger", ledger.ledger_views, ("ledger", "down, up", "exact", "witness")),
    Section("ops", "Ops and kernels", _ops, ("op", "observed run", "ceiling")),
    Section("roofline", "Roofline", roofline.roofline_views, ("ceiling", "arithmetic intensity", "observed run")),
    Section("gaps", "Gaps and the launch-bound test", None, ("captured",)),
    Section("history", "History", past.past_view, ("history", "change", "exact")),
    Section("raw", "Raw data", raw.raw_view),
)


def render(files: Sequence[RecordsFile], context: Context, extras: Extras = NOTHING) -> str:
    """The whole page as HTML. The same records and evidence give the same page, to the byte."""
    return page(survey(files, context, extras))


def page(study: Study) -> str:
    """The whole page of a study as HTML."""
    style, script = asset("style.css"), asset("page.js")
    timeline = study.extras.timeline
    capture = sections(timeline) if timeline else None
    if capture:
        style, script = f"{style}\n{styles()}", f"{script}\n{scripts()}"
    parts = [
        Part(section, section.build(study) if section.build else capture, commands(study, section.anchor))
        for section in SECTIONS
    ]
    return (
        environment("fluxperf.harness.report")
        .get_template("page.html.j2")
        .render(
            parts=parts,
            study=study,
            capture=capture,
            terms=TERMS,
            twin_note=TWIN_NOTE,
            sample_note=SAMPLE_NOTE,
            # Safe as markup: both are made of files of this package.
            style=Markup(style),
            script=Markup(script),
            script_hash=script_hash(script),
        )
    )
