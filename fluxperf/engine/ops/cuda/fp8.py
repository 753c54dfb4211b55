"""Ops in e4m3: operands quantized by the kernel that produces them, attention by cuDNN.

Products are cuBLASLt's, or in this project's own tiles where those take less time (`finished`).

A product leaves its scales to the kernel behind it (`Unscaled`): it takes up to 8 % less time without them, and every
such product has a kernel behind it that reads its result anyway. All scales are powers of two: see
`kernels/common/e4m3.cuh`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from fluxperf.engine.device.cudnn import Layout as AttentionLayout
from fluxperf.engine.device.gpu import E4M3, cupy
from fluxperf.engine.ops.catalog import implements
from fluxperf.engine.ops.cuda import deferred_heads, finished
from fluxperf.engine.ops.cuda import plans_fp8 as plans
from fluxperf.engine.ops.cuda.arrays import address, check_heads, described
from fluxperf.engine.ops.cuda.entries import SCALED, family, start
from fluxperf.engine.ops.cuda.projection import project
from fluxperf.engine.ops.layout import joined
from fluxperf.engine.ops.table import Deferred, Quantized, Unscaled
from fluxperf.errors import ArgumentError, DeviceError

#: What cuBLASLt wants addresses, rows and extents of operands in e4m3 to be multiples of.
_ALIGNMENT = 16

#: Oldest architecture whose cuDNN has attention in e4m3.
_OLDEST = (9, 0)


family("quantize_rows", "P P P 4i 4q i", "f32_w1 f32_w4 bf16_w1 bf16_w8")


@implements("quantize_rows", "fp8", device="cuda")
def quantize_rows(device: Any, x: Any) -> Quantized:
    """x [.., K], float32 or bfloat16, to data [.., K] and scale [.., 1].

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


@implements("norm_modulate", "fp8", device="cuda")
def norm_modulate(device: Any, x: Any, shift: Any, scale: Any, eps: float = 1e-6) -> Quantized:
    """x [B, L, D], shift and scale [B, D]: normalized, modulated and rounded once, to e4m3, in one kernel."""
    op = "norm_modulate"
    places = address(op, "x", x), address(op, "shift", shift), address(op, "scale", scale)
    aligned = (places[0] | places[1] | places[2]) % 16 == 0
    plan = plans.norm_modulate(described(x), described(shift), described(scale), eps, aligned, device.processors)
    data, (powers, lengths) = device.empty(x.shape, E4M3), device.empty((2, *x.shape[:-1], 1), "float32")
    results = data.data.ptr, powers.data.ptr, lengths.data.ptr
    start(device, plan.entry, plan.grid, plan.threads, *places, *results, *plan.tail)
    return Quantized(data, powers, lengths)


@implements("linear", "fp8", device="cuda")
def linear(device: Any, x: Any, weight: Quantized, bias: Any = None) -> Unscaled:
    """x [.., K], weight [N, K]: the product in bfloat16 with its scales, and the bias, left to the kernel behind it.

    Numbers that are not in e4m3 yet are quantized by a kernel of their own.

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
    """A product with scales, bias, tanh-GELU and rounding to e4m3 in its epilogue, or in one kernel behind it.

    ``out``: e4m3 [B, L, M] with any batch and token stride.

    *Numerics*: behind a product, each token's scale is the least; in the epilogue it is one known beforehand that no
    number is too large for (`kernels/common/epilogues.cuh`).
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
    """Tanh-GELU of a product behind its scales and bias, in one kernel."""
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
    """A product; scales, bias, gate and residual in its epilogue or in one kernel behind it, into bfloat16."""
    operand = _operand(device, y)
    _check(operand, weight)

    def library() -> Any:
        return scaled_gated_residual(device, x, gate, linear(device, operand, weight), bias)

    return finished.scaled_gated(device, x, gate, operand, weight, bias, library)


family("gated_residual_fp8", "P P P P P P P 2q q 2q 2q 2q i i i", "bf16_w1 bf16_w8")


def scaled_gated_residual(device: Any, x: Any, gate: Any, product: Unscaled, bias: Any) -> Any:
    """``x + gate (y + bias)``, y a product behind its scales, in one kernel."""
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
    """One or two streams of products [B, Li, 3 H d] to q, k, v [B, H, L, d] in e4m3, one scale [1, 1, 1, 1] each.

    Two launches: one finds the largest value, whose scale must be known before the first is rounded. Products that were
    left to it are computed first, or with all but the rounding of V in their epilogue.
    """
    op = "qkv_heads"
    if len(qkvs) not in (1, 2) or {len(biases), len(q_norms), len(k_norms)} != {len(qkvs)}:
        raise ArgumentError(
            f"{op}: expected one or two streams, as many of each argument, got {len(qkvs)} qkvs, {len(biases)} biases, "
            f"{len(q_norms)} q_norms and {len(k_norms)} k_norms. Join further streams with concat_tokens."
        )
    if all(isinstance(qkv, Deferred) for qkv in qkvs):

        def library() -> tuple[Quantized, Quantized, Quantized]:
            work: list[Any] = [partial(linear, device, qkv.x, qkv.weight) for qkv in qkvs]
            done = deferred_heads.beside(device, work)
            q, k, v = qkv_heads(device, done, biases, q_norms, k_norms, cos, sin, heads)
            return q, k, v

        operands = tuple(Deferred(_operand(device, qkv.x), qkv.weight) for qkv in qkvs)
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
    for product_at, _, *others in places:  # all but scales by token are read 16 bytes at a time
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
    """q, k, v [B, H, L, d] to [B, L, H d] in units of v's scale: a mean of values is never beyond the largest.

    ``out``: e4m3 [B, L, H d], may be half of a joined buffer.
    """
    check_heads(q, k, v, out)
    batch, heads, tokens, dim = q.shape
    q, k, v = (_whole(device, x) for x in (q, k, v))
    if out is None:
        out = device.empty((batch, tokens, heads * dim), E4M3)
    scale = cupy().broadcast_to(v.scale.reshape(1, 1, 1), (batch, tokens, 1))
    if q.size == 0:
        return Quantized(out, scale)
    layout = AttentionLayout(
        shape=q.shape, dtype=E4M3, q=q.data.strides, k=k.data.strides, v=v.data.strides,
        o=(out.strides[0], dim, out.strides[1], 1),
    )  # fmt: skip
    operands = (x.data.data.ptr for x in (q, k, v))
    device.attention.attention(layout, *operands, out.data.ptr, (q.scale.data.ptr, k.scale.data.ptr))
    return Quantized(out, scale)


@implements("joined_halves", "fp8", device="cuda")
def joined_halves(device: Any, batch: int, tokens: int, left: int, right: int, dtype: str) -> tuple[Any, Any]:
    """Two column slices of one buffer in e4m3, whatever the dtype of activations."""
    whole = device.empty((batch, tokens, left + right), E4M3)
    return whole[:, :, :left], whole[:, :, left:]


family("join_features_fp8", "P P P 2q 2q i i i", "b1 b16")


@implements("join_features", "fp8", device="cuda")
def join_features(device: Any, first: Any, second: Any) -> Quantized:
    """Both halves of a buffer at one scale per row, in place: ``first`` and ``second`` are not to be read again.

    Halves that are not of one buffer are copied into one.
    """
    left, right = _operand(device, first), _operand(device, second)
    if left.shape[:-1] != right.shape[:-1]:
        raise ArgumentError(
            f"join_features: expected halves with the same rows, got {tuple(left.shape)} and {tuple(right.shape)}. "
            "Only the last axis may differ."
        )
    whole, powers = joined(left.data, right.data, -1), right.scale
    if whole is None:
        width = left.shape[-1]
        whole, powers = device.empty((*left.shape[:-1], width + right.shape[-1]), E4M3), powers.copy()
        whole[..., :width], whole[..., width:] = left.data, right.data
        device.launches += 3
    layouts = described(whole), described(left.scale), described(powers)
    plan = plans.join_features(*layouts, left.shape[-1], whole.data.ptr % 16 == 0)
    places = whole.data.ptr, left.scale.data.ptr, powers.data.ptr
    start(device, plan.entry, plan.grid, plan.threads, *places, *plan.tail)
    return Quantized(whole, powers)


def _operand(device: Any, x: Any) -> Any:
    """Numbers in e4m3."""
    return x if isinstance(x, Quantized) else quantize_rows(device, x)


def _whole(device: Any, x: Any) -> Any:
    """A tensor in e4m3 with one scale."""
    if isinstance(x, Quantized):
        return x
    row = quantize_rows(device, cupy().ascontiguousarray(x).reshape(1, -1))
    return Quantized(row.data.reshape(x.shape), row.scale.reshape(1, 1, 1, 1))


def _unscaled(device: Any, x: Any) -> Unscaled:
    """A product with scales; those of plain numbers are 1."""
    if not isinstance(x, Unscaled):
        rows, columns = device.empty((*x.shape[:-1], 1), "float32"), device.empty(x.shape[-1:], "float32")
        rows.fill(1), columns.fill(1)
        device.launches += 2
        return Unscaled(x, rows, columns)
    if x.bias is not None:
        raise ArgumentError("qkv_heads 'fp8': expected a product without bias, got one with. Pass it in biases.")
    return x


def _check(x: Any, weight: Any) -> None:
    """Complains about operands that no product in e4m3 takes."""
    if not isinstance(weight, Quantized):
        raise ArgumentError(
            f"linear 'fp8': expected weight quantized, with a scale per output channel, got {type(weight).__name__}. "
            "Quantize it with quantize_rows."
        )
    numbers: Any = weight.data
    extents = (weight.shape[0], weight.shape[1], *x.data.strides[:-1], *numbers.strides[:-1])
    if any(extent % _ALIGNMENT for extent in (*extents, x.data.data.ptr, numbers.data.ptr)):
        raise ArgumentError(
            f"linear 'fp8': expected addresses, rows, inputs and outputs that are multiples of {_ALIGNMENT}, got x "
            f"{x.shape} with strides {x.data.strides} and weight {weight.shape}. Use a bfloat16 rung."
        )
