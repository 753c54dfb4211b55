"""Samples in words and ratios: summaries, speedups with their interval, and how many samples there were."""

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

#: Processes of each side from which on an interval of confidence is given.
FEWEST_PROCESSES = 3

#: Confidence of intervals, as a share and in words.
CONFIDENCE = 0.95


class Speedup(NamedTuple):
    """Median over median, with ``low`` and ``high``.

    ``kind`` says what these are: an ``interval`` of confidence over processes, the ``range`` that the extremes of the
    samples give where there are too few processes, the range by the ``steps`` of a side that is one generation of
    minutes, or ``single`` where a side has one sample and so no spread.
    """

    ratio: float
    low: float
    high: float
    kind: Literal["interval", "range", "steps", "single"]

    @property
    def spread(self) -> str:
        """The bounds in words, with what they are."""
        if self.kind == "single":
            return "one sample, no spread"
        bounds = units.times_range(self.low, self.high)
        if self.kind == "interval":
            return f"95{NBSP}%: {bounds}"
        return f"range {bounds}" if self.kind == "range" else f"range of its steps {bounds}"


@lru_cache(4096)
def _summary(processes: tuple[tuple[float, ...], ...]) -> Summary | None:
    """Of samples that many facts rest on: computed once, however often it is asked for."""
    return summarize(processes)


@lru_cache(1024)
def _interval(new: tuple[float, ...], old: tuple[float, ...]) -> Interval | None:
    return ratio_interval(new, old, confidence=CONFIDENCE, resamples=2000)


def usable(record: Record | None, metric: str = "denoise") -> list[list[float]]:
    """Samples of a record by process, without empty processes."""
    return [list(samples) for samples in record.times_s.get(metric, []) if samples] if record else []


def summary_of(record: Record | None, metric: str = "denoise") -> Summary | None:
    """Summary of a record's samples of one metric, or ``None`` where it has none above zero.

    A single generation, which takes minutes where nobody could wait for two, has the spread of its steps.
    """
    found = _summary(tuple(map(tuple, usable(record, metric))))
    if found and record and metric == "denoise" and found.samples == 1:
        found = _by_steps(record, found)
    return found if found and found.low > 0 else None


def _by_steps(record: Record, found: Summary) -> Summary:
    """A generation with the spread that its steps give."""
    steps = [one for samples in usable(record, "step") for one in samples]
    if len(steps) < 2 or len(steps) != record.workload.steps:
        return found
    rest = found.median - sum(steps)
    low, high = (rest + len(steps) * bound for bound in (min(steps), max(steps)))
    return found._replace(low=low, high=high, steps=len(steps))


def speedup(before: Record | None, after: Record | None, metric: str = "denoise") -> Speedup | None:
    """How many times shorter ``after`` is than ``before``, or ``None`` where one of them has no samples."""
    old, new = summary_of(before, metric), summary_of(after, metric)
    if not old or not new:
        return None
    ratio = old.median / new.median
    alone = [side for side in (old, new) if side.samples == 1]
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


def _medians(processes: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(median(samples) for samples in processes)


def spread_of(found: Summary) -> str:
    """The range of the samples in words."""
    if found.samples > 1:
        return units.time_range(found.low, found.high)
    if found.steps:
        return f"one of {found.steps} steps, by those {units.time_range(found.low, found.high)}"
    return "one sample"


def sizes_of(record: Record, metric: str = "denoise") -> list[int]:
    """Numbers of samples by process, without empty processes; of an outline those of its record."""
    if isinstance(record, Outline):
        return [size for size in record.sizes.get(metric, []) if size]
    return [len(samples) for samples in record.times_s.get(metric, []) if samples]


def samples_of(record: Record, metric: str = "denoise") -> str:
    """How many samples there are in how many processes: 3 x 5, or "5 + 4" where processes differ."""
    sizes = sizes_of(record, metric)
    if not sizes:
        return "none"
    if sum(sizes) == 1:
        return "1"
    if len(set(sizes)) == 1:
        return f"{len(sizes)}{NBSP}{BY}{NBSP}{sizes[0]}"
    return " + ".join(str(size) for size in sizes)
