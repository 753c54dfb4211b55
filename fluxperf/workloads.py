"""Workloads: converts a name or sizes into a rung that is ready to run on a device, with weights and inputs."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from fluxperf.budgets import Budget, plan_of
from fluxperf.engine.checkpoints.sources import SyntheticWeights, WeightSource, place
from fluxperf.engine.config import config_named
from fluxperf.engine.device import open_device
from fluxperf.engine.device.base import Device
from fluxperf.engine.device.observers import NvtxRanges, Observer
from fluxperf.engine.executors import Request, Sampler, Steps
from fluxperf.engine.model.flux import Flux
from fluxperf.engine.model.schedule import sigmas
from fluxperf.engine.model.weights import parameters
from fluxperf.engine.ops.bind import bind, missing
from fluxperf.engine.ops.table import OP_NAMES
from fluxperf.engine.phases import Phase, phase_named, table
from fluxperf.engine.residence.placing import place_within
from fluxperf.engine.residence.plan import Plan, Sizes
from fluxperf.errors import BindError, ConfigError, DeviceError, UnknownNameError
from fluxperf.harness.measure.environment import memory_bytes
from fluxperf.harness.records import LoadRow

#: Pixels per image token along each side: the VAE's 8, times patches of 2.
PIXELS_PER_TOKEN = 16

#: Guidance scale of models that embed one; the default of the FLUX.1-dev model card.
GUIDANCE = 3.5

#: Models up to this number of parameters are checked against the float64 oracle, which costs about ten of their
#: forwards.
ORACLE_PARAMETERS = 50_000_000


@dataclass(frozen=True)
class Workload:
    """A model, and sizes in pixels, tokens and steps.

    ``repeats`` is for models with short steps: a timed sample is then this number of generations back to back, without
    work that is done once per image. 0 times single whole generations.
    """

    name: str
    model: str
    height: int
    width: int
    text_tokens: int
    steps: int
    batch: int = 1
    repeats: int = 0

    def __post_init__(self) -> None:
        for field in ("height", "width"):
            value = getattr(self, field)
            if value <= 0 or value % PIXELS_PER_TOKEN:
                near = max(PIXELS_PER_TOKEN, round(value / PIXELS_PER_TOKEN) * PIXELS_PER_TOKEN)
                raise ConfigError(
                    f"--{field} {value}: expected a positive multiple of {PIXELS_PER_TOKEN} pixels "
                    f"(one image token is {PIXELS_PER_TOKEN} x {PIXELS_PER_TOKEN}); use {near}."
                )
        for field in ("text_tokens", "steps", "batch"):
            if getattr(self, field) < 1:
                raise ConfigError(f"--{field.replace('_', '-')} {getattr(self, field)}: expected at least 1.")

    @property
    def rows(self) -> int:
        """Image tokens down."""
        return self.height // PIXELS_PER_TOKEN

    @property
    def columns(self) -> int:
        """Image tokens across."""
        return self.width // PIXELS_PER_TOKEN

    @property
    def sizes(self) -> Sizes:
        """Sizes of its forwards, for a memory budget."""
        tokens = self.rows * self.columns + self.text_tokens
        return Sizes(tokens, self.text_tokens, self.batch, self.steps)


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload("tiny", "tiny", 128, 128, 16, 4),
        Workload("tiny-dev", "tiny-dev", 128, 128, 16, 28),
        Workload("tiny-57", "tiny-57", 128, 128, 16, 4),
        Workload("schnell-512", "schnell", 512, 512, 512, 4),
        Workload("schnell-1024", "schnell", 1024, 1024, 512, 4),
        Workload("schnell-1024-blocks", "schnell-blocks", 1024, 1024, 512, 4, repeats=16),
        Workload("schnell-1024-t256", "schnell", 1024, 1024, 256, 4),
        Workload("dev-1024", "dev", 1024, 1024, 512, 28),
    )
}

#: The workload of the published baseline and of every target.
HEADLINE = "schnell-1024"


def workload_named(name: str, **sizes: int | None) -> Workload:
    """The workload with a name. Given sizes replace its own and make it "custom".

    Raises:
        UnknownNameError: there is none; lists the known ones.
        ConfigError: an invalid size.
    """
    if name not in WORKLOADS:
        raise UnknownNameError("workload", name, WORKLOADS)
    base = WORKLOADS[name]
    changed = {field: value for field, value in sizes.items() if value is not None and value != getattr(base, field)}
    return replace(base, name="custom", **changed) if changed else base  # type: ignore[arg-type]


class Placed:
    """One rung with a model's weights on a device. Weights are placed once; runs may be observed or not.

    Args:
        device: the device.
        phase: the rung.
        rows: its table.
        source: weights.
        observers: observers of timed runs (NVTX ranges).
        budget: of device memory, if there is one.
        plan: of that budget.
    """

    def __init__(
        self,
        device: Device,
        phase: Phase,
        rows: dict[str, str],
        source: WeightSource,
        observers: Sequence[Observer] = (),
        budget: Budget | None = None,
        plan: Plan | None = None,
    ) -> None:
        self.device, self.phase, self.rows, self.source = device, phase, rows, source
        self.observers, self.budget, self.plan = tuple(observers), budget, plan
        bound = bind(phase.name, rows, device, phase.settings, observers)
        start_s = time.perf_counter()
        if plan is None:
            self._weights = place(source, bound, phase.activations, phase.e4m3)
        else:
            self._weights = place_within(source, bound, phase.activations, phase.e4m3, plan)
        seconds = time.perf_counter() - start_s
        #: Time and size of loading, or ``None`` if no weights were read from files.
        self.load = LoadRow(bytes=source.stored_bytes, time_s=seconds) if source.stored_bytes else None
        self._model = Flux(source.config, self._weights, bound)
        #: Runs the steps, unobserved but for ``observers``.
        self.sampler = Sampler(bound, self._model, phase.executor, capture=plan is None)

    def close(self) -> None:
        """Frees the weights, and closes the device."""
        del self._weights, self._model, self.sampler
        gc.collect()
        self.device.close()

    def observed(self, *observers: Observer) -> Sampler:
        """The same rung and weights with observers attached."""
        bound = bind(self.phase.name, self.rows, self.device, self.phase.settings, observers)
        model = Flux(self.source.config, self._weights, bound)
        return Sampler(bound, model, self.phase.executor, capture=self.plan is None)

    def rope(self, text_tokens: int, rows: int, columns: int) -> tuple[Any, Any]:
        """cos and sin [T + rows columns, d] of a picture's size."""
        return self._model.rope(text_tokens, rows, columns)


class Prepared:
    """One rung of a workload on a device, ready to run.

    Args:
        placed: the rung with its weights.
        workload: the workload.
        latents: noise [B, I, C] in float32.
        request: the other inputs.
    """

    def __init__(self, placed: Placed, workload: Workload, latents: Any, request: Request) -> None:
        self._placed, self.workload = placed, workload
        self.device, self.phase, self.rows, self.source = placed.device, placed.phase, placed.rows, placed.source
        self.observers, self.load, self.observed = placed.observers, placed.load, placed.observed
        self.budget, self.plan = placed.budget, placed.plan
        self.latents, self.request = latents, request
        #: Crossings of the door so far: weights, tables and inputs.
        self.setup_crossings = len(placed.device.door.ledger.crossings)

    def close(self) -> None:
        """Frees weights and inputs, and closes the device."""
        del self.latents, self.request, self.observed
        self._placed.close()

    def denoise(self, on_step: Callable[[int], Any] | None = None) -> Any:
        """Final latents [B, I, C] on the device."""
        return self._placed.sampler.denoise(self.latents, self.request, on_step)

    @property
    def repeats(self) -> int:
        """Number of generations in a timed sample of repeated steps; 0 for single whole generations.

        Rungs that copy in every forward take so long that one is enough.
        """
        return 0 if self.phase.copies else self.workload.repeats

    def repeating(self) -> Callable[[Callable[[int], Any]], Any]:
        """Starts a generation, and returns a function that makes `repeats` of it: as `denoise`, without setup."""
        sampler, steps = self._placed.sampler, self.start()

        def run(on_step: Callable[[int], Any]) -> Any:
            for _ in range(self.repeats):
                steps.rewind()
                sampler.take(steps, self.workload.steps, on_step)
            return steps.latents()

        return run

    @property
    def replays(self) -> bool:
        """Whether a step of `denoise` is one launch of a graph."""
        return self._placed.sampler.replays

    def start(self) -> Steps:
        """The steps of `denoise`, one at a time."""
        return self._placed.sampler.start(self.latents, self.request)


def obstacles(phase: Phase, device: str) -> list[str]:
    """Why devices of a kind cannot run a rung, a sentence each; empty if they can."""
    return missing(table(phase.name), device)


def prepare(
    name: str,
    workload: Workload,
    source: WeightSource | None = None,
    device: str = "auto",
    seed: int = 0,
    nvtx: bool = False,
    memory_gb: float | None = None,
) -> Prepared:
    """A rung of a workload on a new device.

    Args:
        name: rung, or ``"oracle"`` for float64.
        workload: the workload.
        source: weights; synthetic ones of the workload's model if none.
        device: kind.
        seed: of the inputs.
        nvtx: attach NVTX ranges to every run, if a profiler is attached.
        memory_gb: budget of device memory, without one if none.

    Raises:
        FluxperfError: an unknown name, invalid sizes, an unsuitable device, or a budget that is too small.
    """
    source = source or SyntheticWeights(config_named(workload.model))
    budget = None if memory_gb is None else Budget(memory_gb, workload.sizes)
    return drawn(placed(name, source, device, nvtx, budget), workload, seed)


def placed(
    name: str, source: WeightSource, device: str | Device = "auto", nvtx: bool = False, budget: Budget | None = None
) -> Placed:
    """A rung with a model's weights on a device.

    Args:
        name: rung, or ``"oracle"`` for float64.
        source: weights.
        device: kind of a new one, or an open one.
        nvtx: attach NVTX ranges to every run, if a profiler is attached.
        budget: of device memory, without one if none.

    Raises:
        FluxperfError: an unknown name, weights that do not fit, or an unsuitable device.
    """
    if name == "oracle":
        phase, rows = Phase("oracle", "", "float64", {}, activations="float64"), dict.fromkeys(OP_NAMES, "oracle")
    else:
        phase, rows = phase_named(name), table(name)
    opened = open_device(device) if isinstance(device, str) else device
    problems = obstacles(phase, opened.kind) if name != "oracle" else []
    if problems:
        raise BindError(name, opened.kind, problems)
    _check_memory(opened, phase, source)
    plan = None if budget is None else plan_of(opened, phase, rows, source, budget)
    ranges = NvtxRanges(name) if nvtx else None
    watching = [ranges] if ranges is not None and ranges.enabled else []  # no cost if no profiler records them
    with _limited(opened, plan):
        opened.prepare()
        made = Placed(opened, phase, rows, source, watching, budget, plan)
    if watching:
        opened.door.watch = ranges
    return made


@contextmanager
def _limited(device: Device, plan: Plan | None) -> Iterator[None]:
    """Limits a device to a plan, permanently unless placing fails."""
    if plan is not None:
        device.limit(plan.room_bytes)
    try:
        yield
    except BaseException:
        device.limit(None)
        raise


def too_large_for_the_host(workload: Workload) -> bool:
    """Whether one forward of a workload's model takes minutes on a CPU: such a model has no oracle either."""
    return _parameters(SyntheticWeights(config_named(workload.model), 0)) > ORACLE_PARAMETERS


def reference_latents(workload: Workload, source: WeightSource, seed: int = 0) -> Any | None:
    """Final latents in float64 by the oracle, as host numbers, or ``None`` if the model is too large for it."""
    if _parameters(source) > ORACLE_PARAMETERS:
        return None
    prepared = prepare("oracle", workload, source, "host", seed)
    return prepared.device.door.to_host(prepared.denoise(), "latents")


def drawn(placed: Placed, workload: Workload, seed: int = 0) -> Prepared:
    """A placed rung with inputs of a workload's sizes, drawn on the device from a seed."""
    config, batch, device = placed.source.config, workload.batch, placed.device
    tokens = workload.rows * workload.columns

    def draw(key: int, *shape: int) -> Any:
        return device.draw_normal((seed, key), shape, "float32", std=1.0)

    request = Request(
        text=draw(1, batch, workload.text_tokens, config.text_dim),
        pooled=draw(2, batch, config.pooled_dim),
        rope=placed.rope(workload.text_tokens, workload.rows, workload.columns),
        sigmas=sigmas(workload.steps, tokens, shifted=config.guidance),
        guidance=GUIDANCE if config.guidance else None,
    )
    return Prepared(placed, workload, draw(3, batch, tokens, config.in_channels), request)


def _check_memory(device: Device, phase: Phase, source: WeightSource) -> None:
    """Refuses weights that do not fit into the host's memory, before the machine starts to swap."""
    itemsize = {"float64": 8, "float32": 4}.get(phase.activations, 2)
    need = itemsize * _parameters(source)
    have = memory_bytes()
    if device.kind == "host" and need > 0.8 * have:
        raise DeviceError(
            f"rung {phase.name!r} of model {source.config.name!r}: expected a host with {need / 1e9:.1f} GB for "
            f"its weights in {phase.activations}, but this host has {have / 1e9:.1f} GB. Use a smaller workload "
            "(tiny, tiny-57) or a GPU."
        )


def _parameters(source: WeightSource) -> int:
    """Number of a model's parameters."""
    return sum(math.prod(shape) for shape in parameters(source.config).values())
