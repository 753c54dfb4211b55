"""Capturing: counts, cleanup after an error, and arguments of the kernels around a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fluxperf.engine.device import graphs as module
from fluxperf.engine.device.base import Memory
from fluxperf.engine.device.graphs import Graphs
from fluxperf.errors import ArgumentError, DeviceError


class DriverError(RuntimeError):
    """Replaces CuPy's error of a runtime call."""


class Stream:
    def __init__(self) -> None:
        self.log: list[str] = []
        self.broken = False

    def begin_capture(self) -> None:
        self.log.append("begin")

    def end_capture(self) -> Any:
        self.log.append("end")
        if self.broken:
            raise DriverError("planted: invalidated")
        return SimpleNamespace(
            upload=lambda stream: self.log.append("upload"), launch=lambda stream: self.log.append("launch")
        )


class Pool:
    """Blocks from the driver, used or free, as CuPy's pool counts them."""

    def __init__(self, grow: Any) -> None:
        self.grow, self.blocks, self.free = grow, 0, 0

    def malloc(self, nbytes: int) -> None:
        try:
            self.grow(nbytes)
        except DriverError:
            self.free = self.blocks = 0  # the pool's reaction: it releases free blocks, and tries again
            return
        self.blocks += nbytes

    def total_bytes(self) -> int:
        return self.blocks

    def free_bytes(self) -> int:
        return self.free

    def free_all_blocks(self) -> None:
        self.blocks, self.free = self.blocks - self.free, 0


class FakeCupy:
    def __init__(self) -> None:
        self.full = False
        self.allocators: list[Any] = []
        self.pools: list[Pool] = []
        runtime = SimpleNamespace(CUDARuntimeError=DriverError)
        self.cuda = SimpleNamespace(
            runtime=runtime, MemoryPool=self._pool, Memory=self._memory, MemoryPointer=lambda memory, offset: memory,
            using_allocator=self._using,
        )  # fmt: skip

    def _pool(self, grow: Any) -> Pool:
        self.pools.append(Pool(grow))
        return self.pools[-1]

    def _memory(self, nbytes: int) -> int:
        if self.full:
            raise DriverError("planted: no memory")
        return nbytes

    @contextmanager
    def _using(self, allocator: Any) -> Iterator[None]:
        self.allocators.append(allocator)
        try:
            yield
        finally:
            self.allocators.pop()


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    fake = FakeCupy()
    monkeypatch.setattr(module, "cupy", lambda: fake)
    return fake


@pytest.fixture
def device(cupy: FakeCupy) -> Any:
    return SimpleNamespace(
        stream=Stream(), launches=5, name="planted GPU", memory=Memory(), processors=4,
        products=SimpleNamespace(workspaces=("scratch",)),
    )  # fmt: skip


def test_a_capture_launches_nothing_and_a_replay_one(device: Any) -> None:
    graphs = Graphs(device)
    arena = graphs.arena()

    def work() -> None:
        device.launches += 7

    with arena.opened():
        replay = graphs.capture(arena, work)
    assert (device.launches, replay.launches) == (5, 7)
    replay.launch()
    assert device.launches == 6
    assert device.stream.log == ["begin", "end", "upload", "launch"]
    assert replay._held == ("scratch",)


@pytest.mark.parametrize("broken", [False, True])
def test_an_error_ends_the_capture_and_is_the_one_that_is_raised(device: Any, broken: bool) -> None:
    graphs = Graphs(device)
    device.stream.broken = broken

    def work() -> None:
        device.launches += 3
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        graphs.capture(graphs.arena(), work)
    assert device.stream.log == ["begin", "end"]
    assert device.launches == 5


def test_what_cannot_be_captured_is_reported_with_a_way_out(device: Any) -> None:
    graphs = Graphs(device)
    device.stream.broken = True
    with pytest.raises(DeviceError, match=r"could not be captured.*invalidated.*'fused'"):
        graphs.capture(graphs.arena(), lambda: None)
    assert device.launches == 5


def test_a_graph_whose_memory_the_pool_let_go_of_is_not_used(device: Any, cupy: FakeCupy) -> None:
    graphs = Graphs(device)
    arena = graphs.arena()

    def work() -> None:
        cupy.allocators[-1](64)

    with arena.opened():
        graphs.capture(arena, work)
        cupy.full = True
        with pytest.raises(DeviceError, match="planted GPU ran out of memory while a step was captured"):
            graphs.capture(arena, work)


def test_all_of_an_arena_is_in_use_until_it_is_closed(device: Any, cupy: FakeCupy) -> None:
    arena = Graphs(device).arena()
    with arena.opened():
        cupy.allocators[-1](100)
        device.memory.allocate(100)
        cupy.pools[0].free = 60  # freed, and kept
        device.memory.free(60)
    assert cupy.allocators == []
    assert (arena.nbytes, device.memory.in_use_bytes) == (100, 100)
    arena.close()
    assert (arena.nbytes, device.memory.in_use_bytes) == (40, 40)


class Array:
    def __init__(self, shape: tuple[int, ...], dtype: str, pointer: int = 0, contiguous: bool = True) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.size = int(np.prod(shape))
        self.nbytes = self.size * self.dtype.itemsize
        self.strides = (self.dtype.itemsize,)
        self.data = SimpleNamespace(ptr=pointer)
        self.flags = SimpleNamespace(c_contiguous=contiguous)


@pytest.fixture
def started(device: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []
    device.kernels = SimpleNamespace(get=lambda *words: words)
    device.empty = lambda shape, dtype: Array(shape, dtype, 4096)
    monkeypatch.setattr(
        module, "launch", lambda _, kernel, grid, threads, *values: calls.append((kernel, grid, values))
    )
    return calls


def test_lengths_of_many_steps_take_several_launches(device: Any, started: list[tuple[Any, ...]]) -> None:
    state, vectors = Array((4,), "int64", 16), Array((70, 8), "float32", 64)
    held = Graphs(device).begin(state, vectors, tuple(float(step) for step in range(70)))
    assert (held.shape, held.dtype) == ((70,), np.float32)
    places, taken = [], []
    for (file, entry, _), _, values in started:
        assert (file, entry) == ("begin_steps.cu", "begin_steps_f32")
        places.append((values[:3], values[-2:]))
        assert len(values) == 3 + 64 + 2
        taken += values[3 : 3 + values[-1]]
    assert places == [((16, 64, 4096), (0, 64)), ((16, 64, 4096), (64, 6))]
    assert taken == list(range(70))


@pytest.mark.parametrize("vectors", [Array((4, 8), "float32", 8), Array((4, 8), "float32", 64, contiguous=False)])
def test_vectors_that_no_step_could_be_selected_from(device: Any, started: list[Any], vectors: Array) -> None:
    with pytest.raises(ArgumentError, match="contiguous vectors aligned to 16 bytes"):
        Graphs(device).begin(Array((4,), "int64"), vectors, (1.0,))
    assert not started


@pytest.mark.parametrize(
    ("shape", "pointer", "word", "words"), [((2, 8), 64, 16, 4), ((1, 3), 64, 2, 6), ((8,), 8, 2, 16)]
)
def test_slices_are_copied_in_words_that_fit(
    device: Any, started: list[Any], shape: tuple[int, ...], pointer: int, word: int, words: int
) -> None:
    Graphs(device).select(Array((4,), "int64", 16), Array(shape, "float32", pointer))
    (((file, entry, _), grid, values),) = started
    assert (file, entry, grid, values) == ("select_step.cu", f"select_step_b{word}", (1, 1), (16, pointer, words))


def test_a_velocity_that_does_not_fit(device: Any, started: list[Any]) -> None:
    state, latents = Array((4,), "int64", 16), Array((3, 300), "float32", 64)
    Graphs(device).advance(state, latents, Array((3, 300), "float32", 128))
    (((file, entry, _), grid, values),) = started
    assert (file, entry) == ("advance_latents.cu", "advance_latents_f32")
    assert (grid, values) == ((4, 1), (16, 64, 128, 900))
    for velocity in (Array((3, 299), "float32"), Array((3, 300), "float32", contiguous=False)):
        with pytest.raises(ArgumentError, match="expected a contiguous velocity"):
            Graphs(device).advance(state, latents, velocity)


@pytest.mark.parametrize("source", [Array((3,), "float32"), Array((2,), "int64")])
def test_a_copy_of_something_else(device: Any, source: Array) -> None:
    with pytest.raises(ArgumentError, match="Convert it first"):
        Graphs(device).copy(source, Array((2,), "float32"))
