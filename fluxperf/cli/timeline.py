"""``fluxperf timeline``: what each NVTX range of a capture cost, and what need not be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fluxperf.cli.per_op import Ceilings, PerOpFile, rates_of, show_per_op, table_per_op
from fluxperf.errors import ConfigError, TimelineError, UnknownNameError
from fluxperf.files import write_whole
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import neutral, shown
from fluxperf.harness.timeline.blind import blind_spots
from fluxperf.harness.timeline.findings import KINDS, Finding, findings, known_findings
from fluxperf.harness.timeline.ledger import Comparison, compare, read_ledger
from fluxperf.harness.timeline.model import Diagnostic, Loss
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.reading import read_timeline
from fluxperf.harness.timeline.summary import GROUPINGS, Row, Summary, summarize
from fluxperf.harness.timeline.trace import trace_parts
from fluxperf.harness.timeline.trimming import trim
from fluxperf.words import plural


class _Document(msgspec.Struct, frozen=True):
    """What ``--json`` prints."""

    schema: int
    summary: Summary
    findings: list[Finding]
    failed_on: list[str]
    #: Findings that were named and whose absence proves nothing here, with the reason.
    undecided: dict[str, str]
    #: The same for all kinds of findings, whether they were named or not.
    blind_spots: dict[str, str]
    losses: list[Loss]
    diagnostics: list[Diagnostic]
    ledger: Comparison | None
    #: A `PerOp` of the report; its module reads records with SciPy, which is not imported for a table without one.
    per_op: Any


def timeline(
    file: Annotated[
        Path, typer.Argument(help="A capture: .sqlite, .nsys-rep where nsys is installed, or a trace of ours, .json.")
    ],
    by: Annotated[str, typer.Option("--by", help=f"A row for each: {', '.join(GROUPINGS)}.")] = "op",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON document.")] = False,
    fail_on: Annotated[
        list[str] | None, typer.Option("--fail-on", help=f"Exit with 1 if it is found: {', '.join(KINDS)}. Repeatable.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Rows of each table.")] = 20,
    ledger: Annotated[
        Path | None,
        typer.Option(
            "--ledger",
            help="Compare with this ledger of `fluxperf profile` and show ops of a step; exit with 1 if it differs.",
        ),
    ] = None,
    per_op: PerOpFile = None,
    ceilings: Ceilings = None,
    trimmed: Annotated[
        Path | None,
        typer.Option("--trimmed", help="Write the export without what is not read or tells of its machine."),
    ] = None,
    trace_to: Annotated[
        Path | None, typer.Option("--trace", help="Write a trace for ui.perfetto.dev to this JSON file.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write one offline page to this file: tables, findings, timeline.")
    ] = None,
) -> None:
    """Show what each NVTX range of a capture cost: GPU time, idle, copies, waits, and findings.

    Work belongs to the range that its launch call was made in, not to what happened to be open while it ran.
    """
    if by not in GROUPINGS:
        raise UnknownNameError("grouping", by, GROUPINGS)
    wanted = known_findings(fail_on or [])
    if trimmed is not None and file.suffix in (".json", ".nsys-rep"):
        raise ConfigError(f"timeline --trimmed: expected an .sqlite export to trim, got {file}.")
    counted = read_ledger(ledger) if ledger is not None else None
    rates = rates_of(ceilings) if counted is not None else None
    capture = read_timeline(file)
    places = Places(capture)
    summary, found = summarize(capture, by, places), findings(capture, places)
    if trace_to is not None:
        write_whole(trace_to, trace_parts(capture))
    sizes = None if trimmed is None else trim(file, trimmed)
    if html is not None:
        # matplotlib takes a second to import, which the tables need not pay.
        from fluxperf.harness.capture.page import page

        write_whole(html, page(capture, places, found))
    kinds, blind = {row.finding for row in found}, blind_spots(capture, places)
    undecided = {name: blind[name] for name in dict.fromkeys(wanted) if name in blind and name not in kinds}
    comparison = None if counted is None else compare(capture, counted)
    failed = [name for name in dict.fromkeys(wanted) if name in kinds]
    table = table_per_op(capture, counted, rates, summary.in_ops, per_op)
    if as_json:
        told = (capture.losses, capture.diagnostics)
        document = _Document(1, summary, found, failed, undecided, blind, *told, comparison, table)
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=1).decode() + "\n")
    else:
        show(summary, found, top)
        if comparison is not None:
            show_comparison(comparison)
        show_per_op(table)
    written = {
        f"Trace written to {trace_to}; open it at ui.perfetto.dev.": trace_to is not None,
        f"{trimmed}: {sizes.after:,} B of {sizes.before:,} B." if sizes else "": sizes is not None,
        f"Page written to {html}; open it in a browser.": html is not None,
    }
    for text in (text for text, done in written.items() if done):
        typer.echo(neutral(text), err=True)
    if failed:
        typer.echo(f"fluxperf: found {', '.join(failed)}, as --fail-on names.", err=True)
        raise typer.Exit(1)
    if comparison is not None and comparison.problems:
        raise typer.Exit(1)
    if undecided:
        unproven = "; ".join(f"{name} ({reason})" for name, reason in undecided.items())
        raise TimelineError(
            f"{file}: --fail-on expected a capture that can show what it names, but it cannot: {shown(unproven, 2000)}."
        )


#: Columns of a terminal that names keep, however wide the figures beside them are.
_NARROWEST = 9

#: Columns from which on there is room between the figures and the lines of a table.
_ROOMY = 90


def show(summary: Summary, found: list[Finding], top: int) -> None:
    """Prints a summary, what was found, and what to do."""
    console = Console(highlight=False)
    console.print(Text(_heading(summary)), soft_wrap=True)
    for gpu in summary.gpus:
        share = units.percent(gpu.busy_ms / gpu.span_ms) if gpu.span_ms else units.NONE
        name = f" {shown(gpu.name, 60)}" if gpu.name else ""
        console.print(_plain(f"GPU {gpu.gpu}{name}: busy {share} of {_ms(gpu.span_ms)}"), soft_wrap=True)
    if summary.in_ops is not None:
        console.print(_plain(f"Steps: ops hold {units.percent(summary.in_ops)} of their GPU time"))
    console.print(_table(summary, top, 0 if console.width < _ROOMY else 1))
    if summary.by != "kernel" and summary.total.top_kernels:
        console.print(_kernels(summary.total, top))
    if summary.total.copies:
        console.print(_copies(summary.total, top))
    if summary.waits:
        console.print(_waits(summary, top))
    if found:
        console.print(_findings(found, top))
        for name in dict.fromkeys(row.finding for row in found[:top]):
            advice = dict.fromkeys(row.advice for row in found[:top] if row.finding == name)
            console.print(Text(f"{name}: {KINDS[name].meaning}. {' '.join(advice)}"))
    else:
        console.print("No findings.")
    for note in summary.notes:
        console.print(Text(f"Note: {shown(note, 400)}"))


def show_comparison(comparison: Comparison) -> None:
    """Prints what agrees with the ledger, and what does not."""
    console = Console(highlight=False)
    for line in comparison.agreed:
        console.print(Text(neutral(line)), soft_wrap=True)
    for line in comparison.problems:
        console.print(Text(f"DIFFERS: {neutral(line)}", style="red"), soft_wrap=True)


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
    """A figure without its unit, which the heading has: three decimals, none from 1000 on; blank for none."""
    if not value:
        return ""
    return f"{value:,.3f}" if value < 100 else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def _table(summary: Summary, top: int, padding: int) -> Table:
    """A row for each range, and one of totals."""
    view = Table(title=f"by {summary.by}, times in ms", title_justify="left", padding=(0, padding))
    view.add_column(summary.by, overflow="fold", min_width=_NARROWEST)
    for heading in ("calls", "host", "GPU", "idle", "kernels", "copies", "MB", "waits"):
        view.add_column(heading, justify="right", no_wrap=True)
    for row in summary.rows[:top]:
        view.add_row(Text(shown(row.name, 160)), *_cells(row))
    _more(view, len(summary.rows), top)
    view.add_section()
    view.add_row("total", *_cells(summary.total))
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
    """Says how many rows a table has not."""
    if number > top:
        view.add_row(Text(f"{plural(number - top, 'more row')} (--top)", style="dim"))


def _kernels(total: Row, top: int) -> Table:
    view = Table(title="top kernels", title_justify="left")
    view.add_column("kernel", overflow="fold")
    for heading in ("launches", "ms", "share"):
        view.add_column(heading, justify="right", no_wrap=True)
    for row in total.top_kernels[:top]:
        share = _plain(units.percent(row.gpu_ms / total.gpu_sum_ms)) if total.gpu_sum_ms else ""
        view.add_row(Text(shown(row.name, 120)), str(row.count), _figure(row.gpu_ms), share)
    _more(view, total.kernel_names, top)
    return view


def _copies(total: Row, top: int) -> Table:
    view = Table(title="copies", title_justify="left")
    view.add_column("direction", overflow="fold")
    view.add_column("memory", overflow="fold")
    for heading in ("count", "size", "ms"):
        view.add_column(heading, justify="right", no_wrap=True)
    for row in total.copies[:top]:
        memory = Text(f"{shown(row.source_memory, 40)} to {shown(row.target_memory, 40)}")
        direction = Text(shown(row.direction, 60))
        view.add_row(direction, memory, str(row.count), _plain(units.quantity(row.bytes, "B")), _figure(row.gpu_ms))
    _more(view, len(total.copies), top)
    return view


def _waits(summary: Summary, top: int) -> Table:
    view = Table(title="waits of the host", title_justify="left")
    view.add_column("call", overflow="fold")
    view.add_column("kind", overflow="fold")
    for heading in ("count", "ms", "longest"):
        view.add_column(heading, justify="right", no_wrap=True)
    for row in summary.waits[:top]:
        view.add_row(Text(shown(row.call, 80)), row.kind, str(row.count), _figure(row.ms), _figure(row.longest_ms))
    _more(view, len(summary.waits), top)
    return view


def _findings(found: list[Finding], top: int) -> Table:
    view = Table(title="findings, by cost", title_justify="left")
    view.add_column("finding", no_wrap=True)
    view.add_column("range", overflow="fold")
    view.add_column("seen", overflow="fold")
    view.add_column("count", justify="right", no_wrap=True)
    view.add_column("ms", justify="right", no_wrap=True)
    for row in found[:top]:
        view.add_row(
            row.finding, Text(shown(row.range, 160)), Text(shown(row.seen)), str(row.count), _figure(row.cost_ms)
        )
    _more(view, len(found), top)
    return view
