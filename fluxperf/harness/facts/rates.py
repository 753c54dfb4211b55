"""Rates of ops: the rows of one record summed by op, without rows that are part of another row."""

from __future__ import annotations

from typing import NamedTuple

from fluxperf.harness.facts.ceilings import Ceiling, bound
from fluxperf.harness.facts.samples import summary_of
from fluxperf.harness.facts.work import outer
from fluxperf.harness.records import OpRow, Record
from fluxperf.harness.text import units

#: Share by which ops may exceed a step, as the times of observed runs are single samples.
_TOLERANCE = 0.02


class OpRate(NamedTuple):
    """One op over all blocks of one forward: calls, seconds of an observed run, required bytes and operations."""

    op: str
    calls: int
    time_s: float
    bytes: int
    flops: int
    rows: tuple[OpRow, ...]

    @property
    def intensity(self) -> float:
        """FLOP per byte."""
        return self.flops / self.bytes

    @property
    def flops_s(self) -> float:
        """FLOP per second."""
        return self.flops / self.time_s


class Reached(NamedTuple):
    """How near an op comes to the machine's ceilings: minimum seconds, their share, and the limiting resource."""

    least_s: float
    share: float
    by: str


def rates_of(record: Record | None) -> list[OpRate]:
    """The outer ops of a record, longest first. A primitive counts with the model op that called it."""
    groups: dict[str, list[OpRow]] = {}
    for row in outer(record.ops) if record else ():
        groups.setdefault(row.within or row.op, []).append(row)
    rates = [
        OpRate(
            op,
            sum(row.count for row in rows),
            sum(row.time_s for row in rows),
            sum(row.bytes for row in rows),
            sum(row.flops for row in rows),
            tuple(rows),
        )
        for op, rows in groups.items()
    ]
    return sorted(rates, key=lambda rate: -rate.time_s)


class BeyondStep(NamedTuple):
    """Seconds of all ops of a forward, timed one by one, that exceed the seconds of a step."""

    ops_s: float
    step_s: float

    @property
    def reason(self) -> str:
        """The reason why such times are not parts of a step, as text."""
        return f"its ops, timed one by one, add up to {units.time(self.ops_s)}, a step takes {units.time(self.step_s)}"


def beyond_step(record: Record | None) -> BeyondStep | None:
    """The excess of a record's ops over its step, or ``None`` if it is small.

    Timing an op by itself includes the time between launches, and removes the overlap of a graph or a second stream.
    Such times show which op takes most time. They do not show how near it comes to a ceiling, nor how much time it
    could save.
    """
    step = summary_of(record, "step") if record else None
    ops_s = sum(rate.time_s for rate in rates_of(record))
    if step is None or ops_s <= (1 + _TOLERANCE) * step.median:
        return None
    return BeyondStep(ops_s, step.median)


def reached(record: Record, rate: OpRate, ceilings: dict[str, Ceiling]) -> Reached | None:
    """How near an op comes to the ceilings.

    ``None`` if a ceiling is missing, if the op took or needs no time, or if the ops are `beyond_step`.
    """
    if beyond_step(record):
        return None
    parts = [bound(record, row, ceilings) for row in rate.rows]
    known = [part for part in parts if part]
    least = sum(part.time_s for part in known)
    if len(known) < len(parts) or rate.time_s <= 0 or least <= 0:
        return None
    return Reached(least, least / rate.time_s, max(known, key=lambda part: part.time_s).by)
