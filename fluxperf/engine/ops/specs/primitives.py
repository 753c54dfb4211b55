"""The primitives of the vocabulary."""

from __future__ import annotations

from typing import Any

from .spec import (
    BF16,
    ELEMENTWISE,
    EXP,
    FP8,
    MOVED,
    SUMS,
    TANH,
    WIDE,
    Call,
    Draw,
    Sizes,
    Spec,
    case,
    elements,
    none,
    normal,
    per_element,
    product,
    weight,
)

_TOKENS, _VECTOR = normal("B L D", mean=0.3), normal("B D")
_HEADS, _SCORES = normal("B L H d"), normal("B H L L", std=3.0)


def _rotated(draw: Draw, s: Sizes) -> Call:
    return Call((draw(s.batch, s.tokens, s.heads, s.dim), *draw.rotations(s.tokens, s.dim)))


def _softmax_of_scores(draw: Draw, s: Sizes) -> Call:
    """Softmax of float32 scores, with a result in the dtype of activations, as composed attention calls it."""
    return Call((draw(s.batch, s.heads, s.tokens, s.tokens, std=3.0, dtype="float32"),), {"dtype": draw.dtype})


def _cast(draw: Draw, s: Sizes) -> Call:
    """Cast to the dtype of activations from the other one."""
    other = {"float32": "bfloat16", "bfloat16": "float32"}[draw.dtype]
    return Call((draw(s.batch, s.tokens, s.width, dtype=other), draw.dtype))


def _matmul(a: Any, b: Any, *_: Any) -> int:
    return 2 * int(a.size) * int(b.shape[-1])


PRIMITIVES = (
    Spec("layer_norm", "primitive", "layer norm without affine, eps 1e-6, biased variance", "x [B, L, D] -> [B, L, D]",
         {"": case(_TOKENS)}, per_element(8), ELEMENTWISE, timed=("",), public="gpu_layer_norm"),
    Spec("modulate", "primitive", "x (1 + scale) + shift", "x [B, L, D], scale [B, D], shift [B, D] -> [B, L, D]",
         {"": case(_TOKENS, _VECTOR, _VECTOR)}, per_element(3), ELEMENTWISE, timed=("",), public="gpu_modulate"),
    Spec("gated_residual", "primitive", "x + gate y", "x [B, L, D], gate [B, D], y [B, L, D] -> [B, L, D]",
         {"": case(_TOKENS, _VECTOR, _TOKENS)}, per_element(2), ELEMENTWISE, timed=("",), public="gpu_gated_residual"),
    Spec("add_broadcast", "primitive", "x + y, broadcast", "x [..], y [..] -> [..]",
         {
             "": case(_TOKENS, _TOKENS),
             "vector": case(_TOKENS, normal("D")),
             "column": case(_TOKENS, lambda draw, s: draw(s.batch, s.tokens, 1)),
             "outer": case(lambda draw, s: draw(s.tokens, 1, s.width), _VECTOR),
         }, elements, ELEMENTWISE, timed=("vector", "column"), public="gpu_add_broadcast"),
    Spec("batched_matmul", "primitive", "a product per sample and head", "a [.., M, K], b [.., K, N] -> [.., M, N]",
         {
             "": case(normal("B H L d"), normal("B H d N")),
             "float32": case(normal("B H L d"), normal("B H d N"), result="float32", float32=True),
         }, _matmul, SUMS, timed=("",), public="gpu_batched_matmul"),
    Spec("scale", "primitive", "x times a number", "x [..], factor -> [..]",
         {"": case(normal("B L D"), 0.3535533905932738), "scores": case(normal("B H L L"), 0.3535533905932738)},
         elements, ELEMENTWISE, timed=("",)),
    Spec("rms_norm", "primitive", "RMS norm with a learned weight, eps 1e-6", "x [.., d], weight [d] -> [.., d]",
         {"": case(_HEADS, normal("d", std=0.1, mean=1.0))}, per_element(5), ELEMENTWISE, timed=("",)),
    Spec("apply_rope", "primitive", "rotates adjacent pairs", "x [B, L, H, d], cos [L, d], sin [L, d] -> [B, L, H, d]",
         {"": _rotated}, per_element(3), ELEMENTWISE, timed=("",)),
    Spec("softmax", "primitive", "over the last axis", "x [.., L] -> [.., L]",
         {"": case(_SCORES), "of_scores": _softmax_of_scores}, per_element(EXP + 3), ELEMENTWISE, timed=("of_scores",)),
    Spec("gelu", "primitive", "tanh form", "x [..] -> [..]", {"": case(normal("B L N", std=2.0))},
         per_element(TANH + 8), ELEMENTWISE, timed=("",)),
    Spec("silu", "primitive", "x sigmoid(x)", "x [..] -> [..]",
         {"": case(normal("B N", std=3.0)), "tokens": case(normal("B L D", std=3.0))}, per_element(EXP + 3),
         ELEMENTWISE, timed=("tokens",)),
    Spec("linear", "primitive", "x W^T + b", "x [.., K], weight [N, K], bias [N] or none -> [.., N]",
         {"": case(normal("B L D"), weight("N", "D"), normal("N")), "no_bias": case(normal("B L D"), weight("N", "D"))},
         product, {**SUMS, **FP8}),
    Spec("concat_tokens", "primitive", "first tokens, then second",
         "first [B, L1, ..], second [B, L2, ..] -> [B, L1 + L2, ..]",
         {"": case(normal("B T D"), normal("B I D", mean=0.3)), "by_head": case(normal("B T H d"), normal("B I H d"))},
         none, MOVED, timed=("",)),
    Spec("split_tokens", "primitive", "the first tokens, and the rest",
         "x [B, L, ..], tokens -> [B, tokens, ..], [B, L - tokens, ..]",
         {"": lambda draw, s: Call((draw(s.batch, s.text + s.image, s.width), s.text))}, none, MOVED),
    Spec("split_modulation", "primitive", "modulation vectors side by side, one by one",
         "modulation [B, n D], n -> n x [B, D]", {"two": case(normal("B 2D"), 2), "six": case(normal("B 6D"), 6)}, none,
         MOVED),
    Spec("transpose_heads", "primitive", "tokens by heads, or back", "x [B, L, H, d] -> [B, H, L, d]",
         {"": case(_HEADS)}, none, MOVED, timed=("",)),
    Spec("cast", "primitive", "the same numbers in another dtype", "x [..], dtype -> [..]", {"": _cast}, none,
         {"float32": 0.0, "bfloat16": BF16}, timed=("",)),
    Spec("quantize_rows", "primitive", "e4m3 with a scale per row, a power of two",
         "x [.., K] -> data [.., K] in e4m3, scale [.., 1]",
         {"": case(_TOKENS), "weight": lambda draw, s: Call((draw(s.features, s.width, std=s.width**-0.5),))},
         per_element(3), {"fp8": 0.04}, timed=("",)),
    Spec("euler_step", "primitive", "latents + delta velocity, latents in float32",
         "latents [B, L, C], velocity [B, L, C], delta -> [B, L, C]",
         {"": case(normal("B L D", dtype="float32"), normal("B L D"), -0.2371, result="float32")}, per_element(2), WIDE,
         timed=("",)),
)  # fmt: skip
