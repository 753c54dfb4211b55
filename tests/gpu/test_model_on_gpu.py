"""Rungs of the model on the GPU: copies, agreement with the oracle, and what a witness sees."""

from __future__ import annotations

import numpy as np
import pytest

from fluxperf.engine.checkpoints.sources import SyntheticWeights, place
from fluxperf.engine.config import config_named
from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.model.flux import Flux
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.phases import PHASES
from fluxperf.recording import count
from fluxperf.workloads import obstacles, prepare, workload_named

#: As for the twins on the host: `tests/model/error_bounds.py` derives it.
FP8_BOUND = 3e-2
RUNGS = [phase.name for phase in PHASES if not obstacles(phase, "cuda")]


def test_rungs_that_the_gpu_runs() -> None:
    assert RUNGS == ["baseline", "broadcast", "batched", "tensorcore", "fused", "captured", "fp8"]


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("name", ["tiny", "tiny-57"])
def test_copies_are_those_of_the_host_device(rung: str, name: str, gpu: CudaDevice) -> None:
    prepared = prepare(rung, workload_named(name), device="cuda")
    counts = count(prepared, witness=True)
    baseline = {"tiny": (116, 83), "tiny-57": (1374, 955)}[name]
    assert (counts.totals.d2h_copies, counts.totals.h2d_copies) == (baseline if rung == "baseline" else (0, 0))
    assert counts.witness is not None
    for field in ("d2h_copies", "h2d_copies", "d2h_bytes", "h2d_bytes"):
        assert getattr(counts.witness, field) == getattr(counts.totals, field), field
    prepared.close()


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("model", ["tiny", "tiny-dev"])
@pytest.mark.parametrize("batch", [1, 2])
def test_velocity_agrees_with_the_oracle(rung: str, model: str, batch: int, gpu: CudaDevice) -> None:
    """The same weights and inputs, on the GPU at a rung and on the host in float64."""
    expected = _velocity("oracle", HostDevice(), model, batch)
    result = _velocity(rung, gpu, model, batch)
    error = np.linalg.norm(result - expected) / np.linalg.norm(expected)
    bounds = dict.fromkeys(("baseline", "broadcast", "batched"), 1e-5) | {"fp8": FP8_BOUND}
    assert error <= bounds.get(rung, 1.2e-2)


class _HostDrawn(SyntheticWeights):
    """Synthetic weights drawn on the host and copied to the device, so that two devices have the same."""

    def put(self, device, path, shape, dtype, scaled=True):
        host = HostDevice()
        numbers = host.door.to_host(super().put(host, path, shape, dtype), "weights")
        return device.door.to_device(numbers, "weights")


def _velocity(rung: str, device, model: str, batch: int):
    from fluxperf.engine.executors import EXECUTORS, Request
    from fluxperf.engine.ops.table import OP_NAMES
    from fluxperf.engine.phases import Phase, phase_named, table

    oracle = rung == "oracle"
    phase = Phase("oracle", "", "", {}, activations="float64") if oracle else phase_named(rung)
    rows = dict.fromkeys(OP_NAMES, "oracle") if oracle else table(rung)
    config = config_named(model)
    bound = bind(rung, rows, device, phase.settings)
    flux = Flux(config, place(_HostDrawn(config), bound, phase.activations, phase.e4m3), bound)
    draw = np.random.default_rng(7)

    def up(*shape: int):
        return device.door.to_device(draw.standard_normal(shape).astype(np.float32), "input")

    text, pooled, latents = up(batch, 13, config.text_dim), up(batch, config.pooled_dim), up(batch, 24, 64)
    guidance = 4.0 if config.guidance else None
    request = Request(text, pooled, flux.rope(13, 4, 6), (0.5, 0.0), guidance)
    velocity = EXECUTORS[phase.executor](flux, request).velocity(latents, 0)
    return device.door.to_host(velocity, "velocity").astype(np.float64)
