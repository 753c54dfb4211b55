"""``fluxperf timeline``: what each NVTX range of a capture cost, and what need not be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from fluxperf.cli.per_op import Ceilings, PerOpFile, rates_of, show_per_op, table_per_op
from fluxperf.cli.timeline_tables import show, show_comparison
from fluxperf.errors import ConfigError, TimelineError, UnknownNameError
from fluxperf.files import write_whole
from fluxperf.harness.text.escape import neutral, shown
from fluxperf.harness.timeline.blind import blind_spots
from fluxperf.harness.timeline.findings import KINDS, Finding, findings, known_findings
from fluxperf.harness.timeline.ledger import Comparison, compare, read_ledger
from fluxperf.harness.timeline.model import Diagnostic, Loss
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.reading import read_timeline
from fluxperf.harness.timeline.summary import GROUPINGS, Summary, summarize
from fluxperf.harness.timeline.trace import trace_parts
from fluxperf.harness.timeline.trimming import trim


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
    _end(file, failed, undecided, comparison)


def _end(file: Path, failed: list[str], undecided: dict[str, str], comparison: Comparison | None) -> None:
    """Ends as the gates say: 1 if something was found or differs, 2 if the absence of something proves nothing."""
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
