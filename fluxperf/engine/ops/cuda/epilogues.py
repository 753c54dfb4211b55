"""The work after a product in one kernel: bias, gate and residual. This file registers no implementation."""

from __future__ import annotations

from typing import Any

from fluxperf.engine.ops.cuda import plans
from fluxperf.engine.ops.cuda.arrays import address, described, element
from fluxperf.engine.ops.cuda.entries import family, start

family("gated_residual", "P P P P P 2q q 2q 2q i i i", "f32_w1 f32_w4 bf16_w1 bf16_w8")


def bias_gated_residual(device: Any, x: Any, gate: Any, y: Any, bias: Any, out: Any = None) -> Any:
    """``x + gate (y + bias)``, in one launch.

    Args:
        device: the CUDA device.
        x: [B, L, D], float32 or bfloat16. x, y and out may have any batch and token stride.
        gate: [B, D].
        y: [B, L, D], a product without its bias; must not overlap ``out``.
        bias: [D], or ``None``.
        out: destination [B, L, D]; may be x itself. A new array unless given.

    *Numerics*: float32; rounds once.

    Raises:
        ArgumentError: a shape, a dtype or a stride along the last axis does not fit.
    """
    op = "gated_residual"
    first = address(op, "x", x)
    layout = described(x)
    if out is None:
        out = device.empty(x.shape, element(op, "x", layout).name)
    places = (
        first,
        address(op, "gate", gate),
        address(op, "y", y),
        0 if bias is None else address(op, "bias", bias),
        address(op, "out", out),
    )
    bits = places[0] | places[1] | places[2] | places[3] | places[4]
    plan = plans.gated_residual(
        layout, described(gate), described(y), None if bias is None else described(bias), described(out), bits & 15 == 0
    )
    start(device, plan.entry, plan.grid, plan.threads, *places, *plan.tail)
    return out
