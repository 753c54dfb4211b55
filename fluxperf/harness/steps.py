"""Steps: where the level of a series changes.

Of counts every change is a step. Of times, steps are found by asv's own detection (`asv.step_detect`: piecewise
constant fit with an L1 penalty). With fewer than `FEWEST` values it calls noise a step: measured on Gaussian noise of
2 %, in 84 of 100 series of 2 values, 42 of 4, 14 of 6, and 1 of 8. Shorter series are therefore not judged.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

from fluxperf.errors import RecordError

#: Values that a series of times must have to be searched for steps.
FEWEST = 8

#: From so many values on, the search is spread over processes, which take half a second to start.
SPREAD_FROM = 10_000


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

    Raises:
        RecordError: asv is not installed.
    """
    try:
        from asv.step_detect import detect_steps
    except ImportError as error:
        raise RecordError(
            "change points: expected asv, whose step detection finds them, but it is not installed. "
            "Get it with: pip install asv==0.6.6"
        ) from error
    if min(values) == max(values):
        return [Step(0, len(values), values[0])]
    return [Step(first, end, level) for first, end, level, *_ in detect_steps(values)]
