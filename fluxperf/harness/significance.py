"""Tests on pairs of processes: whether a change is shown, and how small a change could have been detected.

A pair is a process of the base and one of the head that ran one after the other. Its value is the logarithm of the
ratio of their medians, so that drift of the machine, which affects both, cancels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from fluxperf.errors import ArgumentError

#: Number of sign patterns: all of them up to 14 pairs, a sample of this size beyond.
PATTERNS = 2**14

_ENUMERATED = 14

#: Larger exponents exceed floating-point numbers.
_LARGEST = 700.0

#: Values count up to this multiple of their median distance from the margin.
FARTHEST = 2.0

#: A row this number of its standard errors below its margin cannot raise a false alarm, and does not hide another row.
#: By chance one in a thousand does so, for eight pairs of a row exactly at its margin.
BELOW = 5.0


def sign_flip(values: Sequence[float], margin: float = 0.0, seed: int = 0) -> float:
    """One-sided p-value of "the centre of ``values`` is above ``margin``", by flipping signs.

    The p-value is the share of sign patterns ``s`` for which ``mean(s y) >= mean(y)``, with ``y = x - margin``. Each
    ``y`` is limited to twice the median of ``|y|``, so that one disturbed process does not outweigh the others.
    Flipping signs changes no distance, so the test stays exact. All ``2^n`` patterns are tried up to 14 values. Beyond
    that they are a random sample of 2^14, which includes the observed one.

    The test assumes independent pairs. It also assumes that without a change beyond the margin each value is as likely
    to lie above the margin as the same distance below. This holds if base and head are exchangeable within a pair. No
    distribution is assumed. The smallest p-value of ``n`` pairs is ``2^-n``: five pairs never reach 0.02.
    Source: R. A. Fisher, "The Design of Experiments" (1935), section 21; the bounded score of P. J. Huber, "Robust
    estimation of a location parameter", Annals of Mathematical Statistics 35 (1964), 73-101.

    Args:
        values: logarithm of head over base of each pair.
        margin: largest change that is tolerated, on the same scale.
        seed: seed of the sample of patterns; unused up to 14 values.

    Raises:
        ArgumentError: no value, or one that is not finite.
    """
    shifted = _drawn_in(values, margin)
    sums = _patterns(shifted.size, seed) @ shifted
    reached = int(np.count_nonzero(sums >= shifted.sum() - 1e-12 * np.abs(shifted).sum()))
    return reached / PATTERNS if shifted.size > _ENUMERATED else reached / len(sums)


def _drawn_in(values: Sequence[float], margin: float) -> npt.NDArray[np.float64]:
    """Distances from the margin, limited to `FARTHEST` times the median distance."""
    shifted = np.asarray(values, float) - margin
    if not shifted.size or not np.isfinite(shifted).all():
        raise ArgumentError(
            f"sign_flip: expected one finite value for each pair of processes, got {len(values)} values"
            f"{', not all finite' if shifted.size else ''}. Leave out pairs that were not measured."
        )
    bound = FARTHEST * np.median(np.abs(shifted))
    return np.asarray(np.clip(shifted, -bound, bound) if bound > 0 else np.sign(shifted))


@lru_cache(maxsize=8)
def _patterns(number: int, seed: int) -> npt.NDArray[np.float64]:
    """Sign patterns [P, n], the one without a flip first: all patterns, or that one and a sample."""
    if number <= _ENUMERATED:
        bits = np.arange(2**number)[:, None] >> np.arange(number) & 1
    else:
        bits = np.random.default_rng(seed).integers(0, 2, (PATTERNS, number))
        bits[0] = 0
    return np.asarray(1.0 - 2.0 * bits, np.float64)


def smallest_p(pairs: int) -> float:
    """The smallest possible p-value of `sign_flip`: ``2^-n``, but at least one over the number of patterns."""
    return max(2.0**-pairs, 1 / PATTERNS)


def pairs_needed(tests: int, alpha: float) -> int:
    """The fewest pairs with which a change can be shown at ``alpha``, however many comparisons are made at once.

    ``ceil(log2(1 / alpha))``: all pairs show it. Where only one of ``tests`` comparisons changed and the others are
    noise, one pair more for each doubling of their number is safe: `step_down` then needs no more than
    ``ceil(log2(tests / alpha))``, which is what is returned up to the patterns that are tried.

    Raises:
        ArgumentError: a level below what the patterns tried can tell.
    """
    if alpha < 1 / PATTERNS:
        raise ArgumentError(f"pairs_needed: expected alpha >= {1 / PATTERNS:.2g}, got {alpha:g}.")
    return math.ceil(math.log2(min(max(1, tests) / alpha, PATTERNS)) - 1e-9)


def step_down(rows: Sequence[Sequence[float]], margins: Sequence[float], seed: int = 0) -> list[float]:
    """One-sided p-values of "the centre of this row is above its margin" for several rows, adjusted for their number.

    The signs of pair ``i`` are flipped in all rows at once, as swapping base and head of that pair would do. A row's
    adjusted p-value is the share of sign patterns at which the largest studentized mean of it and of all rows with a
    smaller one reaches its own. The chance of any false alarm among all rows stays at the level, whatever their
    dependence; for a single row it is `sign_flip`. The smallest p-value is ``2^-n`` for any number of rows: a
    correction by their number alone (Bonferroni, Holm) could show nothing in 60 rows of 8 pairs.

    A row far `BELOW` its margin is left out of the comparison with others. With flipped signs it would be the largest:
    steady rows that did not change would hide a noisier row that did, until there are twice as many pairs.
    Sources: P. H. Westfall and S. S. Young, "Resampling-Based Multiple Testing" (1993), section 2.6 (step-down max-T);
    P. R. Hansen, "A Test for Superior Predictive Ability", Journal of Business & Economic Statistics 23 (2005),
    365-380 (what is far below its bound is left out).

    Args:
        rows: logarithm of head over base of each pair, for each comparison; pair ``i`` is the same pair in all.
        margins: largest change of each row that is tolerated, on the same scale.
        seed: seed of the sample of patterns; unused up to 14 pairs.

    Raises:
        ArgumentError: a row without a value, or with one that is not finite.
    """
    if not rows:
        return []
    drawn_in = [_drawn_in(values, margin) for values, margin in zip(rows, margins, strict=True)]
    patterns = _patterns(max(row.size for row in drawn_in), seed)
    found = np.stack([_studentized(patterns[:, : row.size], row) for row in drawn_in], axis=1)
    below = found[0] <= -BELOW
    found[:, below] = found[0, below]
    order = np.argsort(-found[0], kind="stable")
    # column i: the largest of the i-th row in ascending order and of all before it
    largest = np.maximum.accumulate(found[:, order[::-1]], axis=1)[:, ::-1]
    observed = found[0, order]
    reached = largest >= observed - 1e-6 * (1 + np.abs(observed))
    adjusted = np.maximum.accumulate(np.count_nonzero(reached, axis=0) / len(patterns))
    values = np.empty(len(rows))
    values[order] = adjusted
    return [float(value) for value in values]


def _studentized(patterns: npt.NDArray[np.float64], row: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Student's t of a row's values under each pattern of signs."""
    length = math.sqrt(row.size * float(row @ row))
    if not length:
        return np.zeros(len(patterns))
    share = patterns @ row / length
    return np.asarray(share * math.sqrt(max(1, row.size - 1)) / np.sqrt(np.maximum(1 - share * share, 1e-9)))


def robust_spread(values: Sequence[float]) -> float:
    """Scale of the pairs' logarithms about zero, as a standard deviation where they are normal.

    ``1.4826 median(|x|)``: both sides are the same program (A/A), so the centre is zero. A few slow processes in a
    hundred do not move it, where they blow up a standard deviation.
    Source: F. R. Hampel, "The influence curve and its role in robust estimation", JASA 69 (1974), 383-393.
    """
    return float(1.4826 * np.median(np.abs(np.asarray(values, float)))) if len(values) else 0.0


def median_bound(scale: float, pairs: int, alpha: float) -> float:
    """Bound that the median of so many pairs stays below with probability ``1 - alpha`` if nothing changed.

    ``quantile(1 - alpha) * scale * sqrt(pi / 2 / n)``, the error of the median of normal values; it shrinks with pairs.
    Source: H. Cramer, "Mathematical Methods of Statistics" (1946), section 28.5.
    """
    if not scale or pairs < 1:
        return 0.0
    return NormalDist().inv_cdf(1 - alpha) * scale * math.sqrt(math.pi / 2 / pairs)


def spread(values: Sequence[float]) -> float:
    """Standard deviation of the pairs' logarithms, with ``n - 1`` in the denominator; 0 for a single pair."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def detectable(spread: float, pairs: int, alpha: float, power: float, margin: float = 0.0) -> float:
    """Minimum detectable effect: the smallest relative change that such pairs show with probability ``power``.

    ``exp(margin + d) - 1``, with ``d`` the larger of two: the shift at which a one-sided t-test has that power, which
    `sign_flip` approaches with many pairs; and ``spread * quantile(power^(1/n))``, at which all ``n`` pairs lie above
    the margin, where little less than all of them reaches alpha. It assumes that logarithms are normal with that
    spread; outliers make the true figure larger. Infinite where the pairs can never reach alpha.
    Source: E. L. Lehmann and J. P. Romano, "Testing Statistical Hypotheses" (2005), sections 5.2 and 15.2.

    Args:
        spread: standard deviation of the pairs' logarithms when both sides are the same (A/A).
        pairs: of processes.
        alpha: level of the test.
        power: probability with which the change is to be shown, between alpha and 1.
        margin: of the test, on the scale of logarithms.

    Raises:
        ArgumentError: a spread below zero, or alpha and power that are no probabilities in rising order.
    """
    if not (spread >= 0 and 0 < alpha < power < 1):
        raise ArgumentError(
            f"detectable: expected spread >= 0 and 0 < alpha < power < 1, got spread {spread}, alpha {alpha}, "
            f"power {power}."
        )
    if pairs < 2 or smallest_p(pairs) > alpha:
        return math.inf
    if spread == 0:
        return math.expm1(margin)
    exponent = margin + spread * _shift(pairs, alpha, power)
    return math.expm1(exponent) if exponent < _LARGEST else math.inf


@lru_cache
def _shift(pairs: int, alpha: float, power: float) -> float:
    """The shift beyond the margin, in units of the spread, that shows with that power."""
    # SciPy takes a second to import. Commands without tests need not pay for it.
    from scipy.optimize import brentq
    from scipy.stats import nct, norm, t

    critical, root = t.isf(alpha, pairs - 1), math.sqrt(pairs)
    shift = brentq(lambda d: nct.sf(critical, pairs - 1, d * root) - power, 0.0, 20.0 + critical)
    if 4 * smallest_p(pairs) > alpha:
        shift = max(shift, norm.ppf(power ** (1 / pairs)))
    return float(shift)
