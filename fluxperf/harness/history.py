"""History: records and points of many commits and machines become series, with the commits at which a level changed."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec
import numpy as np

from fluxperf.errors import UnknownNameError
from fluxperf.harness.columns import Columns, Gathering, Taken
from fluxperf.harness.committed import committed_records
from fluxperf.harness.courses import courses
from fluxperf.harness.metrics import Worse, worse_of
from fluxperf.harness.places import File, Place, digest_of, visit
from fluxperf.harness.points import SUFFIX, Key, Point, points_in
from fluxperf.harness.records import SUFFIX as RECORDS
from fluxperf.harness.records import records_in
from fluxperf.harness.revisions import positions
from fluxperf.harness.series import Budget, Change, History, Series, label
from fluxperf.harness.steps import Shift, steps_of_counts, steps_of_times
from fluxperf.uncollected import uncollected

_WANTED = "Write records with `fluxperf run -o FILE.jsonl`, import asv's results with `fluxperf import-asv`."

#: Share from which the rest of a repaired change of a time counts, as for changes in the gate.
_LEFT = 0.01


class Fixed(NamedTuple):
    """A reference of a policy: its name, the budget, and the points of its records."""

    name: str
    budget: float
    points: Sequence[Point]


class Rules(NamedTuple):
    """A policy's rules for histories: the rounding share by metric or unit, and references."""

    slack: Mapping[str, float] = {}
    fixed: Sequence[Fixed] = ()


def load(
    places: Sequence[Place],
    gathering: Gathering | None = None,
    suffixes: Sequence[str] = (RECORDS, SUFFIX),
    committed: bool = False,
) -> tuple[Columns, list[str]]:
    """Points of every records file (``.jsonl``) and points file at some places, and what could not be read.

    Args:
        places: files, folders, patterns and URLs.
        gathering: data read before, to which this is added.
        suffixes: of the files that count in a folder.
        committed: also read every record that a commit of the surrounding checkout had there.

    Raises:
        RecordError: a named file cannot be read or used, or a folder contains no file that can.
    """
    gathering = gathering or Gathering()
    problems: list[str] = []

    def gather(file: File, lines: Iterable[bytes]) -> None:
        name = file.name
        if name.endswith(SUFFIX):
            for point in points_in(name, lines, problems):
                gathering.add_point(point)
            return
        for place, (record, line) in enumerate(records_in(name, lines, problems), start=1):
            gathering.add(record, name, place, digest_of(line))

    with uncollected():
        for found in visit(places, suffixes, gather, _WANTED):
            if found is not None:
                problems.append(found.problem)
        for place in places if committed else ():
            for record, name, number, digest in committed_records(place, problems):
                gathering.add(record, name, number, digest)
    return gathering.columns(), problems


def history(
    columns: Columns,
    checkout: Path,
    metric: str | None = None,
    machine: str | None = None,
    problems: Sequence[str] = (),
    rules: Rules | None = None,
) -> History:
    """Series of points, with their changes.

    Commits are in the order of the checkout if it knows all of a series, otherwise in the order of their dates.

    Args:
        columns: points, in any order.
        checkout: a folder of the git checkout that knows the commits.
        metric: only metrics with this name, or matching it as a pattern (``*`` and ``?``), in full or after the last
            dot.
        machine: the same for machines.
        problems: problems of reading, which are passed on.
        rules: rules of a policy: rounding and budgets.

    Raises:
        UnknownNameError: no metric or machine has that name; lists the existing ones.
    """
    rules = rules or Rules()
    wanted = _matching(columns.keys, "metric", metric, lambda key: key.metric)
    wanted &= _matching([key for key in columns.keys if key in wanted], "machine", machine, lambda key: key.machine)
    chosen = np.array([key in wanted for key in columns.keys], bool)
    course, times = courses(columns, np.flatnonzero(chosen[columns.key]), positions(checkout))
    ends = np.searchsorted(course.key, np.arange(len(course.keys) + 1)).tolist()
    bare = [
        Series(key, "time" if times[place] else "commits", course, range(*ends[place : place + 2]), [], [], False, [])
        for place, key in enumerate(course.keys)
        if ends[place] < ends[place + 1]
    ]
    noisy = [one for one in bare if not one.exact]
    found = steps_of_times([one.values for one in noisy], [_error(one) for one in noisy])
    of_times = dict(zip((one.key for one in noisy), found, strict=True))
    series = []
    for one in bare:
        slack = rules.slack.get(one.metric, rules.slack.get(one.unit, 0.0))
        shifts = steps_of_counts(one.values.tolist(), slack) if one.exact else of_times[one.key]
        series.append(_changed(one, shifts, rules.fixed, slack))
    return History(_with_cycles(series), list(problems))


def _matching(keys: Iterable[Key], kind: str, wanted: str | None, name: Callable[[Key], str]) -> set[Key]:
    """Keys whose name equals the wanted one or matches it."""
    if wanted is None:
        return set(keys)
    names: dict[str, list[Key]] = {}
    for key in keys:
        names.setdefault(name(key), []).append(key)
    fitting = {known for known in names if known == wanted} or {
        known
        for known in names
        if fnmatch.fnmatchcase(known, wanted) or fnmatch.fnmatchcase(known.rpartition(".")[2], wanted)
    }
    if not fitting:
        raise UnknownNameError(kind, wanted, names)
    return {key for known in fitting for key in names[known]}


def _error(one: Series) -> float | None:
    """The usual standard error of a series' values over processes, as a share; ``None`` if less than half have one."""
    errors = np.sort(np.nan_to_num(one.course.error[one.there]))
    return float(errors[len(errors) // 2]) or None if len(errors) else None


def _budgets(one: Series, shifts: Sequence[Shift] | None, fixed: Sequence[Fixed]) -> list[Budget]:
    """The share of each budget that the newest level of a series of times uses; none for other metrics."""
    worse = worse_of(one.metric, one.unit)
    if not fixed or one.exact or not len(one.values) or worse is None:
        return []
    # five values, or as many as the newest level has: a single one is noise
    tail = len(one.values) - (shifts[-1].first if shifts else 0)
    newest = median(one.values[-min(tail, 5) :].tolist())
    budgets = []
    for reference in fixed:
        levels = [point.value for point in reference.points if point.key == one.key and point.value]
        if levels:
            level = median(levels)
            moved = (newest / level - 1) * (1 if worse == "higher" else -1)
            budgets.append(
                Budget(name=reference.name, level=level, budget=reference.budget, used=moved / reference.budget)
            )
    return budgets


def _changed(one: Series, shifts: list[Shift] | None, fixed: Sequence[Fixed], slack: float) -> Series:
    """A series with its changes and budgets."""
    some, worse = shifts or [], worse_of(one.metric, one.unit)
    return dataclasses.replace(
        one,
        changes=[_change(one, some[place:], worse, slack) for place in range(len(some))],
        shifts=some,
        judged=shifts is not None,
        budgets=_budgets(one, shifts, fixed),
    )


def _change(one: Series, shifts: Sequence[Shift], worse: Worse | None, slack: float) -> Change:
    """The first of some shifts; the others came later."""
    shift = shifts[0]
    before, after = (one.course.point(one.there[place]) for place in (shift.last, shift.first))
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
        repaired=label(one.course.point(one.there[back.first])) if is_worse and back else "",
        left=_left(shifts, sign, slack if one.exact else None) if is_worse and back else None,
        environment={name: f"{was} -> {now}" for name, (was, now) in versions.items() if was != now},
        records=(before.record, after.record),
        files=(_file(one, shift.last), _file(one, shift.first)),
    )


def _left(shifts: Sequence[Shift], sign: int, slack: float | None) -> float | None:
    """Percent by which the best level since a shift is worse than the level before it; ``None`` if it may be chance.

    ``slack`` is the rounding of a count. For times it is ``None``, and the intervals of both shifts give the error of
    their levels.
    """
    shift, best = shifts[0], min(shifts[1:], key=lambda later: sign * later.new)
    if not shift.old:
        return None
    left = sign * (best.new - shift.old) / abs(shift.old)
    if slack is None:
        bounds = [(one.low, one.high) for one in (shift, best)]
        halves = [(high - low) / 2 for low, high in bounds if low is not None and high is not None]
        least = max(_LEFT, math.hypot(*halves)) if len(halves) == len(bounds) else math.inf
    else:
        least = slack
    return 100 * left if left > least else None


def _file(one: Series, place: int) -> str:
    taken: Taken = one.course.takens[one.course.taken[one.there[place]]]
    return taken.file


def _with_cycles(series: Sequence[Series]) -> list[Series]:
    """Changes of seconds with the corresponding changes of cycles, and series of cycles before those of seconds.

    A GPU at its power limit changes its clock: cycles show whether the work changed, or only the clock.
    """
    by_work = {_work(one): one for one in series if one.unit == "cycles" and one.judged}
    found = []
    for one in series:
        cycles = by_work.get(_work(one)) if one.unit == "seconds" and one.changes else None
        if cycles:
            pairs = zip(one.changes, one.shifts, strict=True)
            changes = [msgspec.structs.replace(row, cycles=_cycles_at(shift, one, cycles)) for row, shift in pairs]
            one = dataclasses.replace(one, changes=changes)
        found.append(one)
    return sorted(found, key=lambda one: one.unit != "cycles")


def _work(one: Series) -> tuple[object, ...]:
    """The part of a name that seconds and cycles of the same work share."""
    return one.key._replace(metric=one.metric.removeprefix("cycles."), unit="")


def _cycles_at(shift: Shift, seconds: Series, cycles: Series) -> float:
    """The change of cycles, in percent, within two measured commits of a change of seconds; 0.0 if there is none."""
    first, last = max(0, shift.last - 2), shift.first + 2
    near = {label(seconds.course.point(row)) for row in seconds.there[first : last + 1]}
    return next((row.percent for row in cycles.changes if row.after in near and row.percent is not None), 0.0)
