"""Copies of one forward at each rung, down and up; and copies by label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from fluxperf.harness.facts.provenance import provenance
from fluxperf.harness.facts.study import Ladder, Rung
from fluxperf.harness.pages import svg
from fluxperf.harness.pages.svg import DOWN, GRID, INK, MUTED, PAPER, UP, Figure
from fluxperf.harness.report.plots.frame import ROW, axes_of, label, place_of, rows_of
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import drawn, shown
from fluxperf.words import plural

#: Maximum number of labels with their own row. The rest are summed in one row.
MOST_LABELS = 18

_WAYS = {"d2h": "↓", "h2d": "↑"}


def copies(ladder: Ladder, prefix: str) -> Figure | None:
    """Copies of one forward at each rung, down and up; ``None`` if there are not two rungs."""
    if len(ladder.measured) < 2:
        return None
    title = "Copies in one forward"
    words = f"{title}. {copies_words(ladder)}"
    with svg.settings():
        canvas = svg.canvas(620, 76 + ROW * (len(ladder.rungs) + 1))
        axes = axes_of(canvas, 0.19)
        draw_copies(axes, ladder.rungs)
        axes.text(0, 1.02, "■ down, device to host", transform=axes.transAxes, color=DOWN.token, fontsize=11)
        axes.text(0.42, 1.02, "■ up, host to device", transform=axes.transAxes, color=UP.token, fontsize=11)
        source = provenance(ladder.records)
        return Figure(svg.inline(canvas, f"{prefix}-copies", title, words), title, words, 620, source)


def draw_copies(axes: Axes, rungs: Sequence[Rung], least: int = 0) -> None:
    """Two bars per rung, with their counts; the axis extends at least to ``least``."""
    totals = [rung.record.totals for rung in rungs if rung.record]
    most = max([least, 1, *(max(row.d2h_copies, row.h2d_copies) for row in totals)])
    for row, rung in enumerate(rungs):
        if not rung.record:
            label(axes, 0, row, "no record", MUTED)
            continue
        pair = ((-0.17, rung.record.totals.d2h_copies, DOWN), (0.17, rung.record.totals.h2d_copies, UP))
        if not pair[0][1] and not pair[1][1]:
            label(axes, 0, row, "0", MUTED)
            continue
        for offset, number, colour in pair:
            axes.barh(row + offset, number, height=0.3, color=colour.token)
            label(axes, number, row + offset, f"{number:,}")
    rows_of(axes, [place_of(rung) for rung in rungs])
    axes.set_xlim(0, most * 1.15)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.set_xlabel("copies", fontsize=11)


def copies_words(ladder: Ladder) -> str:
    """Copies at each rung as text, one clause per rung."""
    parts = []
    for rung in ladder.rungs:
        counts = rung.record.totals if rung.record else None
        text = f"{counts.d2h_copies:,} down, {counts.h2d_copies:,} up" if counts else "no record"
        parts.append(f"{rung.label}: {text}")
    return "; ".join(parts) + "."


def labels(ladder: Ladder, prefix: str) -> Figure | None:
    """Copies by direction and label at each rung, as a matrix of counts; ``None`` if no forward copies."""
    counts = {rung.name: _by_label(rung) for rung in ladder.measured}
    whole: Counter[tuple[str, str]] = Counter()
    for found in counts.values():
        whole.update(found)
    if not whole:
        return None
    keys = [key for key, _ in sorted(whole.items(), key=lambda pair: (-pair[1], pair[0]))]
    named, rest = keys[:MOST_LABELS], keys[MOST_LABELS:]
    title = "Copies by label in one forward, rung by rung"
    words = f"{title}: ↓ is device to host, ↑ host to device. {_labels_words(ladder, counts, named, rest)}"
    with svg.settings():
        rows = [*named, *([None] if rest else [])]
        canvas = svg.canvas(1000, 64 + 24 * len(rows))
        height = canvas.get_size_inches()[1] * 72
        axes = canvas.add_axes((0.27, 16 / height, 0.71, 1 - 58 / height))
        for row, key in enumerate(rows):
            for column, rung in enumerate(ladder.rungs):
                number = sum(counts[rung.name][one] for one in ([key] if key else rest)) if rung.record else None
                _cell(axes, column, row, number, max(whole.values()))
        names = [f"{_WAYS[way]} {drawn(name, 30)}" for way, name in named]
        axes.set_yticks(range(len(rows)), [*names, *([plural(len(rest), "more label")] if rest else [])], fontsize=11)
        axes.set_xticks(range(len(ladder.rungs)), [place_of(rung) for rung in ladder.rungs], fontsize=11)
        axes.xaxis.tick_top()
        axes.set_xlim(-0.5, len(ladder.rungs) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        svg.bare(axes)
        source = provenance(ladder.records)
        return Figure(svg.inline(canvas, f"{prefix}-labels", title, words), title, words, 1000, source)


def _by_label(rung: Rung) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for row in rung.record.ledger if rung.record else ():
        found[(row.direction, row.label)] += row.count
    return found


def _cell(axes: Axes, column: int, row: int, number: int | None, most: int) -> None:
    """A square whose shade shows the count, with the number in it; no shade for zero."""
    if number:
        share = 0.15 + 0.85 * min(1.0, number / most)
        _square(axes, column, row, facecolor=DOWN.token, alpha=round(share, 2), linewidth=0)
        ink = PAPER if share > 0.55 else INK
        axes.text(column, row, f"{number:,}", ha="center", va="center", color=ink.token, fontsize=11)
        return
    _square(axes, column, row, facecolor="none", edgecolor=GRID.token, linewidth=1)
    text = "no record" if number is None else "0"
    axes.text(column, row, text, ha="center", va="center", color=MUTED.token, fontsize=10 if number is None else 11)


def _square(axes: Axes, column: int, row: int, **style: Any) -> None:
    """A square of the matrix. As a plain artist it is ten times cheaper than a bar, which updates the axis limits."""
    axes.add_artist(Rectangle((column - 0.47, row - 0.44), 0.94, 0.88, **style))


def _labels_words(
    ladder: Ladder,
    counts: dict[str, Counter[tuple[str, str]]],
    named: Sequence[tuple[str, str]],
    rest: Sequence[tuple[str, str]],
) -> str:
    parts = []
    for rung in ladder.rungs:
        found = counts.get(rung.name)
        if found is None:
            parts.append(f"{rung.label}: no record")
        elif not found:
            parts.append(f"{rung.label}: none")
        else:
            told = [f"{_WAYS[way]} {shown(name, 40)} {found[way, name]:,}" for way, name in named if found[way, name]]
            more = sum(found[key] for key in rest)
            parts.append(f"{rung.label}: {units.listing([*told, *([f'others {more:,}'] if more else [])], 40)}")
    return "; ".join(parts) + "."
