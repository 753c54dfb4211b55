"""Tests on pairs of processes: whether a change is shown, and how small a change could have been.

A pair is a process of the base and one of the head that ran one after the other; its value is the logarithm of the
ratio of their medians, so that drift of the machine, which falls on both, cancels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fluxperf.errors import ArgumentError

#: Sign patterns that are tried: all of them up to 14 pairs, a sample of this size beyond.
PATTERNS = 2**14

_ENUMERATED = 14

#: Values count up to this many times their median distance from the margin.
FARTHEST = 2.0


def sign_flip(values: Sequence[float], margin: float = 0.0, seed: int = 0) -> float:
    """One-sided p-value of "the centre of ``values`` is above ``margin``", by flipping signs.

    The share of sign patterns ``s`` for which ``mean(s y) >= mean(y)``, with ``y = x - margin`` and what is farther
    from zero than twice the median distance drawn in to it, so that one disturbed process does not outweigh the
    others (flipping signs changes no distance, so the test stays exact). All ``2^n`` patterns are tried up to 14
    values, a random sample of 2^14 beyond, the one observed counted in.

    It assumes that each value, where there is no change beyond the margin, is as likely to lie above it as the same
    distance below (which holds where base and head are exchangeable within a pair), and that pairs are independent. It
    assumes no distribution. The smallest p-value of ``n`` pairs is ``2^-n``: five never reach 0.02.
    Source: R. A. Fisher, "The Design of Experiments" (1935), section 21; the bounded score of P. J. Huber, "Robust
    estimation of a location parameter", Annals of Mathematical Statistics 35 (1964), 73-101.

    Args:
        values: logarithm of head over base of each pair.
        margin: change on the same scale that is not to be shown.
        seed: of the sample of patterns; unused up to 14 values.

    Raises:
        ArgumentError: no value, or one that is not finite.
    """
    shifted = np.asarray(values, float) - margin
    if not shifted.size or not np.isfinite(shifted).all():
        raise ArgumentError(
            f"sign_flip: expected one finite value for each pair of processes, got {len(values)} values"
            f"{', not all finite' if shifted.size else ''}. Leave out pairs that were not measured."
        )
    bound = FARTHEST * np.median(np.abs(shifted))
    shifted = np.clip(shifted, -bound, bound) if bound > 0 else np.sign(shifted)
    sums = _patterns(shifted.size, seed) @ shifted
    reached = int(np.count_nonzero(sums >= shifted.sum() - 1e-12 * np.abs(shifted).sum()))
    return reached / PATTERNS if shifted.size > _ENUMERATED else reached / len(sums)


@lru_cache(maxsize=8)
def _patterns(number: int, seed: int) -> npt.NDArray[np.float64]:
    """Sign patterns [P, n], the one without a flip first: all of them, or that one and a sample."""
    if number <= _ENUMERATED:
        bits = np.arange(2**number)[:, None] >> np.arange(number) & 1
    else:
        bits = np.random.default_rng(seed).integers(0, 2, (PATTERNS, number))
        bits[0] = 0
    return np.asarray(1.0 - 2.0 * bits, np.float64)


def smallest_p(pairs: int) -> float:
    """The smallest p-value that `sign_flip` can give: ``2^-n``, and no less than one of the patterns tried."""
    return max(2.0**-pairs, 1 / PATTERNS)


def pairs_needed(tests: int, alpha: float) -> int:
    """The fewest pairs with which one of ``tests`` comparisons can be shown at ``alpha`` after Holm's correction.

    ``ceil(log2(tests / alpha))``: the smallest p-value must be below ``alpha / tests``.

    Raises:
        ArgumentError: more tests than the patterns tried can tell apart.
    """
    level = alpha / max(1, tests)
    if level < 1 / PATTERNS:
        raise ArgumentError(
            f"pairs_needed: expected at most {int(alpha * PATTERNS)} noisy comparisons at alpha {alpha:g}, got "
            f"{tests}. Compare fewer rungs or metrics at once."
        )
    return math.ceil(math.log2(1 / level) - 1e-9)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted so that the chance of any false alarm among them stays at alpha.

    In rising order, the ``i``-th of ``m`` is multiplied by ``m - i``, and none is less than the one before. It assumes
    nothing about how the comparisons depend on each other.
    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6
    (1979), 65-70.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


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
    return math.expm1(margin + spread * _shift(pairs, alpha, power))


@lru_cache
def _shift(pairs: int, alpha: float, power: float) -> float:
    """The shift beyond the margin, in units of the spread, that shows with that power."""
    # SciPy takes a second to import, which commands that test nothing need not pay.
    from scipy.optimize import brentq
    from scipy.stats import nct, norm, t

    critical, root = t.isf(alpha, pairs - 1), math.sqrt(pairs)
    shift = brentq(lambda d: nct.sf(critical, pairs - 1, d * root) - power, 0.0, 20.0 + critical)
    if 4 * smallest_p(pairs) > alpha:
        shift = max(shift, norm.ppf(power ** (1 / pairs)))
    return float(shift)
