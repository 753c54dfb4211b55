"""Tolerances are tight: noise of three times their size and slightly wrong formulas fail."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.ops.specs import SPECS
from tests.ops import checking
from tests.ops.checking import Trial
from tests.ops.mutants import MUTANTS

GROUPS: dict[tuple[str, str], list[Trial]] = defaultdict(list)
for _trial in checking.trials():
    GROUPS[_trial.op, _trial.key].append(_trial)

NOISY = [key for key in GROUPS if SPECS[key[0]].tolerance[key[1]]]
EXACT = [key for key in GROUPS if not SPECS[key[0]].tolerance[key[1]]]


def _ids(group: tuple[str, str]) -> str:
    return "-".join(group)


@pytest.mark.parametrize("group", NOISY, ids=_ids)
def test_the_largest_error_uses_a_fair_part_of_the_tolerance(group: tuple[str, str]) -> None:
    trials = GROUPS[group]
    used = max(checking.measured(trial) for trial in trials) / trials[0].tolerance
    assert 0.2 <= used <= 0.8, f"{group}: {used:.0%} used; propose another tolerance"


def _best(group: tuple[str, str]) -> Trial:
    return min((trial for trial in GROUPS[group] if trial.size == "odd"), key=checking.measured)


def _numbers(trial: Trial) -> tuple[list[Any], list[Any]]:
    device, call = HostDevice(), checking.drawn(trial)
    results = [checking.on_host(device, value) for value in checking.listed(checking.perform(device, trial, call))]
    return results, checking.oracle(trial, call)


@pytest.mark.parametrize("group", NOISY, ids=_ids)
def test_noise_of_three_times_the_tolerance_fails(group: tuple[str, str]) -> None:
    trial = _best(group)
    results, expected = _numbers(trial)
    for place in range(len(results)):
        noise = np.random.default_rng(7).standard_normal(results[place].shape)
        noise *= 3 * trial.tolerance * np.linalg.norm(expected[place]) / np.linalg.norm(noise)
        perturbed = [*results[:place], results[place] + noise, *results[place + 1 :]]
        with pytest.raises(AssertionError, match="% of the allowed error used"):
            checking.judge(trial, perturbed, expected)


@pytest.mark.parametrize("group", EXACT, ids=_ids)
def test_one_changed_element_of_moved_data_fails(group: tuple[str, str]) -> None:
    trial = _best(group)
    results, expected = _numbers(trial)
    results[-1].flat[3] = np.nextafter(results[-1].flat[3], np.inf)
    with pytest.raises(AssertionError, match="it must be exact"):
        checking.judge(trial, results, expected)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_result_that_is_not_a_number_fails(wrong: float) -> None:
    trial = _best(("gelu", "float32"))
    results, expected = _numbers(trial)
    results[0].flat[0] = wrong
    with pytest.raises(AssertionError, match="inf"):
        checking.judge(trial, results, expected)


def test_a_result_of_another_shape_or_number_fails() -> None:
    trial = _best(("gelu", "float32"))
    results, expected = _numbers(trial)
    with pytest.raises(AssertionError, match="result 0 is"):
        checking.judge(trial, [results[0][:1]], expected)
    with pytest.raises(AssertionError, match="2 results"):
        checking.judge(trial, results * 2, expected)


@pytest.mark.parametrize(
    ("op", "variant", "mistake", "keys"), MUTANTS, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_wrong_formula_fails(op: str, variant: str, mistake: Callable[..., Any], keys: tuple[str, ...]) -> None:
    for key in keys or tuple(SPECS[op].tolerance):
        trial = next(trial for trial in GROUPS[op, key] if (trial.variant, trial.size) == (variant, "odd"))
        call = checking.drawn(trial)
        wrong = checking.listed(mistake(*checking.bare(call.args)))
        with pytest.raises(AssertionError, match=op):
            checking.judge(trial, [np.asarray(value, np.float64) for value in wrong], checking.oracle(trial, call))
