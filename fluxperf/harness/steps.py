"""Changes of level in a series: at once (a step) or gradually (a ramp).

Every change of a count is a step, except for the rounding defined by the policy. In times, `fluxperf.harness.scan`
finds steps against noise. Several steps in the same direction are a ramp if a straight line explains them better.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from fluxperf.harness.scan import FEWEST, Floats, Split, chance, splits

#: Minimum number of values of a ramp; a shorter one is a step.
_RAMP = 4

#: Number of places that are tried for a ramp's start and end.
_KNOTS = 48

#: How much better a ramp must explain the values than steps do, by Bayes's criterion.
_BETTER = 6.0


class Shift(NamedTuple):
    """A change of level, from value ``last`` to value ``first``: neighbours for a step, the ends of a ramp.

    The old level begins with value ``start``, and the new one ends before ``end``. ``low`` and ``high`` are the bounds
    of a 95 % confidence interval of the change, as a share of the old level (0.05 is 5 %). ``chance`` is the
    probability that noise alone gives a series such a change. All three are ``None`` for counts, as their changes are
    exact. Bounds are also ``None`` if a value of the series is not above zero.
    """

    kind: Literal["step", "ramp"]
    start: int
    last: int
    first: int
    end: int
    old: float
    new: float
    low: float | None = None
    high: float | None = None
    chance: float | None = None


def steps_of_counts(values: Sequence[float], slack: float = 0.0) -> list[Shift]:
    """Every change of a count.

    Args:
        values: in order, none missing.
        slack: tolerance for rounding, as a share of the level's first value. Smaller differences are no change.
    """
    begins = [0]
    for index, value in enumerate(values):
        level = values[begins[-1]]
        if abs(value - level) > slack * abs(level):
            begins.append(index)
    bounds = zip(begins, begins[1:], [*begins[2:], len(values)], strict=False)
    return [
        Shift("step", start, place - 1, place, end, values[start], values[place], chance=None)
        for start, place, end in bounds
    ]


def steps_of_times(
    series: Sequence[Sequence[float] | Floats], errors: Sequence[float | None] | None = None
) -> list[list[Shift] | None]:
    """Changes of each of several series of noisy values; ``None`` for a series that is too short.

    Args:
        series: values in order, none missing, all finite.
        errors: for each series the standard error of a value, as a share of the value, from the spread of its
            processes. It is the lower limit of the assumed noise. ``None`` if it is not known.
    """
    found: list[list[Shift] | None] = [None] * len(series)
    lengths: dict[tuple[int, bool], list[int]] = {}
    for index, values in enumerate(series):
        if len(values) >= FEWEST:
            lengths.setdefault((len(values), bool(np.min(values) > 0)), []).append(index)
    for (_, positive), rows in lengths.items():
        table: Floats = np.array([series[index] for index in rows], float)
        shares = np.array([(errors[index] or 0.0) if errors else 0.0 for index in rows])
        # Logarithms: noise and changes are shares of the level, and a mean is a geometric one.
        scaled: Floats = np.log(table) if positive else table
        scale = 1.0 if positive else np.abs(table).max(1)
        noise = (np.maximum(shares, 1e-9) * scale) ** 2
        for index, row, changes in zip(rows, scaled, splits(scaled, noise), strict=True):
            found[index] = _shifts(row, changes, positive=positive)
    return found


class _Line(NamedTuple):
    """A ramp: the last value before it and the first after it, the difference of its levels, and its standard error."""

    last: int
    first: int
    middle: float
    difference: float
    error: float
    freedom: int


def _shifts(values: Floats, changes: Sequence[Split], *, positive: bool) -> list[Shift]:
    """Steps, and ramps that replace several steps in the same direction."""
    shifts: list[Shift] = []
    for run in _runs(changes):
        line = _ramp(values, run)
        if line:
            surest = max(run, key=lambda change: change.score)
            half = line.difference / 2
            change = surest._replace(
                start=run[0].start,
                end=run[-1].end,
                difference=line.difference,
                error=line.error,
                freedom=line.freedom,
            )
            levels = line.middle - half, line.middle + half
            shifts.append(_shift(values, change, ("ramp", line.last, line.first), levels, positive=positive))
        for change in () if line else run:
            old, new = values[change.start : change.place], values[change.place : change.end]
            levels = float(np.median(old)), float(np.median(new))
            shifts.append(_shift(values, change, ("step", change.place - 1, change.place), levels, positive=positive))
    return shifts


def _shift(
    values: Floats,
    change: Split,
    shape: tuple[Literal["step", "ramp"], int, int],
    levels: tuple[float, float],
    *,
    positive: bool,
) -> Shift:
    low = high = None
    if positive:
        from scipy.special import stdtrit  # the import takes 0.2 s, so only changes pay for it

        reach = float(stdtrit(change.freedom, 0.975)) * change.error
        low, high = math.expm1(change.difference - reach), math.expm1(change.difference + reach)
        levels = math.exp(levels[0]), math.exp(levels[1])
    kind, last, first = shape
    sure = chance(change.score, len(values))
    return Shift(kind, change.start, last, first, change.end, *levels, low, high, sure)


def _runs(changes: Iterable[Split]) -> list[list[Split]]:
    """Neighbouring changes in one direction."""
    runs: list[list[Split]] = []
    for change in changes:
        if runs and (runs[-1][-1].difference > 0) == (change.difference > 0):
            runs[-1].append(change)
        else:
            runs.append([change])
    return runs


def _ramp(values: Floats, run: Sequence[Split]) -> _Line | None:
    """A ramp, if it explains the values better than a run of steps does; else ``None``.

    The ramp has two levels and a straight line between them, fitted by least squares over the places of its two ends.
    Ramp and steps are compared by the Bayesian information criterion. A ramp has two places and two levels as
    parameters; each step has one of both.
    """
    start, end = run[0].start, run[-1].end
    size = end - start
    part = values[start:end] - values[start:end].mean()
    bounds = [0, *(change.place - start for change in run), size]
    rest = float(part @ part) - sum(float(part[a:b].sum()) ** 2 / (b - a) for a, b in pairwise(bounds))
    knots = np.unique(np.linspace(0, size - 1, min(size, _KNOTS)).astype(int))
    begins, ends = (grid.ravel() for grid in np.meshgrid(knots, knots))
    begins, ends = begins[ends - begins >= _RAMP], ends[ends - begins >= _RAMP]
    if not len(begins) or rest <= 0:
        return None
    # A value is a mixture of both levels: 1 - share of the old one, share of the new one, which grows from 0 to 1. The
    # sum of shares, of their squares, and of their products with the values follow from cumulative sums of the series.
    length = ends - begins
    total, weighted = (np.concatenate([[0.0], np.cumsum(one)]) for one in (part, np.arange(size) * part))
    between = total[ends + 1] - total[begins]
    moved = total[-1] - total[ends + 1] + (weighted[ends + 1] - weighted[begins] - begins * between) / length
    shares = size - 1 - ends + (length + 1) / 2
    squares = size - 1 - ends + (length + 1) * (2 * length + 1) / (6 * length) - shares**2 / size
    lines = float(part @ part) - moved**2 / squares
    best = int(lines.argmin())
    gain = size * math.log(rest / max(float(lines[best]), 1e-300 + 1e-12 * rest))
    if gain + (len(run) - 2) * 2 * math.log(size) < _BETTER:
        return None
    difference = float(moved[best] / squares[best])
    return _Line(
        last=start + int(begins[best]),
        first=start + int(ends[best]),
        middle=float(values[start:end].mean() + difference * (0.5 - shares[best] / size)),
        difference=difference,
        error=math.sqrt(max(float(lines[best]), 0.0) / max(1, size - 4) / float(squares[best])),
        freedom=max(1, size - 4),
    )
