"""Samples of processes as pairs: one number of each process, and the log ratio of head over base of each pair."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import NamedTuple

import numpy as np

from fluxperf.harness.clock_slope import NONE, Doubt
from fluxperf.harness.exact import Place
from fluxperf.harness.metrics import metric_of
from fluxperf.harness.policy import Noisy
from fluxperf.harness.verdict import Row, problem

Processes = Sequence[Sequence[float]]

#: Larger values are damage, not samples: no clock or meter shows them, in seconds, cycles, hertz and joules.
LEAST, MOST = 1e-9, 1e15

#: Number of standard errors of a doubt that a change must exceed, and that "no change" includes.
CHANGED, SAME = 3.0, 2.0

#: A sample that is shorter than the median of its process by this factor was not the same work.
BROKEN = 100.0


class Statistic(NamedTuple):
    """A statistic of one process's samples; the median if there are fewer than ``fewest`` samples."""

    of: Callable[[Sequence[float]], float]
    words: str
    fewest: int


def _tail(samples: Sequence[float]) -> float:
    return float(np.quantile(samples, 0.9))


#: By the last part of a metric's name. A metric without one is judged by medians.
STATISTICS = {
    "": Statistic(median, "median", 1),
    "mean": Statistic(fmean, "mean", 3),
    "p90": Statistic(_tail, "90th percentile", 5),
}


def parts(metric: str) -> tuple[str, Statistic]:
    """The sampled metric, and the statistic, of a metric such as ``times.denoise.p90``."""
    name, _, last = metric.rpartition(".")
    if "." in name and last in STATISTICS:
        return name, STATISTICS[last]
    return metric, STATISTICS[""]


class Task(NamedTuple):
    """One noisy metric of one rung to be judged: samples grouped by process, and the calibrated A/A scale, if any.

    ``slope`` is the removed slope of samples in cycles, which are then all at one clock (`harness/clock_slope.py`).
    ``doubt`` is the possible difference of the sides due to the error of that slope. ``left_out`` are pairs, by number,
    that are invalid because of their conditions. ``processes`` is the number of processes of a side if those took
    several turns, 0 if every turn had its own.
    """

    place: Place
    metric: str
    base: Processes
    head: Processes
    rule: Noisy
    calibrated: float = 0.0
    slope: float = 0.0
    left_out: frozenset[int] = frozenset()
    processes: int = 0
    doubt: Doubt = NONE

    @property
    def sign(self) -> int:
        """1 if a higher value is worse, -1 if a lower one is."""
        return 1 if metric_of(parts(self.metric)[0]).worse == "higher" else -1


class Paired(NamedTuple):
    """A task with usable pairs: a number of each process, and the logarithms of worse over better."""

    task: Task
    base: list[float]
    head: list[float]
    logs: list[float]

    @property
    def margin(self) -> float:
        """Margin of the test for a change for the worse, on the logarithmic scale."""
        return math.log1p(self.task.rule.margin) + self.task.doubt.over(CHANGED)

    @property
    def margin_of_gain(self) -> float:
        """Margin of the test for a change for the better, on the logarithmic scale."""
        return math.log1p(self.task.rule.margin) + self.task.doubt.under(CHANGED)

    @property
    def floor(self) -> float:
        """The smallest share of the base that counts as a change."""
        return max(self.task.rule.floor_relative, self.task.rule.floor_absolute / median(self.base))

    @property
    def limit(self) -> float:
        """The largest change that still counts as "no change", in logarithms."""
        return math.log1p(max(self.task.rule.same_within, self.task.rule.floor_absolute / median(self.base)))

    @property
    def couples(self) -> int:
        """Number of pairs with different processes: turns of the same processes count once."""
        return min(len(self.logs), self.task.processes or len(self.logs))

    @property
    def together(self) -> float:
        """Log ratio of both sides' means over all processes, to which every process contributes."""
        return self.task.sign * math.log(fmean(self.head) / fmean(self.base))


def refuse(task: Task, reason: str, message: str) -> Row:
    """The row of a task whose samples cannot be judged."""
    where = {"workload": task.place.workload, "rung": task.place.rung, "metric": task.metric}
    return problem(reason, f"{task.metric}: {message}", **where)


def paired(task: Task) -> Paired | Row | None:
    """Pairs of a task; a row with the reason if there are none; or ``None`` if it would only repeat the median."""
    if (said := _unequal(task) or _unusable(task)) is not None:
        return said
    _, statistic = parts(task.metric)
    fewest = [min(map(len, side)) for side in (task.base, task.head)]
    if min(fewest) < statistic.fewest:
        if max(fewest) < statistic.fewest:
            return None
        text = f"expected {statistic.fewest} samples of every process on both sides, got {fewest[0]} and {fewest[1]}."
        return refuse(task, "few_samples", f"{text} Measure both sides alike.")
    kept = [index for index in range(len(task.base)) if index not in task.left_out]
    base, head = ([statistic.of(side[index]) for index in kept] for side in (task.base, task.head))
    if base and task.rule.floor_absolute > task.rule.same_within * median(base):
        text = (
            f"its floor of {task.rule.floor_absolute:g} is {task.rule.floor_absolute / median(base):.3g} times its "
            f"value ({median(base):.3g}), so nothing would be detected. Correct floor_absolute in the policy."
        )
        return refuse(task, "gates_nothing", text)
    sign = task.sign
    logs = [sign * math.log(after / before) for before, after in zip(base, head, strict=True)]
    return Paired(task, base, head, logs)


def _unequal(task: Task) -> Row | None:
    before, after = len(task.base), len(task.head)
    if not min(before, after):
        side = "base" if not before else "head"
        text = f"expected samples on both sides, but the {side} has none. Measure that rung again."
        return refuse(task, "missing_metric", text)
    if before != after:
        text = (
            f"expected the same number of processes on both sides, got {before} of the base and {after} of the "
            "head. Measure both sides in turns."
        )
        return refuse(task, "unequal_processes", text)
    return None


def _unusable(task: Task) -> Row | None:
    """The row of samples that are not valid times."""
    again = "Measure that rung again."
    for side, processes, zero in (("base", task.base, "zero_baseline"), ("head", task.head, "not_above_zero")):
        if not all(map(len, processes)):
            text = f"expected samples of every process, but one of the {side} has none. {again}"
            return refuse(task, "no_samples", text)
        for samples in processes:
            shortest, longest = min(samples), max(samples)
            if not all(map(math.isfinite, samples)):
                text = f"expected finite samples, but the {side} has one that is not. {again}"
                return refuse(task, "not_finite", text)
            if shortest <= 0:
                return refuse(task, zero, f"expected samples above zero, but the {side} has {shortest:g}. {again}")
            if shortest < LEAST or longest > MOST or shortest * BROKEN < median(samples):
                text = (
                    f"expected samples of the same work, but the {side} has some from {shortest:.3g} to "
                    f"{longest:.3g} in one process. {again}"
                )
                return refuse(task, "no_time", text)
    return None
