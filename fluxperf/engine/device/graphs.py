"""CUDA graphs: work that is captured once and launched as a whole, with the memory and the step counter that it needs.

A graph keeps the addresses that it was captured with. So its allocations come from an arena, which keeps all memory
while the graph exists, and values that change from launch to launch lie in device memory at fixed addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from fluxperf.engine.device.gpu import cupy
from fluxperf.engine.nvrtc.launch import launch
from fluxperf.errors import ArgumentError, DeviceError

#: Step lengths that one launch takes; threads of a block. Kernels count on both, as a test compares.
_DELTAS = 64  # DELTAS: begin_steps.cu
_THREADS = 256  # THREADS: select_step.cu advance_latents.cu

#: Kernels that surround a captured step: parameters and variants, in the notation of the ops' launchers.
FAMILIES = (
    ("begin_steps", f"P P P {_DELTAS}f i i", "f32"),
    ("select_step", "P P q", "b16 b2"),
    ("advance_latents", "P P P q", "f32 bf16"),
)
_LAYOUTS = {f"{name}_{variant}": layout for name, layout, variants in FAMILIES for variant in variants.split()}
_CODES = {"float32": "f32", "bfloat16": "bf16"}

#: Number of 8-byte words in a `state`: current step, next step, address of the vectors, address of the step lengths.
_STATE = 4


class _Growth:
    """The driver's allocations for an arena. Counts failures, after which a pool may have released memory that it held.

    Args:
        cuda: ``cupy.cuda``.
    """

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self.failed = 0

    def __call__(self, nbytes: int) -> Any:
        try:
            return self._cuda.MemoryPointer(self._cuda.Memory(nbytes), 0)
        except self._cuda.runtime.CUDARuntimeError:
            self.failed += 1
            raise


class Arena:
    """Device memory that is reused only inside the arena, so that a graph may rely on its addresses.

    Args:
        device: the CUDA device. Its memory counter treats the whole arena as in use, free blocks included.
    """

    def __init__(self, device: Any) -> None:
        self._cuda, self._memory = cupy().cuda, device.memory
        self._growth = _Growth(self._cuda)
        self._pool = self._cuda.MemoryPool(self._growth)
        self._idle = 0

    @property
    def nbytes(self) -> int:
        """Bytes that the arena has allocated from the driver."""
        return int(self._pool.total_bytes())

    @property
    def failed(self) -> int:
        """Number of allocations that the driver refused."""
        return self._growth.failed

    @contextmanager
    def opened(self) -> Iterator[None]:
        """A region in which this thread's allocations come from the arena."""
        try:
            with self._cuda.using_allocator(self._pool.malloc):
                yield
        finally:
            self._count(int(self._pool.free_bytes()))

    def close(self) -> None:
        """Returns all memory that no array holds. No graph of the arena may be running."""
        self._pool.free_all_blocks()
        self._count(int(self._pool.free_bytes()))

    def _count(self, idle: int) -> None:
        """Counts the arena's free bytes as in use, because nothing else on the device can have them."""
        self._memory.reserve(idle - self._idle)
        self._idle = idle


class Replay:
    """A captured graph, ready to be launched.

    Args:
        device: counts a launch of the graph as one launch.
        graph: the CuPy graph.
        launches: number of captured launches.
        held: memory outside of the arena that the graph uses.
    """

    def __init__(self, device: Any, graph: Any, launches: int, held: Sequence[Any]) -> None:
        self._device, self._graph, self._held = device, graph, tuple(held)
        self.launches = launches

    def launch(self) -> None:
        """Launches it on the device's stream."""
        self._graph.launch(self._device.stream)
        self._device.launches += 1


class Graphs:
    """Captures work of a CUDA device; and launches the kernels that carry a captured step's state to the next launch.

    Args:
        device: the CUDA device.
    """

    def __init__(self, device: Any) -> None:
        self._device = device

    def arena(self) -> Arena:
        """A new arena, for one graph."""
        return Arena(self._device)

    def capture(self, arena: Arena, work: Callable[[], Any]) -> Replay:
        """Captures work as a graph without running it.

        The work must have run once before, so that plans, kernels and memory exist.

        Args:
            arena: must be open; the work's allocations come from it.
            work: launches on the current stream, and on streams that it forks from it and joins again.

        Raises:
            DeviceError: the memory is full, or something cannot be captured.
        """
        device, stream = self._device, self._device.stream
        before, failed = device.launches, arena.failed
        errors = cupy().cuda.runtime.CUDARuntimeError
        stream.begin_capture()
        try:
            try:
                work()
            except BaseException:
                with suppress(errors):  # the failed capture has invalidated it
                    stream.end_capture()
                raise
            graph = stream.end_capture()
            graph.upload(stream)
        except errors as error:
            raise DeviceError(
                f"graph: expected to record the step as a CUDA graph, but it could not be captured ({error}). Use the "
                "rung 'fused', which needs no graph."
            ) from error
        finally:
            launches, device.launches = device.launches - before, before
        if arena.failed > failed:
            raise DeviceError(
                f"graph: {device.name} ran out of memory while a step was captured. Use a smaller workload or batch."
            )
        return Replay(device, graph, launches, device.products.workspaces)

    def state(self) -> Any:
        """Memory for the state of a generation's steps; `begin` fills it."""
        return self._device.empty((_STATE,), "int64")

    def begin(self, state: Any, vectors: Any, deltas: Sequence[float]) -> Any:
        """Sets a state to the first step of a generation.

        Args:
            state: from `state`.
            vectors: [S, ..], one slice per step for `select`; contiguous, aligned to 16 bytes.
            deltas: S step lengths.

        Returns:
            Memory that the caller must hold, together with the vectors, until the last step has been submitted.

        Raises:
            ArgumentError: the vectors are not contiguous or not aligned to 16 bytes.
        """
        if vectors.data.ptr % 16 or not vectors.flags.c_contiguous:
            raise ArgumentError(
                f"begin: expected contiguous vectors aligned to 16 bytes, got shape {vectors.shape} with strides "
                f"{vectors.strides} at address {vectors.data.ptr:#x}. Copy them to a new array first."
            )
        lengths = self._device.empty((len(deltas),), "float32")
        for first in range(0, len(deltas), _DELTAS):
            part = deltas[first : first + _DELTAS]
            padded = (*map(float, part), *(0.0,) * (_DELTAS - len(part)))
            places = state.data.ptr, vectors.data.ptr, lengths.data.ptr
            self._start("begin_steps_f32", 1, _DELTAS, *places, *padded, first, len(part))
        return lengths

    def select(self, state: Any, out: Any) -> None:
        """Copies the current step's slice of the vectors to ``out``, contiguous, and marks the step as begun."""
        word = 16 if (out.nbytes | out.data.ptr) % 16 == 0 else 2
        words = out.nbytes // word
        blocks = min(-(-words // _THREADS), 4 * self._device.processors)
        self._start(f"select_step_b{word}", max(blocks, 1), _THREADS, state.data.ptr, out.data.ptr, words)

    def advance(self, state: Any, latents: Any, velocity: Any) -> None:
        """``latents += delta velocity`` in place, with the current step's length. Then the next step becomes current.

        Args:
            state: of a step that `select` has begun.
            latents: [..] float32, contiguous.
            velocity: the same shape, float32 or bfloat16, contiguous.

        *Numerics*: those of the op ``euler_step``.
        """
        if velocity.shape != latents.shape or not velocity.flags.c_contiguous:
            raise ArgumentError(
                f"advance: expected a contiguous velocity {latents.shape}, got {velocity.shape} with strides "
                f"{velocity.strides}. Copy it to a new array first."
            )
        blocks = min(-(-latents.size // _THREADS), 16 * self._device.processors)
        entry = f"advance_latents_{_CODES[str(velocity.dtype)]}"
        places = state.data.ptr, latents.data.ptr, velocity.data.ptr
        self._start(entry, max(blocks, 1), _THREADS, *places, latents.size)

    def copy(self, source: Any, out: Any) -> None:
        """Copies a device array into another device array.

        Raises:
            ArgumentError: shapes or dtypes differ.
        """
        if source.shape != out.shape or source.dtype != out.dtype:
            raise ArgumentError(
                f"copy: expected {out.dtype} {out.shape}, got {source.dtype} {source.shape}. Convert it first."
            )
        if source.nbytes:
            whole = cupy().ascontiguousarray(source)
            out.data.copy_from_device_async(whole.data, out.nbytes, self._device.stream)

    def _start(self, entry: str, blocks: int, threads: int, *values: Any) -> None:
        file = f"{entry.rpartition('_')[0]}.cu"
        launch(self._device, self._device.kernels.get(file, entry, _LAYOUTS[entry]), (blocks, 1), threads, *values)
