"""Wrong formulas, with typical mistakes of implementations: each must fail the comparison.

A row is op, variant of its call, mistake, and the tolerances under which it must fail (all if none is named).
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from scipy import special

from fluxperf.engine.ops import reference as ref

MUTANTS: list[tuple[str, str, Any, tuple[str, ...]]] = []


def wrong(op: str, variant: str = "", keys: tuple[str, ...] = ()) -> Any:
    def register(function: Any) -> Any:
        MUTANTS.append((op, variant, function, keys))
        return function

    return register


def f64(x: Any) -> Any:
    return np.asarray(x).astype(np.float64)


@wrong("layer_norm", keys=("float32",))
def layer_norm_with_a_larger_eps(x: Any) -> Any:
    return ref.layer_norm(x, eps=1e-5)


@wrong("layer_norm")
def layer_norm_of_unbiased_variance(x: Any) -> Any:
    return ref.layer_norm(x) * np.sqrt((x.shape[-1] - 1) / x.shape[-1])


@wrong("modulate")
def modulate_without_one_plus(x: Any, scale: Any, shift: Any) -> Any:
    return ref.modulate(x, f64(scale) - 1, shift)


@wrong("modulate")
def modulate_exchanged(x: Any, scale: Any, shift: Any) -> Any:
    return ref.modulate(x, shift, scale)


@wrong("gated_residual")
def gate_of_the_first_sample(x: Any, gate: Any, y: Any) -> Any:
    return f64(x) + f64(gate)[0] * f64(y)


@wrong("add_broadcast", "vector")
def vector_shifted_by_one(x: Any, y: Any) -> Any:
    return f64(x) + np.roll(f64(y), 1)


@wrong("batched_matmul")
def product_without_the_last_term(a: Any, b: Any) -> Any:
    return ref.batched_matmul(a[..., :-1], b[..., :-1, :])


@wrong("batched_matmul", "float32")
def product_rounded_too_early(a: Any, b: Any) -> Any:
    return (ref.batched_matmul(a, b) * 0.99).astype(ml_dtypes.bfloat16)


@wrong("scale")
def scale_of_two_digits(x: Any, factor: float) -> Any:
    return f64(x) * 0.35


@wrong("rms_norm", keys=("float32",))
def rms_norm_with_a_larger_eps(x: Any, weight: Any) -> Any:
    return ref.rms_norm(x, weight, eps=1e-5)


@wrong("rms_norm")
def rms_norm_without_weight(x: Any, weight: Any) -> Any:
    return ref.rms_norm(x, np.ones_like(weight))


@wrong("apply_rope")
def rope_backwards(x: Any, cos: Any, sin: Any) -> Any:
    return ref.apply_rope(x, cos, -sin)


@wrong("apply_rope")
def rope_of_halves(x: Any, cos: Any, sin: Any) -> Any:
    half = x.shape[-1] // 2
    turned = np.concatenate([-f64(x)[..., half:], f64(x)[..., :half]], axis=-1)
    return f64(x) * f64(cos)[:, None] + turned * f64(sin)[:, None]


@wrong("softmax")
def softmax_without_the_last_weight(x: Any) -> Any:
    return np.exp(f64(x)) / np.exp(f64(x))[..., :-1].sum(-1, keepdims=True)


@wrong("gelu", keys=("float32",))
def gelu_of_erf(x: Any) -> Any:
    return f64(x) * special.ndtr(f64(x))


@wrong("gelu")
def gelu_of_sigmoid(x: Any) -> Any:
    return f64(x) * special.expit(1.702 * f64(x))


@wrong("silu")
def silu_of_a_steeper_sigmoid(x: Any) -> Any:
    return f64(x) * special.expit(1.1 * f64(x))


@wrong("linear")
def linear_without_bias(x: Any, weight: Any, bias: Any) -> Any:
    return ref.linear(x, weight)


@wrong("linear", "no_bias")
def linear_without_the_last_feature(x: Any, weight: Any) -> Any:
    return ref.linear(x[..., :-1], weight[:, :-1])


@wrong("concat_tokens")
def concat_exchanged(first: Any, second: Any) -> Any:
    return ref.concat_tokens(second, first)


@wrong("split_tokens")
def split_one_token_late(x: Any, tokens: int) -> Any:
    return ref.split_tokens(x, tokens + 1)


@wrong("split_modulation", "six")
def vectors_in_another_order(modulation: Any, parts: int) -> Any:
    return ref.split_modulation(modulation, parts)[::-1]


@wrong("transpose_heads")
def heads_reinterpreted(x: Any) -> Any:
    return f64(x).reshape(x.shape[0], x.shape[2], x.shape[1], x.shape[3])


@wrong("cast", keys=("bfloat16",))
def cast_by_truncation(x: Any, dtype: str) -> Any:
    return (x.view(np.uint32) & 0xFFFF0000).view(np.float32)


@wrong("cast", keys=("float32",))
def cast_through_e4m3(x: Any, dtype: str) -> Any:
    return x.astype(ml_dtypes.float8_e4m3fn)


@wrong("quantize_rows")
def two_mantissa_bits(x: Any) -> Any:
    return x.astype(ml_dtypes.float8_e5m2)


@wrong("euler_step")
def step_backwards(latents: Any, velocity: Any, delta: float) -> Any:
    return ref.euler_step(latents, velocity, -delta)


@wrong("euler_step")
def latents_in_bfloat16(latents: Any, velocity: Any, delta: float) -> Any:
    return ref.euler_step(latents, velocity, delta).astype(ml_dtypes.bfloat16)


@wrong("timestep_embedding")
def sines_first(values: Any) -> Any:
    return np.roll(ref.timestep_embedding(values), 128, axis=1)


@wrong("timestep_embedding")
def time_rounded_to_bfloat16(values: Any) -> Any:
    return ref.timestep_embedding([float(ml_dtypes.bfloat16(value)) for value in values])


@wrong("rope_table")
def rows_and_columns_exchanged(text: int, rows: int, columns: int, axes: Any, theta: float) -> Any:
    return ref.rope_table(text, columns, rows, axes, theta)


@wrong("rope_table")
def frequencies_of_one_axis(text: int, rows: int, columns: int, axes: Any, theta: float) -> Any:
    return ref.rope_table(text, rows, columns, (0, sum(axes), 0), theta)


@wrong("silu_linear")
def silu_of_the_result(x: Any, weight: Any, bias: Any) -> Any:
    return ref.silu(ref.linear(x, weight, bias))


@wrong("linear_gelu")
def gelu_before_the_bias(x: Any, weight: Any, bias: Any) -> Any:
    return ref.gelu(ref.linear(x, weight)) + f64(bias)


@wrong("linear_gelu", keys=("float32",))
def linear_gelu_of_erf(x: Any, weight: Any, bias: Any) -> Any:
    wide = ref.linear(x, weight, bias)
    return wide * special.ndtr(wide)


@wrong("norm_modulate")
def norm_modulate_exchanged(x: Any, shift: Any, scale: Any) -> Any:
    return ref.norm_modulate(x, scale, shift)


@wrong("norm_modulate", keys=("float32",))
def norm_modulate_with_a_larger_eps(x: Any, shift: Any, scale: Any) -> Any:
    return ref.modulate(ref.layer_norm(x, eps=1e-5), scale, shift)


@wrong("qkv_heads", "two_streams")
def norms_exchanged(qkvs: Any, biases: Any, q_norms: Any, k_norms: Any, *rest: Any) -> Any:
    return ref.qkv_heads(qkvs, biases, k_norms, q_norms, *rest)


@wrong("qkv_heads", "two_streams")
def heads_without_bias(qkvs: Any, biases: Any, *rest: Any) -> Any:
    return ref.qkv_heads(qkvs, [np.zeros_like(bias) for bias in biases], *rest)


@wrong("qkv_heads", "two_streams")
def weights_of_the_other_stream(qkvs: Any, biases: Any, q_norms: Any, k_norms: Any, *rest: Any) -> Any:
    return ref.qkv_heads(qkvs, biases, q_norms[::-1], k_norms[::-1], *rest)


@wrong("qkv_heads", "two_streams")
def positions_shifted_by_one(qkvs: Any, biases: Any, q_norms: Any, k_norms: Any, cos: Any, sin: Any, heads: int) -> Any:
    return ref.qkv_heads(qkvs, biases, q_norms, k_norms, np.roll(cos, 1, 0), np.roll(sin, 1, 0), heads)


@wrong("attention")
def attention_without_scale(q: Any, k: Any, v: Any) -> Any:
    return ref.attention(f64(q) * np.sqrt(q.shape[-1]), k, v)


@wrong("attention")
def causal_attention(q: Any, k: Any, v: Any) -> Any:
    rows = [ref.attention(q[:, :, i : i + 1], k[:, :, : i + 1], v[:, :, : i + 1]) for i in range(q.shape[2])]
    return np.concatenate(rows, axis=1)


@wrong("attention", "image_queries")
def attention_among_image_tokens(q: Any, k: Any, v: Any) -> Any:
    text = k.shape[2] - q.shape[2]
    return ref.attention(q, k[:, :, text:], v[:, :, text:])


@wrong("linear_gated_residual")
def bias_outside_the_gate(x: Any, gate: Any, y: Any, weight: Any, bias: Any) -> Any:
    return ref.gated_residual(x, gate, ref.linear(y, weight)) + f64(bias)


@wrong("join_features")
def join_exchanged(first: Any, second: Any) -> Any:
    return ref.join_features(second, first)
