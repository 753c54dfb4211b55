"""The door: the only place where bytes cross between host and device.

Each crossing has a label and is written into a ledger, on the host device as on CUDA; so the number of copies is
exact, testable and gateable without a GPU. Inside `sealed` any crossing raises.
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
#: Writes the bytes of a tensor that begin at an offset into host memory (uint8), from any thread.
Fill = Callable[[int, HostNumbers], None]

#: Bytes that one reader fills and sends at a time.
CHUNK_BYTES = 1 << 22
#: Threads that fill chunks. More than a disk needs cores: most of them wait for it.
READERS = 16
#: Lanes per reader: one is filled while the copy out of the other is under way.
LANES = 2


@dataclass(frozen=True, slots=True)
class Crossing:
    """One copy through the door. ``op``, ``section`` and ``index`` are empty where nothing observes them."""

    order: int
    direction: Direction
    bytes: int
    label: str
    op: str
    section: str
    index: int


@dataclass
class DoorLedger:
    """Every crossing of a device, in order, under the scope that was open when it happened."""

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
        """Number of copies in that direction since a position in the ledger."""
        return sum(crossing.direction == direction for crossing in self.crossings[since:])

    def bytes(self, direction: Direction, since: int = 0) -> int:
        """Bytes copied in that direction since a position in the ledger."""
        return sum(crossing.bytes for crossing in self.crossings[since:] if crossing.direction == direction)


class Lane(Protocol):
    """Host memory through which a device takes bytes, one chunk at a time. Used by one thread at a time."""

    def memory(self, out: Any, start: int, stop: int) -> HostNumbers:
        """Host memory (uint8) for bytes ``start`` to ``stop`` of a device array; waits until the lane is free."""

    def send(self, out: Any, start: int, stop: int) -> None:
        """Copies what the memory holds into the array; may return before the copy is done."""

    def close(self) -> None:
        """Waits for the copy under way, if any."""


class Slot(Protocol):
    """Device memory that is filled from the host beside the compute, again and again.

    Its life is ``fill``, ``acquire``, work that reads ``buffer``, ``release``, and ``fill`` again; a new slot is
    released. Calls come from one thread.
    """

    buffer: Any

    def fill(self, memory: HostNumbers) -> None:
        """Begins a copy of lasting host memory to the buffer's beginning, behind what was given before `release`."""

    def acquire(self) -> None:
        """Work that is given to the device's stream from now on finds the bytes."""

    def release(self) -> None:
        """Nothing that is given to the device from now on reads the buffer."""


class CopyWatch(Protocol):
    """Told of every copy that the door makes while a caller waits; a `stream` leaves from threads of its own."""

    def enter_copy(self, label: str, nbytes: int) -> None:
        """A copy of that many bytes begins."""

    def leave_copy(self) -> None:
        """It is done, or has failed."""


class _Streams:
    """Chunks under way: threads fill lanes with the caller's bytes and send them, in any order.

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
        """Begins with the chunks of an array."""
        step = max(self._chunk_bytes // out.dtype.itemsize, 1) * out.dtype.itemsize
        for start in range(0, out.nbytes, step):
            stop = min(start + step, out.nbytes)
            self._running.append(self._pool.submit(self._carry, out, fill, start, stop))

    def settle(self) -> None:
        """Returns when every chunk is sent; raises what a ``fill`` raised."""
        wait(self._running)
        running, self._running = self._running, []
        for chunk in running:
            chunk.result()

    def close(self) -> None:
        """Lets go of what has not begun, and returns when no memory of a lane is in use."""
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
    """Moves arrays between host and device, and writes down each move.

    Args:
        upload: device's own copy from host numbers into a new device array, or into ``out``.
        download: device's own copy into new host numbers, or into the bytes of a second argument; it blocks.
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
        #: Who is told of copies as they are made; nobody, if not attached.
        self.watch: CopyWatch | None = None

    def to_device(self, numbers: HostNumbers, label: str, out: Any = None) -> Any:
        """A device array with a copy of the host numbers, or ``out`` filled with them.

        Args:
            numbers: a NumPy array of any shape and dtype.
            label: what is moved, such as ``"modulate.x"``; required.
            out: device array of the same shape and dtype to fill instead of a new one.

        Raises:
            TransferError: the door is sealed.
            ArgumentError: the numbers are not a NumPy array, or the label is empty.
        """
        if not isinstance(numbers, np.ndarray):
            raise ArgumentError(f"to_device({label!r}): expected a NumPy array, got {type(numbers).__name__}.")
        self._pass(label, "to_device")
        array = self._moved(label, numbers.nbytes, self._upload, numbers, out)
        self.ledger.write("h2d", numbers.nbytes, label)
        return array

    def to_host(self, array: Any, label: str, out: HostNumbers | None = None) -> HostNumbers:
        """Host numbers with a copy of a device array, or ``out`` filled with its bytes; waits for the device.

        Args:
            array: on the device.
            label: what is moved.
            out: as many bytes (uint8) of host memory, to fill instead of new memory.

        Raises:
            TransferError: the door is sealed.
            ArgumentError: the array is already on the host, or the label is empty.
        """
        if isinstance(array, np.ndarray):
            raise ArgumentError(f"to_host({label!r}): expected a device array, got a NumPy array, already on the host.")
        self._pass(label, "to_host")
        numbers: HostNumbers = self._moved(label, array.nbytes, self._download, array, *(() if out is None else (out,)))
        self.ledger.write("d2h", numbers.nbytes, label)
        self.ledger.syncs += 1
        return numbers

    def stream(self, out: Any, fill: Fill, label: str) -> None:
        """Fills a device array chunk by chunk with bytes that the caller writes into host memory, in several threads.

        It is one crossing of all bytes, however many chunks they take, written down when it is done. In a region
        `streaming` it may return earlier: see there.

        Args:
            out: contiguous device array to fill.
            fill: called as ``fill(offset, memory)`` from several threads at once, for chunks in any order: writes the
                bytes of ``out`` that begin at ``offset`` into all of ``memory`` [n], uint8. Chunks hold whole elements.
            label: what is moved.

        Raises:
            TransferError: the door is sealed.
            ArgumentError: the array is on the host or not contiguous, or the label is empty.
            Exception: what ``fill`` raised, once nothing is under way any more; ``out`` is then not to be used.
        """
        if isinstance(out, np.ndarray):
            raise ArgumentError(f"stream({label!r}): expected a device array to fill, got a NumPy array.")
        if not _contiguous(out):
            raise ArgumentError(f"stream({label!r}): expected a contiguous array, got strides {out.strides}.")
        self._check_open(label, "stream")
        with self.streaming():
            if self._streams is None:
                self._streams = _Streams(self._lane, self.chunk_bytes, self.readers)
            self._streams.add(out, fill)
            self._unwritten.append((out.nbytes, label))

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """A region in which `stream` returns before its bytes are there, so that tensors follow without a pause.

        They are there after `settle`, after any other crossing, and at the end of the region.

        Raises:
            Exception: what a ``fill`` raised, once nothing is under way any more.
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
        """Returns when work given to the device from now on finds the bytes of every `stream` so far.

        Raises:
            Exception: what a ``fill`` raised, once nothing is under way any more.
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
        """Begins a copy of host memory into a slot, one crossing; it is under way when this returns.

        Raises:
            TransferError: the door is sealed, and not but for fetches.
            ArgumentError: the label is empty.
        """
        self._check_open(label, "fetch", shut=not self._fetching)
        self._moved(label, memory.nbytes, slot.fill, memory)
        self.ledger.write("h2d", memory.nbytes, label)

    @contextmanager
    def sealed(self, reason: str = "this region makes no copies", fetches: bool = False) -> Iterator[None]:
        """A region in which any crossing raises `TransferError`, but for `fetch` if ``fetches``; regions may nest."""
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
            raise ArgumentError(f"{call}: expected a label that says what is moved, got an empty one.")
        if self._sealed is not None and shut:
            ledger = self.ledger
            where = f" in {ledger.section} {ledger.index} / {ledger.op}" if ledger.section else ""
            raise TransferError(
                f"{call}({label!r}){where}: the door is sealed ({self._sealed}). Expected no host-device copy here; "
                "keep the value on the device or move the copy out of the sealed region."
            )


def _contiguous(array: Any) -> bool:
    """Whether elements lie in order without gaps."""
    expected = array.dtype.itemsize
    for extent, stride in zip(reversed(array.shape), reversed(array.strides), strict=True):
        if extent != 1 and stride != expected and array.size:
            return False
        expected *= extent
    return True
