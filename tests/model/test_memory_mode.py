"""Rungs within a memory budget on the host device: the same bits, exact copies, less memory, and no broken state."""

from __future__ import annotations

import gc
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.checkpoints.sources import SyntheticWeights
from fluxperf.engine.config import config_named
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.ops.table import Settings
from fluxperf.engine.phases import PHASES, table
from fluxperf.errors import ArgumentError, ConfigError, TransferError
from fluxperf.recording import count
from fluxperf.workloads import Prepared, Workload, prepare, workload_named
from tests.another_blas import matmul
from tests.model.weight_files import SMALL, diffusers_shapes, original_layout, random_state, write_tensors

RUNGS = tuple(phase.name for phase in PHASES if not phase.copies)
WORKLOAD = workload_named("tiny-dev", steps=3)
#: Budgets from the smallest plan's need to more than enough for everything, in units of 1e-4 GB.
LEAST, MOST = 7, 40


def latents_of(prepared: Prepared) -> np.ndarray:
    return prepared.device.door.to_host(prepared.denoise(), "result")


@cache
def resident(rung: str, model: str = "tiny-dev") -> tuple[np.ndarray, int]:
    """Latents of the rung without a budget, and its memory."""
    prepared = prepare(rung, workload_named(model, steps=3), device="host")
    prepared.device.memory.reset_peak()
    result = latents_of(prepared), prepared.device.memory.peak_bytes
    prepared.close()
    return result


def within(rung: str, budget: float, workload: Workload = WORKLOAD, source: Any = None) -> Prepared | None:
    """The rung within a budget; ``None`` if the budget is refused as too small."""
    try:
        return prepare(rung, workload, source, "host", memory_gb=budget)
    except ConfigError as error:
        if "expected at least" not in str(error):
            raise
        return None


def smallest(rung: str, workload: Workload = WORKLOAD, source: Any = None) -> Prepared:
    """The rung within the smallest budget that is accepted, or 5 % more."""
    budget, prepared = 1e-5, None
    while prepared is None:
        budget *= 1.05
        prepared = within(rung, budget, workload, source)
    return prepared


def crossings(prepared: Prepared, run: Any) -> list[tuple[str, str, int]]:
    start = len(prepared.device.door.ledger.crossings)
    run()
    rows = prepared.device.door.ledger.crossings[start:]
    return [(row.direction, row.label, row.bytes) for row in rows if row.label != "result"]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(RUNGS), st.integers(LEAST, MOST))
def test_any_budget_gives_the_bits_of_the_resident_rung(rung, tenths) -> None:
    budget = tenths / 1e4
    prepared = within(rung, budget)
    if prepared is None:
        return
    expected, _ = resident(rung)
    for _ in range(2):
        assert (latents_of(prepared) == expected).all()
    assert prepared.device.memory.peak_bytes <= prepared.plan.used_bytes <= budget * 1e9
    prepared.close()


@pytest.mark.parametrize("rung", RUNGS)
def test_a_forward_copies_each_streamed_unit_once(rung) -> None:
    prepared = smallest(rung)
    plan, config = prepared.plan, prepared.source.config
    assert len(plan.streamed) == len(plan.demand.units) == 2 * config.double_blocks + config.single_blocks
    per_step = [("h2d", f"stream.{unit.name}", unit.nbytes) for unit in plan.demand.units]
    pieces = 2 * config.double_blocks + config.single_blocks + 1
    products = {"none": 0, "stacked": 3, "captured": 1}[prepared.phase.executor if plan.pieces else "none"]
    for _ in range(3):
        rows = crossings(prepared, prepared.denoise)
        blocks = [row for row in rows if row[1] != "stream.modulation"]
        assert sorted(blocks) == sorted(3 * per_step)
        modulation = [row for row in rows if row[1] == "stream.modulation"]
        assert len(modulation) == products * pieces
        assert sum(nbytes for *_, nbytes in modulation) == products * plan.image_bytes
    prepared.close()


@pytest.mark.parametrize("rung", ["fused", "captured", "fp8"])
def test_a_record_counts_what_is_streamed_and_nothing_else_crosses(rung) -> None:
    prepared = smallest(rung)
    counts = count(prepared)
    plan = prepared.plan
    in_step = plan.image_bytes if rung == "fused" else 0
    assert counts.totals.h2d_bytes == plan.step_bytes + in_step
    assert (counts.totals.d2h_copies, counts.totals.syncs) == (0, 0)
    assert all(row.label.startswith("stream.") for row in counts.crossings)
    assert counts.totals.peak_bytes < 0.7 * resident(rung)[1]
    assert not prepared.replays
    prepared.close()


def test_without_a_budget_nothing_is_streamed() -> None:
    prepared = prepare("fp8", WORKLOAD, device="host")
    assert prepared.plan is None
    assert count(prepared).crossings == []
    assert crossings(prepared, prepared.denoise) == []
    prepared.close()


def test_a_budget_for_everything_streams_nothing() -> None:
    prepared = prepare("fp8", WORKLOAD, device="host", memory_gb=1)
    assert (prepared.plan.streamed, prepared.plan.pieces) == ((), False)
    assert crossings(prepared, prepared.denoise) == []
    assert (latents_of(prepared) == resident("fp8")[0]).all()
    prepared.close()


@pytest.mark.parametrize("rung", ["captured", "fp8"])
def test_weights_from_files_are_the_same(tmp_path, rung) -> None:
    state = original_layout(random_state(diffusers_shapes(SMALL), seed=9), SMALL)
    path = write_tensors(tmp_path / "model.safetensors", state)
    workload = workload_named("tiny", text_tokens=5)
    whole = prepare(rung, workload, Checkpoint(path), "host")
    expected = latents_of(whole)
    whole.close()
    prepared = smallest(rung, workload, Checkpoint(path))
    assert prepared.plan.streamed
    assert prepared.load.bytes == prepared.source.stored_bytes
    assert (latents_of(prepared) == expected).all()
    assert prepared.device.memory.peak_bytes <= prepared.plan.used_bytes
    prepared.close()


class PlantedError(Exception):
    pass


@pytest.mark.parametrize("rung", ["broadcast", "captured", "fp8"])
@pytest.mark.parametrize("after", [0, 3, 11, 30])
def test_a_run_that_failed_in_the_middle_leaves_nothing_broken(monkeypatch, rung, after) -> None:
    prepared = smallest(rung)
    launch, calls = type(prepared.device).launch, []

    def failing(self, *args, **options):
        calls.append(1)
        if len(calls) > after:
            raise PlantedError
        return launch(self, *args, **options)

    for _ in range(2):
        calls.clear()
        monkeypatch.setattr(type(prepared.device), "launch", failing)
        with pytest.raises(PlantedError):
            prepared.denoise()
        monkeypatch.undo()
        assert (latents_of(prepared) == resident(rung)[0]).all()
    again = crossings(prepared, prepared.denoise)
    assert len([row for row in again if row[1] != "stream.modulation"]) == 3 * len(prepared.plan.streamed)
    prepared.close()


def test_a_sealed_door_refuses_streamed_weights_unless_it_allows_fetches() -> None:
    prepared = smallest("captured")
    door = prepared.device.door
    forwards = prepared.observed().begin(prepared.request)
    with pytest.raises(TransferError, match=r"fetch\('stream\.[a-z0-9.]+'\).*sealed"), door.sealed():
        forwards.velocity(prepared.latents, 0)
    with door.sealed("only weights", fetches=True):
        forwards.velocity(prepared.latents, 0)
        with pytest.raises(TransferError, match="only weights"):
            door.to_host(prepared.latents, "latents")
        with door.sealed("nothing at all"), pytest.raises(TransferError, match="nothing at all"):
            forwards.velocity(prepared.latents, 0)
    assert (latents_of(prepared) == resident("captured")[0]).all()
    prepared.close()


def test_everything_is_given_back() -> None:
    gc.collect()
    prepared = smallest("fp8")
    device = prepared.device
    latents_of(prepared)
    prepared.close()
    del prepared
    gc.collect()
    assert device.memory.in_use_bytes == 0


@pytest.mark.parametrize(
    ("rung", "budget", "says"),
    [
        ("fp8", 1e-6, r"budget of 0\.0000 GB: expected at least 0\.000\d GB for this model, rung and size"),
        ("fp8", 0.0, r"budget of 0 GB: expected a number above 0, in 10\^9 bytes, such as --memory-gb 24"),
        ("fused", 1e-4, r"Give a larger budget, or use a smaller picture or batch"),
        ("baseline", 1.0, "expected a rung whose forward makes no copies of its own, got 'baseline'"),
    ],
)
def test_budgets_that_cannot_be(rung, budget, says) -> None:
    with pytest.raises(ConfigError, match=says):
        prepare(rung, WORKLOAD, device="host", memory_gb=budget)


def test_to_host_into_memory_of_the_caller(device) -> None:
    array = device.door.to_device(np.arange(6, dtype=np.float32).reshape(2, 3), "x")
    out = np.zeros(24, np.uint8)
    assert device.door.to_host(array[:, 1:].reshape(2, 2)[1], "y", out[:8]) is not None
    assert out[:8].view(np.float32).tolist() == [4, 5]
    with pytest.raises(ArgumentError, match="expected out of 24 bytes, got 8"):
        device.door.to_host(array, "y", out[:8])


@pytest.fixture
def another_blas(monkeypatch) -> None:
    """Every product is summed in an order that depends on its sizes, so equal bits need equal sizes."""
    monkeypatch.setattr(np, "matmul", matmul)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_rows_of_the_modulation_projection_are_the_same_alone_and_among_others(device, another_blas, dtype) -> None:
    rng = np.random.default_rng(5)
    x, weight, bias = (
        device.door.to_device(rng.standard_normal(shape).astype(dtype), "operand")
        for shape in ((3, 80), (9 * 80, 80), (9 * 80,))
    )
    bound = bind("fused", table("fused"), device, Settings("bfloat16"))
    silu_linear = bound.ops["double"].silu_linear
    whole = device.door.to_host(silu_linear(x, weight, bias), "whole")
    for start, stop in ((0, 240), (240, 400), (400, 720)):
        part = device.door.to_host(silu_linear(x, weight[start:stop], bias[start:stop]), "part")
        assert (part == whole[:, start:stop]).all()


def test_a_model_of_another_depth(measure, another_blas) -> None:
    """Of which the modulation projection comes in pieces."""
    source = SyntheticWeights(config_named("tiny-57"))
    workload = workload_named("tiny-57", steps=2)
    whole = prepare("fp8", workload, source, "host")
    expected, before = latents_of(whole), whole.device.memory.peak_bytes
    whole.close()
    prepared = prepare("fp8", workload, source, "host", memory_gb=3.6e-3)
    assert 0 < len(prepared.plan.streamed) < 76
    assert prepared.plan.pieces
    assert (latents_of(prepared) == expected).all()
    measure("memory within a budget of 3.6 MB, of", "fp8", prepared.device.memory.peak_bytes / before)
    prepared.close()
