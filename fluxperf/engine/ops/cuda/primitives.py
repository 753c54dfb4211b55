"""The primitives on the GPU, one kernel each: float32 arithmetic, rounded once, at the same place as the host twins.

Arrays are float32 or bfloat16, with unit stride along the last axis and any other strides; results are contiguous.
Empty arrays launch nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fluxperf.engine.ops.catalog import implements
from fluxperf.engine.ops.cuda import plans
from fluxperf.engine.ops.cuda.arrays import Layout, address, described, element, mismatch
from fluxperf.engine.ops.cuda.entries import MAP, MAP_TWO, family, start
from fluxperf.engine.ops.cuda.epilogues import bias_gated_residual
from fluxperf.engine.ops.cuda.plans import Plan


def _run(device: Any, plan: Plan, *addresses: int, last: tuple[float, ...] = ()) -> None:
    start(device, plan.entry, plan.grid, plan.threads, *addresses, *plan.tail, *last)


def _aligned(*addresses: int) -> bool:
    """Whether all are multiples of 16 bytes."""
    bits = 0
    for one in addresses:
        bits |= one
    return bits & 15 == 0


def _dtype(op: str, layout: Layout) -> str:
    return element(op, "x", layout).name


family(
    "layer_norm",
    "P P 4i 4q i i f",
    "f32_w1_block f32_w4_block f32_w4_p8 f32_w4_p24 bf16_w1_block bf16_w8_block bf16_w8_p4 bf16_w8_p12 bf16_w8_p16",
)


@implements("layer_norm", "primitives", device="cuda")
def layer_norm(device: Any, x: Any, eps: float = 1e-6) -> Any:
    """x [.., D]: the mean, then the variance of the centred row; the row stays in registers if one warp can hold it."""
    place, layout = address("layer_norm", "x", x), described(x)
    plan = plans.layer_norm(layout, eps, _aligned(place))
    out = device.empty(x.shape, _dtype("layer_norm", layout))
    _run(device, plan, place, out.data.ptr)
    return out


family("modulate", "P P P P 2q q q i i i", "f32_w1 f32_w4 bf16_w1 bf16_w8")


@implements("modulate", "primitives", device="cuda")
def modulate(device: Any, x: Any, scale: Any, shift: Any) -> Any:
    """``x (1 + scale) + shift``: x [B, L, D], scale and shift [B, D]."""
    places = tuple(address("modulate", name, a) for name, a in (("x", x), ("scale", scale), ("shift", shift)))
    layout = described(x)
    plan = plans.modulate(layout, described(scale), described(shift), _aligned(*places))
    out = device.empty(x.shape, _dtype("modulate", layout))
    _run(device, plan, *places, out.data.ptr)
    return out


@implements("gated_residual", "primitives", device="cuda")
def gated_residual(device: Any, x: Any, gate: Any, y: Any) -> Any:
    """``x + gate y``: x and y [B, L, D], gate [B, D]."""
    return bias_gated_residual(device, x, gate, y, None)


family("add_broadcast", MAP_TWO, "f32_w1 f32_w4 bf16_w1 bf16_w8")
family("add_broadcast", f"{MAP_TWO} i i", "f32_any bf16_any")


@implements("add_broadcast", "primitives", device="cuda")
def add_broadcast(device: Any, x: Any, y: Any) -> Any:
    """x + y of any two shapes that broadcast, both of one dtype."""
    left, right = described(x), described(y)
    try:
        shape = np.broadcast_shapes(left.shape, right.shape) if left.shape != right.shape else left.shape
    except ValueError as error:
        raise mismatch(
            "add_broadcast", "y", f"to broadcast with x {list(left.shape)}", right, "Reshape one of them."
        ) from error
    places = address("add_broadcast", "x", x), address("add_broadcast", "y", y)
    plan = plans.add_broadcast(left, right, shape, _aligned(*places))
    out = device.empty(shape, _dtype("add_broadcast", left))
    _run(device, plan, *places, out.data.ptr)
    return out


family("scale", f"{MAP} f", "f32_w1 f32_w4 bf16_w1 bf16_w8")


@implements("scale", "primitives", device="cuda")
def scale(device: Any, x: Any, factor: float) -> Any:
    """x [..] times a factor, which is rounded to float32."""
    return _elementwise(device, "scale", x, float(factor))


family("gelu", MAP, "f32_w1 f32_w4 bf16_w1 bf16_w8")


@implements("gelu", "primitives", device="cuda")
def gelu(device: Any, x: Any) -> Any:
    """GELU of x [..], tanh form."""
    return _elementwise(device, "gelu", x)


family("silu", MAP, "f32_w1 f32_w4 bf16_w1 bf16_w8")


@implements("silu", "primitives", device="cuda")
def silu(device: Any, x: Any) -> Any:
    """``x sigmoid(x)`` of x [..], computed with the exponential of ``-|x|``, which cannot overflow."""
    return _elementwise(device, "silu", x)


def _elementwise(device: Any, op: str, x: Any, *last: float) -> Any:
    place, layout = address(op, "x", x), described(x)
    plan = plans.elementwise(op, layout, _aligned(place))
    out = device.empty(x.shape, _dtype(op, layout))
    _run(device, plan, place, out.data.ptr, last=last)
    return out


family("cast", MAP, "f32_bf16_w1 f32_bf16_w4 bf16_f32_w1 bf16_f32_w4")


@implements("cast", "primitives", device="cuda")
def cast(device: Any, x: Any, dtype: str) -> Any:
    """The array itself if it has the dtype already; else a copy, rounded once."""
    place, layout = address("cast", "x", x), described(x)
    if _dtype("cast", layout) == dtype:
        return x
    plan = plans.cast(layout, dtype, _aligned(place))
    out = device.empty(x.shape, dtype)
    _run(device, plan, place, out.data.ptr)
    return out


family("euler_step", f"{MAP_TWO} f", "f32_w1 f32_w4 bf16_w1 bf16_w4")


@implements("euler_step", "primitives", device="cuda")
def euler_step(device: Any, latents: Any, velocity: Any, delta: float) -> Any:
    """``latents + delta velocity``: latents [..] float32, velocity [..] float32 or bfloat16, result float32."""
    places = address("euler_step", "latents", latents), address("euler_step", "velocity", velocity)
    plan = plans.euler_step(described(latents), described(velocity), _aligned(*places))
    out = device.empty(latents.shape, "float32")
    _run(device, plan, *places, out.data.ptr, last=(float(delta),))
    return out


family("rms_norm", "P P P 4i 4q i i i f", "f32_w1 f32_w4 bf16_w1 bf16_w8")


@implements("rms_norm", "primitives", device="cuda")
def rms_norm(device: Any, x: Any, weight: Any, eps: float = 1e-6) -> Any:
    """RMS norm of x [.., d] with weight [d]; a group of lanes per row."""
    places, layout = (address("rms_norm", "x", x), address("rms_norm", "weight", weight)), described(x)
    plan = plans.rms_norm(layout, described(weight), eps, _aligned(*places))
    out = device.empty(x.shape, _dtype("rms_norm", layout))
    _run(device, plan, *places, out.data.ptr)
    return out


family("apply_rope", "P P P P 2q q q q i i i", "f32_w2 f32_w4 bf16_w2 bf16_w8")


@implements("apply_rope", "primitives", device="cuda")
def apply_rope(device: Any, x: Any, cos: Any, sin: Any) -> Any:
    """Rotates adjacent pairs of x [B, L, H, d]; cos and sin [L, d] in float32."""
    place, layout = address("apply_rope", "x", x), described(x)
    plan = plans.apply_rope(layout, described(cos), described(sin), _aligned(place))
    out = device.empty(x.shape, _dtype("apply_rope", layout))
    tables = address("apply_rope", "cos", cos), address("apply_rope", "sin", sin)
    _run(device, plan, place, *tables, out.data.ptr)
    return out


family(
    "softmax",
    "P P 4i 4q i",
    "f32_f32_w1 f32_f32_w4_held f32_bf16_w1 f32_bf16_w4_held bf16_f32_w1 bf16_f32_w4_held bf16_bf16_w1 "
    "bf16_bf16_w4_held",
)


@implements("softmax", "primitives", device="cuda")
def softmax(device: Any, x: Any, dtype: str = "") -> Any:
    """Softmax over the last axis of x [.., N]; ``dtype`` is the result's, the input's unless given."""
    place, layout = address("softmax", "x", x), described(x)
    result = dtype or _dtype("softmax", layout)
    plan = plans.softmax(layout, result, _aligned(place))
    out = device.empty(x.shape, result)
    _run(device, plan, place, out.data.ptr)
    return out
