"""Cycles at one clock: the part of work that waits for memory takes more cycles the quicker the multiprocessors tick.

Memory has a clock of its own, so work of which a share ``s`` waits for it takes ``cycles ~ clock**s``: 0 for products,
1 for copies, 0.1 to 0.3 for a step of FLUX.1 on an H100. A GPU at its limit of power has another mean clock in every
process, which spreads the cycles of one and the same program. The slope is found from the processes that are compared,
within each side, so that a change of the program is no part of it; then all cycles are brought to one clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import fmean, median
from typing import NamedTuple

import numpy as np

Processes = Sequence[Sequence[float]]

#: Pairs of processes that a slope takes at least: those of two sides of four.
_FEWEST = 12


class AtOneClock(NamedTuple):
    """Cycles of both sides by process, all at the mean clock, and the slope that was taken out; 0 if none was found."""

    base: list[list[float]]
    head: list[list[float]]
    slope: float


def at_one_clock(cycles: tuple[Processes, Processes], clocks_hz: tuple[Processes, Processes]) -> AtOneClock:
    """Cycles of base and head brought to one clock; as they are where the clocks of some samples are not known.

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

    The median of the slopes of all pairs of processes of one side, weighted by how far apart their clocks are: one
    process that is unlike the others moves it little (Sen, "Estimates of the regression coefficient based on
    Kendall's tau", Journal of the American Statistical Association 63, 1968; the weights are Jaeckel's, "Estimating
    regression coefficients by minimizing the dispersion of the residuals", Annals of Mathematical Statistics 43, 1972).

    Args:
        cycles: samples of base and of head, by process.
        clocks_hz: mean clock of the same samples.
    """
    rises = []
    for side, clocks in zip(cycles, clocks_hz, strict=True):
        points = [(np.log(median(clock)), np.log(median(work))) for work, clock in zip(side, clocks, strict=True)]
        rises += [(abs(q[0] - p[0]), (q[1] - p[1]) / (q[0] - p[0])) for p, q in combinations(points, 2) if q[0] != p[0]]
    if len(rises) < _FEWEST:
        return 0.0
    weights, slopes = np.array(sorted(rises, key=lambda rise: rise[1])).T
    middle = np.searchsorted(np.cumsum(weights), weights.sum() / 2)
    return float(np.clip(slopes[middle], 0.0, 1.0))


def _alike(cycles: Processes, clocks_hz: Processes) -> bool:
    """Whether every sample has a clock, and both are above zero."""
    if [len(samples) for samples in cycles] != [len(samples) for samples in clocks_hz]:
        return False
    return all(len(samples) and min(samples) > 0 for side in (cycles, clocks_hz) for samples in side)
