"""Sides at other clocks, and a few slow generations: what cycles prove then, and which word a change gets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from fluxperf.harness.clock_slope import NONE, Doubt, at_one_clock, doubt
from fluxperf.harness.compare import compare
from fluxperf.harness.exact import Place
from fluxperf.harness.meaning import explained
from fluxperf.harness.noisy import Task, judge
from fluxperf.harness.records import Record
from fluxperf.harness.verdict import Row
from fluxperf.harness.worked import witnesses
from tests.gate.sides import policy
from tests.report.pages import on_gpu

POLICY = policy()
FORMS = ("mean", "p90")
PAIRS, WORK, CLOCK = 8, 24.5e6, 1.755e9


def side(rng: np.random.Generator, **options: Any) -> Record:
    """Processes of five generations, in seconds, cycles and joules that belong together.

    Options: ``clock`` and ``power`` are multiples of the usual ones, ``steady`` the spread of clocks between processes,
    ``slope`` that of cycles on the clock, ``work`` a multiple of cycles; ``slow`` generations of each process take
    ``longer`` times the cycles (``held`` ones as many cycles at half of the clock); ``told`` says whether joules are.
    """
    usual: dict[str, Any] = {
        "clock": 1.0, "power": 1.0, "steady": 0.008, "slope": 0.08, "work": 1.0, "slow": 0, "longer": 1.5, "held": 0,
        "told": True,
    }  # fmt: skip
    one = usual | options
    cycles, clocks, joules = [], [], []
    for _ in range(PAIRS):
        clock = CLOCK * one["clock"] * math.exp(rng.normal(0, one["steady"]))
        each = clock * np.exp(rng.normal(0, one["steady"], 5))
        each[: one["held"]] /= 2
        work = WORK * one["work"] * (each / CLOCK) ** one["slope"] * np.exp(rng.normal(0, 0.0005, 5))
        work[: one["slow"]] *= one["longer"]
        cycles.append(work.tolist())
        clocks.append(each.tolist())
        joules.append([700 * one["power"] * float(np.mean(work / each)) * math.exp(rng.normal(0, 0.003))])
    seconds = [[c / f for c, f in zip(*both, strict=True)] for both in zip(cycles, clocks, strict=True)]
    return msgspec.structs.replace(
        on_gpu("captured", 0.5), conditions=None, ops=[], times_s={"denoise": seconds}, cycles={"denoise": cycles},
        clock_hz={"denoise": clocks}, energy_j={"denoise": joules} if one["told"] else {},
    )  # fmt: skip


def rows(base: dict[str, Any], head: dict[str, Any], seed: int = 1) -> dict[str, Row]:
    rng = np.random.default_rng(seed)
    found = compare([side(rng, **base)], [side(rng, **head)], POLICY, looks=3).rows
    return {row.metric: row for row in found if row.kind == "noisy"}


def words(found: dict[str, Row], *names: str) -> list[tuple[str, str]]:
    return [(found[f"{name}.denoise"].verdict, found[f"{name}.denoise"].reason) for name in names]


@pytest.mark.parametrize("seed", range(12))
def test_a_card_that_ran_slower_at_steady_clocks_is_no_more_work(seed: int) -> None:
    """Within each side clocks spread by 0.05 %, between them they are 4 % apart: a slope is hardly known that far."""
    held = {"steady": 0.0005, "clock": 0.96, "power": 0.96**3}
    found = rows({"steady": 0.0005}, held, seed)
    assert words(found, "cycles", "times") in (
        [("UNSURE", "clocks_apart")] * 2, [("SAME", "shown_same"), ("UNSURE", "card_slower")],
    )  # fmt: skip
    assert (
        "the sides ran at different clocks, for which the slope gives cycles to within "
        in found["cycles.denoise"].message
    )
    assert found["energy.denoise"].verdict == "FASTER"
    assert not [row for row in found.values() if row.outcome == "regression"]
    better = rows(held, {"steady": 0.0005}, seed)
    assert words(better, "cycles", "times") in (
        [("UNSURE", "clocks_apart")] * 2, [("SAME", "shown_same"), ("SAME", "card_quicker")],
    ), "nor is a quicker card less work"  # fmt: skip
    assert words(better, "energy") == [("UNSURE", "card_quicker")]


def test_more_work_than_any_slope_makes_is_more_work_at_another_clock_too() -> None:
    found = rows({"steady": 0.0005}, {"steady": 0.0005, "clock": 0.96, "work": 1.06})
    assert words(found, "cycles", "times") == [("SLOWER", "more_work")] * 2


@pytest.mark.parametrize("seed", range(6))
def test_more_work_at_a_lower_clock_is_more_work_whatever_the_slope(seed: int) -> None:
    """Without a slope the head has 3 % more cycles; any slope would make it more."""
    usual = {"steady": 0.0005, "slope": 0.0}
    changed = usual | {"clock": 0.96, "work": 1.03}
    found = rows(usual, changed, seed)
    assert words(found, "cycles", "times") == [("SLOWER", "more_work")] * 2
    cycles = found["cycles.denoise"]
    assert cycles.margin is not None
    assert cycles.change is not None
    assert cycles.margin < math.log1p(cycles.change), "the margin that it is beyond"
    better = rows(changed | {"power": 0.96**3}, usual, seed)
    assert words(better, "cycles", "times") == [("FASTER", "less_work")] * 2
    assert words(better, "energy") == [("UNSURE", "card_quicker")], "joules of a higher clock"


@pytest.mark.parametrize("seed", range(4))
def test_more_joules_than_cycles_can_be_are_hungrier_at_another_clock_too(seed: int) -> None:
    found = rows({"steady": 0.0005}, {"steady": 0.0005, "clock": 0.95}, seed)  # the same power, for longer
    assert words(found, "energy", "times") == [("SLOWER", "hungrier")] * 2
    apart = found["cycles.denoise"].reason == "clocks_apart"
    assert ("joules are more than cycles can be" in found["energy.denoise"].message) == apart
    assert apart or found["cycles.denoise"].verdict == "SAME"


def test_at_clocks_that_spread_as_far_as_they_are_apart_cycles_are_known() -> None:
    found = rows({}, {"clock": 0.955})
    assert words(found, "cycles", "times") == [("SAME", "shown_same"), ("SLOWER", "hungrier")]


def test_the_doubt_is_what_the_slopes_error_makes_of_the_clocks() -> None:
    rng = np.random.default_rng(3)
    clocks = [[CLOCK * math.exp(rng.normal(0, 0.01))] for _ in range(32)]
    cycles = [[WORK * (clock[0] / CLOCK) ** 0.2 * math.exp(rng.normal(0, 0.001))] for clock in clocks]
    other = [[clock[0] * 0.95] for clock in clocks[16:]]
    both = (cycles[:16], cycles[16:]), (clocks[:16], other)
    slope = at_one_clock(*both).slope
    apart = -math.log(0.95)
    by_hand = 3 * 0.001 / (0.01 * math.sqrt(32)) * apart
    assert doubt(*both, slope).within(3) == pytest.approx(by_hand, rel=0.6)
    assert doubt((cycles[:16], cycles[16:]), (clocks[:16], clocks[16:]), slope).within(3) < 0.3 * by_hand
    odd = [[value[0] * (1.3 if index == 5 else 1)] for index, value in enumerate(cycles[:16])]
    assert doubt((odd, cycles[16:]), both[1], slope).within(3) < 2 * by_hand, "one odd process tells little"


def test_where_no_slope_can_be_found_any_may_be_true() -> None:
    one, another = [[1.7e9]] * 8, [[1.7e9 * 0.99]] * 8
    work, apart = [[2.4e7]] * 8, -math.log(0.99)
    found = doubt((work, work), (one, another), 0.75)  # the head's clock is lower
    assert (found.over(0.1), found.under(3)) == (pytest.approx(0.75 * apart), pytest.approx(0.25 * apart))
    assert found.within(3) == found.over(3)
    turned = doubt((work, work), (another, one), 0.75)
    assert (turned.over(3), turned.under(3)) == (pytest.approx(0.25 * apart), pytest.approx(0.75 * apart))
    assert doubt((work, work), (one, another), 0.0).over(3) == 0, "a slope above 0 would make it more, not less"
    assert doubt((work, work), (one, one), 0.0).within(3) == 0
    assert doubt((work, work), ([], another), 0.0) == NONE, "clocks that are not known are none"
    assert doubt(([], []), ([], []), 0.0) == NONE


@pytest.mark.parametrize("told", [True, False])
def test_a_few_slow_generations_are_more_work_although_the_median_is_the_same(told: bool) -> None:
    found = rows({"told": told}, {"slow": 1, "told": told})
    assert words(found, "cycles", "times") == [("SAME", "shown_same")] * 2
    for form in FORMS:
        row = found[f"times.denoise.{form}"]
        assert (row.verdict, row.reason, row.outcome) == ("SLOWER", "more_work", "regression"), form
    if told:
        assert words(found, "energy") == [("SLOWER", "more_work")]
        assert "some generations take more cycles" in found["energy.denoise"].message
    assert "cycles.denoise.p90" not in found, "what only explains others is no row"


def row_of(logs: Sequence[float], error: float, above: float = 1.0, below: float = 1.0) -> Row:
    """The row of pairs of cycles that are apart by so much, with a doubt of such a standard error."""
    head = [[WORK * math.exp(value)] for value in logs]
    task = Task(
        Place("w", "r"), "cycles.denoise", [[WORK]] * len(logs), head, POLICY.noisy["cycles.denoise"],
        doubt=Doubt(error, above, below),
    )  # fmt: skip
    (row,) = judge([task], POLICY.pairs, 3)
    return row


def judged(logs: Sequence[float], error: float, above: float = 1.0, below: float = 1.0) -> tuple[str, str]:
    row = row_of(logs, error, above, below)
    return row.verdict, row.reason


def test_each_side_of_a_doubt_counts_where_it_may_hide_something() -> None:
    little = np.random.default_rng(4).normal(0, 1e-4, 8)
    less, more = (little - 0.0028).tolist(), (little + 0.0028).tolist()
    assert judged(less, 0.002, above=0) == judged(more, 0.002, below=0) == ("SAME", "shown_same")
    assert judged(less, 0.002, below=0) == judged(more, 0.002, above=0) == ("UNSURE", "clocks_apart")
    margin, wide = math.log1p(POLICY.noisy["cycles.denoise"].margin), 0.01
    shown = (little + 0.02).tolist()
    assert row_of(shown, 1.0, above=0.001, below=wide).margin == pytest.approx(margin + 0.001)
    assert row_of([-value for value in shown], 1.0, above=wide, below=0.002).margin == pytest.approx(margin + 0.002)
    unsure = row_of(more, 1.0, above=0.004, below=wide)
    assert (unsure.verdict, unsure.margin) == ("UNSURE", pytest.approx(margin + wide)), "the wider one"


@pytest.mark.parametrize(("high", "reason"), [(-0.035, "card_quicker"), (-0.01, "hungrier"), (None, "hungrier")])
def test_a_clock_is_higher_where_seconds_fell_by_more_than_cycles(high: float | None, reason: str) -> None:
    beside = [
        told_as("cycles.denoise", "FASTER", low=-0.03),
        told_as("times.denoise", "FASTER", **({} if high is None else {"high": high})),
    ]
    assert explained([told_as("energy.denoise", "SLOWER"), *beside])[0].reason == reason


def test_clocks_are_blamed_where_they_hide_a_verdict_or_are_the_larger_part_of_what_is_not_known() -> None:
    near = np.random.default_rng(6).normal(0.0025, 0.002, 8).tolist()
    assert judged(near, 0.0) == ("SAME", "shown_same")
    assert judged(near, 0.0004) == ("UNSURE", "clocks_apart"), "it would be the same"
    wide = np.random.default_rng(6).normal(0, 0.02, 8).tolist()
    assert judged(wide, 0.0) == judged(wide, 0.002) == ("UNSURE", "too_noisy")
    assert judged(wide, 0.03) == ("UNSURE", "clocks_apart"), "no clock would have told, but this is most of it"


def told_as(metric: str, verdict: str, reason: str = "r", **numbers: float) -> Row:
    outcome: Any = {"SLOWER": "regression", "UNSURE": "unsure"}.get(verdict, "pass")
    found: Any = verdict
    return Row(
        workload="w", rung="r", metric=metric, kind="noisy", verdict=found, reason=reason, outcome=outcome,
        message="m.", **numbers,
    )  # fmt: skip


@pytest.mark.parametrize(("low", "reason"), [(0.02, "r"), (0.04, "hungrier"), (None, "r")])
def test_joules_must_be_more_than_cycles_can_be_by_interval_and_doubt(low: float | None, reason: str) -> None:
    cycles = told_as("cycles.denoise", "UNSURE", "clocks_apart", high=0.01, margin=0.02)
    more = {} if low is None else {"low": low}
    seconds, joules, _ = explained(
        [told_as("times.denoise", "SLOWER"), told_as("energy.denoise", "SLOWER", **more), cycles]
    )
    assert (seconds.reason, joules.reason) == (reason, reason)
    assert (seconds.verdict, joules.verdict) == ("SLOWER", "SLOWER"), "more joules and seconds are worse in any case"


@pytest.mark.parametrize(
    ("cycles", "mean", "reason"),
    [
        ("SAME", None, "hungrier"), ("SAME", "SAME", "hungrier"), ("SAME", "SLOWER", "more_work"),
        ("SAME", "UNSURE", "r"), ("SAME", "FASTER", "r"), ("FASTER", "SAME", "hungrier"),
        ("FASTER", "SLOWER", "r"), ("FASTER", "UNSURE", "r"), ("SLOWER", "SLOWER", "r"), ("UNSURE", "SAME", "r"),
    ],
)  # fmt: skip
def test_joules_are_explained_by_the_mean_of_cycles_too(cycles: str, mean: str | None, reason: str) -> None:
    beside = [told_as("cycles.denoise.mean", mean)] if mean else []
    rows = [told_as("energy.denoise", "SLOWER"), told_as("cycles.denoise", cycles)]
    assert explained(rows, beside)[0].reason == reason


def test_cycles_that_explain_a_tail_are_the_same_within_half_of_what_counts_in_it() -> None:
    tasks = [
        Task(Place("w", "r"), name, [[1.0]], [[1.0]], POLICY.noisy[name])
        for name in ("cycles.denoise", "times.denoise.mean", "times.denoise.p90")
    ]
    rules = {task.metric: task.rule for task in witnesses(tasks)}
    mean, tail = (POLICY.noisy[f"times.denoise.{form}"].floor_relative / 2 for form in FORMS)
    assert [rules[f"cycles.denoise.{form}"].same_within for form in FORMS] == [mean, tail]
    cycles = POLICY.noisy["cycles.denoise"]
    assert {(rule.margin, rule.floor_relative) for rule in rules.values()} == {(cycles.margin, cycles.floor_relative)}
    (alone, _) = witnesses(tasks[:1])
    assert alone.rule == cycles
    gated = tasks[0]._replace(metric="cycles.denoise.p90")
    assert [task.metric for task in witnesses([*tasks, gated])] == ["cycles.denoise.mean"], "it is judged already"
    assert witnesses([task for task in tasks if not task.metric.startswith("cycles")]) == []


def test_a_policy_may_gate_means_and_tails_of_cycles_and_joules_itself() -> None:
    own = {f"{name}.{form}": POLICY.noisy[name] for name in ("cycles.denoise", "energy.denoise") for form in FORMS}
    rules = msgspec.structs.replace(POLICY, noisy={**POLICY.noisy, **own})
    rng = np.random.default_rng(2)
    found = compare([side(rng)], [side(rng, slow=1)], rules, looks=3).rows
    told = {row.metric: row for row in found if row.kind == "noisy"}
    for form in FORMS:
        assert "at one clock, with a slope of 0." in told[f"cycles.denoise.{form}"].message
        assert told[f"cycles.denoise.{form}"].reason == told[f"times.denoise.{form}"].reason == "more_work"
    assert "energy.denoise.mean" not in told, "joules are one number of each process"


def test_generations_at_a_low_clock_are_the_cards_where_cycles_of_the_tail_are_the_same() -> None:
    found = rows({"told": False}, {"held": 1, "told": False})
    assert {found[f"times.denoise.{form}"].reason for form in FORMS} == {"no_joules"}
    assert found["cycles.denoise"].verdict == "SAME"


def test_a_lower_clock_that_takes_fewer_joules_is_the_card_whatever_it_is_called() -> None:
    found = rows({}, {"clock": 0.96, "power": 0.9})
    assert words(found, "cycles", "energy", "times") == [
        ("SAME", "shown_same"), ("FASTER", "shown_faster"), ("UNSURE", "card_slower"),
    ]  # fmt: skip
    assert "joules no more" in found["times.denoise"].message


def test_a_higher_clock_that_takes_more_joules_is_neither_hungrier_nor_a_gain() -> None:
    found = rows({"clock": 0.96}, {"power": 1.1})
    assert words(found, "cycles", "energy", "times") == [
        ("SAME", "shown_same"), ("UNSURE", "card_quicker"), ("SAME", "card_quicker"),
    ]  # fmt: skip


def test_fewer_cycles_that_take_more_joules_are_hungrier() -> None:
    found = rows({}, {"work": 0.98, "clock": 0.93})
    assert words(found, "cycles", "energy", "times") == [
        ("FASTER", "less_work"), ("SLOWER", "hungrier"), ("SLOWER", "hungrier"),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_eight_pairs_name_more_joules_beside_steady_seconds(seed: int) -> None:
    """Same cycles and seconds, 5 % more joules: with flipped signs the steady seconds were larger than the joules."""
    found = rows({"steady": 0.0005}, {"steady": 0.0005, "power": 1.05}, seed)
    assert words(found, "cycles", "times", "energy") == [("SAME", "shown_same")] * 2 + [("SLOWER", "hungrier")]
    assert found["energy.denoise"].outcome == "regression"
    assert found["energy.denoise"].pairs == 8
