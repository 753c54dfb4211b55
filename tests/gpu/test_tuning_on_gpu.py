"""The thorough search for algorithms: what it keeps is right, found again, and not slower than what it replaces."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.ops.table import Quantized, Settings
from fluxperf.engine.phases import table
from tests.ops.checking import on_host


@pytest.mark.parametrize("rung", ["fused", "fp8"])
def test_a_searched_product_is_right_and_found_again(
    rung: str, gpu: CudaDevice, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUXPERF_CACHE", str(tmp_path))
    draw = np.random.default_rng(1)
    x, weight = (draw.standard_normal(shape).astype(ml_dtypes.bfloat16) for shape in ((1, 512, 1024), (1536, 1024)))
    bias = draw.standard_normal(1536).astype(ml_dtypes.bfloat16)
    expected = x.astype(np.float64) @ weight.astype(np.float64).T + bias.astype(np.float64)
    seen = []
    for thorough in (False, True, False):
        device = CudaDevice()
        device.products.thorough = thorough
        ops = bind("a test", table(rung), device, Settings("bfloat16")).ops["single"]
        up = [device.door.to_device(numbers, "argument") for numbers in (x, weight, bias)]
        placed = ops.quantize_rows(up[1]) if rung == "fp8" else up[1]
        assert isinstance(placed, Quantized) is (rung == "fp8")
        result = on_host(device, ops.linear(up[0], placed, up[2]))
        error = np.linalg.norm(result - expected) / np.linalg.norm(expected)
        assert error < (0.05 if rung == "fp8" else 0.005)
        seen.append((list(device.products.choices.values()), dict(device.products.gains)))
    (quick, _), (searched, gains), (again, none) = seen
    assert again == searched != quick
    assert not none
    (gain,) = gains.values()
    assert gain.candidates > len(quick[0].times_s)
    assert gain.chosen_s <= gain.offered_s
