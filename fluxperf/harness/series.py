"""Series over commits, the changes of their level, and the budgets that they use: what a history says."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from fluxperf.documents import formatted
from fluxperf.harness.columns import Columns, Floats, Places
from fluxperf.harness.points import Key, Point
from fluxperf.harness.steps import Shift

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
    the first commit at a level that takes at least half of a change for the worse back; "" if there is none. ``left``
    says by how many percent the best level since is still worse than ``old``; ``None`` where that is nothing, rounding,
    noise, or less than 1 % of a time.
    ``environment`` names versions that changed at the same place, which are another explanation than the commit.
    ``cycles`` is, for seconds, the change of the cycles of the same work between the same commits, in percent: 0.0 if
    they did not change, ``None`` where there are none. ``records`` are where the records of both sides lie, in words,
    and ``files`` the files or URLs that hold them; "" where nobody said.
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
    left: float | None = None
    cycles: float | None = None
    environment: dict[str, str] = {}
    records: tuple[str, str] = ("", "")
    files: tuple[str, str] = ("", "")


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """A fixed point that a policy names, and how much of what times may be above it is used.

    ``level`` is its value, ``budget`` the share that may be added, ``used`` the share of that which the newest level
    takes: above 1 it is exceeded, below 0 the newest is better.
    """

    name: str
    level: float
    budget: float
    used: float


@dataclasses.dataclass(frozen=True)
class Series:
    """Values of one metric, workload, rung and machine, one per commit, in order; and where their level changes.

    ``course`` has a row for each commit, of which ``rows`` are this series'. ``shifts`` are what ``changes`` tell, by
    their places among the values that are there. ``judged`` is false for a series of times that has too few values to
    be searched for changes.
    """

    key: Key
    order: Literal["commits", "time"]
    course: Columns
    rows: range
    changes: list[Change]
    shifts: list[Shift]
    judged: bool
    budgets: list[Budget]

    @property
    def metric(self) -> str:
        """The metric's name in history."""
        return self.key.metric

    @property
    def workload(self) -> str:
        """The workload."""
        return self.key.workload

    @property
    def rung(self) -> str:
        """At which rung."""
        return self.key.rung

    @property
    def machine(self) -> str:
        """Where."""
        return self.key.machine

    @property
    def ran_as(self) -> str:
        """As kernels, twins or a peer."""
        return self.key.ran_as

    @property
    def variant(self) -> dict[str, str]:
        """Its other attributes."""
        return dict(self.key.variant)

    @property
    def unit(self) -> str:
        """Of its values."""
        return self.key.unit

    @property
    def exact(self) -> bool:
        """Whether it counts."""
        return self.key.exact

    @cached_property
    def there(self) -> Places:
        """Rows that have a value."""
        rows = np.arange(self.rows.start, self.rows.stop)
        return rows[~np.isnan(self.course.value[rows])]

    @cached_property
    def values(self) -> Floats:
        """Values, without the missing ones."""
        return self.course.value[self.there]

    @cached_property
    def points(self) -> list[Point]:
        """A point for each commit. Of a fleet's series only those should be asked that are shown."""
        return [self.course.point(row) for row in self.rows]

    @cached_property
    def present(self) -> list[Point]:
        """Points that have a value."""
        return [self.course.point(row) for row in self.there]

    def since(self, day: str) -> Series:
        """The series with the changes from a date on alone."""
        kept = [place for place, change in enumerate(self.changes) if change.date_utc >= day]
        changes, shifts = [self.changes[place] for place in kept], [self.shifts[place] for place in kept]
        return dataclasses.replace(self, changes=changes, shifts=shifts)

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        names = ("metric", "workload", "rung", "machine", "ran_as", "variant", "unit", "exact", "order", "points")
        return {name: getattr(self, name) for name in (*names, "changes", "judged", "budgets")}


class History(NamedTuple):
    """Every series of some records and points, and a sentence for each line that could not be used."""

    series: list[Series]
    problems: list[str]

    def json(self) -> str:
        """As ``fluxperf history --json`` says it."""
        told = {"schema": SCHEMA, "series": [one.told() for one in self.series], "problems": self.problems}
        return formatted(told, indent=1)


def distinction(series: Series) -> str:
    """A series' other attributes besides workload, rung and metric, in words, without those of nearly every series."""
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
