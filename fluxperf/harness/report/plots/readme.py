"""The README's picture: copies per forward at the left, time at the right, rung by rung, as one SVG file on white."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fluxperf.errors import RecordError
from fluxperf.harness.facts.blocks import is_full
from fluxperf.harness.facts.inputs import Published
from fluxperf.harness.facts.provenance import commit_of, unique
from fluxperf.harness.facts.samples import samples_of, summary_of
from fluxperf.harness.facts.study import Ladder, Study, median_of
from fluxperf.harness.pages import svg
from fluxperf.harness.pages.svg import DOWN, INK, MUTED, UP, WHOLE
from fluxperf.harness.report.plots.copies import copies_words, draw_copies
from fluxperf.harness.report.plots.frame import TWIN_TITLE, bar, label, place_of, rows_of
from fluxperf.harness.report.plots.progress import draw_progress, floor_lines, on_axis, published_lines
from fluxperf.harness.report.plots.waterfall import waterfall_words
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import drawn, shown


def readme_chart(found: Study, workload: str) -> str:
    """The picture. Of several ladders of ``workload``, one on a GPU is drawn, otherwise the one with the most rungs.

    Raises:
        RecordError: there is no record of ``workload``.
    """
    ladders = [ladder for ladder in found.climbing if ladder.workload.name == workload]
    if not ladders:
        known = units.listing(unique(shown(record.workload.name) for record in found.records)) or "nothing"
        raise RecordError(
            f"expected a record of workload {workload!r} to draw, found none. The files contain {known}. Write one "
            f"with `fluxperf run --all --workload {workload} -o FILE`."
        )
    ladder = max(ladders, key=lambda one: (not one.twin, len(one.measured)))
    # a run within a budget is not a rung of its own
    ladder = ladder._replace(rungs=tuple(rung for rung in ladder.rungs if rung.info or not ladder.baseline))
    title = f"{drawn(ladder.workload.name)}: copies and time, rung by rung"
    words = f"{title}. Copies in one forward: {copies_words(ladder)} " + waterfall_words(ladder)
    with svg.settings():
        canvas = svg.canvas(980, 420)
        canvas.text(0.02, 0.935, title, fontsize=17, weight="bold")
        _copies(canvas.add_axes((0.105, 0.2, 0.37, 0.58)), ladder, found.context.published)
        right = canvas.add_axes((0.605, 0.2, 0.375, 0.58))
        right.set_title(_right(right, found, ladder), loc="left", fontsize=12, pad=24)
        canvas.text(0.02, 0.035, _source(ladder), fontsize=10.5, color=MUTED.token)
        return svg.standalone(canvas, title, words)


def _right(axes: Axes, study: Study, ladder: Ladder) -> str:
    """Draws the times. Returns their heading."""
    if any((one.view, one.ran_as) == (ladder.view, ladder.ran_as) for one in on_axis(study)):
        axes.set_position((0.535, 0.2, 0.31, 0.58))
        lines = [*published_lines(study), *floor_lines(study, [ladder])]
        draw_progress(axes, study, [ladder], lines, fontsize=9)
        axes.tick_params(axis="x", rotation=30)
        return "Time to denoise, on the GPU (median)"
    _times(axes, ladder)
    return f"Time to denoise: {TWIN_TITLE}" if ladder.twin else "Time to denoise (median)"


def _copies(axes: Axes, ladder: Ladder, published: Published) -> None:
    base = ladder.baseline
    full = base is not None and is_full(base)
    down, up = published.copies_of(base.workload.model) if base is not None else (0, 0)
    draw_copies(axes, ladder.rungs, max(down, up) if full else 0)
    axes.set_title("Copies in one forward", loc="left", fontsize=12, pad=24)
    axes.text(0, 1.03, "■ down", transform=axes.transAxes, color=DOWN.token, fontsize=11)
    axes.text(0.19, 1.03, "■ up", transform=axes.transAxes, color=UP.token, fontsize=11)
    if full:
        for offset, number in ((-0.17, down), (0.17, up)):
            axes.plot([number, number], [offset - 0.19, offset + 0.19], color=INK.token, linewidth=2.5)
        axes.text(0.33, 1.03, "| published count", transform=axes.transAxes, color=INK.token, fontsize=11)


def _times(axes: Axes, ladder: Ladder) -> None:
    largest = max((median_of(rung.record) for rung in ladder.measured if summary_of(rung.record)), default=0.0)
    for row, rung in enumerate(ladder.rungs):
        now = median_of(rung.record) if summary_of(rung.record) else 0.0
        bar(axes, row, 0, now, WHOLE, twin=ladder.twin)
        text = units.time(now) if now else "no time" if rung.record else "no record"
        label(axes, now, row, text, INK if now else MUTED)
    rows_of(axes, [place_of(rung) for rung in ladder.rungs])
    axes.set_xlim(0, (largest or 1.0) * 1.25)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: units.given(value)))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))


def _source(ladder: Ladder) -> str:
    commits = unique(drawn(commit_of(record), 40) for record in ladder.records)
    samples = unique(samples_of(record) for record in ladder.records)
    listed = units.listing(commits, 2)
    # a commit that is not recorded is already marked as such
    told = listed if listed.startswith("commit") else f"commit {listed}"
    return (
        f"{drawn(ladder.way)} on {drawn(ladder.machine, 48)} · {told} · "
        f"samples (processes {units.BY} each): {units.listing(samples, 3)}"
    )
