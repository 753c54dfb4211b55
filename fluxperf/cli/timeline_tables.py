"""Tables of a timeline for the terminal: costs of ranges, kernels, copies, waits, and findings."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from fluxperf.cli.terminal import Console
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown
from fluxperf.harness.timeline.differing import Change, Difference
from fluxperf.harness.timeline.findings import KINDS, Finding
from fluxperf.harness.timeline.ledger import Comparison
from fluxperf.harness.timeline.summary import Row, Summary
from fluxperf.harness.timeline.tree import Branch
from fluxperf.words import plural

#: Minimum column width of names in a terminal, however wide the figures are.
_NARROWEST = 9

#: Minimum terminal width for padding between the columns of a table.
_ROOMY = 90


def show(summary: Summary, found: list[Finding], top: int, branches: list[Branch] | None = None) -> None:
    """Prints a summary, findings, and advice. With branches, a tree replaces the table of ranges."""
    console = Console(highlight=False)
    console.print(Text(_heading(summary)), soft_wrap=True)
    for gpu in summary.gpus:
        share = units.percent(gpu.busy_ms / gpu.span_ms) if gpu.span_ms else units.NONE
        name = f" {shown(gpu.name, 60)}" if gpu.name else ""
        console.print(_plain(f"GPU {gpu.gpu}{name}: busy {share} of {_ms(gpu.span_ms)}"), soft_wrap=True)
    for row in summary.overlaps:
        hidden = units.percent(row.overlap_ms / row.communication_ms) if row.communication_ms else units.NONE
        text = f"GPU {row.gpu}: NCCL {_ms(row.communication_ms)}, {hidden} of it overlapped by other kernels"
        console.print(_plain(f"{text} ({_ms(row.exposed_ms)} not overlapped)"), soft_wrap=True)
    if summary.in_ops is not None:
        console.print(_plain(f"Steps: ops account for {units.percent(summary.in_ops)} of their GPU time"))
    padding = 0 if console.width < _ROOMY else 1
    console.print(_table(summary, top, padding) if branches is None else _tree(branches, top, padding))
    if summary.by != "kernel" and summary.total.top_kernels:
        console.print(_kernels(summary.total, top))
    if summary.total.copies:
        console.print(_copies(summary.total, top))
    if summary.waits:
        console.print(_waits(summary, top))
    if found:
        console.print(_findings(found, top))
        for name in dict.fromkeys(row.finding for row in found[:top]):
            _advise(console, name, {row.advice: row.seen for row in reversed(found[:top]) if row.finding == name})
    else:
        console.print("No findings.")
    for note in summary.notes:
        console.print(Text(f"Note: {shown(note, 400)}"))


def _advise(console: Console, name: str, seen: dict[str, str]) -> None:
    """Prints the meaning of a kind of finding and the advice: one line, or a line for each different advice.

    Args:
        console: console to print to.
        name: name of the kind.
        seen: what was seen, by advice; the most expensive last.
    """
    told = f"{name}: {KINDS[name].meaning}."
    if len(seen) == 1:
        console.print(Text(f"{told} {next(iter(seen))}"))
        return
    console.print(Text(told))
    for advice, what in reversed(seen.items()):
        console.print(Text(f"  {advice} ({what})"))


def show_difference(found: Difference, top: int) -> None:
    """Prints what changed from one capture to another."""
    console = Console(highlight=False)
    console.print(Text(f"{shown(found.before, 200)} -> {shown(found.after, 200)}"), soft_wrap=True)
    padding = 0 if console.width < _ROOMY else 1
    for title, rows in (
        ("by range, children included", found.ranges), ("by op", found.ops), ("by kernel", found.kernels)
    ):  # fmt: skip
        console.print(_changes(title, rows, found.total, top, padding))


def _changes(title: str, rows: list[Change], total: Change, top: int, padding: int) -> Table:
    figures = ("GPU", "", "change", "calls", "", "kernels", "", "copies", "", "waits", "")
    view = _view(f"{title}, GPU times in ms: before, after", ("row",), figures, padding)
    for row in rows[:top]:
        note = "" if row.seen == "in both" else f" ({row.seen})"
        view.add_row(Text(shown(row.name, 300) + note), *_change_cells(row))
    _more(view, len(rows), top)
    view.add_section()
    view.add_row("total", *_change_cells(total))
    return view


def _change_cells(row: Change) -> list[str]:
    before, after = row.before, row.after
    share = _plain(units.change(after.gpu_ms / before.gpu_ms - 1)) if before.gpu_ms and after.gpu_ms else ""
    cells = [_figure(before.gpu_ms), _figure(after.gpu_ms), share]
    for name in ("calls", "kernels", "copies", "waits"):
        cells += [str(getattr(side, name) or "") for side in (before, after)]
    return cells


def show_comparison(comparison: Comparison) -> None:
    """Prints differences between the capture and the ledger."""
    console = Console(highlight=False)
    for line in comparison.agreed:
        console.print(Text(line), soft_wrap=True)
    for line in comparison.problems:
        console.print(Text(f"DIFFERS: {line}", style="red"), soft_wrap=True)


def _heading(summary: Summary) -> str:
    counts = f"{units.plural(summary.processes, 'process', 'processes')}, {units.plural(summary.threads, 'thread')}"
    about = [f"{shown(summary.tool, 40)} {shown(summary.product, 40) if summary.product else ''}".rstrip()]
    if summary.schema:
        about.append(f"schema {shown(summary.schema, 40)}")
    return _plain(f"{shown(summary.source, 200)}: {', '.join([*about, counts])}")


def _plain(text: str) -> str:
    return text.replace(units.NBSP, " ")


def _ms(value: float) -> str:
    return _plain(units.time(value / 1e3))


def _figure(value: float) -> str:
    """A figure without its unit, which is in the heading: three decimals, none from 1000 on; blank if there is none."""
    if not value:
        return ""
    return f"{value:,.3f}" if value < 100 else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def _view(title: str, names: Sequence[str], figures: Sequence[str], padding: int = 1) -> Table:
    """An empty table: columns of names, which wrap, and of figures, which do not."""
    view = Table(title=title, title_justify="left", padding=(0, padding))
    for heading in names:
        view.add_column(heading, overflow="fold", min_width=_NARROWEST if len(names) == 1 else None)
    for heading in figures:
        view.add_column(heading, justify="right", no_wrap=True)
    return view


def _table(summary: Summary, top: int, padding: int) -> Table:
    """A row for each range, and one of totals."""
    figures = ("calls", "host", "GPU", "idle", "kernels", "copies", "MB", "waits")
    view = _view(f"by {summary.by}, times in ms", (summary.by,), figures, padding)
    for row in summary.rows[:top]:
        view.add_row(Text(shown(row.name, 160)), *_cells(row))
    _more(view, len(summary.rows), top)
    view.add_section()
    view.add_row("total", *_cells(summary.total))
    return view


def _tree(branches: list[Branch], top: int, padding: int) -> Table:
    """The ranges with the most GPU time and their parents, children included."""
    rows = [row for branch in branches for row in branch.rows()]
    longest = sorted(range(len(rows)), key=lambda at: (-rows[at][1].gpu_ms, -rows[at][1].host.total_ms, at))
    figures = ("calls", "host", "GPU", "idle", "min", "median", "max", "kernels", "copies", "MB", "waits")
    view = _view("each range with its children, times in ms", ("range",), figures, padding)
    for at in sorted(longest[:top]):
        depth, row = rows[at]
        turns = row.projected
        spread = (0, 0, 0) if turns is None else (turns.min_ms, turns.median_ms, turns.max_ms)
        times = map(_figure, (row.host.total_ms, row.gpu_ms, row.idle_ms, *spread))
        counts = (str(row.kernels or ""), str(row.copies or ""), _figure(row.copy_bytes / 1e6), str(row.waits or ""))
        view.add_row(Text("  " * depth + shown(row.name, 120)), str(row.calls or ""), *times, *counts)
    _more(view, len(rows), top)
    return view


def _cells(row: Row) -> list[str]:
    moved = sum(copy.bytes for copy in row.copies)
    return [
        str(row.calls or ""),
        _figure(row.host_ms),
        _figure(row.gpu_ms),
        _figure(row.idle_ms),
        str(row.kernels or ""),
        str(sum(copy.count for copy in row.copies) or ""),
        _figure(moved / 1e6),
        str(row.syncs or ""),
    ]


def _more(view: Table, number: int, top: int) -> None:
    """Prints how many rows were left out of a table."""
    if number > top:
        view.add_row(Text(f"{plural(number - top, 'more row')} (--top)", style="dim"))


def _kernels(total: Row, top: int) -> Table:
    view = _view("top kernels", ("kernel",), ("launches", "ms", "share"))
    for row in total.top_kernels[:top]:
        share = _plain(units.percent(row.gpu_ms / total.gpu_sum_ms)) if total.gpu_sum_ms else ""
        view.add_row(Text(shown(row.name, 120)), str(row.count), _figure(row.gpu_ms), share)
    _more(view, total.kernel_names, top)
    return view


def _copies(total: Row, top: int) -> Table:
    view = _view("copies", ("direction", "memory"), ("count", "size", "ms"))
    for row in total.copies[:top]:
        memory = Text(f"{shown(row.source_memory, 40)} to {shown(row.target_memory, 40)}")
        direction = Text(shown(row.direction, 60))
        view.add_row(direction, memory, str(row.count), _plain(units.quantity(row.bytes, "B")), _figure(row.gpu_ms))
    _more(view, len(total.copies), top)
    return view


def _waits(summary: Summary, top: int) -> Table:
    view = _view("waits of the host", ("call", "kind"), ("count", "ms", "longest"))
    for row in summary.waits[:top]:
        view.add_row(Text(shown(row.call, 80)), row.kind, str(row.count), _figure(row.ms), _figure(row.longest_ms))
    _more(view, len(summary.waits), top)
    return view


def _findings(found: list[Finding], top: int) -> Table:
    view = _view("findings, by cost", ("finding", "range", "seen"), ("count", "ms"))
    view.columns[0].no_wrap = True
    for row in found[:top]:
        named = (row.finding, Text(shown(row.range, 160)), Text(shown(row.seen)))
        view.add_row(*named, str(row.count), _figure(row.cost_ms))
    _more(view, len(found), top)
    return view
