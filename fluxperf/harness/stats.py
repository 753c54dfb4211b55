"""Summaries of samples. A sample belongs to a process, and the process is the unit of analysis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import numpy as np

from fluxperf.errors import ArgumentError


class Summary(NamedTuple):
    """Median, smallest and largest sample, and numbers of samples and processes.

    For one sample in each process that consists of parts, ``steps`` in total, ``low`` and ``high`` are its values if
    all parts took as long as the shortest or the longest.
    """

    median: float
    low: float
    high: float
    samples: int
    processes: int
    steps: int = 0


class Interval(NamedTuple):
    """A confidence interval, and the probability that such intervals contain the true value."""

    low: float
    high: float
    coverage: float


def summarize(processes: Sequence[Sequence[float]]) -> Summary | None:
    """Summary of samples grouped by process, or ``None`` if there is no sample.

    The median is the median of the processes' medians, as samples of one process are not independent. ``low`` and
    ``high`` are the extremes of all samples; they are a range, not a confidence interval.
    """
    groups = [list(samples) for samples in processes if samples]
    if not groups:
        return None
    flat = [value for samples in groups for value in samples]
    return Summary(median(median(samples) for samples in groups), min(flat), max(flat), len(flat), len(groups))


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Interval of confidence of a median between two order statistics, or ``None`` where there are too few values.

    ``[x_(k), x_(n+1-k)]`` with the largest ``k`` for which ``2 P(Binomial(n, 1/2) < k) <= 1 - confidence``.

    It assumes independent values and nothing about their distribution. Five values never reach 0.95; six do.
    Source: W. R. Thompson, "On confidence ranges for the median and other expectation distributions for populations
    of unknown distribution form", Annals of Mathematical Statistics 7 (1936), 122-128.

    Args:
        values: one number of each process, or of each pair of processes.
        confidence: lowest coverage, between 0 and 1.

    Raises:
        ArgumentError: a confidence outside of 0 to 1, or a value that is not finite.
    """
    _check("median_interval", values, confidence)
    ordered, number = sorted(values), len(values)
    # the binomial tail in whole numbers: SciPy takes a second to import, and the sampler calls this after every sample
    k, below, reached = 0, 0, 0.0
    while k < number // 2:
        below += math.comb(number, k)
        coverage = 1 - 2 * (below / 2**number)
        if coverage < confidence:
            break
        k, reached = k + 1, coverage
    return Interval(ordered[k - 1], ordered[number - k], reached) if k else None


def ratio_interval(
    base: Sequence[float],
    head: Sequence[float],
    confidence: float = 0.95,
    paired: bool = False,
    resamples: int = 4000,
    seed: int = 0,
) -> Interval | None:
    """Percentile bootstrap interval of ``median(head) / median(base)``, or ``None`` with fewer than three of a side.

    Processes are drawn with replacement, pairs of them together where they are paired. It assumes that processes are
    independent draws of one distribution per side; with fewer than about eight its true coverage is below the
    nominal one. Source: B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.

    Args:
        base: the median of each process before.
        head: the median of each process after.
        confidence: nominal coverage, between 0 and 1.
        paired: whether process ``i`` of one side ran beside process ``i`` of the other.
        resamples: draws.
        seed: of the draws; the same seed gives the same interval.

    Raises:
        ArgumentError: a value that is not finite or not above zero, or pairs of unequal number.
    """
    _check("ratio_interval", [*base, *head], confidence)
    if min([*base, *head], default=1.0) <= 0:
        raise ArgumentError("ratio_interval: expected values above zero, got one that is not. Leave such samples out.")
    if paired and len(base) != len(head):
        raise ArgumentError(
            f"ratio_interval: expected as many processes before as after, got {len(base)} and {len(head)}. "
            "Pass pairs, or paired=False."
        )
    if min(len(base), len(head)) < 3:
        return None

    # SciPy gives the same result, but takes a second to import
    draws = np.random.default_rng(seed)
    after = draws.integers(0, len(head), (resamples, len(head)))
    before = after if paired else draws.integers(0, len(base), (resamples, len(base)))
    ratios = np.median(np.asarray(head)[after], axis=1) / np.median(np.asarray(base)[before], axis=1)
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high), confidence)


def _check(call: str, values: Sequence[float], confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ArgumentError(f"{call}: expected a confidence between 0 and 1, got {confidence}.")
    if not np.isfinite(np.asarray(values, float)).all():
        raise ArgumentError(f"{call}: expected finite values, got one that is not. Leave such samples out.")
