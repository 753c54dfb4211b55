"""Tests on pairs: known answers, properties, and error rates on simulated machines."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, permutation_test, quantile_test

from fluxperf.errors import ArgumentError
from fluxperf.harness.exact import Place
from fluxperf.harness.noisy import Task, judge
from fluxperf.harness.significance import (
    detectable,
    median_bound,
    pairs_needed,
    robust_spread,
    sign_flip,
    smallest_p,
    spread,
    step_down,
)
from fluxperf.harness.stats import median_interval, ratio_interval
from tests.gate.sides import ROOT, drawn, policy, task

LOGS = st.lists(st.floats(-1, 1, allow_nan=False), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("values", "p"),
    [([0.01], 1 / 2), ([0.01] * 6, 1 / 64), ([0.02, 0.01], 1 / 4), ([0.02, -0.01], 2 / 4), ([-0.01] * 4, 1.0)],
)
def test_sign_flip_by_hand(values: list[float], p: float) -> None:
    assert sign_flip(values) == pytest.approx(p)


def test_five_pairs_never_reach_the_level_and_six_do() -> None:
    assert sign_flip([1.0] * 5) > 0.02 > sign_flip([1.0] * 6)
    assert [pairs_needed(tests, 0.02) for tests in (1, 14)] == [6, 10]
    assert smallest_p(8) == 1 / 256


def test_more_pairs_than_are_enumerated_are_sampled_the_same_way_each_time() -> None:
    values = np.random.default_rng(3).normal(0.004, 0.01, 20).tolist()
    assert sign_flip(values) == sign_flip(values)
    assert sign_flip(values) == pytest.approx(sign_flip(values, seed=1), rel=0.3)
    assert sign_flip([1.0] * 30) == smallest_p(30) == 2.0**-14


@pytest.mark.parametrize("seed", range(5))
def test_without_far_values_it_is_the_permutation_test_of_scipy(seed: int) -> None:
    values = np.random.default_rng(seed).uniform(0.5, 0.9, 9) * np.random.default_rng(seed + 9).choice([1, 1, -1], 9)
    expected = permutation_test(
        (values,), np.mean, permutation_type="samples", alternative="greater", n_resamples=2**9, rng=0
    )
    assert sign_flip(values.tolist()) == pytest.approx(expected.pvalue)


def test_one_disturbed_process_does_not_hide_a_change() -> None:
    values = [0.03, 0.031, 0.029, 0.032, 0.028, 0.03, 0.033, 0.027, 0.03, 0.029, 0.031, -0.4]
    assert sign_flip(values, 0.005) < 0.02


@settings(max_examples=60, deadline=None)
@given(LOGS, st.floats(0, 0.5))
def test_sign_flip_of_anything(values: list[float], margin: float) -> None:
    p = sign_flip(values, margin)
    assert smallest_p(len(values)) <= p <= 1
    assert p >= sign_flip(values, margin) == sign_flip(list(reversed(values)), margin)
    assert sign_flip([value + 3 for value in values], margin) == pytest.approx(smallest_p(len(values)))


@pytest.mark.parametrize("values", [[], [math.nan], [0.1, math.inf]])
def test_sign_flip_refuses(values: list[float]) -> None:
    with pytest.raises(ArgumentError, match="one finite value for each pair"):
        sign_flip(values)


def test_one_row_stepped_down_is_sign_flip() -> None:
    for seed in range(5):
        values = np.random.default_rng(seed).normal(0.004, 0.01, 8 + 2 * seed).tolist()
        assert step_down([values], [0.003]) == [sign_flip(values, 0.003)]
    assert step_down([], []) == []


def test_sixty_rows_that_all_changed_show_with_eight_pairs_and_one_among_noise_too() -> None:
    rng = np.random.default_rng(4)
    changed = [rng.normal(0.2, 0.005, 8).tolist() for _ in range(60)]
    assert step_down(changed, [0.005] * 60) == [1 / 256] * 60
    noise = [rng.normal(0, 0.01, 8).tolist() for _ in range(59)]
    adjusted = step_down([*noise, changed[0]], [0.005] * 60)
    assert adjusted[-1] == 1 / 256
    assert min(adjusted[:-1]) > 0.02


def test_steady_rows_that_did_not_change_do_not_hide_a_noisier_one_that_did() -> None:
    """With flipped signs the steady rows lie far above their margin: they would be the largest of two patterns."""
    rng = np.random.default_rng(5)
    noisy = rng.normal(0.04, 0.01, 8).tolist()
    steady = [rng.normal(0, 1e-4, 8).tolist() for _ in range(4)]
    adjusted = step_down([*steady, noisy], [0.005] * 5)
    assert adjusted[-1] == sign_flip(noisy, 0.005) == 1 / 256
    assert adjusted[:-1] == [1.0] * 4
    near = [(rng.normal(0.005, 0.01, 8)).tolist() for _ in range(4)]
    assert step_down([*near, noisy], [0.005] * 5)[-1] >= 1 / 256, "rows near their margin are compared"


@pytest.mark.parametrize("margin", [0.0, 0.01])
def test_at_their_margin_rows_that_move_against_each_other_raise_no_more_alarms(margin: float) -> None:
    """The worst case of leaving out: true changes of just the margin, and rows that mirror others."""
    rng, alarms = np.random.default_rng(12), 0
    for _ in range(1500):
        one, two = rng.normal(0, 0.01, (2, 8))
        rows = [(margin + row).tolist() for row in (one, -one, two, -two)]
        alarms += min(step_down(rows, [margin] * 4)) <= 0.02
    assert alarms <= 30 + 3 * 30**0.5


def test_false_alarms_among_many_rows_stay_at_the_level() -> None:
    rng = np.random.default_rng(8)
    alarms = sum(min(step_down(rng.standard_t(3, (12, 9)).tolist(), [0.0] * 12)) <= 0.05 for _ in range(200))
    assert alarms <= 19  # 5 % of 200, and three standard deviations


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(-1, 1), min_size=6, max_size=6), min_size=1, max_size=5))
def test_stepping_down_of_anything(rows: list[list[float]]) -> None:
    adjusted = step_down(rows, [0.01] * len(rows))
    alone = [sign_flip(row, 0.01) for row in rows]
    assert all(after >= before - 1e-9 for before, after in zip(alone, adjusted, strict=True))
    assert max(adjusted) <= 1


def test_a_few_slow_processes_do_not_move_the_robust_spread() -> None:
    values = np.random.default_rng(2).normal(0, 0.01, 200)
    steady = robust_spread(values.tolist())
    assert steady == pytest.approx(0.01, rel=0.15)
    values[:8] += 0.3
    assert robust_spread(values.tolist()) == pytest.approx(steady, rel=0.1)
    assert spread(values.tolist()) > 3 * steady
    assert robust_spread([]) == 0


def test_the_bound_of_a_median_holds_and_shrinks_with_pairs() -> None:
    medians = np.median(np.random.default_rng(6).normal(0, 0.01, (4000, 24)), axis=1)
    assert np.mean(medians > median_bound(0.01, 24, 0.02)) == pytest.approx(0.02, abs=0.008)
    assert median_bound(0.01, 24, 0.02) == pytest.approx(median_bound(0.01, 6, 0.02) / 2)
    assert median_bound(0.0, 8, 0.02) == 0


def test_calibrating_lowers_no_power_on_the_projects_own_measurements() -> None:
    """+3 % on resampled A/A pairs is found at least as often with the committed calibration as without it."""
    pairs, rule = policy().pairs, policy().noisy["times.denoise"]
    told = json.loads((ROOT / "reports/records/h100-aa.json").read_text())
    name = "schnell-1024-blocks/fused/times.denoise"
    both = [pair for row in told["comparisons"] for pair in zip(*row["medians"][name].values(), strict=True)]
    scale = told["metrics"][name]["calibrated"]["spread"]
    rng, found = np.random.default_rng(11), Counter()
    for _ in range(60):
        index = rng.integers(0, len(both), 16)
        base, head = ([[both[i][side] * (1, 1.03)[side]] for i in index] for side in (0, 1))
        for calibrated in (0.0, scale):
            one = Task(Place("w", "r"), "times.denoise", base, head, rule, calibrated)
            found[calibrated] += judge([one], pairs, 3)[0].verdict == "SLOWER"
    assert found[scale] >= found[0.0] >= 54, found


@pytest.mark.parametrize(("pairs", "alpha"), [(6, 0.02), (8, 0.02), (8, 0.02 / 3), (16, 0.02 / 3)])
def test_the_smallest_change_that_shows_does_show_that_often(pairs: int, alpha: float) -> None:
    change = detectable(0.007, pairs, alpha, 0.95, 0.005)
    draws = np.random.default_rng(7).normal(math.log1p(change), 0.007, (300, pairs))
    shown = np.mean([sign_flip(row.tolist(), 0.005) <= alpha for row in draws])
    assert 0.91 <= shown <= 1


def test_detectable_by_hand() -> None:
    every = norm.ppf(0.95 ** (1 / 6))
    assert detectable(0.01, 6, 0.02, 0.95) == pytest.approx(math.expm1(0.01 * every), rel=0.05)
    assert detectable(0.01, 5, 0.02, 0.95) == math.inf
    assert detectable(0.0, 8, 0.02, 0.95, 0.005) == pytest.approx(math.expm1(0.005))
    assert detectable(0.01, 8, 0.02, 0.95) > detectable(0.01, 16, 0.02, 0.95)
    with pytest.raises(ArgumentError, match="0 < alpha < power < 1"):
        detectable(0.01, 8, 0.5, 0.4)


def test_spread_is_the_standard_deviation() -> None:
    assert spread([1.0, 3.0]) == pytest.approx(math.sqrt(2))
    assert spread([1.0]) == 0


@pytest.mark.parametrize("number", [6, 8, 15, 40])
def test_median_interval_is_that_of_scipy(number: int) -> None:
    values = np.random.default_rng(number).normal(size=number)
    expected = quantile_test(values, q=0, p=0.5).confidence_interval(0.95)
    found = median_interval(values.tolist())
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert 0.95 <= found.coverage < 1


def test_median_interval_needs_six_values() -> None:
    assert median_interval([1, 2, 3, 4, 5]) is None
    assert median_interval([3, 1, 2, 6, 5, 4]) == (1, 6, pytest.approx(1 - 2 / 64))
    assert median_interval([]) is None
    with pytest.raises(ArgumentError, match="confidence between 0 and 1"):
        median_interval([1.0] * 8, 95)


def test_ratio_interval_holds_the_ratio_about_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(11), 0
    for _ in range(100):
        base, head = np.exp(rng.normal(0, 0.01, 10)), 1.03 * np.exp(rng.normal(0, 0.01, 10))
        found = ratio_interval(base.tolist(), head.tolist(), resamples=500)
        assert found is not None
        held += found.low <= 1.03 <= found.high
    assert held >= 85
    assert ratio_interval([1, 1], [1, 1]) is None
    assert ratio_interval([1.0] * 4, [2.0] * 4, paired=True) == (2.0, 2.0, 0.95)
    with pytest.raises(ArgumentError, match="as many processes"):
        ratio_interval([1.0] * 4, [1.0] * 3, paired=True)
    with pytest.raises(ArgumentError, match="above zero"):
        ratio_interval([1.0] * 4, [0.0] * 4)


def verdicts(number: int, *, calibrate: bool = False, pairs: int = 8, **machine: float) -> Counter[str]:
    """Verdicts on simulated comparisons, each on a machine of its own."""
    rng = np.random.default_rng(2024)
    aa = [math.log(np.median(b) / np.median(a)) for a, b in zip(*drawn(rng, 12, **machine), strict=True)]
    width = spread(aa) if calibrate else 0.0
    change = machine.pop("change", 0.0)
    tasks = (task(*drawn(rng, pairs, change=change, **machine), calibrated=width) for _ in range(number))
    return Counter(judge([one], policy().pairs)[0].verdict for one in tasks)


@pytest.mark.parametrize(
    "machine",
    [{"spread": 0.005}, {"spread": 0.01, "drift": 0.1, "disturbed": 0.05}, {"spread": 0.02, "disturbed": 0.1}],
    ids=["quiet", "drifting", "loud"],
)
def test_a_machine_compared_with_itself_gives_at_most_one_alarm_in_a_hundred(machine: dict[str, float]) -> None:
    found = verdicts(400, calibrate=True, **machine)
    assert found["SLOWER"] <= 4, found
    assert found["ERROR"] == 0


def test_without_calibration_alarms_stay_at_the_level() -> None:
    assert verdicts(400, spread=0.03)["SLOWER"] <= 14  # 2 % of 400, and three standard deviations


def test_three_percent_is_seen_with_eight_pairs() -> None:
    found = verdicts(200, change=0.03, spread=0.005)
    assert found["SLOWER"] >= 190, found


@pytest.mark.parametrize("sides", [(1.0, 1.1), (1.1, 1.0)], ids=["slower", "faster"])
def test_each_look_at_growing_data_has_its_share_of_alpha(sides: tuple[float, float]) -> None:
    """Six pairs that agree have a p of 1/64, which is below 0.02 and above a third of it."""
    base, head = ([[seconds]] * 6 for seconds in sides)
    pairs = policy().pairs
    said = [judge([task(base, head)], pairs, looks)[0].verdict for looks in (1, 3)]
    assert said == ["SLOWER" if sides[0] < sides[1] else "FASTER", "UNSURE"]
    (row,) = judge([task(base, head)], pairs, 3)
    assert row.reason == "too_few_pairs"
    assert "at alpha 0.0067; no change could have been detected" in row.message
    assert "take at least 8 pairs" in row.message


@pytest.mark.parametrize(("change", "verdict", "least"), [(0.0, "SAME", 390), (0.03, "SLOWER", 380)])
def test_looking_again_while_unsure_raises_no_alarms_and_sees_more(change: float, verdict: str, least: int) -> None:
    """As the gate does: 8 pairs, and 8 more while unsure, on a machine with occasional disturbances."""
    rng, found = np.random.default_rng(9), Counter()
    pairs = policy().pairs
    for _ in range(400):
        base, head = drawn(rng, pairs.most, change=change, spread=0.01, disturbed=0.05)
        for taken in range(pairs.first, pairs.most + 1, pairs.step):
            one = task(base[:taken], head[:taken])
            said = judge([one], pairs, pairs.looks(pairs.first))[0].verdict
            if said != "UNSURE":
                break
        found[said] += 1
    assert found[verdict] >= least, found
    assert change or found["SLOWER"] <= 4


@pytest.mark.parametrize("paired", [False, True])
def test_ratio_interval_is_the_percentile_bootstrap_that_scipy_makes(paired: bool) -> None:
    from scipy.stats import bootstrap

    base, head = [1.0, 1.1, 0.97, 1.05, 1.2], [0.9, 0.85, 0.95, 0.88, 0.93]
    found = ratio_interval(base, head, paired=paired, resamples=300, seed=3)
    wanted = bootstrap(
        (np.asarray(head), np.asarray(base)),
        lambda after, before, axis: np.median(after, axis=axis) / np.median(before, axis=axis),
        paired=paired,
        vectorized=True,
        method="percentile",
        n_resamples=300,
        rng=3,
    ).confidence_interval
    assert found is not None
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), rel=1e-12)
