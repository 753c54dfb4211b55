"""Slots of a GPU: device memory that pinned memory is copied into while kernels run, ordered by events both ways."""

from __future__ import annotations

from typing import Any

from fluxperf.engine.device.transfers import HostNumbers


class CudaSlot:
    """A buffer, the stream that copies into it, and an event for each direction of waiting. See `transfers.Slot`.

    *Order*. A copy waits for ``_free``, which the compute stream records behind the last work that reads the buffer;
    compute waits for ``_filled``, recorded behind the copy. A wait takes the event as it was recorded last when the
    wait is given to the stream, so recording it again for the next turn changes nothing about a wait that is queued:
    two events serve all turns, as the host gives everything to both streams in the order of a slot's life. Work that
    `Device.beside` forks to another stream waits for the compute stream when it begins, so for the copy too, and is
    joined again before the block ends, so before ``_free`` is recorded.

    *Memory*. The buffer comes from the pool of the compute stream, which may hand out memory that work on that stream
    still writes: ``_free`` is recorded behind that work too, when the slot is made. The pool knows nothing of the copy
    stream: a buffer may be dropped only when no copy into it is under way, and so may the pinned memory. Whoever drops
    them calls `Device.quiet` first.

    Args:
        device: the CUDA device; its current stream is the compute stream.
        copies: the stream that copies.
        nbytes: of the buffer.
    """

    def __init__(self, device: Any, copies: Any, nbytes: int) -> None:
        self._device, self._copies = device, copies
        self.buffer = device.empty((nbytes,), "uint8")
        self._free, self._filled = device.untimed_event(), device.untimed_event()
        self.release()

    def fill(self, memory: HostNumbers) -> None:
        """One asynchronous copy, behind the last release."""
        self._copies.wait_event(self._free)
        self.buffer.data.copy_from_host_async(memory.ctypes.data, memory.nbytes, self._copies)
        self._filled.record(self._copies)

    def acquire(self) -> None:
        """The compute stream waits for the copy; the host does not."""
        self._device.stream.wait_event(self._filled)

    def release(self) -> None:
        """Marks the end of what reads the buffer."""
        self._free.record(self._device.stream)
