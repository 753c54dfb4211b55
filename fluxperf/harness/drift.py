"""Drift: compares the head with a fixed reference, so that many small changes cannot pass one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

from fluxperf.harness.exact import Place
from fluxperf.harness.metrics import metric_of
from fluxperf.harness.pairing import Processes, parts
from fluxperf.harness.stats import median_interval
from fluxperf.harness.verdict import Outcome, Row


class Fixed(NamedTuple):
    """Medians of a reference's processes by ``workload/rung/metric``, its name, and the budget."""

    name: str
    budget: float
    medians: Mapping[str, float]


def drifted(place: Place, head: Mapping[str, Processes], fixed: Sequence[Fixed], confidence: float) -> list[Row]:
    """A row for each time of a rung that a reference also has.

    The head exceeds its budget if the whole interval of its median does. The reference was measured at another time, so
    its noise is part of the budget.

    Args:
        place: the rung.
        head: samples by metric and process.
        fixed: references that are comparable with it.
        confidence: of the interval.
    """
    rows = []
    for metric, processes in head.items():
        name, statistic = parts(metric)
        if name != metric or not processes or not all(map(len, processes)):
            continue
        medians = [statistic.of(samples) for samples in processes]
        for point in fixed:
            before = point.medians.get(f"{place.workload}/{place.rung}/{metric}")
            if before:
                rows.append(_row(place, metric, medians, point, before, confidence))
    return rows


def _row(place: Place, metric: str, medians: list[float], point: Fixed, before: float, confidence: float) -> Row:
    interval, now = median_interval(medians, confidence), median(medians)
    worse_is_more = metric_of(metric).worse == "higher"
    ends = (interval.low, interval.high) if interval else (now, now)
    change, beyond = now / before - 1, min(end / before for end in ends) > 1 + point.budget
    if not worse_is_more:
        beyond = max(end / before for end in ends) < 1 - point.budget
    moved = change if worse_is_more else -change
    outcome: Outcome = "pass"
    if moved > point.budget:
        outcome = "regression" if beyond and interval else "unsure"
    return Row(
        workload=place.workload,
        rung=place.rung,
        metric=f"{metric} since {point.name}",
        kind="noisy",
        verdict="SLOWER" if outcome == "regression" else "UNSURE" if outcome == "unsure" else "SAME",
        reason="within_budget" if outcome == "pass" else "drifted",
        outcome=outcome,
        message=f"{metric}: {change:+.2%} since the reference {point.name}, with a budget of {point.budget:.1%}.",
        unit=metric_of(metric).short,
        base=before,
        head=now,
        change=change,
        low=ends[0] / before - 1 if interval else None,
        high=ends[1] / before - 1 if interval else None,
        pairs=len(medians),
        detectable=point.budget,
    )
