"""History: series over commits, their changes of level, and progress toward the target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from fluxperf.harness.facts.provenance import short, unique
from fluxperf.harness.facts.study import Study
from fluxperf.harness.pages.links import link_to
from fluxperf.harness.pages.panels import Block, Notes, present
from fluxperf.harness.pages.svg import AMBER, Figure
from fluxperf.harness.pages.tables import MISSING, Cell, Column, Table
from fluxperf.harness.report.plots.commits import commits
from fluxperf.harness.report.plots.progress import Line, floor_lines, on_axis, peer_lines, published_lines
from fluxperf.harness.report.plots.sparkline import sparkline
from fluxperf.harness.scan import FEWEST
from fluxperf.harness.series import Change, History, Series, distinction
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown

#: Maximum series and changes in the tables; `fluxperf history` shows all.
MOST_SERIES, MOST_CHANGES = 400, 200

_SERIES = (
    Column("Series", number=False),
    Column("Machine", number=False),
    Column("Commits"),
    Column("Missing", hint="commits without a value: failed or skipped"),
    Column("Oldest"),
    Column("Newest", hint="with the interval from its source"),
    Column("Samples", hint="of the newest value"),
    Column("Changes", hint="commits from which the level is different"),
    Column("Course", number=False, hint="values over commits from lowest to highest, with a ring at each change"),
)

_CHANGES = (
    Column("Series", number=False),
    Column("Before", number=False, hint="the last commit at the old level"),
    Column("After", number=False, hint="the first commit at the new level"),
    Column("Old level"),
    Column("New level"),
    Column(
        "Change", hint="with its 95 % interval, and the probability that noise alone produces such a change in a series"
    ),
    Column("Since", hint="whether a regression was repaired, and by which commit"),
    Column("Commits", hint="of the old and of the new level"),
    Column("What else changed", number=False, hint="versions that may also explain the change"),
)


def past_panels(study: Study) -> list[Block]:
    """The history, or the reason why there is none."""
    found = study.extras.history
    if found is None or not found.series:
        return [Notes(["No history was given."])]
    have = [one for one in found.series if len(one.values)]
    courses = [one for one in have if len(one.values) > 1]
    changed = [(one, change) for one in have for change in one.changes]
    notes = Notes(_notes(found, have, courses, len(changed)))
    return present(
        _figure(study, have), notes, _changes(changed, study.extras.home), _series(courses) if courses else None
    )


def _figure(study: Study, series: Sequence[Series]) -> Figure | None:
    """Times of the headline workload on GPUs; without any, those of the workload with the most commits."""
    times = [one for one in series if one.metric in ("denoise", "time_denoise") and one.ran_as != "peer"]
    # Only results of another tool: its times with the most commits, changed series first.
    others = [one for one in series if one.unit == "seconds" and len(one.values) > 1]
    if not any(len(one.values) > 1 for one in times) and others:
        main = max(others, key=lambda one: (bool(one.changes), len(one.values)))
        times = [one for one in others if one.metric == main.metric]
    headline = study.context.headline_workload
    chosen = [one for one in times if one.workload == headline and one.ran_as != "twin"]
    lines = []
    what = f"{shown(headline, 48)} on a GPU"
    if chosen:
        ladders = on_axis(study)
        lines = [*published_lines(study), *peer_lines(ladders), *floor_lines(study, ladders)]
    elif times:
        largest = max(times, key=lambda one: len(one.values))
        chosen = [one for one in times if (one.workload, one.machine) == (largest.workload, largest.machine)]
        what = f"{shown(largest.workload, 48)}, {'host twins' if largest.ran_as == 'twin' else shown(largest.ran_as)}"
    points = [point for one in chosen for point in one.present]
    known = len({point.commit for point in points if point.commit})
    machines = unique(shown(one.machine) for one in chosen)
    source = (
        f"Machine: {units.listing(machines, 3)}. {units.plural(known, 'commit')}, "
        f"{units.plural(sum(point.samples for point in points), 'sample')} in all. A value is the median of a "
        "commit, its bar the range of samples. A ring marks a change of level."
    )
    lines = [*lines, *_budget_lines(chosen)]
    if chosen and chosen[0].metric not in ("denoise", "time_denoise"):
        return commits(chosen, lines, "history", f"{shown(chosen[0].metric, 64)} over commits: {what}", source)
    return commits(chosen, lines, "history", f"Time to denoise over commits: {what}", source)


def _budget_lines(series: Sequence[Series]) -> list[Line]:
    """Maximum times that the references of the policy allow."""
    return [
        Line(
            budget.level * (1 + budget.budget),
            f"{shown(one.rung, 24)}'s budget, {budget.used:.0%} used",
            AMBER,
            ":",
            given=True,
        )
        for one in series
        for budget in one.budgets
    ]


def name_of(one: Series) -> str:
    """Workload, rung and metric of a series, how it ran, and other settings that distinguish it."""
    name = " ".join(part for part in (one.workload, one.rung, one.metric) if part)
    told = ", ".join(part for part in (one.ran_as, distinction(one), one.variant.get("environment", "")) if part)
    return shown(f"{name} ({told})" if told else name, 160)


def _series(series: Sequence[Series]) -> Table:
    rows = []
    order = sorted(series, key=lambda one: (-len(one.changes), -len(one.values)))
    for one in order[:MOST_SERIES]:
        first, last = (one.course.point(one.there[place]) for place in (0, -1))
        bounds = last.low is not None and last.high is not None and last.low != last.high
        note = f"{units.written(last.low, one.unit)} to {units.written(last.high, one.unit)}" if bounds else ""
        rows.append(
            [
                Cell(name_of(one)),
                Cell(shown(one.machine, 64)),
                Cell(units.count(len(one.rows)), len(one.rows)),
                Cell(units.count(len(one.rows) - len(one.values)), len(one.rows) - len(one.values)),
                Cell(units.written(first.value, one.unit), first.value),
                Cell(units.written(last.value, one.unit), last.value, note),
                Cell("exact") if one.exact else Cell(units.count(last.samples) if last.samples else "—", last.samples),
                Cell(units.count(len(one.changes)), len(one.changes)) if one.judged else Cell("?", kind="missing"),
                # safe as markup: it is drawn from numbers alone
                Cell("", len(one.values), drawing=Markup(sparkline(one))) if len(one.values) > 1 else MISSING,
            ]
        )
    left = len(series) - len(rows)
    caption = "Every series, those with changes first" + (f"; {left} more by fluxperf history" if left > 0 else "")
    return Table(caption, _SERIES, rows, tall=True)


def _changes(rows: Sequence[tuple[Series, Change]], home: Path | None) -> Table | None:
    if not rows:
        return None
    newest = sorted(rows, key=lambda row: row[1].date_utc, reverse=True)
    left = len(rows) - MOST_CHANGES
    caption = "Changes of level, newest first" + (f"; {left} more by fluxperf history" if left > 0 else "")
    return Table(caption, _CHANGES, [_change(*row, home) for row in newest[:MOST_CHANGES]], tall=True)


def _change(one: Series, change: Change, home: Path | None) -> list[Cell]:
    percent = change.percent
    kind = "" if change.worse is None else "bad" if change.worse else "good"
    bounds = ""
    if change.low is not None and change.high is not None and change.chance is not None:
        bounds = (
            f"{units.change(change.low / 100)} to {units.change(change.high / 100)}; "
            f"chance {max(change.chance, 1e-12):.0e}"
        )
    if change.cycles is not None:
        said = f"cycles {units.change(change.cycles / 100)}" if change.cycles else "cycles did not change"
        bounds = "; ".join(part for part in (bounds, said) if part)
    since = (
        ("repaired in part" if change.left is not None else "repaired", short(change.repaired))
        if change.repaired
        else ("not repaired", "")
        if change.worse
        else ("", "")
    )
    return [
        Cell(name_of(one), None, shown(one.machine, 64)),
        Cell(_commit(change.before), None, shown(change.records[0], 160), link=link_to(change.files[0], home)),
        Cell(
            _commit(change.after),
            None,
            shown(f"{change.date_utc[:10]} {change.records[1]}".strip(), 160),
            link=link_to(change.files[1], home),
        ),
        Cell(units.written(change.old, one.unit), change.old),
        Cell(units.written(change.new, one.unit), change.new),
        Cell("from zero" if percent is None else units.change(percent / 100), percent, bounds, kind=kind),
        Cell(since[0], None, since[1]),
        Cell(f"{change.old_commits} and {change.new_commits}"),
        Cell(shown("; ".join(f"{name} {said}" for name, said in change.environment.items()), 300))
        if change.environment
        else Cell("nothing that is recorded", kind="missing"),
    ]


def _commit(name: str) -> str:
    if name.startswith("no commit"):
        return shown(name, 48)
    return short(name.removesuffix("+")) + (" + uncommitted changes" if name.endswith("+") else "")


def _notes(found: History, present: Sequence[Series], courses: Sequence[Series], changed: int) -> list[str]:
    notes = [f"{units.plural(len(courses), 'series', 'series')} of several commits, {units.plural(changed, 'change')}."]
    if len(present) > len(courses):
        notes.append(
            f"{units.plural(len(present) - len(courses), 'series', 'series')} of one commit: a history begins with "
            "the second. Add records of other commits."
        )
    unjudged = [one for one in courses if not one.judged]
    if unjudged:
        notes.append(
            f"{units.plural(len(unjudged), 'series', 'series')} of times with fewer than {FEWEST} commits were not "
            "searched for changes: so few values of pure noise often look like a change."
        )
    if len(found.series) > len(present):
        notes.append(
            f"{len(found.series) - len(present)} more series have no value at any commit: every run failed or was "
            "skipped."
        )
    if any(one.order == "time" for one in present):
        notes.append("Some commits are not in the checkout of --repo: their series are ordered by time.")
    notes += [shown(problem, 400) for problem in found.problems[:10]]
    return notes
