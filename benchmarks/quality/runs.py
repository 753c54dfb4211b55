"""Runs that are compared: the same inputs, one forward for each step, and the latents after each step."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fluxperf.engine.checkpoints.sources import WeightSource
from fluxperf.engine.device.base import Device
from fluxperf.engine.executors import Request, Sampler
from fluxperf.workloads import Placed, Workload, drawn, placed

Numbers = npt.NDArray[Any]


class Inputs(NamedTuple):
    """Inputs of a generation, as float32 arrays on the host with values that bfloat16 can represent.

    ``latents`` [B, I, C], ``text`` [B, T, E], ``pooled`` [B, P]; ``sigmas`` steps + 1 noise levels; ``guidance`` for
    models that embed it; ``rows`` and ``columns`` of image tokens.
    """

    latents: Numbers
    text: Numbers
    pooled: Numbers
    sigmas: tuple[float, ...]
    guidance: float | None
    rows: int
    columns: int


class Run(Protocol):
    """An implementation with its weights loaded. Results are float64 arrays on the host."""

    def velocities(self, inputs: Inputs, latents: Sequence[Numbers]) -> list[Numbers]:
        """The velocity [B, I, C] at each step, from the given latents of that step."""

    def denoised(self, inputs: Inputs) -> list[Numbers]:
        """The latents [B, I, C] after each step of a generation of its own."""


class Reference(NamedTuple):
    """The reference run for one seed.

    ``latents`` before each step and after the last, ``velocities`` at each step.
    """

    inputs: Inputs
    latents: list[Numbers]
    velocities: list[Numbers]


class Ours:
    """A rung of fluxperf.

    Args:
        device: where it runs.
        sampler: runs its steps.
        model: computes its rotation tables: a placed rung, or a model.
        one_by_one: launch every op by itself, even where a step could be a graph.
    """

    def __init__(self, device: Device, sampler: Sampler, model: Any, one_by_one: bool = False) -> None:
        self._device, self._sampler, self._model = device, sampler, model
        self._on_forward = (lambda _: None) if one_by_one else None

    def velocities(self, inputs: Inputs, latents: Sequence[Numbers]) -> list[Numbers]:
        """See `Run`."""
        forwards = self._sampler.begin(self._request(inputs))
        return [self._down(forwards.velocity(self._up(x), step)) for step, x in enumerate(latents)]

    def denoised(self, inputs: Inputs) -> list[Numbers]:
        """See `Run`."""
        steps = self._sampler.start(self._up(inputs.latents), self._request(inputs), self._on_forward)
        found = []
        for _ in inputs.sigmas[1:]:
            steps.take()
            found.append(self._down(steps.latents()))
        return found

    def _request(self, inputs: Inputs) -> Request:
        rope = self._model.rope(inputs.text.shape[1], inputs.rows, inputs.columns)
        return Request(self._up(inputs.text), self._up(inputs.pooled), rope, inputs.sigmas, inputs.guidance)

    def _up(self, numbers: Numbers) -> Any:
        return self._device.door.to_device(np.ascontiguousarray(numbers, np.float32), "quality.inputs")

    def _down(self, array: Any) -> Numbers:
        return self._device.door.to_host(array, "quality.result").astype(np.float64)


@contextmanager
def alone(name: str, source: WeightSource, device: Device) -> Iterator[tuple[Placed, Ours]]:
    """A rung that is alone on a device: at the end its weights are released and the device is closed.

    Args:
        name: rung.
        source: weights.
        device: freshly opened.

    Raises:
        FluxperfError: the name is unknown, the weights do not fit, or the device cannot run the rung.
    """
    rung = placed(name, source, device)
    run = Ours(device, rung.sampler, rung)
    try:
        yield rung, run
    finally:
        run.__dict__.clear()
        rung.close()


def references(name: str, source: WeightSource, device: Device, workload: Workload, seeds: int) -> list[Reference]:
    """Runs of the reference for inputs drawn on its device from seeds 0, 1, ...; then releases it."""
    with alone(name, source, device) as (rung, run):
        found = []
        for seed in range(seeds):
            inputs = _drawn(rung, workload, seed)
            latents = [inputs.latents.astype(np.float64), *run.denoised(inputs)]
            found.append(Reference(inputs, latents, run.velocities(inputs, latents[:-1])))
            gc.collect()
        return found


def _drawn(rung: Placed, workload: Workload, seed: int) -> Inputs:
    """Inputs as `workloads.drawn` draws them, copied to the host."""
    prepared, down = drawn(rung, workload, seed), rung.device.door.to_host
    request = prepared.request
    arrays = (down(x, "quality.inputs") for x in (prepared.latents, request.text, request.pooled))
    return Inputs(*arrays, request.sigmas, request.guidance, workload.rows, workload.columns)
