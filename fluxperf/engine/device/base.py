"""Devices: each owns memory, the door and the clock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar, Literal, Protocol

from fluxperf.engine.device.choices import Trial
from fluxperf.engine.device.stamps import Lapse
from fluxperf.engine.device.transfers import Door, HostNumbers, Slot
from fluxperf.errors import NoGpuError


class Array(Protocol):
    """An array in a device's memory, as far as the model and the ops may use it.

    It has views only: slicing, ``reshape`` and ``swapaxes`` never move data. Arithmetic belongs to ops.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents."""

    @property
    def dtype(self) -> Any:
        """Element type."""

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""

    @property
    def size(self) -> int:
        """Number of elements."""

    def __getitem__(self, index: Any, /) -> Any: ...

    def reshape(self, *shape: Any) -> Any:
        """A view with other extents."""

    def swapaxes(self, first: int, second: int, /) -> Any:
        """A view with two axes exchanged."""


class Memory:
    """Counts device allocations: their number, the bytes in use and the peak."""

    def __init__(self) -> None:
        self.allocations = 0
        self.in_use_bytes = 0
        self.peak_bytes = 0

    def allocate(self, nbytes: int) -> None:
        """Counts an allocation."""
        self.allocations += 1
        self.in_use_bytes += nbytes
        self.peak_bytes = max(self.peak_bytes, self.in_use_bytes)

    def free(self, nbytes: int) -> None:
        """Counts a release."""
        self.in_use_bytes -= nbytes

    def reserve(self, nbytes: int) -> None:
        """Counts memory that is reserved without being allocated; a negative number releases it."""
        self.in_use_bytes += nbytes
        self.peak_bytes = max(self.peak_bytes, self.in_use_bytes)

    def reset_peak(self) -> None:
        """Restarts the peak at the bytes in use now."""
        self.peak_bytes = self.in_use_bytes


class Device(ABC):
    """Owns memory, the door and the clock. A run accesses the device only through this object."""

    kind: ClassVar[str]
    #: How records mark work done here: "kernel" on a GPU, "twin" where NumPy functions replace kernels.
    ran_as: ClassVar[Literal["kernel", "twin"]]

    door: Door
    memory: Memory
    #: Number of kernels launched so far, or ``None`` on a device without kernels.
    launches: int | None = None
    #: Entered around work that belongs to no forward: trials of algorithms. So a recording can leave them out.
    aside: Callable[[], AbstractContextManager[None]] = nullcontext
    #: Bytes that a memory budget must leave free: what the driver and libraries allocate outside of the device's pool,
    #: and the scratch memory that libraries keep inside it.
    outside_bytes: int = 0
    scratch_bytes: int = 0

    @property
    def bus_id(self) -> str | None:
        """PCI bus id, by which other libraries identify a GPU; ``None`` for the host."""
        return None

    @property
    def graphs(self) -> Any:
        """Captures work into CUDA graphs, as `graphs.Graphs`; ``None`` where that is impossible."""
        return None

    def describe(self) -> dict[str, str]:
        """The device's fields of a record's ``machine``, without the host's."""
        return {}

    def trials(self) -> list[Trial]:
        """Library algorithms that were chosen by timing the candidates."""
        return []

    def prepare(self) -> None:  # noqa: B027 (most devices need nothing)
        """Loads the libraries that ops need, so that a missing one is reported before any work.

        Raises:
            DeviceError: a library is missing or does not fit.
        """

    def close(self) -> None:  # noqa: B027 (most devices hold nothing)
        """Releases the device's resources. The device must not be used afterwards."""

    @contextmanager
    def working(self) -> Iterator[None]:
        """A region in which the calling thread works on this device.

        At its end the thread's previous device is current again.
        """
        yield

    def beside(self, *work: Callable[[], Any]) -> tuple[Any, ...]:
        """Results of independent pieces of work; a device may let them overlap.

        Args:
            work: functions, called in order. The caller must hold everything that they read until this returns.
        """
        return tuple(piece() for piece in work)

    def drawing_bytes(self, size: int) -> int:
        """Temporary memory in bytes that `draw_normal` needs for that many values, without its result."""
        return 0

    def limit(self, nbytes: int | None) -> None:  # noqa: B027 (a host has no limit of its own)
        """Limits the memory that the device hands out until it is closed; ``None`` removes the limit.

        Raises:
            ConfigError: the device has less memory than that.
        """

    def trim(self) -> None:  # noqa: B027 (most devices keep nothing back)
        """Returns unused memory of the pool to the driver, so that the next allocation can be contiguous."""

    def quiet(self) -> None:  # noqa: B027 (most devices have done what they were given)
        """Waits until nothing runs on the device, copies included. It is not counted as a synchronization of a run."""

    @abstractmethod
    def lasting(self, nbytes: int) -> HostNumbers:
        """Host memory (uint8) that the device can copy from asynchronously.

        The caller holds it while the device does so.

        Raises:
            DeviceError: the host has not enough memory.
        """

    @abstractmethod
    def slot(self, nbytes: int) -> Slot:
        """A new slot of that many bytes, in the released state."""

    @abstractmethod
    def view(self, buffer: Any, offset: int, shape: Sequence[int], dtype: str) -> Any:
        """An array on a buffer (uint8), from the byte ``offset`` on; the array keeps the buffer's memory alive."""

    @abstractmethod
    def copy(self, source: Any, out: Any) -> None:
        """Copies an array to another array of the device. Both must have the same shape and dtype."""

    @abstractmethod
    def empty(self, shape: Sequence[int], dtype: str) -> Any:
        """An uninitialized array of that shape and dtype."""

    @abstractmethod
    def draw_normal(self, key: Sequence[int], shape: Sequence[int], dtype: str, std: float, mean: float = 0.0) -> Any:
        """Normally distributed values, drawn in device memory from a seed sequence, without a host-device copy.

        *Numerics*: every number is rounded to bfloat16 first, whatever the dtype, so that the same key gives the same
        numbers under every dtype policy (as a bfloat16 checkpoint does).
        """

    @abstractmethod
    def lend(self, array: Any) -> Any:
        """A DLPack object on the same memory, for another library that works on this device.

        bfloat16 is passed as int16, because DLPack has no NumPy dtype for it. Nothing is copied. The other library must
        order its work after this device's stream, as DLPack requires.
        """

    @abstractmethod
    def borrow(self, tensor: Any) -> Any:
        """An array of this device on the memory of another library's tensor. The array keeps the tensor alive.

        Args:
            tensor: supports DLPack, lies on this device, and has a dtype that NumPy knows.
        """

    @abstractmethod
    def synchronize(self) -> None:
        """Waits until the device has done all submitted work; counted as a synchronization."""

    @abstractmethod
    def mark(self) -> Any:
        """A point in time on the device, for `elapsed_s`."""

    @abstractmethod
    def elapsed_s(self, start: Any, end: Any) -> float:
        """Seconds between two marks, by the device's clock."""

    def stamp(self) -> Any:
        """A mark for `elapsed`, which also reads the device's cycle counters where it has them."""
        return self.mark()

    def elapsed(self, start: Any, end: Any) -> Lapse:
        """Seconds between two stamps; also cycles and mean clock where the device counts cycles."""
        return Lapse(self.elapsed_s(start, end))

    def occupy(self) -> None:  # noqa: B027 (most devices have done what they were given)
        """Keeps an asynchronous device busy while the host launches one op, so that its time has no launch gaps.

        This is not work of the program, so nothing counts it. A synchronous device needs none.
        """

    def spend(self, cycles: int) -> None:
        """Runs work that takes that many cycles of a multiprocessor and is not counted.

        It plants a known slowdown to test a gate.

        Raises:
            NoGpuError: the device has no cycle counter.
        """
        raise NoGpuError(f"{cycles} planted cycles", f"device {self.kind!r}", "Do not plant work here; use a GPU.")

    @abstractmethod
    def flush(self, busy_s: float = 0.0) -> None:
        """Evicts other data from the device's caches with writes that last at least ``busy_s`` seconds.

        On an asynchronous device it returns at once, and later work queues up after the writes.
        """
