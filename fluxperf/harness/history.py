"""History: records and points of many commits and machines as series, with the commits where a level changed."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import msgspec

from fluxperf.errors import RecordError, UnknownNameError
from fluxperf.harness.committed import committed_records
from fluxperf.harness.metrics import Worse, worse_of
from fluxperf.harness.points import SUFFIX, Key, Point, merged, of_series, points_of, read_points
from fluxperf.harness.records import read_records
from fluxperf.harness.revisions import positions
from fluxperf.harness.steps import Shift, steps_of_counts, steps_of_times
from fluxperf.words import first_few

SCHEMA = 1

#: Variants that nearly every series has, and that nobody need be told.
_USUAL = {("weights", "synthetic (seed 0)"), ("setting nvtx", "off")}


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A level that became another: at once (a step) or little by little (a ramp).

    ``before`` and ``after`` are commits that were measured: neighbours for a step, the ends of a ramp. ``old`` and
    ``new`` are levels, of ``old_commits`` and ``new_commits`` commits. ``percent`` is the change of the level, or
    ``None`` from a level of zero; ``low`` and ``high`` bound it with 95 % confidence, and ``chance`` is how often noise
    alone gives a series such a change; ``None`` for counts, of which a change is a fact.

    ``worse`` says whether the change is for the worse, ``None`` if nobody knows the metric's direction. ``repaired`` is
    the first commit at a level that takes at least half of a change for the worse back; "" if there is none.
    ``environment`` names versions that changed at the same place, which are another explanation than the commit.
    ``cycles`` is, for seconds, the change of the cycles of the same work between the same commits, in percent: 0.0 if
    they did not change, ``None`` where there are none. ``records`` are where the records of both sides lie; "" for
    other tools' results.
    """

    kind: Literal["step", "ramp"]
    before: str
    after: str
    date_utc: str
    old: float
    new: float
    old_commits: int
    new_commits: int
    percent: float | None
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    worse: bool | None = None
    repaired: str = ""
    cycles: float | None = None
    environment: dict[str, str] = {}
    records: tuple[str, str] = ("", "")


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """A fixed point that a policy names, and how much of what times may be above it is used.

    ``level`` is its value, ``budget`` the share that may be added, ``used`` the share of that which the newest level
    takes: above 1 it is exceeded, below 0 the newest is better.
    """

    name: str
    level: float
    budget: float
    used: float


class Fixed(NamedTuple):
    """A reference of a policy: what it is called, the budget from it, and the points of its records."""

    name: str
    budget: float
    points: Sequence[Point]


class Rules(NamedTuple):
    """What a policy says of histories: by metric or unit the share that is rounding, and its references."""

    slack: Mapping[str, float] = {}
    fixed: Sequence[Fixed] = ()


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Points of one metric, workload, rung and machine, one per commit, in order; and where their level changes.

    ``judged`` is false for a series of times that has too few values to be searched for changes.
    """

    metric: str
    workload: str
    rung: str
    machine: str
    ran_as: str
    variant: dict[str, str]
    unit: str
    exact: bool
    order: Literal["commits", "time"]
    points: list[Point]
    changes: list[Change]
    judged: bool
    budgets: list[Budget] = []

    @property
    def present(self) -> list[Point]:
        """Points that have a value."""
        return [point for point in self.points if point.value is not None]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """Every series of a folder, and a sentence for each line that could not be used."""

    schema: int = SCHEMA
    series: list[Series]
    problems: list[str]


def load(folder: Path, committed: bool = False) -> tuple[list[Point], list[str]]:
    """Points of every records file (``.jsonl``) and points file below a folder, and what could not be read.

    Args:
        folder: of files.
        committed: also of every record that a commit of the checkout around it held there.

    Raises:
        RecordError: it is no folder, or no file below it could be used.
    """
    if not folder.is_dir():
        raise RecordError(
            f"history {folder}: expected a folder of records and points, got "
            f"{'a file' if folder.exists() else 'a path where nothing is'}. Records come from `fluxperf run -o`."
        )
    points: list[Point] = []
    problems: list[str] = []
    if committed:
        records, problems = committed_records(folder)
        points = [point for record, where in records for point in points_of(record, where)]
    for path in sorted(folder.rglob("*.jsonl")):
        try:
            file = read_records(path)
        except RecordError as error:
            problems.append(str(error))
            continue
        for place, record in enumerate(file.records, start=1):
            points.extend(points_of(record, f"{path}, record {place}"))
        problems.extend(file.problems)
    for path in sorted(folder.rglob(f"*{SUFFIX}")):
        try:
            stored = read_points(path)
        except RecordError as error:
            problems.append(str(error))
            continue
        points.extend(stored.points)
        problems.extend(stored.problems)
    if not points:
        said = (
            " ".join(first_few(problems, "file or line", "files or lines"))
            or f"there is neither a .jsonl nor a {SUFFIX} file below it."
        )
        raise RecordError(
            f"history {folder}: nothing could be read: {said} "
            "Write records with `fluxperf run -o`, import asv's results with `fluxperf import-asv`."
        )
    return points, problems


def history(
    points: Iterable[Point],
    checkout: Path,
    metric: str | None = None,
    machine: str | None = None,
    problems: Sequence[str] = (),
    rules: Rules | None = None,
) -> History:
    """Series of points, with their changes.

    Commits are in the order of the checkout where it knows all of a series, else in that of their dates.

    Args:
        points: in any order.
        checkout: a folder of the git checkout that knows the commits.
        metric: only metrics of this name, or that match it as a pattern (``*`` and ``?``), whole or after the last dot.
        machine: the same of machines.
        problems: what could not be read, to be handed on.
        rules: what a policy says: rounding and budgets.

    Raises:
        UnknownNameError: no metric or machine is so named; lists those that there are.
    """
    chosen = _matching(list(points), "metric", metric, lambda point: point.metric)
    chosen = _matching(chosen, "machine", machine, lambda point: point.machine)
    known, rules = positions(checkout), rules or Rules()
    ordered = {key: _ordered(_by_commit(rows), known) for key, rows in of_series(chosen).items()}
    noisy = [key for key in ordered if not key.exact]
    errors = [_error(ordered[key][0]) for key in noisy]
    found = dict(zip(noisy, steps_of_times([_values(ordered[key][0]) for key in noisy], errors), strict=True))
    series = []
    for key, (rows, order) in ordered.items():
        slack = rules.slack.get(key.metric, rules.slack.get(key.unit, 0.0))
        shifts = steps_of_counts(_values(rows), slack) if key.exact else found[key]
        series.append(_series(key, rows, order, shifts, _budgets(key, rows, shifts, rules.fixed)))
    return History(series=_with_cycles(series), problems=list(problems))


def _matching(points: list[Point], kind: str, wanted: str | None, name: Callable[[Point], str]) -> list[Point]:
    """Points whose name is the wanted one or matches it."""
    if wanted is None:
        return points
    names = dict.fromkeys(name(point) for point in points)
    fitting = {known for known in names if known == wanted} or {
        known
        for known in names
        if fnmatch.fnmatchcase(known, wanted) or fnmatch.fnmatchcase(known.rpartition(".")[2], wanted)
    }
    if not fitting:
        raise UnknownNameError(kind, wanted, names)
    return [point for point in points if name(point) in fitting]


def _by_commit(rows: Sequence[Point]) -> list[Point]:
    """One point per commit; what was measured without a commit, or on changed files, stays by itself."""
    groups: dict[tuple[str | None, bool, str], list[Point]] = {}
    for row in rows:
        alone = row.date_utc if row.commit is None or row.dirty else ""
        groups.setdefault((row.commit, row.dirty, alone), []).append(row)
    # A record that was found twice, in a copy of its file, counts once.
    once = [list({(row.date_utc, row.value, row.samples): row for row in group}.values()) for group in groups.values()]
    return [group[0] if len(group) == 1 else merged(group) for group in once]


def _ordered(rows: list[Point], known: Mapping[str, int]) -> tuple[list[Point], Literal["commits", "time"]]:
    """Points in the order of their commits, or of their dates where a commit is not known."""
    if all(row.commit in known for row in rows):
        return sorted(rows, key=lambda row: (known[row.commit or ""], row.dirty, row.date_utc)), "commits"
    return sorted(rows, key=lambda row: (row.date_utc, row.dirty)), "time"


def _values(rows: Iterable[Point]) -> list[float]:
    return [row.value for row in rows if row.value is not None]


def _error(rows: Iterable[Point]) -> float | None:
    """The usual standard error of a series' values by processes, as a share; ``None`` where less than half have one."""
    errors = sorted(0.0 if row.error is None else row.error for row in rows if row.value is not None)
    return errors[len(errors) // 2] or None if errors else None


def _budgets(key: Key, rows: Sequence[Point], shifts: Sequence[Shift] | None, fixed: Sequence[Fixed]) -> list[Budget]:
    """What is used of each budget by the newest level of a series of times; nothing for other metrics."""
    values, worse = _values(rows), worse_of(key.metric, key.unit)
    if key.exact or not values or worse is None:
        return []
    # Five values, or as many as the newest level has: a single one is noise.
    tail = len(values) - (shifts[-1].first if shifts else 0)
    newest = median(values[-min(tail, 5) :])
    budgets = []
    for one in fixed:
        levels = [point.value for point in one.points if point.key == key and point.value]
        if levels:
            level = median(levels)
            moved = (newest / level - 1) * (1 if worse == "higher" else -1)
            budgets.append(Budget(name=one.name, level=level, budget=one.budget, used=moved / one.budget))
    return budgets


def _series(
    key: Key,
    rows: list[Point],
    order: Literal["commits", "time"],
    shifts: list[Shift] | None,
    budgets: list[Budget],
) -> Series:
    present = [row for row in rows if row.value is not None]
    worse = worse_of(key.metric, key.unit)
    return Series(
        metric=key.metric,
        workload=key.workload,
        rung=key.rung,
        machine=key.machine,
        ran_as=key.ran_as,
        variant=dict(key.variant),
        unit=key.unit,
        exact=key.exact,
        order=order,
        points=rows,
        changes=[_change(present, (shifts or [])[place:], worse) for place in range(len(shifts or []))],
        judged=shifts is not None,
        budgets=budgets,
    )


def _change(present: Sequence[Point], shifts: Sequence[Shift], worse: Worse | None) -> Change:
    """The first of some shifts; the others are those that came later."""
    shift, before, after = shifts[0], present[shifts[0].last], present[shifts[0].first]
    names = sorted({*before.environment, *after.environment})
    versions = {name: (before.environment.get(name, "none"), after.environment.get(name, "none")) for name in names}
    sign = -1 if worse == "lower" else 1
    half = sign * (shift.old + shift.new) / 2
    back = next((later for later in shifts[1:] if sign * later.new <= half), None)
    is_worse = None if worse is None else sign * (shift.new - shift.old) > 0
    low, high = (None if bound is None else 100 * bound for bound in (shift.low, shift.high))
    return Change(
        kind=shift.kind,
        before=label(before),
        after=label(after),
        date_utc=after.date_utc,
        old=shift.old,
        new=shift.new,
        old_commits=max(1, shift.last + 1 - shift.start),
        new_commits=max(1, shift.end - shift.first),
        percent=100 * (shift.new - shift.old) / abs(shift.old) if shift.old else None,
        low=low,
        high=high,
        chance=shift.chance,
        worse=is_worse,
        repaired=label(present[back.first]) if is_worse and back else "",
        environment={name: f"{was} -> {now}" for name, (was, now) in versions.items() if was != now},
        records=(before.record, after.record),
    )


def _with_cycles(series: Sequence[Series]) -> list[Series]:
    """Changes of seconds with those of cycles beside them, and series of cycles before those of seconds.

    A card at its limit of power changes its clock: cycles tell whether the work changed, or only the clock.
    """
    by_key = {_identity(one): one for one in series if one.unit == "cycles" and one.judged}
    found = []
    for one in series:
        cycles = by_key.get(_identity(one)) if one.unit == "seconds" else None
        if cycles and one.changes:
            changes = [msgspec.structs.replace(row, cycles=_cycles_at(row, one, cycles)) for row in one.changes]
            one = msgspec.structs.replace(one, changes=changes)
        found.append(one)
    return sorted(found, key=lambda one: one.unit != "cycles")


def _identity(one: Series) -> tuple[object, ...]:
    """What seconds and cycles of the same work share."""
    return one.metric.removeprefix("cycles."), one.workload, one.rung, one.machine, one.ran_as, str(one.variant)


def _cycles_at(change: Change, seconds: Series, cycles: Series) -> float:
    """The change of cycles, in percent, at most two measured commits from one of seconds; 0.0 if there is none."""
    places = {label(point): place for place, point in enumerate(seconds.present)}
    first, last = places[change.before] - 2, places[change.after] + 2
    near = [row for row in cycles.changes if first <= places.get(row.after, -9) <= last]
    return next((row.percent for row in near if row.percent is not None), 0.0)


def distinction(series: Series) -> str:
    """What tells a series apart besides workload, rung and metric, in words, without what nearly every series has."""
    told = [
        f"{name} {value}"
        for name, value in series.variant.items()
        if (name, value) not in _USUAL and name not in ("environment", "version")
    ]
    return ", ".join(told)


def label(point: Point) -> str:
    """A commit's name, with "+" if files were changed; or the date of what was measured without one."""
    if point.commit is None:
        return f"no commit, {point.date_utc}"
    return f"{point.commit}{'+' if point.dirty else ''}"
