"""Captured steps on the GPU give the same bits as eager ones, whatever changes between generations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest

from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.device.observers import LedgerScopes
from fluxperf.engine.executors import Request, Sampler
from fluxperf.engine.model.flux import Flux
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.phases import phase_named, table
from fluxperf.engine.replays import KEPT
from fluxperf.recording import count
from fluxperf.workloads import Prepared, Workload, drawn, prepare, workload_named

#: Results of a product may differ with its number of rows, by rounding.
ROUNDING = 2e-2


class Forms(NamedTuple):
    """A rung captured and eager, and the rung without hoisting: for `captured` that is `fused`."""

    prepared: Prepared
    graph: Sampler
    eager: Sampler
    fused: Sampler

    @property
    def device(self) -> Any:
        return self.prepared.device

    def inputs(self, workload: Workload, seed: int) -> tuple[Any, Request]:
        made = drawn(self.prepared._placed, workload, seed)
        return made.latents, made.request

    def down(self, latents: Any) -> np.ndarray:
        return self.device.door.to_host(latents, "result")


def forms(name: str, rung: str = "captured") -> Forms:
    prepared = prepare(rung, workload_named(name), device="cuda")
    device, placed = prepared.device, prepared._placed
    plain = "fused" if rung == "captured" else rung
    bound = bind(plain, table(plain), device, phase_named(plain).settings)
    fused = Sampler(bound, Flux(prepared.source.config, placed._weights, bound), "stacked")
    return Forms(prepared, placed.sampler, prepared.observed(LedgerScopes(device.door.ledger)), fused)


@pytest.fixture
def tiny(gpu: CudaDevice) -> Iterator[Forms]:
    made = forms("tiny")
    yield made
    made.prepared.close()


def relative(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


@pytest.mark.parametrize(("batch", "rows"), [(1, 64), (2, 1056), (1, 33), (3, 7)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_state_selects_the_step_and_its_length(gpu: CudaDevice, batch: int, rows: int, dtype: str) -> None:
    """More steps than one launch has step lengths for; slices of odd size and alignment; latents equal to the op's."""
    steps, graphs = 70, gpu.graphs
    ops = bind("fused", table("fused"), gpu, phase_named("fused").settings).ops["loop"]
    vectors = gpu.draw_normal((1, rows), (steps * batch, rows), "bfloat16", 1.0)
    velocity = gpu.draw_normal((2, rows), (batch, 5, rows), dtype, 1.0)
    expected = gpu.draw_normal((3, rows), (batch, 5, rows), "float32", 1.0)
    deltas = tuple(-1 / (3 + step) for step in range(steps))
    latents, out, state = gpu.empty(expected.shape, "float32"), gpu.empty((batch, rows), "bfloat16"), graphs.state()
    table_of_steps = gpu.door.to_host(vectors, "vectors").astype(np.float32).reshape(steps, batch, rows)
    for _ in range(2):  # a state that was used begins anew
        graphs.copy(expected, latents)
        held = graphs.begin(state, vectors, deltas)
        wanted = expected
        for step in range(steps):
            graphs.select(state, out)
            graphs.advance(state, latents, velocity)
            wanted = ops.euler_step(wanted, velocity, deltas[step])
            assert (gpu.door.to_host(out, "out").astype(np.float32) == table_of_steps[step]).all(), step
            assert (gpu.door.to_host(latents, "x") == gpu.door.to_host(wanted, "y")).all(), step
        del held


@pytest.mark.parametrize("name", ["tiny", "tiny-dev", "tiny-57"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("rung", ["captured", "fp8"])
def test_a_replay_has_the_bits_of_the_eager_form(gpu: CudaDevice, rung: str, name: str, batch: int) -> None:
    made = forms(name, rung)
    workload = workload_named(name, batch=batch)
    for seed in range(3):
        given = made.inputs(workload, seed)
        graph, eager, fused = (made.down(sampler.denoise(*given)) for sampler in (made.graph, made.eager, made.fused))
        assert np.isfinite(graph).all()
        assert (graph == eager).all()
        assert relative(graph, fused) <= ROUNDING
    assert made.graph.replays
    assert not made.eager.replays
    made.prepared.close()


def test_a_step_is_one_launch_without_allocation_crossing_or_wait(tiny: Forms) -> None:
    device = tiny.device
    steps = tiny.prepared.start()
    device.synchronize()
    ledger = device.door.ledger
    before = device.launches, device.memory.allocations, len(ledger.crossings), ledger.syncs
    with device.door.sealed():
        for _ in range(tiny.prepared.workload.steps):
            steps.take()
    after = device.launches, device.memory.allocations, len(ledger.crossings), ledger.syncs
    assert after == (before[0] + tiny.prepared.workload.steps, *before[1:])
    assert steps.graph is not None
    assert steps.graph.launches > 20


def test_a_witness_sees_kernels_of_the_graph_and_no_copy(tiny: Forms) -> None:
    counts = count(tiny.prepared, witness=True)
    assert counts.totals.launches == 1
    assert (counts.totals.allocations, counts.totals.syncs) == (0, 0)
    assert counts.graph is not None
    assert counts.totals.peak_bytes > counts.graph.bytes > 0
    assert counts.witness is not None
    assert (counts.witness.d2h_copies, counts.witness.h2d_copies) == (0, 0)
    assert counts.witness.launches >= counts.graph.launches


def test_two_hundred_generations_of_changing_prompts_and_resolutions(tiny: Forms) -> None:
    """Each has the bits of its eager form; memory stays as it is after the first round."""
    base, device = tiny.prepared.workload, tiny.device
    sizes = [replace(base, height=height, width=width) for height, width in ((128, 128), (64, 192), (192, 64))]
    sizes[0] = replace(sizes[0], steps=7)
    in_use, free = set(), set()
    for seed in range(200):
        given = tiny.inputs(sizes[seed % 3], seed)
        graph, eager = tiny.down(tiny.graph.denoise(*given)), tiny.down(tiny.eager.denoise(*given))
        assert (graph == eager).all(), seed
        del given
        if seed >= 6:
            in_use.add(device.memory.in_use_bytes)
            free.add(device._cp.cuda.runtime.memGetInfo()[0])
    assert len(in_use) == 1
    assert max(free) - min(free) <= 4 << 20  # what the driver itself takes


@pytest.mark.parametrize("rung", ["captured", "fp8"])
def test_200_generations_at_full_width(gpu: CudaDevice, rung: str) -> None:
    """Prompts, seeds and three resolutions change; memory stays as it is once every shape has been captured."""
    made = forms("schnell-1024-blocks", rung)
    base, device = made.prepared.workload, made.device
    sizes = [replace(base, height=height, width=width) for height, width in ((1024, 1024), (512, 512), (768, 1280))]
    in_use, free = set(), set()
    for seed in range(200):
        given = made.inputs(sizes[seed % 3], seed)
        graph, fused = (made.down(sampler.denoise(*given)) for sampler in (made.graph, made.fused))
        assert relative(graph, fused) <= ROUNDING, seed
        if seed < 9:
            assert (graph == made.down(made.eager.denoise(*given))).all(), seed
        del given
        if seed >= 12:
            in_use.add(device.memory.in_use_bytes)
            free.add(device._cp.cuda.runtime.memGetInfo()[0])
    made.prepared.close()
    assert len(in_use) == 1
    assert max(free) - min(free) <= 4 << 20  # what the driver itself takes


def test_shapes_come_and_go_and_their_memory_with_them(tiny: Forms) -> None:
    device, base = tiny.device, tiny.prepared.workload
    sizes = [replace(base, width=16 * (4 + index)) for index in range(KEPT + 2)]
    seen, first = [], {}
    for _ in range(3):
        for workload in sizes:
            given = tiny.inputs(workload, 1)
            steps = tiny.graph.start(*given)
            for _ in range(workload.steps):
                steps.take()
            result = tiny.down(steps.latents())
            assert (result == first.setdefault(workload.width, result)).all()
            assert steps.graph is not None
            again = steps.graph.capture_s
            del given, steps
        seen.append(device.memory.in_use_bytes)
        assert again < 1.0 or len(seen) == 1
    assert seen[0] == seen[1] == seen[2]


def test_work_goes_on_after_a_capture_that_failed(tiny: Forms) -> None:
    device = tiny.device
    given = tiny.inputs(tiny.prepared.workload, 5)
    launches, main = device.launches, device.stream.ptr

    def fail() -> None:
        device.empty((4,), "float32")
        raise RuntimeError("planted")

    arena = device.graphs.arena()
    with arena.opened(), pytest.raises(RuntimeError, match="planted"):
        device.graphs.capture(arena, fail)
    arena.close()
    assert (device.launches, device.stream.ptr) == (launches, main)
    graph, eager = tiny.down(tiny.graph.denoise(*given)), tiny.down(tiny.eager.denoise(*given))
    assert (graph == eager).all()
