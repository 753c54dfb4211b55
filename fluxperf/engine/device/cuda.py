"""The CUDA device: CuPy memory on one GPU, one stream, and events as its clock."""

from __future__ import annotations

import functools
import itertools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from fluxperf.engine.device import cudnn
from fluxperf.engine.device.base import Device, Memory
from fluxperf.engine.device.choices import Trial
from fluxperf.engine.device.gpu import Gpu, available, cupy
from fluxperf.engine.device.graphs import Graphs
from fluxperf.engine.device.host import host_dtype
from fluxperf.engine.device.slots import CudaSlot
from fluxperf.engine.device.stamps import Lapse, Stamp, Stamps, cycles_between
from fluxperf.engine.device.transfers import Door, HostNumbers
from fluxperf.errors import ArgumentError, ConfigError, DeviceError

__all__ = ["CudaDevice", "available"]

#: Random numbers are drawn in chunks of this many elements, so that a large tensor needs little temporary memory.
_DRAW = 1 << 27


#: Bytes that a memory budget leaves free. Outside of CuPy's pool: the driver's context, loaded kernels, cuBLAS, cuDNN.
#: Inside: workspaces of products on two streams and of attention, and as much again for fragmentation between blocks.
_OUTSIDE_BYTES, _SCRATCH_BYTES = 1_000_000_000, 256 << 20

#: CuPy requires a distinct name for every memory hook of a thread.
_HOOKS = itertools.count()


@functools.cache
def _stream(ordinal: int, beside: bool = False) -> Any:
    """The main stream of a GPU, or its second one.

    All device objects of a process share them, so they never run concurrently.
    """
    return cupy().cuda.Stream(non_blocking=True)


@functools.cache
def _copies(ordinal: int) -> Any:
    """The stream that fills a GPU's slots. Its copies wait only for events and use no multiprocessor."""
    return cupy().cuda.Stream(non_blocking=True)


class CudaDevice(Gpu, Device):
    """One GPU through CuPy: a main stream, a second one for work that may overlap, and a door with blocking copies.

    Args:
        ordinal: index of the GPU.

    Raises:
        DeviceError: CuPy, the driver or a GPU is missing, or the GPU is too old.
    """

    kind = "cuda"
    ran_as = "kernel"
    outside_bytes, scratch_bytes = _OUTSIDE_BYTES, _SCRATCH_BYTES

    def __init__(self, ordinal: int = 0) -> None:
        super().__init__(ordinal)
        self._main, self._beside = _stream(ordinal), _stream(ordinal, beside=True)
        self._main.use()
        self._events = tuple(self.untimed_event() for _ in range(2))
        self.door = Door(self._upload, self._download, self._pinned_lane)
        self.memory = Memory()
        self._hook = _pool_counter(self._cp, self.memory)
        self._hook.__enter__()
        #: Whether allocations are counted already; true in the thread that opened the device.
        self._opener = threading.local()
        self._opener.counted = True

    @contextmanager
    def working(self) -> Iterator[None]:
        """Makes this device, its stream and its allocation counter current in the calling thread.

        CuPy keeps them per thread, and another thread starts with the null stream. Work there would not be ordered with
        this device's work and could not be captured.
        """
        cuda = self._cp.cuda
        counted = getattr(self._opener, "counted", False)
        with cuda.Device(self.ordinal):
            before = cuda.get_current_stream()
            self._main.use()
            try:
                with nullcontext() if counted else self._hook:
                    yield
            finally:
                before.use()

    def beside(self, *work: Callable[[], Any]) -> tuple[Any, ...]:
        """Runs the first piece of work on the current stream and the others on a second one, after all work so far.

        The streams wait for each other here and at the end. CuPy reuses a freed block on the stream that allocated it,
        so the block is not overwritten before the other stream has read it.
        """
        forked, joined = self._events
        current = self.stream
        forked.record(current)
        self._beside.wait_event(forked)
        results = [work[0]()]
        self._beside.use()  # not a `with` block: it would restore CuPy's null stream instead of the previous one
        try:
            results += [piece() for piece in work[1:]]
            joined.record(self._beside)
        finally:
            current.use()
        current.wait_event(joined)
        return tuple(results)

    @functools.cached_property
    def attention(self) -> Any:
        """Attention plans."""
        return cudnn.Cudnn(self)

    @functools.cached_property
    def graphs(self) -> Graphs:
        """Graphs of captured work."""
        return Graphs(self)

    def draw_normal(self, key: Sequence[int], shape: Sequence[int], dtype: str, std: float, mean: float = 0.0) -> Any:
        """Normally distributed values from cuRAND's XORWOW generator seeded with ``key``, rounded to bfloat16."""
        random = self._cp.random
        seed = int(np.random.SeedSequence(list(key)).generate_state(1)[0])
        result = self.empty((math.prod(shape),), dtype)
        with self.room(f"random numbers of {dtype} {tuple(shape)}"):
            generator = random.Generator(random.XORWOW(seed))
            for start in range(0, result.size, _DRAW):
                part = result[start : start + _DRAW]
                numbers = generator.standard_normal(part.size, dtype=np.float32)
                numbers *= np.float32(std)
                numbers += np.float32(mean)
                part[...] = numbers.astype(host_dtype("bfloat16")).astype(part.dtype)
        return result.reshape(tuple(shape))

    def drawing_bytes(self, size: int) -> int:
        """A chunk of float32 values, rounded twice, and as much again for fragmentation of the pool."""
        return 12 * min(size, _DRAW)

    def prepare(self) -> None:
        """Loads cuBLASLt and cuDNN."""
        _ = self.products, self.attention

    def lend(self, array: Any) -> Any:
        """The CuPy array itself; bfloat16 as int16."""
        return array.view("int16") if array.dtype == host_dtype("bfloat16") else array

    def borrow(self, tensor: Any) -> Any:
        """A CuPy array on the tensor's memory. The current stream waits for the stream that wrote the tensor."""
        return self._cp.from_dlpack(tensor)

    def limit(self, nbytes: int | None) -> None:
        """Limits CuPy's pool. Captured steps use arenas of their own, which the pool does not count.

        Raises:
            ConfigError: the GPU has less memory than that.
        """
        _, total = self._cp.cuda.runtime.memGetInfo()
        budget = (nbytes or 0) + self.outside_bytes
        if nbytes and budget > total:
            raise ConfigError(
                f"memory budget of {budget / 1e9:.1f} GB: expected at most the {total / 1e9:.1f} GB "
                f"of {self.name}. Give a smaller budget, or leave it out."
            )
        self._cp.get_default_memory_pool().set_limit(size=nbytes or 0)  # 0 means no limit

    def trim(self) -> None:
        """Returns free blocks to the driver. The driver waits for the GPU."""
        self._cp.get_default_memory_pool().free_all_blocks()

    def lasting(self, nbytes: int) -> HostNumbers:
        """Pinned memory from CuPy's pool. The pool may reuse it once it is dropped, so call `quiet` before that.

        Raises:
            DeviceError: the host has not enough memory.
        """
        try:
            block = self._cp.cuda.alloc_pinned_memory(max(nbytes, 1))
        except self._cp.cuda.runtime.CUDARuntimeError as error:
            raise DeviceError(
                f"pinned memory: expected {nbytes / 1e6:.0f} MB more of the host's memory, got: {error}. Free "
                "host memory, or give the device a larger budget."
            ) from error
        return np.frombuffer(block, np.uint8, nbytes)

    def slot(self, nbytes: int) -> CudaSlot:
        """A slot that is filled on the copy stream."""
        return CudaSlot(self, _copies(self.ordinal), nbytes)

    def view(self, buffer: Any, offset: int, shape: Sequence[int], dtype: str) -> Any:
        """A CuPy array on the buffer's memory."""
        return self._cp.ndarray(tuple(shape), host_dtype(dtype), memptr=buffer.data + offset)

    def copy(self, source: Any, out: Any) -> None:
        """One copy on the current stream."""
        self.graphs.copy(source, out)

    @functools.cached_property
    def stamps(self) -> Stamps:
        """Allocates and reads stamps."""
        return Stamps(self)

    def stamp(self) -> Stamp:
        """An event recorded on the stream, after a kernel that reads the cycle counter of every multiprocessor."""
        return self.stamps.take()

    def elapsed(self, start: Stamp, end: Stamp) -> Lapse:
        """Seconds between two events; cycles and clock if enough multiprocessors were read."""
        seconds = self.elapsed_s(start.event, end.event)
        found = cycles_between(start.row, end.row)
        return Lapse(seconds, *found) if found else Lapse(seconds)

    def synchronize(self) -> None:
        """Waits for the stream."""
        self.door.ledger.syncs += 1
        self.stream.synchronize()

    def describe(self) -> dict[str, str]:
        """GPU and library versions, under the names of a record's ``machine``."""
        runtime = self._cp.cuda.runtime
        version, library = runtime.driverGetVersion(), cudnn.version()
        return {
            "gpu": self.name,
            "cuda": f"{version // 1000}.{version % 1000 // 10}",
            "cupy": self._cp.__version__,
            **({"cudnn": library} if library else {}),
        }

    def trials(self) -> list[Trial]:
        """Each product and attention with a chosen algorithm, and each op with a chosen implementation."""
        found = []
        if "products" in self.__dict__:
            for p, choice in self.products.choices.items():
                found.append(Trial("product", p.dtype, (p.m, p.n, p.k), choice, p.batch, p.epilogue))
        if "attention" in self.__dict__:
            for layout, choice in self.attention.choices.items():
                found.append(Trial("attention", layout.dtype, layout.shape, choice, keys=layout.keys))
        ways = self.ways.chosen.items()
        return found + [Trial("way", "", (), choice, name=what, way=way) for what, (way, choice) in ways]

    def close(self) -> None:
        """Returns the memory pools to the driver."""
        if getattr(self._opener, "counted", False):  # in another thread there is no hook to remove
            self._hook.__exit__(None, None, None)
            self._opener.counted = False
        self.__dict__.pop("_scratch", None)
        self.limit(None)
        self._cp.get_default_memory_pool().free_all_blocks()
        self._cp.get_default_pinned_memory_pool().free_all_blocks()

    def _upload(self, numbers: HostNumbers, out: Any) -> Any:
        """One copy from pinned memory. Waits for it, because the next copy may reuse the pinned block."""
        if out is None:
            with self.room(f"{numbers.dtype} {numbers.shape} from the host"):
                out = self._cp.empty(numbers.shape, numbers.dtype)
        if out.shape != numbers.shape or out.dtype != numbers.dtype or not out.flags.c_contiguous:
            raise ArgumentError(
                f"to_device: expected out contiguous, {out.dtype} {out.shape}, got {numbers.dtype} {numbers.shape}."
            )
        if numbers.nbytes:
            staged = self._pinned(numbers.shape, numbers.dtype)
            staged[...] = numbers
            out.data.copy_from_host_async(staged.ctypes.data, numbers.nbytes, self.stream)
            self.stream.synchronize()
        return out

    def _download(self, array: Any, out: HostNumbers | None = None) -> HostNumbers:
        """One copy into pinned memory, which the result keeps until it is dropped; or into ``out``, which is pinned."""
        with self.room(f"{array.dtype} {array.shape} in one piece"):
            array = self._cp.ascontiguousarray(array)
        numbers = self._pinned(array.shape, array.dtype) if out is None else out
        if array.nbytes != numbers.nbytes:
            raise ArgumentError(
                f"to_host: expected out of {array.nbytes} bytes, got {numbers.nbytes}. Allocate that many."
            )
        if array.nbytes:
            array.data.copy_to_host_async(numbers.ctypes.data, array.nbytes, self.stream)
            self.stream.synchronize()
        return numbers

    def _pinned_lane(self, chunk_bytes: int) -> _PinnedLane:
        return _PinnedLane(self._cp, self._main, chunk_bytes)

    def _pinned(self, shape: tuple[int, ...], dtype: Any) -> HostNumbers:
        count = math.prod(shape)
        block = self._cp.cuda.alloc_pinned_memory(max(count * dtype.itemsize, 1))
        return np.frombuffer(block, dtype, count).reshape(shape)


class _PinnedLane:
    """A pinned block, the stream that copies out of it, and an event after the last copy.

    Threads other than the device's own call it. They need no current device: the copy and the event name theirs.
    """

    def __init__(self, cp: Any, stream: Any, chunk_bytes: int) -> None:
        self._cp, self._stream = cp, stream
        self._room = max(chunk_bytes, 16)  # a chunk has at least one element
        #: Waiting for it gives the core to another reader.
        self._sent = cp.cuda.Event(block=True, disable_timing=True)
        self._block: Any = None

    def memory(self, out: Any, start: int, stop: int) -> HostNumbers:
        if self._block is None:
            self._block = self._cp.cuda.alloc_pinned_memory(self._room)
        self._sent.synchronize()
        return np.frombuffer(self._block, np.uint8, stop - start)

    def send(self, out: Any, start: int, stop: int) -> None:
        (out.data + start).copy_from_host_async(self._block.ptr, stop - start, self._stream)
        self._sent.record(self._stream)

    def close(self) -> None:
        self._sent.synchronize()
        self._block = None


def _pool_counter(cp: Any, memory: Memory) -> Any:
    """A CuPy memory hook that counts allocations and releases of the pool."""

    class PoolCounter(cp.cuda.MemoryHook):  # type: ignore[misc]
        name = f"fluxperf {next(_HOOKS)}"

        def malloc_postprocess(self, device_id: int, size: int, mem_size: int, mem_ptr: int, pmem_id: int) -> None:
            memory.allocate(mem_size)

        def free_postprocess(self, device_id: int, mem_size: int, mem_ptr: int, pmem_id: int) -> None:
            memory.free(mem_size)

    return PoolCounter()
