"""CUDA graphs: work captured once and launched as a whole, with the memory and the step counter that it needs.

A graph keeps the addresses that it was captured with. So what it allocates comes from an arena, which gives nothing
back while the graph is there, and what changes from launch to launch lies in device memory at a fixed place.
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

#: Entry points that steps need around what is captured: file, parameters, and variants, as the launchers of ops.
FAMILIES = (
    ("begin_steps", f"P P P {_DELTAS}f i i", "f32"),
    ("select_step", "P P q", "b16 b2"),
    ("advance_latents", "P P P q", "f32 bf16"),
)
_LAYOUTS = {f"{name}_{variant}": layout for name, layout, variants in FAMILIES for variant in variants.split()}
_CODES = {"float32": "f32", "bfloat16": "bf16"}

#: Words of 8 bytes in a `state`: the step to be taken, the one behind it, addresses of vectors and of step lengths.
_STATE = 4


class _Growth:
    """The driver's allocations for an arena, failed ones counted: after one, a pool lets go of memory that it held.

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
    """Device memory that is given out again only inside the arena, so that a graph may rely on it.

    Args:
        device: the CUDA device; its memory counts all of the arena as in use, free or not.
    """

    def __init__(self, device: Any) -> None:
        self._cuda, self._memory = cupy().cuda, device.memory
        self._growth = _Growth(self._cuda)
        self._pool = self._cuda.MemoryPool(self._growth)
        self._idle = 0

    @property
    def nbytes(self) -> int:
        """Bytes that it has from the driver."""
        return int(self._pool.total_bytes())

    @property
    def failed(self) -> int:
        """How often the driver had no memory for it."""
        return self._growth.failed

    @contextmanager
    def opened(self) -> Iterator[None]:
        """A region in which what this thread allocates comes from the arena."""
        try:
            with self._cuda.using_allocator(self._pool.malloc):
                yield
        finally:
            self._count(int(self._pool.free_bytes()))

    def close(self) -> None:
        """Gives everything back that no array holds; no graph of the arena may be under way."""
        self._pool.free_all_blocks()
        self._count(int(self._pool.free_bytes()))

    def _count(self, idle: int) -> None:
        """Free bytes of the arena are in use as far as anything else on the device can tell."""
        self._memory.reserve(idle - self._idle)
        self._idle = idle


class Replay:
    """A captured graph, ready to be launched.

    Args:
        device: counts a launch of the graph as one.
        graph: CuPy's.
        launches: launches that were captured.
        held: memory that they use besides the arena's.
    """

    def __init__(self, device: Any, graph: Any, launches: int, held: Sequence[Any]) -> None:
        self._device, self._graph, self._held = device, graph, tuple(held)
        self.launches = launches

    def launch(self) -> None:
        """Launches it on the device's stream."""
        self._graph.launch(self._device.stream)
        self._device.launches += 1


class Graphs:
    """Captures work of a CUDA device; and the kernels that carry a captured step from one launch to the next.

    Args:
        device: the CUDA device.
    """

    def __init__(self, device: Any) -> None:
        self._device = device

    def arena(self) -> Arena:
        """An arena for one graph."""
        return Arena(self._device)

    def capture(self, arena: Arena, work: Callable[[], Any]) -> Replay:
        """Work as a graph; it is not done now. It must have run before: plans and kernels are there, and memory.

        Args:
            arena: opened; what the work allocates comes from it.
            work: launches on the current stream, and on others that it forks from it and joins again.

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
                with suppress(errors):  # what went wrong has invalidated it
                    stream.end_capture()
                raise
            graph = stream.end_capture()
            graph.upload(stream)
        except errors as error:
            raise DeviceError(
                f"graph: the step could not be captured ({error}). Run the rung 'fused', which needs no graph."
            ) from error
        finally:
            launches, device.launches = device.launches - before, before
        if arena.failed > failed:
            raise DeviceError(
                f"graph: {device.name} ran out of memory while a step was captured. Use a smaller workload or batch."
            )
        return Replay(device, graph, launches, device.products.workspaces)

    def state(self) -> Any:
        """Room for the state of a generation's steps, to be filled by `begin`."""
        return self._device.empty((_STATE,), "int64")

    def begin(self, state: Any, vectors: Any, deltas: Sequence[float]) -> Any:
        """Sets a state to the first step of a generation.

        Args:
            state: from `state`.
            vectors: [S, ..] what `select` takes slices of; contiguous.
            deltas: S step lengths.

        Returns:
            What must be held, with the vectors, until the last step is given to the device.

        Raises:
            ArgumentError: the vectors are not contiguous from a multiple of 16 bytes on.
        """
        if vectors.data.ptr % 16 or not vectors.flags.c_contiguous:
            raise ArgumentError(
                f"begin: expected contiguous vectors from a multiple of 16 bytes on, got strides {vectors.strides} of "
                f"{vectors.shape} at {vectors.data.ptr:#x}. Write them out first."
            )
        lengths = self._device.empty((len(deltas),), "float32")
        for first in range(0, len(deltas), _DELTAS):
            part = deltas[first : first + _DELTAS]
            padded = (*map(float, part), *(0.0,) * (_DELTAS - len(part)))
            places = state.data.ptr, vectors.data.ptr, lengths.data.ptr
            self._start("begin_steps_f32", 1, _DELTAS, *places, *padded, first, len(part))
        return lengths

    def select(self, state: Any, out: Any) -> None:
        """Copies the step's slice of the vectors to ``out``, contiguous, and notes that the step has begun."""
        word = 16 if (out.nbytes | out.data.ptr) % 16 == 0 else 2
        words = out.nbytes // word
        blocks = min(-(-words // _THREADS), 4 * self._device.processors)
        self._start(f"select_step_b{word}", max(blocks, 1), _THREADS, state.data.ptr, out.data.ptr, words)

    def advance(self, state: Any, latents: Any, velocity: Any) -> None:
        """``latents += delta velocity`` with the step's length, in place; the next step is then the one behind it.

        Args:
            state: of steps that have begun with `select`.
            latents: [..] float32, contiguous.
            velocity: the same shape, float32 or bfloat16, contiguous.

        *Numerics*: those of the op ``euler_step``.
        """
        if velocity.shape != latents.shape or not velocity.flags.c_contiguous:
            raise ArgumentError(
                f"advance: expected a contiguous velocity {latents.shape}, got {velocity.shape} with strides "
                f"{velocity.strides}. Write it out first."
            )
        blocks = min(-(-latents.size // _THREADS), 16 * self._device.processors)
        entry = f"advance_latents_{_CODES[str(velocity.dtype)]}"
        places = state.data.ptr, latents.data.ptr, velocity.data.ptr
        self._start(entry, max(blocks, 1), _THREADS, *places, latents.size)

    def copy(self, source: Any, out: Any) -> None:
        """Copies a device array to another place on the device.

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
