"""The last single block on a GPU: the image tokens alone, against the oracle and against the whole block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.executors import EXECUTORS
from fluxperf.engine.model.flux import Flux
from fluxperf.engine.ops import reference
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.ops.specs import SPECS
from fluxperf.engine.ops.table import Quantized, Settings
from fluxperf.engine.phases import phase_named, table
from fluxperf.workloads import drawn as inputs_of
from fluxperf.workloads import prepare, workload_named
from tests.model.lone_single_block import BOUNDS, Drawn, added, drawn, in_float64
from tests.model.rung_runs import relative_error
from tests.ops.checking import on_host
from tests.ops.e4m3 import up

#: Heads of 128, as FLUX.1 has them: a width of whole tiles of both sizes.
HEADS, DIM = 6, 128
#: Rounding of a whole forward, by rung, where products have other numbers of rows.
ROUNDING = {"captured": 1e-2, "fp8": 2e-2}


@cache
def case(batch: int, text: int, image: int) -> tuple[Drawn, Any]:
    numbers = drawn(batch, text, image, HEADS, DIM)
    return numbers, in_float64(numbers)


@pytest.mark.parametrize(("batch", "text", "image"), [(1, 512, 1000), (1, 0, 193), (2, 77, 300), (1, 1, 130)])
@pytest.mark.parametrize("rung", BOUNDS)
def test_attention_of_the_image_queries(gpu: CudaDevice, rung: str, batch: int, text: int, image: int) -> None:
    """Queries are a view, the result half of a buffer, whose other half is not written."""
    ops, rng = bind(rung, table(rung), gpu, Settings("bfloat16")).ops["single"], np.random.default_rng([text, image])
    q, k, v = (up(gpu, rng.standard_normal((batch, HEADS, text + image, DIM)), ml_dtypes.bfloat16) for _ in range(3))
    left, right = ops.joined_halves(batch, image, HEADS * DIM, 64, "bfloat16")
    right[...] = up(gpu, np.full(right.shape, 7), right.dtype)
    if rung == "fp8":
        rows = [ops.quantize_rows(x.reshape(1, -1)) for x in (q, k, v)]
        q, k, v = (Quantized(x.data.reshape(q.shape), x.scale.reshape(1, 1, 1, 1)) for x in rows)
        part: Any = q._replace(data=q.data[:, :, text:])
    else:
        part = q[:, :, text:]
    result = ops.attention(part, k, v, out=left)
    wanted = reference.attention(*(on_host(gpu, x) for x in (part, k, v)))
    bound = SPECS["attention"].tolerance["fp8" if rung == "fp8" else "bfloat16"]
    assert relative_error(on_host(gpu, result), wanted) <= bound
    assert (gpu.door.to_host(right, "right").astype(np.float32) == 7).all()


@pytest.fixture
def way(gpu: CudaDevice, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Takes the named implementation of every op that has it, else the last one."""

    def run(what: str, ways: dict[str, Callable[[], Any]], version: str, in_trials: Any = None) -> Any:
        return ways.get(request.param, list(ways.values())[-1])()

    monkeypatch.setattr(gpu.ways, "run", run)
    return str(request.param)


@pytest.mark.parametrize(("batch", "text", "image"), [(1, 77, 300), (1, 0, 193), (2, 200, 65)])
@pytest.mark.parametrize("way", ["library", "tiles of 192x192", "tiles of 128x256"], indirect=True)
@pytest.mark.parametrize("rung", BOUNDS)
def test_a_block_is_as_close_to_the_oracle_as_the_whole_one(
    gpu: CudaDevice, rung: str, way: str, batch: int, text: int, image: int
) -> None:
    numbers, wanted = case(batch, text, image)
    found = added(gpu, rung, numbers)
    whole, less = (relative_error(part, wanted) for part in found)
    assert less <= BOUNDS[rung]
    assert less <= 1.05 * whole


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("rung", BOUNDS)
def test_a_forward_at_full_width_gives_what_the_whole_block_gives(gpu: CudaDevice, rung: str, batch: int) -> None:
    """One double and one single block, 4096 image and 512 text tokens, with implementations chosen by trial."""
    prepared = prepare(rung, workload_named("schnell-1024-blocks", batch=batch), device="cuda")
    device, placed, phase = prepared.device, prepared._placed, phase_named(rung)
    made, found = inputs_of(placed, prepared.workload, 3), []
    for only in (True, False):
        bound = bind(rung, table(rung), device, phase.settings._replace(image_only=only))
        model = Flux(replace(prepared.source.config, inner=False), placed._weights, bound)
        velocity = EXECUTORS[phase.executor](model, made.request).velocity(made.latents, 1)
        found.append(device.door.to_host(velocity, "velocity").astype(np.float64))
    assert np.isfinite(found[0]).all()
    assert relative_error(*found) <= ROUNDING[rung]
    prepared.close()
