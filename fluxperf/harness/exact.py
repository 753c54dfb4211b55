"""Exact metrics of a record, and their comparison: any change is a fact."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median_high
from typing import NamedTuple

import msgspec

from fluxperf.harness.metrics import NAMED, Worse, exact_metrics, value_of
from fluxperf.harness.policy import Exact, Policy
from fluxperf.harness.records import Record
from fluxperf.harness.verdict import Outcome, Row, finite, problem

Number = float | int
Content = Number | str | None


class Place(NamedTuple):
    """Which rung of which workload, as rows name it."""

    workload: str
    rung: str


class Value(NamedTuple):
    """An exact metric's value, the family that the policy knows it by, its unit, words for it, and what is worse."""

    value: Content
    family: str
    unit: str
    words: str
    worse: Worse = "higher"


def exact_values(record: Record) -> dict[str, Value]:
    """Every exact metric of a record, by name: those of the metric table, the ledger, ops, and what makes the rung.

    Algorithms that libraries chose by trial are no fact: their times differ in each process.
    """
    values: dict[str, Value] = {}
    for metric in exact_metrics():
        values[metric.name] = Value(value_of(record, metric), metric.name, metric.short, metric.words, metric.worse)
    values |= _ledger(record) | _ops(record)
    for family in NAMED:
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


#: Families of which a side that has no row has none: zero, not unknown.
_TABLES = ("ledger", "ops")

#: No count is larger: it is damage, and too large for arithmetic.
_MOST = 2**63

#: Totals that are zero only where nothing was counted at all.
_VITAL = ("totals.launches", "totals.op_calls", "totals.peak_bytes", "work.flops")


def compare_exact(
    base: Sequence[Record], head: Sequence[Record], place: Place, policy: Policy, *, against_baseline: bool
) -> list[Row]:
    """A row for each exact metric that the policy names and at least one side has.

    Each side is judged by all its processes: the head by its worst, the base by the middle one, so that one that went
    wrong excuses nothing. A row of the ledger or of the ops that a side lacks counts zero there; a total that one
    process has and another lacks is an error.

    Args:
        base: records before, one or more processes of one rung.
        head: records after; comparable with them.
        place: how rows name them.
        policy: which metrics, and how.
        against_baseline: whether the base is a committed baseline, against which more is gated.
    """
    sides = [[exact_values(record) for record in side] for side in (base, head)]
    names = dict.fromkeys(name for side in sides for values in side for name in values)
    rows = []
    for name in names:
        known = next(values[name] for side in sides for values in side if name in values)
        rule = policy.exact.get(known.family)
        if rule is None:
            continue
        absent = 0 if known.family in _TABLES else None
        old, new = ([values[name].value if name in values else absent for values in side] for side in sides)
        if all(value is None for value in (*old, *new)):
            continue
        rows.append(_compared(name, old, new, known, place, rule, gated=against_baseline or rule.against == "any"))
    return rows


def _compared(
    name: str, old: list[Content], new: list[Content], known: Value, place: Place, rule: Exact, *, gated: bool
) -> Row:
    """The row of one metric, of the values of every process of both sides."""

    def refused(reason: str, text: str) -> Row:
        return problem(reason, f"{known.words}: {text}", workload=place.workload, rung=place.rung, metric=name)

    if known.family in NAMED:
        return _named(
            name, old[0], next((value for value in new if value != old[0]), old[0]), known, place, gated=gated
        )
    if None in old or None in new:
        if all(value is None for value in old):
            return _new(name, _worst(new, known), known, place)
        side, whole = ("base", old) if None in old else ("head", new)
        some = f"{sum(value is None for value in whole)} of {len(whole)} processes of the {side} have none"
        return refused(
            "missing_metric", f"expected a value of every process, {some}. Measure it again with one version."
        )
    before, after = ([value for value in side if isinstance(value, int | float)] for side in (old, new))
    wrong = next((value for value in (*before, *after) if abs(value) > _MOST or not math.isfinite(value)), None)
    if wrong is not None:
        text = f"expected finite numbers of at most {_MOST:.2g}, got {short(wrong)}. Measure it again."
        return refused("not_finite", text)
    if min(*before, *after) < 0:
        return refused("negative", f"expected numbers of at least 0, got {min(*before, *after)}. Measure it again.")
    base, head = median_high(before), _worst(after, known)
    if known.family in _VITAL and (min(after) == 0 < base or min(before) == 0 < head):
        side = "head" if min(after) == 0 else "base"
        text = f"expected some, a process of the {side} has none where the other side has {max(base, head)}: "
        return refused("not_counted", f"{text}nothing was run or counted. Measure it again.")
    if known.family == "work.flops":
        return _work(name, base, head, known, place, rule, gated=gated)
    return _row(name, base, head, known, place, rule, gated=gated)


def short(value: Number) -> str:
    """A number as text of few characters, however many digits it has."""
    if isinstance(value, int) and abs(value) > _MOST:
        return f"one of {value.bit_length()} bits"
    return str(value)


def _worst(values: Sequence[Content], known: Value) -> Number:
    numbers = [value for value in values if isinstance(value, int | float)]
    return max(numbers) if known.worse == "higher" else min(numbers)


def _new(name: str, value: Number, known: Value, place: Place) -> Row:
    """The verdict on what the base did not measure."""
    return Row(
        workload=place.workload,
        rung=place.rung,
        metric=name,
        kind="exact",
        verdict="NEW",
        reason="new",
        outcome="ungated",
        message=f"{known.words}: {value:g} now; the base does not have it.",
        unit=known.unit,
        head=value,
    )


def _work(name: str, old: Number, new: Number, known: Value, place: Place, rule: Exact, *, gated: bool) -> Row:
    """The verdict on the operations of a forward: with less work, less time is no gain; more of it is no fault."""
    row = _row(name, old, new, known, place, rule, gated=gated)
    if row.verdict == "SAME":
        return row
    if new > old:
        return msgspec.structs.replace(row, outcome="ungated")
    text = (
        f"{known.words}: {old:,} before, {new:,} now ({new / old - 1:+.1%}); a time that is shorter for less work "
        "proves nothing. Accept it, if it is meant."
    )
    outcome: Outcome = "regression" if gated else "ungated"
    return msgspec.structs.replace(
        row, verdict="NOT_COMPARABLE", reason="fewer_operations", outcome=outcome, message=text
    )


def _row(name: str, old: Number, new: Number, known: Value, place: Place, rule: Exact, *, gated: bool) -> Row:
    """The verdict on one exact metric: SAME within the policy's slack either way."""
    if new == old:
        verdict, reason, fails = "SAME", "equal", False
    elif max(old, new) <= min(old, new) * (1 + rule.slack):
        verdict, reason, fails = "SAME", "within_bound", False
    elif new > old:
        verdict, reason, fails = "WORSE", "more", True
    else:
        verdict, reason, fails = "BETTER", "fewer", rule.rule == "equal"
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
        change=finite(new / old - 1) if old else None,
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
