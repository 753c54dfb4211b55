"""``fluxperf history``: finds the commits at which the level of a metric changed."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fluxperf.cli.course import course_of, course_table, draw_course
from fluxperf.cli.grammar import Json, deliver
from fluxperf.cli.progress import Stages
from fluxperf.cli.terminal import Console, say
from fluxperf.cli.tracking import Checkout, check_checkout, rules_of
from fluxperf.errors import ConfigError, UnknownNameError
from fluxperf.files import write_whole
from fluxperf.harness.frames import csv_of
from fluxperf.harness.history import history as series_of
from fluxperf.harness.history import load
from fluxperf.harness.metrics import worse_of
from fluxperf.harness.revisions import is_shallow
from fluxperf.harness.scan import FEWEST
from fluxperf.harness.series import Budget, Change, History, Series, distinction
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import neutral
from fluxperf.shipped import POLICY
from fluxperf.words import plural

_Csv = Annotated[
    Path | None, typer.Option("--csv", help="Also write the records as CSV, with a row for each record and metric.")
]
_FailOn = Annotated[
    str | None,
    typer.Option(
        "--fail-on",
        help="Exit with 1 on a condition: slower (a time got worse and is still worse), worse (the same for all "
        "metrics, counts included), budget (a budget is exceeded), or a number N (a series is more than N "
        "percent worse than its first level).",
    ),
]
_Committed = Annotated[
    bool,
    typer.Option(
        "--committed", help="Also read records from all commits that touched the folder, deleted files included."
    ),
]


def history(
    places: Annotated[
        list[str],
        typer.Argument(
            help="Folders of records files and imported points; also files, patterns, and URLs that fsspec opens.",
            metavar="PLACE",
        ),
    ],
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            "-m",
            help="Only this metric, by its full name or the part after the last dot; * and ? match several.",
        ),
    ] = None,
    machine: Annotated[str | None, typer.Option("--machine", help="Only this machine; * and ? match several.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Only changes since this day (2026-01-31) or commit.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Also show a table of all series, changed or not.")] = False,
    repo: Checkout = Path(),
    policy: Annotated[Path, typer.Option(help="Policy with rounding slack, references and budgets.")] = POLICY,
    fail_on: _FailOn = None,
    committed: _Committed = False,
    show_course: Annotated[
        bool,
        typer.Option(
            "--course",
            help="Show instead how the time to denoise of the headline workload fell over the commits, for each GPU.",
        ),
    ] = False,
    chart: Annotated[Path | None, typer.Option(help="Write the chart of --course as SVG.")] = None,
    as_json: Json = None,
    csv: _Csv = None,
) -> None:
    """Show when and by how much the level of a metric changed over commits, how certainly, and whether it was repaired.

    Exit codes: 0; 1 if a condition of --fail-on holds; 2 for any other problem. Lines that cannot be read are skipped
    and named. The rest is shown, and the exit code is 2.
    """
    failing = _condition(fail_on)
    check_checkout(repo)
    if show_course or chart is not None:
        with Stages("reading records"):
            marks = course_of(places, committed, repo)
        if chart is not None:
            draw_course(marks, chart)
            say(f"chart -> {chart}")
        if show_course:
            Console(highlight=False).print(course_table(marks))
        return
    with Stages("reading records") as stages:
        columns, problems = load(places, committed=committed)
        stages.next("looking for changes")
        found = series_of(columns, repo, metric, machine, problems, rules_of(policy))
        if since is not None:
            found = _since(found, since)
    if as_json is not None:
        deliver(found.json(), as_json)
    else:
        _show(found, every, is_shallow(repo))
    if csv is not None:
        with Stages("writing the table"):
            write_whole(csv, csv_of(columns))
        say(f"table -> {csv}", err=as_json is not None)
    for problem in found.problems:
        say(f"fluxperf: {problem}", err=True)
    if found.problems:
        sys.exit(2)
    if failing == "budget" and not any(series.budgets for series in found.series):
        raise ConfigError(
            "history --fail-on budget: expected a series with a budget, found none in "
            f"{plural(len(found.series), 'series', 'series')}. Name a records file of the same machine in {policy} "
            "([[reference]] records, budget)."
        )
    if failing is not None and (reasons := failed(found, failing)):
        for reason in reasons:
            say(f"fluxperf: {reason}", err=True)
        sys.exit(1)


def _condition(given: str | None) -> str | float | None:
    """Parses the value of ``--fail-on``: a word, or a number of percent."""
    if given is None or given in ("slower", "worse", "budget"):
        return given
    try:
        percent = float(given)
    except ValueError:
        percent = math.nan
    if not (percent >= 0 and math.isfinite(percent)):
        raise typer.BadParameter(
            f"expected slower, worse, budget or a number of percent, got {given!r}.", param_hint="--fail-on"
        )
    return percent


def failed(found: History, condition: str | float) -> list[str]:
    """One sentence for each series that meets the condition of ``--fail-on``."""
    if isinstance(condition, float):
        return [
            f"{name} is {percent:.1f} % worse than its first level." for name, percent in worsened(found, condition)
        ]
    if condition == "budget":
        return [
            f"{_name(series)}, on {_place(series)}: {_used(budget)}."
            for series in found.series
            for budget in series.budgets
            if budget.used > 1
        ]
    return [
        f"{_name(series)}, on {_place(series)}: worse since {_short(change.after)}, {_repair(change)}."
        for series in found.series
        if condition == "worse" or not series.exact
        for change in series.changes
        if _lasts(change)
    ]


def worsened(found: History, percent: float) -> list[tuple[str, float]]:
    """Series whose newest level is worse than their first by more than a number of percent, with that percentage.

    Series without a known worse direction, and series that were not searched, are left out.
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


def _since(found: History, since: str) -> History:
    """A history reduced to the changes since a day or a commit.

    Raises:
        UnknownNameError: it is neither a day nor the beginning of a measured commit.
    """
    day = since
    if not re.fullmatch(r"\d{4}-\d\d-\d\d.*", since):
        takens = [taken for taken in (found.series[0].course.takens if found.series else []) if taken.commit]
        dates = [taken.date_utc for taken in takens if (taken.commit or "").startswith(since)]
        if not since or not dates:
            raise UnknownNameError("day or commit", since, dict.fromkeys((taken.commit or "")[:10] for taken in takens))
        day = min(dates)
    return found._replace(series=[one.since(day) for one in found.series])


def _show(found: History, every: bool, shallow: bool) -> None:
    console = Console(highlight=False)
    measured = [series for series in found.series if len(series.values)]
    changed = [series for series in measured if series.changes]
    for series in sorted(changed, key=_newest, reverse=True):
        console.print(f"{_name(series)}, on {_place(series)}", style="bold", soft_wrap=True)
        for change in reversed(series.changes):
            console.print(_sentence(series, change), soft_wrap=True)
    for series in measured:
        for budget in series.budgets:
            console.print(f"{_name(series)}, on {_place(series)}: {_used(budget)}.", soft_wrap=True)
    for place in dict.fromkeys(map(_place, measured)) if every else ():
        console.print(_table(place, [series for series in measured if _place(series) == place]))
    for note in _notes(found, len(measured), len(changed), shallow):
        console.print(note, soft_wrap=True)
    if not every and measured:
        console.print("--all shows every series.", soft_wrap=True)


def _newest(series: Series) -> tuple[bool, str]:
    """Sort key: unrepaired changes for the worse first, then the newest changes."""
    return any(map(_lasts, series.changes)), series.changes[-1].date_utc


def _used(budget: Budget) -> str:
    """The used share of a budget, as a sentence."""
    return f"{budget.used:.0%} of the {budget.budget:.1%} from the reference {budget.name} is used"


def _notes(found: History, measured: int, changed: int, shallow: bool) -> list[str]:
    """Notes below the tables."""
    notes = [f"{plural(measured, 'series', 'series')}, {changed} with changes."]
    unjudged = sum(not series.judged for series in found.series if len(series.values))
    if len(found.series) > measured:
        notes.append(
            f"{len(found.series) - measured} more have no value at any commit: every run failed or was skipped."
        )
    ended = sum(len(series.values) > 0 and series.rows[-1] not in series.there for series in found.series)
    if ended:
        many = "their newest commits" if ended > 1 else "its newest commit"
        notes.append(
            f"{plural(ended, 'series', 'series')} without a value at {many}: failed or skipped there, so not judged."
        )
    if unjudged:
        notes.append(f"{unjudged} series of times with fewer than {FEWEST} commits were not searched for changes.")
    if any(series.order == "time" for series in found.series):
        known = "is a shallow clone and lacks commits (git fetch --unshallow gets them)" if shallow else "lacks some"
        notes.append(
            f"The checkout {known}: series with such commits are ordered by time. --repo names another checkout."
        )
    return notes


def _place(series: Series) -> str:
    """Machine, conditions of the runs, and environment of asv: everything that times depend on besides the commit."""
    environment = series.variant.get("environment", "")
    return neutral(", ".join(part for part in (series.machine, series.ran_as, environment) if part))


def _table(place: str, rows: list[Series]) -> Table:
    """A row per series: its newest value, and how often its level changed."""
    view = Table(title=place, title_justify="left")
    view.add_column("series", overflow="fold")
    for heading in ("commits", "missing", "newest", "changes"):
        view.add_column(heading, justify="right", no_wrap=True)
    for series in rows:
        view.add_row(
            _name(series),
            str(len(series.rows)),
            str(len(series.rows) - len(series.values) or ""),
            shown(float(series.values[-1]), series.unit),
            str(len(series.changes) or "") if series.judged else "?",
        )
    return view


def _name(series: Series) -> str:
    """Workload, rung and metric, with the other settings that distinguish the series."""
    name = " ".join(part for part in (series.workload, series.rung, series.metric) if part)
    told = distinction(series)
    # A line break within a name would begin a new line, which CI may read as a command.
    return neutral(f"{name} ({told})" if told else name)


def _sentence(series: Series, change: Change) -> str:
    """A change as a sentence: commits, size, certainty, repair, and other possible causes."""
    percent = "from zero" if change.percent is None else _percent(change.percent)
    old, new = shown(change.old, series.unit), shown(change.new, series.unit)
    if old == new and series.unit == "bytes":
        # Every change is shown, however small. Rounded, both sides would look the same.
        old, new = f"{change.old:,.0f} B", f"{change.new:,.0f} B"
    also = neutral("".join(f"; {name} {versions}" for name, versions in change.environment.items()))
    commits = f"{change.old_commits} and {plural(change.new_commits, 'commit')}"
    ends = f"{_short(change.before)} -> {_short(change.after)}"
    told = [f"  {ends}  {old} -> {new}  {percent}  ({commits}{also})", change.date_utc[:10]]
    if change.kind == "ramp":
        told.append("gradually")
    if change.low is not None and change.high is not None:
        told.append(f"95 %: {_percent(change.low)} to {_percent(change.high)}")
    if change.chance is not None:
        told.append(f"chance {max(change.chance, 1e-12):.0e}")
    if change.cycles is not None:
        told.append(f"cycles {_percent(change.cycles)}" if change.cycles else "cycles did not change")
    if change.worse:
        told.append(_repair(change))
    return ", ".join(told)


def _lasts(change: Change) -> bool:
    """Whether a series became worse at a change and is still worse."""
    return bool(change.worse and (not change.repaired or change.left is not None))


def _repair(change: Change) -> str:
    """Whether and where a change for the worse was repaired, and how much of it is left."""
    if not change.repaired:
        return "not repaired"
    if change.left is None:
        return f"repaired at {_short(change.repaired)}"
    return f"repaired in part at {_short(change.repaired)}, still {change.left:.1f} % worse"


def _percent(value: float) -> str:
    return units.change(value / 100).replace(units.NBSP, " ")


def _short(name: str) -> str:
    """The first ten digits of a commit, with its mark for uncommitted changes."""
    return neutral(name) if name.startswith("no commit") else f"{neutral(name[:10])}{'+' if name.endswith('+') else ''}"


def shown(value: float | None, unit: str) -> str:
    """A value with its unit."""
    return "none" if value is None else units.written(value, unit).replace(units.NBSP, " ")
