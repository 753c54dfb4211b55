"""Slots of a GPU: device buffers that are filled from pinned memory while kernels run, ordered by two events."""

from __future__ import annotations

from typing import Any

from fluxperf.engine.device.transfers import HostNumbers


class CudaSlot:
    """A buffer, the stream that copies into it, and one event for each direction of waiting. See `transfers.Slot`.

    *Order*. A copy waits for ``_free``, which the compute stream records after the last work that reads the buffer.
    Compute waits for ``_filled``, which is recorded after the copy. A wait refers to the event's latest record at the
    time of the call, so recording the event again for the next turn does not change a wait that is queued already. The
    host submits all calls in the order of a slot's life, so two events serve all turns. Work that `Device.beside` forks
    to another stream waits for the compute stream when it begins, and so for the copy. It joins the compute stream
    before the block ends, and so before ``_free`` is recorded.

    *Memory*. The buffer comes from the pool of the compute stream, which may hand out memory that work on that stream
    still writes. ``_free`` is recorded after that work too, when the slot is made. The pool does not know the copy
    stream, so neither the buffer nor the pinned memory may be dropped while a copy is running. Whoever drops them calls
    `Device.quiet` first.

    Args:
        device: the CUDA device; its current stream is the compute stream.
        copies: the copy stream.
        nbytes: of the buffer.
    """

    def __init__(self, device: Any, copies: Any, nbytes: int) -> None:
        self._device, self._copies = device, copies
        self.buffer = device.empty((nbytes,), "uint8")
        self._free, self._filled = device.untimed_event(), device.untimed_event()
        self.release()

    def fill(self, memory: HostNumbers) -> None:
        """Submits one asynchronous copy, which runs after the last release."""
        self._copies.wait_event(self._free)
        self.buffer.data.copy_from_host_async(memory.ctypes.data, memory.nbytes, self._copies)
        self._filled.record(self._copies)

    def acquire(self) -> None:
        """Makes the compute stream wait for the copy; the host does not wait."""
        self._device.stream.wait_event(self._filled)

    def release(self) -> None:
        """Marks the end of the work that reads the buffer."""
        self._free.record(self._device.stream)
