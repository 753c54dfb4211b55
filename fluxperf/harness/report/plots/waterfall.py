"""Waterfall: milliseconds that each rung saved or added, from the first rung to the time left at the last."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from fluxperf.harness.facts.provenance import provenance
from fluxperf.harness.facts.samples import summary_of
from fluxperf.harness.facts.study import Ladder, Rung, median_of
from fluxperf.harness.pages import svg
from fluxperf.harness.pages.svg import LESS, MUTED, UP, WHOLE, Figure
from fluxperf.harness.report.plots.frame import ROW, TWIN_TITLE, axes_of, bar, label, place_of, rows_of
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import drawn

#: Ratio of the first rung to the second from which an enlarged copy is drawn.
_DWARFS = 8.0


def waterfall(ladder: Ladder, prefix: str) -> Figure | None:
    """The waterfall of a ladder; ``None`` without the first rung's time and another."""
    timed = ladder.timed
    if len(timed) < 2 or timed[0].name != ladder.start:
        return None
    title = "Where the denoise time went" + (f" ({TWIN_TITLE})" if ladder.twin else "")
    words = f"{title}. {waterfall_words(ladder)}"
    rungs = [rung for rung in ladder.rungs if rung.info]
    near = _enlarged(rungs)
    width = 1000 if near else 620
    with svg.settings():
        canvas = svg.canvas(width, 76 + ROW * (len(rungs) + 1))
        axes = axes_of(canvas, 0.19 * 620 / width, 0.86)
        _draw(axes, rungs, timed[-1], twin=ladder.twin)
        if near:
            box = axes.get_position()
            axes.set_position((box.x0, box.y0, 0.4, box.height))
            second = canvas.add_axes((0.62, box.y0, 0.36, box.height))
            _draw(second, rungs, timed[-1], twin=ladder.twin, largest=near)
            second.set_yticklabels([])
            second.set_title("the same, enlarged; longer bars are cut", loc="left", fontsize=11)
        source = provenance([rung.record for rung in timed if rung.record])
        return Figure(svg.inline(canvas, f"{prefix}-waterfall", title, words), title, words, width, source)


def _enlarged(rungs: Sequence[Rung]) -> float:
    """Seconds at the end of the axis of an enlarged copy; 0 if no copy is needed."""
    values = [found.median for found in (summary_of(rung.record) for rung in rungs) if found]
    return values[1] if len(values) > 2 and values[0] > _DWARFS * values[1] else 0.0


def _draw(axes: Axes, rungs: Sequence[Rung], last: Rung, *, twin: bool, largest: float = 0.0) -> None:
    """Bars from the first rung's time to the remaining time. With ``largest`` the axis ends there and cuts bars."""
    cut = bool(largest)
    largest = largest or max(found.median for found in (summary_of(rung.record) for rung in rungs) if found)
    factor, unit = (1.0, "s") if largest >= 1 else (1e-3, "ms")
    level = 0.0
    gap: list[str] = []
    for row, rung in enumerate(rungs):
        found = summary_of(rung.record)
        if not found:
            gap.append(drawn(rung.name, 14))
            label(axes, level, row, "no record", MUTED)
            continue
        now = found.median / factor
        change = now - level
        colour = WHOLE if row == 0 else LESS if change <= 0 else UP
        bar(axes, row, level, change, colour, twin=twin)
        sign = "" if row == 0 else "+" if change > 0 else units.MINUS
        text = f"{sign}{units.time(abs(change) * factor)}" + (f", with {units.listing(gap, 2)}" if gap else "")
        gap = []
        label(
            axes,
            min(max(level, now), largest / factor) if cut else max(level, now),
            row,
            "" if cut and row < 2 else text,
        )
        axes.plot([now, now], [row + 0.3, row + 0.7], color=MUTED.token, linewidth=1)
        level = now
    bar(axes, len(rungs), 0, level, WHOLE, twin=twin)
    label(axes, level, len(rungs), units.time(level * factor))
    rows_of(axes, [*(place_of(rung) for rung in rungs), f"left at {drawn(last.name, 14)}"])
    axes.set_xlim(0, largest / factor * 1.22)
    axes.set_xlabel(f"{unit} for all steps (median)", fontsize=11)


def waterfall_words(ladder: Ladder) -> str:
    """The waterfall as text, one clause per rung."""
    parts: list[str] = []
    before: float | None = None
    for rung in (rung for rung in ladder.rungs if rung.info):
        if not summary_of(rung.record):
            parts.append(f"{rung.label} has no {'time' if rung.record else 'record'}")
            continue
        now = median_of(rung.record)
        if before is None:
            parts.append(f"{rung.label} takes {units.time(now)}")
        else:
            verb = "saves" if now <= before else "adds"
            parts.append(f"{rung.label} {verb} {units.time(abs(now - before))} and leaves {units.time(now)}")
        before = now
    return "; ".join(parts) + "."
