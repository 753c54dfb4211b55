"""Joules of a window, from a counter that is updated ten times a second, on a simulated clock."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import pytest

from fluxperf.harness.measure.energy import FEWEST_RENEWALS, EnergyMeter, energy_note
from fluxperf.harness.records import Conditions, EnergyRow, Record
from tests.pure.test_records import make


class FakeGpu:
    """Power over time; the counter has the energy used until its last update."""

    def __init__(self, power: Callable[[float], float] = lambda now: 700.0, renewed_s: float = 0.1) -> None:
        self.now_s, self.renewed_s, self.power = 1000.037, renewed_s, power
        self.told = 1.0  # what the power sensor makes of the power
        self.asked = 0
        self._used, self._until = 0.0, 999.0

    def now(self) -> float:
        return self.now_s

    def joules(self) -> float:
        self.asked += 1
        while self._until + self.renewed_s <= self.now_s:
            fine = self.renewed_s / 20
            self._used += sum(self.power(self._until + (index + 0.5) * fine) * fine for index in range(20))
            self._until += self.renewed_s
        return self._used

    def watts(self) -> float:
        return self.power(self.now_s) * self.told

    def spend(self, meter: EnergyMeter, seconds: float) -> None:
        end = self.now_s + seconds
        while self.now_s < end - 1e-9:
            self.now_s = min(end, self.now_s + meter.pause_s)
            meter.look()


def window(gpu: FakeGpu, seconds: float) -> EnergyRow:
    meter = EnergyMeter(gpu.joules, gpu.watts, gpu.now)
    meter.look()  # no window is open: nothing is read
    assert gpu.asked == 0
    with meter.window():
        gpu.spend(meter, seconds)
    asked = gpu.asked
    meter.look()
    assert gpu.asked == asked
    assert meter.row is not None
    return meter.row


@pytest.mark.parametrize("start", [0.0, 0.031, 0.062, 0.099])
def test_joules_are_those_of_the_window_wherever_it_begins(start: float) -> None:
    gpu = FakeGpu()
    gpu.now_s += start
    row = window(gpu, 2.3)
    assert row.window_s == pytest.approx(2.3)
    assert row.counter_j == pytest.approx(700 * 2.3, rel=4e-3)
    assert row.integrated_j == pytest.approx(700 * 2.3, rel=1e-6)
    assert row.renewals in (22, 23)
    assert gpu.asked < 300, "a look takes the host milliseconds"


def test_power_that_changes_is_added_up_by_both() -> None:
    gpu = FakeGpu(lambda now: 600.0 + 100.0 * math.sin(now * 40))
    row = window(gpu, 5.0)
    assert row.counter_j == pytest.approx(600 * 5.0, rel=0.01)
    assert row.integrated_j == pytest.approx(600 * 5.0, rel=0.01)


def test_a_window_that_is_too_short_for_the_counter_has_no_joules() -> None:
    row = window(FakeGpu(), 0.1 * FEWEST_RENEWALS - 0.1)
    assert row.counter_j is None
    assert row.integrated_j == pytest.approx(700 * row.window_s)


@pytest.mark.parametrize(("seconds", "renewals"), [(0.95, 9), (1.05, 10)])
def test_ten_renewals_make_joules_and_nine_do_not(seconds: float, renewals: int) -> None:
    row = window(FakeGpu(), seconds)
    assert row.renewals == renewals
    assert (row.counter_j is not None) == (renewals == 10)


def test_without_a_counter_there_are_none() -> None:
    gpu = FakeGpu()
    meter = EnergyMeter(lambda: None, lambda: None, gpu.now)
    with meter.window():
        gpu.spend(meter, 2.0)
    assert meter.row is not None
    assert (meter.row.counter_j, meter.row.integrated_j, meter.row.renewals) == (None, None, 0)


def test_a_counter_that_goes_back_tells_nothing() -> None:
    gpu = FakeGpu()
    meter = EnergyMeter(lambda: -gpu.joules(), gpu.watts, gpu.now)
    with meter.window():
        gpu.spend(meter, 2.0)
    assert meter.row is not None
    assert meter.row.counter_j is None


def test_each_window_is_one_of_its_own() -> None:
    gpu = FakeGpu()
    meter = EnergyMeter(gpu.joules, gpu.watts, gpu.now)
    for power in (700.0, 350.0):
        gpu.power = lambda now, power=power: power  # type: ignore[misc]
        with meter.window():
            gpu.spend(meter, 2.0)
        assert meter.row is not None
        assert meter.row.counter_j == pytest.approx(2 * power, rel=5e-3)


def record(*told: tuple[float | None, float | None]) -> Record:
    rows = [EnergyRow(window_s=2.0, counter_j=a, integrated_j=b, renewals=20) for a, b in told]
    return msgspec.structs.replace(make("fused"), conditions=[Conditions(readings=[], energy=row) for row in rows])


def test_a_disagreement_over_three_percent_is_said() -> None:
    assert energy_note([record((100.0, 102.9)), record((102.9, 100.0)), record((None, 100.0)), make("fused")]) == ""
    note = energy_note([record((100.0, 100.0), (100.0, 105.0))])
    assert "-4.8%" in note
    assert make("fused").rung in note


def test_the_meters_own_row_disagrees_where_the_sensor_is_off() -> None:
    gpu = FakeGpu()
    gpu.told = 0.9
    row = window(gpu, 2.0)
    assert "+11" in energy_note([record((row.counter_j, row.integrated_j))])
