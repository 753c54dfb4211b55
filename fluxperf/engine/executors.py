"""Executors: how the forwards of one image are run, from the same model.

``eager`` computes everything in every step, where it is needed; ``stacked`` too, but the modulation vectors of all
blocks in one product at the beginning of the step. ``captured`` first computes what does not depend on the image, for
all steps at once, and then replays the rest; on the host device a replay is an eager run of what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from fluxperf.engine.model.flux import Flux, Hoisted
from fluxperf.engine.ops.bind import Bound
from fluxperf.engine.ops.table import Array


class Request(NamedTuple):
    """What one generation is asked for, on the device.

    ``text`` [B, T, C], ``pooled`` [B, P], ``rope`` two tables [T + I, d], ``sigmas`` steps + 1 noise levels,
    ``guidance`` a scale for models that embed one.
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
    """Every step computes its conditioning, text tokens and modulations anew."""

    def __init__(self, model: Flux, request: Request) -> None:
        self._model, self._request = model, request

    def velocity(self, latents: Array, step: int) -> Array:
        """Velocity [B, I, C] at a step."""
        model, request = self._model, self._request
        temb = model.conditioning((request.sigmas[step],), request.pooled, request.guidance)
        txt = model.embed_text(request.text)
        return model.velocity(latents, txt, model.computed(temb), request.rope)


class StackedForwards(EagerForwards):
    """Every step computes conditioning and text tokens anew, and the modulations of all its blocks in one product."""

    def velocity(self, latents: Array, step: int) -> Array:
        """Velocity [B, I, C] at a step."""
        model, request = self._model, self._request
        temb = model.conditioning((request.sigmas[step],), request.pooled, request.guidance)
        modulate = Hoisted(model.all_modulations(temb), 0, request.text.shape[0])
        return model.velocity(latents, model.embed_text(request.text), modulate, request.rope)


class CapturedForwards:
    """Conditioning, text tokens and the modulations of all steps are computed once; steps run what is left."""

    def __init__(self, model: Flux, request: Request) -> None:
        self._model, self._rope, self._batch = model, request.rope, request.text.shape[0]
        temb = model.conditioning(request.sigmas[:-1], request.pooled, request.guidance)
        self._vectors = model.all_modulations(temb)
        self._txt = model.embed_text(request.text)

    def velocity(self, latents: Array, step: int) -> Array:
        """Velocity [B, I, C] at a step."""
        modulate = Hoisted(self._vectors, step, self._batch)
        return self._model.velocity(latents, self._txt, modulate, self._rope)


#: Devices that each executor runs on. Replaying a captured graph on CUDA is not written yet.
RUNS_ON: Mapping[str, tuple[str, ...]] = {
    "eager": ("host", "cuda"),
    "stacked": ("host", "cuda"),
    "captured": ("host",),
}

EXECUTORS: Mapping[str, Callable[[Flux, Request], Forwards]] = {
    "eager": EagerForwards,
    "stacked": StackedForwards,
    "captured": CapturedForwards,
}


class Sampler:
    """Euler steps of the flow-matching ODE: ``x += (sigma[i + 1] - sigma[i]) v``.

    Args:
        bound: the phase's ops, for the step itself.
        model: the transformer.
        executor: name of how forwards are run.
    """

    def __init__(self, bound: Bound, model: Flux, executor: str) -> None:
        self._bound, self._model, self._begin = bound, model, EXECUTORS[executor]
        self._step = bound.section("loop", lambda ops, x, v, delta: ops.euler_step(x, v, delta))

    def begin(self, request: Request) -> Forwards:
        """The forwards of a request; does what an executor does once per image."""
        return self._begin(self._model, request)

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
            request: the rest.
            on_step: called with the index of each step when it has been given to the device.
            on_forward: the same of each forward, before its Euler step.
            steps: how many of the request's steps to take, all if not given.
        """
        forwards = self.begin(request)
        levels = list(zip(request.sigmas, request.sigmas[1:], strict=False))
        for step, (sigma, following) in enumerate(levels[:steps]):
            with self._bound.span("step", step):
                velocity = forwards.velocity(latents, step)
                if on_forward is not None:
                    on_forward(step)
                latents = self._step(latents, velocity, following - sigma)
            if on_step is not None:
                on_step(step)
        return latents
