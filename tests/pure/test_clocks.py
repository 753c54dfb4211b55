"""Reading the GPU's state from a simulated NVML, which refuses to change anything."""

from __future__ import annotations

import itertools
import sys
import threading
from types import SimpleNamespace

import msgspec
import pytest

from fluxperf.harness.measure import clocks
from fluxperf.harness.measure.clocks import Watch, named, throttling, throttling_note
from fluxperf.harness.records import ClockReading, Conditions, EnergyRow, Record
from tests.pure.test_records import make

BUS = "0000:18:00.0"


class FakeNvml:
    """One GPU. Any call that is not a query is an error."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    NVML_FI_DEV_POWER_INSTANT, NVML_SUCCESS = 186, 0

    class NVMLError(Exception):
        pass

    def __init__(self, reasons=(0x1,), refuses=()) -> None:
        self.reasons, self.refuses, self.asked = list(reasons), set(refuses), []
        self.enough, self.spent, self.millijoules = threading.Event(), threading.Event(), 10**12

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        assert name.startswith(("nvmlInit", "nvmlDeviceGet")), f"{name} may change something"
        if name in self.refuses:
            return self._refuse
        answers = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetHandleByPciBusId": lambda bus: f"handle of {bus}",
            "nvmlDeviceGetClockInfo": lambda handle, kind: {1: 1755, 2: 2619}[kind],
            "nvmlDeviceGetMaxClockInfo": lambda handle, kind: 1980,
            "nvmlDeviceGetPowerUsage": lambda handle: 684_120,
            "nvmlDeviceGetTotalEnergyConsumption": self._energy,
            "nvmlDeviceGetFieldValues": self._fields,
            "nvmlDeviceGetEnforcedPowerLimit": lambda handle: 700_000,
            "nvmlDeviceGetTemperature": lambda handle, sensor: 61,
            "nvmlDeviceGetCurrentClocksEventReasons": self._reason,
            "nvmlDeviceGetCurrentClocksThrottleReasons": self._reason,
        }
        return answers[name]

    def _energy(self, handle):
        """Seventy joules more at every query."""
        self.millijoules += 70_000
        if self.millijoules >= 10**12 + 70_000 * 40:
            self.spent.set()
        return self.millijoules

    def _fields(self, handle, wanted):
        assert wanted == [self.NVML_FI_DEV_POWER_INSTANT]
        return [SimpleNamespace(nvmlReturn=self.NVML_SUCCESS, value=SimpleNamespace(uiVal=700_500))]

    def _refuse(self, *args):
        raise self.NVMLError("Not Supported")

    def _reason(self, handle):
        assert handle == f"handle of {BUS}"
        self.asked.append(handle)
        if len(self.asked) >= 4:
            self.enough.set()
        return self.reasons[min(len(self.asked), len(self.reasons)) - 1]


def test_state_is_read_before_during_and_after() -> None:
    nvml = FakeNvml(reasons=[0x1, 0x4, 0x4 | 0x20, 0x0])
    with Watch(BUS, interval_s=0.001, library=nvml) as watch:
        assert nvml.enough.wait(10)
    conditions = watch.conditions
    assert conditions is not None
    first, second, third, *rest = conditions.readings
    assert first == ClockReading(
        at_s=first.at_s, sm_mhz=1755, memory_mhz=2619, power_w=684.12, temperature_c=61, reasons=["idle"]
    )
    assert second.reasons == ["power cap"]
    assert third.reasons == ["power cap", "software thermal slowdown"]
    assert len(rest) >= 1
    assert [reading.at_s for reading in conditions.readings] == sorted(r.at_s for r in conditions.readings)
    assert (conditions.power_limit_w, conditions.sm_highest_mhz) == (700.0, 1980)
    assert not any(thread.name == "fluxperf clocks" for thread in threading.enumerate())


def energy_of(nvml: FakeNvml) -> EnergyRow:
    """Energy of a window in which the counter was read forty times, 0.1 s apart by the host's clock."""
    ticks = itertools.count(0.0, 0.05)
    with Watch(BUS, interval_s=0.001, library=nvml, now=lambda: next(ticks)) as watch:
        assert watch.conditions is not None
        assert watch.conditions.energy is None, "no window was open"
        with watch.window():
            assert nvml.spent.wait(10)
    assert watch.conditions.energy is not None
    return watch.conditions.energy


def test_a_window_has_the_joules_of_the_counter_and_of_the_power_of_its_moments() -> None:
    energy = energy_of(FakeNvml())
    assert energy.renewals >= 30
    assert energy.counter_j is not None
    assert energy.integrated_j == pytest.approx(700.5 * energy.window_s)


def test_an_older_nvml_tells_mean_power_and_an_older_gpu_no_joules() -> None:
    energy = energy_of(FakeNvml(refuses={"nvmlDeviceGetFieldValues"}))
    assert energy.integrated_j == pytest.approx(684.12 * energy.window_s)
    without = FakeNvml(refuses={"nvmlDeviceGetTotalEnergyConsumption"})
    without.spent.set()
    assert energy_of(without).counter_j is None


def test_without_a_gpu_a_window_is_nothing() -> None:
    watch = Watch(None, library=FakeNvml())
    with watch, watch.window():
        pass
    assert watch.conditions is None


def test_the_thread_ends_with_an_error_in_the_region() -> None:
    watch = Watch(BUS, interval_s=0.001, library=FakeNvml())
    with pytest.raises(KeyError), watch:
        raise KeyError
    assert not any(thread.name == "fluxperf clocks" for thread in threading.enumerate())
    assert watch.conditions is not None


def test_what_a_gpu_does_not_tell_is_none() -> None:
    refused = {
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
    }
    with Watch(BUS, library=FakeNvml(refuses=refused)) as watch:
        pass
    assert watch.conditions is not None
    reading = watch.conditions.readings[0]
    assert {reading.sm_mhz, reading.memory_mhz, reading.power_w, reading.temperature_c, reading.reasons} == {None}
    assert watch.conditions.power_limit_w is None


def test_an_older_nvml_is_asked_by_the_older_name() -> None:
    nvml = FakeNvml(reasons=[0x40], refuses={"nvmlDeviceGetCurrentClocksEventReasons"})
    with Watch(BUS, library=nvml) as watch:
        pass
    assert watch.conditions is not None
    assert watch.conditions.readings[0].reasons == ["hardware thermal slowdown"]


def test_a_long_region_is_read_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "_MOST", 8)
    nvml = FakeNvml()
    watch = Watch(BUS, interval_s=0.0001, library=nvml)
    with watch:
        while len(nvml.asked) < 30:
            nvml.enough.wait(0.001)
    assert watch.conditions is not None
    assert len(watch.conditions.readings) <= 9
    assert watch._interval_s >= 0.0004
    assert watch.conditions.readings[0].at_s < 0.1, "the reading before the region stays"


def test_nothing_is_read_without_nvml_or_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    for watch in (Watch(BUS), Watch(None, library=FakeNvml())):
        with watch:
            pass
        assert watch.conditions is None
    with Watch(BUS, library=FakeNvml(refuses={"nvmlDeviceGetHandleByPciBusId"})) as lost:
        pass
    assert lost.conditions is None


def test_nvml_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(refuses={"nvmlInit"}))
    assert clocks.nvml() is None
    found = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", found)
    assert clocks.nvml() is found


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0, []),
        (0x1, ["idle"]),
        (0x4 | 0x8, ["power cap", "hardware slowdown"]),
        (0x400, ["reason 0x400"]),
        (0x402, ["application clocks", "reason 0x400"]),
    ],
)
def test_reasons_are_named(bits: int, words: list[str]) -> None:
    assert named(bits) == words


def test_reasons_are_those_of_the_library() -> None:
    pynvml = pytest.importorskip("pynvml")
    names = {
        "idle": "GpuIdle",
        "application clocks": "ApplicationsClocksSetting",
        "power cap": "SwPowerCap",
        "hardware slowdown": "HwSlowdown",
        "sync boost": "SyncBoost",
        "software thermal slowdown": "SwThermalSlowdown",
        "hardware thermal slowdown": "HwThermalSlowdown",
        "power brake": "HwPowerBrakeSlowdown",
        "display clocks": "DisplayClockSetting",
    }
    assert {word: getattr(pynvml, f"nvmlClocksThrottleReason{name}") for word, name in names.items()} == {
        word: bit for bit, word in clocks.REASONS.items()
    }
    assert set(clocks.THROTTLING) < set(names)


def record(rung: str, *reasons: str) -> Record:
    reading = ClockReading(
        at_s=0.0, sm_mhz=None, memory_mhz=None, power_w=None, temperature_c=None, reasons=list(reasons)
    )
    return msgspec.structs.replace(make(rung), conditions=[Conditions(readings=[]), Conditions(readings=[reading])])


def test_throttling_is_noted_idling_is_not() -> None:
    assert throttling(make("fused")) == []
    assert throttling(record("fused", "idle", "application clocks")) == []
    assert throttling(record("fused", "power brake", "idle", "power cap")) == ["power cap", "power brake"]
    assert throttling_note([make("fused"), record("fp8", "idle")]) == ""
    assert (
        throttling_note([record("fused", "power cap"), record("fp8", "power cap", "power brake"), make("batched")])
        == "Clocks were reduced while timing fused (power cap); fp8 (power cap, power brake)."
    )
