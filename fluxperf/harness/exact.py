"""Exact metrics of a record, and their comparison: every change is real."""

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
    """The rung and workload of a row."""

    workload: str
    rung: str


class Value(NamedTuple):
    """An exact metric's value, its family in the policy, its unit, its name as text, and the worse direction."""

    value: Content
    family: str
    unit: str
    words: str
    worse: Worse = "higher"


def exact_values(record: Record) -> dict[str, Value]:
    """Every exact metric of a record, by name: metric table, ledger, ops, and the definition of the rung.

    Algorithms that libraries chose by trial are not exact: their times differ in each process.
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
    """Calls, bytes and operations of each op by section and surrounding op. Its time is neither exact nor gated."""
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


#: Families in which a missing row means zero, not unknown.
_TABLES = ("ledger", "ops")

#: Maximum valid count. Larger ones are damage, and too large for arithmetic.
_MOST = 2**63

#: Totals that are zero only if nothing was counted at all.
_VITAL = ("totals.launches", "totals.op_calls", "totals.peak_bytes", "work.flops")


def compare_exact(
    base: Sequence[Record], head: Sequence[Record], place: Place, policy: Policy, *, against_baseline: bool
) -> list[Row]:
    """A row for each exact metric in the policy that at least one side has.

    Each side is judged by all its processes: the head by its worst, the base by the middle one, so that one faulty
    process of the base excuses nothing. A row of the ledger or of the ops that a side lacks counts as zero there. A
    total that only some processes have is an error.

    Args:
        base: records before, one or more processes of one rung.
        head: records after; comparable with them.
        place: rung and workload of the rows.
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
    """The row of one metric, from the values of every process of both sides."""

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
            "missing_metric", f"expected a value of every process, but {some}. Measure it again with one version."
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
        text = (
            f"expected a count above 0, but a process of the {side} has none, and the other side has "
            f"{max(base, head)}: "
        )
        return refused("not_counted", f"{text}nothing was run or counted. Measure it again.")
    if known.family == "work.flops":
        return _work(name, base, head, known, place, rule, gated=gated)
    return _row(name, base, head, known, place, rule, gated=gated)


def short(value: Number) -> str:
    """A number as short text, however many digits it has."""
    if isinstance(value, int) and abs(value) > _MOST:
        return f"a number of {value.bit_length()} bits"
    return str(value)


def _worst(values: Sequence[Content], known: Value) -> Number:
    numbers = [value for value in values if isinstance(value, int | float)]
    return max(numbers) if known.worse == "higher" else min(numbers)


def _new(name: str, value: Number, known: Value, place: Place) -> Row:
    """The verdict on a metric that the base did not measure."""
    return Row(
        workload=place.workload,
        rung=place.rung,
        metric=name,
        kind="exact",
        verdict="NEW",
        reason="new",
        outcome="ungated",
        message=f"{known.words}: {value:g} now; the base does not have this metric.",
        unit=known.unit,
        head=value,
    )


def _work(name: str, old: Number, new: Number, known: Value, place: Place, rule: Exact, *, gated: bool) -> Row:
    """The verdict on the operations of a forward: a shorter time for less work is not a gain; more work is no error."""
    row = _row(name, old, new, known, place, rule, gated=gated)
    if row.verdict == "SAME":
        return row
    if new > old:
        return msgspec.structs.replace(row, outcome="ungated")
    text = (
        f"{known.words}: {old:,} before, {new:,} now ({new / old - 1:+.1%}); a shorter time for less work proves "
        "nothing. Accept it if it is intended."
    )
    outcome: Outcome = "regression" if gated else "ungated"
    return msgspec.structs.replace(
        row, verdict="NOT_COMPARABLE", reason="fewer_operations", outcome=outcome, message=text
    )


def _row(name: str, old: Number, new: Number, known: Value, place: Place, rule: Exact, *, gated: bool) -> Row:
    """The verdict on one exact metric: SAME within the policy's slack in both directions."""
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
    """The verdict on a metric that is a name instead of a number."""
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
        + ("." if same else "; if that is intended, remake the baseline (fluxperf gate exact --remake)."),
        base=old,
        head=new,
    )
