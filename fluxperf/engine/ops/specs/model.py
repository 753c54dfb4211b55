"""The model ops of the vocabulary, which are coarse enough to fuse."""

from __future__ import annotations

from typing import Any

from .spec import (
    BF16,
    CHAIN,
    EXP,
    F32,
    FP8,
    MOVED,
    WIDE,
    Call,
    Draw,
    Sizes,
    Spec,
    case,
    none,
    normal,
    per_element,
    product,
    weight,
)

_TOKENS, _VECTOR, _HEADS = normal("B L D", mean=0.3), normal("B D"), normal("B H L d")


def _streams(draw: Draw, s: Sizes, streams: tuple[int, ...]) -> Call:
    norms = [[draw(s.dim, std=0.1, mean=1.0) for _ in streams] for _ in range(2)]
    return Call(
        (
            tuple(draw(s.batch, tokens, 3 * s.width) for tokens in streams),
            tuple(draw(3 * s.width) for _ in streams),
            *(tuple(group) for group in norms),
            *draw.rotations(sum(streams), s.dim),
            s.heads,
        )
    )


def _qkv(qkvs: Any, *_: Any) -> int:
    """Operations of the op, and of its deferred products: those have a ``weight`` [3 H d, K]."""
    products = sum(2 * int(qkv.size) * int(qkv.weight.shape[-1]) for qkv in qkvs if hasattr(qkv, "weight"))
    return products + 8 * sum(int(qkv.size) for qkv in qkvs)


def _attention(q: Any, k: Any, *_: Any) -> int:
    scores = int(q.size) * int(k.shape[2])
    return 4 * scores + (EXP + 3) * scores // max(int(q.shape[3]), 1)


def _last_queries(draw: Draw, s: Sizes) -> Call:
    """Queries of the image tokens alone, as a view: the last tokens of those that give keys and values."""
    q, k, v = (draw(s.batch, s.heads, s.text + s.image, s.dim) for _ in range(3))
    return Call((q[:, :, s.text :], k, v))


def _table(text_tokens: int, rows: int, columns: int, axes: Any, *_: Any) -> int:
    return EXP * (text_tokens + rows * columns) * int(sum(axes))


MODEL_OPS = (
    # float32 angles of up to 1000 radians have an error of 3e-5 each, in diffusers and in the original.
    Spec("timestep_embedding", "model", "sinusoidal features of 1000 t, cosines first", "S timesteps -> [S, 256]",
         {
             "": lambda draw, s: Call((draw.fractions(s.batch * s.tokens),), result="float32"),
             "guidance": case((3.5,), result="float32"),
         }, none, {"float32": 4e-5, "bfloat16": 4e-5}, timed=("guidance",)),
    Spec("rope_table", "model", "cos and sin of every position, once per shape",
         "T, rows, columns, axes, theta -> 2 x [T + rows columns, d]",
         {"": lambda draw, s: Call((s.text, *s.grid, s.axes, 10_000.0), result="float32")}, _table, WIDE, timed=("",)),
    Spec("silu_linear", "model", "linear of SiLU: modulation, embedder MLPs",
         "x [B, K], weight [N, K], bias [N] -> [B, N]",
         {"": case(normal("B D", std=2.0), weight("N", "D"), normal("N"))}, product, CHAIN),
    Spec("linear_gelu", "model", "tanh-GELU of linear", "x [.., K], weight [N, K], bias [N] -> [.., N]",
         {"": case(normal("B L D"), weight("N", "D"), normal("N"))}, product, {**CHAIN, **FP8}),
    Spec("norm_modulate", "model", "layer norm, times (1 + scale), plus shift",
         "x [B, L, D], shift [B, D], scale [B, D] -> [B, L, D]", {"": case(_TOKENS, _VECTOR, _VECTOR)}, per_element(11),
         {"float32": F32, "bfloat16": 2 * BF16, "fp8": 0.04}, timed=("",)),
    Spec("qkv_heads", "model", "per stream bias, split, RMS norm, rotation; by head, streams in token order",
         "n x (qkv [B, Li, 3 H d], bias [3 H d], norms [d], [d]), cos, sin [L, d], H -> 3 x [B, H, L, d]",
         {
             "": lambda draw, s: _streams(draw, s, (s.tokens,)),
             "two_streams": lambda draw, s: _streams(draw, s, (s.text, s.image)),
         }, _qkv, {"float32": F32, "bfloat16": 3 * BF16, "fp8": 0.04}, timed=("two_streams",)),
    # Two long sums; and the exponential turns the absolute error of a score into a relative one.
    Spec("attention", "model", "softmax(Q K^T / sqrt d) V, heads side by side",
         "q [B, H, N, d], k, v [B, H, L, d] -> [B, N, H d]",
         {"": case(_HEADS, _HEADS, _HEADS), "image_queries": _last_queries}, _attention,
         {"float32": 8 * F32, "bfloat16": 2 * BF16, "fp8": 0.08}, timed=("",)),
    Spec("linear_gated_residual", "model", "x + gate (y W^T + b)",
         "x [B, L, D], gate [B, D], y [B, L, K], weight [D, K], bias [D] -> [B, L, D]",
         {"": case(_TOKENS, _VECTOR, normal("B L N"), weight("D", "N"), normal("D"))},
         lambda x, gate, y, weight, *_: product(y, weight), {**CHAIN, **FP8}),
    Spec("joined_halves", "model", "destinations of two results to be joined, or none",
         "B, L, D, M, dtype -> [B, L, D], [B, L, M]", {}, none, {}),
    Spec("join_features", "model", "two tensors side by side, e.g. attention and activated MLP half",
         "first [B, L, D], second [B, L, M] -> [B, L, D + M]", {"": case(_TOKENS, normal("B L N"))}, none,
         {**MOVED, "fp8": 0.04}),
)  # fmt: skip
