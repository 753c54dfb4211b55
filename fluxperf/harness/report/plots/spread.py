"""Samples per process: deviation of each from its rung's median, beside the machine's A/A band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fluxperf.harness.facts.provenance import provenance
from fluxperf.harness.facts.samples import usable
from fluxperf.harness.facts.study import Ladder, Rung, median_of
from fluxperf.harness.pages import svg
from fluxperf.harness.pages.svg import BAND, DOWN, GRID, INK, MUTED, Figure
from fluxperf.harness.report.plots.frame import place_of
from fluxperf.harness.text import units

#: Maximum number of processes of one rung that are drawn side by side; the first ones are drawn.
MOST_PROCESSES = 24


def spread(ladder: Ladder, prefix: str, bands: Mapping[str, float]) -> Figure | None:
    """Deviations of the samples, rung by rung and process by process; ``None`` without a time.

    Args:
        ladder: ladder with the samples.
        prefix: prefix of the ids in the SVG.
        bands: calibrated A/A spread by rung, as a share.
    """
    rungs = [rung for rung in ladder.measured if usable(rung.record)]
    if not rungs:
        return None
    title = "Samples of each process, as deviation from the rung's median"
    words = f"{title}. {'; '.join(_words(rung, bands) for rung in rungs)}."
    with svg.settings():
        canvas = svg.canvas(1000, 330)
        axes = canvas.add_axes((0.075, 0.13, 0.905, 0.74))
        _draw(axes, rungs, bands)
        axes.text(0, 1.05, "● a sample", transform=axes.transAxes, color=DOWN.token, fontsize=11)
        axes.text(0.11, 1.05, "━ median of a process", transform=axes.transAxes, fontsize=11)
        if any(rung.name in bands for rung in rungs):
            axes.text(0.31, 1.045, "■", transform=axes.transAxes, color=BAND.token, fontsize=15)
            axes.text(0.335, 1.05, "A/A band of this machine", transform=axes.transAxes, fontsize=11)
        else:
            axes.text(
                0.31, 1.05, "no A/A band: not calibrated", transform=axes.transAxes, color=MUTED.token, fontsize=11
            )
        source = provenance([rung.record for rung in rungs if rung.record])
        return Figure(svg.inline(canvas, f"{prefix}-spread", title, words), title, words, 1000, source)


def deviations(rung: Rung) -> list[list[float]]:
    """Samples by process, each as its relative deviation from the rung's median."""
    middle = median_of(rung.record)
    return [[value / middle - 1 for value in samples] for samples in usable(rung.record)] if middle > 0 else []


def _draw(axes: Axes, rungs: Sequence[Rung], bands: Mapping[str, float]) -> None:
    farthest = 0.002
    for place, rung in enumerate(rungs):
        processes = deviations(rung)[:MOST_PROCESSES]
        if band := bands.get(rung.name):
            axes.bar(place, 2 * band, bottom=-band, width=0.86, color=BAND.token, linewidth=0)
            farthest = max(farthest, band)
        for number, values in enumerate(processes):
            x = place + (0.0 if len(processes) == 1 else -0.36 + 0.72 * number / (len(processes) - 1))
            single = sum(map(len, processes)) == 1
            face = "none" if single else DOWN.token
            axes.plot([x] * len(values), values, "o", color=DOWN.token, markerfacecolor=face, markersize=5, alpha=0.75)
            width = 0.3 / max(2, len(processes))
            axes.plot([x - width, x + width], [median(values)] * 2, color=INK.token, linewidth=2)
            farthest = max([farthest, *(abs(value) for value in values)])
    axes.set_ylim(-1.18 * farthest, 1.18 * farthest)
    axes.set_xlim(-0.55, len(rungs) - 0.45)
    axes.set_xticks(range(len(rungs)), [_tick(rung) for rung in rungs], fontsize=11)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, symmetric=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.3g} %" if value else "0"))
    svg.bare(axes, grid="y")
    axes.axhline(0, color=GRID.token, linewidth=2.5, zorder=1)


def _tick(rung: Rung) -> str:
    sizes = [len(samples) for samples in usable(rung.record)]
    told = "1 sample" if sum(sizes) == 1 else f"{len(sizes)} proc., {sum(sizes)} samples"
    return f"{place_of(rung)}\n{told}"


def _words(rung: Rung, bands: Mapping[str, float]) -> str:
    processes = deviations(rung)
    flat = [value for values in processes for value in values]
    if not flat:
        return f"{rung.label}: no time above zero"
    band = f", A/A band {units.percent(bands[rung.name])} to either side" if rung.name in bands else ""
    if len(flat) == 1:
        return f"{rung.label}: one sample, so no spread{band}"
    return (
        f"{rung.label}: {units.plural(len(flat), 'sample')} of {units.plural(len(processes), 'process', 'processes')}, "
        f"from {100 * min(flat):+.2f} % to {100 * max(flat):+.2f} %{band}"
    )
