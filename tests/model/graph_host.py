"""A host device that captures and replays: it replaces a GPU's graphs and follows their rules.

Captured work is recorded launch by launch: function, arguments, and the memory of the result. A replay repeats exactly
that in the same memory. So a value known at capture stays fixed, and an array that was not rewritten keeps its content.
When capturing ends, captured results are set to NaN, because nodes of a graph have not run then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fluxperf.engine.device.host import HostArray, HostDevice
from fluxperf.errors import DeviceError


class FakeArena:
    """Counts open regions; fails when a test tells it to."""

    def __init__(self, graphs: FakeGraphs) -> None:
        self._graphs = graphs
        self.nbytes, self.closed = 4096, False

    @contextmanager
    def opened(self) -> Iterator[None]:
        self._graphs.open += 1
        try:
            yield
        finally:
            self._graphs.open -= 1

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True


class FakeReplay:
    def __init__(self, device: GraphHost, arena: FakeArena, tape: list[Callable[[], None]]) -> None:
        self._device, self._arena, self._tape = device, arena, tape
        self.launches = len(tape)

    def launch(self) -> None:
        assert not self._arena.closed, "launched after its memory was given back"
        for node in self._tape:
            node()
        self._device.launches += 1


class FakeGraphs:
    def __init__(self, device: GraphHost) -> None:
        self._device = device
        #: Inputs of each generation, by the identity of its state: device memory that only launches read.
        self._begun: dict[int, list[Any]] = {}
        self.arenas: list[FakeArena] = []
        self.open = 0
        #: Shapes for which there is memory.
        self.room = 100

    def arena(self) -> FakeArena:
        self.arenas.append(FakeArena(self))
        return self.arenas[-1]

    def capture(self, arena: FakeArena, work: Callable[[], Any]) -> FakeReplay:
        assert self.open == 1, "captured outside of its arena"
        if sum(not one.closed for one in self.arenas) > self.room:
            raise DeviceError("planted: the memory is full")
        device = self._device
        before, tape = device.launches, []
        device.tape = tape
        try:
            work()
        finally:
            device.tape, device.launches = None, before
        for array in device.results:
            if array.dtype.kind != "i":
                array._data[...] = np.nan
        device.results.clear()
        return FakeReplay(device, arena, tape)

    def state(self) -> HostArray:
        return self._device.empty((4,), "float32")

    def begin(self, state: HostArray, vectors: HostArray, deltas: Sequence[float]) -> Any:
        assert self._device.tape is None
        self._begun[id(state)] = [0, vectors._data, np.array(deltas, np.float32)]
        return vectors

    def select(self, state: HostArray, out: HostArray) -> None:
        def node() -> None:
            step, vectors, _ = self._begun[id(state)]
            batch = len(out._data)
            out._data[...] = vectors[step * batch : (step + 1) * batch]

        self._device.give(node)

    def advance(self, state: HostArray, latents: HostArray, velocity: HostArray) -> None:
        def node() -> None:
            begun = self._begun[id(state)]
            latents._data[...] += begun[2][begun[0]] * velocity._data.astype(np.float32)
            begun[0] += 1

        self._device.give(node)

    def copy(self, source: HostArray, out: HostArray) -> None:
        assert (source.shape, source.dtype) == (out.shape, out.dtype)
        assert self._device.tape is None
        out._data[...] = source._data


class GraphHost(HostDevice):
    """A host device with graphs. ``launches`` counts twins, and a graph as one launch."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = 0
        self.tape: list[Callable[[], None]] | None = None
        self.results: list[HostArray] = []
        self._graphs = FakeGraphs(self)

    @property
    def graphs(self) -> FakeGraphs:
        return self._graphs

    def give(self, node: Callable[[], None]) -> None:
        """Runs work now, or in every replay if it is being captured."""
        self.launches += 1
        if self.tape is not None:
            self.tape.append(node)
        else:
            node()

    def launch(self, function: Callable[..., Any], *args: Any, out: Any = None, **options: Any) -> Any:
        result = super().launch(function, *args, out=out, **options)
        self.launches += 1
        if self.tape is not None:
            arrays = list(_arrays(result))
            self.results += [array for array in arrays if out is None and not _inside(array, args)]

            def node() -> None:
                again = function(*(self._open(arg) for arg in args), **options)
                for target, source in zip(arrays, _arrays(again), strict=True):
                    target._data[...] = source

            self.tape.append(node)
        return result


def _arrays(value: Any) -> Iterator[Any]:
    """Arrays of a result or an argument, including nested ones."""
    if isinstance(value, tuple):
        for part in value:
            yield from _arrays(part)
    elif isinstance(value, HostArray | np.ndarray):
        yield value


def _inside(array: HostArray, args: tuple[Any, ...]) -> bool:
    return any(np.may_share_memory(array._data, x._data) for x in _arrays(args) if isinstance(x, HostArray))
