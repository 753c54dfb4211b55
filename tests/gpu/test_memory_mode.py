"""Rungs within a memory budget on the GPU: the bits of the resident rung, exact copies, less memory than the budget."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fluxperf.budgets import Budget, plan_of
from fluxperf.engine.checkpoints.sources import SyntheticWeights
from fluxperf.engine.config import config_named
from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.device.gpu import cupy
from fluxperf.engine.phases import PHASES, phase_named, table
from fluxperf.engine.residence.plan import SLOTS, spread
from fluxperf.errors import ConfigError, DeviceError
from fluxperf.recording import count
from fluxperf.workloads import Placed, Prepared, Workload, drawn, obstacles, placed, workload_named
from tests.model.rung_runs import relative_error

RUNGS = [phase.name for phase in PHASES if not phase.copies and not obstacles(phase, "cuda")]
FAST = [rung for rung in RUNGS if rung in ("fused", "captured", "fp8")]

#: Pieces of the modulation projection may use another algorithm than the whole, which changes the rounding.
ROUNDING = 2e-2

GB = 10**9


@pytest.fixture
def device() -> Iterator[CudaDevice]:
    """One device for a resident rung and one within a budget, so that both use the same algorithms."""
    made = CudaDevice()
    yield made
    gc.collect()
    made.close()


@pytest.fixture(autouse=True)
def _needs_a_gpu(gpu: CudaDevice) -> None:
    """Skips where there is none."""


def forced(device: CudaDevice, rung: str, workload: Workload, share: float, modulation: bool = False) -> Placed:
    """A rung with a given plan: a share of its blocks is streamed, and optionally the modulation projection."""
    source, phase, rows = SyntheticWeights(config_named(workload.model)), phase_named(rung), table(rung)
    everything = plan_of(device, phase, rows, source, Budget(64, workload.sizes))
    units = everything.demand.units
    streamed = spread(len(units), round(share * len(units)))
    largest = max(units[index].nbytes for index in streamed)
    plan = everything._replace(streamed=streamed, slots=SLOTS, slot_bytes=largest, pieces=modulation)
    return Placed(device, phase, rows, source, plan=plan)


def outside() -> int:
    """Bytes that the driver has allocated outside of CuPy's pool."""
    free, total = cupy().cuda.runtime.memGetInfo()
    return int(total - free - cupy().get_default_memory_pool().total_bytes())


def down(device: CudaDevice, prepared: Prepared) -> np.ndarray:
    return device.door.to_host(prepared.denoise(), "result")


def resident(device: CudaDevice, rung: str, workload: Workload, seeds: int) -> list[np.ndarray]:
    """Latents of the rung without a budget; its memory is released."""
    made = placed(rung, SyntheticWeights(config_named(workload.model)), device)
    results = [down(device, drawn(made, workload, seed)) for seed in range(seeds)]
    del made
    gc.collect()
    device.trim()
    return results


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
def test_streamed_blocks_change_no_bit(device: CudaDevice, rung: str, share: float) -> None:
    workload = workload_named("tiny-57", steps=3)
    expected = resident(device, rung, workload, seeds=2)
    made = forced(device, rung, workload, share)
    for seed in (0, 1, 0):
        result = down(device, drawn(made, workload, seed))
        assert np.isfinite(result).all()
        assert (result == expected[seed]).all(), seed


@pytest.mark.parametrize("rung", FAST)
def test_a_streamed_modulation_projection_agrees(device: CudaDevice, rung: str) -> None:
    workload = workload_named("tiny-57", steps=3)
    expected = resident(device, rung, workload, seeds=1)[0]
    made = forced(device, rung, workload, 0.5, modulation=True)
    first, second = (down(device, drawn(made, workload, 0)) for _ in range(2))
    assert relative_error(first, expected) <= ROUNDING
    assert (first == second).all()


@pytest.mark.parametrize("rung", FAST)
def test_what_is_streamed_is_what_a_witness_sees(device: CudaDevice, rung: str) -> None:
    workload = workload_named("tiny-57", steps=2)
    made = forced(device, rung, workload, 0.5)
    counts = count(drawn(made, workload), witness=True)
    assert made.plan is not None
    assert counts.totals.h2d_copies == len(made.plan.streamed)
    assert counts.totals.h2d_bytes == made.plan.step_bytes
    assert (counts.totals.d2h_copies, counts.totals.syncs) == (0, 0)
    assert counts.witness is not None
    for field in ("d2h_copies", "h2d_copies", "d2h_bytes", "h2d_bytes"):
        assert getattr(counts.witness, field) == getattr(counts.totals, field), field


def test_twenty_generations_in_a_row_and_memory_stays_flat(device: CudaDevice) -> None:
    rung, sizes = FAST[-1], [workload_named("tiny-57", steps=2, width=width) for width in (128, 192, 64)]
    expected = [resident(device, rung, workload, seeds=1)[0] for workload in sizes]
    made = forced(device, rung, sizes[0], 0.7)
    used = []
    for turn in range(21):
        workload = sizes[turn % 3]
        assert (down(device, drawn(made, workload, 0)) == expected[turn % 3]).all(), turn
        used.append(device.memory.in_use_bytes)
    assert used[2] == used[-1]


@pytest.mark.parametrize("after", [5, 40, 200])
def test_work_goes_on_after_a_run_that_failed(device: CudaDevice, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    rung, workload = "captured", workload_named("tiny-57", steps=2)
    expected = resident(device, rung, workload, seeds=1)[0]
    made = forced(device, rung, workload, 0.7)
    prepared = drawn(made, workload, 0)
    product, calls = type(device.products).__call__, []

    def failing(self: Any, *args: Any) -> None:
        calls.append(1)
        if len(calls) > after:
            raise RuntimeError("planted")
        product(self, *args)

    for _ in range(3):
        calls.clear()
        monkeypatch.setattr(type(device.products), "__call__", failing)
        with pytest.raises(RuntimeError, match="planted"):
            prepared.denoise()
        monkeypatch.undo()
        assert (down(device, prepared) == expected).all()


def test_a_budget_above_the_gpu_and_one_that_is_full(device: CudaDevice) -> None:
    source, workload = SyntheticWeights(config_named("tiny")), workload_named("tiny")
    with pytest.raises(ConfigError, match="expected at most the"):
        placed("fused", source, device, budget=Budget(10_000, workload.sizes))
    made = placed("fused", source, device, budget=Budget(3, workload.sizes))
    with pytest.raises(DeviceError, match=r"that the memory budget leaves are full"):
        device.empty((3 * GB,), "uint8")
    assert np.isfinite(down(device, drawn(made, workload))).all()
    device.limit(None)
    del made


@pytest.mark.full_size
@pytest.mark.parametrize("rung", FAST)
@pytest.mark.parametrize("budget", [16.0, 12.0])
def test_schnell_runs_within_a_budget(device: CudaDevice, rung: str, budget: float, measure: Any) -> None:
    workload = workload_named("schnell-1024")
    expected = resident(device, rung, workload, seeds=2)
    others = max(outside(), device.outside_bytes) - device.outside_bytes  # of other tests in this process
    made = placed(rung, SyntheticWeights(config_named("schnell")), device, budget=Budget(budget, workload.sizes))
    device.memory.reset_peak()
    for seed in (0, 1, 0):
        result = down(device, drawn(made, workload, seed))
        same = bool((result == expected[seed]).all())
        assert made.plan is not None
        assert same or (made.plan.pieces and relative_error(result, expected[seed]) <= ROUNDING), seed
        pool = cupy().get_default_memory_pool().total_bytes()
        measure(f"GB outside of the pool within {budget:g} GB", rung, outside() / 1e9)
        measure(f"GB of the pool within {budget:g} GB", rung, pool / 1e9)
        assert pool + outside() - others <= budget * GB
    measure(f"GB in use at once within {budget:g} GB", rung, device.memory.peak_bytes / 1e9)
    device.limit(None)
    del made
