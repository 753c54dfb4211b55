"""Numbers as text, each with its unit. Prefixes are decimal: 1 MB is 10^6 bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from fluxperf import words as words_of

NBSP = "\N{NO-BREAK SPACE}"
BY = "\N{MULTIPLICATION SIGN}"
TO = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
NONE = "—"


class Unit(NamedTuple):
    """Unit of values.

    ``short`` is its name in verdicts. ``symbol`` is written after a value, with a prefix if it is large. ``whole`` is
    true for whole numbers.
    """

    short: str
    symbol: str = ""
    whole: bool = False


#: Units of metrics by their names, as stored in a history.
UNITS: dict[str, Unit] = {
    "seconds": Unit("s", "s"),
    "copies": Unit("count", whole=True),
    "bytes": Unit("bytes", "B", whole=True),
    "launches": Unit("count", whole=True),
    "syncs": Unit("count", whole=True),
    "allocations": Unit("count", whole=True),
    "calls": Unit("count", whole=True),
    "flops": Unit("count", whole=True),
    "relative error": Unit("relative"),
    "cycles": Unit("cycles", "cycles"),
    "hertz": Unit("Hz", "Hz"),
    "joules": Unit("J", "J"),
}

_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def digits(value: float, significant: int = 3) -> str:
    """``value`` with ``significant`` digits, never in exponent form, with commas between thousands."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    rounded = float(f"{value:.{significant - 1}e}")
    places = significant - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(0, places)}f}"


def time(value_s: float | None) -> str:
    """A duration in seconds as text in s, ms, µs or ns. Durations from a minute on stay in seconds."""
    if value_s is None:
        return NONE
    factor, unit = _time_unit(value_s)
    return f"{digits(value_s / factor)}{NBSP}{unit}"


def signed_time(value_s: float) -> str:
    """A signed time in seconds relative to another; negative before it."""
    return f"{MINUS if value_s < 0 else ''}{time(abs(value_s))}"


def given(value_s: float) -> str:
    """A duration that was given, not measured, with as few digits as it was given with."""
    factor, unit = _time_unit(value_s)
    return f"{round(value_s / factor, 6):g}{NBSP}{unit}"


def time_range(low_s: float, high_s: float) -> str:
    """A range of durations given in seconds, in the unit of the larger."""
    factor, unit = _time_unit(high_s)
    return f"{digits(low_s / factor)}{TO}{digits(high_s / factor)}{NBSP}{unit}"


def _time_unit(value_s: float) -> tuple[float, str]:
    if value_s == 0 or not math.isfinite(value_s):
        return _TIMES[0]
    return next((row for row in _TIMES if abs(value_s) >= 0.9995 * row[0]), _TIMES[-1])


def quantity(value: float | None, unit: str) -> str:
    """``value`` with a decimal prefix: ``quantity(12_300_000, "B")`` is "12.3 MB"."""
    if value is None:
        return NONE
    for factor, prefix in _PREFIXES:
        if math.isfinite(value) and abs(value) >= 0.9995 * factor:
            return f"{digits(value / factor)}{NBSP}{prefix}{unit}"
    return f"{digits(value) if value % 1 else f'{value:,.0f}'}{NBSP}{unit}"


def written(value: float | None, unit: str) -> str:
    """A value with a unit of `UNITS`, or of another tool, in the shortest readable form."""
    if value is None:
        return NONE
    if unit == "seconds":
        return time(value)
    if unit == "relative error":
        return error(value)
    if unit in UNITS and UNITS[unit].symbol:
        return quantity(value, UNITS[unit].symbol)
    return digits(value) if value % 1 else f"{value:,.0f}"


def count(value: int | None) -> str:
    """An exact count, or a dash if it was not counted."""
    return NONE if value is None else f"{value:,}"


def times(ratio: float) -> str:
    """A ratio such as a speedup: the number with a multiplication sign."""
    return f"{digits(ratio)}{BY}"


def times_range(low: float, high: float) -> str:
    """A range of ratios."""
    return f"{digits(low)}{TO}{digits(high)}{BY}"


def bounds(low: float, high: float) -> str:
    """An expected range of ratios, with as few digits as it was given with."""
    return f"{low:g}{BY}" if low == high else f"{low:g}{TO}{high:g}{BY}"


def error(relative: float) -> str:
    """A relative error in exponent form. Zero is marked as exact."""
    if not math.isfinite(relative):
        return "not finite"
    return "0 (exact)" if relative == 0 else f"{relative:.2e}"


def percent(share: float) -> str:
    """A share of one as a percentage."""
    return f"{100 * share:.1f}{NBSP}%"


def change(share: float, places: int = 1) -> str:
    """A change as a percentage with its sign. A change that rounds to zero has no sign."""
    text = f"{100 * share:+.{places}f}"
    return f"{text if float(text) else text[1:]}{NBSP}%"


def plural(number: int, word: str, words: str = "") -> str:
    """`fluxperf.words.plural` with a non-breaking space, so that number and word stay on one line."""
    return words_of.plural(number, word, words, NBSP)


def listing(names: Sequence[str], most: int = 8) -> str:
    """Names as a phrase: "a, b and c". Names beyond ``most`` are counted."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
