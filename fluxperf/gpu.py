"""Primitives of the model on CuPy arrays of any program: each is one launch on CuPy's current stream.

    >>> import cupy
    >>> from fluxperf import gpu
    >>> x = cupy.random.standard_normal((1, 4608, 3072), dtype=cupy.float32)
    >>> y = gpu.gpu_modulate(x, scale=x[:, 0], shift=x[:, 1])

Arrays are float32 or bfloat16 (``ml_dtypes.bfloat16``). They are on one GPU, which need not be the current one. The
last axis is contiguous, other axes have any strides; operands of products may have any strides. Results are new and
contiguous. Arithmetic is float32 with one rounding at the end. No call copies between host and device. Calls do not
wait for the GPU, except the first: it compiles or loads a kernel, and the first product of a shape times algorithms.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from fluxperf.engine.device.gpu import Gpu, cupy
from fluxperf.engine.ops.cuda import matmul, primitives
from fluxperf.errors import ArgumentError

__all__ = ["gpu_add_broadcast", "gpu_batched_matmul", "gpu_gated_residual", "gpu_layer_norm", "gpu_modulate"]


def gpu_layer_norm(x: Any, eps: float = 1e-6) -> Any:
    """``(x - mean) / sqrt(var + eps)`` over the last axis, no affine, biased variance (Ba et al. 2016).

    Args:
        x: [.., D].
        eps: added to the variance.

    Raises:
        ArgumentError: not a CuPy array, or of another dtype.
        DeviceError: no usable GPU.
    """
    with _on("gpu_layer_norm", x=x) as device:
        return primitives.layer_norm(device, x, eps)


def gpu_modulate(x: Any, scale: Any, shift: Any) -> Any:
    """``x (1 + scale) + shift`` (adaLN, Peebles and Xie 2023).

    Args:
        x: [B, L, D].
        scale: [B, D].
        shift: [B, D].

    Raises:
        ArgumentError: not CuPy arrays, or shapes or dtypes that do not fit.
        DeviceError: no usable GPU.
    """
    with _on("gpu_modulate", x=x, scale=scale, shift=shift) as device:
        return primitives.modulate(device, x, scale, shift)


def gpu_gated_residual(x: Any, gate: Any, attn_out: Any) -> Any:
    """``x + gate attn_out``.

    Args:
        x: [B, L, D].
        gate: [B, D].
        attn_out: [B, L, D].

    Raises:
        ArgumentError: not CuPy arrays, or shapes or dtypes that do not fit.
        DeviceError: no usable GPU.
    """
    with _on("gpu_gated_residual", x=x, gate=gate, attn_out=attn_out) as device:
        return primitives.gated_residual(device, x, gate, attn_out)


def gpu_add_broadcast(x: Any, y: Any) -> Any:
    """``x + y`` with NumPy's rules of broadcasting.

    Args:
        x: [..], up to 4 axes.
        y: [..], of the same dtype.

    Raises:
        ArgumentError: not CuPy arrays, or shapes or dtypes that do not fit.
        DeviceError: no usable GPU.
    """
    with _on("gpu_add_broadcast", x=x, y=y) as device:
        return primitives.add_broadcast(device, x, y)


def gpu_batched_matmul(a: Any, b: Any) -> Any:
    """``a b`` per matrix, in one strided-batched call of cuBLASLt; float32 operands are not rounded to TF32.

    Views with whole rows, for b also transposed ones, are read in place; others are first copied on the GPU, a launch
    each. Matrices that are not evenly spaced are multiplied by several calls.

    Args:
        a: [.., M, K].
        b: [.., K, N], leading axes as those of a.

    Raises:
        ArgumentError: not CuPy arrays, or shapes or dtypes that do not fit.
        DeviceError: no usable GPU, or cuBLASLt has no algorithm for the shape.
    """
    with _on("gpu_batched_matmul", a=a, b=b) as device:
        _check_product(a, b)
        return matmul.strided(device, a, b)


def _check_product(a: Any, b: Any) -> None:
    fits = a.ndim == b.ndim >= 2 and a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2]
    if not fits or a.dtype != b.dtype or str(a.dtype) not in ("float32", "bfloat16"):
        raise ArgumentError(
            f"gpu_batched_matmul: expected a [.., M, K] and b [.., K, N] of one dtype, float32 or bfloat16, got "
            f"{a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}. Reshape or cast one of them."
        )


@functools.cache
def _gpu(ordinal: int) -> Gpu:
    return Gpu(ordinal)


@contextmanager
def _on(call: str, **arrays: Any) -> Iterator[Gpu]:
    """The GPU of the arrays, which is the current one meanwhile."""
    module = cupy()
    for name, array in arrays.items():
        if not isinstance(array, module.ndarray):
            raise ArgumentError(
                f"{call}: expected {name} to be a CuPy array, got {type(array).__name__}. Use cupy.asarray({name})."
            )
    devices = {array.device.id: array.device for array in arrays.values()}
    if len(devices) != 1:
        raise ArgumentError(f"{call}: expected arrays on one GPU, got GPUs {sorted(devices)}. Copy them to one.")
    ((ordinal, device),) = devices.items()
    # CuPy's device makes itself current and restores the previous one; its replacement in a test may not.
    with device if isinstance(device, AbstractContextManager) else nullcontext():
        yield _gpu(ordinal)
