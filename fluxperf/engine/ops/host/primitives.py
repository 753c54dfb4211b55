"""Host twins of the primitive kernels: float32 arithmetic, and one rounding to the input's dtype at the end."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fluxperf.engine.device.host import host_dtype
from fluxperf.engine.ops.catalog import implements, twin
from fluxperf.engine.ops.frequencies import timestep_frequencies


def _f32(x: Any) -> Any:
    return x.astype(np.float32, copy=False)


@twin("layer_norm", "primitives")
def layer_norm(x: Any, eps: float = 1e-6) -> Any:
    """x [.., D]: the mean, then the variance of the centred row."""
    wide = _f32(x)
    centred = wide - wide.mean(-1, keepdims=True, dtype=np.float32)
    variance = (centred * centred).mean(-1, keepdims=True, dtype=np.float32)
    return (centred / np.sqrt(variance + np.float32(eps))).astype(x.dtype)


@twin("modulate", "primitives")
def modulate(x: Any, scale: Any, shift: Any) -> Any:
    """``x (1 + scale) + shift``: x [B, L, D], scale and shift [B, D]."""
    return (_f32(x) * (1 + _f32(scale)[:, None]) + _f32(shift)[:, None]).astype(x.dtype)


@twin("gated_residual", "primitives")
def gated_residual(x: Any, gate: Any, y: Any) -> Any:
    """``x + gate y``: x and y [B, L, D], gate [B, D]."""
    return (_f32(x) + _f32(gate)[:, None] * _f32(y)).astype(x.dtype)


@twin("add_broadcast", "primitives")
def add_broadcast(x: Any, y: Any) -> Any:
    """x + y of any two shapes that broadcast."""
    return (_f32(x) + _f32(y)).astype(x.dtype)


@twin("scale", "primitives")
def scale(x: Any, factor: float) -> Any:
    """x [..] times a factor."""
    return (_f32(x) * np.float32(factor)).astype(x.dtype)


@twin("rms_norm", "primitives")
def rms_norm(x: Any, weight: Any, eps: float = 1e-6) -> Any:
    """RMS norm of x [.., d] with weight [d]."""
    wide = _f32(x)
    mean_square = (wide * wide).mean(-1, keepdims=True, dtype=np.float32)
    return (wide / np.sqrt(mean_square + np.float32(eps)) * _f32(weight)).astype(x.dtype)


@twin("apply_rope", "primitives")
def apply_rope(x: Any, cos: Any, sin: Any) -> Any:
    """Rotates adjacent pairs of x [B, L, H, d]; cos and sin [L, d] in float32."""
    wide = _f32(x)
    even, odd = wide[..., 0::2], wide[..., 1::2]
    cosine, sine = cos[:, None, 0::2], sin[:, None, 0::2]
    result = np.empty_like(wide)
    result[..., 0::2] = even * cosine - odd * sine
    result[..., 1::2] = odd * cosine + even * sine
    return result.astype(x.dtype)


@twin("softmax", "primitives")
def softmax(x: Any, dtype: str = "") -> Any:
    """Softmax over the last axis of x [.., N]; ``dtype`` is the result's, the input's unless given."""
    wide = _f32(x)
    weights = np.exp(wide - wide.max(-1, keepdims=True, initial=-np.inf))
    return (weights / weights.sum(-1, keepdims=True, dtype=np.float32)).astype(host_dtype(dtype) if dtype else x.dtype)


@twin("gelu", "primitives")
def gelu(x: Any) -> Any:
    """GELU of x [..], tanh form."""
    wide = _f32(x)
    inner = np.float32(math.sqrt(2 / math.pi)) * (wide + np.float32(0.044715) * wide * wide * wide)
    return (np.float32(0.5) * wide * (1 + np.tanh(inner))).astype(x.dtype)


@twin("silu", "primitives")
def silu(x: Any) -> Any:
    """``x sigmoid(x)`` of x [..], computed with the exponential of ``-|x|``, which cannot overflow."""
    wide = _f32(x)
    decay = np.exp(-np.abs(wide))
    return (wide * np.where(wide >= 0, 1, decay) / (1 + decay)).astype(x.dtype)


@twin("concat_tokens", "primitives")
def concat_tokens(first: Any, second: Any) -> Any:
    """Concatenates first [B, L1, ..] and second [B, L2, ..] along axis 1."""
    return np.concatenate([first, second], axis=1)


@twin("split_tokens", "primitives")
def split_tokens(x: Any, tokens: int) -> tuple[Any, Any]:
    """Splits x [B, L, ..] along axis 1 into two copies."""
    return x[:, :tokens].copy(), x[:, tokens:].copy()


@twin("transpose_heads", "primitives")
def transpose_heads(x: Any) -> Any:
    """Exchanges axes 1 and 2 of x [B, L, H, d]; the result is a contiguous copy."""
    return x.swapaxes(1, 2).copy()


@twin("join_features", "primitives")
def join_features(first: Any, second: Any) -> Any:
    """Concatenates first [B, L, D] and second [B, L, M] along the last axis."""
    return np.concatenate([first, second], axis=-1)


@implements("cast", "primitives", device="host")
def cast(device: Any, x: Any, dtype: str) -> Any:
    """The array itself if it has the dtype already; else a copy, rounded once."""
    return x if x.dtype == host_dtype(dtype) else device.launch(_rounded, x, dtype=dtype)


def _rounded(x: Any, dtype: str) -> Any:
    return x.astype(host_dtype(dtype))


@twin("euler_step", "primitives")
def euler_step(latents: Any, velocity: Any, delta: float) -> Any:
    """``latents + delta velocity`` [..]; latents stay float32 whatever the velocity's dtype."""
    return _f32(latents) + np.float32(delta) * _f32(velocity)


@twin("timestep_embedding", "primitives")
def timestep_embedding(values: tuple[float, ...], features: int = 256) -> Any:
    """S timesteps to [S, features]; angles in float32, as in diffusers and the original."""
    angles = (np.asarray(values, np.float32) * np.float32(1000))[:, None] * timestep_frequencies(features // 2)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)


@twin("rope_table", "primitives")
def rope_table(text_tokens: int, rows: int, columns: int, axes: tuple[int, ...], theta: float) -> tuple[Any, Any]:
    """cos and sin [T + rows columns, d]; angles in float64, results in float32."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    angles = np.zeros((text_tokens + rows * columns, sum(axes)))
    offset = 0
    for positions, width in zip((np.zeros_like(row), row, column), axes, strict=True):
        frequencies = theta ** -(np.arange(0, width, 2) / width)
        angles[text_tokens:, offset : offset + width] = np.repeat(positions[:, None] * frequencies, 2, axis=1)
        offset += width
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
