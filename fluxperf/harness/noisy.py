"""Noisy metrics: pairs of processes become verdicts on times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from fluxperf.errors import RecordError
from fluxperf.harness.exact import Place
from fluxperf.harness.metrics import metric_of
from fluxperf.harness.policy import Noisy, Pairs
from fluxperf.harness.significance import PATTERNS, detectable, holm, pairs_needed, sign_flip, spread
from fluxperf.harness.stats import median_interval
from fluxperf.harness.verdict import Row, finite, problem
from fluxperf.words import plural

Processes = Sequence[Sequence[float]]


class Task(NamedTuple):
    """One noisy metric of one rung to be judged: samples grouped by process, and the calibrated A/A spread, if any.

    ``slope`` is what was taken out of samples in cycles, which are then all at one clock (`harness/clock_slope.py`).
    """

    place: Place
    metric: str
    base: Processes
    head: Processes
    rule: Noisy
    calibrated: float = 0.0
    slope: float = 0.0


class _Paired(NamedTuple):
    """A task whose pairs are usable: medians of the processes, and the logarithms of worse over better."""

    task: Task
    base: list[float]
    head: list[float]
    logs: list[float]

    @property
    def margin(self) -> float:
        """Of the test, on the scale of logarithms: the policy's, or the machine's own spread if that is larger."""
        return max(math.log1p(self.task.rule.margin), self.task.calibrated)

    @property
    def floor(self) -> float:
        """The smallest share of the base that counts as a change."""
        return max(self.task.rule.floor_relative, self.task.rule.floor_absolute / median(self.base))

    @property
    def limit(self) -> float:
        """What "no change" rules out, on the scale of logarithms."""
        return math.log1p(max(self.task.rule.same_within, self.task.rule.floor_absolute / median(self.base)))


def judge(tasks: Sequence[Task], pairs: Pairs, looks: int = 1) -> list[Row]:
    """A row for each task, in their order.

    A change for the worse (or the better) is shown where `sign_flip` against the margin has an adjusted p-value of at
    most ``alpha / looks`` and the median change reaches both floors. "No change" is shown where `sign_flip` rules out a
    change of ``same_within`` in either direction at ``alpha``. Everything else is unsure. p-values of each direction
    are adjusted by Holm over all tasks; ``alpha / looks`` is Bonferroni's share of each look at growing data. The
    evidence for "no change" is not adjusted: it is a claim about one row.

    Args:
        tasks: what to judge.
        pairs: level, and fewest pairs.
        looks: how often the data may be looked at before the last verdict.
    """
    alpha = pairs.alpha / looks
    found: list[_Paired | Row] = [_pair(task) for task in tasks]
    usable = [item for item in found if isinstance(item, _Paired) and len(item.logs) >= pairs.fewest]
    if usable and alpha / len(usable) < 1 / PATTERNS:
        text = (
            f"{len(usable)} noisy metrics: expected at most {int(alpha * PATTERNS)} at alpha {alpha:.2g}. "
            "Compare fewer rungs at once."
        )
        return [problem("too_many_metrics", text, workload=task.place.workload, rung=task.place.rung) for task in tasks]
    slower = iter(holm([sign_flip(item.logs, item.margin) for item in usable]))
    faster = iter(holm([sign_flip([-value for value in item.logs], item.margin) for item in usable]))
    rows = []
    for item in found:
        if isinstance(item, Row):
            rows.append(item)
        elif len(item.logs) < pairs.fewest:
            rows.append(_row(item, "UNSURE", "too_few_pairs", None, pairs, alpha, len(usable)))
        else:
            rows.append(_judged(item, next(slower), next(faster), pairs, alpha, len(usable)))
    return rows


def logarithms(task: Task) -> list[float]:
    """Logarithm of worse over better of each pair of processes.

    Raises:
        RecordError: samples that are missing, not finite or not above zero.
    """
    found = _pair(task)
    if isinstance(found, Row):
        raise RecordError(found.message)
    return found.logs


def _judged(item: _Paired, slower: float, faster: float, pairs: Pairs, alpha: float, tests: int) -> Row:
    change = math.expm1(median(item.logs))
    if slower <= alpha and change >= item.floor:
        return _row(item, "SLOWER", "shown_slower", slower, pairs, alpha, tests)
    if faster <= alpha and -math.expm1(-median([-value for value in item.logs])) >= item.floor:
        return _row(item, "FASTER", "shown_faster", faster, pairs, alpha, tests)
    below = sign_flip([-value for value in item.logs], -item.limit)
    above = sign_flip(item.logs, -item.limit)
    if max(below, above) <= pairs.alpha:
        return _row(item, "SAME", "shown_same", max(below, above), pairs, alpha, tests)
    enough = len(item.logs) >= pairs_needed(tests, alpha)
    return _row(item, "UNSURE", "too_noisy" if enough else "too_few_pairs", slower, pairs, alpha, tests)


def _pair(task: Task) -> _Paired | Row:
    """Medians of the processes in pairs, or the error that keeps them from being compared."""
    number = min(len(task.base), len(task.head))

    def refuse(reason: str, message: str) -> Row:
        where = {"workload": task.place.workload, "rung": task.place.rung, "metric": task.metric}
        return problem(reason, f"{task.metric}: {message} Measure that rung again.", **where)

    if not number:
        side = "base" if not task.base else "head"
        return refuse("missing_metric", f"expected samples on both sides, the {side} has none.")
    medians: dict[str, list[float]] = {}
    for side, processes, reason in (
        ("base", task.base, "zero_baseline"),
        ("head", task.head, "not_above_zero"),
    ):
        if not all(len(samples) for samples in processes):
            return refuse("no_samples", f"expected samples of every process, one of the {side} has none.")
        flat = [value for samples in processes for value in samples]
        if not all(math.isfinite(value) for value in flat):
            return refuse("not_finite", f"expected finite samples, the {side} has one that is not.")
        if min(flat) <= 0:
            return refuse(reason, f"expected samples above zero, the {side} has {min(flat)}.")
        medians[side] = [median(samples) for samples in processes[:number]]
    sign = 1 if task.rule.worse == "higher" else -1
    logs = [sign * math.log(b / a) for a, b in zip(medians["base"], medians["head"], strict=True)]
    return _Paired(task, medians["base"], medians["head"], logs)


def _row(item: _Paired, verdict: str, reason: str, p: float | None, pairs: Pairs, alpha: float, tests: int) -> Row:
    """A row with the numbers that were used, and the smallest change that these pairs could have shown."""
    task, number, sign = item.task, len(item.logs), 1 if item.task.rule.worse == "higher" else -1
    width = spread(item.logs)
    least = finite(detectable(width, number, alpha / max(1, tests), pairs.power, item.margin)) if number > 1 else None
    least = None if least is None else max(least, item.floor)
    found = median_interval(item.logs, pairs.confidence)
    ends = sorted(math.expm1(sign * value) for value in (found.low, found.high)) if found else [None, None]
    change = math.expm1(sign * median(item.logs))
    outcome = {"SLOWER": "regression", "UNSURE": "unsure"}.get(verdict, "pass")
    return Row(
        workload=task.place.workload,
        rung=task.place.rung,
        metric=task.metric,
        kind="noisy",
        verdict=verdict,  # type: ignore[arg-type]
        reason=reason,
        outcome=outcome,  # type: ignore[arg-type]
        message=_sentence(item, change, least, p, pairs, alpha, tests),
        unit=metric_of(task.metric).short,
        base=median(item.base),
        head=median(item.head),
        change=change,
        low=ends[0],
        high=ends[1],
        p=p,
        pairs=number,
        spread=width,
        margin=item.margin,
        detectable=least,
    )


def _sentence(
    item: _Paired, change: float, least: float | None, p: float | None, pairs: Pairs, alpha: float, tests: int
) -> str:
    number, all_of_them = len(item.logs), max(len(item.task.base), len(item.task.head))
    over = plural(number, "process pair")
    parts = [f"{item.task.metric}: {change:+z.2%} over {over}, margin {math.expm1(item.margin):.2%}"]
    if item.task.slope:
        parts.append(f"at one clock, a slope of {item.task.slope:.2f} taken out")
    if all_of_them > number:
        parts.append(f"left out without a partner: {plural(all_of_them - number, 'process', 'processes')}")
    if p is not None:
        parts.append(f"p {p:.2g} at alpha {alpha:.2g}")
    parts.append("no change could have been shown" if least is None else f"the least that shows is {least:.2%}")
    needed = max(pairs.fewest, pairs_needed(max(1, tests), alpha))
    if number < needed:
        parts.append(f"take at least {needed} pairs")
    return "; ".join(parts) + "."
