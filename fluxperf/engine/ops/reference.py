"""The oracle: every op in float64 NumPy, written like its formula. It shares no code with an implementation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Always float64 after conversion; declared as Any because NumPy's stubs lose the dtype in arithmetic.
Numbers = Any


def _f64(x: Any) -> Numbers:
    return np.asarray(x).astype(np.float64)


def layer_norm(x: Numbers, eps: float = 1e-6) -> Numbers:
    """``(x - mean) / sqrt(var + eps)`` over the last axis, biased variance (Ba et al. 2016)."""
    x = _f64(x)
    centred = x - np.einsum("...d->...", x)[..., None] / x.shape[-1]
    return centred / np.sqrt(np.einsum("...d,...d->...", centred, centred)[..., None] / x.shape[-1] + eps)


def modulate(x: Numbers, scale: Numbers, shift: Numbers) -> Numbers:
    """``x (1 + scale) + shift``, scale and shift per sample (Peebles and Xie 2023, adaLN)."""
    rows = [_f64(row) * (1 + _f64(s)) + _f64(h) for row, s, h in zip(x, scale, shift, strict=True)]
    return np.array(rows).reshape(x.shape)


def gated_residual(x: Numbers, gate: Numbers, y: Numbers) -> Numbers:
    """``x + gate y``, gate per sample."""
    return _f64(x) + np.einsum("bd,bld->bld", _f64(gate), _f64(y))


def add_broadcast(x: Numbers, y: Numbers) -> Numbers:
    """``x + y`` with NumPy's rules of broadcasting."""
    x, y = np.broadcast_arrays(_f64(x), _f64(y))
    return x + y


def batched_matmul(a: Numbers, b: Numbers, float32: bool = False) -> Numbers:
    """``sum_k a[.., m, k] b[.., k, n]``."""
    return np.einsum("...mk,...kn->...mn", _f64(a), _f64(b))


def scale(x: Numbers, factor: float) -> Numbers:
    """``x factor``."""
    return _f64(x) * factor


def rms_norm(x: Numbers, weight: Numbers, eps: float = 1e-6) -> Numbers:
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last axis (Zhang and Sennrich 2019)."""
    x = _f64(x)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * _f64(weight)


def apply_rope(x: Numbers, cos: Numbers, sin: Numbers) -> Numbers:
    """Rotation of adjacent pairs as a complex product, x [B, L, H, d], cos and sin [L, d] (Su et al. 2021)."""
    x = _f64(x)
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * (_f64(cos)[:, None, 0::2] + 1j * _f64(sin)[:, None, 0::2])
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def softmax(x: Numbers, dtype: str = "") -> Numbers:
    """``exp(x) / sum(exp(x))`` over the last axis."""
    x = _f64(x)
    return np.exp(x - np.logaddexp.reduce(x, axis=-1)[..., None])


def gelu(x: Numbers) -> Numbers:
    """``x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`` (Hendrycks and Gimpel 2016, the tanh form)."""
    x = _f64(x)
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x: Numbers) -> Numbers:
    """``x / (1 + exp(-x))``."""
    x = _f64(x)
    return x / (1 + np.exp(-x))


def linear(x: Numbers, weight: Numbers, bias: Numbers | None = None) -> Numbers:
    """``x W^T + b``, W [N, K]."""
    y = np.einsum("...k,nk->...n", _f64(x), _f64(weight), optimize=True)
    return y if bias is None else y + _f64(bias)


def concat_tokens(first: Numbers, second: Numbers) -> Numbers:
    """First tokens, then second, along axis 1."""
    return np.concatenate([_f64(first), _f64(second)], axis=1)


def split_tokens(x: Numbers, tokens: int) -> tuple[Numbers, Numbers]:
    """The first tokens along axis 1, and the rest."""
    return _f64(x[:, :tokens]), _f64(x[:, tokens:])


def split_modulation(modulation: Numbers, parts: int) -> tuple[Numbers, ...]:
    """[B, n D] as n vectors [B, D]."""
    return tuple(_f64(part) for part in np.split(modulation, parts, axis=-1))


def transpose_heads(x: Numbers) -> Numbers:
    """[B, L, H, d] to [B, H, L, d], or back."""
    return np.einsum("blhd->bhld", _f64(x)).copy()


def cast(x: Numbers, dtype: str) -> Numbers:
    """x unchanged: the oracle does not round."""
    return _f64(x)


def quantize_rows(x: Numbers) -> Numbers:
    """x unchanged: quantization approximates it."""
    return _f64(x)


def euler_step(latents: Numbers, velocity: Numbers, delta: float) -> Numbers:
    """``x + delta v``, one step of the flow-matching ODE (Esser et al. 2024)."""
    return _f64(latents) + delta * _f64(velocity)


def timestep_embedding(values: Sequence[float], features: int = 256) -> Numbers:
    """``cos(1000 t w), sin(1000 t w)`` with ``w = 10000^(-i / (features/2))``: cosines first, [S] to [S, features].

    ``w`` is float32 with float32 exponents, as in diffusers (``models/embeddings.py``, ``get_timestep_embedding``) and
    the original. The models were trained with these values, so more exact ones would be wrong.
    """
    half = features // 2
    exponents = [np.float32(-math.log(10_000)) * np.float32(i) / np.float32(half) for i in range(half)]
    frequencies = [float(np.float32(math.exp(exponent))) for exponent in exponents]
    for i in (12, 106) if half == 128 else ():  # as PyTorch's exp rounds: 0.52 ulp from the exact value
        frequencies[i] = float(np.nextafter(np.float32(frequencies[i]), np.float32(1)))
    angles = [[1000 * t * w for w in frequencies] for t in values]
    return np.array([[math.cos(a) for a in row] + [math.sin(a) for a in row] for row in angles]).reshape(-1, features)


def rope_table(text_tokens: int, rows: int, columns: int, axes: Sequence[int], theta: float) -> tuple[Numbers, Numbers]:
    """cos and sin [L, d] of positions (0, row, column), zeros for text tokens; each frequency appears twice (Su et al.

    2021).
    """
    places = [(0, 0, 0)] * text_tokens + [(0, row, column) for row in range(rows) for column in range(columns)]
    angles = np.array(
        [
            [place[axis] * theta ** (-2 * (i // 2) / width) for axis, width in enumerate(axes) for i in range(width)]
            for place in places
        ]
    )
    return np.cos(angles), np.sin(angles)


def silu_linear(x: Numbers, weight: Numbers, bias: Numbers) -> Numbers:
    """``SiLU(x) W^T + b``."""
    return linear(silu(x), weight, bias)


def linear_gelu(x: Numbers, weight: Numbers, bias: Numbers) -> Numbers:
    """``GELU(x W^T + b)``."""
    return gelu(linear(x, weight, bias))


def norm_modulate(x: Numbers, shift: Numbers, scale: Numbers) -> Numbers:
    """``layer_norm(x) (1 + scale) + shift``."""
    return modulate(layer_norm(x), scale, shift)


def qkv_heads(
    qkvs: Sequence[Numbers],
    biases: Sequence[Numbers],
    q_norms: Sequence[Numbers],
    k_norms: Sequence[Numbers],
    cos: Numbers,
    sin: Numbers,
    heads: int,
) -> tuple[Numbers, Numbers, Numbers]:
    """Per stream bias and RMS norm; streams in token order; rotated; [B, H, L, d] for Q, K and V."""
    parts: list[list[Numbers]] = [[], [], []]
    for qkv, bias, q_norm, k_norm in zip(qkvs, biases, q_norms, k_norms, strict=True):
        batch, tokens, width = qkv.shape
        three = (_f64(qkv) + _f64(bias)).reshape(batch, tokens, 3, heads, width // 3 // heads)
        parts[0].append(rms_norm(three[:, :, 0], q_norm))
        parts[1].append(rms_norm(three[:, :, 1], k_norm))
        parts[2].append(three[:, :, 2])
    q, k, v = (np.concatenate(part, axis=1) for part in parts)
    return transpose_heads(apply_rope(q, cos, sin)), transpose_heads(apply_rope(k, cos, sin)), transpose_heads(v)


def attention(q: Numbers, k: Numbers, v: Numbers) -> Numbers:
    """``softmax(Q K^T / sqrt d) V`` per head: [B, H, N, d], 2 x [B, H, L, d] to [B, N, H d] (Vaswani et al. 2017)."""
    q, k, v = _f64(q), _f64(k), _f64(v)
    weights = softmax(np.einsum("bhqd,bhkd->bhqk", q, k, optimize=True) / math.sqrt(q.shape[-1]))
    batch, heads, tokens, dim = q.shape
    return np.einsum("bhqk,bhkd->bqhd", weights, v, optimize=True).reshape(batch, tokens, heads * dim)


def linear_gated_residual(x: Numbers, gate: Numbers, y: Numbers, weight: Numbers, bias: Numbers) -> Numbers:
    """``x + gate (y W^T + b)``."""
    return gated_residual(x, gate, linear(y, weight, bias))


def join_features(first: Numbers, second: Numbers) -> Numbers:
    """Two tensors [B, L, D] and [B, L, M], concatenated along the last axis."""
    return np.concatenate([_f64(first), _f64(second)], axis=-1)
