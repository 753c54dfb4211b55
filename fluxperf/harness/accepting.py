"""Acceptances: an accepted regression passes within its bound and until its last day."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence

import msgspec

from fluxperf.harness.pairing import parts
from fluxperf.harness.policy import SLOW, Accepted, Policy
from fluxperf.harness.verdict import Row


def accepted(rows: Sequence[Row], policy: Policy, today: datetime.date | None = None) -> list[Row]:
    """The rows, where accepted regressions pass. If an acceptance does not cover a row, the message says why.

    The mean and the tail of a time are accepted with its median, up to the same bound. Slow processes are accepted with
    the median if the bound includes heads whose processes would count as slow. Fewer slow processes are accepted
    separately, as a share.

    Args:
        rows: of one comparison.
        policy: policy with the acceptances.
        today: day on which they must be valid; today in UTC if not given.
    """
    day = today or datetime.datetime.now(datetime.UTC).date()
    passing: set[str] = set()
    first = [_judged(row, policy, day, passing) for row in rows]
    passing |= {row.id for row in first if row.accepted}
    return [
        after if after.accepted else _judged(row, policy, day, passing) for row, after in zip(rows, first, strict=True)
    ]


def _judged(row: Row, policy: Policy, day: datetime.date, passing: Collection[str]) -> Row:
    if row.outcome != "regression":
        return row
    said = []
    for found in policy.acceptances(row.workload, row.rung, row.metric):
        why = _refused(row, found, policy, day, passing)
        if not why:
            by = f"{found.reason} ({found.author}, {found.date.isoformat()}, until {found.end.isoformat()})"
            return msgspec.structs.replace(row, outcome="pass", accepted=by, message=f"{row.message} Accepted: {by}.")
        said.append(f"{why} ({found.reason})")
    return msgspec.structs.replace(row, message=f"{row.message} Accepted {said[0]}.") if said else row


def _refused(row: Row, found: Accepted, policy: Policy, day: datetime.date, passing: Collection[str]) -> str:
    """Why an acceptance does not cover a row, as text after "Accepted"; "" if it does."""
    if found.date > day:
        return f"only from {found.date.isoformat()} on"
    if found.end < day:
        return f"only until {found.end.isoformat()}"
    if isinstance(row.head, str) or row.head is None:
        return "" if found.up_to is None else "up to a number, but this metric is a name"
    if found.up_to is None:
        return "without a bound: add up_to"
    if row.kind == "exact":
        if row.reason == "fewer_operations":
            return "" if row.head >= found.up_to else f"only down to {found.up_to:g}"
        return "" if row.head <= found.up_to else f"only up to {found.up_to:g}"
    slow = row.metric.endswith(SLOW)
    name = row.metric.removesuffix(SLOW) if slow else parts(row.metric)[0]
    if name != row.metric and found.metric.endswith(name):
        parent = row.id.removesuffix(row.metric) + name
        if parent not in passing:
            return f"for {name} alone, whose median is not within the bound"
        if slow:
            # Half of all processes are of the head, so the median of all is between both levels.
            reached = 2 * found.up_to / (1 + found.up_to)
            return (
                ""
                if reached > policy.slow[name].slower_than
                else f"for {name} alone, which does not make processes slow"
            )
        return "" if (row.change or 0.0) <= found.up_to - 1 else f"only up to {found.up_to:g} times the base"
    if slow:
        return "" if row.head <= found.up_to else f"only up to a share of {found.up_to:g}"
    if found.base is None:
        return "without the base value, so it would be accepted again after every further increase: add base"
    bound = found.base * found.up_to
    return "" if row.head <= bound else f"only up to {bound:.6g}, which is {found.up_to:g} times {found.base:.6g}"
