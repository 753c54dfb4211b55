"""Progress, rung by rung: from the published baseline toward the target, on a logarithmic axis of seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

from fluxperf.harness.facts.floor import floor_of
from fluxperf.harness.facts.provenance import provenance
from fluxperf.harness.facts.samples import summary_of
from fluxperf.harness.facts.study import Ladder, Study, median_of
from fluxperf.harness.pages import svg
from fluxperf.harness.pages.svg import DOWN, INK, LESS, MUTED, PAPER, TARGET, WHOLE, Colour, Figure
from fluxperf.harness.report.plots.frame import BOX, place_of, seconds, side_labels
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import drawn, shown

_MARKERS = "osD^v"


class Line(NamedTuple):
    """A line across the axis: seconds, name, colour, style, and whether it was given or measured."""

    value: float
    name: str
    colour: Colour
    style: str = "-"
    given: bool = False


def progress(study: Study, prefix: str) -> Figure:
    """The way from the published baseline to the target, with a dot for each rung measured on a GPU."""
    ladders = on_axis(study)
    workload = drawn(study.context.headline_workload)
    title = f"{workload}: time to denoise, from the published baseline toward the target"
    lines = [*published_lines(study), *floor_lines(study, ladders)]
    words = f"{title}. {lines_words(lines)} {_words(study, ladders)}"
    with svg.settings():
        canvas = svg.canvas(1000, 440)
        axes = canvas.add_axes((0.07, 0.11, 0.7, 0.79))
        draw_progress(axes, study, ladders, lines)
        records = [record for one in ladders for record in one.records]
        source = provenance(records) if records else "The lines are published figures. No record is drawn."
        return Figure(svg.inline(canvas, prefix, title, words), title, words, 1000, source)


def on_axis(study: Study) -> list[Ladder]:
    """The ladders whose times belong on the progress axis: GPU records of the headline workload."""
    headline = study.context.headline_workload
    return [
        ladder
        for ladder in study.ladders
        if ladder.workload.name == headline and not ladder.twin and any(summary_of(record) for record in ladder.records)
    ]


def published_lines(study: Study) -> list[Line]:
    """The published figures: baseline, target, peer."""
    published = study.context.published
    return [
        Line(published.baseline_s, "published baseline", WHOLE, "-", True),
        Line(published.target_s, "target", TARGET, "--", True),
        Line(published.peer_s, f"{drawn(published.peer_name, 20)}, published", LESS, "-", True),
    ]


def floor_lines(study: Study, ladders: Sequence[Ladder]) -> list[Line]:
    """The floor of the first ladder that has one."""
    found = next((floor for one in ladders if one.ran_as != "peer" and (floor := floor_of(study, one))), None)
    return [Line(found.time_s, f"floor of {drawn(found.rung, 14)}", INK, ":")] if found else []


def peer_lines(ladders: Sequence[Ladder]) -> list[Line]:
    """The measured peers, one line each."""
    rungs = [rung for one in ladders if one.ran_as == "peer" for rung in one.measured if summary_of(rung.record)]
    return [Line(median_of(rung.record), f"{drawn(rung.name, 20)}, measured", LESS, "-.") for rung in rungs]


def draw_lines(axes: Axes, lines: Sequence[Line], fontsize: int = 11) -> None:
    """Lines across the axis, with names at the right."""
    for line in lines:
        axes.axhline(line.value, color=line.colour.token, linewidth=2, linestyle=line.style, zorder=1)
    side_labels(axes, [(line.value, f"{_value(line)} {line.name}", line.colour) for line in lines], fontsize)


def _value(line: Line) -> str:
    return units.given(line.value) if line.given else units.time(line.value)


def draw_progress(
    axes: Axes, study: Study, ladders: Sequence[Ladder], lines: Sequence[Line], fontsize: int = 12
) -> None:
    """Reference lines, and one dot per rung with the range of its samples."""
    names = [drawn(rung.name, 18) for rung in study.context.ladder]
    for ladder in ladders:
        names += [name for name in map(place_of, ladder.measured) if name not in names]
    values = [line.value for line in lines]
    for number, ladder in enumerate(ladders):
        values += _dots(axes, ladder, names, _MARKERS[number % len(_MARKERS)], fontsize)
    seconds(axes, values)
    axes.set_xlim(-0.6, max(1, len(names)) - 0.4)
    axes.set_xticks(range(len(names)), [_wrapped(name) for name in names], fontsize=fontsize)
    draw_lines(axes, lines, fontsize - 1)
    if not ladders:
        text = f"These files contain no GPU record of {drawn(study.context.headline_workload)}."
        box = BOX | {"pad": 6.0}
        axes.text(0.5, 0.62, text, transform=axes.transAxes, ha="center", color=MUTED.token, fontsize=14, bbox=box)
    elif len(ladders) > 1:
        _legend(axes, ladders, fontsize)


def _wrapped(name: str) -> str:
    """A long name on several lines, broken at its first hyphen, or before its memory budget."""
    if len(name) <= 10:
        return name
    return name.replace("-", "-\n", 1) if "-" in name else name.replace(" in ", "\nin ", 1)


def _dots(axes: Axes, ladder: Ladder, names: Sequence[str], marker: str, fontsize: int) -> list[float]:
    values: list[float] = []
    for rung in ladder.measured:
        found = summary_of(rung.record)
        if not found:
            continue
        x = names.index(place_of(rung))
        colour = TARGET if ladder.ran_as == "peer" else DOWN
        axes.plot([x, x], [found.low, found.high], color=colour.token, linewidth=2, zorder=3)
        face = PAPER.token if found.samples == 1 else colour.token
        axes.plot([x], [found.median], marker, color=colour.token, markerfacecolor=face, markersize=9, zorder=4)
        # The label may cover the line below it, but no dot.
        axes.annotate(
            units.time(found.median),
            (x, found.median),
            xytext=(0, 11),
            textcoords="offset points",
            ha="center",
            color=INK.token,
            fontsize=fontsize,
            bbox=BOX,
            zorder=3.5,
        )
        values += [found.low, found.high]
    return values


def _legend(axes: Axes, ladders: Sequence[Ladder], fontsize: int) -> None:
    for number, ladder in enumerate(ladders):
        x = 0.02 + 0.5 * (number % 2)
        y = 1.03 + 0.06 * (number // 2)
        mark = _MARKERS[number % len(_MARKERS)]
        colour = TARGET if ladder.ran_as == "peer" else DOWN
        axes.plot([x], [y], mark, color=colour.token, transform=axes.transAxes, markersize=8, clip_on=False)
        text = drawn(f"{'sample: ' if ladder.sample else ''}{ladder.way}, {ladder.machine}", 52)
        axes.text(x + 0.02, y, text, transform=axes.transAxes, va="center", fontsize=fontsize - 1)


def lines_words(lines: Sequence[Line]) -> str:
    """The lines as text."""
    return f"Lines: {', '.join(f'{shown(line.name)} {_value(line)}' for line in lines)}."


def _words(study: Study, ladders: Sequence[Ladder]) -> str:
    dots = [
        f"{rung.label} {units.time(median_of(rung.record))} ({ladder.way}, {ladder.machine})"
        for ladder in ladders
        for rung in ladder.measured
        if summary_of(rung.record)
    ]
    if not dots:
        return f"These files contain no GPU record of {shown(study.context.headline_workload)}, so there is no dot."
    return f"Dots: {'; '.join(dots)}."
