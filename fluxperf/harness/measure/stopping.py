"""When sampling stops: after a settled warm-up, at a sufficiently precise median, or at a limit.

Both rules use samples of one process. They determine how many samples that process takes, and say nothing about other
processes. A reported median is computed from several processes.

A warm-up has settled by its seconds, or, if the device counts cycles, by cycles and clock: `steady`. A GPU at its power
limit changes its clock by several percent from sample to sample as long as it works, so seconds alone either never
settle or settle by chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import median
from typing import NamedTuple

from fluxperf.harness.records import SamplingRow, Stopped
from fluxperf.harness.stats import median_interval

#: Number of warm-up samples that must agree; twice as many are tested for a trend.
WINDOW = 5

#: Relative range within which the newest ``WINDOW`` samples agree. Georges, Buytaert and Eeckhout ("Statistically
#: rigorous Java performance evaluation", OOPSLA 2007, section 4) bound the coefficient of variation of the last k
#: iterations by 0.01 or 0.02; a range is at least as strict.
SPREAD = 0.02

#: Minimum seconds of samples, and number of samples, in each half of a warm-up's end before cycles and clock are
#: judged.
STEADY_S, STEADY_SAMPLES = 1.0, 3

#: Maximum relative change of the median clock, and of the median cycles, from one half to the other in a steady state.
STEADY_CLOCK, STEADY_CYCLES = 0.015, 0.002

#: Maximum seconds of a warm-up without other limits until it is steady.
STEADY_MOST_S = 10.0

#: Two-sided 5 % point of the normal distribution, for the trend.
_TREND = 1.96

#: Confidence level of the interval at which sampling stops.
CONFIDENCE = 0.95


class Reading(NamedTuple):
    """One sample on a device's clock.

    ``cycles`` of a multiprocessor and their rate ``clock_hz`` are ``None`` if the device counts none.
    """

    seconds: float
    cycles: float | None = None
    clock_hz: float | None = None


class Until(NamedTuple):
    """How long to sample if the number of samples is not fixed.

    Args:
        half_width: stop when half the median's interval, over the median, is at most this; 0 is never reached.
        most: maximum samples of each variant.
        most_s: maximum seconds of sampling, all variants together. A started turn is finished.
        warmup_most: maximum warm-up runs of each variant.
        warmup_s: maximum seconds of warm-up, all variants together.
    """

    half_width: float = 0.01
    most: int = 200
    most_s: float = 60.0
    warmup_most: int = 50
    warmup_s: float = 20.0


def settled(samples_s: Sequence[float]) -> bool:
    """Whether a warm-up has settled: its newest samples agree, or the newest twice as many show no trend.

    The newest `WINDOW` samples agree when ``(max - min) / median <= SPREAD``. On a machine that is noisier than that,
    the newest ``2 * WINDOW`` samples show no trend when the Mann-Kendall statistic, S = number of pairs that rise minus
    number of pairs that fall, has ``(|S| - 1) / sqrt(n (n - 1) (2 n + 5) / 18) < 1.96`` (Mann, "Nonparametric tests
    against trend", Econometrica 13, 1945; Kendall, "Rank Correlation Methods", 1975).

    Args:
        samples_s: all warm-up samples so far, in order, in seconds.
    """
    newest = samples_s[-WINDOW:]
    if len(newest) == WINDOW and max(newest) - min(newest) <= SPREAD * median(newest):
        return True
    longer = samples_s[-2 * WINDOW :]
    count = len(longer)
    if count < 2 * WINDOW:
        return False
    rises = sum((after > before) - (after < before) for before, after in combinations(longer, 2))
    deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    return (abs(rises) - 1) / deviation < _TREND


def steady(readings: Sequence[Reading]) -> bool | None:
    """Whether a GPU is in its steady state: its clock no longer falls, and cycles are constant.

    The newest samples that last `STEADY_S` in total are compared with the same seconds of samples before them: medians
    of clock and cycles may differ by `STEADY_CLOCK` and `STEADY_CYCLES`. A GPU reaches its power limit, and the clock
    that it can sustain there, within seconds. So seconds count, not samples.

    Args:
        readings: all warm-up samples so far, in order.

    Returns:
        ``None`` if there are no cycles, or too few samples.
    """
    later, before = _newest(readings)
    earlier, _ = _newest(before)
    if not earlier:
        return None
    bounds = (("clock_hz", STEADY_CLOCK), ("cycles", STEADY_CYCLES))
    middles = [(_middle(earlier, field), _middle(later, field), most) for field, most in bounds]
    if not all(before and after for before, after, _ in middles):
        return None
    return all(abs(after / before - 1) <= most for before, after, most in middles)


def _middle(readings: Sequence[Reading], field: str) -> float:
    """Median of a field, 0 if a reading lacks it."""
    return median([getattr(reading, field) or 0.0 for reading in readings])


def _newest(readings: Sequence[Reading]) -> tuple[Sequence[Reading], Sequence[Reading]]:
    """The newest samples of sufficient total duration, and those before them; both empty if there are too few."""
    passed_s = 0.0
    for number, reading in enumerate(reversed(readings), start=1):
        passed_s += reading.seconds
        if passed_s >= STEADY_S and number >= STEADY_SAMPLES:
            return readings[-number:], readings[:-number]
    return (), readings


def _told(readings: Sequence[Reading]) -> bool | None:
    """Whether a warm-up has settled, by the rule for the device; ``None`` for too few samples."""
    if readings and all(reading.cycles is not None for reading in readings):
        return steady(readings)
    return settled([reading.seconds for reading in readings]) if len(readings) >= WINDOW else None


def half_width(samples_s: Sequence[float]) -> float | None:
    """Half of the median's interval over the median, or ``None`` for too few samples.

    The interval is `stats.median_interval`, which needs at least six samples. Tested after every sample, its coverage
    is lower than its level: it determines when to stop, and is not a reported interval.

    Args:
        samples_s: positive, in any order, in seconds.
    """
    interval = median_interval(samples_s, CONFIDENCE)
    return None if interval is None else (interval.high - interval.low) / 2 / median(samples_s)


def warm(series: Sequence[Sequence[Reading]], least: int, until: Until | None, passed_s: float) -> bool:
    """Whether the warm-up of several variants is over.

    Args:
        series: warm-up samples so far, by variant.
        least: runs of each. Without ``until`` exactly this number, unless all devices count cycles: then the warm-up
            continues until all are `steady`, for at most `STEADY_MOST_S`; not if no run was requested.
        until: limits, or ``None``.
        passed_s: seconds of warm-up so far.
    """
    count = min(map(len, series))
    if count < least:
        return False
    if until is not None:
        return count >= until.warmup_most or passed_s >= until.warmup_s or all(map(_told, series))
    counted = least and all(reading.cycles is not None for readings in series for reading in readings)
    return not counted or passed_s >= STEADY_MOST_S or all(map(_told, series))


def stopped(series: Sequence[Sequence[float]], least: int, until: Until | None, passed_s: float) -> Stopped | None:
    """Why sampling of several variants is over, or ``None`` while it is not.

    All variants continue until the last of them is precise enough, so that their turns stay interleaved.

    Args:
        series: samples so far, by variant.
        least: samples of each; exactly this number without ``until``.
        until: precision and limits, or ``None``.
        passed_s: seconds of sampling so far.
    """
    count = min(map(len, series))
    if count < least:
        # a time limit applies here too: each variant has at least one sample by then
        return "time" if until and count and passed_s >= until.most_s else None
    if until is None:
        return "count"
    widths = [half_width(samples) for samples in series]
    if until.half_width and all(width is not None and width <= until.half_width for width in widths):
        return "precision"
    if passed_s >= until.most_s:
        return "time"
    return "count" if count >= until.most else None


def outcome(why: Stopped, warmup: Sequence[Reading], times_s: Sequence[float]) -> SamplingRow:
    """How sampling of one variant ended, in the form of a record.

    Args:
        why: why it took no more samples.
        warmup: all samples of its warm-up.
        times_s: all samples after that, in seconds.
    """
    return SamplingRow(stopped=why, settled=_told(warmup), half_width=half_width(times_s))
