"""Host twins of the matrix products: operands as they are, float32 accumulation, one rounding of the result."""

from __future__ import annotations

from typing import Any

import numpy as np

from fluxperf.engine.ops.catalog import twin


def _f32(x: Any) -> Any:
    return x.astype(np.float32, copy=False)


@twin("batched_matmul", "looped")
def looped(a: Any, b: Any, float32: bool = False) -> Any:
    """One product per head and sample, one after the other, as the published baseline."""
    rows, columns = a.shape[-2], b.shape[-1]
    result = np.empty((*a.shape[:-2], rows, columns), np.float32)
    for index in np.ndindex(a.shape[:-2]):
        np.matmul(_f32(a[index]), _f32(b[index]), out=result[index])
    return result if float32 else result.astype(a.dtype)


@twin("batched_matmul", "strided")
def strided(a: Any, b: Any, float32: bool = False) -> Any:
    """One call for all heads and samples; ``float32`` keeps the accumulators."""
    result = np.matmul(_f32(a), _f32(b))
    return result if float32 else result.astype(a.dtype)


@twin("linear", "transposing")
def transposing(x: Any, weight: Any, bias: Any = None) -> Any:
    """Writes the transposed weight out in each call, as the published baseline."""
    result = np.matmul(_f32(x), np.ascontiguousarray(_f32(weight).T))
    return (result if bias is None else result + _f32(bias)).astype(x.dtype)


@twin("linear", "laid_out")
def laid_out(x: Any, weight: Any, bias: Any = None) -> Any:
    """Reads the weight [N, K] where it lies."""
    result = np.matmul(_f32(x), _f32(weight).T)
    return (result if bias is None else result + _f32(bias)).astype(x.dtype)
