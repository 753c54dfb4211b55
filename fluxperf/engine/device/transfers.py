"""The door: the only place where bytes cross between host and device.

Each crossing has a label and is written into a ledger, on the host device as on CUDA. So the number of copies is exact,
and can be tested and gated without a GPU. Inside `sealed` any crossing raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from fluxperf.errors import ArgumentError, TransferError

Direction = Literal["d2h", "h2d"]
HostNumbers = npt.NDArray[Any]
#: Called as ``fill(offset, memory)`` from any thread: writes the tensor's bytes from an offset on into host memory
#: (uint8).
Fill = Callable[[int, HostNumbers], None]

#: Bytes that one reader fills and sends at a time.
CHUNK_BYTES = 1 << 22
#: Number of threads that fill chunks. It exceeds the cores that a disk needs, because most threads wait for the disk.
READERS = 16
#: Lanes per reader: one is filled while the other is being copied to the device.
LANES = 2


@dataclass(frozen=True, slots=True)
class Crossing:
    """One copy through the door. ``op``, ``section`` and ``index`` are empty if no observer sets them."""

    order: int
    direction: Direction
    bytes: int
    label: str
    op: str
    section: str
    index: int


@dataclass
class DoorLedger:
    """All crossings of a device, in order, each with the section and op in which it happened."""

    crossings: list[Crossing] = field(default_factory=list)
    syncs: int = 0
    section: str = ""
    index: int = -1
    op: str = ""

    def write(self, direction: Direction, nbytes: int, label: str) -> None:
        """Adds a crossing."""
        row = Crossing(len(self.crossings), direction, nbytes, label, self.op, self.section, self.index)
        self.crossings.append(row)

    def count(self, direction: Direction, since: int = 0) -> int:
        """Number of copies in that direction, from a ledger index on."""
        return sum(crossing.direction == direction for crossing in self.crossings[since:])

    def bytes(self, direction: Direction, since: int = 0) -> int:
        """Bytes copied in that direction, from a ledger index on."""
        return sum(crossing.bytes for crossing in self.crossings[since:] if crossing.direction == direction)


class Lane(Protocol):
    """Host memory through which a device receives bytes, one chunk at a time. Only one thread at a time may use it."""

    def memory(self, out: Any, start: int, stop: int) -> HostNumbers:
        """Host memory (uint8) for bytes ``start`` to ``stop`` of a device array; waits until the lane is free."""

    def send(self, out: Any, start: int, stop: int) -> None:
        """Copies the memory's content into the array; may return before the copy is complete."""

    def close(self) -> None:
        """Waits for a copy that is still running."""


class Slot(Protocol):
    """Device memory that is filled from the host repeatedly, while the device computes.

    The calls repeat in this order: ``fill``, ``acquire``, work that reads ``buffer``, ``release``. A new slot is in the
    released state. All calls come from one thread.
    """

    buffer: Any

    def fill(self, memory: HostNumbers) -> None:
        """Starts a copy of pinned host memory to the buffer's begin.

        It runs after all work before the last `release`.
        """

    def acquire(self) -> None:
        """Guarantees that work submitted from now on sees the bytes."""

    def release(self) -> None:
        """Guarantees that no work submitted from now on reads the buffer."""


class CopyWatch(Protocol):
    """Receives a call for every copy for which the door's caller waits. A `stream` copies from threads of its own."""

    def enter_copy(self, label: str, nbytes: int) -> None:
        """A copy of that many bytes begins."""

    def leave_copy(self) -> None:
        """The copy is complete or has failed."""


class _Streams:
    """Chunks in progress: threads fill lanes with the caller's bytes and send them, in any order.

    Args:
        lane: makes a lane for chunks of that many bytes.
        chunk_bytes: of a chunk, at least one element.
        readers: number of threads.
    """

    def __init__(self, lane: Callable[[int], Lane], chunk_bytes: int, readers: int) -> None:
        self._chunk_bytes = chunk_bytes
        self._lanes = [lane(chunk_bytes) for _ in range(LANES * readers)]
        self._free: SimpleQueue[Lane] = SimpleQueue()
        for made in self._lanes:
            self._free.put(made)
        self._pool = ThreadPoolExecutor(readers, "fluxperf-stream")
        self._running: list[Future[None]] = []
        self._stopped = False

    def add(self, out: Any, fill: Fill) -> None:
        """Starts on the chunks of an array."""
        step = max(self._chunk_bytes // out.dtype.itemsize, 1) * out.dtype.itemsize
        for start in range(0, out.nbytes, step):
            stop = min(start + step, out.nbytes)
            self._running.append(self._pool.submit(self._carry, out, fill, start, stop))

    def settle(self) -> None:
        """Waits until every chunk is sent; raises the exception of a ``fill``."""
        wait(self._running)
        running, self._running = self._running, []
        for chunk in running:
            chunk.result()

    def close(self) -> None:
        """Drops chunks that have not begun, and waits until no lane's memory is in use."""
        self._stopped = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        for lane in self._lanes:
            lane.close()

    def _carry(self, out: Any, fill: Fill, start: int, stop: int) -> None:
        if self._stopped:
            return
        lane = self._free.get()
        try:
            fill(start, lane.memory(out, start, stop))
            lane.send(out, start, stop)
        except BaseException:
            self._stopped = True
            raise
        finally:
            self._free.put(lane)


class Door:
    """Copies arrays between host and device, and records each copy in a ledger.

    Args:
        upload: the device's copy from host memory into a new device array, or into ``out``.
        download: the device's copy into new host memory, or into the bytes of a second argument; it blocks.
        lane: makes a `Lane` of the device, for chunks of that many bytes.
    """

    def __init__(
        self,
        upload: Callable[[HostNumbers, Any], Any],
        download: Callable[..., HostNumbers],
        lane: Callable[[int], Lane],
    ) -> None:
        self._upload = upload
        self._download = download
        self._lane = lane
        self._sealed: str | None = None
        self._fetching = True
        self._streaming = False
        self._streams: _Streams | None = None
        self._unwritten: list[tuple[int, str]] = []
        self.chunk_bytes = CHUNK_BYTES
        self.readers = READERS
        self.ledger = DoorLedger()
        #: The object that is called for every copy, if one is attached.
        self.watch: CopyWatch | None = None

    def to_device(self, numbers: HostNumbers, label: str, out: Any = None) -> Any:
        """A device array with a copy of the host array, or ``out`` filled with it.

        Args:
            numbers: a NumPy array of any shape and dtype.
            label: name of the copied value, such as ``"modulate.x"``; required.
            out: device array of the same shape and dtype to fill instead of a new one.

        Raises:
            TransferError: the door is sealed.
            ArgumentError: ``numbers`` is not a NumPy array, or the label is empty.
        """
        if not isinstance(numbers, np.ndarray):
            raise ArgumentError(
                f"to_device({label!r}): expected a NumPy array, got {type(numbers).__name__}. Convert it with "
                "numpy.asarray."
            )
        self._pass(label, "to_device")
        array = self._moved(label, numbers.nbytes, self._upload, numbers, out)
        self.ledger.write("h2d", numbers.nbytes, label)
        return array

    def to_host(self, array: Any, label: str, out: HostNumbers | None = None) -> HostNumbers:
        """A host array with a copy of a device array, or ``out`` filled with its bytes; waits for the device.

        Args:
            array: on the device.
            label: name of the copied value.
            out: host memory (uint8) of the same number of bytes, to fill instead of new memory.

        Raises:
            TransferError: the door is sealed.
            ArgumentError: the array is already on the host, or the label is empty.
        """
        if isinstance(array, np.ndarray):
            raise ArgumentError(
                f"to_host({label!r}): expected a device array, got a NumPy array, which is on the host already. Use "
                "it directly."
            )
        self._pass(label, "to_host")
        numbers: HostNumbers = self._moved(label, array.nbytes, self._download, array, *(() if out is None else (out,)))
        self.ledger.write("d2h", numbers.nbytes, label)
        self.ledger.syncs += 1
        return numbers

    def stream(self, out: Any, fill: Fill, label: str) -> None:
        """Fills a device array in chunks with bytes that the caller writes into host memory from several threads.

        It counts as one crossing of all bytes, recorded when it is complete. Inside the region `streaming` it may
        return before that.

        Args:
            out: contiguous device array to fill.
            fill: called as ``fill(offset, memory)`` from several threads at once, for chunks in any order. It must fill
                all of ``memory`` [n], uint8, with the bytes of ``out`` from ``offset`` on. Chunks hold whole elements.
            label: name of the copied value.

        Raises:
            TransferError: the door is sealed.
            ArgumentError: the array is on the host or not contiguous, or the label is empty.
            Exception: the exception of a ``fill``, raised after all copies have ended; ``out`` is then invalid.
        """
        if isinstance(out, np.ndarray):
            raise ArgumentError(
                f"stream({label!r}): expected a device array to fill, got a NumPy array. Allocate one with "
                "device.empty."
            )
        if not _contiguous(out):
            raise ArgumentError(
                f"stream({label!r}): expected a contiguous array, got strides {out.strides}. Fill a contiguous one."
            )
        self._check_open(label, "stream")
        with self.streaming():
            if self._streams is None:
                self._streams = _Streams(self._lane, self.chunk_bytes, self.readers)
            self._streams.add(out, fill)
            self._unwritten.append((out.nbytes, label))

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """A region in which `stream` may return before its bytes have arrived, so that tensors follow without a pause.

        They have arrived after `settle`, after any other crossing, and at the end of the region.

        Raises:
            Exception: the exception of a ``fill``, raised after all copies have ended.
        """
        if self._streaming:
            yield
            return
        self._streaming = True
        try:
            yield
            self.settle()
        finally:
            self._streaming = False
            self._end_streams()

    def settle(self) -> None:
        """Waits until all bytes of every `stream` so far are visible to work that is submitted from now on.

        Raises:
            Exception: the exception of a ``fill``, raised after all copies have ended.
        """
        if self._streams is None:
            return
        try:
            self._streams.settle()
        except BaseException:
            self._end_streams()
            raise
        written, self._unwritten = self._unwritten, []
        for nbytes, label in written:
            self.ledger.write("h2d", nbytes, label)

    def fetch(self, slot: Slot, memory: HostNumbers, label: str) -> None:
        """Starts a copy of host memory into a slot. It counts as one crossing and is still running when this returns.

        Raises:
            TransferError: the door is sealed, and fetches are not allowed.
            ArgumentError: the label is empty.
        """
        self._check_open(label, "fetch", shut=not self._fetching)
        self._moved(label, memory.nbytes, slot.fill, memory)
        self.ledger.write("h2d", memory.nbytes, label)

    @contextmanager
    def sealed(self, reason: str = "this region makes no copies", fetches: bool = False) -> Iterator[None]:
        """A region in which any crossing raises `TransferError`, except `fetch` if ``fetches``.

        Regions may be nested.
        """
        self.settle()
        before = self._sealed, self._fetching
        self._sealed, self._fetching = reason, fetches and self._fetching
        try:
            yield
        finally:
            self._sealed, self._fetching = before

    def _moved(self, label: str, nbytes: int, move: Callable[..., Any], *what: Any) -> Any:
        if self.watch is None:
            return move(*what)
        self.watch.enter_copy(label, nbytes)
        try:
            return move(*what)
        finally:
            self.watch.leave_copy()

    def _end_streams(self) -> None:
        streams, self._streams, self._unwritten = self._streams, None, []
        if streams is not None:
            streams.close()

    def _pass(self, label: str, call: str) -> None:
        self._check_open(label, call)
        self.settle()

    def _check_open(self, label: str, call: str, shut: bool = True) -> None:
        if not label:
            raise ArgumentError(f"{call}: expected a label that names the copied value, got an empty one.")
        if self._sealed is not None and shut:
            ledger = self.ledger
            where = f" in {ledger.section} {ledger.index} / {ledger.op}" if ledger.section else ""
            raise TransferError(
                f"{call}({label!r}){where}: the door is sealed ({self._sealed}). Expected no host-device copy here; "
                "keep the value on the device or move the copy out of the sealed region."
            )


def _contiguous(array: Any) -> bool:
    """Whether the elements are stored in order, without gaps."""
    expected = array.dtype.itemsize
    for extent, stride in zip(reversed(array.shape), reversed(array.strides), strict=True):
        if extent != 1 and stride != expected and array.size:
            return False
        expected *= extent
    return True
