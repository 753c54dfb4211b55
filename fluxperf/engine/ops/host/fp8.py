"""Host twins of the fp8 kernels: e4m3 operands with a float32 scale per row, float32 accumulation, bfloat16 results.

Quantization is part of the kernel that produces an operand, or of a kernel of its own where that is a product. The
scale of a row is its largest magnitude over 448, the largest e4m3 number.
"""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np

from fluxperf.engine.ops.catalog import twin
from fluxperf.engine.ops.table import Quantized

_E4M3_MAX = np.float32(448)


def _f32(x: Any) -> Any:
    return x.astype(np.float32, copy=False)


def _quantized(wide: Any, axes: int | tuple[int, ...] = -1) -> Any:
    """Numbers rounded to e4m3 with one scale over ``axes``; an all-zero row gets scale 1."""
    largest = np.abs(wide).max(axis=axes, keepdims=True, initial=0)
    scale: Any = np.where(largest > 0, largest / _E4M3_MAX, 1).astype(np.float32)
    data: Any = np.clip(wide / scale, -_E4M3_MAX, _E4M3_MAX).astype(ml_dtypes.float8_e4m3fn)
    return Quantized(data, scale)


def _operand(x: Any) -> Any:
    return x if isinstance(x, Quantized) else _quantized(_f32(x))


def _product(x: Any, weight: Any) -> Any:
    left = _operand(x)
    return np.matmul(_f32(left.data), _f32(weight.data).T) * left.scale * weight.scale.reshape(-1)


@twin("quantize_rows", "fp8")
def quantize_rows(x: Any) -> Any:
    """A weight [N, K] with one scale per output channel, or activations with one per token."""
    return _quantized(_f32(x))


@twin("norm_modulate", "fp8")
def norm_modulate(x: Any, shift: Any, scale: Any, eps: float = 1e-6) -> Any:
    """Normalized, modulated and quantized per token in one kernel, without a bfloat16 result in between."""
    wide = _f32(x)
    centred = wide - wide.mean(-1, keepdims=True, dtype=np.float32)
    normed = centred / np.sqrt((centred * centred).mean(-1, keepdims=True, dtype=np.float32) + np.float32(eps))
    return _quantized(normed * (1 + _f32(scale)[:, None]) + _f32(shift)[:, None])


@twin("linear", "fp8")
def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """Operands in e4m3, both scales in the epilogue."""
    result = _product(x, weight)
    return (result if bias is None else result + _f32(bias)).astype(ml_dtypes.bfloat16)


@twin("linear_gelu", "fp8")
def linear_gelu(x: Any, weight: Any, bias: Any) -> Any:
    """Bias and tanh-GELU in the epilogue; the result is bfloat16."""
    wide = _product(x, weight) + _f32(bias)
    inner = np.float32(math.sqrt(2 / math.pi)) * (wide + np.float32(0.044715) * wide * wide * wide)
    return (np.float32(0.5) * wide * (1 + np.tanh(inner))).astype(ml_dtypes.bfloat16)


@twin("linear_gated_residual", "fp8")
def linear_gated_residual(x: Any, gate: Any, y: Any, weight: Any, bias: Any) -> Any:
    """y quantized per token by a kernel of its own, product rounded to bfloat16, then bias, gate and residual."""
    product = _product(y, weight).astype(ml_dtypes.bfloat16)
    return (_f32(x) + _f32(gate)[:, None] * (_f32(product) + _f32(bias))).astype(x.dtype)


@twin("attention", "fp8")
def attention(q: Any, k: Any, v: Any) -> Any:
    """Q, K and V in e4m3 with a scale per head; the weights, in [0, 1], in e4m3 times 448."""
    batch, heads, tokens, dim = q.shape
    quantized = [_quantized(_f32(x), axes=(-2, -1)) for x in (q, k, v)]
    wide_q, wide_k, wide_v = (_f32(x.data) for x in quantized)
    scales = quantized[0].scale * quantized[1].scale * np.float32(1 / math.sqrt(dim))
    scores = np.matmul(wide_q, wide_k.swapaxes(-1, -2)) * scales
    weights = np.exp(scores - scores.max(-1, keepdims=True, initial=-np.inf))
    rounded = _f32((weights * _E4M3_MAX).astype(ml_dtypes.float8_e4m3fn)) / _E4M3_MAX
    mixed = np.matmul(rounded, wide_v) * quantized[2].scale / weights.sum(-1, keepdims=True, dtype=np.float32)
    return mixed.astype(q.dtype).swapaxes(1, 2).reshape(batch, tokens, heads * dim)
