"""Idle time of the GPUs by length of its gaps, and the share that late launches explain: the launch-bound test.

A gap is a time in which a GPU was idle between two pieces of work (`fluxperf.harness.timeline.busy.gaps`). Its cause is
a late launch if the call that launched the next work had not returned when the GPU became idle. Its cause is a round
trip if that work is a copy between host and device inside a forward.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fluxperf.harness.pages import svg
from fluxperf.harness.pages.svg import AMBER, DOWN, INK, UP, WHOLE, Colour, Figure
from fluxperf.harness.pages.tables import Cell, Column, Table
from fluxperf.harness.text import units
from fluxperf.harness.timeline.causes import SHORTEST_GAP_NS, launched_late
from fluxperf.harness.timeline.findings import round_trips
from fluxperf.harness.timeline.model import NONE, Timeline
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.summary import Summary

#: Share of the idle time from which late launches count as its main cause, and share of the span below which idle time
#: counts as small.
MAIN_SHARE = 0.5
SMALL_SHARE = 0.05


class Cause(NamedTuple):
    """Why a GPU was idle: name, meaning, and style in the plot."""

    name: str
    meaning: str
    colour: Colour
    hatch: str | None


CAUSES = {
    "late": Cause("late launch", "the next launch call had not returned when the GPU became idle", UP, "//"),
    "trip": Cause(
        "host round trip", "the same, and the work is a copy between host and device inside a forward", AMBER, "xx"
    ),
    "queued": Cause(
        "queued in time", "the launch had returned: the work waited for a copy, an event or a stream", DOWN, None
    ),
    "short": Cause("under 1 µs", "the usual time between pieces of work that were queued in time", WHOLE, None),
    "unknown": Cause("no launch call", "the capture does not contain the call, so the cause is not known", INK, ".."),
}


class Bin(NamedTuple):
    """Gaps of ``low_ns`` up to ``high_ns``, by cause: their number, and their total nanoseconds."""

    low_ns: int
    high_ns: int
    counts: dict[str, int]
    idle_ns: dict[str, int]


class GapsView(NamedTuple):
    """The gaps as the page shows them."""

    verdict: str
    sentences: list[str]
    figure: Figure | None
    table: Table | None


def gaps_view(timeline: Timeline, places: Places, summary: Summary, prefix: str) -> GapsView:
    """Histogram, verdict and table of all gaps of a capture."""
    bins = histogram(timeline, places)
    if not bins:
        return GapsView("No GPU of this capture was idle between two pieces of work.", [], None, None)
    verdict, sentences = judged(bins, summary)
    return GapsView(verdict, sentences, _figure(bins, prefix, verdict), _table(bins))


def histogram(timeline: Timeline, places: Places) -> list[Bin]:
    """Gaps by length, three bins per factor of ten (1, 2, 5), from the shortest to the longest gap."""
    idle = places.idle
    lengths = idle.lasted_ns
    if not len(lengths):
        return []
    causes = np.select(
        [
            lengths < SHORTEST_GAP_NS,
            timeline.work.call[idle.work] == NONE,
            ~launched_late(timeline, idle),
            round_trips(timeline, places)[idle.work],
        ],
        [list(CAUSES).index(name) for name in ("short", "unknown", "queued", "trip")],
        list(CAUSES).index("late"),
    )
    first, last = _step(int(lengths.min())), _step(int(lengths.max()))
    edges = np.array([_edge(step) for step in range(first, last + 2)], np.int64)
    places_of = np.searchsorted(edges, lengths, "right") - 1
    cells = places_of * len(CAUSES) + causes
    shape = (last - first + 1, len(CAUSES))
    counts = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape).tolist()
    spent = np.bincount(cells, lengths, shape[0] * shape[1]).reshape(shape).tolist()
    bins = {}
    for step, number, ns in zip(range(first, last + 1), counts, spent, strict=True):
        of_causes = (dict(zip(CAUSES, map(int, one), strict=True)) for one in (number, ns))
        bins[step] = Bin(_edge(step), _edge(step + 1), *of_causes)
    empty = dict.fromkeys(CAUSES, 0)
    steps = range(first, last + 1)
    return [bins.get(step) or Bin(_edge(step), _edge(step + 1), empty, empty) for step in steps]


def _edge(step: int) -> int:
    return int((1, 2, 5)[step % 3] * 10 ** (step // 3))


def _step(length_ns: int) -> int:
    """The last step whose edge is not above a length of at least 1."""
    step = 3 * int(math.log10(length_ns))
    while _edge(step + 1) <= length_ns:
        step += 1
    while _edge(step) > length_ns:
        step -= 1
    return step


def judged(bins: list[Bin], summary: Summary) -> tuple[str, list[str]]:
    """The launch-bound test: a verdict in one sentence, and its basis."""
    idle = {cause: sum(one.idle_ns[cause] for one in bins) for cause in CAUSES}
    counts = {cause: sum(one.counts[cause] for one in bins) for cause in CAUSES}
    whole = sum(idle.values())
    span_ns = sum(gpu.span_ms for gpu in summary.gpus) * 1e6
    share, late, trip = whole / span_ns if span_ns else 0.0, idle["late"] / whole, idle["trip"] / whole
    size = f"{units.time(whole / 1e9)} of {units.time(span_ns / 1e9)} ({units.percent(share)})"
    if idle["unknown"] > whole / 2:
        verdict = (
            "No verdict is possible: most of the idle time ended with work whose launch call is not in the capture."
        )
    elif share < SMALL_SHARE:
        verdict = f"Idle time is small: {size}."
    elif trip >= MAIN_SHARE:
        verdict = (
            f"Bound by round trips: copies between host and device come late for {units.percent(trip)} of the idle "
            f"time, which is {size}. Move to the GPU what the host computes between a copy down and a copy up."
        )
    elif late >= MAIN_SHARE:
        verdict = f"Launch-bound: the host is late for {units.percent(late)} of the idle time, which is {size}."
    else:
        verdict = f"Not launch-bound: late launches explain {units.percent(late)} of the idle time, which is {size}."
    sentences = [
        f"{CAUSES[cause].name}: {units.time(idle[cause] / 1e9)} in {units.plural(counts[cause], 'gap')} "
        f"({units.percent(idle[cause] / whole)}); {CAUSES[cause].meaning}."
        for cause in CAUSES
        if counts[cause]
    ]
    sentences.append(
        "Tracing slows the host, so a program without a profiler has fewer late launches. Time before the "
        "outermost range around a launch belongs to the span, but to no gap."
    )
    return verdict, sentences


def _figure(bins: list[Bin], prefix: str, verdict: str) -> Figure:
    title = "Idle time by length of the gap"
    words = f"{title}. {verdict} " + "; ".join(_bin_words(one) for one in bins if sum(one.counts.values())) + "."
    with svg.settings():
        canvas = svg.canvas(760, 330)
        draw(canvas.add_axes((0.09, 0.2, 0.9, 0.64)), bins)
        return Figure(svg.inline(canvas, f"{prefix}-plot", title, words), title, words, 760)


def draw(axes: Axes, bins: list[Bin]) -> None:
    """A bar for each bin with the total time of its gaps, and their number above it."""
    longest = max(sum(one.idle_ns.values()) for one in bins)
    factor, unit = next((row for row in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")) if longest >= row[0]), (1.0, "ns"))
    for position, one in enumerate(bins):
        bottom = 0.0
        for name, cause in CAUSES.items():
            height = one.idle_ns[name] / factor
            if height:
                axes.bar(position, height, 0.86, bottom, color=cause.colour.token, hatch=cause.hatch, linewidth=0)
            bottom += height
        number = sum(one.counts.values())
        if number:
            axes.annotate(
                f"{number:,}", (position, bottom), (0, 3), textcoords="offset points", ha="center", fontsize=10
            )
    used = [name for name in CAUSES if any(one.counts[name] for one in bins)]
    for place, name in enumerate(used):
        cause = CAUSES[name]
        x = place / max(len(used), 4)
        axes.add_patch(_swatch(axes, x, cause))
        axes.text(x + 0.035, 1.13, cause.name, transform=axes.transAxes, fontsize=11, va="center")
    axes.set_xticks(
        [at - 0.5 for at in range(len(bins) + 1)], [_short(one.low_ns) for one in bins] + [_short(bins[-1].high_ns)]
    )
    axes.tick_params(axis="x", labelsize=10, pad=9, rotation=0 if len(bins) < 14 else 40)
    axes.set_xlim(-0.6, max(len(bins), 4) - 0.4)
    axes.set_ylim(0, longest / factor * 1.12)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel(f"idle, {unit}", fontsize=11)
    axes.set_xlabel("length of a gap (log scale); number above a bar: gaps", fontsize=11)
    svg.bare(axes, grid="y")


def _swatch(axes: Axes, x: float, cause: Cause) -> Rectangle:
    return Rectangle(
        (x, 1.1), 0.025, 0.06, transform=axes.transAxes, clip_on=False, facecolor=cause.colour.token, hatch=cause.hatch,
        linewidth=0,
    )  # fmt: skip


def _short(value_ns: int) -> str:
    return units.given(value_ns / 1e9)


def _bin_words(one: Bin) -> str:
    parts = [f"{one.counts[name]:,} {CAUSES[name].name}" for name in CAUSES if one.counts[name]]
    total = units.time(sum(one.idle_ns.values()) / 1e9)
    return f"{_short(one.low_ns)} to {_short(one.high_ns)}: {total} in gaps ({units.listing(parts)})"


def _table(bins: list[Bin]) -> Table:
    used = [name for name in CAUSES if any(one.counts[name] for one in bins)]
    columns = [Column("Length of a gap", number=False), Column("Gaps"), Column("Idle")]
    columns += [Column(CAUSES[name].name, hint=CAUSES[name].meaning) for name in used]
    rows = [
        [
            Cell(f"{_short(one.low_ns)} to {_short(one.high_ns)}", one.low_ns),
            Cell(units.count(sum(one.counts.values())), sum(one.counts.values())),
            Cell(units.time(sum(one.idle_ns.values()) / 1e9), sum(one.idle_ns.values())),
            *(
                Cell(units.time(one.idle_ns[name] / 1e9), one.idle_ns[name], note=units.plural(one.counts[name], "gap"))
                for name in used
            ),
        ]
        for one in bins
    ]
    return Table("Gaps by length and cause", columns, rows)
