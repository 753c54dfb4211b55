"""The vocabulary: one row per op, from which tests, op benchmarks, help and roofline columns are generated.

Axes: B samples, L tokens, T text tokens, D width of the residual stream, H heads, d head dimension, K and N features of
a product, S timesteps, M width of the MLP. An argument is written as name and axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fluxperf.engine.ops import reference
from fluxperf.engine.ops.table import OP_NAMES

#: Elementwise work per element where a formula has transcendental functions: a count of operations, not of cycles.
_EXP, _TANH = 8, 12


@dataclass(frozen=True)
class Spec:
    """What an op means, whoever computes it.

    ``tolerance`` bounds ``||out - oracle|| / ||oracle||`` by dtype of the activations, with the oracle given the
    operands as rounded to that dtype. ``flops`` counts a multiply-add as two operations and takes the op's arguments.
    Bytes are those of every array argument and result, each once.
    """

    name: str
    tier: Literal["primitive", "model"]
    meaning: str
    signature: str
    oracle: Callable[..., Any] | None
    flops: Callable[..., int]
    tolerance: Mapping[str, float] = field(default_factory=dict)
    public: str = ""


# One rounding to bfloat16 is at most 2^-8 relative, and 0.44 of that over many numbers where truncation is 0.88:
# three quarters tell them apart. A composition of n rounded ops is given n of them. One rounding to float32 is at
# most 2^-24; an op made of a few is given two, one with long sums eight. The host's implementations use a fifth to
# four fifths of each.
_BF16 = 0.75 * 2.0**-8
_F32 = 2.0**-23
_ELEMENTWISE = {"float32": _F32, "bfloat16": _BF16}
_SUMS = {"float32": 4 * _F32, "bfloat16": _BF16}
_CHAIN = {"float32": 4 * _F32, "bfloat16": 2 * _BF16}
# Two e4m3 operands (3 mantissa bits: at most 2^-4 relative each, over many numbers 2^-5.2), their errors independent.
_FP8 = {"fp8": 0.06}
# Float32 results whatever the dtype of activations.
_WIDE = {"float32": _F32, "bfloat16": _F32}
_MOVED = {"float32": 0.0, "bfloat16": 0.0}


def _elements(x: Any, *_: Any) -> int:
    return int(x.size)


def _per_element(operations: int) -> Callable[..., int]:
    return lambda x, *_: operations * int(x.size)


def _none(*_: Any) -> int:
    return 0


def _matmul(a: Any, b: Any, *_: Any) -> int:
    return 2 * int(a.size) * int(b.shape[-1])


def _linear(x: Any, weight: Any, *_: Any) -> int:
    return 2 * int(x.size) * int(weight.shape[0])


def _qkv(qkvs: Any, *_: Any) -> int:
    return 8 * sum(int(qkv.size) for qkv in qkvs)


def _attention(q: Any, *_: Any) -> int:
    scores = int(q.size) * int(q.shape[2])
    return 4 * scores + (_EXP + 3) * scores // max(int(q.shape[3]), 1)


def _table(text_tokens: int, rows: int, columns: int, axes: Any, *_: Any) -> int:
    return _EXP * (text_tokens + rows * columns) * int(sum(axes))


def _spec(
    name: str,
    tier: Literal["primitive", "model"],
    meaning: str,
    signature: str,
    flops: Callable[..., int],
    tolerance: Mapping[str, float],
    public: str = "",
) -> Spec:
    return Spec(name, tier, meaning, signature, getattr(reference, name, None), flops, tolerance, public)


_ROWS = (
    _spec(
        "layer_norm",
        "primitive",
        "layer norm without affine, eps 1e-6, biased variance",
        "x [B, L, D] -> [B, L, D]",
        _per_element(8),
        _ELEMENTWISE,
        "gpu_layer_norm",
    ),
    _spec(
        "modulate",
        "primitive",
        "x (1 + scale) + shift",
        "x [B, L, D], scale [B, D], shift [B, D] -> [B, L, D]",
        _per_element(3),
        _ELEMENTWISE,
        "gpu_modulate",
    ),
    _spec(
        "gated_residual",
        "primitive",
        "x + gate y",
        "x [B, L, D], gate [B, D], y [B, L, D] -> [B, L, D]",
        _per_element(2),
        _ELEMENTWISE,
        "gpu_gated_residual",
    ),
    _spec(
        "add_broadcast",
        "primitive",
        "x + y, broadcast",
        "x [..], y [..] -> [..]",
        _elements,
        _ELEMENTWISE,
        "gpu_add_broadcast",
    ),
    _spec(
        "batched_matmul",
        "primitive",
        "a product per sample and head",
        "a [.., M, K], b [.., K, N] -> [.., M, N]",
        _matmul,
        _SUMS,
        "gpu_batched_matmul",
    ),
    _spec("scale", "primitive", "x times a number", "x [..], factor -> [..]", _elements, _ELEMENTWISE),
    _spec(
        "rms_norm",
        "primitive",
        "RMS norm with a learned weight, eps 1e-6",
        "x [.., d], weight [d] -> [.., d]",
        _per_element(5),
        _ELEMENTWISE,
    ),
    _spec(
        "apply_rope",
        "primitive",
        "rotates adjacent pairs",
        "x [B, L, H, d], cos [L, d], sin [L, d] -> [B, L, H, d]",
        _per_element(3),
        _ELEMENTWISE,
    ),
    _spec("softmax", "primitive", "over the last axis", "x [.., L] -> [.., L]", _per_element(_EXP + 3), _ELEMENTWISE),
    _spec("gelu", "primitive", "tanh form", "x [..] -> [..]", _per_element(_TANH + 8), _ELEMENTWISE),
    _spec("silu", "primitive", "x sigmoid(x)", "x [..] -> [..]", _per_element(_EXP + 3), _ELEMENTWISE),
    _spec(
        "linear",
        "primitive",
        "x W^T + b",
        "x [.., K], weight [N, K], bias [N] or none -> [.., N]",
        _linear,
        {**_SUMS, **_FP8},
    ),
    _spec(
        "concat_tokens",
        "primitive",
        "first tokens, then second",
        "first [B, L1, ..], second [B, L2, ..] -> [B, L1 + L2, ..]",
        _none,
        _MOVED,
    ),
    _spec(
        "split_tokens",
        "primitive",
        "the first tokens, and the rest",
        "x [B, L, ..], tokens -> [B, tokens, ..], [B, L - tokens, ..]",
        _none,
        _MOVED,
    ),
    _spec(
        "split_modulation",
        "primitive",
        "modulation vectors side by side, one by one",
        "modulation [B, n D], n -> n x [B, D]",
        _none,
        _MOVED,
    ),
    _spec("transpose_heads", "primitive", "tokens by heads, or back", "x [B, L, H, d] -> [B, H, L, d]", _none, _MOVED),
    _spec(
        "cast",
        "primitive",
        "the same numbers in another dtype",
        "x [..], dtype -> [..]",
        _none,
        {"float32": 0.0, "bfloat16": _BF16},
    ),
    _spec(
        "quantize_rows",
        "primitive",
        "e4m3 with a scale per row, a power of two",
        "x [.., K] -> data [.., K] in e4m3, scale [.., 1]",
        _per_element(3),
        {"fp8": 0.04},
    ),
    _spec(
        "euler_step",
        "primitive",
        "latents + delta velocity, latents in float32",
        "latents [B, L, C], velocity [B, L, C], delta -> [B, L, C]",
        _per_element(2),
        _WIDE,
    ),
    # float32 angles up to 1000 radians carry 3e-5 each, in diffusers and the original alike.
    _spec(
        "timestep_embedding",
        "model",
        "sinusoidal features of 1000 t, cosines first",
        "S timesteps -> [S, 256]",
        _none,
        {"float32": 1e-4, "bfloat16": 1e-4},
    ),
    _spec(
        "rope_table",
        "model",
        "cos and sin of every position, once per shape",
        "T, rows, columns, axes, theta -> 2 x [T + rows columns, d]",
        _table,
        _WIDE,
    ),
    _spec(
        "silu_linear",
        "model",
        "linear of SiLU: modulation, embedder MLPs",
        "x [B, K], weight [N, K], bias [N] -> [B, N]",
        _linear,
        _CHAIN,
    ),
    _spec(
        "linear_gelu",
        "model",
        "tanh-GELU of linear",
        "x [.., K], weight [N, K], bias [N] -> [.., N]",
        _linear,
        {**_CHAIN, **_FP8},
    ),
    _spec(
        "norm_modulate",
        "model",
        "layer norm, times (1 + scale), plus shift",
        "x [B, L, D], shift [B, D], scale [B, D] -> [B, L, D]",
        _per_element(11),
        {"float32": _F32, "bfloat16": 2 * _BF16, "fp8": 0.04},
    ),
    _spec(
        "qkv_heads",
        "model",
        "per stream bias, split, RMS norm, rotation; by head, streams in token order",
        "n x (qkv [B, Li, 3 H d], bias [3 H d], norms [d], [d]), cos, sin [L, d], H -> 3 x [B, H, L, d]",
        _qkv,
        {"float32": _F32, "bfloat16": 3 * _BF16, "fp8": 0.04},
    ),
    # Two long sums, and the exponential turns the error of a score into a relative one.
    _spec(
        "attention",
        "model",
        "softmax(Q K^T / sqrt d) V, heads side by side",
        "q, k, v [B, H, L, d] -> [B, L, H d]",
        _attention,
        {"float32": 8 * _F32, "bfloat16": 2 * _BF16, "fp8": 0.08},
    ),
    _spec(
        "linear_gated_residual",
        "model",
        "x + gate (y W^T + b)",
        "x [B, L, D], gate [B, D], y [B, L, K], weight [D, K], bias [D] -> [B, L, D]",
        lambda x, gate, y, weight, *_: _linear(y, weight),
        {**_CHAIN, **_FP8},
    ),
    _spec(
        "joined_halves",
        "model",
        "destinations of two results to be joined, or none",
        "B, L, D, M, dtype -> [B, L, D], [B, L, M]",
        _none,
        {},
    ),
    _spec(
        "join_features",
        "model",
        "two tensors side by side, e.g. attention and activated MLP half",
        "first [B, L, D], second [B, L, M] -> [B, L, D + M]",
        _none,
        {**_MOVED, "fp8": 0.04},
    ),
)

SPECS: dict[str, Spec] = {row.name: row for row in _ROWS}

if set(SPECS) != set(OP_NAMES):  # an internal truth: both files are ours
    raise AssertionError(f"specs and table differ: {sorted(set(SPECS) ^ set(OP_NAMES))}")
