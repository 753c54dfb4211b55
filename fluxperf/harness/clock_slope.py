"""Cycles at one clock: work that waits for memory takes more cycles when the multiprocessors have a higher clock.

Memory has its own clock. If a share ``s`` of the work waits for memory, ``cycles ~ clock**s``: 0 for matrix products, 1
for copies, 0.1 to 0.3 for a step of FLUX.1 on an H100. A GPU at its power limit has a different mean clock in every
process, which spreads the cycles of the same program. The slope is estimated from the compared processes, within each
side, so that it excludes changes of the program. Then all cycles are converted to one clock.

A slope that was estimated at almost one clock is uncertain for other clocks. If the clocks of the sides differ by more
than those of their own processes, the error of the slope becomes a difference of the sides: `doubt` is its bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean, median
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fluxperf.harness.significance import robust_spread

Point = tuple[float, float]
Processes = Sequence[Sequence[float]]

#: Minimum number of pairs of processes for a slope: those of two sides of four.
_FEWEST = 12

#: Efficiency of the weighted median of slopes beside least squares, where residuals are normal: 3 / pi (Jaeckel 1972).
_EFFICIENCY = 3 / math.pi


class AtOneClock(NamedTuple):
    """Cycles of both sides by process, all at the mean clock, and the removed slope; 0 if none was found."""

    base: list[list[float]]
    head: list[list[float]]
    slope: float


class Doubt(NamedTuple):
    """How much the head may be overestimated or underestimated, in logarithms, because the slope has an error.

    ``error`` is the standard error, infinite if not known. ``above`` and ``below`` are the largest possible errors in
    each direction: a slope is never below 0 or above 1. So more cycles at a lower clock are more work, whatever the
    slope.
    """

    error: float
    above: float
    below: float

    def over(self, errors: float) -> float:
        """Bound of the overestimate, for a number of standard errors."""
        return min(self.error * errors, self.above)

    def under(self, errors: float) -> float:
        """Bound of the underestimate, for a number of standard errors."""
        return min(self.error * errors, self.below)

    def within(self, errors: float) -> float:
        """The larger of both bounds."""
        return max(self.over(errors), self.under(errors))


#: No doubt.
NONE = Doubt(0.0, 0.0, 0.0)


def at_one_clock(cycles: tuple[Processes, Processes], clocks_hz: tuple[Processes, Processes]) -> AtOneClock:
    """Cycles of base and head converted to one clock; unchanged if the clocks of some samples are not known.

    ``log cycles' = log cycles - s (log clock - mean log clock)``

    Args:
        cycles: samples of base and of head, by process.
        clocks_hz: mean clock of the same samples.
    """
    if not all(_alike(*sides) for sides in zip(cycles, clocks_hz, strict=True)):
        same_base, same_head = ([list(samples) for samples in side] for side in cycles)
        return AtOneClock(same_base, same_head, 0.0)
    slope = slope_of(cycles, clocks_hz)
    middle = fmean(float(np.log(value)) for side in clocks_hz for samples in side for value in samples)
    base, head = (
        [
            [value * float(np.exp(-slope * (np.log(clock) - middle))) for value, clock in zip(*both, strict=True)]
            for both in zip(side, clocks, strict=True)
        ]
        for side, clocks in zip(cycles, clocks_hz, strict=True)
    )
    return AtOneClock(base, head, slope)


def slope_of(cycles: tuple[Processes, Processes], clocks_hz: tuple[Processes, Processes]) -> float:
    """Slope of log cycles on log clock over the processes of each side, between 0 and 1.

    The median of the slopes of all pairs of processes of one side, weighted by the distance of their clocks, so that an
    unusual process has little influence (Sen, "Estimates of the regression coefficient based on Kendall's tau", Journal
    of the American Statistical Association 63, 1968; the weights are Jaeckel's, "Estimating regression coefficients by
    minimizing the dispersion of the residuals", Annals of Mathematical Statistics 43, 1972).

    Args:
        cycles: samples of base and of head, by process.
        clocks_hz: mean clock of the same samples.
    """
    rises = []
    for points in _points(cycles, clocks_hz):
        rises += [(abs(q[0] - p[0]), (q[1] - p[1]) / (q[0] - p[0])) for p, q in combinations(points, 2) if q[0] != p[0]]
    if len(rises) < _FEWEST:
        return 0.0
    weights, slopes = np.array(sorted(rises, key=lambda rise: rise[1])).T
    middle = np.searchsorted(np.cumsum(weights), weights.sum() / 2)
    return float(np.clip(slopes[middle], 0.0, 1.0))


def doubt(cycles: tuple[Processes, Processes], clocks_hz: tuple[Processes, Processes], slope: float) -> Doubt:
    """The error of the difference of the sides' log cycles at one clock that follows from the error of the slope.

    ``e |median over pairs of log clock of head - of base|``, with ``e`` the standard error of the slope, that of a
    regression within each side: ``scale / sqrt(sum (x - mean x)^2)``. Outlying clocks and residuals are limited. If no
    slope can be estimated, all values from 0 to 1 are possible. If clocks are not known, the result is no doubt.

    Args:
        cycles: samples of base and of head, by process, as measured.
        clocks_hz: mean clock of the same samples.
        slope: the removed slope.
    """
    if not all(_alike(*sides) for sides in zip(cycles, clocks_hz, strict=True)) or not all(cycles):
        return NONE
    sides = [np.array(points) for points in _points(cycles, clocks_hz)]
    apart = float(np.median([after[0] - before[0] for before, after in zip(*sides, strict=False)]))
    error = _standard_error(sides, slope)
    higher, lower = max(apart, 0.0), max(-apart, 0.0)
    above, below = (share * higher + (1 - share) * lower for share in (1 - slope, slope))
    return Doubt(error if math.isinf(error) else abs(apart) * error, above, below)


def _standard_error(sides: Sequence[npt.NDArray[np.float64]], slope: float) -> float:
    """Standard error of the slope, from the points of each side [n, 2]; infinite if there are too few."""
    number = sum(map(len, sides)) - len(sides) - 1
    width = float(np.square(_drawn_in([side[:, 0] for side in sides])).sum())
    if sum(len(side) * (len(side) - 1) // 2 for side in sides) < _FEWEST or not width:
        return math.inf
    rests = _drawn_in([side[:, 1] - slope * side[:, 0] for side in sides])
    return math.sqrt(float(np.square(rests).sum()) / (number * _EFFICIENCY * width))


def _drawn_in(sides: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Distances from the median of their side, limited to three robust scales of all distances."""
    found = np.concatenate([side - np.median(side) for side in sides])
    most = 3 * robust_spread(found.tolist())
    return np.asarray(np.clip(found, -most, most), np.float64)


def _points(cycles: tuple[Processes, Processes], clocks_hz: tuple[Processes, Processes]) -> list[list[Point]]:
    """Logarithms of clock and cycles of each process, by side."""
    return [
        [(math.log(median(clock)), math.log(median(work))) for work, clock in zip(*both, strict=True)]
        for both in zip(cycles, clocks_hz, strict=True)
    ]


def _alike(cycles: Processes, clocks_hz: Processes) -> bool:
    """Whether every sample has a clock, and both are above zero."""
    if [len(samples) for samples in cycles] != [len(samples) for samples in clocks_hz]:
        return False
    return all(len(samples) and min(samples) > 0 for side in (cycles, clocks_hz) for samples in side)
