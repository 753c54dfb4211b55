"""Steps: every change of a count, and of times what asv's detection finds."""

from __future__ import annotations

import random

import numpy as np
import pytest

from fluxperf.errors import RecordError
from fluxperf.harness import steps
from fluxperf.harness.steps import FEWEST, Step, detected, ramp, steps_of_counts, steps_of_times


def noise(number, level=1.0, spread=0.01, seed=0):
    draw = random.Random(seed)
    return [level * (1 + spread * draw.gauss(0, 1)) for _ in range(number)]


def test_every_change_of_a_count_is_a_step():
    assert steps_of_counts([5, 5, 0, 0, 0, 5]) == [Step(0, 2, 5), Step(2, 5, 0), Step(5, 6, 5)]
    assert steps_of_counts([5, 5, 5]) == [Step(0, 3, 5)]
    assert steps_of_counts([]) == []


def test_a_step_of_times_is_found_where_it_is():
    (found,) = steps_of_times([noise(20) + noise(15, 1.1, seed=1)])
    assert [(step.first, step.end) for step in found] == [(0, 20), (20, 35)]
    assert [step.level for step in found] == pytest.approx([1.0, 1.1], rel=0.01)


def test_a_short_series_is_not_judged():
    jump = [1.0] * (FEWEST // 2) + [2.0] * (FEWEST - FEWEST // 2)
    assert steps_of_times([jump[1:], jump, []]) == [None, [Step(0, 4, 1.0), Step(4, 8, 2.0)], None]


def wrongly_stepped(length):
    return sum(len(detected(noise(length, spread=0.02, seed=seed))) > 1 for seed in range(200)) / 200


def test_shorter_series_would_show_steps_that_are_not_there():
    assert wrongly_stepped(4) > 0.2
    assert wrongly_stepped(FEWEST) < 0.05
    assert wrongly_stepped(30) < 0.02


def test_equal_times_have_one_step():
    assert detected([2.0] * 9) == [Step(0, 9, 2.0)]


def test_steps_are_those_that_asv_finds():
    from asv.step_detect import detect_steps

    for seed in range(12):
        series = noise(8 + 9 * seed, seed=seed) + noise(30, 1.2, seed=seed + 50) + noise(3, 0.9, seed=seed + 90)
        assert detected(series) == [Step(first, end, level) for first, end, level, *_ in detect_steps(series)]


def test_the_search_in_processes_finds_the_same(monkeypatch):
    series = [noise(30, seed=seed) + noise(30, 1.2, seed=seed + 50) for seed in range(4)]
    here = steps_of_times(series)
    monkeypatch.setattr(steps, "SPREAD_FROM", 1)
    assert steps_of_times([[], *series, [1.0]]) == [None, *here, None]


def test_without_asv_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(steps, "find_spec", lambda name: None)
    steps._solver.cache_clear()
    with pytest.raises(RecordError, match=r"pip install asv==0\.6\.6"):
        steps_of_times([noise(FEWEST)])


@pytest.mark.parametrize("growth", [1.008, 1.009, 1 / 1.008])
def test_a_ramp_of_small_changes_is_a_change(growth: float) -> None:
    noise = np.random.default_rng(3).normal(0, 0.003, 25)
    (steps,) = steps_of_times([[0.5 * growth**turn * (1 + error) for turn, error in enumerate(noise)]])
    assert steps is not None
    assert len(steps) > 1
    assert abs(steps[-1].level / steps[0].level - 1) > 0.08


def test_noise_is_no_ramp() -> None:
    rng = np.random.default_rng(5)
    assert not any(ramp(rng.normal(1, 0.02, 25).tolist()) for _ in range(300))
    assert not ramp([1 + 0.0001 * turn for turn in range(25)]), "a quarter of a percent in all"
