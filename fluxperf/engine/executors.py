"""Executors: strategies to run the forwards of one image, from the same model.

``eager`` computes everything in every step, where it is needed. ``stacked`` does too, but computes the modulation
vectors of all blocks in one product at the begin of the step. ``captured`` first computes what does not depend on the
image, for all steps at once, and runs the rest in each step. Where the device has graphs and nothing observes the run,
this rest and the Euler step are a graph that is launched once per step. Observed or not, results are bit-identical.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from fluxperf.engine.model.flux import Flux, Hoisted
from fluxperf.engine.ops.bind import Bound
from fluxperf.engine.ops.table import Array
from fluxperf.engine.replays import GraphInfo, Inputs, Replayed, Replays
from fluxperf.errors import ArgumentError


class Request(NamedTuple):
    """Inputs of one generation, on the device.

    ``text`` [B, T, C], ``pooled`` [B, P], ``rope`` two tables [T + I, d], ``sigmas`` steps + 1 noise levels,
    ``guidance`` a guidance scale for models that embed one.
    """

    text: Array
    pooled: Array
    rope: tuple[Array, Array]
    sigmas: tuple[float, ...]
    guidance: float | None


class Forwards(Protocol):
    """The forwards of one generation."""

    def velocity(self, latents: Array, step: int) -> Array:
        """Velocity [B, I, C] at a step."""


class EagerForwards:
    """Every step recomputes conditioning, text tokens and modulations."""

    def __init__(self, model: Flux, request: Request) -> None:
        self._model, self._request = model, request

    def velocity(self, latents: Array, step: int) -> Array:
        """Velocity [B, I, C] at a step."""
        model, request = self._model, self._request
        temb = model.conditioning((request.sigmas[step],), request.pooled, request.guidance)
        txt = model.embed_text(request.text)
        return model.velocity(latents, txt, model.computed(temb), request.rope)


class StackedForwards(EagerForwards):
    """Every step recomputes conditioning and text tokens, and the modulations of all its blocks in one product."""

    def velocity(self, latents: Array, step: int) -> Array:
        """Velocity [B, I, C] at a step."""
        model, request = self._model, self._request
        temb = model.conditioning((request.sigmas[step],), request.pooled, request.guidance)
        modulate = Hoisted(model.all_modulations(temb), 0, request.text.shape[0])
        return model.velocity(latents, model.embed_text(request.text), modulate, request.rope)


class CapturedForwards:
    """Conditioning, text tokens and the modulations of all steps are computed once; each step computes the rest."""

    def __init__(self, model: Flux, request: Request) -> None:
        self._model, self._rope, self._batch = model, request.rope, request.text.shape[0]
        temb = model.conditioning(request.sigmas[:-1], request.pooled, request.guidance)
        #: Modulation vectors [S B, all rows] of all steps; by first row if they are in pieces. Text tokens [B, T, D].
        self.vectors = model.all_modulations(temb)
        self.txt = model.embed_text(request.text)

    def velocity(self, latents: Array, step: int) -> Array:
        """Velocity [B, I, C] at a step."""
        modulate = Hoisted(self.vectors, step, self._batch)
        return self._model.velocity(latents, self.txt, modulate, self._rope)


class Steps(Protocol):
    """The Euler steps of one generation, taken one after the other."""

    @property
    def graph(self) -> GraphInfo | None:
        """The graph that is launched for a step; ``None`` if every op is launched by itself."""

    def take(self) -> None:
        """Submits the next step to the device."""

    def latents(self) -> Array:
        """Latents [B, I, C] float32 after the steps so far."""

    def rewind(self) -> None:
        """Restarts from the noise; values that are computed once per image are kept."""


class _EulerSteps:
    """A forward followed by an Euler step of its own.

    Args:
        forwards: of the generation.
        euler: computes ``latents + delta velocity``.
        latents: noise.
        deltas: step lengths.
        on_forward: called with the index of each forward, before its Euler step.
    """

    graph: GraphInfo | None = None

    def __init__(
        self,
        forwards: Forwards,
        euler: Callable[[Array, Array, float], Array],
        latents: Array,
        deltas: tuple[float, ...],
        on_forward: Callable[[int], Any] | None = None,
    ) -> None:
        self._forwards, self._euler, self._noise, self._latents = forwards, euler, latents, latents
        self._deltas, self._on_forward, self._taken = deltas, on_forward, 0

    def take(self) -> None:
        velocity = self._forwards.velocity(self._latents, self._taken)
        if self._on_forward is not None:
            self._on_forward(self._taken)
        self._latents = self._euler(self._latents, velocity, self._deltas[self._taken])
        self._taken += 1

    def latents(self) -> Array:
        return self._latents

    def rewind(self) -> None:
        self._latents, self._taken = self._noise, 0


EXECUTORS: Mapping[str, Callable[[Flux, Request], Forwards]] = {
    "eager": EagerForwards,
    "stacked": StackedForwards,
    "captured": CapturedForwards,
}


class Sampler:
    """Euler steps of the flow-matching ODE: ``x += (sigma[i + 1] - sigma[i]) v``.

    Args:
        bound: the phase's ops; the step itself uses one of them.
        model: the transformer.
        executor: name of the strategy for forwards.
        capture: whether steps may be captured. Steps that copy weights may not.
    """

    def __init__(self, bound: Bound, model: Flux, executor: str, capture: bool = True) -> None:
        self._bound, self._model, self._begin = bound, model, EXECUTORS[executor]
        #: Computes ``latents + delta velocity`` from arrays on the device.
        self.step = bound.section("loop", lambda ops, x, v, delta: ops.euler_step(x, v, delta))
        graphs = capture and executor == "captured" and bound.device.graphs is not None
        #: Captured steps; ``None`` if every op is launched by itself.
        self._replays = Replays(model, bound) if graphs and not bound.observers else None

    @property
    def replays(self) -> bool:
        """Whether a step is one graph launch."""
        return self._replays is not None

    def begin(self, request: Request) -> Forwards:
        """The forwards of a request, op by op. Computes what the executor computes once per image."""
        return self._begin(self._model, request)

    def start(self, latents: Array, request: Request, on_forward: Callable[[int], Any] | None = None) -> Steps:
        """The steps of a generation. Computes what the executor computes once per image.

        Args:
            latents: noise [B, I, C] in float32.
            request: the other inputs.
            on_forward: called with the index of each forward, before its Euler step. Ops are then launched one by one,
                as a graph cannot call it between the two.
        """
        deltas = tuple(following - sigma for sigma, following in zip(request.sigmas, request.sigmas[1:], strict=False))
        forwards = self.begin(request)
        if self._replays is None or on_forward is not None or not isinstance(forwards, CapturedForwards):
            return _EulerSteps(forwards, self.step, latents, deltas, on_forward)
        vectors: Any = forwards.vectors  # whole, not in pieces: weights in pieces are never captured
        return self._replays.start(Inputs(latents, forwards.txt, vectors, request.rope, deltas))

    def denoise(
        self,
        latents: Array,
        request: Request,
        on_step: Callable[[int], Any] | None = None,
        on_forward: Callable[[int], Any] | None = None,
        steps: int | None = None,
    ) -> Array:
        """Final latents [B, I, C] in float32, or those after the first ``steps``.

        Args:
            latents: noise [B, I, C] in float32.
            request: the other inputs.
            on_step: called with the index of each step after it was submitted to the device.
            on_forward: called with the index of each forward, before its Euler step.
            steps: number of steps to take; all of the request's if ``None``.
        """
        taken = self.start(latents, request, on_forward)
        number = len(request.sigmas) - 1
        self.take(taken, number if steps is None else min(steps, number), on_step)
        return taken.latents()

    def take(self, steps: Steps, number: int, on_step: Callable[[int], Any] | None = None) -> None:
        """Takes steps of a generation, which another sampler may have started, and reports each one to the observers.

        Args:
            steps: of the generation.
            number: how many to take.
            on_step: called with the index of each step after it was submitted to the device, counted from this call on.
        """
        for step in range(number):
            with self._bound.span("step", step):
                steps.take()
            if on_step is not None:
                on_step(step)

    def recapture(self, steps: Steps) -> None:
        """Captures the graph of a generation's steps again, from this sampler's ops; its observers see each op.

        Nothing is launched, so observers may mark and count, but not time. Observers see nothing of later replays.

        Args:
            steps: of a sampler with the same rung and weights that `replays`.

        Raises:
            ArgumentError: the steps are not graph launches, or another generation of their shape has begun.
            DeviceError: the memory is full, or something cannot be captured.
        """
        if not isinstance(steps, Replayed):
            raise ArgumentError(
                "recapture: expected steps that are graph launches, got steps that launch every op. Start them with "
                "a sampler that replays."
            )
        steps.recapture(self._model, self._bound)
