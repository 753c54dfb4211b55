"""Roofline: the rate of each op at each rung, below the ceilings of the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from fluxperf.harness.facts.ceilings import MEMORY, Ceiling
from fluxperf.harness.facts.provenance import provenance
from fluxperf.harness.facts.rates import OpRate, rates_of
from fluxperf.harness.facts.study import Ladder, Rung
from fluxperf.harness.pages import svg
from fluxperf.harness.pages.svg import INK, MUTED, SERIES, Figure
from fluxperf.harness.report.plots.frame import BOX, legend, place_of, side_labels
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import drawn, shown

#: Number of ops with names in the plot: those with the largest share of the quickest rung's time.
NAMED = 4


def roofline(ladder: Ladder, prefix: str, ceilings: Mapping[str, Ceiling]) -> Figure | None:
    """A dot for each op and rung; ``None`` for host twins, and without ops or a memory ceiling."""
    rows = [(rung, _placed(rates_of(rung.record))) for rung in ladder.measured if rung.record]
    rows = [(rung, rates) for rung, rates in rows if rates]
    if ladder.twin or not rows or MEMORY not in ceilings:
        return None
    title = "Roofline: rate of each op at each rung, below the ceilings of the machine"
    words = f"{title}. {_ceiling_words(ceilings)} {_words(rows)}"
    with svg.settings():
        canvas = svg.canvas(1000, 520)
        axes = canvas.add_axes((0.085, 0.11, 0.67, 0.75))
        for number, (_, rates) in enumerate(rows):
            colour, marker = SERIES[number % len(SERIES)]
            xs, ys = [rate.intensity for rate in rates], [rate.flops_s for rate in rates]
            axes.plot(xs, ys, marker, color=colour.token, markersize=7, alpha=0.85, linestyle="none", zorder=3)
        _limits(axes, [rate for _, rates in rows for rate in rates], ceilings)
        _roofs(axes, ceilings)
        _names(axes, ladder, rows)
        entries = [(place_of(rung), *SERIES[number % len(SERIES)]) for number, (rung, _) in enumerate(rows)]
        legend(axes, entries, columns=min(7, max(4, len(entries))))
        source = provenance([rung.record for rung, _ in rows if rung.record]) + " Times are from observed runs."
        return Figure(svg.inline(canvas, f"{prefix}-roofline", title, words), title, words, 1000, source)


def _placed(rates: Sequence[OpRate]) -> list[OpRate]:
    """The ops in the plot: those that compute, move bytes and took time."""
    return [rate for rate in rates if rate.flops > 0 and rate.bytes > 0 and rate.time_s > 0]


def _limits(axes: Axes, rates: Sequence[OpRate], ceilings: Mapping[str, Ceiling]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    highest = max([rate.flops_s for rate in rates] + [one.rate for name, one in ceilings.items() if name != MEMORY])
    axes.set_xlim(min(rate.intensity for rate in rates) / 2, max(rate.intensity for rate in rates) * 3)
    axes.set_ylim(min(rate.flops_s for rate in rates) / 2, highest * 2.2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(numticks=12))
        axis.set_minor_formatter(NullFormatter())
        axis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _prefixed(value)))
    axes.set_xlabel("arithmetic intensity: FLOP per byte that the op must move", fontsize=11)
    axes.set_ylabel("FLOP/s reached", fontsize=11)
    svg.bare(axes, grid="y")


def _prefixed(value: float) -> str:
    """A power of ten with its prefix."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= factor:
            return f"{value / factor:g} {prefix}"
    return f"{value:g}"


def _roofs(axes: Axes, ceilings: Mapping[str, Ceiling]) -> None:
    """The slope of memory, and a line for each dtype from its intersection with the slope."""
    memory = ceilings[MEMORY].rate
    left, right = axes.get_xlim()
    products = [one for name, one in ceilings.items() if name != MEMORY]
    top = max((one.rate for one in products), default=memory * right)
    corner = min(right, top / memory)
    axes.plot([left, corner], [memory * left, memory * corner], color=MUTED.token, linewidth=2, zorder=1)
    at = (left * corner) ** 0.5
    text = f"{units.quantity(memory, 'B/s')} memory{_kind(ceilings[MEMORY])}"
    axes.annotate(
        text, (at, memory * at), (-8, 8), textcoords="offset points", ha="right", color=INK.token, fontsize=11, bbox=BOX
    )
    names = [f"{units.quantity(one.rate, 'FLOP/s')} {drawn(one.what, 14)}{_kind(one)}" for one in products]
    side_labels(axes, [(one.rate, name, MUTED) for one, name in zip(products, names, strict=True)])
    for one in products:
        start = max(left, one.rate / memory)
        if start < right:
            axes.plot([start, right], [one.rate, one.rate], color=MUTED.token, linewidth=2, zorder=1)


def _kind(ceiling: Ceiling) -> str:
    return "" if ceiling.kind == "measured" else " (published peak)"


def _names(axes: Axes, ladder: Ladder, rows: Sequence[tuple[Rung, list[OpRate]]]) -> None:
    """Names of the ops with the most time at the quickest rung."""
    best = ladder.best
    rates = next((found for rung, found in rows if best and rung.name == best.name), [])
    named = sorted(rates, key=lambda one: -one.time_s)[:NAMED]
    # From right to left, so that the lines to the names do not cross.
    for number, rate in enumerate(sorted(named, key=lambda one: -one.intensity)):
        axes.annotate(
            drawn(rate.op, 24),
            (rate.intensity, rate.flops_s),
            (1.022, 0.62 - 0.075 * number),
            textcoords="axes fraction",
            va="center",
            fontsize=11,
            arrowprops={"arrowstyle": "-", "color": MUTED.token, "linewidth": 1, "relpos": (0, 0.5), "shrinkB": 4},
            zorder=2,
        )


def _ceiling_words(ceilings: Mapping[str, Ceiling]) -> str:
    parts = [
        f"{units.quantity(one.rate, 'B/s' if name == MEMORY else 'FLOP/s')} {shown(name, 24)}{_kind(one)}"
        for name, one in ceilings.items()
    ]
    return f"Ceilings: {', '.join(parts)}."


def _words(rows: Sequence[tuple[Rung, list[OpRate]]]) -> str:
    parts = []
    for rung, rates in rows:
        told = [f"{shown(rate.op, 32)} {units.quantity(rate.flops_s, 'FLOP/s')}" for rate in rates]
        parts.append(f"{rung.label}: {units.listing(told, 12)}")
    return "; ".join(parts) + "."
