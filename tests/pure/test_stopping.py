"""The stopping rules: known answers, and properties for any samples."""

from __future__ import annotations

import random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxperf.harness.measure.stopping import Reading, Until, half_width, settled, steady, stopped, warm

TIMES = st.floats(1e-6, 1e3, allow_nan=False)
SERIES = st.lists(TIMES, min_size=0, max_size=40)


def in_seconds(series: list[list[float]]) -> list[list[Reading]]:
    """Samples of a device that reports only seconds."""
    return [[Reading(seconds) for seconds in samples] for samples in series]


@pytest.mark.parametrize(
    ("samples", "answer"),
    [
        ([1.0] * 4, False),
        ([1.0] * 5, True),
        ([1.0, 1.0, 1.0, 1.0, 1.021], False),
        ([1.0, 1.0, 1.0, 1.0, 1.019], True),
        ([9.0, 5.0, 1.0, 1.0, 1.0, 1.0, 1.0], True),
        ([10.0 - n / 2 for n in range(10)], False),
        ([1.0 + n / 2 for n in range(10)], False),
        ([0.9, 1.1] * 4, False),
        ([0.9, 1.1] * 5, True),
    ],
)
def test_settled(samples: list[float], answer: bool) -> None:
    assert settled(samples) is answer


def test_noise_settles_and_a_warming_machine_does_not() -> None:
    """Ten samples with 10 % noise nearly always settle; if they also fall by 5 % per run, nearly never."""
    draw = random.Random(0)
    noise = [[draw.gauss(1.0, 0.1) for _ in range(10)] for _ in range(1000)]
    falling = [[value * 0.9**n for n, value in enumerate(samples)] for samples in noise]
    assert sum(map(settled, noise)) > 930
    assert sum(map(settled, falling)) < 50


def test_half_width() -> None:
    assert half_width([1.0] * 5) is None
    assert half_width([1.0] * 6) == 0.0
    assert half_width([9.0, 10.0, 10.0, 10.0, 10.0, 11.0]) == pytest.approx(0.1)
    assert half_width([1.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 99.0]) == 0.0, (
        "nine samples lose one on each side"
    )


@given(st.lists(TIMES, min_size=6, max_size=60), st.floats(1e-3, 1e3))
def test_half_width_of_anything(samples: list[float], factor: float) -> None:
    width = half_width(samples)
    assert width is not None
    assert 0 <= width <= (max(samples) - min(samples)) / 2 / median(samples) * (1 + 1e-12)
    assert half_width(list(reversed(samples))) == width
    assert half_width([sample * factor for sample in samples]) == pytest.approx(width, rel=1e-9, abs=1e-12)


@given(st.lists(SERIES, min_size=1, max_size=4), st.integers(0, 20), st.floats(0, 1e4))
def test_a_fixed_number_is_exactly_that(series: list[list[float]], least: int, passed_s: float) -> None:
    enough = min(map(len, series)) >= least
    assert warm(in_seconds(series), least, None, passed_s) is enough
    assert stopped(series, least, None, passed_s) == ("count" if enough else None)


@given(st.lists(SERIES, min_size=1, max_size=4), st.integers(1, 20), st.floats(0, 100))
def test_bounds_always_hold(series: list[list[float]], least: int, passed_s: float) -> None:
    until = Until(half_width=0.01, most=30, most_s=50.0, warmup_most=20, warmup_s=50.0)
    count = min(map(len, series))
    why = stopped(series, least, until, passed_s)
    if count >= 30 or (count and passed_s >= 50.0):
        assert why is not None
    if why == "precision":
        assert count >= max(least, 6)
        assert all(half_width(samples) <= 0.01 for samples in series)
    if count >= max(20, least) or (count >= least and passed_s >= 50.0):
        assert warm(in_seconds(series), least, until, passed_s)
    if count < least:
        assert not warm(in_seconds(series), least, until, passed_s)


def gpu(clocks: list[float], cycles: float = 3e8) -> list[Reading]:
    """Samples of the same work at these clocks, in hertz."""
    return [Reading(cycles / clock, cycles, clock) for clock in clocks]


def test_too_few_seconds_or_samples_say_nothing() -> None:
    assert steady([]) is None
    assert steady(gpu([1.5e9] * 9)) is None, "9 samples of 0.2 s are not twice a second"
    assert steady(gpu([1.5e9] * 5, cycles=3e9)) is None, "5 samples are not twice 3, however long"
    assert steady(gpu([1.5e9] * 6, cycles=3e9)) is True
    assert steady([Reading(1.0)] * 20) is None


def test_a_card_that_still_clocks_down_is_not_steady_and_one_that_dithers_is() -> None:
    falling = gpu([1.98e9 - 0.01e9 * index for index in range(20)])
    dithering = gpu([1.5e9, 1.56e9] * 10)
    assert steady(falling) is False
    assert steady(dithering) is True
    assert settled([reading.seconds for reading in dithering[-5:]]) is False, "seconds alone spread by 4 %"
    assert steady(falling + dithering) is True, "only the newest count"


def test_cycles_that_still_change_are_not_steady() -> None:
    more = [reading._replace(cycles=3e8 * (1 + 0.001 * index)) for index, reading in enumerate(gpu([1.5e9] * 20))]
    assert steady(more) is False


def test_a_gpus_warm_up_goes_on_until_it_is_steady() -> None:
    """Without bounds from the caller: at least the requested time, then until steady, for at most ten seconds."""
    warmed, cold = gpu([1.5e9] * 20), gpu([1.5e9] * 2)
    assert warm([warmed], 1, None, 0.0)
    assert not warm([warmed, cold], 1, None, 0.0), "all variants"
    assert warm([warmed, cold], 1, None, 10.0)
    assert not warm([warmed], 21, None, 99.0)
    assert warm([[]], 0, None, 0.0), "no warm-up was asked for"
    assert warm([[Reading(1.0)]], 1, None, 0.0), "seconds alone: a count"
    assert warm([[Reading(1.0)], cold], 1, None, 0.0), "a peer beside it tells no cycles"
