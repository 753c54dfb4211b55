"""``fluxperf history``: every metric over commits, and where its level changed."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from fluxperf.cli.terminal import Console, harmless_json, say
from fluxperf.files import write_whole
from fluxperf.harness.frames import records_frame
from fluxperf.harness.history import Change, History, Series, distinction, load
from fluxperf.harness.history import history as series_of
from fluxperf.harness.metrics import worse_of
from fluxperf.harness.scan import FEWEST
from fluxperf.harness.text import units
from fluxperf.words import plural


def history(
    folder: Annotated[Path, typer.Argument(help="Folder of records files and imported points.")],
    metric: Annotated[
        str | None, typer.Option("--metric", "-m", help="Only this metric; * and ? match several.")
    ] = None,
    machine: Annotated[str | None, typer.Option("--machine", help="Only this machine; * and ? match several.")] = None,
    repo: Annotated[Path, typer.Option("--repo", help="Git checkout that knows the order of the commits.")] = Path(),
    fail_on: Annotated[
        float | None,
        typer.Option(
            "--fail-on",
            min=0,
            help="End with 1 if a series is this many percent worse after its last change than at first.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON document.")] = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write the records as a table too, a row for each record and metric.")
    ] = None,
) -> None:
    """Show every metric over commits, and the commits where its level changed.

    Lines that cannot be read are skipped and named; the rest is shown, and the exit code is 2.
    """
    points, problems = load(folder)
    found = series_of(points, repo, metric, machine, problems)
    if as_json:
        print(harmless_json(msgspec.json.format(msgspec.json.encode(found), indent=1).decode()))
    else:
        _show(found)
    if csv is not None:
        write_whole(csv, records_frame(folder).to_csv(index=False))
        say(f"table -> {csv}", err=as_json)
    for problem in found.problems:
        say(f"fluxperf: {problem}", err=True)
    if found.problems:
        sys.exit(2)
    if fail_on is not None and (worse := worsened(found, fail_on)):
        for name, percent in worse:
            say(f"fluxperf: {name} is {percent:.1f} % worse than at its first level.", err=True)
        sys.exit(1)


def worsened(found: History, percent: float) -> list[tuple[str, float]]:
    """Series whose newest level is worse than their first by more than so many percent, and by how many.

    Series of which nobody knows what is worse, and those that were not searched, have no verdict.
    """
    rows = []
    for series in found.series:
        worse = worse_of(series.metric, series.unit)
        if not series.changes or worse is None:
            continue
        first, last = series.changes[0].old, series.changes[-1].new
        moved = (last - first) if worse == "higher" else (first - last)
        share = 100 * moved / abs(first) if first else math.inf if moved > 0 else 0.0
        if share > percent:
            rows.append((_name(series), share))
    return rows


def _show(found: History) -> None:
    console = Console(highlight=False)
    measured = [series for series in found.series if series.present]
    for place in dict.fromkeys(map(_place, measured)):
        console.print(_table(place, [series for series in measured if _place(series) == place]))
    changed = [series for series in measured if series.changes]
    for series in changed:
        console.print(f"{_name(series)}, on {_place(series)}", style="bold", soft_wrap=True)
        for change in series.changes:
            console.print(_sentence(series, change), soft_wrap=True)
    for note in _notes(found, len(measured), len(changed)):
        console.print(note, soft_wrap=True)


def _notes(found: History, measured: int, changed: int) -> list[str]:
    """What the tables do not say."""
    notes = [f"{plural(measured, 'series', 'series')}, {changed} with changes."]
    unjudged = sum(not series.judged for series in found.series if series.present)
    if len(found.series) > measured:
        notes.append(f"{len(found.series) - measured} more have no value at any commit: failed or skipped.")
    if unjudged:
        notes.append(
            f'"?" under changes: {unjudged} series of times with fewer than {FEWEST} commits, not searched for changes.'
        )
    if any(series.order == "time" for series in found.series):
        notes.append("Some commits are not in this checkout; their series are in order of time. --repo names another.")
    return notes


def _place(series: Series) -> str:
    """Machine, how things ran there, and asv's environment: what times depend on besides the commit."""
    environment = series.variant.get("environment", "")
    return ", ".join(part for part in (series.machine, series.ran_as, environment) if part)


def _table(place: str, rows: list[Series]) -> Table:
    """A row per series: its newest value, and how often its level changed."""
    view = Table(title=place, title_justify="left")
    view.add_column("series", overflow="fold")
    for heading in ("commits", "missing", "newest", "changes"):
        view.add_column(heading, justify="right", no_wrap=True)
    for series in rows:
        present = series.present
        view.add_row(
            _name(series),
            str(len(series.points)),
            str(len(series.points) - len(present) or ""),
            shown(present[-1].value, series.unit),
            str(len(series.changes) or "") if series.judged else "?",
        )
    return view


def _name(series: Series) -> str:
    """Workload, rung and metric, with what else tells its series apart."""
    name = " ".join(part for part in (series.workload, series.rung, series.metric) if part)
    told = distinction(series)
    return f"{name} ({told})" if told else name


def _sentence(series: Series, change: Change) -> str:
    """A change in words."""
    percent = "from zero" if change.percent is None else units.change(change.percent / 100).replace(units.NBSP, " ")
    old, new = shown(change.old, series.unit), shown(change.new, series.unit)
    if old == new and series.unit == "bytes":
        # A change is a fact however small it is; rounded, both sides look the same.
        old, new = f"{change.old:,.0f} B", f"{change.new:,.0f} B"
    also = "".join(f"; {name} {versions}" for name, versions in change.environment.items())
    commits = f"{change.old_commits} and {plural(change.new_commits, 'commit')}"
    return f"  {_short(change.before)} -> {_short(change.after)}  {old} -> {new}  {percent}  ({commits}{also})"


def _short(name: str) -> str:
    """A commit's first ten digits, with its mark of changed files."""
    return name if name.startswith("no commit") else f"{name[:10]}{'+' if name.endswith('+') else ''}"


def shown(value: float | None, unit: str) -> str:
    """A value with its unit."""
    return "none" if value is None else units.written(value, unit).replace(units.NBSP, " ")
