"""Stamps without a GPU: simulated counters, written to the address that the kernel would write to."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from fluxperf.engine.device import stamps
from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.device.stamps import Lapse, Stamps, cycles_between

PROCESSORS = 6


def row(cycles: int, nanoseconds: int, skew: int = 0) -> np.ndarray[Any, Any]:
    """Readings of every multiprocessor; ``skew`` makes their counters differ, as on a GPU."""
    pairs = [(cycles + skew * index, nanoseconds + index) for index in range(PROCESSORS)]
    return np.array(pairs, np.uint64)


def test_cycles_are_of_the_same_multiprocessor_and_their_clock_by_its_timer() -> None:
    start, end = row(10**15, 500, skew=10**9), row(10**15 + 3_000_000, 2_000_500, skew=10**9)
    assert cycles_between(start, end) == (3_000_000.0, 1.5e9)


def test_the_median_multiprocessor_counts() -> None:
    start, end = row(1, 1), row(1 + 3000, 1 + 2000)
    end[0] += 900_000
    assert cycles_between(start, end) == (3000.0, 1.5e9)


def test_counters_near_their_end_are_subtracted_exactly() -> None:
    start, end = row(2**63 - 5, 2**62), row(2**63 + 995, 2**62 + 500)
    assert cycles_between(start, end) == (1000.0, 2e9)


def test_multiprocessors_that_were_not_read_are_left_out() -> None:
    start, end = row(1, 1), row(3001, 2001)
    start[0], end[1], end[2] = 0, 0, 0
    assert cycles_between(start, end) == (3000.0, 1.5e9)
    end[3] = 0
    assert cycles_between(start, end) is None, "two of six"


def test_no_time_has_no_clock() -> None:
    assert cycles_between(row(5, 5), row(5, 5)) is None
    assert cycles_between(row(9, 9), row(5, 5)) is None, "given in the wrong order"


def test_the_host_tells_seconds_only() -> None:
    device = HostDevice()
    assert device.elapsed(1_000_000, 3_500_000) == Lapse(0.0025, None, None)
    lapse = device.elapsed(device.stamp(), device.stamp())
    assert (lapse.cycles, lapse.clock_hz) == (None, None)


class FakeGpu:
    """Launches of the stamp kernel write simulated counters to the given address."""

    processors = PROCESSORS

    def __init__(self) -> None:
        self.launches, self.cycles, self.kernels, self.asked = 7, 1000, self, [("", "", "")]

    def get(self, *asked: str) -> str:
        self.asked.append(asked)  # type: ignore[arg-type]
        return "kernel"

    def lasting(self, nbytes: int) -> np.ndarray[Any, Any]:
        return np.full(nbytes, 0xFF, np.uint8)

    def mark(self) -> str:
        return f"event at {self.cycles}"

    def launch(self, _: Any, kernel: str, grid: tuple[int, int], threads: int, address: int, count: int) -> None:
        assert (kernel, grid, threads, count) == ("kernel", (PROCESSORS, 1), 32, PROCESSORS)
        words = (ctypes.c_uint64 * (2 * count)).from_address(address)
        assert not any(words), "a row is cleared before it is written"
        for index in range(count):
            words[2 * index], words[2 * index + 1] = self.cycles + index, self.cycles // 2 + index
        self.launches += 1


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    gpu = FakeGpu()
    monkeypatch.setattr(stamps, "launch", gpu.launch)
    return gpu


def test_a_stamp_is_a_row_of_readings_and_an_event_behind_it_and_no_work_of_the_program(gpu: FakeGpu) -> None:
    taken = Stamps(gpu)
    start = taken.take()
    gpu.cycles += 4000
    end = taken.take()
    assert gpu.asked[-1] == ("stamp.cu", "stamp_sm", "P i")
    assert (start.event, end.event, gpu.launches) == ("event at 1000", "event at 5000", 7)
    assert cycles_between(start.row, end.row) == (4000.0, 2e9)


def test_rows_are_used_again_when_nobody_holds_them_and_never_before(gpu: FakeGpu) -> None:
    taken = Stamps(gpu)
    held = []
    for _ in range(3 * stamps._ROWS):
        held.append(taken.take())
        gpu.cycles += 10
    assert [int(stamp.row[0, 0]) for stamp in held] == [1000 + 10 * index for index in range(len(held))]
    held.clear()
    for _ in range(5 * stamps._ROWS):
        taken.take()
    assert len(taken._rows) == 3 * stamps._ROWS
