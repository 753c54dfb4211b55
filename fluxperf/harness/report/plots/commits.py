"""Progress over commits: times of the headline workload on a logarithmic axis, with lines and change points."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fluxperf.harness.facts.provenance import short
from fluxperf.harness.pages import svg
from fluxperf.harness.pages.svg import INK, SERIES, Figure
from fluxperf.harness.report.plots.frame import legend, seconds
from fluxperf.harness.report.plots.progress import Line, draw_lines, lines_words
from fluxperf.harness.series import Series, label
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import drawn, shown

#: Maximum number of series in the plot. Those with the most commits are drawn.
MOST_SERIES = len(SERIES)

#: Maximum number of commits that are all named below the axis.
NAMED = 8

#: Maximum number of settings that are combined to find the fewest that name a line; beyond, all are named.
_COMBINED = 3


def commits(series: Sequence[Series], lines: Sequence[Line], prefix: str, title: str, source: str) -> Figure | None:
    """The series over commits; ``None`` if there is no value."""
    drawn_ones = sorted((one for one in series if len(one.values)), key=lambda one: -len(one.values))[:MOST_SERIES]
    if not drawn_ones:
        return None
    order = commit_order(drawn_ones)
    words = f"{title}. {lines_words(lines)} {'; '.join(_words(one, drawn_ones) for one in drawn_ones)}."
    with svg.settings():
        canvas = svg.canvas(1000, 480)
        axes = canvas.add_axes((0.07, 0.13, 0.7, 0.74))
        entries = []
        for number, one in enumerate(drawn_ones):
            colour, marker = SERIES[number % len(SERIES)]
            _line(axes, one, order, colour, marker)
            entries.append((drawn(_name(one, drawn_ones), 34), colour, marker))
        values = [value for one in drawn_ones for point in one.present for value in (point.value,) if value]
        seconds(axes, [*values, *(line.value for line in lines)])
        _commit_axis(axes, order)
        draw_lines(axes, lines)
        legend(axes, entries, columns=3 if max(len(name) for name, _, _ in entries) > 20 else 4)
        return Figure(svg.inline(canvas, prefix, title, words), title, words, 1000, source)


def commit_order(series: Sequence[Series]) -> dict[str, int]:
    """The position of every commit: in the order of the longest series; others after their predecessor, or by date."""
    order: list[str] = []
    dates: dict[str, str] = {}
    for one in sorted(series, key=lambda row: -len(row.values)):
        before = -1
        for point in one.present:
            name = label(point)
            if name in dates:
                before = order.index(name)
                continue
            earlier = (place for place in range(len(order), 0, -1) if dates[order[place - 1]] <= point.date_utc)
            before = next(earlier, 0) if before < 0 else before + 1
            order.insert(before, name)
            dates[name] = point.date_utc
    return {name: place for place, name in enumerate(order)}


def _line(axes: Axes, one: Series, order: dict[str, int], colour: svg.Colour, marker: str) -> None:
    points = [(order[label(point)], point) for point in one.present if point.value]
    xs, ys = [place for place, _ in points], [point.value or 0.0 for _, point in points]
    few = len(points) <= 60
    axes.plot(
        xs, ys, color=colour.token, linewidth=1.6, marker=marker if few else None, markersize=7, alpha=0.9, zorder=3
    )
    for place, point in points if few else ():
        if point.low and point.high:
            axes.plot([place, place], [point.low, point.high], color=colour.token, linewidth=1.6, zorder=3)
    for change in one.changes:
        if change.after in order and change.new > 0:
            axes.plot([order[change.after]], [change.new], "o", color=INK.token, markerfacecolor="none", markersize=13)


def _commit_axis(axes: Axes, order: dict[str, int]) -> None:
    names = list(order)
    axes.set_xlim(-0.6, max(1.0, len(names) - 0.4))
    if len(names) <= NAMED:
        axes.set_xticks(range(len(names)), [_tick(name) for name in names], fontsize=10)
        axes.set_xlabel("commit" if len(names) > 1 else "one commit: a history begins with the second", fontsize=11)
        return
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.set_xlabel(f"commits in their order, {_tick(names[0])} to {_tick(names[-1])}", fontsize=11)


def _tick(name: str) -> str:
    """A commit's first ten digits; the day for a measurement without a commit."""
    if name.startswith("no commit"):
        return f"no commit,\n{drawn(name[11:21], 12)}"
    return drawn(short(name.removesuffix("+")), 12) + ("+" if name.endswith("+") else "")


def _name(one: Series, among: Sequence[Series] = ()) -> str:
    """The rung of a series, with the fewest settings that distinguish it from others of the same rung."""
    same = [other for other in among if other.rung == one.rung]
    said = [f"{key.removeprefix('setting ')} {one.variant[key]}" for key in _telling(one, same) if key in one.variant]
    said = [*_apart(one.machine, {other.machine for other in same}), *said]
    name = one.rung or one.metric
    return f"{name} ({', '.join(said)})" if said else name


def _telling(one: Series, among: Sequence[Series]) -> Sequence[str]:
    """The fewest settings by which a series differs from all others, if possible those that it has."""
    others = [other.variant for other in among if other.variant != one.variant]
    keys = sorted({key for other in others for key in other} | one.variant.keys())
    told = [key for key in keys if any(other.get(key) != one.variant.get(key) for other in others)]
    told.sort(key=lambda key: key not in one.variant)
    for size in range(min(len(told), _COMBINED + 1)):
        for some in combinations(told, size):
            if all(any(other.get(key) != one.variant.get(key) for key in some) for other in others):
                return some
    return told


def _apart(machine: str, among: Collection[str]) -> list[str]:
    """Text that distinguishes a machine from others: the first differing part of its name, up to the differing word."""
    rows = [name.split(", ") for name in among]
    for place, part in enumerate(machine.split(", ")):
        others = [row[place].split() if place < len(row) else [] for row in rows]
        words = part.split()
        for last, word in enumerate(words):
            if any(last >= len(other) or other[last] != word for other in others):
                return [" ".join(words[: last + 1]).removeprefix("NVIDIA ")]
    return []


def _words(one: Series, among: Sequence[Series]) -> str:
    present = one.present
    first, last = present[0].value or 0.0, present[-1].value or 0.0
    changes = f", {units.plural(len(one.changes), 'change')}" if one.judged else ", too few commits to look for changes"
    return (
        f"{shown(_name(one, among), 64)}: {units.plural(len(present), 'commit')}, first {units.time(first)}, "
        f"newest {units.time(last)}{changes}"
    )
