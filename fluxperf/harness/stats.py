"""Summaries of samples. A sample belongs to a process, and the process is the unit of analysis."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple


class Summary(NamedTuple):
    """Median, smallest and largest sample, and how many samples and processes there were."""

    median: float
    low: float
    high: float
    samples: int
    processes: int


def summarize(processes: Sequence[Sequence[float]]) -> Summary | None:
    """Summary of samples grouped by process, or ``None`` where there is no sample.

    The median is the median of the processes' medians: samples of one process are not independent of each other.
    ``low`` and ``high`` are the extremes of all samples; they are a range, not an interval of confidence.
    """
    groups = [list(samples) for samples in processes if samples]
    if not groups:
        return None
    flat = [value for samples in groups for value in samples]
    return Summary(median(median(samples) for samples in groups), min(flat), max(flat), len(flat), len(groups))
