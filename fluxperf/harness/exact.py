"""Exact metrics of a record, and their comparison: any change is a fact."""

from __future__ import annotations

import math
from typing import NamedTuple

from fluxperf.harness.metrics import exact_metrics, value_of
from fluxperf.harness.policy import Exact, Policy
from fluxperf.harness.records import Record
from fluxperf.harness.verdict import Row, problem

Number = float | int
Content = Number | str | None


class Place(NamedTuple):
    """Which rung of which workload, as rows name it."""

    workload: str
    rung: str


class Value(NamedTuple):
    """An exact metric's value, the family that the policy knows it by, its unit, and what it is in words."""

    value: Content
    family: str
    unit: str
    words: str


def exact_values(record: Record) -> dict[str, Value]:
    """Every exact metric of a record, by name: those of the metric table, the ledger, ops, and what makes the rung."""
    values: dict[str, Value] = {}
    for metric in exact_metrics():
        values[metric.name] = Value(value_of(record, metric), metric.name, metric.short, metric.words)
    values |= _ledger(record) | _ops(record)
    for family in ("phase_table", "policy", "choices"):
        for name, chosen in getattr(record, family).items():
            values[f"{family}[{name}]"] = Value(chosen, family, "", f"{family} row {name!r}")
    return values


def _ledger(record: Record) -> dict[str, Value]:
    """Copies and bytes of each direction, section, op and label."""
    values: dict[str, Value] = {}
    for row in record.ledger:
        name = f"ledger[{row.direction} {row.section} {row.op} {row.label}]"
        where = f"copies {row.direction} of {row.label!r} by op {row.op!r} in section {row.section!r}"
        _add(values, f"{name}.count", row.count, "ledger", "count", where)
        _add(values, f"{name}.bytes", row.bytes, "ledger", "bytes", f"bytes in {where}")
    return values


def _ops(record: Record) -> dict[str, Value]:
    """Calls, bytes and operations of each op by section and surrounding op. Its time is not exact, nor gated."""
    values: dict[str, Value] = {}
    for row in record.ops:
        name = f"ops[{row.section} {row.within} {row.op}]"
        within = f" within {row.within!r}" if row.within else ""
        where = f"op {row.op!r}{within} in section {row.section!r}"
        for field, unit in (("count", "count"), ("bytes", "bytes"), ("flops", "count")):
            words = f"{'calls' if field == 'count' else field} of {where}"
            _add(values, f"{name}.{field}", getattr(row, field), "ops", unit, words)
    return values


def _add(values: dict[str, Value], name: str, number: int, family: str, unit: str, words: str) -> None:
    before = values[name].value if name in values else 0
    values[name] = Value(before + number, family, unit, words)  # type: ignore[operator]


def compare_exact(base: Record, head: Record, place: Place, policy: Policy, *, against_baseline: bool) -> list[Row]:
    """A row for each exact metric that the policy names and at least one side has.

    A row of the ledger or of the ops that one side lacks counts zero there; a total that one side lacks is an error.

    Args:
        base: the record before.
        head: the record after; comparable with it.
        place: how rows name them.
        policy: which metrics, and how.
        against_baseline: whether the base is a committed baseline, against which more is gated.
    """
    before, after = exact_values(base), exact_values(head)
    rows = []
    for name in [*before, *(name for name in after if name not in before)]:
        known = before.get(name) or after[name]
        rule = policy.exact.get(known.family)
        if rule is None:
            continue
        absent = 0 if known.family in ("ledger", "ops") else None
        old = before[name].value if name in before else absent
        new = after[name].value if name in after else absent
        if old is None and new is None:
            continue
        rows.append(_row(name, old, new, known, place, rule, gated=against_baseline or rule.against == "any"))
    return rows


def _row(
    name: str,
    old: Content,
    new: Content,
    known: Value,
    place: Place,
    rule: Exact,
    *,
    gated: bool,
) -> Row:
    """The verdict on one exact metric."""
    if isinstance(old, str) or isinstance(new, str) or known.family in ("phase_table", "policy", "choices"):
        return _named(name, old, new, known, place, gated=gated)
    if old is None or new is None:
        side = "base" if old is None else "head"
        return problem(
            "missing_metric",
            f"{known.words}: expected a value on both sides, the {side} has none. Measure it again with one version.",
            workload=place.workload,
            rung=place.rung,
            metric=name,
        )
    if not (math.isfinite(old) and math.isfinite(new)):
        return problem(
            "not_finite",
            f"{known.words}: expected finite numbers, got {old} and {new}. Measure it again.",
            workload=place.workload,
            rung=place.rung,
            metric=name,
        )
    if new == old:
        verdict, reason, fails = "SAME", "equal", False
    elif max(old, new) <= min(old, new) * (1 + rule.slack):
        verdict, reason, fails = "SAME", "within_bound", False
    elif new > old:
        verdict, reason, fails = "SLOWER", "more", True
    else:
        verdict, reason, fails = "FASTER", "fewer", rule.rule == "equal"
    return Row(
        workload=place.workload,
        rung=place.rung,
        metric=name,
        kind="exact",
        verdict=verdict,  # type: ignore[arg-type]
        reason=reason,
        outcome=("regression" if fails else "pass") if gated else "ungated",
        message=_sentence(known, old, new, rule),
        unit=known.unit,
        base=old,
        head=new,
        change=new / old - 1 if old else None,
        detectable=1.0 if known.unit in ("count", "bytes") else None,
    )


def _sentence(known: Value, old: Number, new: Number, rule: Exact) -> str:
    least, most = old / (1 + rule.slack), old * (1 + rule.slack)
    allowed = f"at most {most:g}"
    if rule.rule == "equal":
        allowed = f"{least:g} to {most:g}" if rule.slack else "equality"
    if known.unit == "relative":
        return f"{known.words}: {old:.3g} before, {new:.3g} now; expected {allowed}."
    more = f" ({new - old:+d})" if isinstance(old, int) and isinstance(new, int) and new != old else ""
    return f"{known.words}: {old} before, {new} now{more}; expected {allowed}."


def _named(name: str, old: Content, new: Content, known: Value, place: Place, *, gated: bool) -> Row:
    """The verdict on something that has a name instead of a number."""
    same = old == new
    before, after = ("none" if value is None else repr(value) for value in (old, new))
    return Row(
        workload=place.workload,
        rung=place.rung,
        metric=name,
        kind="exact",
        verdict="SAME" if same else "NOT_COMPARABLE",
        reason="equal" if same else "changed",
        outcome=("pass" if same else "regression") if gated else "ungated",
        message=f"{known.words}: {before} before, {after} now"
        + ("." if same else "; if that is meant, make the baseline again (fluxperf gate exact --remake)."),
        base=old,
        head=new,
    )
