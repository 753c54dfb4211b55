"""Code shared by the twins of the two `qkv_heads` kernels."""

from __future__ import annotations

from typing import Any

import numpy as np


def _f32(x: Any) -> Any:
    return x.astype(np.float32, copy=False)


def _rms(x: Any, weight: Any, eps: float = 1e-6) -> Any:
    return x / np.sqrt((x * x).mean(-1, keepdims=True, dtype=np.float32) + np.float32(eps)) * _f32(weight)


def heads_of(
    qkvs: tuple[Any, ...],
    biases: tuple[Any, ...],
    q_norms: tuple[Any, ...],
    k_norms: tuple[Any, ...],
    cos: Any,
    sin: Any,
    heads: int,
) -> tuple[Any, Any, Any]:
    """Queries, keys and values [B, H, L, d] from projections [B, Li, 3 H d], all in float32 and without rounding."""
    batch, _, width = qkvs[0].shape
    tokens, dim = sum(qkv.shape[1] for qkv in qkvs), width // (3 * heads)
    q, k, v = (np.empty((batch, heads, tokens, dim), np.float32) for _ in range(3))
    start = 0
    for qkv, bias, q_norm, k_norm in zip(qkvs, biases, q_norms, k_norms, strict=True):
        here = slice(start, start + qkv.shape[1])
        split = (qkv + _f32(bias)).reshape(batch, qkv.shape[1], 3, heads, dim).transpose(2, 0, 3, 1, 4)
        for target, rows, weight in ((q, split[0], q_norm), (k, split[1], k_norm)):
            normed = _rms(rows, weight)
            even, odd = normed[..., 0::2], normed[..., 1::2]
            cosine, sine = cos[here, 0::2], sin[here, 0::2]
            target[:, :, here, 0::2] = even * cosine - odd * sine
            target[:, :, here, 1::2] = odd * cosine + even * sine
        v[:, :, here] = split[2]
        start = here.stop
    return q, k, v
