"""Model ops as one kernel each, with one rounding instead of several; and joins of two halves of one buffer."""

from __future__ import annotations

from functools import partial
from typing import Any

from fluxperf.engine.ops.catalog import implements
from fluxperf.engine.ops.cuda import deferred_heads, plans
from fluxperf.engine.ops.cuda.arrays import address, described, element
from fluxperf.engine.ops.cuda.boxes import side_by_side
from fluxperf.engine.ops.cuda.entries import family, start
from fluxperf.engine.ops.cuda.projection import project
from fluxperf.engine.ops.cuda.tiles import CAPABILITY
from fluxperf.engine.ops.layout import joined
from fluxperf.engine.ops.table import Deferred
from fluxperf.errors import ArgumentError

family(
    "norm_modulate",
    "P P P P 2q q q i i f",
    "f32_w1_block f32_w4_block f32_w4_p8 f32_w4_p24 bf16_w1_block bf16_w8_block bf16_w8_t1 bf16_w8_t3 bf16_w8_t4",
)
family("norm_modulate", "P P P P 2q q q i i f", "bf16_w8_r12", plans.ROW_SHARED)


@implements("norm_modulate", "fused", device="cuda")
def norm_modulate(device: Any, x: Any, shift: Any, scale: Any, eps: float = 1e-6) -> Any:
    """x [B, L, D], shift and scale [B, D]: each row is normalized and modulated in registers; rounds once."""
    op, layout = "norm_modulate", described(x)
    places = address(op, "x", x), address(op, "shift", shift), address(op, "scale", scale)
    aligned = (places[0] | places[1] | places[2]) & 15 == 0
    hopper = device.capability == CAPABILITY
    plan = plans.norm_modulate(layout, described(shift), described(scale), eps, aligned, device.processors, hopper)
    out = device.empty(x.shape, element(op, "x", layout).name)
    start(device, plan.entry, plan.grid, plan.threads, *places, out.data.ptr, *plan.tail)
    return out


family(
    "qkv_heads",
    "4P2q2i 4P2q2i 5P2q4if i",
    "f32_w2 f32_w4_g4 f32_w4_g8 f32_w4_g16 f32_w4_g32 bf16_w2 bf16_w8_g4 bf16_w8_g8 bf16_w8_g16 bf16_w8_g32",
)


@implements("qkv_heads", "fused", device="cuda")
def qkv_heads(
    device: Any,
    qkvs: tuple[Any, ...],
    biases: tuple[Any, ...],
    q_norms: tuple[Any, ...],
    k_norms: tuple[Any, ...],
    cos: Any,
    sin: Any,
    heads: int,
) -> tuple[Any, Any, Any]:
    """One or two streams of qkv [B, Li, 3 H d] to Q, K, V [B, H, L, d]; rounds once.

    Deferred products are computed first, on two streams, or in one launch with this op as their epilogue.
    """
    op, counts = "qkv_heads", {len(qkvs), len(biases), len(q_norms), len(k_norms)}
    if counts not in ({1}, {2}):
        raise ArgumentError(
            f"{op}: expected one or two streams, with one of each argument per stream, got {len(qkvs)} qkvs, "
            f"{len(biases)} biases, {len(q_norms)} q_norms and {len(k_norms)} k_norms. Join further streams with "
            "concat_tokens."
        )
    if all(isinstance(qkv, Deferred) for qkv in qkvs):

        def library() -> tuple[Any, Any, Any]:
            work: list[Any] = [partial(project, device, qkv.x, qkv.weight) for qkv in qkvs]
            done = deferred_heads.beside(device, work)
            q, k, v = qkv_heads(device, done, biases, q_norms, k_norms, cos, sin, heads)
            return q, k, v

        q, k, v = deferred_heads.plain(device, qkvs, biases, q_norms, k_norms, cos, sin, heads, library)
        return q, k, v
    streams = tuple(zip(qkvs, biases, q_norms, k_norms, strict=True))
    names = ("qkvs", "biases", "q_norms", "k_norms")
    places = [tuple(address(op, name, x) for name, x in zip(names, s, strict=True)) for s in streams]
    bits = 0
    for stream in places:
        bits |= stream[0] | stream[1] | stream[2] | stream[3]
    plan = plans.qkv_heads(
        tuple((described(a), described(b), described(c), described(d)) for a, b, c, d in streams),
        described(cos), described(sin), heads, bits & 15 == 0,
    )  # fmt: skip
    _, dim, tokens, _ = plan.rest
    shape, dtype = (qkvs[0].shape[0], heads, tokens, dim), element(op, "qkvs[0]", described(qkvs[0])).name
    q, k, v = (device.empty(shape, dtype) for _ in range(3))
    places += [(0, 0, 0, 0)] * (2 - len(places))
    start(
        device, plan.entry, plan.grid, plan.threads, *places[0], *plan.streams[0], *places[1], *plan.streams[1],
        address(op, "cos", cos), address(op, "sin", sin), q.data.ptr, k.data.ptr, v.data.ptr,
        *plan.strides, *plan.rest, 1e-6, plan.blocks,
    )  # fmt: skip
    return q, k, v


@implements("concat_tokens", "views", device="cuda")
def concat_tokens(device: Any, first: Any, second: Any) -> Any:
    """The buffer [B, L1 + L2, ..] if both arguments are its halves; else a copy in one launch."""
    whole = joined(first, second, 1)
    return whole if whole is not None else side_by_side(device, "concat_tokens", first, second, axis=1)


@implements("join_features", "views", device="cuda")
def join_features(device: Any, first: Any, second: Any) -> Any:
    """The buffer [B, L, D + M] if both arguments are its halves; else a copy in one launch."""
    whole = joined(first, second, -1)
    return whole if whole is not None else side_by_side(device, "join_features", first, second, axis=-1)
