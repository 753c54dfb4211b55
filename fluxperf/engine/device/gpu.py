"""A GPU as kernels and libraries see it: architecture, memory, CuPy's current stream, events."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from fluxperf.engine.cache import let_cupy_import
from fluxperf.engine.device.choices import Choices, Ways
from fluxperf.engine.device.host import host_dtype
from fluxperf.engine.nvrtc.launch import launch
from fluxperf.errors import DeviceError, NoGpuError

#: Name of the 8-bit float dtype of operands in ml_dtypes.
E4M3 = "float8_e4m3fn"

#: Nanoseconds that the kernel of `Gpu.occupy` runs, and its parameters.
_OCCUPIED_NS, SPIN = 250_000, "q"

#: Lowest compute capability with bfloat16 tensor cores.
_OLDEST = (8, 0)

#: Bytes of one write of a flush: several times the L2 cache, as a cache need not evict strictly the oldest lines, and
#: large enough that few writes last a long time.
_FLUSH_CACHES, _FLUSH_BYTES = 4, 256 << 20


class _Scratch(NamedTuple):
    """Memory that a flush writes to, and the seconds that one write takes."""

    pointer: Any
    nbytes: int
    seconds: float


def available() -> bool:
    """Whether CuPy is installed and sees a GPU."""
    try:
        return bool(cupy().cuda.runtime.getDeviceCount())
    except (DeviceError, RuntimeError):
        return False


def cupy() -> Any:
    """CuPy. Only this function imports it for devices.

    Raises:
        DeviceError: it is not installed or does not fit the driver.
    """
    let_cupy_import()
    try:
        import cupy as module
    except ImportError as error:
        raise DeviceError(
            f"device 'cuda': expected CuPy, but it cannot be imported ({error}). Install the extra that fits the "
            "driver, cuda12 or cuda13 (`fluxperf doctor` prints the command), or use --device host."
        ) from error
    return module


class Gpu:
    """One GPU. Work goes to CuPy's current stream.

    Args:
        ordinal: index of the GPU.

    Raises:
        DeviceError: CuPy, the driver or a GPU is missing, or the GPU is too old.
    """

    def __init__(self, ordinal: int = 0) -> None:
        self._cp = cupy()
        runtime = self._cp.cuda.runtime
        try:
            self._cp.cuda.Device(ordinal).use()
            self.properties: dict[str, Any] = runtime.getDeviceProperties(ordinal)
        except runtime.CUDARuntimeError as error:
            raise NoGpuError("device 'cuda'", f"none ({error})", "Without a GPU use --device host.") from error
        major, minor = self.properties["major"], self.properties["minor"]
        if (major, minor) < _OLDEST:
            raise DeviceError(
                f"device 'cuda': expected compute capability {_OLDEST[0]}.{_OLDEST[1]} or newer, got {major}.{minor} "
                f"({self.name}). Use --device host."
            )
        # Hopper's own instructions exist only in the architecture-specific target.
        self.capability = (int(major), int(minor))
        self.architecture = f"sm_{major}{minor}" + ("a" if (major, minor) == (9, 0) else "")
        self.processors = int(self.properties["multiProcessorCount"])
        self.launches: int | None = 0
        #: Index of the GPU among those that CUDA sees.
        self.ordinal = ordinal
        #: Words of `tally`, by stream.
        self._tallies: dict[int, Any] = {}

    @property
    def bus_id(self) -> str | None:
        """PCI bus id, by which other libraries identify this GPU."""
        return str(self._cp.cuda.runtime.deviceGetPCIBusId(self.ordinal))

    @property
    def name(self) -> str:
        """Name of the GPU."""
        return str(self.properties["name"].decode())

    @property
    def stream(self) -> Any:
        """CuPy's current stream."""
        return self._cp.cuda.get_current_stream()

    @functools.cached_property
    def kernels(self) -> Any:
        """Kernels compiled for this GPU; their machine code is cached on disk."""
        from fluxperf.engine.nvrtc.loader import Kernels

        return Kernels(self.architecture)

    @functools.cached_property
    def choices_kept(self) -> Choices:
        """Choices of algorithms for this GPU model, by this process or earlier ones."""
        return Choices(self.name)

    @functools.cached_property
    def ways(self) -> Ways:
        """Implementations of ops, chosen by measurement."""
        return Ways(self)

    @functools.cached_property
    def products(self) -> Any:
        """Matrix products, with the algorithms chosen so far."""
        from fluxperf.engine.device.cublaslt import CublasLt

        return CublasLt(self)

    def empty(self, shape: Sequence[int], dtype: str) -> Any:
        """An uninitialized array. e4m3 values are stored in a uint8 array, as CuPy has no such dtype.

        Raises:
            DeviceError: the GPU's memory is full.
        """
        with self.room(f"{dtype} {tuple(shape)}"):
            return self._cp.empty(tuple(shape), "uint8" if dtype == E4M3 else host_dtype(dtype))

    def workspace(self, nbytes: int) -> Any:
        """A workspace for a library, in bytes.

        It comes from CuPy's own pool even while an arena is open, so it may outlive that arena.

        Raises:
            DeviceError: the GPU's memory is full.
        """
        with self._cp.cuda.using_allocator(self._cp.get_default_memory_pool().malloc):
            return self.empty((nbytes,), "uint8")

    @property
    def tally(self) -> int:
        """Address of two 32-bit words, zero, in which the blocks of a launch on the current stream add up a result.

        The launch must leave them zero. Launches on a stream run one after the other, so they share the words; another
        stream has its own.
        """
        stream = int(self.stream.ptr)
        if stream not in self._tallies:
            self._tallies[stream] = self.workspace(8)
            self._tallies[stream].fill(0)
        return int(self._tallies[stream].data.ptr)

    @contextmanager
    def trial(self) -> Iterator[None]:
        """A region of trials. Streams that had no workspace and no tally before it have none after it.

        Otherwise a process that runs trials would hold more memory than one that finds its choices on disk.
        """
        before = set(self._tallies)
        with self.products.trial():
            try:
                yield
            finally:
                for stream in self._tallies.keys() - before:
                    del self._tallies[stream]

    @contextmanager
    def room(self, what: str) -> Iterator[None]:
        """A region that allocates memory.

        Raises:
            DeviceError: the GPU's memory is full; the message names what did not fit.
        """
        try:
            yield
        except self._cp.cuda.memory.OutOfMemoryError as error:
            free, total = self._cp.cuda.runtime.memGetInfo()
            if limit := self._cp.get_default_memory_pool().get_limit():
                raise DeviceError(
                    f"{self.name}: expected room for {what}, but the {limit / 1e9:.1f} GB that remain of the "
                    "memory budget are full. Give a larger budget, or use a smaller picture or batch."
                ) from error
            raise DeviceError(
                f"{self.name}: expected room for {what}, but the memory is full ({free / 1e9:.1f} of "
                f"{total / 1e9:.1f} GB free). Use a smaller workload or batch, or a bfloat16 rung: float32 "
                "needs twice as much."
            ) from error

    def start_profiler(self) -> None:
        """Starts the capture range of an attached profiler that waits for it."""
        self._cp.cuda.runtime.profilerStart()

    def stop_profiler(self) -> None:
        """Ends the capture range."""
        self._cp.cuda.runtime.profilerStop()

    def quiet(self) -> None:
        """Waits until nothing runs on the GPU, on any stream, so that a trial runs alone."""
        self._cp.cuda.runtime.deviceSynchronize()

    def untimed_event(self) -> Any:
        """An event without timing, to order streams; not recorded yet."""
        return self._cp.cuda.Event(disable_timing=True)

    def occupy(self) -> None:
        """Launches a kernel that waits longer than the host needs to launch an op of a few kernels."""
        launches = self.launches
        launch(self, self.kernels.get("spin.cu", "spin_ns", SPIN), (1, 1), 1, _OCCUPIED_NS)
        self.launches = launches

    def spend(self, cycles: int) -> None:
        """Launches a kernel that spins on every multiprocessor. Its launch is not counted."""
        launches = self.launches
        launch(self, self.kernels.get("spin.cu", "spin_cycles", SPIN), (self.processors, 1), 1, cycles)
        self.launches = launches

    def mark(self) -> Any:
        """An event recorded on the stream."""
        event = self._cp.cuda.Event()
        event.record(self.stream)
        return event

    def elapsed_s(self, start: Any, end: Any) -> float:
        """Seconds between two events, by the GPU's clock."""
        end.synchronize()
        return float(self._cp.cuda.get_elapsed_time(start, end)) / 1e3

    def flush(self, busy_s: float = 0.0) -> None:
        """Overwrites the L2 cache several times, for at least ``busy_s`` seconds.

        Returns as soon as the writes are queued.

        Raises:
            DeviceError: the GPU's memory is full.
        """
        scratch = self._scratch
        for _ in range(max(1, math.ceil(busy_s / scratch.seconds))):
            scratch.pointer.memset_async(0, scratch.nbytes, self.stream)

    @functools.cached_property
    def _scratch(self) -> _Scratch:
        """Memory outside of CuPy's pool, so that it is in no allocation count and no peak of a record."""
        cuda = self._cp.cuda
        nbytes = max(_FLUSH_CACHES * int(self.properties["l2CacheSize"]), _FLUSH_BYTES)
        try:
            pointer = cuda.MemoryPointer(cuda.Memory(nbytes), 0)
        except cuda.runtime.CUDARuntimeError as error:
            raise DeviceError(
                f"{self.name}: flush expected {nbytes / 1e6:.0f} MB of memory outside of CuPy's pool, got: "
                f"{error}. Measure before the memory is full, or free the pool."
            ) from error
        marks = []
        for _ in range(2):  # the first write is not timed
            marks.append(self.mark())
            pointer.memset_async(0, nbytes, self.stream)
        return _Scratch(pointer, nbytes, self.elapsed_s(marks[1], self.mark()))
