"""Replays: a step of the model captured as a graph, once per shape, and launched for every step of every image.

What a step reads lies at fixed places, which are written anew for every generation: latents, text tokens, rotations,
and a state that says which step is next, where the modulation vectors of all steps lie, and how long each step is. So
a graph serves any prompt, seed, schedule and number of steps; other shapes get a graph of their own.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import NamedTuple

from fluxperf.engine.model.flux import Flux, Hoisted
from fluxperf.engine.ops.bind import Bound
from fluxperf.engine.ops.table import Array
from fluxperf.errors import ArgumentError, DeviceError

#: Shapes that are kept captured; the one not used for longest makes room for the next.
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
    """A captured graph: launches inside it, bytes of its arena, seconds to capture it, first run included."""

    launches: int
    arena_bytes: int
    capture_s: float


class _Shape:
    """The step of one shape as a graph, and the places that it reads and writes.

    Args:
        model: unobserved.
        bound: its ops; the device has graphs.
        inputs: of the generation that it is captured for.

    Raises:
        DeviceError: the memory is full, or something cannot be captured.
    """

    def __init__(self, model: Flux, bound: Bound, inputs: Inputs) -> None:
        start_s = time.perf_counter()
        device = bound.device
        self._device, self._graphs = device, device.graphs
        self._batch = inputs.latents.shape[0]
        #: Which generation the places belong to.
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
                self._step(model, bound)  # compiles, chooses algorithms, and gives the arena its memory
                device.synchronize()
                self.replay = self._graphs.capture(self._arena, lambda: self._step(model, bound))
        except BaseException:
            self._release()
            raise
        del held
        self.info = GraphInfo(self.replay.launches, self._arena.nbytes, time.perf_counter() - start_s)

    def recapture(self, model: Flux, bound: Bound) -> None:
        """Captures the step again, in the same memory; what was captured before stays if that fails.

        Args:
            model: of the same weights; its observers are told of what is captured.
            bound: its ops.

        Raises:
            DeviceError: the memory is full, or something cannot be captured.
        """
        start_s = time.perf_counter()
        self._device.synchronize()  # the graph that goes may be under way
        with self._arena.opened():
            self.replay = self._graphs.capture(self._arena, lambda: self._step(model, bound))
        self.info = GraphInfo(self.replay.launches, self._arena.nbytes, time.perf_counter() - start_s)

    def begin(self, inputs: Inputs) -> tuple[Array, Array]:
        """Writes what a generation starts from to the places that the graph reads; returns what must be held."""
        self.turn += 1
        copy = self._graphs.copy
        copy(inputs.txt, self._txt)
        for source, target in zip(inputs.rope, self._rope, strict=True):
            copy(source, target)
        return self.rewind(inputs)

    def rewind(self, inputs: Inputs) -> tuple[Array, Array]:
        """Writes the noise and the first step again; returns what must be held. No launch changes the rest."""
        self._graphs.copy(inputs.latents, self.latents)
        return inputs.vectors, self._graphs.begin(self._state, inputs.vectors, inputs.deltas)

    def result(self) -> Array:
        """A copy of the latents, which the next generation overwrites."""
        latents: Array = self._like(self.latents)
        self._graphs.copy(self.latents, latents)
        return latents

    def close(self) -> None:
        """Gives its memory back when its last launch is done."""
        self.turn += 1
        self._device.synchronize()
        self._release()

    def _release(self) -> None:
        """Lets go of the graph first, then of what lies in the arena, then of the arena."""
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
    """The steps of one generation, a launch each. See `executors.Steps`."""

    def __init__(self, shape: _Shape, inputs: Inputs) -> None:
        self._shape, self._inputs, self._left = shape, inputs, len(inputs.deltas)
        self._held = shape.begin(inputs)
        self._turn = shape.turn
        #: What is launched for a step.
        self.graph: GraphInfo | None = shape.info

    def recapture(self, model: Flux, bound: Bound) -> None:
        """Captures the step of this shape again, from a model whose observers are told of it; nothing is launched.

        Raises:
            ArgumentError: another generation of this shape has begun meanwhile.
            DeviceError: the memory is full, or something cannot be captured.
        """
        self._check()
        self._shape.recapture(model, bound)
        self.graph = self._shape.info

    def take(self) -> None:
        """Takes the next step.

        Raises:
            ArgumentError: there is none, or another generation of this shape has begun meanwhile.
        """
        self._check()
        if not self._left:
            raise ArgumentError("take: expected a step that is left, but all were taken. Start another generation.")
        self._left -= 1
        self._shape.replay.launch()

    def rewind(self) -> None:
        """Begins again from the noise, without what is done once per image.

        Raises:
            ArgumentError: another generation of this shape has begun meanwhile.
        """
        self._check()
        self._held, self._left = self._shape.rewind(self._inputs), len(self._inputs.deltas)

    def latents(self) -> Array:
        """Latents [B, I, C] float32 behind the steps so far, an array of their own.

        Raises:
            ArgumentError: another generation of this shape has begun meanwhile.
        """
        self._check()
        return self._shape.result()

    def _check(self) -> None:
        if self._turn != self._shape.turn:
            raise ArgumentError(
                "replay: expected the latest generation of its shape, but another one has begun since, in the same "
                "memory. Take all steps of one before the next."
            )


class Replays:
    """Captured steps of a model, the latest few shapes.

    Args:
        model: unobserved.
        bound: its ops; the device has graphs.
        kept: how many shapes.
    """

    def __init__(self, model: Flux, bound: Bound, kept: int = KEPT) -> None:
        self._model, self._bound, self._kept = model, bound, kept
        self._shapes: OrderedDict[tuple[tuple[int, ...], ...], _Shape] = OrderedDict()

    def start(self, inputs: Inputs) -> Replayed:
        """The steps of a generation; captures its shape first, if it is new.

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
        while self._shapes:  # their memory may be what is missing
            self._drop()
        return _Shape(self._model, self._bound, inputs)

    def _drop(self) -> None:
        _, oldest = self._shapes.popitem(last=False)
        oldest.close()
