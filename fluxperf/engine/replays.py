"""Replays: a step of the model is captured as a graph, once per shape, and launched for every step of every image.

The inputs of a step lie at fixed addresses and are rewritten for every generation: latents, text tokens, rotations, and
a state. The state holds the index of the next step, the address of the modulation vectors of all steps, and the length
of each step. So a graph serves any prompt, seed, schedule and number of steps; each shape has a graph of its own.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import NamedTuple

from fluxperf.engine.model.flux import Flux, Hoisted
from fluxperf.engine.ops.bind import Bound
from fluxperf.engine.ops.table import Array
from fluxperf.errors import ArgumentError, DeviceError

#: Number of captured shapes that are kept. A new shape replaces the one that was not used for the longest time.
KEPT = 4


class Inputs(NamedTuple):
    """Inputs of a generation, on the device.

    ``latents`` [B, I, C] float32, ``txt`` [B, T, D] embedded text, ``vectors`` [S B, all rows] modulations of all
    steps, ``rope`` two tables [T + I, d], ``deltas`` S step lengths.
    """

    latents: Array
    txt: Array
    vectors: Array
    rope: tuple[Array, Array]
    deltas: tuple[float, ...]


class GraphInfo(NamedTuple):
    """A captured graph: launches inside it, bytes of its arena, seconds to capture it, including the first run."""

    launches: int
    arena_bytes: int
    capture_s: float


class _Shape:
    """The step of one shape as a graph, and the memory that it reads and writes.

    Args:
        model: without observers.
        bound: its ops; the device has graphs.
        inputs: of the generation that the graph is captured for.

    Raises:
        DeviceError: the memory is full, or something cannot be captured.
    """

    def __init__(self, model: Flux, bound: Bound, inputs: Inputs) -> None:
        start_s = time.perf_counter()
        device = bound.device
        self._device, self._graphs = device, device.graphs
        self._batch = inputs.latents.shape[0]
        #: The generation whose inputs are in the graph's memory.
        self.turn = 0
        self._arena = self._graphs.arena()
        try:
            with self._arena.opened():
                self.latents = self._like(inputs.latents)
                self._txt = self._like(inputs.txt)
                self._rope = self._like(inputs.rope[0]), self._like(inputs.rope[1])
                self._vectors = device.empty((self._batch, inputs.vectors.shape[1]), str(inputs.vectors.dtype))
                self._state = self._graphs.state()
                held = self.begin(inputs)
                self._step(model, bound)  # compiles kernels, chooses algorithms, and lets the arena allocate its memory
                device.synchronize()
                self.replay = self._graphs.capture(self._arena, lambda: self._step(model, bound))
        except BaseException:
            self._release()
            raise
        del held
        self.info = GraphInfo(self.replay.launches, self._arena.nbytes, time.perf_counter() - start_s)

    def recapture(self, model: Flux, bound: Bound) -> None:
        """Captures the step again, in the same memory. If that fails, the previous graph stays.

        Args:
            model: with the same weights; its observers see the captured ops.
            bound: its ops.

        Raises:
            DeviceError: the memory is full, or something cannot be captured.
        """
        start_s = time.perf_counter()
        self._device.synchronize()  # the graph that is replaced may still be running
        with self._arena.opened():
            self.replay = self._graphs.capture(self._arena, lambda: self._step(model, bound))
        self.info = GraphInfo(self.replay.launches, self._arena.nbytes, time.perf_counter() - start_s)

    def begin(self, inputs: Inputs) -> tuple[Array, Array]:
        """Writes a generation's inputs to the graph's memory; returns arrays that must be held until the last step."""
        self.turn += 1
        copy = self._graphs.copy
        copy(inputs.txt, self._txt)
        for source, target in zip(inputs.rope, self._rope, strict=True):
            copy(source, target)
        return self.rewind(inputs)

    def rewind(self, inputs: Inputs) -> tuple[Array, Array]:
        """Writes the noise and the first step again; returns arrays that must be held.

        Steps do not change the other inputs.
        """
        self._graphs.copy(inputs.latents, self.latents)
        return inputs.vectors, self._graphs.begin(self._state, inputs.vectors, inputs.deltas)

    def result(self) -> Array:
        """A copy of the latents, because the next generation overwrites them."""
        latents: Array = self._like(self.latents)
        self._graphs.copy(self.latents, latents)
        return latents

    def close(self) -> None:
        """Releases the memory after the last launch is complete."""
        self.turn += 1
        self._device.synchronize()
        self._release()

    def _release(self) -> None:
        """Releases first the graph, then the arrays in the arena, then the arena."""
        for name in ("replay", "latents", "_txt", "_rope", "_vectors", "_state"):
            self.__dict__.pop(name, None)
        self._arena.close()

    def _step(self, model: Flux, bound: Bound) -> None:
        bound.beside_table("loop", "select_step", self._graphs.select)(self._state, self._vectors)
        modulate = Hoisted(self._vectors, 0, self._batch)
        velocity = model.velocity(self.latents, self._txt, modulate, self._rope)
        bound.beside_table("loop", "euler_step", self._graphs.advance)(self._state, self.latents, velocity)

    def _like(self, array: Array) -> Array:
        empty: Array = self._device.empty(array.shape, str(array.dtype))
        return empty


class Replayed:
    """The steps of one generation, one graph launch each. See `executors.Steps`."""

    def __init__(self, shape: _Shape, inputs: Inputs) -> None:
        self._shape, self._inputs, self._left = shape, inputs, len(inputs.deltas)
        self._held = shape.begin(inputs)
        self._turn = shape.turn
        #: The graph of a step.
        self.graph: GraphInfo | None = shape.info

    def recapture(self, model: Flux, bound: Bound) -> None:
        """Captures the step of this shape again, from a model whose observers see the captured ops; launches nothing.

        Raises:
            ArgumentError: another generation of this shape has begun meanwhile.
            DeviceError: the memory is full, or something cannot be captured.
        """
        self._check()
        self._shape.recapture(model, bound)
        self.graph = self._shape.info

    def take(self) -> None:
        """Submits the next step.

        Raises:
            ArgumentError: no step is left, or another generation of this shape has begun.
        """
        self._check()
        if not self._left:
            raise ArgumentError("take: expected a remaining step, but all were taken. Start another generation.")
        self._left -= 1
        self._shape.replay.launch()

    def rewind(self) -> None:
        """Restarts from the noise; values that are computed once per image are kept.

        Raises:
            ArgumentError: another generation of this shape has begun meanwhile.
        """
        self._check()
        self._held, self._left = self._shape.rewind(self._inputs), len(self._inputs.deltas)

    def latents(self) -> Array:
        """Latents [B, I, C] float32 after the steps so far, as an array of their own.

        Raises:
            ArgumentError: another generation of this shape has begun meanwhile.
        """
        self._check()
        return self._shape.result()

    def _check(self) -> None:
        if self._turn != self._shape.turn:
            raise ArgumentError(
                "replay: expected the latest generation of its shape, but another one has begun in the same memory. "
                "Take all steps of one generation before you start the next."
            )


class Replays:
    """Captured steps of a model, for the most recently used shapes.

    Args:
        model: without observers.
        bound: its ops; the device has graphs.
        kept: number of shapes.
    """

    def __init__(self, model: Flux, bound: Bound, kept: int = KEPT) -> None:
        self._model, self._bound, self._kept = model, bound, kept
        self._shapes: OrderedDict[tuple[tuple[int, ...], ...], _Shape] = OrderedDict()

    def start(self, inputs: Inputs) -> Replayed:
        """The steps of a generation; captures the graph of its shape first if it is new.

        Raises:
            DeviceError: the memory is full, or something cannot be captured.
        """
        key = inputs.latents.shape, inputs.txt.shape
        shape = self._shapes.get(key)
        if shape is None:
            while len(self._shapes) >= self._kept:
                self._drop()
            shape = self._shapes[key] = self._captured(inputs)
        self._shapes.move_to_end(key)
        return Replayed(shape, inputs)

    def _captured(self, inputs: Inputs) -> _Shape:
        try:
            return _Shape(self._model, self._bound, inputs)
        except DeviceError:
            if not self._shapes:
                raise
        while self._shapes:  # the memory of other shapes may be what this one lacks
            self._drop()
        return _Shape(self._model, self._bound, inputs)

    def _drop(self) -> None:
        _, oldest = self._shapes.popitem(last=False)
        oldest.close()
