"""Model ops composed of primitives of the same table: the default wherever nothing is fused."""

from __future__ import annotations

import math
from typing import Any

from fluxperf.engine.ops.catalog import implements
from fluxperf.errors import ArgumentError


@implements("silu_linear", "composed", composed=True)
def silu_linear(ops: Any, x: Any, weight: Any, bias: Any) -> Any:
    """`silu`, then `linear`: x [B, K], weight [N, K], bias [N] to [B, N]."""
    return ops.linear(ops.silu(x), weight, bias)


@implements("linear_gelu", "composed", composed=True)
def linear_gelu(ops: Any, x: Any, weight: Any, bias: Any, out: Any = None) -> Any:
    """`linear`, then `gelu`: x [.., K], weight [N, K], bias [N] to [.., N]."""
    _no_destination("linear_gelu", out)
    return ops.gelu(ops.linear(x, weight, bias))


@implements("norm_modulate", "composed", composed=True)
def norm_modulate(ops: Any, x: Any, shift: Any, scale: Any) -> Any:
    """`layer_norm`, then `modulate`: x [B, L, D], shift and scale [B, D] to [B, L, D]."""
    return ops.modulate(ops.layer_norm(x), scale, shift)


@implements("linear_gated_residual", "composed", composed=True)
def linear_gated_residual(ops: Any, x: Any, gate: Any, y: Any, weight: Any, bias: Any) -> Any:
    """`linear`, then `gated_residual`: x [B, L, D], gate [B, D], y [B, L, K], weight [D, K] to [B, L, D]."""
    return ops.gated_residual(x, gate, ops.linear(y, weight, bias))


@implements("qkv_heads", "composed", composed=True)
def qkv_heads(
    ops: Any,
    qkvs: tuple[Any, ...],
    biases: tuple[Any, ...],
    q_norms: tuple[Any, ...],
    k_norms: tuple[Any, ...],
    cos: Any,
    sin: Any,
    heads: int,
) -> tuple[Any, Any, Any]:
    """Per stream `add_broadcast` and `rms_norm`; then `concat_tokens`, `apply_rope` and `transpose_heads`.

    Streams qkv [B, Li, 3 H d] to Q, K and V [B, H, L, d].
    """
    queries, keys, values = [], [], []
    for qkv, bias, q_norm, k_norm in zip(qkvs, biases, q_norms, k_norms, strict=True):
        batch, tokens, width = qkv.shape
        split = ops.add_broadcast(qkv, bias).reshape(batch, tokens, 3, heads, width // (3 * heads))
        queries.append(ops.rms_norm(split[:, :, 0], q_norm))
        keys.append(ops.rms_norm(split[:, :, 1], k_norm))
        values.append(split[:, :, 2])
    q = ops.apply_rope(_in_token_order(ops, queries), cos, sin)
    k = ops.apply_rope(_in_token_order(ops, keys), cos, sin)
    v = _in_token_order(ops, values)
    return ops.transpose_heads(q), ops.transpose_heads(k), ops.transpose_heads(v)


@implements("attention", "composed", composed=True)
def attention(ops: Any, q: Any, k: Any, v: Any, out: Any = None) -> Any:
    """`batched_matmul`, `scale`, `softmax`, `batched_matmul`, `transpose_heads`; the scores [B, H, N, L] are stored.

    Q [B, H, N, d], K and V [B, H, L, d] to [B, N, H d].
    """
    _no_destination("attention", out)
    batch, heads, tokens, dim = q.shape
    scores = ops.batched_matmul(q, k.swapaxes(-1, -2), float32=True)
    weights = ops.softmax(ops.scale(scores, 1.0 / math.sqrt(dim)), dtype=str(v.dtype))
    return ops.transpose_heads(ops.batched_matmul(weights, v)).reshape(batch, tokens, heads * dim)


def _in_token_order(ops: Any, streams: list[Any]) -> Any:
    first, *rest = streams
    for stream in rest:
        first = ops.concat_tokens(first, stream)
    return first


def _no_destination(op: str, out: Any) -> None:
    if out is not None:
        raise ArgumentError(
            f"{op} 'composed': expected no out=, got one. Bind joined_halves to 'composed', or {op} to a fused "
            "implementation."
        )
