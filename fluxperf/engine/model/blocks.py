"""The blocks of FLUX.1. Each takes the ops of its section first, and follows the order of the architecture.

Shapes: txt [B, T, D], img [B, I, D], rope (cos, sin) each [T + I, d]. Text tokens come first in the joint sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fluxperf.engine.model.weights import (
    DoubleWeights,
    Embedder,
    FluxWeights,
    Linear,
    ModulationRows,
    SingleWeights,
    StreamWeights,
)
from fluxperf.engine.ops.table import Array, Operand, Ops, Quantized

#: Returns the modulation vectors [B, D] of one stream. `flux` has one version that computes them and one that looks
#: them up.
Modulate = Callable[[Ops, ModulationRows], tuple[Array, ...]]


def conditioning(
    ops: Ops, weights: FluxWeights, timesteps: tuple[float, ...], pooled: Array, guidance: float | None
) -> Array:
    """Conditioning vectors ``time_mlp(t) + pooled_mlp(p) (+ guidance_mlp(g))`` [S B, D].

    Args:
        ops: ops of the section ``embed``.
        weights: the model's.
        timesteps: S times in [0, 1].
        pooled: pooled text [B, P].
        guidance: guidance scale, for models that embed one.

    Returns:
        [S B, D], timesteps outermost.
    """
    dtype = ops.settings.activations
    time = _embedded(ops, ops.cast(ops.timestep_embedding(timesteps), dtype), weights.time_in)
    text = _embedded(ops, ops.cast(pooled, dtype), weights.pooled_in)
    total = ops.add_broadcast(time.reshape(len(timesteps), 1, time.shape[-1]), text)
    if weights.guidance_in is not None and guidance is not None:
        features = ops.cast(ops.timestep_embedding((guidance,)), dtype)
        total = ops.add_broadcast(total, _embedded(ops, features, weights.guidance_in))
    temb: Array = total.reshape(-1, total.shape[-1])
    return temb


def modulations(ops: Ops, stacked: Linear, temb: Array, rows: slice) -> Array:
    """Modulation vectors ``SiLU(temb) W^T + b`` [.., rows] for some rows of the stacked projection."""
    return ops.silu_linear(temb, stacked.weight[rows], stacked.bias[rows])


def embedded(ops: Ops, x: Array, projection: Linear) -> Operand:
    """Tokens [B, L, C] as [B, L, D], in the dtype of activations."""
    return ops.linear(ops.cast(x, ops.settings.activations), projection.weight, projection.bias)


def double_block(
    ops: Ops, txt: Array, img: Array, modulate: Modulate, rope: tuple[Array, Array], w: DoubleWeights, heads: int
) -> tuple[Array, Array]:
    """Joint attention of two streams with separate weights, then an MLP for each."""
    streams, weights = (txt, img), (w.txt, w.img)
    vectors = tuple(modulate(ops, stream.modulation) for stream in weights)
    qkvs = ops.beside(*(partial(_projected, ops, *parts) for parts in zip(streams, vectors, weights, strict=True)))
    q, k, v = _heads(ops, qkvs, weights, rope, heads)
    mixed = ops.split_tokens(ops.attention(q, k, v), txt.shape[1])
    first, second = ops.beside(
        *(partial(_attended, ops, *parts) for parts in zip(streams, mixed, vectors, weights, strict=True))
    )
    return first, second


def _projected(ops: Ops, x: Array, vectors: tuple[Array, ...], w: StreamWeights) -> Operand:
    """Queries, keys and values of a stream [B, L, 3 H d], without the bias."""
    shift, scale, *_ = vectors
    return ops.linear(ops.norm_modulate(x, shift, scale), w.qkv.weight)


def _attended(ops: Ops, x: Array, mixed: Operand, vectors: tuple[Array, ...], w: StreamWeights) -> Array:
    """The second half of a stream: the residual of attention, then that of the MLP."""
    _, _, gate, mlp_shift, mlp_scale, mlp_gate = vectors
    x = ops.linear_gated_residual(x, gate, mixed, w.out.weight, w.out.bias)
    hidden = ops.linear_gelu(ops.norm_modulate(x, mlp_shift, mlp_scale), w.mlp_up.weight, w.mlp_up.bias)
    return ops.linear_gated_residual(x, mlp_gate, hidden, w.mlp_down.weight, w.mlp_down.bias)


def single_block(
    ops: Ops, txt: Array, img: Array, modulate: Modulate, rope: tuple[Array, Array], w: SingleWeights, heads: int
) -> tuple[Array, Array]:
    """Attention and MLP in parallel over the joint sequence, with one residual for both."""
    x = ops.concat_tokens(txt, img)
    shift, scale, gate = modulate(ops, w.modulation)
    normed = ops.norm_modulate(x, shift, scale)
    first, second = ops.split_tokens(_merged(ops, x, gate, normed, normed, rope, w, heads), txt.shape[1])
    return first, second


def last_single_block(
    ops: Ops, txt: Array, img: Array, modulate: Modulate, rope: tuple[Array, Array], w: SingleWeights, heads: int
) -> tuple[Array, Array]:
    """txt unchanged, and the image tokens that `single_block` gives: nothing reads the text tokens' result.

    So attention, MLP and residual are computed for the image tokens alone. The QKV product stays whole: queries of text
    tokens are 8 % of what could be saved, and to leave them out would take a launch more.
    """
    shift, scale, gate = modulate(ops, w.modulation)
    normed = ops.norm_modulate(ops.concat_tokens(txt, img), shift, scale)
    _, own = ops.split_tokens(normed, txt.shape[1])
    return txt, _merged(ops, img, gate, normed, own, rope, w, heads)


def _merged(
    ops: Ops,
    x: Array,
    gate: Array,
    normed: Operand,
    own: Operand,
    rope: tuple[Array, Array],
    w: SingleWeights,
    heads: int,
) -> Array:
    """x [B, N, D] plus its attention and MLP; ``own`` [B, N, D] are the last N tokens of ``normed`` [B, L, D]."""
    batch, tokens, dim = x.shape
    left, right = ops.joined_halves(batch, tokens, dim, w.mlp_up.bias.shape[0], ops.settings.activations)

    def attended() -> Operand:
        q, k, v = _heads(ops, (ops.linear(normed, w.qkv.weight),), (w,), rope, heads)
        return ops.attention(_last(q, tokens), k, v, out=left)

    def expanded() -> Operand:
        return ops.linear_gelu(own, w.mlp_up.weight, w.mlp_up.bias, out=right)

    mixed, hidden = ops.beside(attended, expanded)
    joined = ops.join_features(mixed, hidden)
    return ops.linear_gated_residual(x, gate, joined, w.out.weight, w.out.bias)


def final_layer(ops: Ops, img: Array, modulate: Modulate, rows: ModulationRows, projection: Linear) -> Operand:
    """Velocity [B, I, C] of the image tokens."""
    shift, scale = modulate(ops, rows)
    return ops.linear(ops.norm_modulate(img, shift, scale), projection.weight, projection.bias)


def _heads(
    ops: Ops, qkvs: tuple[Operand, ...], weights: tuple[Any, ...], rope: tuple[Array, Array], heads: int
) -> tuple[Operand, Operand, Operand]:
    biases = tuple(stream.qkv.bias for stream in weights)
    q_norms, k_norms = tuple(stream.q_norm for stream in weights), tuple(stream.k_norm for stream in weights)
    q, k, v = ops.qkv_heads(qkvs, biases, q_norms, k_norms, *rope, heads)
    return q, k, v


def _last(q: Any, tokens: int) -> Any:
    """Queries [B, H, N, d] of the last N of L tokens, as a view."""
    first = q.shape[2] - tokens
    if not first:
        return q
    return q._replace(data=q.data[:, :, first:]) if isinstance(q, Quantized) else q[:, :, first:]


def _embedded(ops: Ops, features: Array, mlp: Embedder) -> Array:
    hidden = ops.linear(features, mlp.first.weight, mlp.first.bias)
    return ops.silu_linear(hidden, mlp.second.weight, mlp.second.bias)
