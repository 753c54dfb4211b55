"""Every CUDA implementation in every case against the oracle: the trials of `tests/ops`, on the GPU."""

from __future__ import annotations

import numpy as np
import pytest

from fluxperf.engine.device import cuda
from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.ops.cuda import tables
from fluxperf.engine.ops.host import primitives
from fluxperf.engine.ops.table import OP_NAMES
from tests.ops import checking
from tests.ops.cases import SIZES, Sizes
from tests.ops.checking import Trial
from tests.ops.test_against_oracle import assert_is_of_its_types

#: Without a GPU one test replaces all, so that the skip is reported once.
_HEADS, _PRODUCTS = ("attention", "qkv_heads"), ("linear", "linear_gelu", "linear_gated_residual")
TRIALS = list(checking.trials("cuda")) if cuda.available() else []


def unsupported(trial: Trial) -> str:
    """Why a library cannot run a trial; empty if it can."""
    if (trial.op, trial.implementation.name, trial.dtype) == ("linear_gelu", "fused", "float32"):
        return "cuBLASLt's GELU epilogue is exact enough for bfloat16 only"
    if trial.implementation.name == "fp8":
        return _unsupported_in_e4m3(trial.op, SIZES[trial.size])
    if trial.implementation.name != "flash":
        return ""
    if trial.dtype != "bfloat16":
        return "cuDNN attention takes bfloat16"
    return "cuDNN attention needs head dimensions that are multiples of 8" if SIZES[trial.size].dim % 8 else ""


def _unsupported_in_e4m3(op: str, sizes: Sizes) -> str:
    if op in _PRODUCTS and (sizes.width % 16 or sizes.features % 16):
        return "products in e4m3 need multiples of 16"
    if op in _HEADS and sizes.dim % 16:
        return "attention in e4m3 needs head dimensions that are multiples of 16"
    if op == "attention" and sizes.tokens == 1:
        return "cuDNN attention in e4m3 needs more than one token"
    return ""


@pytest.mark.parametrize("trial", TRIALS, ids=str)
def test_is_within_tolerance_of_the_oracle(trial: Trial, gpu: CudaDevice) -> None:
    reason = unsupported(trial)
    if reason:
        pytest.skip(reason)
    call = checking.drawn(trial)
    results = checking.listed(checking.perform(gpu, trial, call))
    checking.judge(trial, [checking.on_host(gpu, value) for value in results], checking.oracle(trial, call))
    for result in results:
        assert_is_of_its_types(result, trial, call, "uint8")
        assert trial.implementation.rests_on_host or not isinstance(result, np.ndarray)


def test_every_op_has_an_implementation_on_the_gpu(gpu: CudaDevice) -> None:
    there = {row.op for row in checking.under_test("cuda")}
    assert there == set(OP_NAMES)


def test_timestep_features_are_those_of_the_host(gpu: CudaDevice) -> None:
    """Frequencies and angles are bit-identical; 70 values need two launches, and 30 is the highest guidance in use."""
    values = tuple(np.linspace(0, 30, 70).tolist())
    got = gpu.door.to_host(tables.timestep_embedding(gpu, values), "features")
    assert np.abs(got - primitives.timestep_embedding(values)).max() <= 2e-7


def test_door_counts_what_crosses(gpu: CudaDevice) -> None:
    numbers = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    start = len(gpu.door.ledger.crossings)
    array = gpu.door.to_device(numbers, "numbers")
    assert np.array_equal(gpu.door.to_host(array[:, 1:3], "part"), numbers[:, 1:3])
    up, down = gpu.door.ledger.crossings[start:]
    assert (up.direction, up.bytes, down.direction, down.bytes) == ("h2d", 60, "d2h", 24)


def test_drawn_numbers_are_the_same_under_every_dtype(gpu: CudaDevice) -> None:
    wide, narrow = (gpu.draw_normal((1, 2), (1000,), dtype, 1.0) for dtype in ("float32", "bfloat16"))
    first, second = (gpu.door.to_host(array, "drawn").astype(np.float32) for array in (wide, narrow))
    assert np.array_equal(first, second)
    assert abs(first.std() - 1) < 0.1
