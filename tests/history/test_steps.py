"""Changes of level: every change of a count; for noisy values those beyond the noise, with known power."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import changepoints
from benchmarks.changepoints import Kind, correlated, heavy, louder, noise, outliers, ramp, scanned, share, step
from fluxperf.harness.scan import ALPHA, FEWEST, THRESHOLDS, chance, highest, threshold
from fluxperf.harness.steps import steps_of_counts, steps_of_times


def places(values):
    return [(shift.kind, shift.last, shift.first) for shift in steps_of_times([list(values)])[0]]


def drawn(kind, count=1, seed=0):
    return kind.made(np.random.default_rng(seed), count, kind.length)


def test_every_change_of_a_count_is_a_step():
    found = steps_of_counts([5, 5, 0, 0, 0, 5])
    assert [(one.start, one.last, one.first, one.end) for one in found] == [(0, 1, 2, 5), (2, 4, 5, 6)]
    assert [(one.old, one.new, one.chance) for one in found] == [(5, 0, None), (0, 5, None)]
    assert steps_of_counts([5, 5, 5]) == []
    assert steps_of_counts([]) == []


def test_what_only_rounds_is_no_change_of_a_count_but_rounding_that_adds_up_is():
    assert steps_of_counts([100, 101, 99, 100.5], slack=0.02) == []
    (found,) = steps_of_counts([100, 101, 102, 103, 104], slack=0.02)
    assert (found.last, found.first, found.old, found.new) == (2, 3, 100, 103)
    assert len(steps_of_counts([100, 101], slack=0.0)) == 1


#: Kinds of series, and the smallest share of each in which the change must be found.
POWER = [
    (Kind("+5 %", 16, step(0.02, 0.05, 8), (8,)), 0.80),
    (Kind("+10 %", 16, step(0.02, 0.10, 8), (8,)), 0.99),
    (Kind("+5 %", 32, step(0.02, 0.05, 16), (16,)), 0.95),
    (Kind("+0.5 % of cycles", 8, step(0.001, 0.005, 4), (4,)), 0.95),
    (Kind("ramp of +20 %", 25, ramp(0.02, 0.20, 0, 24), ()), 0.95),
    (Kind("+10 % and back", 32, step(0.02, 0.10, 13, 19), (13, 19)), 0.80),
    (Kind("-5 %", 32, step(0.02, -0.05, 16), (16,)), 0.95),
    (Kind("the newest two", 32, step(0.02, 0.15, 30), (30,)), 0.90),
]


@pytest.mark.parametrize(("kind", "least"), POWER, ids=[f"{kind.name} {kind.length}" for kind, _ in POWER])
def test_changes_are_found(kind, least):
    assert share(kind, scanned(drawn(kind, 150, seed=1))) >= least


#: Series without a change, and the largest share in which a change may be reported.
QUIET = [
    *((Kind("normal", length, noise(0.02)), ALPHA) for length in (4, 8, 16, 32, 250)),
    (Kind("heavy tails", 32, heavy), 2 * ALPHA),
    (Kind("outliers", 32, outliers(0.05, 0.2)), 3 * ALPHA),
    (Kind("louder", 16, louder(4)), 5 * ALPHA),
    (Kind("correlated", 100, correlated(0.6)), 6 * ALPHA),
]


@pytest.mark.parametrize(("kind", "most"), QUIET, ids=[f"{kind.name} {kind.length}" for kind, _ in QUIET])
def test_noise_is_no_change(kind, most):
    count = 1000 if kind.length < 100 else 100
    # Two standard errors of a share of that size, because the number of series is small.
    slack = 2 * (most * (1 - most) / count) ** 0.5
    assert share(kind, scanned(drawn(kind, count, seed=2))) <= most + slack


def test_thresholds_are_those_that_the_command_measures():
    for length in (8, 32):
        reached = highest(np.random.default_rng(3).normal(0, 1, (4000, length))) >= threshold(length)
        assert 0.5 * ALPHA < reached.mean() < 1.3 * ALPHA
    assert list(THRESHOLDS) == sorted(THRESHOLDS)
    assert chance(threshold(20), 20) == pytest.approx(ALPHA)
    assert chance(9.0, 20) < 1e-12 < chance(0.0, 20) <= 1


def test_a_step_has_levels_bounds_and_a_chance():
    values = step(0.01, 0.10, 20)(np.random.default_rng(0), 1, 35)[0]
    (found,) = steps_of_times([values.tolist()])[0]
    assert (found.kind, found.start, found.last, found.first, found.end) == ("step", 0, 19, 20, 35)
    assert (found.old, found.new) == pytest.approx((1.0, 1.1), rel=0.01)
    assert found.low < 0.10 < found.high < found.low + 0.03
    assert 0 < found.chance < 1e-9


def test_the_bounds_of_a_step_hold_it_as_often_as_they_say():
    values = step(0.01, 0.20, 8)(np.random.default_rng(4), 150, 16)
    found = [shifts[0] for shifts in steps_of_times(values.tolist()) if shifts]
    assert np.mean([shift.low < 0.20 < shift.high for shift in found]) > 0.92


@pytest.mark.parametrize("change", [0.2, -0.2])
def test_a_ramp_is_one_change_from_its_beginning_to_its_end(change):
    values = ramp(0.005, change, 20, 45)(np.random.default_rng(1), 1, 70)[0]
    (found,) = steps_of_times([values.tolist()])[0]
    assert found.kind == "ramp"
    assert abs(found.last - 20) <= 2
    assert abs(found.first - 45) <= 2
    assert found.new / found.old - 1 == pytest.approx(change, abs=0.01)
    assert found.low < change < found.high


@pytest.mark.parametrize("growth", [1.008, 1.009, 1 / 1.008])
def test_a_ramp_of_small_changes_is_a_change(growth):
    spread = np.random.default_rng(3).normal(0, 0.003, 25)
    (shifts,) = steps_of_times([[0.5 * growth**turn * (1 + error) for turn, error in enumerate(spread)]])
    assert [shift.kind for shift in shifts] == ["ramp"]
    assert abs(shifts[0].new / shifts[0].old - 1) > 0.15


def test_two_steps_up_are_no_ramp():
    values = np.repeat([1.0, 1.1, 1.2], 12) * noise(0.005)(np.random.default_rng(0), 1, 36)[0]
    assert places(values) == [("step", 11, 12), ("step", 23, 24)]


def test_one_value_that_stands_out_is_no_change_wherever_it_is():
    quiet = noise(0.01)(np.random.default_rng(5), 1, 20)[0]
    for place in (0, 1, 9, 18, 19):
        values = quiet.copy()
        values[place] *= 3
        assert places(values) == []
    hidden = np.repeat([1.0, 1.1], 10) * quiet
    hidden[4] *= 3
    assert places(hidden) == [("step", 9, 10)], "nor does it hide one"


def test_processes_say_how_much_noise_there_is_at_least():
    """Four values close together by chance, from processes that differ widely."""
    values = [1.0, 1.0001, 1.1, 1.1001]
    assert steps_of_times([values])[0]
    assert steps_of_times([values], [0.05]) == [[]]
    assert steps_of_times([values], [None])[0]


def test_a_short_series_is_not_judged_and_equal_values_have_no_change():
    assert steps_of_times([[1.0] * (FEWEST - 1), [1.0, 1.0, 2.0, 2.0], [], [2.0] * 9])[::2] == [None, None]
    assert steps_of_times([[2.0] * 9, [0.0] * 9]) == [[], []]
    assert places([1.0] * 5 + [1.25] * 5) == [("step", 4, 5)]


def test_values_that_are_not_above_zero_have_changes_without_bounds():
    (found,) = steps_of_times([[0.0, 0.1, -0.1, 0.0, 5.0, 5.1, 4.9, 5.0]])[0]
    assert (found.first, found.low, found.high) == (4, None, None)


def test_changes_are_in_order_whatever_the_values_are():
    """Levels of few values each, in noise of all sizes: no two changes are reported at one index."""
    draw = np.random.default_rng(8)
    rows = [np.exp(np.repeat(draw.normal(0, 0.1, 20), 3) + draw.normal(0, 0.03, 60)).tolist() for _ in range(150)]
    for found in steps_of_times(rows):
        ends = [place for shift in found for place in (shift.last, shift.first)]
        assert ends == sorted(ends)
        assert all(shift.start <= shift.last < shift.first < shift.end for shift in found)


def test_series_of_unlike_lengths_are_searched_together():
    rows = [drawn(Kind("", n, step(0.01, 0.2, n // 2)))[0].tolist() for n in (8, 30, 8, 500)]
    together = steps_of_times(rows)
    assert together == [steps_of_times([row])[0] for row in rows]
    assert [shifts[0].first for shifts in together] == [4, 15, 4, 250]


def test_the_command_compares_searches(capsys, monkeypatch, tmp_path):
    """With asv, which the tests have; the other searches are compared if they are installed."""
    few = [changepoints.kinds()[0], Kind("+50 %", 16, step(0.02, 0.5, 8), (8,))]
    monkeypatch.setattr(changepoints, "kinds", lambda: few)
    monkeypatch.setattr("sys.argv", ["changepoints", "--series", "10", "-o", str(tmp_path / "out.json")])
    changepoints.main()
    printed = capsys.readouterr().out
    assert "| series | values | fluxperf | asv |" in printed
    assert "| +50 % | 16 | 100.0 % |" in printed
    assert '"false_alarm": true' in (tmp_path / "out.json").read_text()
