"""The report's plots: where the time went, what crossed, how far the target is, and the chart of the README.

Every plot comes with its words: a sentence per value, for whoever cannot see it.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from fluxperf.errors import RecordError
from fluxperf.harness.records import RecordsFile
from fluxperf.harness.report import svg, units
from fluxperf.harness.report.escape import drawn, shown
from fluxperf.harness.report.inputs import Context, Published
from fluxperf.harness.report.published import is_full
from fluxperf.harness.report.study import (
    Ladder,
    Rung,
    Study,
    commit_of,
    samples_of,
    summary_of,
    survey,
    unique,
)
from fluxperf.harness.report.svg import DOWN, GRID, INK, LESS, MUTED, PAPER, TARGET, UP, WHOLE, Figure

TWIN_TITLE = "host twins on a CPU: not a GPU's time"

_ROW = 34
_MARKERS = "osD^v"


def waterfall(ladder: Ladder, prefix: str) -> Figure | None:
    """Milliseconds that each rung took away or added, or ``None`` without the first rung's time and another."""
    timed = _timed(ladder)
    if len(timed) < 2 or timed[0].name != ladder.start:
        return None
    title = "Where the denoise time went" + (f" ({TWIN_TITLE})" if ladder.twin else "")
    words = f"{title}. {_waterfall_words(ladder)}"
    rungs = [rung for rung in ladder.rungs if rung.info]
    with svg.settings():
        canvas = svg.canvas(620, 76 + _ROW * (len(rungs) + 1))
        draw_waterfall(_axes(canvas, 0.19, 0.86), rungs, timed[-1], twin=ladder.twin)
        return Figure(svg.inline(canvas, f"{prefix}-waterfall", title, words), title, words, 620)


def draw_waterfall(axes: Axes, rungs: Sequence[Rung], last: Rung, *, twin: bool) -> None:
    """Bars from the first rung's time to what remains at the last, one row per rung."""
    largest = max(found.median for found in (summary_of(rung.record) for rung in rungs) if found)
    factor, unit = (1.0, "s") if largest >= 1 else (1e-3, "ms")
    level = 0.0
    gap: list[str] = []
    for row, rung in enumerate(rungs):
        found = summary_of(rung.record)
        if not found:
            gap.append(drawn(rung.name, 14))
            _label(axes, level, row, "no record", MUTED)
            continue
        now = found.median / factor
        change = now - level
        colour = WHOLE if row == 0 else LESS if change <= 0 else UP
        _bar(axes, row, level, change, colour, twin=twin)
        sign = "" if row == 0 else "+" if change > 0 else units.MINUS
        text = f"{sign}{units.time(abs(change) * factor)}" + (f", with {units.listing(gap, 2)}" if gap else "")
        gap = []
        _label(axes, max(level, now), row, text)
        axes.plot([now, now], [row + 0.3, row + 0.7], color=MUTED.token, linewidth=1)
        level = now
    _bar(axes, len(rungs), 0, level, WHOLE, twin=twin)
    _label(axes, level, len(rungs), units.time(level * factor))
    remains = f"left at {drawn(last.name, 14)}"
    _rows(axes, [*(drawn(rung.name, 18) for rung in rungs), remains])
    axes.set_xlim(0, largest / factor * 1.22)
    axes.set_xlabel(f"{unit} for all steps (median)", fontsize=11)


def copies(ladder: Ladder, prefix: str) -> Figure | None:
    """Copies of one forward at each rung, down and up, or ``None`` without a record."""
    if not ladder.measured:
        return None
    title = "Copies in one forward"
    words = f"{title}. {_copies_words(ladder)}"
    with svg.settings():
        canvas = svg.canvas(620, 76 + _ROW * (len(ladder.rungs) + 1))
        axes = _axes(canvas, 0.19, 0.86)
        draw_copies(axes, ladder.rungs)
        axes.text(0, 1.02, "■ down, device to host", transform=axes.transAxes, color=DOWN.token, fontsize=11)
        axes.text(0.42, 1.02, "■ up, host to device", transform=axes.transAxes, color=UP.token, fontsize=11)
        return Figure(svg.inline(canvas, f"{prefix}-copies", title, words), title, words, 620)


def draw_copies(axes: Axes, rungs: Sequence[Rung], least: int = 0) -> None:
    """Two bars per rung, with their counts; the axis reaches ``least`` at least."""
    totals = [rung.record.totals for rung in rungs if rung.record]
    most = max([least, 1, *(max(row.d2h_copies, row.h2d_copies) for row in totals)])
    for row, rung in enumerate(rungs):
        if not rung.record:
            _label(axes, 0, row, "no record", MUTED)
            continue
        pair = ((-0.17, rung.record.totals.d2h_copies, DOWN), (0.17, rung.record.totals.h2d_copies, UP))
        if not pair[0][1] and not pair[1][1]:
            _label(axes, 0, row, "0", MUTED)
            continue
        for offset, number, colour in pair:
            axes.barh(row + offset, number, height=0.3, color=colour.token)
            _label(axes, number, row + offset, f"{number:,}")
    _rows(axes, [drawn(rung.name, 18) for rung in rungs])
    axes.set_xlim(0, most * 1.15)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.set_xlabel("copies", fontsize=11)


def progress(study: Study, prefix: str) -> Figure:
    """The way from the published baseline to the target, with a dot for each rung that a GPU measured."""
    ladders = on_axis(study)
    workload = drawn(study.context.headline_workload)
    title = f"{workload}: time to denoise, from the published baseline toward the target"
    words = f"{title}. {_progress_words(study, ladders)}"
    with svg.settings():
        canvas = svg.canvas(1000, 440)
        axes = canvas.add_axes((0.07, 0.11, 0.74, 0.79))
        draw_progress(axes, study, ladders)
        return Figure(svg.inline(canvas, prefix, title, words), title, words, 1000)


def on_axis(study: Study) -> list[Ladder]:
    """The ladders whose times belong on the progress axis: of the headline workload, and never a host twin's."""
    headline = study.context.headline_workload
    return [
        ladder
        for ladder in study.ladders
        if ladder.workload.name == headline and not ladder.twin and any(summary_of(record) for record in ladder.records)
    ]


def draw_progress(axes: Axes, study: Study, ladders: Sequence[Ladder], fontsize: int = 12) -> None:
    """Reference lines, and one dot per rung with the range of its samples, on a logarithmic axis of seconds."""
    published = study.context.published
    names = [drawn(rung.name, 16) for rung in study.context.ladder]
    for ladder in ladders:
        names += [name for name in map(_place, ladder.measured) if name not in names]
    values = [published.baseline_s, published.target_s, published.peer_s]
    for number, ladder in enumerate(ladders):
        values += _dots(axes, ladder, names, _MARKERS[number % len(_MARKERS)], fontsize)
    axes.set_yscale("log")
    axes.set_ylim(min(values) / 1.9, max(values) * 1.7)
    axes.set_xlim(-0.6, max(1, len(names)) - 0.4)
    axes.set_xticks(range(len(names)), names, fontsize=fontsize)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_locator(NullLocator())
    svg.bare(axes, grid="y")
    _lines(axes, published, fontsize)
    if not ladders:
        text = f"No GPU record of {drawn(study.context.headline_workload)} is in these files."
        box = {"facecolor": PAPER.token, "edgecolor": "none", "pad": 6.0}
        axes.text(0.5, 0.62, text, transform=axes.transAxes, ha="center", color=MUTED.token, fontsize=14, bbox=box)
    elif len(ladders) > 1:
        _legend(axes, ladders, fontsize)


def _lines(axes: Axes, published: Published, fontsize: int) -> None:
    rows = (
        (published.baseline_s, "published baseline", WHOLE, "-"),
        (published.target_s, "target", TARGET, "--"),
        (published.peer_s, f"{drawn(published.peer_name, 20)}, published", LESS, "-"),
    )
    right = axes.get_xlim()[1]
    for value, name, colour, style in rows:
        axes.axhline(value, color=colour.token, linewidth=2, linestyle=style, zorder=1)
        text = f"{units.given(value)}\n{name}"
        _label(axes, right, value, text, fontsize=fontsize - 1)


def _dots(axes: Axes, ladder: Ladder, names: Sequence[str], marker: str, fontsize: int) -> list[float]:
    values: list[float] = []
    for rung in ladder.measured:
        found = summary_of(rung.record)
        if not found:
            continue
        x = names.index(_place(rung))
        colour = TARGET if ladder.ran_as == "peer" else DOWN
        axes.plot([x, x], [found.low, found.high], color=colour.token, linewidth=2, zorder=3)
        axes.plot([x], [found.median], marker, color=colour.token, markersize=9, zorder=4)
        # The label covers the line that it may stand on, but no dot.
        box = {"facecolor": PAPER.token, "edgecolor": "none", "pad": 1.0}
        axes.annotate(
            units.time(found.median),
            (x, found.median),
            xytext=(0, 11),
            textcoords="offset points",
            ha="center",
            color=INK.token,
            fontsize=fontsize,
            bbox=box,
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
        text = drawn(f"{ladder.way}, {ladder.machine}", 52)
        axes.text(x + 0.02, y, text, transform=axes.transAxes, va="center", fontsize=fontsize - 1)


def _place(rung: Rung) -> str:
    return drawn(rung.name, 16)


def _label(axes: Axes, x: float, y: float, text: str, colour: svg.Colour = INK, fontsize: int = 11) -> None:
    """Writes ``text`` a little to the right of a point."""
    axes.annotate(text, (x, y), (5, 0), textcoords="offset points", va="center", color=colour.token, fontsize=fontsize)


def _axes(canvas: Canvas, left: float, top: float) -> Axes:
    height = canvas.get_size_inches()[1] * 72
    bottom = 44 / height
    return canvas.add_axes((left, bottom, 0.98 - left, top + 0.06 - bottom))


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=12)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.tick_params(axis="x", labelcolor=MUTED.token, labelsize=11)
    svg.bare(axes, grid="x")
    axes.axvline(0, color=GRID.token, linewidth=1.5)


def _bar(axes: Axes, row: float, left: float, width: float, colour: svg.Colour, *, twin: bool) -> None:
    axes.barh(row, width, left=left, height=0.6, color=colour.token, hatch="//" if twin else None, linewidth=0)


def _waterfall_words(ladder: Ladder) -> str:
    parts: list[str] = []
    before: float | None = None
    for rung in (rung for rung in ladder.rungs if rung.info):
        now = _median(rung)
        if not now:
            parts.append(f"{rung.label}: no time")
            continue
        if before is None:
            parts.append(f"{rung.label}: {units.time(now)}")
        else:
            verb = "takes away" if now <= before else "adds"
            parts.append(f"{rung.label} {verb} {units.time(abs(now - before))} and leaves {units.time(now)}")
        before = now
    return "; ".join(parts) + "."


def _timed(ladder: Ladder) -> list[Rung]:
    return [rung for rung in ladder.measured if rung.info and summary_of(rung.record)]


def _median(rung: Rung) -> float:
    found = summary_of(rung.record)
    return found.median if found else 0.0


def _copies_words(ladder: Ladder) -> str:
    parts = []
    for rung in ladder.rungs:
        counts = rung.record.totals if rung.record else None
        text = f"{counts.d2h_copies:,} down, {counts.h2d_copies:,} up" if counts else "no record"
        parts.append(f"{rung.label}: {text}")
    return "; ".join(parts) + "."


def _progress_words(study: Study, ladders: Sequence[Ladder]) -> str:
    published = study.context.published
    lines = (
        f"Lines: published baseline {units.given(published.baseline_s)}, target {units.given(published.target_s)}, "
        f"{shown(published.peer_name)} (published) {units.given(published.peer_s)}."
    )
    dots = [
        f"{rung.label} {units.time(_median(rung))} ({ladder.way}, {ladder.machine})"
        for ladder in ladders
        for rung in ladder.measured
        if summary_of(rung.record)
    ]
    if not dots:
        headline = shown(study.context.headline_workload)
        return f"{lines} No GPU record of {headline} is in these files, so there is no dot."
    return f"{lines} Dots: {'; '.join(dots)}."


def readme_chart(files: Sequence[RecordsFile], context: Context, workload: str) -> str:
    """One SVG file for a README, on white: copies per forward at the left, time at the right, rung by rung.

    Of several ladders of ``workload``, the one that a GPU ran comes first, then the one with the most rungs.

    Raises:
        RecordError: the files hold no record of ``workload``.
    """
    found = survey(files, context)
    ladders = [ladder for ladder in found.climbing if ladder.workload.name == workload]
    if not ladders:
        known = units.listing(unique(shown(record.workload.name) for record in found.records)) or "nothing"
        raise RecordError(
            f"no record of workload {workload!r} to draw. The files hold {known}; "
            f"write one with `fluxperf run --all --workload {workload} -o FILE`."
        )
    ladder = max(ladders, key=lambda one: (not one.twin, len(one.measured)))
    title = f"{drawn(ladder.workload.name)}: copies and time, rung by rung"
    words = f"{title}. Copies in one forward: {_copies_words(ladder)} " + _waterfall_words(ladder)
    with svg.settings():
        canvas = svg.canvas(900, 420)
        canvas.text(0.02, 0.935, title, fontsize=17, weight="bold")
        _readme_copies(canvas.add_axes((0.105, 0.2, 0.37, 0.58)), ladder, context.published)
        right = canvas.add_axes((0.605, 0.2, 0.375, 0.58))
        if ladder in on_axis(found):
            right.set_position((0.545, 0.2, 0.31, 0.58))
            draw_progress(right, found, [ladder], fontsize=10)
            right.tick_params(axis="x", rotation=30)
            heading = "Time to denoise, on the GPU (median)"
        else:
            _readme_times(right, ladder)
            heading = f"Time to denoise: {TWIN_TITLE}" if ladder.twin else "Time to denoise (median)"
        right.set_title(heading, loc="left", fontsize=12, pad=24, color=UP.token if ladder.twin else INK.token)
        canvas.text(0.02, 0.035, _readme_source(ladder), fontsize=10.5, color=MUTED.token)
        return svg.standalone(canvas, title, words)


def _readme_copies(axes: Axes, ladder: Ladder, published: Published) -> None:
    base = ladder.baseline
    full = base is not None and is_full(base)
    down, up = published.copies_of(base.workload.model) if base is not None else (0, 0)
    draw_copies(axes, ladder.rungs, max(down, up) if full else 0)
    axes.set_title("Copies in one forward", loc="left", fontsize=12, pad=24)
    axes.text(0, 1.03, "■ down", transform=axes.transAxes, color=DOWN.token, fontsize=11)
    axes.text(0.19, 1.03, "■ up", transform=axes.transAxes, color=UP.token, fontsize=11)
    if full:
        for offset, number in ((-0.17, down), (0.17, up)):
            axes.plot([number, number], [offset - 0.19, offset + 0.19], color=INK.token, linewidth=2.5)
        axes.text(0.33, 1.03, "| published count", transform=axes.transAxes, color=INK.token, fontsize=11)


def _readme_times(axes: Axes, ladder: Ladder) -> None:
    largest = max((_median(rung) for rung in ladder.measured), default=0.0)
    for row, rung in enumerate(ladder.rungs):
        now = _median(rung)
        _bar(axes, row, 0, now, WHOLE, twin=ladder.twin)
        text = units.time(now) if now else "no time" if rung.record else "no record"
        _label(axes, now, row, text, INK if now else MUTED)
    _rows(axes, [drawn(rung.name, 18) for rung in ladder.rungs])
    axes.set_xlim(0, (largest or 1.0) * 1.25)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: units.given(value)))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))


def _readme_source(ladder: Ladder) -> str:
    commits = unique(drawn(commit_of(record), 40) for record in ladder.records)
    samples = unique(samples_of(record) for record in ladder.records)
    return (
        f"{drawn(ladder.way)} on {drawn(ladder.machine, 48)} · {_commits(commits)} · "
        f"samples (processes {units.BY} each): {units.listing(samples, 3)}"
    )


def _commits(commits: Sequence[str]) -> str:
    """Commits in words; one that is not recorded says so by itself."""
    listed = units.listing(commits, 2)
    return listed if listed.startswith("commit") else f"commit {listed}"
