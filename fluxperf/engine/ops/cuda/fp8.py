"""Ops in e4m3: the kernel that produces an operand also quantizes it. Attention is cuDNN's.

Products are cuBLASLt's, or this project's own where those take less time (`finished`).

A product leaves its scales to the kernel that follows (`Unscaled`). Without scales it takes up to 8 % less time, and a
kernel that reads the result follows in any case. All scales are powers of two: see `kernels/common/e4m3.cuh`.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from fluxperf.engine.device.cudnn import Layout as AttentionLayout
from fluxperf.engine.device.gpu import E4M3, cupy
from fluxperf.engine.ops.catalog import implements
from fluxperf.engine.ops.cuda import deferred_heads, finished
from fluxperf.engine.ops.cuda import plans_fp8 as plans
from fluxperf.engine.ops.cuda.arrays import address, check_heads, described
from fluxperf.engine.ops.cuda.entries import SCALED, family, start
from fluxperf.engine.ops.cuda.plans import ROW_SHARED
from fluxperf.engine.ops.cuda.projection import project
from fluxperf.engine.ops.cuda.tiles import CAPABILITY
from fluxperf.engine.ops.layout import halves, joined
from fluxperf.engine.ops.table import Deferred, Halves, Quantized, Unscaled
from fluxperf.errors import ArgumentError, DeviceError

#: Alignment that cuBLASLt requires of addresses, rows and extents of e4m3 operands, in bytes.
_ALIGNMENT = 16

#: Lowest compute capability for which cuDNN has attention in e4m3.
_OLDEST = (9, 0)


family("quantize_rows", "P P P 4i 4q i", "f32_w1 f32_w4 bf16_w1 bf16_w8")


@implements("quantize_rows", "fp8", device="cuda")
def quantize_rows(device: Any, x: Any) -> Quantized:
    """Quantizes x [.., K], float32 or bfloat16, to data [.., K] in e4m3 and scale [.., 1].

    Raises:
        DeviceError: the GPU is too old for attention in e4m3.
    """
    if device.capability < _OLDEST:
        raise DeviceError(
            f"fp8: expected compute capability {_OLDEST[0]}.{_OLDEST[1]} or newer, got "
            f"{device.capability[0]}.{device.capability[1]} ({device.name}). Use the rung 'captured'."
        )
    place = address("quantize_rows", "x", x)
    plan = plans.quantize_rows(described(x), place % 16 == 0)
    data, scale = device.empty(x.shape, E4M3), device.empty((*x.shape[:-1], 1), "float32")
    start(device, plan.entry, plan.grid, plan.threads, place, data.data.ptr, scale.data.ptr, *plan.tail)
    return Quantized(data, scale)


family("norm_modulate_fp8", "P P P P P P 2q q q i i f", "bf16_w1_block bf16_w8_block bf16_w8_t1 bf16_w8_t3 bf16_w8_t4")
family("norm_modulate_fp8", "P P P P P P 2q q q i i f", "bf16_w8_r12", ROW_SHARED)


@implements("norm_modulate", "fp8", device="cuda")
def norm_modulate(device: Any, x: Any, shift: Any, scale: Any, eps: float = 1e-6) -> Quantized:
    """x [B, L, D], shift and scale [B, D]: normalized, modulated and rounded once to e4m3, in one kernel."""
    op = "norm_modulate"
    places = address(op, "x", x), address(op, "shift", shift), address(op, "scale", scale)
    aligned = (places[0] | places[1] | places[2]) % 16 == 0
    layouts, hopper = map(described, (x, shift, scale)), device.capability == CAPABILITY
    plan = plans.norm_modulate(*layouts, eps, aligned, device.processors, hopper)
    data, (powers, lengths) = device.empty(x.shape, E4M3), device.empty((2, *x.shape[:-1], 1), "float32")
    results = data.data.ptr, powers.data.ptr, lengths.data.ptr
    start(device, plan.entry, plan.grid, plan.threads, *places, *results, *plan.tail)
    return Quantized(data, powers, lengths)


@implements("linear", "fp8", device="cuda")
def linear(device: Any, x: Any, weight: Quantized, bias: Any = None) -> Unscaled:
    """x [.., K], weight [N, K]: the bfloat16 product. Scales and bias are left to the kernel that follows.

    An x that is not in e4m3 yet is quantized by a kernel of its own.

    Raises:
        ArgumentError: K, N, an address or a row is not a multiple of 16.
    """
    operand = _operand(device, x)
    _check(operand, weight)
    out = device.empty((*x.shape[:-1], weight.shape[0]), "bfloat16")
    project(device, operand.data, weight.data, out=out)
    return Unscaled(out, operand.scale, weight.scale.reshape(-1), bias)


@implements("linear_gelu", "fp8", device="cuda")
def linear_gelu(device: Any, x: Any, weight: Quantized, bias: Any, out: Any = None) -> Quantized:
    """Product, scales, bias, tanh-GELU and rounding to e4m3: x [B, L, K], weight [M, K], bias [M] to [B, L, M].

    All in one kernel, or in a product and one kernel after it. ``out``: e4m3 [B, L, M] with any batch and token stride.

    *Numerics*: in a kernel after the product, each token's scale is the smallest possible. In an epilogue it is an
    upper bound that is computed before the product (`kernels/common/epilogues.cuh`). No value saturates.
    """
    operand = _operand(device, x)
    _check(operand, weight)
    if out is None:
        out = device.empty((*operand.shape[:-1], weight.shape[0]), E4M3)

    def library() -> Quantized:
        return quantized_gelu(device, linear(device, operand, weight), bias, out)

    result: Quantized = finished.scaled_gelu(device, operand, weight, bias, out, library)
    return result


family("gelu_fp8", "P P P P P P 2q 2q 2q i i", "bf16_w1_block bf16_w8_block bf16_w8_t1 bf16_w8_t3")


def quantized_gelu(device: Any, product: Unscaled, bias: Any, out: Any = None) -> Quantized:
    """Applies scales, bias and tanh-GELU to a product [B, L, M], in one kernel; the result is quantized per token."""
    op = "linear_gelu"
    if out is None:
        out = device.empty(product.shape, E4M3)
    powers = device.empty((*product.shape[:-1], 1), "float32")
    operands = product.data, product.rows, product.columns, bias
    places = [address(op, name, a) for name, a in zip(("x", "x", "weight", "bias"), operands, strict=True)]
    aligned = (places[0] | places[2] | places[3]) % 16 == 0 and out.data.ptr % 8 == 0
    plan = plans.gelu(*map(described, operands), described(out), aligned, device.processors)
    start(device, plan.entry, plan.grid, plan.threads, *places, out.data.ptr, powers.data.ptr, *plan.tail)
    return Quantized(out, powers)


@implements("linear_gated_residual", "fp8", device="cuda")
def linear_gated_residual(device: Any, x: Any, gate: Any, y: Any, weight: Quantized, bias: Any) -> Any:
    """Product, scales, bias, gate and residual, into bfloat16 [B, L, D]: in one kernel, or in a product and another.

    Halves with scales of their own are read as they are, or brought to one scale before the product.
    """
    operand = y if isinstance(y, Halves) else _operand(device, y)
    _check(operand, weight)

    def library(source: Any = operand) -> Any:
        return scaled_gated_residual(device, x, gate, linear(device, source, weight), bias)

    in_trials = {}
    if isinstance(operand, Halves):
        room = cache(partial(room_for, device, operand))  # a trial must not change what is read after it
        in_trials = {"library": lambda: library(at_one_scale(device, operand, room()))}
    return finished.scaled_gated(device, x, gate, operand, weight, bias, library, in_trials)


family("gated_residual_fp8", "P P P P P P P 2q q 2q 2q 2q i i i", "bf16_w1 bf16_w8")


def scaled_gated_residual(device: Any, x: Any, gate: Any, product: Unscaled, bias: Any) -> Any:
    """``x + gate (y rows columns + bias)`` [B, L, D] from a product y and its scales, in one kernel."""
    op = "linear_gated_residual"
    out = device.empty(x.shape, "bfloat16")
    operands = x, gate, product.data, product.rows, product.columns, bias, out
    names = "x", "gate", "y", "y", "weight", "bias", "out"
    places = [address(op, name, a) for name, a in zip(names, operands, strict=True)]
    aligned = (places[0] | places[1] | places[2] | places[5] | places[6]) % 16 == 0
    plan = plans.gated_residual(*map(described, operands), aligned)
    start(device, plan.entry, plan.grid, plan.threads, *places, *plan.tail)
    return out


family("value_peaks", f"{SCALED} {SCALED} P i i i", "bf16")
family("qkv_heads_fp8", f"{SCALED} {SCALED} 7P2q5if i", "bf16_g4 bf16_g8 bf16_g16 bf16_g32")


@implements("qkv_heads", "fp8", device="cuda")
def qkv_heads(
    device: Any,
    qkvs: tuple[Any, ...],
    biases: tuple[Any, ...],
    q_norms: tuple[Any, ...],
    k_norms: tuple[Any, ...],
    cos: Any,
    sin: Any,
    heads: int,
) -> tuple[Quantized, Quantized, Quantized]:
    """One or two streams of products [B, Li, 3 H d] to Q, K, V [B, H, L, d] in e4m3, with one scale [1, 1, 1, 1] each.

    Two launches: the first finds the largest value of V, because V's scale must be known before any value is rounded.
    Deferred products are computed first, or with all of this as their epilogue, in one launch.

    *Numerics*: in two launches V's scale is the smallest possible. In an epilogue it is an upper bound that is computed
    before the product (`kernels/common/epilogue_heads.cuh`). No value saturates.
    """
    op = "qkv_heads"
    if len(qkvs) not in (1, 2) or {len(biases), len(q_norms), len(k_norms)} != {len(qkvs)}:
        raise ArgumentError(
            f"{op}: expected one or two streams, with one of each argument per stream, got {len(qkvs)} qkvs, "
            f"{len(biases)} biases, {len(q_norms)} q_norms and {len(k_norms)} k_norms. Join further streams with "
            "concat_tokens."
        )
    if all(isinstance(qkv, Deferred) for qkv in qkvs):
        operands = tuple(Deferred(_operand(device, qkv.x), qkv.weight) for qkv in qkvs)

        def library() -> tuple[Quantized, Quantized, Quantized]:
            work: list[Any] = [partial(linear, device, qkv.x, qkv.weight) for qkv in operands]
            done = deferred_heads.beside(device, work)
            q, k, v = qkv_heads(device, done, biases, q_norms, k_norms, cos, sin, heads)
            return q, k, v

        for qkv in operands:
            _check(qkv.x, qkv.weight)
        q, k, v = deferred_heads.scaled(device, operands, biases, q_norms, k_norms, cos, sin, heads, library)
        return q, k, v
    products = [_unscaled(device, qkv) for qkv in qkvs]
    streams = [
        (product.data, product.rows, product.columns, *rest)
        for product, *rest in zip(products, biases, q_norms, k_norms, strict=True)
    ]
    names = ("qkvs", "qkvs", "qkvs", "biases", "q_norms", "k_norms")
    places = [[address(op, name, x) for name, x in zip(names, stream, strict=True)] for stream in streams]
    bits = 0
    for product_at, _, *others in places:  # everything except scales by token is read 16 bytes at a time
        for at in (product_at, *others):
            bits |= at
    layouts = tuple(plans.Stream(*map(described, stream)) for stream in streams)
    plan = plans.qkv_heads(layouts, described(cos), described(sin), heads, bits % 16 == 0)
    packed = [(*place, *strides) for place, strides in zip(places, plan.streams, strict=False)]
    packed += [(0,) * 12] * (2 - len(packed))
    count = plan.peaks_grid[0] * plan.peaks_grid[1]
    peaks, powers = device.empty((count,), "float32"), device.empty((3,), "float32")
    start(
        device,
        "value_peaks_bf16",
        plan.peaks_grid,
        plans.PEAK_THREADS,
        *packed[0],
        *packed[1],
        peaks.data.ptr,
        *plan.peaks_tail,
    )
    _, dim, tokens, _ = plan.rest
    q, k, v = (device.empty((qkvs[0].shape[0], heads, tokens, dim), E4M3) for _ in range(3))
    tables = address(op, "cos", cos), address(op, "sin", sin)
    start(
        device, plan.entry, plan.grid, plan.threads, *packed[0], *packed[1], *tables, peaks.data.ptr,
        q.data.ptr, k.data.ptr, v.data.ptr, powers.data.ptr, *plan.tables, *plan.rest, count, 1e-6, plan.blocks,
    )  # fmt: skip
    first, second, third = (
        Quantized(x, powers[index : index + 1].reshape(1, 1, 1, 1)) for index, x in enumerate((q, k, v))
    )
    return first, second, third


@implements("attention", "fp8", device="cuda")
def attention(device: Any, q: Any, k: Any, v: Any, out: Any = None) -> Quantized:
    """Q [B, H, N, d], K, V [B, H, L, d] to [B, N, H d] with the scale of V's largest value.

    An average does not exceed it.

    ``out``: e4m3 [B, N, H d], may be half of a joined buffer.
    """
    check_heads(q, k, v, out)
    batch, heads, tokens, dim = q.shape
    q, k, v = (_whole(device, x) for x in (q, k, v))
    if out is None:
        out = device.empty((batch, tokens, heads * dim), E4M3)
    own, *ratio = (v.scale,) if v.means is None else (v.means[:1], v.means[1:])
    scale = cupy().broadcast_to(own.reshape(1, 1, 1), (batch, tokens, 1))
    if q.size == 0:
        return Quantized(out, scale)
    layout = AttentionLayout(
        shape=q.shape, dtype=E4M3, q=q.data.strides, k=k.data.strides, v=v.data.strides,
        o=(out.strides[0], dim, out.strides[1], 1), keys=k.shape[2],
    )  # fmt: skip
    operands = (x.data.data.ptr for x in (q, k, v))
    scales = tuple(part.data.ptr for part in (q.scale, k.scale, *ratio))
    device.attention.attention(layout, *operands, out.data.ptr, scales)
    return Quantized(out, scale)


@implements("joined_halves", "fp8", device="cuda")
def joined_halves(device: Any, batch: int, tokens: int, left: int, right: int, dtype: str) -> tuple[Any, Any]:
    """Two column slices [B, L, D] and [B, L, M] of one e4m3 buffer, whatever the dtype of activations."""
    whole = device.empty((batch, tokens, left + right), E4M3)
    return whole[:, :, :left], whole[:, :, left:]


@implements("join_features", "fp8", device="cuda")
def join_features(device: Any, first: Any, second: Any) -> Halves:
    """Both halves with scales of their own, without a launch: the product that follows reads them so, or joins them."""
    return halves(_operand(device, first), _operand(device, second))


family("join_features_fp8", "P P P P 2q 2q 2q i i i", "b1 b16")


def at_one_scale(device: Any, x: Halves, into: Quantized | None = None) -> Quantized:
    """Rows at one scale each, in one kernel: in place if the halves share a buffer, so that x must not be read again.

    Halves of different buffers are brought together in a new one.

    Args:
        device: the CUDA device.
        x: the halves [B, L, D] and [B, L, M].
        into: from `room_for`. Then x itself is not changed, and another call gives the same result.
    """
    left, right = x
    whole = joined(left.data, right.data, -1)
    to = into or (room_for(device, x) if whole is None else Quantized(whole, right.scale))
    arrays: tuple[Any, ...] = left.data, to.data, left.scale, to.scale
    places = [array.data.ptr for array in arrays]
    aligned = (places[0] | places[1]) % 16 == 0
    plan = plans.join_features(*map(described, arrays), aligned)
    start(device, plan.entry, plan.grid, plan.threads, *places, *plan.tail)
    return Quantized(to.data, to.scale)


def room_for(device: Any, x: Halves) -> Quantized:
    """A new buffer for rows at one scale, with copies of the second half and its scales; the first half is empty."""
    numbers, scale = device.empty(x.shape, E4M3), x.second.scale.copy()  # type: ignore[attr-defined]
    numbers[..., x.first.shape[-1] :] = x.second.data
    device.launches += 2
    return Quantized(numbers, scale)


def _operand(device: Any, x: Any) -> Any:
    """The operand in e4m3 with one scale per row; quantized if it is not."""
    if isinstance(x, Halves):
        return at_one_scale(device, x)
    return x if isinstance(x, Quantized) else quantize_rows(device, x)


def _whole(device: Any, x: Any) -> Any:
    """A tensor in e4m3 with one scale."""
    if isinstance(x, Quantized):
        return x
    row = quantize_rows(device, cupy().ascontiguousarray(x).reshape(1, -1))
    return Quantized(row.data.reshape(x.shape), row.scale.reshape(1, 1, 1, 1))


def _unscaled(device: Any, x: Any) -> Unscaled:
    """A product with scales; those of an ordinary array are 1."""
    if not isinstance(x, Unscaled):
        rows, columns = device.empty((*x.shape[:-1], 1), "float32"), device.empty(x.shape[-1:], "float32")
        rows.fill(1), columns.fill(1)
        device.launches += 2
        return Unscaled(x, rows, columns)
    if x.bias is not None:
        raise ArgumentError(
            "qkv_heads 'fp8': expected a product without bias, got one with a bias. Pass the bias in biases."
        )
    return x


def _check(x: Any, weight: Any) -> None:
    """Raises for operands that no e4m3 product supports."""
    if not isinstance(weight, Quantized):
        raise ArgumentError(
            "linear 'fp8': expected a quantized weight with one scale per output channel, got "
            f"{type(weight).__name__}. Quantize it with quantize_rows."
        )
    arrays: list[Any] = [weight.data]
    if not isinstance(x, Halves):  # halves may still be copied into one buffer
        arrays.insert(0, x.data)
    strides = [array.strides for array in arrays]
    extents = (*weight.shape, *(step for steps in strides for step in steps[:-1]))
    if any(extent % _ALIGNMENT for extent in (*extents, *(array.data.ptr for array in arrays))):
        raise ArgumentError(
            f"linear 'fp8': expected addresses, rows, inputs and outputs that are multiples of {_ALIGNMENT}, got x "
            f"{x.shape} and weight {weight.shape} with strides {strides}. Use a bfloat16 rung."
        )
