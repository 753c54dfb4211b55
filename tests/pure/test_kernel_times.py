"""Kernels that are timed alone: which ones, with which operands, and their bytes. Twins replace them."""

from __future__ import annotations

from typing import Any

import pytest

from fluxperf import kernel_times
from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.ops.specs import WORKLOAD_SIZES
from fluxperf.kernel_times import JOINT, Kernel

DEVICE: Any = HostDevice()
NAMES = {dtype: kernel_times.kernels(DEVICE, dtype) for dtype in kernel_times.DTYPES}
#: Kernels that an op launches beside a product have no twin of their own.
PARTS = {name for name in NAMES["bfloat16"] if "with bias" in name} | {"join_features (fp8)"}
ALONE = [(name, dtype) for dtype, found in NAMES.items() for name in found if name not in PARTS]
TINY = WORKLOAD_SIZES["tiny"]

#: Kernel names in all records so far.
RECORDED = [
    "layer_norm", "modulate", "gated_residual", "gelu", "silu", "scale", "rms_norm", "apply_rope", "transpose_heads",
    "concat_tokens", "softmax", "cast", "euler_step",
]  # fmt: skip


def small(name: str, dtype: str) -> Kernel:
    return NAMES[dtype][name]._replace(sizes=TINY)


def test_names_are_those_of_the_records() -> None:
    expected = {name + note for name in RECORDED for note in ("", " (misaligned)")}
    expected |= {"layer_norm (long rows)", "timestep_embedding", "rope_table"}
    expected |= {
        f"add_broadcast ({variant}{note})" for variant in ("vector", "column") for note in ("", ", misaligned")
    }
    fused = ("norm_modulate", "qkv_heads", "gated_residual with bias")
    expected |= {f"{name} (fused{note})" for name in fused for note in ("", ", misaligned")}
    expected.add("norm_modulate (fused, long rows)")
    assert set(NAMES["float32"]) == expected
    names = (
        "join_features",
        "quantize_rows",
        "norm_modulate",
        "qkv_heads",
        "gelu with bias",
        "gated_residual with bias",
    )
    assert set(NAMES["bfloat16"]) == expected | {f"{name} (fp8)" for name in names}


@pytest.mark.parametrize(("name", "dtype"), ALONE, ids=["-".join(case) for case in ALONE])
def test_every_kernel_runs_on_sets_of_its_own(name: str, dtype: str) -> None:
    calls, nbytes = small(name, dtype).calls(DEVICE, dtype)
    assert len(calls) == kernel_times.SETS
    assert nbytes > 0
    for call in calls[:2]:
        assert call() is not None


@pytest.mark.parametrize(
    ("name", "tensors", "beside"),
    [
        ("layer_norm", 2, 0),
        ("modulate", 2, 2 * 64 * 2),
        ("gated_residual", 3, 64 * 2),
        ("rms_norm", 2, 16 * 2),
        ("concat_tokens", 2, 0),
        ("apply_rope", 2, 2 * 80 * 16 * 4),
        ("cast", 3, 0),
        ("euler_step", 5, 0),
        ("quantize_rows (fp8)", 1.5, 80 * 4),
        ("norm_modulate (fused)", 2, 2 * 64 * 2),
    ],
)
def test_bytes_are_those_of_operands_and_results(name: str, tensors: float, beside: int) -> None:
    assert small(name, "bfloat16").calls(DEVICE, "bfloat16")[1] == tensors * 80 * 64 * 2 + beside


def test_shapes_are_those_of_the_model() -> None:
    assert (JOINT.tokens, JOINT.text, JOINT.image, JOINT.width) == (4608, 512, 4096, 3072)
    long = NAMES["bfloat16"]["layer_norm (long rows)"].sizes
    assert (long.tokens * long.width, long.width) == (JOINT.tokens * JOINT.width, 6144)
    assert NAMES["bfloat16"]["softmax"].sizes.heads == 2


def test_a_kernel_knows_its_op_and_its_phase() -> None:
    found = NAMES["bfloat16"]
    assert {name: found[name][:2] for name in ("silu", "qkv_heads (fused)", "gelu with bias (fp8)")} == {
        "silu": ("silu", "batched"),
        "qkv_heads (fused)": ("qkv_heads", "fused"),
        "gelu with bias (fp8)": ("linear_gelu", "fp8"),
    }


def test_misaligned_operands_begin_one_element_late() -> None:
    device = HostDevice()
    (call, *_), _ = small("silu (misaligned)", "bfloat16").calls(device, "bfloat16")
    *_, x = call.args
    assert x.data.ptr % 16 == 2
