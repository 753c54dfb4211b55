"""Runs of rungs: inputs, a bound rung, one velocity, a whole denoising."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fluxperf.engine.checkpoints.sources import WeightSource, place
from fluxperf.engine.config import FluxConfig
from fluxperf.engine.device.base import Device
from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.executors import EXECUTORS, Request, Sampler
from fluxperf.engine.model.flux import Flux
from fluxperf.engine.model.schedule import sigmas
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.ops.table import OP_NAMES
from fluxperf.engine.phases import PHASES, Phase, phase_named, table
from tests.model.weight_files import as_bfloat16

RUNGS = tuple(phase.name for phase in PHASES)
FLOAT32_RUNGS = tuple(phase.name for phase in PHASES if phase.activations == "float32")
BFLOAT16_RUNGS = tuple(phase.name for phase in PHASES if phase.activations == "bfloat16" and not phase.e4m3)
ORACLE = Phase("oracle", "", "every op in float64", {}, activations="float64")


class Case(NamedTuple):
    """Sizes of one request."""

    batch: int
    text_tokens: int
    rows: int
    columns: int

    @property
    def image_tokens(self) -> int:
        return self.rows * self.columns

    def __str__(self) -> str:
        return f"b{self.batch}-t{self.text_tokens}-{self.rows}x{self.columns}"


class Moment(NamedTuple):
    """One step of a schedule; guidance counts for models that embed it."""

    sigmas: tuple[float, ...]
    step: int
    guidance: float

    @property
    def sigma(self) -> float:
        return self.sigmas[self.step]


#: 1000 t and 1000 g are exact in bfloat16 here (1000 = 125 * 8, 500 = 125 * 4, 4000 = 125 * 32): diffusers rounds them.
FAIR = (Moment((1.0, 0.5, 0.0), 0, 4.0), Moment((1.0, 0.5, 0.0), 1, 4.0))


def scheduled(config: FluxConfig, case: Case) -> Moment:
    """The second of four steps, at the guidance of dev's model card."""
    return Moment(sigmas(4, case.image_tokens, config.guidance), 1, 3.5)


class Inputs(NamedTuple):
    """Latents [B, I, C], text [B, T, E], pooled text [B, P]: float32 numbers that bfloat16 can hold."""

    latents: np.ndarray
    text: np.ndarray
    pooled: np.ndarray


def inputs(config: FluxConfig, case: Case, seed: int = 0) -> Inputs:
    """Normal numbers for a model and a case."""
    rng = np.random.default_rng([seed, *case])
    latents, text = (case.image_tokens, config.in_channels), (case.text_tokens, config.text_dim)
    shapes = ((case.batch, *rest) for rest in (latents, text, (config.pooled_dim,)))
    return Inputs(*(as_bfloat16(rng.standard_normal(shape)) for shape in shapes))


class Rung:
    """A rung with weights, on a new or a given host device.

    Args:
        name: a rung of the ladder, or ``"oracle"`` for every op in float64.
        source: the weights.
        observers: makes observers for the device.
        device: where it runs; a new host device if ``None``.
        settings: changes to the rung's settings.
    """

    def __init__(
        self,
        name: str,
        source: WeightSource,
        observers: Callable[[Device], Sequence[Any]] = lambda device: (),
        device: Device | None = None,
        **settings: Any,
    ) -> None:
        self.phase = ORACLE if name == "oracle" else phase_named(name)
        rows = dict.fromkeys(OP_NAMES, "oracle") if name == "oracle" else table(name)
        self.config, self.device = source.config, device or HostDevice()
        self.observers = tuple(observers(self.device))
        self.bound = bind(name, rows, self.device, self.phase.settings._replace(**settings), self.observers)
        weights = place(source, self.bound, self.phase.activations, self.phase.e4m3)
        self.model = Flux(self.config, weights, self.bound)
        self.sampler = Sampler(self.bound, self.model, self.phase.executor)

    def request(self, given: Inputs, case: Case, levels: tuple[float, ...], guidance: float) -> Request:
        """The request on the device."""
        upload = self.device.door.to_device
        rope = self.model.rope(case.text_tokens, case.rows, case.columns)
        scale = guidance if self.config.guidance else None
        return Request(upload(given.text, "text"), upload(given.pooled, "pooled"), rope, levels, scale)

    def upload(self, numbers: np.ndarray) -> Any:
        return self.device.door.to_device(numbers, "latents")

    def download(self, array: Any) -> np.ndarray:
        return self.device.door.to_host(array, "result").astype(np.float64)

    def velocity(self, given: Inputs, case: Case, moment: Moment) -> np.ndarray:
        """Velocity of one forward, in float64."""
        request = self.request(given, case, moment.sigmas, moment.guidance)
        forwards = EXECUTORS[self.phase.executor](self.model, request)
        return self.download(forwards.velocity(self.upload(given.latents), moment.step))

    def denoised(self, given: Inputs, case: Case, steps: int, guidance: float) -> np.ndarray:
        """Final latents of a whole schedule, in float64."""
        request = self.request(given, case, sigmas(steps, case.image_tokens, self.config.guidance), guidance)
        return self.download(self.sampler.denoise(self.upload(given.latents), request))


def relative_error(result: np.ndarray, reference: np.ndarray) -> float:
    """``|result - reference| / |reference|``, Frobenius norms; the shapes must agree."""
    if result.shape != reference.shape:
        raise AssertionError(f"shape {result.shape}, expected {reference.shape}")
    return float(np.linalg.norm(result - reference) / np.linalg.norm(reference))
