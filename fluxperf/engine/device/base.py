"""Devices: each owns memory, the door and the clock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, Protocol

from fluxperf.engine.device.choices import Trial
from fluxperf.engine.device.stamps import Lapse
from fluxperf.engine.device.transfers import Door, HostNumbers, Slot
from fluxperf.errors import NoGpuError


class Array(Protocol):
    """An array in a device's memory: what the model and the ops may ask of it.

    Views only: slicing, ``reshape`` and ``swapaxes`` never move data. Arithmetic belongs to ops.
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
    """Counts device allocations: how many, bytes in use, and the most at once."""

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
        """Counts memory that is kept from all others without being allocated; less of it if negative."""
        self.in_use_bytes += nbytes
        self.peak_bytes = max(self.peak_bytes, self.in_use_bytes)

    def reset_peak(self) -> None:
        """Starts a new peak at what is in use now."""
        self.peak_bytes = self.in_use_bytes


class Device(ABC):
    """Owns memory, the door and the clock. Everything that a run touches on it goes through one object."""

    kind: ClassVar[str]
    #: How a record names work done here: "kernel" on a GPU, "twin" for NumPy standing in for kernels.
    ran_as: ClassVar[Literal["kernel", "twin"]]

    door: Door
    memory: Memory
    #: Kernels launched so far, or ``None`` where nothing is launched on a GPU.
    launches: int | None = None
    #: Memory that a budget has to leave to others: what driver and libraries take for themselves, outside of what the
    #: device hands out; and what libraries keep of that for scratch.
    outside_bytes: int = 0
    scratch_bytes: int = 0

    @property
    def bus_id(self) -> str | None:
        """PCI bus id, which other libraries know a GPU by; ``None`` for the host."""
        return None

    @property
    def graphs(self) -> Any:
        """Captures work so that it is launched as a whole, as `graphs.Graphs`; ``None`` where that is impossible."""
        return None

    def describe(self) -> dict[str, str]:
        """The device's part of a record's ``machine``, without the host's."""
        return {}

    def trials(self) -> list[Trial]:
        """Algorithms of libraries that were chosen by trial."""
        return []

    def prepare(self) -> None:  # noqa: B027 (most devices need nothing)
        """Opens the libraries that ops need, so that a complaint about one comes before any work.

        Raises:
            DeviceError: one is missing or does not fit.
        """

    def close(self) -> None:  # noqa: B027 (most devices hold nothing)
        """Gives back what the device holds; it is not used afterwards."""

    @contextmanager
    def working(self) -> Iterator[None]:
        """A region in which the calling thread works on this device; what was current in it before returns then."""
        yield

    def beside(self, *work: Callable[[], Any]) -> tuple[Any, ...]:
        """Results of pieces of work that do not depend on each other; a device may let them overlap.

        Args:
            work: called in order. What a piece reads must be held by the caller until this returns.
        """
        return tuple(piece() for piece in work)

    def drawing_bytes(self, size: int) -> int:
        """Memory that `draw_normal` takes besides its result, for so many numbers."""
        return 0

    def limit(self, nbytes: int | None) -> None:  # noqa: B027 (a host has no limit of its own)
        """From now on no more memory than that is handed out, until the device is closed; without a limit if none.

        Raises:
            ConfigError: the device has less.
        """

    def trim(self) -> None:  # noqa: B027 (most devices keep nothing back)
        """Gives back memory that is handed out to nobody, so that what is allocated next lies in one piece."""

    def quiet(self) -> None:  # noqa: B027 (most devices have done what they were given)
        """Waits until nothing runs on the device, copies included; not a synchronization of a run."""

    @abstractmethod
    def lasting(self, nbytes: int) -> HostNumbers:
        """Host memory (uint8) that the device can copy from by itself. Held by the caller while it does.

        Raises:
            DeviceError: the host has no room.
        """

    @abstractmethod
    def slot(self, nbytes: int) -> Slot:
        """A slot of that many bytes, released."""

    @abstractmethod
    def view(self, buffer: Any, offset: int, shape: Sequence[int], dtype: str) -> Any:
        """An array in a buffer (uint8), from a byte ``offset`` on, which keeps the buffer's memory alive."""

    @abstractmethod
    def copy(self, source: Any, out: Any) -> None:
        """Copies an array to another one of the device; shapes and dtypes agree."""

    @abstractmethod
    def empty(self, shape: Sequence[int], dtype: str) -> Any:
        """An uninitialized array of that shape and dtype."""

    @abstractmethod
    def draw_normal(self, key: Sequence[int], shape: Sequence[int], dtype: str, std: float, mean: float = 0.0) -> Any:
        """Normal numbers drawn in the device's own memory from a seed sequence, without a copy.

        *Numerics*: every number is rounded to bfloat16 first, whatever the dtype, so that the same key gives the same
        numbers under every dtype policy (as a bfloat16 checkpoint does).
        """

    @abstractmethod
    def lend(self, array: Any) -> Any:
        """An object on the same memory that speaks DLPack, for another library that works on this device.

        bfloat16 goes as int16, because DLPack has no NumPy dtype for it. Nothing is copied; whoever takes the memory
        orders its work behind this device's stream, as DLPack asks for.
        """

    @abstractmethod
    def borrow(self, tensor: Any) -> Any:
        """An array of this device on the memory of another library's tensor, which it keeps alive.

        Args:
            tensor: speaks DLPack, on this device, of a dtype that NumPy has.
        """

    @abstractmethod
    def synchronize(self) -> None:
        """Returns when the device has done all that it was given; counted as a synchronization."""

    @abstractmethod
    def mark(self) -> Any:
        """A point in the device's time, to be given to `elapsed_s`."""

    @abstractmethod
    def elapsed_s(self, start: Any, end: Any) -> float:
        """Seconds between two marks, on the device's clock."""

    def stamp(self) -> Any:
        """A mark, to be given to `elapsed`, that also reads the device's cycle counters where it has some."""
        return self.mark()

    def elapsed(self, start: Any, end: Any) -> Lapse:
        """Seconds between two stamps, and cycles with their mean clock where the device counts them."""
        return Lapse(self.elapsed_s(start, end))

    def occupy(self) -> None:  # noqa: B027 (most devices have done what they were given)
        """Keeps an asynchronous device busy while the host launches one op, whose time is then without gaps.

        It is no work of the program: nothing counts it. Other devices need none.
        """

    def spend(self, cycles: int) -> None:
        """Does work that takes so many cycles of a multiprocessor and that nothing counts: what a gate is tried with.

        Raises:
            NoGpuError: a device that counts no cycles.
        """
        raise NoGpuError(f"{cycles} planted cycles", f"device {self.kind!r}", "Plant nothing here.")

    @abstractmethod
    def flush(self, busy_s: float = 0.0) -> None:
        """Gives the device writes that leave nothing else in its caches, and that last ``busy_s`` at least.

        Where work is asynchronous it returns at once, and what is given to the device next queues up behind.
        """
