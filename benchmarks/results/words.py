"""Figures in words and tables in Markdown, in the plain characters of README and docs."""

from __future__ import annotations

from collections.abc import Sequence

from fluxperf.harness.facts.samples import Certainty, Speedup, bounds_of, summary_of
from fluxperf.harness.records import Record

#: Seconds from which on a time is given in seconds.
_SECONDS = 10.0


def seconds(value_s: float) -> str:
    """A time: 402.5 s, 274.1 ms."""
    return f"{value_s:.1f} s" if value_s >= _SECONDS else f"{value_s * 1e3:.1f} ms"


def bounded(bounds: Certainty | None) -> str:
    """Bounds of a time, without the unit that stands before them."""
    if bounds is None or bounds.kind == "single":
        return ""
    low, high = (value if bounds.high >= _SECONDS else value * 1e3 for value in (bounds.low, bounds.high))
    return f"{'' if bounds.kind == 'interval' else '~'}{low:.1f}-{high:.1f}"


def time_of(record: Record | None, metric: str = "denoise") -> str:
    """The median of a record with its bounds: 274.1 ms (273.2-274.6); with ~ where they are no interval."""
    found = summary_of(record, metric)
    if found is None:
        return ""
    told = bounded(bounds_of(record, metric))
    return f"{seconds(found.median)} ({told})" if told else seconds(found.median)


def ratio(value: float) -> str:
    """A speedup in three digits: 1.12, 56.1, 1470."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def times(found: Speedup | None) -> str:
    """A speedup with its bounds: 1.12x (1.12-1.13); with ~ where they are no interval."""
    if found is None:
        return ""
    if found.kind == "single":
        return f"{ratio(found.ratio)}x"
    mark = "" if found.kind == "interval" else "~"
    return f"{ratio(found.ratio)}x ({mark}{ratio(found.low)}-{ratio(found.high)})"


def share(value: float) -> str:
    """A share: 92 %."""
    return f"{value * 100:.0f} %"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"|{'|'.join(row)}|" if row[0] == "---" else f"| {' | '.join(row)} |" for row in lines)
