"""Host twins of the fp8 kernels: e4m3 operands, power-of-two scales, float32 accumulation, bfloat16 products.

The kernel that produces an operand also quantizes it. A product leaves its scales and its bias to the kernel that reads
it (`Unscaled`). Multiplying by a power of two before or after rounding to bfloat16 gives the same value.
"""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np

from fluxperf.engine.ops.catalog import implements, twin
from fluxperf.engine.ops.host.heads import heads_of
from fluxperf.engine.ops.layout import halves
from fluxperf.engine.ops.table import Deferred, Halves, Quantized, Unscaled
from fluxperf.errors import ArgumentError

_E4M3_MOST = 448.0

#: Range of the scales' exponents; the inverse of a scale is then a normal float32 number too.
_EXPONENTS = (-126, 120)

#: The largest ratio by which sums of a row's first half are multiplied before those of the second half are added.
_REACH = 2.0**80


def _f32(x: Any) -> Any:
    return x.astype(np.float32, copy=False)


def _power(most: Any) -> Any:
    """The smallest power of two s with ``most / s <= 448``; 1 for zero, the largest scale for infinity."""
    mantissa, exponent = np.frexp(_f32(most))  # 448 is 0.875 times 2^9
    exponent = np.where(np.isinf(most), _EXPONENTS[1] + 9, exponent)
    powers = np.ldexp(np.float32(1), np.clip(exponent - 9 + (mantissa > 0.875), *_EXPONENTS))
    return np.where(most > 0, powers, 1).astype(np.float32)


def _largest(wide: Any, axes: int | tuple[int, ...] = -1) -> Any:
    """Largest magnitude over ``axes``. NaN is ignored, as in the kernels."""
    return np.fmax.reduce(np.abs(wide), axis=axes, keepdims=True, initial=0)


def _rounded(wide: Any, scale: Any) -> Any:
    return np.clip(wide / scale, -_E4M3_MOST, _E4M3_MOST).astype(ml_dtypes.float8_e4m3fn)


def _quantized(wide: Any, axes: int | tuple[int, ...] = -1) -> Any:
    """Values rounded to e4m3, with one scale over ``axes``."""
    scale: Any = _power(_largest(wide, axes))
    return Quantized(_rounded(wide, scale), scale)


def _operand(x: Any) -> Any:
    return x if isinstance(x, Quantized | Halves) else quantize_rows(x)


def _value(x: Any) -> Any:
    """Values in float32; those of a product with its scales and bias applied."""
    if not isinstance(x, Unscaled):
        return _f32(x)
    value = _f32(x.data) * x.rows * x.columns
    return value if x.bias is None else value + _f32(x.bias)


@twin("quantize_rows", "fp8")
def quantize_rows(x: Any) -> Any:
    """Quantizes a weight [N, K] with one scale per output channel, or activations [.., K] with one per token.

    A row of zeros has the least scale, because products bound their results by the largest scale of a weight.
    """
    wide = _f32(x)
    found = _quantized(wide)
    scale: Any = np.where(_largest(wide) > 0, found.scale, np.float32(2.0 ** _EXPONENTS[0]))
    return found._replace(scale=scale)


@twin("norm_modulate", "fp8")
def norm_modulate(x: Any, shift: Any, scale: Any, eps: float = 1e-6) -> Any:
    """x [B, L, D] normalized, modulated and quantized per token in one kernel, without a bfloat16 intermediate."""
    wide = _f32(x)
    centred = wide - wide.mean(-1, keepdims=True, dtype=np.float32)
    normed = centred / np.sqrt((centred * centred).mean(-1, keepdims=True, dtype=np.float32) + np.float32(eps))
    return _quantized(normed * (1 + _f32(scale)[:, None]) + _f32(shift)[:, None])


@twin("linear", "fp8")
def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """Multiplies x [.., K] and weight [N, K] in e4m3; scales and bias are left to the kernel that follows."""
    left = _operand(x)
    sums, rows = _of_halves(left, weight) if isinstance(left, Halves) else (_sums(left.data, weight.data), left.scale)
    return Unscaled(sums.astype(ml_dtypes.bfloat16), rows, weight.scale.reshape(-1), bias)


def _sums(x: Any, weight: Any) -> Any:
    return np.matmul(_f32(x), _f32(weight).T)


def _of_halves(x: Any, weight: Any) -> tuple[Any, Any]:
    """Sums over both halves of K, and the scales of rows: the second half's, wherever the first fits them.

    Sums of the first half are multiplied by the ratio of both scales, a power of two. See `HalvesGated` in
    `kernels/common/epilogue_halves.cuh`.
    """
    width, (first, second) = x.first.shape[-1], x
    rows = np.maximum(second.scale, first.scale * np.float32(1 / _REACH))
    ahead = _sums(first.data, weight.data[:, :width]) * (first.scale / rows)
    return ahead + _sums(second.data, weight.data[:, width:]), rows


@implements("linear_gelu", "fp8", device="host")
def linear_gelu(device: Any, x: Any, weight: Any, bias: Any, out: Any = None) -> Any:
    """A product, then scales, bias, tanh-GELU and rounding to e4m3 in one kernel; x [B, L, K] to [B, L, M]."""
    return _placed(device, device.launch(_gelu, x, weight, bias), out)


def _gelu(x: Any, weight: Any, bias: Any) -> Any:
    wide = _value(linear(x, weight, bias))
    inner = np.float32(math.sqrt(2 / math.pi)) * (wide + np.float32(0.044715) * wide * wide * wide)
    return _quantized(np.float32(0.5) * wide * (1 + np.tanh(inner)))


@twin("linear_gated_residual", "fp8")
def linear_gated_residual(x: Any, gate: Any, y: Any, weight: Any, bias: Any) -> Any:
    """A product rounded to bfloat16, then scales, bias, gate and residual in one kernel; y [B, L, K] to [B, L, D]."""
    return (_f32(x) + _f32(gate)[:, None] * _value(linear(y, weight, bias))).astype(ml_dtypes.bfloat16)


@twin("qkv_heads", "fp8")
def qkv_heads(
    qkvs: tuple[Any, ...],
    biases: tuple[Any, ...],
    q_norms: tuple[Any, ...],
    k_norms: tuple[Any, ...],
    cos: Any,
    sin: Any,
    heads: int,
) -> tuple[Any, Any, Any]:
    """As the fused kernel, into e4m3 [B, H, L, d] with one scale per tensor.

    The norms' weights bound Q and K and so give their scales; V has the scale of its largest value.
    """
    qkvs = tuple(linear(*qkv) if isinstance(qkv, Deferred) else qkv for qkv in qkvs)
    if any(isinstance(qkv, Unscaled) and qkv.bias is not None for qkv in qkvs):
        raise ArgumentError(
            "qkv_heads 'fp8': expected a product without bias, got one with a bias. Pass the bias in biases."
        )
    q, k, v = heads_of(tuple(_value(qkv) for qkv in qkvs), biases, q_norms, k_norms, cos, sin, heads)
    longest = math.sqrt(q.shape[-1])
    bounds = [longest * max(float(np.abs(_f32(norm)).max()) for norm in norms) for norms in (q_norms, k_norms)]
    scales = [_power(np.float32(bound)).reshape(1, 1, 1, 1) for bound in bounds]
    first, second = (Quantized(_rounded(x, scale), scale) for x, scale in zip((q, k), scales, strict=True))
    return first, second, _quantized(v, axes=(0, 1, 2, 3))


@implements("attention", "fp8", device="host")
def attention(device: Any, q: Any, k: Any, v: Any, out: Any = None) -> Any:
    """Q [B, H, N, d], K and V [B, H, L, d] to [B, N, H d] with V's scale, or that of its means where it has one.

    The attention weights, in [0, 1], are multiplied by 448 and rounded to e4m3.
    """
    return _placed(device, device.launch(_attention, q, k, v), out)


def _attention(q: Any, k: Any, v: Any) -> Any:
    batch, heads, tokens, dim = q.shape
    q, k, v = (_one_scale(x) for x in (q, k, v))
    scores = np.matmul(_f32(q.data), _f32(k.data).swapaxes(-1, -2)) * (q.scale * k.scale * np.float32(dim**-0.5))
    weights = np.exp(scores - scores.max(-1, keepdims=True, initial=-np.inf))
    rounded = _f32((weights * np.float32(_E4M3_MOST)).astype(ml_dtypes.float8_e4m3fn)) / np.float32(_E4M3_MOST)
    mixed = np.matmul(rounded, _f32(v.data)) / weights.sum(-1, keepdims=True, dtype=np.float32)
    own, ratio = (v.scale, np.float32(1)) if v.means is None else (v.means[:1], v.means[1])
    numbers = _rounded(mixed * ratio, np.float32(1)).swapaxes(1, 2).reshape(batch, tokens, heads * dim)
    scale: Any = np.broadcast_to(own.reshape(1, 1, 1), (batch, tokens, 1))
    return Quantized(numbers, scale)


def _one_scale(x: Any) -> Any:
    return x if isinstance(x, Quantized) else _quantized(_f32(x), axes=(0, 1, 2, 3))


@implements("joined_halves", "fp8", device="host")
def joined_halves(device: Any, batch: int, tokens: int, left: int, right: int, dtype: str) -> tuple[Any, Any]:
    """Two column slices [B, L, D] and [B, L, M] of one e4m3 buffer, whatever the dtype of activations."""
    whole = device.empty((batch, tokens, left + right), "float8_e4m3fn")
    return whole[:, :, :left], whole[:, :, left:]


@implements("join_features", "fp8", device="host")
def join_features(device: Any, first: Any, second: Any) -> Any:
    """Both halves with scales of their own; the product that follows multiplies by both."""
    return halves(*(x if isinstance(x, Quantized) else device.launch(quantize_rows, x) for x in (first, second)))


def _placed(device: Any, result: Any, out: Any) -> Any:
    """The result, with its values copied to ``out`` if there is one."""
    return result if out is None else Quantized(device.launch(_same, result.data, out=out), result.scale)


def _same(x: Any) -> Any:
    return x
