"""``fluxperf timeline``: shows the cost of each NVTX range of a capture, and costs that can be avoided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import typer

from fluxperf.cli import timeline_options as options
from fluxperf.cli.grammar import Json, deliver
from fluxperf.cli.per_op import Ceilings, PerOpFile, rates_of, show_per_op, table_per_op
from fluxperf.cli.progress import Stages
from fluxperf.cli.terminal import say
from fluxperf.cli.timeline_tables import show, show_comparison, show_difference
from fluxperf.documents import formatted
from fluxperf.errors import ConfigError, TimelineError, UnknownNameError
from fluxperf.files import write_whole
from fluxperf.harness.policy import read_policy
from fluxperf.harness.text.escape import shown
from fluxperf.harness.timeline.blind import blind_spots
from fluxperf.harness.timeline.differing import difference
from fluxperf.harness.timeline.filtering import Filter, filtered
from fluxperf.harness.timeline.findings import Finding, findings
from fluxperf.harness.timeline.ledger import Comparison, compare, read_ledger
from fluxperf.harness.timeline.limits import Verdict, default_limits, judge, read_limits
from fluxperf.harness.timeline.model import Damage, Diagnostic, Loss
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.reading import is_trace, read_timeline
from fluxperf.harness.timeline.summary import GROUPINGS, Summary, summarize
from fluxperf.harness.timeline.trace import trace_parts
from fluxperf.harness.timeline.tree import Branch, tree
from fluxperf.harness.timeline.trimming import trim
from fluxperf.shipped import POLICY, present


class _Document(msgspec.Struct, frozen=True):
    """The document that ``--json`` prints."""

    schema: int
    summary: Summary
    findings: list[Finding]
    failed_on: list[str]
    #: Findings named by --fail-on that this capture can neither show nor rule out, with the reason.
    undecided: dict[str, str]
    #: The verdict on each --fail-on.
    limits: list[Verdict]
    #: Findings of all kinds that this capture can neither show nor rule out.
    blind_spots: dict[str, str]
    losses: list[Loss]
    damage: list[Damage]
    diagnostics: list[Diagnostic]
    tree: list[Branch] | None
    ledger: Comparison | None
    #: A `PerOp` of the report. Its module imports SciPy, which is not needed for a table without one.
    per_op: Any


def timeline(
    file: options.Capture,
    against: options.Against = None,
    by: options.By = "op",
    as_json: Json = None,
    fail_on: options.FailOn = None,
    policy: options.PolicyFile = None,
    as_tree: options.AsTree = False,
    top: options.Top = 20,
    ledger: options.LedgerFile = None,
    per_op: PerOpFile = None,
    ceilings: Ceilings = None,
    trimmed: options.Trimmed = None,
    trace_to: options.TraceFile = None,
    html: options.HtmlFile = None,
    between: options.Between = None,
    within: options.Within = None,
    process: options.Process = None,
    gpu: options.Gpu = None,
    domain: options.Domain = None,
) -> None:
    """Show what each NVTX range of a capture costs: GPU time, idle time, copies, waits; and findings.

    GPU work is assigned to the range in which it was launched, not to ranges that were open while it ran.
    """
    if by not in GROUPINGS:
        raise UnknownNameError("grouping", by, GROUPINGS)
    limits = read_limits(fail_on or [], _thresholds(policy))
    part = Filter(between, within, process, gpu, domain)
    if against is not None:
        others: dict[str, Any] = {"--fail-on": fail_on, "--ledger": ledger, "--trimmed": trimmed, "--trace": trace_to}
        others |= {"--tree": as_tree, "--per-op": per_op, "--ceilings": ceilings}
        _compare(file, against, part, {name for name, value in others.items() if value}, as_json, top, html)
        return
    _check(file, part, trimmed, ledger, ceilings)
    counted = read_ledger(ledger) if ledger is not None else None
    rates = rates_of(ceilings) if counted is not None else None
    with Stages(_reading(file)) as stages:
        capture = filtered(read_timeline(file), part)
        stages.next("summing up")
        places = Places(capture)
        summary, found = summarize(capture, by, places), findings(capture, places)
        blind = blind_spots(capture, places)
        verdicts = judge(limits, capture, places, found, blind)
        comparison = None if counted is None else compare(capture, counted)
        branches = tree(capture, places) if as_tree else None
        stages.next("writing")
        if trace_to is not None:
            write_whole(trace_to, trace_parts(capture, places))
        sizes = None if trimmed is None else trim(file, trimmed)
        if html is not None:
            # matplotlib takes a second to import. The tables need not pay for it.
            from fluxperf.harness.capture.page import page

            write_whole(html, page(capture, places, found))
    table = table_per_op(capture, counted, rates, summary.in_ops, per_op)
    if as_json is not None:
        told = (capture.losses, capture.damage, capture.diagnostics)
        failed = [row.limit for row in verdicts if row.state == "broken"]
        undecided = {row.limit: row.reason for row in verdicts if row.state == "undecided"}
        document = _Document(1, summary, found, failed, undecided, verdicts, blind, *told, branches, comparison, table)
        deliver(formatted(document, indent=1), as_json)
    else:
        show(summary, found, top, branches)
        if comparison is not None:
            show_comparison(comparison)
        show_per_op(table)
    written = {
        f"Trace written to {trace_to}; open it at ui.perfetto.dev.": trace_to is not None,
        f"{trimmed}: {sizes.after:,} B, reduced from {sizes.before:,} B." if sizes else "": sizes is not None,
        f"Page written to {html}; open it in a browser.": html is not None,
    }
    for text in (text for text, done in written.items() if done):
        say(text, err=True)
    _end(file, verdicts, comparison)


def _reading(file: Path) -> str:
    return f"reading {shown(file.name, 60)}"


def _check(file: Path, part: Filter, trimmed: Path | None, ledger: Path | None, ceilings: list[Path] | None) -> None:
    """Refuses options that cannot be combined.

    Raises:
        ConfigError: some cannot.
    """
    if trimmed is not None and (is_trace(file) or file.suffix == ".nsys-rep"):
        raise ConfigError(
            f"timeline --trimmed: expected an .sqlite export, got {file}. Export the capture with nsys first."
        )
    if trimmed is not None and part:
        raise ConfigError(
            "timeline --trimmed: expected no --between, --in, --process, --gpu, --domain, as it trims a whole "
            "capture. Leave them out."
        )
    if ceilings and ledger is None:
        raise ConfigError(
            "timeline --ceilings: expected --ledger with the counts of the run, got none. Ceilings need its ops."
        )


def _compare(
    file: Path, against: Path, part: Filter, others: set[str], as_json: Path | None, top: int, html: Path | None
) -> None:
    """Shows what changed from one capture to another, and writes it to a page."""
    if others:
        raise ConfigError(
            f"timeline A B: expected no {', '.join(sorted(others))} with two captures, got both. Leave out that "
            "option, or name one capture."
        )
    with Stages(_reading(file)) as stages:
        first = filtered(read_timeline(file), part)
        stages.next(_reading(against))
        second = filtered(read_timeline(against), part)
        stages.next("comparing")
        found = difference(first, second)
    if as_json is not None:
        deliver(formatted(found, indent=1), as_json)
    else:
        show_difference(found, top)
    if html is not None:
        from fluxperf.harness.capture.compared import compared

        with Stages("drawing the page"):
            write_whole(html, compared(found))
        say(f"Page written to {html}; open it in a browser.", err=True)


def _thresholds(policy: Path | None) -> dict[str, str]:
    """Limits of findings: the defaults, replaced by those of the policy."""
    path = policy or present(POLICY)
    if policy is None and not path.is_file():
        return default_limits()
    return default_limits() | read_policy(path).timeline


def _end(file: Path, verdicts: list[Verdict], comparison: Comparison | None) -> None:
    """Exits by the limits: 1 if a limit is exceeded or the ledger differs, 2 if the capture cannot prove a limit."""
    failed = [row for row in verdicts if row.state == "broken"]
    undecided = [row for row in verdicts if row.state == "undecided"]
    if failed:
        told = ", ".join(f"{row.limit} ({row.seen})" for row in failed)
        say(f"fluxperf: found {told}, named by --fail-on.", err=True)
        raise typer.Exit(1)
    if comparison is not None and comparison.problems:
        raise typer.Exit(1)
    if undecided:
        unproven = "; ".join(f"{row.limit} ({row.reason})" for row in undecided)
        raise TimelineError(
            f"{file}: --fail-on expected a capture that can show or rule out these findings, but it cannot: "
            f"{shown(unproven, 2000)}."
        )
