"""Matrix products on the GPU: projections, the two products of attention, and fused epilogues.

They are cuBLASLt's, or this project's own where those take less time (`finished`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fluxperf.engine.device.cublaslt import Product
from fluxperf.engine.ops.catalog import implements
from fluxperf.engine.ops.cuda import finished
from fluxperf.engine.ops.cuda.epilogues import bias_gated_residual
from fluxperf.engine.ops.cuda.projection import project
from fluxperf.errors import ArgumentError


@implements("linear", "laid_out", device="cuda")
def laid_out(device: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    """x [.., K], weight [N, K] in its stored layout, bias [N] in the epilogue, to [.., N]."""
    return project(device, x, weight, bias)


@implements("linear", "transposing", device="cuda")
def transposing(device: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    """x [.., K], weight [N, K]: copies the weight to [K, N] in every call, as the published baseline."""
    flipped = device.empty((weight.shape[1], weight.shape[0]), str(weight.dtype))
    flipped[...] = weight.T
    device.launches += 1
    return project(device, x, flipped, bias, transposed=False)


@implements("linear_gelu", "fused", device="cuda")
def linear_gelu(device: Any, x: Any, weight: Any, bias: Any, out: Any = None) -> Any:
    """``GELU(x W^T + b)`` [.., N]: bias and tanh-GELU in the epilogue, on the accumulators.

    ``out`` may be half of a joined buffer.

    *Numerics*: the tanh is approximate. Its error is well within a bfloat16 rounding, but not within a float32 one.

    Raises:
        ArgumentError: x is not bfloat16.
    """
    if str(x.dtype) != "bfloat16":
        raise ArgumentError(
            f"linear_gelu 'fused': expected x in bfloat16, got {x.dtype}. Bind linear_gelu to 'composed' for {x.dtype}."
        )
    if out is None:
        out = device.empty((*x.shape[:-1], weight.shape[0]), "bfloat16")
    return finished.gelu(device, x, weight, bias, out, lambda: project(device, x, weight, bias, out, gelu=True))


@implements("silu_linear", "fused", device="cuda", composed=True)
def silu_linear(ops: Any, x: Any, weight: Any, bias: Any) -> Any:
    """SiLU of the few conditioning vectors [B, K] in a kernel of its own; bias in the product's epilogue; to [B, N]."""
    return ops.linear(ops.silu(x), weight, bias)


@implements("linear_gated_residual", "fused", device="cuda")
def linear_gated_residual(device: Any, x: Any, gate: Any, y: Any, weight: Any, bias: Any) -> Any:
    """``x + gate (y W^T + b)`` [B, L, D]: an epilogue, or one kernel after a product without bias.

    The library's own epilogue is not used: its bias costs up to 8 %, and it has no gate.

    *Numerics*: in an epilogue, one rounding; otherwise that of the product and one more.
    """

    def library() -> Any:
        return bias_gated_residual(device, x, gate, project(device, y, weight), bias)

    return finished.gated(device, x, gate, y, weight, bias, library)


@implements("batched_matmul", "strided", device="cuda")
def strided(device: Any, a: Any, b: Any, float32: bool = False) -> Any:
    """a [.., M, K] times b [.., K, N] in one strided-batched call; ``float32`` returns the accumulators.

    Heads that are not evenly spaced in memory (a slice of a larger tensor) are multiplied sample by sample. Matrices
    whose layout a product cannot read are copied first, in one more launch.
    """
    return _product(device, a, b, float32, _batches)


@implements("batched_matmul", "looped", device="cuda")
def looped(device: Any, a: Any, b: Any, float32: bool = False) -> Any:
    """a [.., M, K] times b [.., K, N] with one product per head and sample, as the published baseline."""
    return _product(device, a, b, float32, _each)


def _product(device: Any, a: Any, b: Any, float32: bool, multiply: Callable[[Any, Any, Any, Any], None]) -> Any:
    """``a b`` in a new array, computed by ``multiply`` on operands with a readable layout."""
    out = device.empty((*a.shape[:-1], b.shape[-1]), "float32" if float32 else str(a.dtype))
    if out.size == 0:
        return out
    if a.shape[-1] == 0:  # sums over no terms
        out.fill(0)
        device.launches += 1
        return out
    multiply(device, _readable(device, "a", a, False), _readable(device, "b", b, True), out)
    return out


def _readable(device: Any, argument: str, x: Any, flipped: bool) -> Any:
    """x [.., M, N] itself if a product can read its layout, possibly as a transpose if ``flipped``; else a copy.

    Raises:
        ArgumentError: a stride or the address is not a multiple of the element size.
    """
    if x.data.ptr % x.itemsize or any(step % x.itemsize for step in x.strides):
        raise ArgumentError(
            f"batched_matmul: expected strides and address of {argument} to be multiples of its {x.itemsize}-byte "
            f"elements, got strides of {x.strides} bytes at address {x.data.ptr:#x}. Copy it to a contiguous array."
        )
    if _has_rows(x, -2, -1) or (flipped and _has_rows(x, -1, -2)):
        return x
    whole = device.empty(x.shape, str(x.dtype))
    whole[...] = x
    device.launches += 1
    return whole


def _has_rows(x: Any, rows: int, columns: int) -> bool:
    """Whether the matrices of x consist of whole, evenly spaced rows.

    ``rows`` and ``columns`` are the indices of these axes.
    """
    whole = x.shape[columns] == 1 or x.strides[columns] == x.itemsize
    return whole and bool(x.shape[rows] == 1 or x.strides[rows] >= x.shape[columns] * x.itemsize)


def _batches(device: Any, a: Any, b: Any, out: Any) -> None:
    """Multiplies in batches: as many matrices per call as are evenly spaced in all three tensors."""
    offsets = [_spacing(x) for x in (a, b, out)]
    if out.ndim > 2 and None in offsets:
        for one, other, target in zip(a, b, out, strict=True):
            _batches(device, one, other, target)
        return
    _multiply(device, a, b, out, out.size // (out.shape[-1] * out.shape[-2]), offsets)


def _each(device: Any, a: Any, b: Any, out: Any) -> None:
    """Multiplies one pair of matrices after the other."""
    if out.ndim == 2:
        _multiply(device, a, b, out, 1, [0, 0, 0])
        return
    for one, other, target in zip(a, b, out, strict=True):
        _each(device, one, other, target)


def _spacing(x: Any) -> int | None:
    """Elements from one matrix of x [.., M, N] to the next; ``None`` if the distance varies or is negative."""
    step, spacing, count = 0, 0, 1
    for extent, stride in zip(reversed(x.shape[:-2]), reversed(x.strides[:-2]), strict=True):
        if extent == 1:
            continue
        if count == 1:
            spacing = step = stride
        if stride != step * count or stride < 0:
            return None
        count *= extent
    return int(spacing // x.itemsize)


def _multiply(device: Any, a: Any, b: Any, out: Any, batch: int, offsets: list[Any]) -> None:
    """``out = a b`` for evenly spaced batches; b [.., K, N] may be a transposed view of [.., N, K]."""
    transposed = not _has_rows(b, -2, -1)
    product = Product(
        m=a.shape[-2],
        n=b.shape[-1],
        k=a.shape[-1],
        dtype=str(a.dtype),
        out_dtype=str(out.dtype),
        b_transposed=transposed,
        lda=_row_step(a, -2),
        ldb=_row_step(b, -1 if transposed else -2),
        ldd=_row_step(out, -2),
        batch=batch,
        offset_a=offsets[0],
        offset_b=offsets[1],
        offset_d=offsets[2],
    )
    device.products(product, a.data.ptr, b.data.ptr, out.data.ptr)


def _row_step(x: Any, axis: int) -> int:
    """Elements from one row to the next, at least the row's own length. cuBLASLt requires it even for a single row."""
    length = x.shape[-1] if axis == -2 else x.shape[-2]
    return int(max(x.strides[axis] // x.itemsize, length))
