"""The page: sections built from records, drawn by Jinja into one HTML file that needs no network.

A section is a row of ``SECTIONS``: an anchor, a title, and a builder that makes blocks of a study. One template draws
all of them (`fluxperf.harness.pages.panels`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from fluxperf.harness.capture.strip import Sections, scripts, sections, styles
from fluxperf.harness.facts.commands import commands
from fluxperf.harness.facts.inputs import NOTHING, Context, Extras
from fluxperf.harness.facts.study import Study, survey
from fluxperf.harness.pages.page import Page, Part
from fluxperf.harness.pages.panels import Block, Commands, Panel, banner
from fluxperf.harness.records import RecordsFile
from fluxperf.harness.report.headline import headline_panels
from fluxperf.harness.report.judgement import verdict_panels
from fluxperf.harness.report.kernels import kernel_panels
from fluxperf.harness.report.ladder import ladder_panels
from fluxperf.harness.report.ledger import ledger_panels
from fluxperf.harness.report.machines import machines_panels
from fluxperf.harness.report.ops import op_panels
from fluxperf.harness.report.overview import summary_panels
from fluxperf.harness.report.past import past_panels
from fluxperf.harness.report.profiled import profiled_panels
from fluxperf.harness.report.raw import raw_panels
from fluxperf.harness.report.roofline import roofline_panels
from fluxperf.harness.report.stability import stability_panels
from fluxperf.harness.text.terms import TERMS

Builder = Callable[[Study, Sections | None], Sequence[Block]]


class Section(NamedTuple):
    """One section of the page: ``build`` makes blocks from a study and its drawn capture; ``terms`` are its terms."""

    anchor: str
    title: str
    build: Builder
    terms: tuple[str, ...] = ()


def _of(build: Callable[[Study], Sequence[Block]]) -> Builder:
    """The builder of a section that shows nothing of a capture."""
    return lambda study, capture: build(study)


def _ops(study: Study, capture: Sections | None) -> Sequence[Block]:
    top = [Panel(f"{capture.kernels.title} of the timeline", capture.kernels.content)] if capture else []
    return [*profiled_panels(study), *op_panels(study), *kernel_panels(study), *top]


def _timeline(study: Study, capture: Sections | None) -> Sequence[Block]:
    return capture.strip.content if capture else _not_captured(study, "timeline")


def _gaps(study: Study, capture: Sections | None) -> Sequence[Block]:
    return capture.gaps.content if capture else _not_captured(study, "gaps")


def _not_captured(study: Study, anchor: str) -> Sequence[Block]:
    text = "No timeline was given. These commands capture one step on a GPU and show it here:"
    return [banner(text), Commands(commands(study, anchor))]


SECTIONS = (
    Section("summary", "Summary", _of(summary_panels), ("workload", "rung", "forward", "twin", "peer", "floor")),
    Section(
        "verdict",
        "Verdict",
        _of(verdict_panels),
        ("verdict", "outcome", "UNSURE", "base, head", "exact", "minimum detectable effect"),
    ),
    Section("machines", "Machines and comparability", _of(machines_panels), ("twin", "sample")),
    Section(
        "headline",
        "Headline",
        _of(headline_panels),
        ("generation (denoise)", "step", "peer", "floor", "ceiling", "interval", "range"),
    ),
    Section(
        "ladder",
        "The ladder",
        _of(ladder_panels),
        ("rung", "mission phase", "interval", "range", "twin", "down, up", "sync"),
    ),
    Section(
        "samples",
        "Samples of each process",
        _of(stability_panels),
        ("process", "sample", "A/A", "A/A band", "minimum detectable effect"),
    ),
    Section("timeline", "Timeline of one step", _timeline, ("step",)),
    Section("ledger", "Transfer ledger", _of(ledger_panels), ("ledger", "down, up", "exact", "witness")),
    Section("ops", "Ops and kernels", _ops, ("op", "observed run", "ceiling")),
    Section("roofline", "Roofline", _of(roofline_panels), ("ceiling", "arithmetic intensity", "observed run")),
    Section("gaps", "Gaps and the launch-bound test", _gaps, ("captured",)),
    Section("history", "History", _of(past_panels), ("history", "change point", "exact")),
    Section("raw", "Raw data", _of(raw_panels)),
)


def render(files: Sequence[RecordsFile], context: Context, extras: Extras = NOTHING) -> str:
    """The whole page as HTML. The same records and evidence give the same page, byte for byte."""
    return page(survey(files, context, extras))


def page(study: Study) -> str:
    """The whole page of a study as HTML."""
    timeline = study.extras.timeline
    capture = sections(timeline) if timeline else None
    parts = [
        Part(one.anchor, one.title, one.build(study, capture), one.terms, commands(study, one.anchor))
        for one in SECTIONS
    ]
    more = {"styles": f"\n{styles()}", "scripts": f"\n{scripts()}"} if capture else {}
    return Page("fluxperf report", "fluxperf report", "FLUX.1, rung by rung", parts, study.views, TERMS, **more).html()
