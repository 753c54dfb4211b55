"""Steps and ramps: where the level of a series changes, at once or little by little.

Of counts every change is a step. Of times, steps are found by asv's own detection (`asv.step_detect`: piecewise
constant fit with an L1 penalty). With fewer than `FEWEST` values it calls noise a step: measured on Gaussian noise of
2 %, in 84 of 100 series of 2 values, 42 of 4, 14 of 6, and 1 of 8. Shorter series are therefore not judged.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from fluxperf.errors import RecordError

#: Values that a series of times must have to be searched for steps.
FEWEST = 8

#: From so many values on, the search is spread over processes, which take half a second to start.
SPREAD_FROM = 10_000


#: Standard errors of a trend: chance gives as much once in 30,000 series.
TREND = 4.0

#: The least change from the first to the last third of a ramp.
RAMP = 0.02


class Step(NamedTuple):
    """A stretch of a series with one level: its first value, the one after its last, and their median."""

    first: int
    end: int
    level: float


def steps_of_counts(values: Sequence[float]) -> list[Step]:
    """Stretches of equal values."""
    steps: list[Step] = []
    for index, value in enumerate(values):
        if steps and steps[-1].level == value:
            steps[-1] = steps[-1]._replace(end=index + 1)
        else:
            steps.append(Step(index, index + 1, value))
    return steps


def steps_of_times(series: Sequence[Sequence[float]]) -> list[list[Step] | None]:
    """Steps of each of several series, or ``None`` for one with fewer than `FEWEST` values.

    Args:
        series: values in order of their commits, none missing.

    Raises:
        RecordError: asv is not installed.
    """
    long = [index for index, values in enumerate(series) if len(values) >= FEWEST]
    chosen = [list(series[index]) for index in long]
    processes = min(len(os.sched_getaffinity(0)), len(chosen))
    found: list[list[Step]]
    if processes > 1 and sum(len(values) for values in chosen) >= SPREAD_FROM:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            found = list(pool.map(detected, chosen, chunksize=-(-len(chosen) // (4 * processes))))
    else:
        found = [detected(values) for values in chosen]
    result: list[list[Step] | None] = [None] * len(series)
    for index, steps in zip(long, found, strict=True):
        result[index] = steps
    return result


def detected(values: Sequence[float]) -> list[Step]:
    """Steps of one series by asv's detection.

    A piecewise constant fit with a penalty for each step, by `asv.step_detect.solve_potts_approx`; the penalty is the
    one, of those that a golden section search tries between a tenth of the spread's n-th part and all of it, with the
    least ``4 ln(n) / n * pieces + ln(noise floor + residuals)``. Residuals are those that no correlation of neighbours
    explains. It is the criterion of `asv.step_detect.detect_steps`, in arrays: half of the time.

    Raises:
        RecordError: asv is not installed.
    """
    solver = _solver()
    if min(values) == max(values):
        return [Step(0, len(values), values[0])]
    number, series = len(values), np.asarray(values, float)
    weights = [1] * number
    distances = solver.get_mu_dist(list(values), weights)
    spread = distances.dist(0, number - 1) or 1.0
    tried: list[tuple[float, list[int], list[float]]] = []

    def criterion(log_share: float) -> float:
        penalty = spread * math.exp(log_share)
        ends, levels, _ = solver.solve_potts_approx(list(values), weights, gamma=penalty, mu_dist=distances)
        errors = series - np.repeat(levels, np.diff([0, *ends]))

        def residuals(correlation: float) -> float:
            return float(abs(errors[0]) + np.abs(errors[1:] - correlation * errors[:-1]).sum())

        correlation = solver.golden_search(residuals, -1, 1, xatol=0.05, expand_bounds=True)
        heights = np.abs(np.diff(levels)) if len(levels) > 2 else np.abs(levels) / 100
        noise = max(1e-300, 0.1 * float(heights.min()))
        found = 4 * math.log(number) / number * len(ends) + math.log(noise + residuals(correlation))
        tried.append((found, ends, levels))
        return found

    lowest = math.log(0.1 / number)
    solver.golden_search(criterion, lowest, 0.0, xatol=0.1 * abs(lowest), ftol=0, expand_bounds=True)
    _, ends, levels = min(tried, key=lambda one: one[0])
    steps = [Step(first, end, level) for first, end, level in zip([0, *ends], ends, levels, strict=False)]
    return steps if len(steps) > 1 else ramp(values) or steps


def ramp(values: Sequence[float]) -> list[Step]:
    """The first and the last third of a series that rises or falls little by little, as two steps; none else.

    Every small change may be within the noise of its neighbours: a test of all pairs of values sees them together. The
    series has a trend where the Mann-Kendall statistic is beyond `TREND` standard errors, and it counts where the
    medians of the outer thirds differ by at least `RAMP`.
    Source: H. B. Mann, "Nonparametric tests against trend", Econometrica 13 (1945), 245-259.
    """
    number = len(values)
    array = np.asarray(values, float)
    rises = np.sign(array[None, :] - array[:, None])[np.triu_indices(number, 1)].sum()
    error = math.sqrt(number * (number - 1) * (2 * number + 5) / 18)
    third = max(1, number // 3)
    old, new = (float(np.median(part)) for part in (array[:third], array[-third:]))
    if abs(rises) - 1 < TREND * error or not old or abs(new / old - 1) < RAMP:
        return []
    return [Step(0, number - third, old), Step(number - third, number, new)]


@cache
def _solver() -> Any:
    """asv's module of step detection. asv itself imports all its plugins, which takes a second; this needs none."""
    found = find_spec("asv")
    if found is None or not found.submodule_search_locations:
        raise RecordError(
            "change points: expected asv, whose step detection finds them, but it is not installed. "
            "Get it with: pip install asv==0.6.6"
        )
    bare = ModuleType("_bare_asv")
    bare.__path__ = list(found.submodule_search_locations)
    sys.modules[bare.__name__] = bare
    return import_module("_bare_asv.step_detect")
