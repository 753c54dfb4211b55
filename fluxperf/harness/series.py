"""Series over commits, their changes of level, and used budgets: the result of a history."""

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

#: Variants of nearly every series, which are not shown.
_USUAL = {("weights", "synthetic (seed 0)"), ("setting nvtx", "off")}


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A change of level: at once (a step) or gradually (a ramp).

    ``before`` and ``after`` are measured commits: neighbours for a step, the ends of a ramp. ``old`` and ``new`` are
    levels, of ``old_commits`` and ``new_commits`` commits. ``percent`` is the change of the level, or ``None`` from a
    level of zero; ``low`` and ``high`` bound it with 95 % confidence, and ``chance`` is the probability that noise
    alone gives a series such a change; ``None`` for counts, whose every change is real.

    ``worse`` is whether the change is for the worse, ``None`` if the metric's direction is unknown. ``repaired`` is the
    first commit at a level that takes back at least half of a change for the worse; "" if there is none. ``left`` is
    the percentage by which the best level since is still worse than ``old``; ``None`` if that is nothing, rounding,
    noise, or less than 1 % of a time. ``environment`` names versions that changed at the same place, which may also be
    the cause. ``cycles`` is, for seconds, the change of the cycles of the same work between the same commits, in
    percent: 0.0 if they did not change, ``None`` if there are none. ``records`` are the places of the records of both
    sides, as text, and ``files`` the files or URLs that contain them; "" if unknown.
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
    """A fixed reference of a policy, and how much of the allowed increase of times is used.

    ``level`` is its value, ``budget`` the allowed share above it, ``used`` the share of the budget that the newest
    level uses: above 1 it is exceeded, below 0 the newest is better.
    """

    name: str
    level: float
    budget: float
    used: float


@dataclasses.dataclass(frozen=True)
class Series:
    """Values of one metric, workload, rung and machine, one per commit, in order, with the changes of their level.

    ``course`` has a row for each commit, of which ``rows`` are this series'. ``shifts`` are the ``changes`` by the
    indices of their values. ``judged`` is false for a series of times with too few values for a search.
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
        """The rung."""
        return self.key.rung

    @property
    def machine(self) -> str:
        """The machine."""
        return self.key.machine

    @property
    def ran_as(self) -> str:
        """How it ran: as kernels, twins or a peer."""
        return self.key.ran_as

    @property
    def variant(self) -> dict[str, str]:
        """Its other attributes."""
        return dict(self.key.variant)

    @property
    def unit(self) -> str:
        """Unit of its values."""
        return self.key.unit

    @property
    def exact(self) -> bool:
        """Whether it is a count."""
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
        """A point for each commit. For a fleet, request only those that are shown."""
        return [self.course.point(row) for row in self.rows]

    @cached_property
    def present(self) -> list[Point]:
        """Points that have a value."""
        return [self.course.point(row) for row in self.there]

    def since(self, day: str) -> Series:
        """The series with only the changes since a date."""
        kept = [place for place, change in enumerate(self.changes) if change.date_utc >= day]
        changes, shifts = [self.changes[place] for place in kept], [self.shifts[place] for place in kept]
        return dataclasses.replace(self, changes=changes, shifts=shifts)

    def told(self) -> dict[str, Any]:
        """The series in the form of the JSON document."""
        names = ("metric", "workload", "rung", "machine", "ran_as", "variant", "unit", "exact", "order", "points")
        return {name: getattr(self, name) for name in (*names, "changes", "judged", "budgets")}


class History(NamedTuple):
    """Every series of some records and points, and a sentence for each line that could not be used."""

    series: list[Series]
    problems: list[str]

    def json(self) -> str:
        """The JSON document of ``fluxperf history --json``."""
        told = {"schema": SCHEMA, "series": [one.told() for one in self.series], "problems": self.problems}
        return formatted(told, indent=1)


def distinction(series: Series) -> str:
    """A series' attributes besides workload, rung and metric, as text, without those of nearly every series."""
    told = [
        f"{name} {value}"
        for name, value in series.variant.items()
        if (name, value) not in _USUAL and name not in ("environment", "version")
    ]
    return ", ".join(told)


def label(point: Point) -> str:
    """A commit's name, with "+" if files were changed; or the date of a measurement without a commit."""
    if point.commit is None:
        return f"no commit, {point.date_utc}"
    return f"{point.commit}{'+' if point.dirty else ''}"
