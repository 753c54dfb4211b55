"""Speedup per phase with its interval, beside the expected range."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from fluxperf.harness.facts.climbs import Climb, climbs
from fluxperf.harness.facts.provenance import provenance
from fluxperf.harness.facts.study import Ladder, Study
from fluxperf.harness.pages import svg
from fluxperf.harness.pages.svg import BAND, DOWN, GRID, INK, MUTED, PAPER, Figure
from fluxperf.harness.report.plots.frame import label
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import drawn, shown


def speedups(study: Study, ladder: Ladder, prefix: str) -> Figure | None:
    """The speedup of each phase; ``None`` for host twins, which have no expectation, and if there is none."""
    rows = climbs(study, ladder)
    if ladder.twin or not any(row.found for row in rows):
        return None
    title = "Speedup of each phase, expected and measured"
    words = f"{title}. {'; '.join(map(_words, rows))}."
    with svg.settings():
        height = 92 + 40 * len(rows)
        canvas = svg.canvas(620, height)
        axes = canvas.add_axes((0.19, 48 / height, 0.58, 1 - 84 / height))
        _draw(axes, rows)
        axes.text(0, 1.03, "■", transform=axes.transAxes, color=BAND.token, fontsize=15)
        axes.text(0.045, 1.035, "expected", transform=axes.transAxes, fontsize=11)
        axes.text(0.24, 1.035, "●— measured, ○ of one sample", transform=axes.transAxes, fontsize=11)
        source = provenance([record for row in rows for record in (row.before, row.after) if record])
        return Figure(svg.inline(canvas, f"{prefix}-speedups", title, words), title, words, 620, source)


def _draw(axes: Axes, rows: Sequence[Climb]) -> None:
    values = [1.0]
    for place, row in enumerate(rows):
        if row.expected:
            low, high = row.expected
            axes.barh(place, high - low, left=low, height=0.62, color=BAND.token, linewidth=0)
            values += [low, high]
        if row.found:
            axes.plot([row.found.low, row.found.high], [place, place], color=DOWN.token, linewidth=2.5, zorder=3)
            face = PAPER.token if row.found.kind == "single" else DOWN.token
            axes.plot([row.found.ratio], [place], "o", color=DOWN.token, markerfacecolor=face, markersize=9, zorder=4)
            values += [row.found.low, row.found.high, row.found.ratio]
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 1.25, max(values) * 1.35)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{units.BY}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(range(len(rows)), [drawn(row.name.partition(":")[0], 16) for row in rows], fontsize=12)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    svg.bare(axes, grid="x")
    axes.axvline(1, color=GRID.token, linewidth=2.5)
    axes.tick_params(axis="x", labelcolor=MUTED.token, labelsize=11)
    axes.set_xlabel("times shorter than before the phase", fontsize=11)
    right = axes.get_xlim()[1]
    for place, row in enumerate(rows):
        text = f"{units.times(row.found.ratio)}\n{row.found.spread}" if row.found else "not measured"
        label(axes, right, place, text, INK if row.found else MUTED, fontsize=10)


def _words(row: Climb) -> str:
    expected = f"expected {units.bounds(*row.expected)}, " if row.expected else "nothing expected, "
    return f"{shown(row.name, 48)}: {expected}" + (
        f"measured {units.times(row.found.ratio)} ({row.found.spread})" if row.found else "not measured"
    )
