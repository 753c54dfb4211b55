"""Samples of processes as pairs: one number of each process, and the logarithm of head over base of each pair."""

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

#: What no clock or meter tells and no run takes, in seconds, cycles, hertz and joules: damage, and no sample.
LEAST, MOST = 1e-9, 1e15

#: Standard errors of a doubt that a change must be beyond, and that "no change" leaves room for.
CHANGED, SAME = 3.0, 2.0

#: A sample so many times shorter than the median of its process was not the same work.
BROKEN = 100.0


class Statistic(NamedTuple):
    """A statistic of one process's samples; with fewer than ``fewest`` samples it is the median."""

    of: Callable[[Sequence[float]], float]
    words: str
    fewest: int


def _tail(samples: Sequence[float]) -> float:
    return float(np.quantile(samples, 0.9))


#: By the last part of a metric's name; a metric without one is judged by medians.
STATISTICS = {
    "": Statistic(median, "median", 1),
    "mean": Statistic(fmean, "mean", 3),
    "p90": Statistic(_tail, "90th percentile", 5),
}


def parts(metric: str) -> tuple[str, Statistic]:
    """The metric whose samples are judged, and the statistic, of a metric such as ``times.denoise.p90``."""
    name, _, last = metric.rpartition(".")
    if "." in name and last in STATISTICS:
        return name, STATISTICS[last]
    return metric, STATISTICS[""]


class Task(NamedTuple):
    """One noisy metric of one rung to be judged: samples grouped by process, and the calibrated A/A scale, if any.

    ``slope`` is what was taken out of samples in cycles, which are then all at one clock (`harness/clock_slope.py`).
    ``doubt`` is how far the sides may be apart because that slope is not known better.
    ``left_out`` are pairs, by number, whose conditions say nothing of the program. ``processes`` is the number of
    processes of a side where those took several turns, 0 where every turn had its own.
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
        """1 where a higher value is worse, -1 where a lower one is."""
        return 1 if metric_of(parts(self.metric)[0]).worse == "higher" else -1


class Paired(NamedTuple):
    """A task whose pairs are usable: a number of each process, and the logarithms of worse over better."""

    task: Task
    base: list[float]
    head: list[float]
    logs: list[float]

    @property
    def margin(self) -> float:
        """Of the test, on the scale of logarithms."""
        return math.log1p(self.task.rule.margin) + self.task.doubt.within(CHANGED)

    @property
    def floor(self) -> float:
        """The smallest share of the base that counts as a change."""
        return max(self.task.rule.floor_relative, self.task.rule.floor_absolute / median(self.base))

    @property
    def limit(self) -> float:
        """The largest change that is still "no change", in logarithms."""
        return math.log1p(max(self.task.rule.same_within, self.task.rule.floor_absolute / median(self.base)))

    @property
    def couples(self) -> int:
        """Pairs that tell processes apart: turns of the same ones do not."""
        return min(len(self.logs), self.task.processes or len(self.logs))

    @property
    def together(self) -> float:
        """Logarithm of the ratio of both sides' means over all processes, which no rank or median forgets."""
        return self.task.sign * math.log(fmean(self.head) / fmean(self.base))


def refuse(task: Task, reason: str, message: str) -> Row:
    """The row of a task whose samples cannot be judged."""
    where = {"workload": task.place.workload, "rung": task.place.rung, "metric": task.metric}
    return problem(reason, f"{task.metric}: {message}", **where)


def paired(task: Task) -> Paired | Row | None:
    """Pairs of a task; the row that says why there are none; or ``None`` where it would only repeat the median."""
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
            f"its floor of {task.rule.floor_absolute:g} is {task.rule.floor_absolute / median(base):.3g} times what "
            f"it is ({median(base):.3g}), so nothing would show. Correct floor_absolute in the policy."
        )
        return refuse(task, "gates_nothing", text)
    sign = task.sign
    logs = [sign * math.log(after / before) for before, after in zip(base, head, strict=True)]
    return Paired(task, base, head, logs)


def _unequal(task: Task) -> Row | None:
    before, after = len(task.base), len(task.head)
    if not min(before, after):
        side = "base" if not before else "head"
        text = f"expected samples on both sides, the {side} has none. Measure that rung again."
        return refuse(task, "missing_metric", text)
    if before != after:
        text = (
            f"expected pairs of processes, got {before} of the base and {after} of the head. None is left out: measure "
            "both sides in turns, as often."
        )
        return refuse(task, "unequal_processes", text)
    return None


def _unusable(task: Task) -> Row | None:
    """The row of samples that are no times."""
    again = "Measure that rung again."
    for side, processes, zero in (("base", task.base, "zero_baseline"), ("head", task.head, "not_above_zero")):
        if not all(map(len, processes)):
            text = f"expected samples of every process, one of the {side} has none. {again}"
            return refuse(task, "no_samples", text)
        for samples in processes:
            shortest, longest = min(samples), max(samples)
            if not all(map(math.isfinite, samples)):
                text = f"expected finite samples, the {side} has one that is not. {again}"
                return refuse(task, "not_finite", text)
            if shortest <= 0:
                return refuse(task, zero, f"expected samples above zero, the {side} has {shortest:g}. {again}")
            if shortest < LEAST or longest > MOST or shortest * BROKEN < median(samples):
                text = (
                    f"expected samples of one and the same work, the {side} has some from {shortest:.3g} to "
                    f"{longest:.3g} in one process. {again}"
                )
                return refuse(task, "no_time", text)
    return None
