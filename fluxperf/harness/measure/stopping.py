"""When sampling stops: after a warm-up that has settled, at a median that is known well enough, or at a bound.

Both rules look at samples of one process. They say how many samples that process should take, and nothing about other
processes; what is reported of a median comes from several of those.

A warm-up has settled by its seconds, or, where the device counts cycles, by cycles and clock: `steady`. A GPU at its
limit of power changes its clock by several percent from sample to sample for as long as it works, so seconds alone
either never settle or settle by chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import median
from typing import NamedTuple

from fluxperf.harness.records import SamplingRow, Stopped
from fluxperf.harness.stats import median_interval

#: Samples of a warm-up that must agree before it has settled; twice as many are searched for a trend.
WINDOW = 5

#: Relative range within which the newest ``WINDOW`` samples agree. Georges, Buytaert and Eeckhout ("Statistically
#: rigorous Java performance evaluation", OOPSLA 2007, section 4) bound the coefficient of variation of the last k
#: iterations by 0.01 or 0.02; a range is at least as strict.
SPREAD = 0.02

#: Seconds of samples, and samples, that a half of a warm-up's end must have before cycles and clock are judged.
STEADY_S, STEADY_SAMPLES = 1.0, 3

#: Relative change of the median clock, and of the median cycles, from one half to the other that still is steady.
STEADY_CLOCK, STEADY_CYCLES = 0.015, 0.002

#: Seconds that a warm-up without other bounds takes at most until it is steady.
STEADY_MOST_S = 10.0

#: Two-sided 5 % point of the normal distribution, for the trend.
_TREND = 1.96

#: Confidence of the interval that sampling stops at.
CONFIDENCE = 0.95


class Reading(NamedTuple):
    """One sample on a device's clock.

    ``cycles`` of a multiprocessor and their rate ``clock_hz`` are ``None`` where the device counts none.
    """

    seconds: float
    cycles: float | None = None
    clock_hz: float | None = None


class Until(NamedTuple):
    """How long to sample where the number of samples is not fixed beforehand.

    Args:
        half_width: stop when half the median's interval, over the median, is at most this; 0 is never reached.
        most: samples of each variant at most.
        most_s: seconds of sampling at most, all variants together. A turn that has begun is finished.
        warmup_most: warm-up runs of each variant at most.
        warmup_s: seconds of warm-up at most, all variants together.
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
    """Whether a GPU is in its steady state: its clock no longer falls, and cycles stay the same.

    The newest samples that last `STEADY_S` together are compared with as many seconds of samples before them: medians
    of clock and cycles may differ by `STEADY_CLOCK` and `STEADY_CYCLES`. A card reaches its limit of power, and the
    clock that it can hold there, within seconds, so it is seconds that count and not samples.

    Args:
        readings: all warm-up samples so far, in order.

    Returns:
        ``None`` where there are no cycles, or too few samples to tell.
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
    """Median of a field, 0 where a reading lacks it."""
    return median([getattr(reading, field) or 0.0 for reading in readings])


def _newest(readings: Sequence[Reading]) -> tuple[Sequence[Reading], Sequence[Reading]]:
    """The newest samples that last long enough together, and those before them; none of the former if none do."""
    passed_s = 0.0
    for number, reading in enumerate(reversed(readings), start=1):
        passed_s += reading.seconds
        if passed_s >= STEADY_S and number >= STEADY_SAMPLES:
            return readings[-number:], readings[:-number]
    return (), readings


def _told(readings: Sequence[Reading]) -> bool | None:
    """Whether a warm-up has settled, by the rule that fits the device; ``None`` for too few samples to tell."""
    if readings and all(reading.cycles is not None for reading in readings):
        return steady(readings)
    return settled([reading.seconds for reading in readings]) if len(readings) >= WINDOW else None


def half_width(samples_s: Sequence[float]) -> float | None:
    """Half of the median's interval over the median, or ``None`` for too few samples.

    The interval is `stats.median_interval`, which takes six samples at least. Looked at after every sample it covers
    less than that: it decides when to stop, and is no interval to report.

    Args:
        samples_s: positive, in any order, in seconds.
    """
    interval = median_interval(samples_s, CONFIDENCE)
    return None if interval is None else (interval.high - interval.low) / 2 / median(samples_s)


def warm(series: Sequence[Sequence[Reading]], least: int, until: Until | None, passed_s: float) -> bool:
    """Whether the warm-up of several variants is over.

    Args:
        series: warm-up samples so far, by variant.
        least: runs of each. Without ``until`` exactly so many, but where all devices count cycles: there the warm-up
            goes on until all are `steady`, for `STEADY_MOST_S`; not if no run was asked for.
        until: bounds, or ``None``.
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

    All variants go on until the last of them is known well enough, so that their turns stay interleaved.

    Args:
        series: samples so far, by variant.
        least: samples of each; exactly so many without ``until``.
        until: precision and bounds, or ``None``.
        passed_s: seconds of sampling so far.
    """
    count = min(map(len, series))
    if count < least:
        # A bound in time holds here too: each variant has at least one sample by then.
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
    """How sampling of one variant ended, as a record has it.

    Args:
        why: why it took no more samples.
        warmup: all samples of its warm-up.
        times_s: all samples after that, in seconds.
    """
    return SamplingRow(stopped=why, settled=_told(warmup), half_width=half_width(times_s))
