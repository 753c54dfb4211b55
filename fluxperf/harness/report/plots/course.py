"""The course of a project as one SVG file on white: a panel for each GPU model, a mark for each rung at each commit."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from fluxperf.harness.facts.course import Mark
from fluxperf.harness.facts.inputs import Published
from fluxperf.harness.facts.provenance import short, unique
from fluxperf.harness.pages import svg
from fluxperf.harness.pages.svg import MUTED, PAPER, SERIES, TARGET, WHOLE, Colour
from fluxperf.harness.report.plots.frame import legend, seconds, side_labels
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import drawn

#: Pixels: width of the picture, minimum width of a commit, and margins of each panel.
_WIDTH, _HEIGHT, _AROUND = 1080, 430, 0.12


def course_chart(marks: Sequence[Mark], rungs: Sequence[str], workload: str, published: Published) -> str:
    """The picture: commits of a GPU model from left to right, seconds on one logarithmic axis.

    Args:
        marks: by GPU model; at least one.
        rungs: in the order of the ladder; each has a colour.
        workload: workload of all marks.
        published: baseline and target, as lines.
    """
    title = f"{drawn(workload)}: time to denoise over commits"
    cards = unique(mark.card for mark in marks)
    by_time = sorted(marks, key=lambda mark: mark.moment)
    columns = {card: unique(_column(mark) for mark in by_time if mark.card == card) for card in cards}
    words = f"{title}. " + " ".join(_words(card, [mark for mark in marks if mark.card == card]) for card in cards)
    shares = [max(3, len(columns[card])) for card in cards]
    room = 0.83 - 0.035 * (len(cards) - 1)
    with svg.settings():
        canvas = svg.canvas(_WIDTH, _HEIGHT)
        canvas.text(0.02, 0.94, title, fontsize=16, weight="bold")
        left = 0.055
        for number, card in enumerate(cards):
            width = room * shares[number] / sum(shares)
            axes = canvas.add_axes((left, 0.2, width, 0.55))
            left += width + 0.035
            own = [mark for mark in marks if mark.card == card]
            _panel(axes, own, columns[card], rungs)
            seconds(axes, [*(mark.seconds for mark in marks), published.baseline_s])
            if number:
                axes.tick_params(labelleft=False)
            axes.set_title(drawn(card, 40), loc="left", fontsize=12, pad=6)
            rows: list[tuple[float, str, Colour]] = [
                (published.baseline_s, "published", WHOLE),
                (published.target_s, "target", TARGET),
            ]
            for value, _, colour in rows:
                axes.axhline(value, color=colour.token, linewidth=1.5, zorder=1)
            if number == len(cards) - 1:
                newest = quick_of(own)
                best = (newest.seconds, f"{units.time(newest.seconds)} {drawn(newest.rung, 12)}", MUTED)
                side_labels(
                    axes, [(value, f"{units.given(value)} {name}", colour) for value, name, colour in rows] + [best], 10
                )
            if not number:
                named = [rung for rung in rungs if any(mark.rung == rung for mark in marks)]
                entries = [(drawn(rung, 14), *SERIES[rungs.index(rung) % len(SERIES)]) for rung in named]
                _legend(canvas, entries)
        canvas.text(
            0.02, 0.02,
            "Filled: one second of rest before each generation; hollow: back to back. Bars: range of samples. GPUs "
            "of one model differ by a few percent; different models are not compared.",
            fontsize=10, color=MUTED.token,
        )  # fmt: skip
        return svg.standalone(canvas, title, words)


def quick_of(marks: Sequence[Mark]) -> Mark:
    """The shortest time among them."""
    return min(marks, key=lambda mark: mark.seconds)


def _column(mark: Mark) -> str:
    return short(mark.commit)[:7] if mark.commit else mark.day[5:]


def _panel(axes: Axes, marks: Sequence[Mark], columns: Sequence[str], rungs: Sequence[str]) -> None:
    for rung in unique(mark.rung for mark in marks):
        colour, marker = SERIES[rungs.index(rung) % len(SERIES)] if rung in rungs else (MUTED, ".")
        for rest in (0.0, 1.0):
            own = [mark for mark in marks if mark.rung == rung and bool(mark.rest_s) == bool(rest)]
            xs = [columns.index(_column(mark)) for mark in own]
            face = colour.token if rest else PAPER.token
            ys = [mark.seconds for mark in own]
            axes.plot(xs, ys, color=colour.token, linewidth=1.2, marker=marker, markerfacecolor=face, zorder=3)
            for x, mark in zip(xs, own, strict=True):
                axes.plot([x, x], [mark.low, mark.high], color=colour.token, linewidth=1.2, zorder=2)
    axes.set_xlim(-0.6, max(1.0, len(columns) - 0.4))
    axes.set_xticks(range(len(columns)), [drawn(name, 12) for name in columns], fontsize=9, rotation=35, ha="right")


def _legend(canvas: object, entries: Sequence[tuple[str, Colour, str]]) -> None:
    axes = canvas.add_axes((0.055, 0.75, 0.9, 0.12))  # type: ignore[attr-defined]
    axes.axis("off")
    axes.set_ylim(0, 1)
    legend(axes, entries, columns=7, fontsize=10)
    for artist in [*axes.lines, *axes.texts]:
        artist.set_clip_on(False)


def _words(card: str, marks: Sequence[Mark]) -> str:
    first, best = marks[0], quick_of(marks)
    ends = [f"{units.time(mark.seconds)} ({mark.rung}, {mark.day})" for mark in (first, best)]
    return f"{drawn(card, 48)}: from {ends[0]} to {ends[1]}, {units.plural(len(marks), 'mark')}."
