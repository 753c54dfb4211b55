"""Host twins of the fused kernels, with one rounding instead of several.

A product stores its result in the dtype of its operands. So an epilogue that is a separate kernel reads rounded values,
and one inside the product reads float32 accumulators. Each twin rounds at the same places as its kernel.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fluxperf.engine.ops.catalog import implements, twin
from fluxperf.engine.ops.host.heads import heads_of
from fluxperf.engine.ops.layout import joined
from fluxperf.engine.ops.table import Deferred


def _f32(x: Any) -> Any:
    return x.astype(np.float32, copy=False)


def _product(x: Any, weight: Any) -> Any:
    return np.matmul(_f32(x), _f32(weight).T)


@twin("norm_modulate", "fused")
def norm_modulate(x: Any, shift: Any, scale: Any, eps: float = 1e-6) -> Any:
    """Statistics, normalization and modulation of each row of x [B, L, D] in registers; rounds once."""
    wide = _f32(x)
    centred = wide - wide.mean(-1, keepdims=True, dtype=np.float32)
    normed = centred / np.sqrt((centred * centred).mean(-1, keepdims=True, dtype=np.float32) + np.float32(eps))
    return (normed * (1 + _f32(scale)[:, None]) + _f32(shift)[:, None]).astype(x.dtype)


@twin("qkv_heads", "fused")
def qkv_heads(
    qkvs: tuple[Any, ...],
    biases: tuple[Any, ...],
    q_norms: tuple[Any, ...],
    k_norms: tuple[Any, ...],
    cos: Any,
    sin: Any,
    heads: int,
) -> tuple[Any, Any, Any]:
    """Bias, split, RMS norm, rotation and head layout of all streams in one launch; rounds once.

    Deferred products are computed and rounded first, as the library rounds its products.
    """
    dtype = (qkvs[0].x if isinstance(qkvs[0], Deferred) else qkvs[0]).dtype
    done = tuple(_product(*qkv).astype(dtype) if isinstance(qkv, Deferred) else qkv for qkv in qkvs)
    q, k, v = heads_of(tuple(map(_f32, done)), biases, q_norms, k_norms, cos, sin, heads)
    return q.astype(dtype), k.astype(dtype), v.astype(dtype)


@twin("linear_gelu", "fused")
def linear_gelu(x: Any, weight: Any, bias: Any) -> Any:
    """x [.., K] to [.., N]: bias and tanh-GELU in the epilogue, on the accumulators; rounds once."""
    wide = _product(x, weight) + _f32(bias)
    inner = np.float32(math.sqrt(2 / math.pi)) * (wide + np.float32(0.044715) * wide * wide * wide)
    return (np.float32(0.5) * wide * (1 + np.tanh(inner))).astype(x.dtype)


@twin("linear_gated_residual", "fused")
def linear_gated_residual(x: Any, gate: Any, y: Any, weight: Any, bias: Any) -> Any:
    """A product without bias, rounded; then bias, gate, residual in one kernel, rounded: y [B, L, K] to [B, L, D]."""
    product = _product(y, weight).astype(x.dtype)
    return (_f32(x) + _f32(gate)[:, None] * (_f32(product) + _f32(bias))).astype(x.dtype)


@twin("silu_linear", "fused")
def silu_linear(x: Any, weight: Any, bias: Any) -> Any:
    """x [B, K] to [B, N]: SiLU on the operand, bias in the epilogue."""
    wide = _f32(x)
    decay = np.exp(-np.abs(wide))
    activated = (wide * np.where(wide >= 0, 1, decay) / (1 + decay)).astype(x.dtype)
    return (_by_squares(activated, weight) + _f32(bias)).astype(x.dtype)


def _by_squares(x: Any, weight: Any) -> Any:
    """Multiplies x by the weight [N, K] in square blocks [K, K], so that a row's bits do not depend on the other rows.

    A BLAS chooses its kernel, and so the order of summation, by the sizes of a product. The modulation projection has a
    multiple of K rows, and so has each piece of it that is streamed within a memory budget.
    """
    rows, width = weight.shape
    if not width or rows % width:
        return _product(x, weight)
    squares = np.matmul(_f32(x), _f32(weight).reshape(rows // width, width, width).swapaxes(-1, -2))
    return np.moveaxis(squares, 0, -2).reshape(*x.shape[:-1], rows)


@twin("attention", "flash")
def attention(q: Any, k: Any, v: Any) -> Any:
    """Softmax in float32.

    Its numerators are rounded as operands of the second product; the division by their sum comes last.
    """
    batch, heads, tokens, dim = q.shape
    scores = np.matmul(_f32(q), _f32(k).swapaxes(-1, -2)) * np.float32(1 / math.sqrt(dim))
    weights = np.exp(scores - scores.max(-1, keepdims=True, initial=-np.inf))
    mixed = np.matmul(_f32(weights.astype(v.dtype)), _f32(v)) / weights.sum(-1, keepdims=True, dtype=np.float32)
    return mixed.astype(q.dtype).swapaxes(1, 2).reshape(batch, tokens, heads * dim)


@implements("concat_tokens", "views", device="host")
def concat_tokens(device: Any, first: Any, second: Any) -> Any:
    """The buffer if both arguments are its halves along axis 1; else a copy in one launch."""
    whole = joined(first, second, 1)
    return whole if whole is not None else device.launch(_side_by_side, first, second, axis=1)


@implements("join_features", "views", device="host")
def join_features(device: Any, first: Any, second: Any) -> Any:
    """The buffer if both arguments are its halves along the last axis; else a copy in one launch."""
    whole = joined(first, second, -1)
    return whole if whole is not None else device.launch(_side_by_side, first, second, axis=-1)


def _side_by_side(first: Any, second: Any, axis: int) -> Any:
    return np.concatenate([first, second], axis=axis)
