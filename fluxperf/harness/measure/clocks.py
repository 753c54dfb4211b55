"""Clocks, power, energy, temperature and throttling of the GPU during timed regions, read through NVML.

NVML is only read: no clock, limit or mode is changed. Without NVML, or without a GPU, nothing is read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from types import TracebackType
from typing import Any

from fluxperf.harness.measure.energy import EnergyMeter
from fluxperf.harness.records import ClockReading, Conditions, Record

#: The usual reason: a GPU under full load reaches its power limit and lowers its clock.
POWER_CAP = "power cap"

#: Bits of NVML's clocks event reasons (``nvmlClocksEventReasons`` in nvml.h).
REASONS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: POWER_CAP,
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
    0x100: "display clocks",
}

#: Reasons for low clocks of a busy GPU that nobody set.
THROTTLING = (
    POWER_CAP,
    "hardware slowdown",
    "software thermal slowdown",
    "hardware thermal slowdown",
    "power brake",
)

#: Maximum number of readings: a longer region drops every second one and is then read half as often.
_MOST = 60


def nvml() -> Any | None:
    """NVML's Python module, initialized, or ``None`` if it is not installed or finds no driver."""
    try:
        module = import_module("pynvml")
    except ImportError:
        return None
    try:
        module.nvmlInit()
    except module.NVMLError:
        return None
    return module


class Watch:
    """Reads the GPU's state at entry and exit of a ``with`` block, and in between on a separate thread.

    Args:
        bus_id: PCI bus id of the GPU, such as ``"0000:18:00.0"``; nothing is read for ``None``.
        interval_s: seconds between two readings in between.
        library: NVML's module; the installed one if not given.
        now: seconds of the host's clock.
    """

    def __init__(
        self,
        bus_id: str | None,
        interval_s: float = 0.5,
        library: Any | None = None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._nvml = (library or nvml()) if bus_id is not None else None
        self._bus_id, self._interval_s, self._now = bus_id, interval_s, now
        self._handle: Any = None
        self._readings: list[ClockReading] = []
        self._start = 0.0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._meter = EnergyMeter(self._joules, self._power_w, now)

    def window(self) -> AbstractContextManager[None]:
        """A region inside the block, whose joules are in `conditions`: that of the samples that count."""
        return self._meter.window() if self._handle is not None else nullcontext()

    @property
    def conditions(self) -> Conditions | None:
        """The readings so far, or ``None`` without NVML."""
        if self._handle is None:
            return None
        return Conditions(
            readings=list(self._readings),
            power_limit_w=_watts(self._ask("nvmlDeviceGetEnforcedPowerLimit")),
            sm_highest_mhz=self._ask("nvmlDeviceGetMaxClockInfo", self._nvml.NVML_CLOCK_SM) if self._nvml else None,
            energy=self._meter.row,
        )

    def __enter__(self) -> Watch:
        if self._nvml is None:
            return self
        try:
            self._handle = self._nvml.nvmlDeviceGetHandleByPciBusId(self._bus_id)
        except self._nvml.NVMLError:
            return self
        self._start = self._now()
        self._read()
        self._thread = threading.Thread(target=self._go_on, name="fluxperf clocks", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        self._over.set()
        self._thread.join()
        self._read()

    def _go_on(self) -> None:
        due_s = self._now() + self._interval_s
        while not self._over.wait(min(self._meter.pause_s, self._interval_s)):
            self._meter.look()
            if self._now() < due_s:
                continue
            self._read()
            due_s += self._interval_s
            if len(self._readings) >= _MOST:
                del self._readings[1::2]
                self._interval_s *= 2

    def _read(self) -> None:
        library = self._nvml
        if library is None:
            return
        self._readings.append(
            ClockReading(
                at_s=round(self._now() - self._start, 3),
                sm_mhz=self._ask("nvmlDeviceGetClockInfo", library.NVML_CLOCK_SM),
                memory_mhz=self._ask("nvmlDeviceGetClockInfo", library.NVML_CLOCK_MEM),
                power_w=_watts(self._ask("nvmlDeviceGetPowerUsage")),
                temperature_c=self._ask("nvmlDeviceGetTemperature", library.NVML_TEMPERATURE_GPU),
                reasons=self._reasons(),
            )
        )

    def _joules(self) -> float | None:
        """The GPU's total energy since its driver was loaded."""
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1e3

    def _power_w(self) -> float | None:
        """Current power if the driver reports it, otherwise its mean over the last second."""
        library = self._nvml
        field = getattr(library, "NVML_FI_DEV_POWER_INSTANT", None)
        if library is not None and field is not None:
            try:
                (found,) = library.nvmlDeviceGetFieldValues(self._handle, [field])
            except library.NVMLError:
                found = None
            if found is not None and found.nvmlReturn == library.NVML_SUCCESS:
                return int(found.value.uiVal) / 1e3
        return _watts(self._ask("nvmlDeviceGetPowerUsage"))

    def _reasons(self) -> list[str] | None:
        """NVML renamed throttle reasons to event reasons in its release 12.2; the bits are the same."""
        bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if bits is None:
            bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return None if bits is None else named(bits)

    def _ask(self, function: str, *args: Any) -> int | None:
        """NVML's answer about the GPU, or ``None`` if this GPU, driver or release of NVML has none."""
        library = self._nvml
        if library is None or not hasattr(library, function):
            return None
        try:
            return int(getattr(library, function)(self._handle, *args))
        except library.NVMLError:
            return None


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1e3


def named(bits: int) -> list[str]:
    """Names for a mask of reasons, in the order of the bits. An unknown bit is shown as its number."""
    known = [name for bit, name in REASONS.items() if bits & bit]
    rest = bits & ~sum(REASONS)
    return [*known, f"reason {rest:#x}"] if rest else known


def throttling(record: Record) -> list[str]:
    """Reasons for reduced clocks at any reading of a record's timed regions; empty without readings."""
    readings = [reading for process in record.conditions or [] for reading in process.readings]
    seen = {reason for reading in readings for reason in reading.reasons or []}
    return [reason for reason in THROTTLING if reason in seen]


def throttling_note(records: Iterable[Record]) -> str:
    """A sentence that names the rungs with reduced clocks, and the reasons; empty if there are none."""
    held = {record.rung: reasons for record in records if (reasons := throttling(record))}
    if not held:
        return ""
    which = "; ".join(f"{rung} ({', '.join(reasons)})" for rung, reasons in held.items())
    return f"Clocks were reduced while timing {which}."
