"""Stamps: events that also record the cycle counter of every multiprocessor, read on the device.

Seconds measure how long work took, but not how much work it was: a GPU at its power limit changes its clock all the
time. The multiprocessors' cycles stay the same for the same work, except while it waits for memory, which has another
clock.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fluxperf.engine.device.transfers import HostNumbers
from fluxperf.engine.nvrtc.launch import launch

#: Kernel of a stamp, its parameters, and number of rows that are allocated at once.
ENTRY, LAYOUT, _ROWS = "stamp_sm", "P i", 128

#: Bytes of the two readings of a multiprocessor.
_PAIR_BYTES = 16

#: Share of the multiprocessors that must appear in both stamps.
_FEWEST = 0.5


class Lapse(NamedTuple):
    """The time between two stamps.

    ``cycles`` of a multiprocessor's clock and the mean rate ``clock_hz``; both are ``None`` on a device without cycle
    counters.
    """

    seconds: float
    cycles: float | None = None
    clock_hz: float | None = None


class Stamp:
    """A stamp that was submitted to the device: an event, and a row of readings that is complete when the event is.

    Args:
        event: recorded after the readings.
        row: [multiprocessors, 2] cycles and nanoseconds; zeros where nothing was written yet.
        place: index of the row in `Stamps`.
        free: takes the index back when nothing holds the stamp any more.
    """

    __slots__ = ("_free", "_place", "event", "row")

    def __init__(self, event: Any, row: HostNumbers, place: int, free: list[int]) -> None:
        self.event, self.row, self._place, self._free = event, row, place, free

    def __del__(self) -> None:
        self._free.append(self._place)


class Stamps:
    """Rows for stamps in pinned host memory. The GPU writes to it directly, so no copy is needed to read them.

    Args:
        gpu: launches the kernel on its current stream. Stamps are not work of the program, so nothing counts them.
    """

    def __init__(self, gpu: Any) -> None:
        self._gpu = gpu
        self._kernel = gpu.kernels.get("stamp.cu", ENTRY, LAYOUT)
        self._rows: list[HostNumbers] = []
        self._free: list[int] = []

    def take(self) -> Stamp:
        """A stamp at the current point of the current stream."""
        if not self._free:
            self._grow()
        gpu, place = self._gpu, self._free.pop()
        row = self._rows[place]
        row[...] = 0  # its last holder has released it, so nothing writes to it any more
        launches = gpu.launches
        launch(gpu, self._kernel, (gpu.processors, 1), 32, row.ctypes.data, gpu.processors)
        gpu.launches = launches
        return Stamp(gpu.mark(), row, place, self._free)

    def _grow(self) -> None:
        numbers = self._gpu.lasting(_ROWS * self._gpu.processors * _PAIR_BYTES).view(np.uint64)
        first = len(self._rows)
        self._rows += list(numbers.reshape(_ROWS, self._gpu.processors, 2))
        self._free += range(first, first + _ROWS)


def cycles_between(start: HostNumbers, end: HostNumbers) -> tuple[float, float] | None:
    """Cycles and mean clock in hertz between two rows of readings: medians over the multiprocessors that are in both.

    The clock of a multiprocessor is its cycles divided by its nanoseconds. ``None`` if too few multiprocessors are in
    both rows, or if no time passed.

    Args:
        start: [multiprocessors, 2] cycles and nanoseconds, unsigned; zeros where nothing was read.
        end: the same, later.
    """
    both = np.all([start.any(axis=1), end.any(axis=1)], axis=0)
    if np.count_nonzero(both) < max(1, _FEWEST * len(start)):
        return None
    passed = (end[both] - start[both]).astype(np.int64)
    if (passed <= 0).any():
        return None
    cycles, nanoseconds = passed.astype(np.float64).T
    return float(np.median(cycles)), float(np.median(cycles / nanoseconds)) * 1e9
