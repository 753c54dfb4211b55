"""Single kernels: one record each, which the gate can read."""

from __future__ import annotations

import pytest

from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.errors import UnknownNameError
from fluxperf.kernel_times import LAUNCHES, kernels, records


def test_every_kernel_has_a_record(gpu: CudaDevice) -> None:
    found = records(gpu, 2, ["norm_modulate (fused)", "silu bfloat16"])
    assert [row.rung for row in found] == [
        "silu bfloat16",
        "norm_modulate (fused) bfloat16",
        "norm_modulate (fused) float32",
    ]
    for row in found:
        (samples,) = row.times_s["call"]
        assert len(samples) == 2
        assert all(1e-6 < seconds < 1e-2 for seconds in samples)
        assert row.settings["launches"] == str(LAUNCHES)
    assert found[1].phase_table == {"norm_modulate": "fused"}


def test_an_unknown_kernel_lists_the_known_ones(gpu: CudaDevice) -> None:
    with pytest.raises(UnknownNameError, match="norm_modulate"):
        records(gpu, 1, ["norm_modulat"])
    known = kernels(gpu, "bfloat16")
    assert {"qkv_heads (fused)", "qkv_heads (fused, misaligned)", "norm_modulate (fused, long rows)"} <= set(known)


def test_versions_for_what_does_not_fit_are_timed(gpu: CudaDevice) -> None:
    whole, odd = records(gpu, 2, ["gated_residual bfloat16", "gated_residual (misaligned) bfloat16"])
    assert min(odd.times_s["call"][0]) > 1.2 * max(whole.times_s["call"][0])
