"""The mission's primitives on CuPy arrays: each one launch, callable by anyone, on CuPy's current stream.

    >>> import cupy
    >>> from fluxperf import gpu
    >>> x = cupy.random.standard_normal((1, 4608, 3072), dtype=cupy.float32)
    >>> y = gpu.gpu_modulate(x, scale=x[:, 0], shift=x[:, 1])

Arrays are float32 or bfloat16 (``ml_dtypes.bfloat16``), with any strides but along the last axis; results are new and
contiguous. Arithmetic is float32 with one rounding at the end. No call copies between host and device or waits.
"""

from __future__ import annotations

import functools
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
    return primitives.layer_norm(_device("gpu_layer_norm", x=x), x, eps)


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
    return primitives.modulate(_device("gpu_modulate", x=x, scale=scale, shift=shift), x, scale, shift)


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
    device = _device("gpu_gated_residual", x=x, gate=gate, attn_out=attn_out)
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
    return primitives.add_broadcast(_device("gpu_add_broadcast", x=x, y=y), x, y)


def gpu_batched_matmul(a: Any, b: Any) -> Any:
    """``a b`` per matrix, in one strided-batched call of cuBLASLt; float32 operands are not rounded to TF32.

    Args:
        a: [.., M, K].
        b: [.., K, N], leading axes as those of a; may be a transposed view.

    Raises:
        ArgumentError: not CuPy arrays, or shapes or dtypes that do not fit.
        DeviceError: no usable GPU, or cuBLASLt has no algorithm for the shape.
    """
    device = _device("gpu_batched_matmul", a=a, b=b)
    fits = a.ndim == b.ndim >= 2 and a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2]
    if not fits or a.dtype != b.dtype or str(a.dtype) not in ("float32", "bfloat16"):
        raise ArgumentError(
            f"gpu_batched_matmul: expected a [.., M, K] and b [.., K, N] of one dtype, float32 or bfloat16, got "
            f"{a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}. Reshape or cast one of them."
        )
    return matmul.strided(device, a, b)


@functools.cache
def _gpu(ordinal: int) -> Gpu:
    return Gpu(ordinal)


def _device(call: str, **arrays: Any) -> Gpu:
    """The GPU that the arrays are on."""
    module = cupy()
    for name, array in arrays.items():
        if not isinstance(array, module.ndarray):
            raise ArgumentError(
                f"{call}: expected {name} to be a CuPy array, got {type(array).__name__}. Use cupy.asarray({name})."
            )
    ordinals = {array.device.id for array in arrays.values()}
    if len(ordinals) != 1:
        raise ArgumentError(f"{call}: expected arrays on one GPU, got GPUs {sorted(ordinals)}. Copy them to one.")
    return _gpu(ordinals.pop())
