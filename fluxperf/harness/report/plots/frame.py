"""Code that plots share: rows with labels, bars, axes of seconds, and labels that do not overlap."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from fluxperf.harness.facts.study import Rung
from fluxperf.harness.pages import svg
from fluxperf.harness.pages.svg import GRID, INK, MUTED, PAPER, Colour
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import drawn

TWIN_TITLE = "host twins on a CPU: not a GPU's time"

#: Height of a row, in pixels of the page.
ROW = 34

#: Background of a label, so that no line runs through it.
BOX = {"facecolor": PAPER.token, "edgecolor": "none", "pad": 1.0}


def axes_of(canvas: Canvas, left: float, top: float = 0.86) -> Axes:
    """Axes with space for labels at the left and below, and for one line of legend above."""
    height = canvas.get_size_inches()[1] * 72
    bottom = 44 / height
    return canvas.add_axes((left, bottom, 0.98 - left, top + 0.06 - bottom))


def rows_of(axes: Axes, names: Sequence[str]) -> None:
    """A row for each name, the first at the top."""
    axes.set_yticks(range(len(names)), names, fontsize=12)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.tick_params(axis="x", labelcolor=MUTED.token, labelsize=11)
    svg.bare(axes, grid="x")
    axes.axvline(0, color=GRID.token, linewidth=1.5)


def bar(axes: Axes, row: float, left: float, width: float, colour: Colour, *, twin: bool) -> None:
    """One bar of a row; hatched for a host twin."""
    axes.barh(row, width, left=left, height=0.6, color=colour.token, hatch="//" if twin else None, linewidth=0)


def label(axes: Axes, x: float, y: float, text: str, colour: Colour = INK, fontsize: int = 11) -> None:
    """Writes ``text`` a little to the right of a point."""
    axes.annotate(text, (x, y), (5, 0), textcoords="offset points", va="center", color=colour.token, fontsize=fontsize)


def seconds(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis of seconds around values."""
    axes.set_yscale("log")
    axes.set_ylim(min(values) / 1.9, max(values) * 2.4)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: units.given(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_locator(NullLocator())
    svg.bare(axes, grid="y")


def apart(places: Sequence[float], least: float, low: float, high: float) -> list[float]:
    """``places``, moved as little as possible to be ``least`` apart, between ``low`` and ``high``, in order."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = [places[index] for index in order]
    for index in range(1, len(moved)):
        moved[index] = max(moved[index], moved[index - 1] + least)
    if moved and moved[-1] > high:
        moved[-1] = high
        for index in range(len(moved) - 2, -1, -1):
            moved[index] = min(moved[index], moved[index + 1] - least)
    if moved and moved[0] < low:
        moved = [low + (value - moved[0]) for value in moved]
    result = [0.0] * len(places)
    for index, value in zip(order, moved, strict=True):
        result[index] = value
    return result


def side_labels(axes: Axes, rows: Sequence[tuple[float, str, Colour]], fontsize: int = 11) -> None:
    """Labels beside the right edge at the height of their values, moved apart and connected to them by lines.

    Call it after scale and limits of the axes are set.
    """
    place = axes.transAxes.inverted()
    heights = [float(place.transform(axes.transData.transform((0.0, value)))[1]) for value, _, _ in rows]
    pixels = float(axes.get_window_extent().height)
    for at, moved, (_, text, colour) in zip(heights, apart(heights, 1.28 * fontsize / pixels, 0, 1), rows, strict=True):
        axes.annotate(
            text,
            (1.0, at),
            (1.022, moved),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            color=INK.token,
            fontsize=fontsize,
            arrowprops={
                "arrowstyle": "-",
                "color": colour.token,
                "linewidth": 1,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def place_of(rung: Rung) -> str:
    """A rung's name on an axis."""
    return drawn(rung.name, 18)


def legend(axes: Axes, entries: Sequence[tuple[str, Colour, str]], columns: int = 4, fontsize: int = 11) -> None:
    """Markers with their names in rows above the axes."""
    for number, (name, colour, marker) in enumerate(entries):
        x = number % columns / columns
        y = 1.035 + 0.062 * ((len(entries) - 1) // columns - number // columns)
        axes.plot([x + 0.008], [y], marker, color=colour.token, transform=axes.transAxes, markersize=7, clip_on=False)
        axes.text(x + 0.022, y, name, transform=axes.transAxes, va="center", fontsize=fontsize)
