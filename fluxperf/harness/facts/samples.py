"""Samples as text and ratios: summaries, speedups with their interval, and numbers of samples."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from statistics import median
from typing import Literal, NamedTuple

from fluxperf.harness.outlines import Outline
from fluxperf.harness.records import Record
from fluxperf.harness.stats import Interval, Summary, ratio_interval, summarize
from fluxperf.harness.text import units
from fluxperf.harness.text.units import BY, NBSP

#: Minimum number of processes on each side for a confidence interval.
FEWEST_PROCESSES = 3

#: Seconds above which a generation is not repeated: one per process is enough, with the spread of its steps.
LONG_S = 60.0

#: Confidence level of intervals, as a share and as text.
CONFIDENCE = 0.95

#: The meaning of the bounds beside a median.
CERTAINTY = f"95{NBSP}% bootstrap interval over processes if there are at least three, else smallest and largest sample"


class Speedup(NamedTuple):
    """A ratio of medians, with ``low`` and ``high``.

    ``kind`` is the kind of these bounds: an ``interval`` of confidence over processes; the ``range`` given by the
    extremes of the samples, if there are too few processes; the range by the ``steps`` of a side with one generation of
    minutes in each process; or ``single`` if a side has one sample and therefore no spread.
    """

    ratio: float
    low: float
    high: float
    kind: Literal["interval", "range", "steps", "single"]

    @property
    def spread(self) -> str:
        """The bounds as text, with their kind."""
        if self.kind == "single":
            return "one sample, no spread"
        bounds = units.times_range(self.low, self.high)
        if self.kind == "interval":
            return f"95{NBSP}%: {bounds}"
        return f"range {bounds}" if self.kind == "range" else f"range of its steps {bounds}"


@lru_cache(4096)
def _summary(processes: tuple[tuple[float, ...], ...]) -> Summary | None:
    """Summary of samples that many facts use, computed once."""
    return summarize(processes)


@lru_cache(1024)
def _interval(new: tuple[float, ...], old: tuple[float, ...]) -> Interval | None:
    return ratio_interval(new, old, confidence=CONFIDENCE, resamples=2000)


def usable(record: Record | None, metric: str = "denoise") -> list[list[float]]:
    """Samples of a record by process, without empty processes."""
    return [list(samples) for samples in record.times_s.get(metric, []) if samples] if record else []


def summary_of(record: Record | None, metric: str = "denoise") -> Summary | None:
    """Summary of a record's samples of one metric, or ``None`` if it has none above zero.

    If there are only one or two processes with a single generation that takes minutes, the spread is that of its steps.
    """
    found = _summary(tuple(map(tuple, usable(record, metric))))
    if found and record and metric == "denoise" and found.median >= LONG_S:
        found = _by_steps(record, found)
    return found if found and found.low > 0 else None


def _by_steps(record: Record, found: Summary) -> Summary:
    """One generation of each process with the spread computed from its steps."""
    whole, parts = usable(record), usable(record, "step")
    if found.samples != found.processes or found.processes >= FEWEST_PROCESSES:
        return found
    if len(parts) != len(whole) or any(len(steps) != record.workload.steps or len(steps) < 2 for steps in parts):
        return found
    bounds = [
        one - sum(steps) + len(steps) * bound
        for (one,), steps in zip(whole, parts, strict=True)
        for bound in (min(steps), max(steps))
    ]
    return found._replace(low=min(bounds), high=max(bounds), steps=sum(map(len, parts)))


def speedup(before: Record | None, after: Record | None, metric: str = "denoise") -> Speedup | None:
    """How many times shorter ``after`` is than ``before``, or ``None`` if one of them has no samples."""
    old, new = summary_of(before, metric), summary_of(after, metric)
    if not old or not new:
        return None
    ratio = old.median / new.median
    alone = [side for side in (old, new) if side.samples == 1 or side.steps]
    if any(not side.steps for side in alone):
        return Speedup(ratio, ratio, ratio, "single")
    if alone:
        return Speedup(ratio, old.low / new.high, old.high / new.low, "steps")
    if min(old.processes, new.processes) >= FEWEST_PROCESSES:
        sides = _medians(usable(after, metric)), _medians(usable(before, metric))
        found = _interval(*sides)
        if found:
            return Speedup(ratio, found.low, found.high, "interval")
    return Speedup(ratio, old.low / new.high, old.high / new.low, "range")


class Certainty(NamedTuple):
    """Bounds of a median; ``kind`` is as in a `Speedup`."""

    low: float
    high: float
    kind: Literal["interval", "range", "steps", "single"]


def bounds_of(record: Record | None, metric: str = "denoise") -> Certainty | None:
    """The interval of a record's median over three or more processes, else the range of its samples, or of steps.

    The interval is the percentile bootstrap of `fluxperf.harness.stats.ratio_interval`, over the processes' medians.
    """
    found, medians = summary_of(record, metric), _medians(usable(record, metric))
    if not found:
        return None
    bounds = _interval((1.0,) * len(medians), medians) if found.processes >= FEWEST_PROCESSES else None
    if bounds:
        return Certainty(bounds.low, bounds.high, "interval")
    return Certainty(found.low, found.high, "steps" if found.steps else "range" if found.samples > 1 else "single")


def certainty_of(record: Record | None, metric: str = "denoise") -> str:
    """`bounds_of` a record as text."""
    found, bounds = summary_of(record, metric), bounds_of(record, metric)
    if not found or not bounds:
        return "no time"
    return f"95{NBSP}%: {units.time_range(bounds.low, bounds.high)}" if bounds.kind == "interval" else spread_of(found)


def _medians(processes: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(median(samples) for samples in processes)


def spread_of(found: Summary) -> str:
    """The range of the samples as text."""
    bounds = units.time_range(found.low, found.high)
    if found.steps:
        generations = "one generation; by its" if found.samples == 1 else f"{found.samples} generations; by their"
        return f"{generations} {found.steps} steps {bounds}"
    return bounds if found.samples > 1 else "one sample"


def sizes_of(record: Record, metric: str = "denoise") -> list[int]:
    """Numbers of samples by process, without empty processes; for an outline those of its record."""
    if isinstance(record, Outline):
        return [size for size in record.sizes.get(metric, []) if size]
    return [len(samples) for samples in record.times_s.get(metric, []) if samples]


def samples_of(record: Record, metric: str = "denoise") -> str:
    """Number of processes and samples: 3 x 5, or "5 + 4" if processes differ."""
    sizes = sizes_of(record, metric)
    if not sizes:
        return "none"
    if sum(sizes) == 1:
        return "1"
    if len(set(sizes)) == 1:
        return f"{len(sizes)}{NBSP}{BY}{NBSP}{sizes[0]}"
    return " + ".join(str(size) for size in sizes)
