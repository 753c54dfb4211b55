"""A projection as one cuBLASLt product, for every op with a weight. This file registers no implementation."""

from __future__ import annotations

from typing import Any

from fluxperf.engine.device.cublaslt import Product
from fluxperf.engine.device.gpu import E4M3
from fluxperf.errors import ArgumentError


def _leading(x: Any, what: str) -> tuple[int, int, int]:
    """Rows, features and row stride (in elements) of x [.., K] as one matrix; the rows must be evenly spaced."""
    features, item = x.shape[-1], x.itemsize
    if x.ndim > 1 and x.strides[-1] != item and features > 1:
        raise ArgumentError(
            f"{what}: expected unit stride along the last axis, got strides of {x.strides} bytes for "
            f"shape {x.shape}. Copy it to a contiguous array."
        )
    rows = 1
    stride = x.strides[-2] // item if x.ndim > 1 else features
    for extent, step in zip(reversed(x.shape[:-1]), reversed(x.strides[:-1]), strict=True):
        if extent > 1 and rows > 1 and step != rows * stride * item:
            raise ArgumentError(
                f"{what}: expected evenly spaced rows, got shape {x.shape} with strides of {x.strides} bytes. Pass "
                "one sample at a time."
            )
        if extent > 1 and rows == 1:
            stride = step // item
        rows *= extent
    return rows, features, max(stride, features)


def _numbers(x: Any) -> str:
    """Name of an operand's element type."""
    dtype = str(x.dtype)
    return E4M3 if dtype == "uint8" else dtype


def _even(x: Any) -> bool:
    """Whether the samples of x [B, L, K] are spaced like its rows, so that all rows form one matrix."""
    return bool(x.ndim < 3 or x.shape[0] == 1 or x.strides[0] == x.shape[1] * x.strides[1])


def project(
    device: Any, x: Any, weight: Any, bias: Any = None, out: Any = None, gelu: bool = False, transposed: bool = True
) -> Any:
    """``x W^T (+ b) (GELU)`` into ``out`` or a new array; unevenly spaced samples are computed one by one.

    uint8 operands hold e4m3 values; their product needs an ``out``.
    """
    outputs, inputs = weight.shape if transposed else weight.shape[::-1]
    if x.shape[-1] != inputs:
        raise ArgumentError(
            f"linear: expected x [.., {inputs}], with the number of features of the weight {tuple(weight.shape)}, got "
            f"{tuple(x.shape)}. Pass the tensor that belongs to this weight."
        )
    if out is not None and tuple(out.shape) != (*x.shape[:-1], outputs):
        raise ArgumentError(f"linear: expected out {(*x.shape[:-1], outputs)}, got {tuple(out.shape)}.")
    if out is None:
        out = device.empty((*x.shape[:-1], outputs), str(x.dtype))
    if x.size == 0:
        return out
    if not (_even(x) and _even(out)):
        for source, target in zip(x, out, strict=True):
            project(device, source, weight, bias, target, gelu, transposed)
        return out
    rows, features, lda = _leading(x, "linear x")
    epilogue = ("GELU_BIAS" if gelu else "BIAS") if bias is not None else "DEFAULT"
    product = Product(
        m=rows, n=outputs, k=features, dtype=_numbers(x), out_dtype=str(out.dtype), b_transposed=transposed,
        lda=lda, ldb=weight.strides[0] // weight.itemsize, ldd=_leading(out, "linear out")[2], epilogue=epilogue,
    )  # fmt: skip
    device.products(product, x.data.ptr, weight.data.ptr, out.data.ptr, bias.data.ptr if bias is not None else 0)
    return out
