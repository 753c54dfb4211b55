"""Summaries of samples grouped by process."""

from __future__ import annotations

from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from fluxperf.harness.stats import Summary, median_interval, summarize

TIMES = st.floats(1e-6, 1e3, allow_nan=False)


def test_the_process_is_the_unit() -> None:
    """Ninety slow samples of one process do not outweigh two other processes."""
    assert summarize([[5.0] * 90, [1.0], [2.0, 4.0]]) == Summary(3.0, 1.0, 5.0, 93, 3)


def test_one_process() -> None:
    assert summarize([[3.0, 1.0, 2.0]]) == Summary(2.0, 1.0, 3.0, 3, 1)
    assert summarize([[1.0, 2.0]]) == Summary(1.5, 1.0, 2.0, 2, 1)


@pytest.mark.parametrize("processes", [[], [[]], [[], []], ()])
def test_no_sample_gives_no_summary(processes: list[list[float]]) -> None:
    assert summarize(processes) is None


def test_a_process_without_samples_is_not_counted() -> None:
    assert summarize([[], [1.0], []]) == Summary(1.0, 1.0, 1.0, 1, 1)


@given(st.lists(st.lists(TIMES, max_size=6), min_size=1, max_size=6).filter(any))
def test_summary_of_anything(processes: list[list[float]]) -> None:
    summary = summarize(processes)
    assert summary is not None
    flat = [value for process in processes for value in process]
    assert summary.low == min(flat) <= summary.median <= max(flat) == summary.high
    assert summary.samples == len(flat)
    assert summary.median == median(median(process) for process in processes if process)
    assert summarize([list(reversed(process)) for process in reversed(processes)]) == summary


@pytest.mark.parametrize(
    ("count", "rank"), [(0, 0), (1, 0), (5, 0), (6, 1), (8, 1), (9, 2), (12, 3), (20, 6), (50, 18), (100, 40)]
)
def test_ranks_of_the_median_interval_are_those_of_the_tables(count: int, rank: int) -> None:
    """Le Boudec, "Performance Evaluation", table A.1: 6 and 8 samples give the extremes, 9 the second, 20 the sixth."""
    found = median_interval([float(number) for number in range(1, count + 1)])
    assert (found.low if found else 0) == rank
    assert not found or found.high == count + 1 - rank


@pytest.mark.parametrize("count", range(6, 200, 7))
def test_ranks_of_the_median_interval_are_the_largest_that_cover(count: int) -> None:
    found = median_interval([float(number) for number in range(1, count + 1)])
    assert found is not None
    assert found.coverage == pytest.approx(1 - 2 * binom.cdf(found.low - 1, count, 0.5), abs=1e-12)
    assert found.coverage >= 0.95 > 1 - 2 * binom.cdf(found.low, count, 0.5)
