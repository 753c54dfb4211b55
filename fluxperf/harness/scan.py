"""The search for changes of level in many series at once: a scan of two-sample statistics over seeded intervals.

An interval is split at every place into a left and a right part. The difference of their means is converted to a
standard normal score, by Student's distribution with the variance of that interval. Intervals of many lengths, which
overlap by half or more (A. Kovacs, P. Bühlmann, H. Li, A. Munk, "Seeded binary segmentation", Biometrika 110 (2023),
249-256), detect temporary levels as well as permanent ones, at a cost of n log n. A score counts above a threshold that
series of pure noise reach in `ALPHA` of cases. The threshold depends only on their length, was measured by `python -m
benchmarks.changepoints --calibrate`, and holds for a whole series, for any number of tested places.

Adjustments for real series: single outliers are moved to their neighbours; the variance is never below that of
successive differences of the whole series, so that two equal values prove nothing; sides with different noise have a
variance each; correlation of neighbours, which machine noise has, increases it; and short parts need larger differences
(a penalty after L. Dümbgen and V. G. Spokoiny, "Multiscale testing of qualitative hypotheses", Annals of Statistics 29
(2001), 124-152).
"""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Minimum number of values of a level: a single one is an outlier until a second agrees.
LEAST = 2

#: Minimum number of values of a series for a search.
FEWEST = 2 * LEAST

#: Share of series of pure noise in which a change may be found.
ALPHA = 0.02

#: Thresholds of scores, by length of a series; interpolated by the logarithm of the length.
THRESHOLDS = {
    4: 2.326, 5: 2.382, 6: 2.54, 7: 2.579, 8: 2.669, 10: 2.758, 12: 2.758, 16: 2.805, 20: 2.846, 25: 2.879, 32: 2.905,
    40: 2.914, 64: 2.952, 100: 2.982, 150: 3.02, 250: 3.065, 500: 3.123, 2000: 3.137,
}  # fmt: skip

#: Standard deviations from which a single value is moved to its neighbours.
_OUT = 5.0

#: Minimum noise of an interval, as a share of the noise between neighbours.
_FLOOR = 0.85

#: Penalty of a short part: factor of the square root of twice the logarithm of its share.
_SHORT = 0.7

#: Weight, in values, of the interval's variance in that of a part.
_SHRINK = 2.0

#: Minimum length for estimating the correlation of neighbours, and the standard errors from which it counts.
_CORRELATED, _SURE = 40, 2.5

#: Minimum length for using the median difference of neighbours as the usual size.
_TELLS = 16

#: Values of all intervals of one length that are processed together.
_AT_ONCE = 40_000


class Split(NamedTuple):
    """A change: the first value at the new level, its score, and the difference of means with its standard error.

    ``start`` and ``end`` bound the two levels that it separates; ``freedom`` is the error's degrees of freedom.
    """

    place: int
    start: int
    end: int
    score: float
    difference: float
    error: float
    freedom: int


class Prepared(NamedTuple):
    """Series of one length, [series, values], without outliers, with known properties of their noise.

    ``floor`` is the minimum variance [series], ``widening`` the factor of variances by correlation [series].
    """

    values: Floats
    floor: Floats
    widening: Floats


def threshold(number: int) -> float:
    """The score from which a change counts in a series of this length."""
    return float(np.interp(math.log(number), [math.log(key) for key in THRESHOLDS], list(THRESHOLDS.values())))


def chance(score: float, number: int) -> float:
    """The probability that noise of this length reaches a score: a normal tail, which is `ALPHA` at the threshold."""
    tail, known = (math.erfc(one / math.sqrt(2)) for one in (score, threshold(number)))
    return min(1.0, ALPHA * tail / known)


def prepared(values: Floats, noise: Floats | None = None) -> Prepared:
    """Series with outliers moved to their neighbours.

    A value is an outlier if it differs from its four neighbours (two at an end) by more than `_OUT` standard
    deviations.

    Args:
        values: [series, values], all finite.
        noise: minimum variance [series] of a value, if it is known from another source.
    """
    values = values - np.median(values, axis=1, keepdims=True)
    number = values.shape[1]
    steps = np.abs(np.diff(values, axis=1))
    # Changes are large differences, and must not count as noise: the largest few are left out, and from a length at
    # which the median is reliable, others count as four standard deviations at most.
    robust = (1.4826 * np.median(steps, axis=1)) ** 2 / 2
    most = 4 * np.sqrt(2 * robust) if number >= _TELLS else np.zeros(len(values))
    capped = np.minimum(steps, np.where(most > 0, most, np.inf)[:, None])
    trimmed = min(2, (number - 1) // 3) + (number - 1) // 50
    variance = (np.sort(capped, axis=1)[:, : number - 1 - trimmed] ** 2).mean(1) / 2
    scale = np.sqrt(np.maximum(variance, robust))[:, None]
    wide = np.pad(values, ((0, 0), (2, 2)), constant_values=np.nan)
    near = np.stack([wide[:, place : place + number] for place in (0, 1, 3, 4)])
    values = np.clip(values, np.nanmin(near, axis=0) - _OUT * scale, np.nanmax(near, axis=0) + _OUT * scale)
    floor = np.maximum(_FLOOR**2 * variance, 0.0 if noise is None else noise)
    return Prepared(values, floor, _widening(values, scale))


def _widening(values: Floats, scale: Floats) -> Floats:
    """Factor by which correlation of neighbours increases the variance of a mean, for a first-order autoregression.

    Differences of such noise have the correlation ``(r - 1) / 2`` with their neighbours, and no level. Large ones,
    which may be changes, are left out.
    """
    count, number = values.shape
    if number < _CORRELATED:
        return np.ones(count)
    steps = np.diff(values, axis=1)
    steps = np.where(np.abs(steps) > 3 * math.sqrt(2) * scale, 0.0, steps)
    square = (steps**2).sum(1)
    beside = np.divide((steps[:, 1:] * steps[:, :-1]).sum(1), square, out=np.full(count, -0.5), where=square > 0)
    correlation = np.clip(1 + 2 * beside, 0.0, 0.9)
    correlation = np.where(correlation > _SURE / math.sqrt(number), correlation, 0.0)
    widening: Floats = (1 + correlation) / (1 - correlation)
    return widening


@cache
def _intervals(number: int) -> list[tuple[int, NDArray[np.int64]]]:
    """Lengths of intervals, and the starts of the intervals of each length."""
    found: dict[int, NDArray[np.int64]] = {}
    length = float(number)
    while True:
        whole = max(math.ceil(length), FEWEST)
        stride = whole // 2 if whole > 8 else (whole + 2) // 4
        found[whole] = np.unique([*range(0, number - whole + 1, stride), number - whole])
        if whole == FEWEST:
            return list(found.items())
        length /= math.sqrt(2)


class _Scored(NamedTuple):
    """Every split of intervals of one length, [series, intervals, splits]: the first `LEAST` values from the start."""

    score: Floats
    difference: Floats
    variance: Floats

    def best(self) -> tuple[Floats, NDArray[np.int64]]:
        """The highest score of each interval [series, intervals], and the distance of that split from its start."""
        best = self.score.argmax(2)
        return np.take_along_axis(self.score, best[:, :, None], 2)[:, :, 0], best + LEAST


def _sums(values: Floats) -> tuple[Floats, Floats]:
    """Sums of values and of their squares before each place: [series, values + 1]."""
    return (
        np.pad(values.cumsum(1), ((0, 0), (1, 0))),
        np.pad((values**2).cumsum(1), ((0, 0), (1, 0))),
    )


def _scored(sums: tuple[Floats, Floats], one: Prepared, starts: NDArray[np.int64], length: int) -> _Scored:
    """Scores of all splits of the intervals of a length, with differences of means and their variances."""
    total, squares = sums
    left_size = np.arange(LEAST, length - LEAST + 1)
    right_size, freedom = length - left_size, length - 2
    places = starts[:, None] + left_size
    left = total[:, places] - total[:, starts][:, :, None]
    right = total[:, starts + length][:, :, None] - total[:, places]
    left_rest = squares[:, places] - squares[:, starts][:, :, None] - left**2 / left_size
    right_rest = squares[:, starts + length][:, :, None] - squares[:, places] - right**2 / right_size
    common = np.maximum((left_rest + right_rest) / freedom, one.floor[:, None, None])
    own = (left_rest + _SHRINK * common) / (left_size - 1 + _SHRINK) / left_size
    own += (right_rest + _SHRINK * common) / (right_size - 1 + _SHRINK) / right_size
    variance = np.maximum(common * (1 / left_size + 1 / right_size), own) * one.widening[:, None, None]
    difference = right / right_size - left / left_size
    with np.errstate(over="ignore"):
        squared = difference**2 / np.maximum(variance, 1e-30)
    # Student's t as a normal score: D. L. Wallace, "Bounds on normal approximations to Student's and the chi-square
    # distributions", Annals of Mathematical Statistics 30 (1959), 1121-1130.
    score = (8 * freedom + 1) / (8 * freedom + 3) * np.sqrt(freedom * np.log1p(squared / freedom))
    score -= _SHORT * np.sqrt(2 * np.log(one.values.shape[1] * length / (4 * left_size * right_size)))
    return _Scored(score, difference, variance)


def highest(values: Floats) -> Floats:
    """The highest score of each series [series], for calibration; values are [series, values]."""
    return np.concatenate([_highest(prepared(part)) for part in _portions(values)])


def _highest(one: Prepared) -> Floats:
    sums = _sums(one.values)
    found: Floats = np.max(
        [_scored(sums, one, starts, size).score.max((1, 2)) for size, starts in _intervals(one.values.shape[1])], axis=0
    )
    return found


def _portions(values: Floats) -> list[Floats]:
    step = max(1, _AT_ONCE // values.shape[1])
    return [values[first : first + step] for first in range(0, len(values), step)]


def splits(values: Floats, noise: Floats | None = None) -> list[list[Split]]:
    """Changes of level of each of several series of one length, in order.

    Args:
        values: [series, values], all finite; at least `FEWEST` values.
        noise: minimum variance [series] of a value, if it is known from another source.
    """
    found: list[list[Split]] = []
    for part in _portions(values):
        one = prepared(part, None if noise is None else noise[len(found) : len(found) + len(part)])
        found += _changes(one)
    return found


def _changes(one: Prepared) -> list[list[Split]]:
    count, number = one.values.shape
    sums, least = _sums(one.values), threshold(number)
    candidates: list[list[tuple[float, int, int, int]]] = [[] for _ in range(count)]
    for length, starts in _intervals(number):
        scores, places = _scored(sums, one, starts, length).best()
        for row, column in zip(*(one.tolist() for one in np.nonzero(scores >= least)), strict=True):
            start = int(starts[column])
            place = start + int(places[row, column])
            candidates[row].append((float(scores[row, column]), place, start, start + length))
    return [
        _settled(Prepared(*(part[row : row + 1] for part in one)), _chosen(some)) if some else []
        for row, some in enumerate(candidates)
    ]


def _chosen(candidates: list[tuple[float, int, int, int]]) -> list[int]:
    """Places by descending score, without those whose interval contains an earlier chosen place."""
    places: list[int] = []
    for _, place, start, end in sorted(candidates, reverse=True):
        if not any(start < other < end for other in places):
            places.append(place)
    return sorted(places)


def _settled(one: Prepared, places: list[int]) -> list[Split]:
    """Changes between neighbouring levels: each at its best score, all that count, and none below the threshold."""
    number = one.values.shape[1]
    sums, least = _sums(one.values), threshold(number)
    # a change that another one hid is found once that one is known
    for start, end in pairwise([0, *places, number]):
        if (found := _best(one, sums, start, start, end)).score >= least:
            places = sorted({*places, found.place})
    known: dict[tuple[int, int, int], Split] = {}
    splits: list[Split] = []
    for _ in range(4 * len(places) + 4):
        bounds = [0, *places, number]
        triples = [(bounds[index], bounds[index + 1], bounds[index + 2]) for index in range(len(places))]
        known |= {triple: _best(one, sums, *triple) for triple in triples if triple not in known}
        splits = [known[triple] for triple in triples]
        moved = [split.place for split in splits]
        weakest = min(splits, key=lambda split: split.score, default=None)
        # two that move to the same place are one
        if weakest is not None and (weakest.score < least or sorted(set(moved)) != moved):
            del places[splits.index(weakest)]
            continue
        if moved == places:
            break
        places = moved
    return splits


def _best(one: Prepared, sums: tuple[Floats, Floats], start: int, place: int, end: int) -> Split:
    """The best split of the values between two others; their own place if there are too few values."""
    if end - start < FEWEST:
        return Split(place, start, end, -math.inf, 0.0, math.inf, 1)
    scored = _scored(sums, one, np.array([start]), end - start)
    index = int(scored.score[0, 0].argmax())
    return Split(
        place=start + index + LEAST,
        start=start,
        end=end,
        score=float(scored.score[0, 0, index]),
        difference=float(scored.difference[0, 0, index]),
        error=float(np.sqrt(scored.variance[0, 0, index])),
        freedom=end - start - 2,
    )
