"""The CUDA device: CuPy memory on one GPU, one stream, events as clock."""

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

#: Random numbers are drawn in pieces of this many, so that the largest tensor needs little besides itself.
_DRAW = 1 << 27


#: What a budget leaves to others. Outside of CuPy's pool: the driver's context, kernels that are loaded, cuBLAS, cuDNN.
#: Inside: scratch memory of products on two streams and of attention, with as much again for what lies between blocks.
_OUTSIDE_BYTES, _SCRATCH_BYTES = 1_000_000_000, 256 << 20

#: CuPy wants every memory hook of a thread under a name of its own.
_HOOKS = itertools.count()


@functools.cache
def _stream(ordinal: int, beside: bool = False) -> Any:
    """The main stream of a GPU, or the one beside it: two device objects of a process never run beside each other."""
    return cupy().cuda.Stream(non_blocking=True)


@functools.cache
def _copies(ordinal: int) -> Any:
    """The stream that slots of a GPU are filled on. Its copies wait for events only, and take no multiprocessor."""
    return cupy().cuda.Stream(non_blocking=True)


class CudaDevice(Gpu, Device):
    """One GPU through CuPy: a stream, and one beside it for work that may overlap; a door that stages and blocks.

    Args:
        ordinal: which GPU.

    Raises:
        DeviceError: no CuPy, no driver, no GPU, or one that is too old.
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
        #: Says of the thread that opened the device that its allocations are counted.
        self._opener = threading.local()
        self._opener.counted = True

    @contextmanager
    def working(self) -> Iterator[None]:
        """Device, stream and the count of allocations are CuPy's by thread: another thread has its null stream.

        Work there would not be ordered with this device's, and could not be captured.
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
        """The first piece runs on the current stream, the others on one beside it, which waits for all work so far.

        Both streams wait for each other here and at the end, so memory that either frees is written again only when
        the other has read it: CuPy hands a block out again on the stream that it was allocated on.
        """
        forked, joined = self._events
        current = self.stream
        forked.record(current)
        self._beside.wait_event(forked)
        results = [work[0]()]
        self._beside.use()  # a `with` block would leave CuPy's null stream behind it, not the one before
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
        """Normal numbers from cuRAND's XORWOW seeded with ``key``, rounded to bfloat16."""
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
        """Float32 numbers of a piece, rounded twice, and as much again as the pool may not fit together."""
        return 12 * min(size, _DRAW)

    def prepare(self) -> None:
        """Opens cuBLASLt and cuDNN."""
        _ = self.products, self.attention

    def lend(self, array: Any) -> Any:
        """The CuPy array itself; bfloat16 as int16."""
        return array.view("int16") if array.dtype == host_dtype("bfloat16") else array

    def borrow(self, tensor: Any) -> Any:
        """A CuPy array on the tensor's memory; the current stream waits for the one that the tensor was written on."""
        return self._cp.from_dlpack(tensor)

    def limit(self, nbytes: int | None) -> None:
        """A limit of CuPy's pool. Captured steps have arenas of their own, which it does not count.

        Raises:
            ConfigError: the GPU has less memory.
        """
        _, total = self._cp.cuda.runtime.memGetInfo()
        budget = (nbytes or 0) + self.outside_bytes
        if nbytes and budget > total:
            raise ConfigError(
                f"memory budget of {budget / 1e9:.1f} GB: expected at most the {total / 1e9:.1f} GB of {self.name}. "
                "Give less, or leave the budget out."
            )
        self._cp.get_default_memory_pool().set_limit(size=nbytes or 0)  # 0 is none

    def trim(self) -> None:
        """Gives blocks that are free and whole back to the driver, which waits for the GPU."""
        self._cp.get_default_memory_pool().free_all_blocks()

    def lasting(self, nbytes: int) -> HostNumbers:
        """Pinned memory from CuPy's pool, which hands it out again when it is dropped: `quiet` comes before that.

        Raises:
            DeviceError: the host has no room.
        """
        try:
            block = self._cp.cuda.alloc_pinned_memory(max(nbytes, 1))
        except self._cp.cuda.runtime.CUDARuntimeError as error:
            raise DeviceError(
                f"pinned memory: expected {nbytes / 1e6:.0f} MB more of the host's memory, got: {error}. "
                "Free some, or give the device a larger budget."
            ) from error
        return np.frombuffer(block, np.uint8, nbytes)

    def slot(self, nbytes: int) -> CudaSlot:
        """A slot whose copies go over a stream of their own."""
        return CudaSlot(self, _copies(self.ordinal), nbytes)

    def view(self, buffer: Any, offset: int, shape: Sequence[int], dtype: str) -> Any:
        """A CuPy array on the buffer's memory."""
        return self._cp.ndarray(tuple(shape), host_dtype(dtype), memptr=buffer.data + offset)

    def copy(self, source: Any, out: Any) -> None:
        """One copy on the current stream."""
        self.graphs.copy(source, out)

    @functools.cached_property
    def stamps(self) -> Stamps:
        """Rows for stamps."""
        return Stamps(self)

    def stamp(self) -> Stamp:
        """An event recorded on the stream, behind a kernel that reads the counters of every multiprocessor."""
        return self.stamps.take()

    def elapsed(self, start: Stamp, end: Stamp) -> Lapse:
        """Seconds between two events; cycles and clock by the readings, if enough multiprocessors were read."""
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
        """Each product and attention whose algorithm was chosen, and each op whose way was."""
        found = []
        if "products" in self.__dict__:
            for p, choice in self.products.choices.items():
                found.append(Trial("product", p.dtype, (p.m, p.n, p.k), choice, p.batch, p.epilogue))
        if "attention" in self.__dict__:
            for layout, choice in self.attention.choices.items():
                found.append(Trial("attention", layout.dtype, layout.shape, choice))
        ways = self.ways.chosen.items()
        return found + [Trial("way", "", (), choice, name=what, way=way) for what, (way, choice) in ways]

    def close(self) -> None:
        """Gives the memory pools back to the driver."""
        if getattr(self._opener, "counted", False):  # in another thread it is not there to be removed
            self._hook.__exit__(None, None, None)
            self._opener.counted = False
        self.__dict__.pop("_scratch", None)
        self.limit(None)
        self._cp.get_default_memory_pool().free_all_blocks()
        self._cp.get_default_pinned_memory_pool().free_all_blocks()

    def _upload(self, numbers: HostNumbers, out: Any) -> Any:
        """One copy from pinned memory, waited for: the pinned block may serve the next copy at once."""
        if out is None:
            with self.room(f"{numbers.dtype} {numbers.shape} from the host"):
                out = self._cp.empty(numbers.shape, numbers.dtype)
        if out.shape != numbers.shape or out.dtype != numbers.dtype or not out.flags.c_contiguous:
            raise ArgumentError(
                f"to_device into out: expected contiguous {out.dtype} {out.shape}, got {numbers.dtype} {numbers.shape}."
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
            raise ArgumentError(f"to_host into out: expected {array.nbytes} bytes, got {numbers.nbytes}.")
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
    """A pinned block, the stream that copies out of it, and an event behind the last copy.

    Threads other than the device's own call it: a copy and an event need no current device, as both name theirs.
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
    """A CuPy memory hook that counts what the pool hands out and takes back."""

    class PoolCounter(cp.cuda.MemoryHook):  # type: ignore[misc]
        name = f"fluxperf {next(_HOOKS)}"

        def malloc_postprocess(self, device_id: int, size: int, mem_size: int, mem_ptr: int, pmem_id: int) -> None:
            memory.allocate(mem_size)

        def free_postprocess(self, device_id: int, mem_size: int, mem_ptr: int, pmem_id: int) -> None:
            memory.free(mem_size)

    return PoolCounter()
