"""Host twins of the matrix products: float32 accumulation, and one rounding of the result."""

from __future__ import annotations

from typing import Any

import numpy as np

from fluxperf.engine.ops.catalog import twin


def _f32(x: Any) -> Any:
    return x.astype(np.float32, copy=False)


@twin("batched_matmul", "looped")
def looped(a: Any, b: Any, float32: bool = False) -> Any:
    """a [.., M, K] times b [.., K, N] with one product per head and sample, as the published baseline."""
    rows, columns = a.shape[-2], b.shape[-1]
    result = np.empty((*a.shape[:-2], rows, columns), np.float32)
    for index in np.ndindex(a.shape[:-2]):
        np.matmul(_f32(a[index]), _f32(b[index]), out=result[index])
    return result if float32 else result.astype(a.dtype)


@twin("batched_matmul", "strided")
def strided(a: Any, b: Any, float32: bool = False) -> Any:
    """a [.., M, K] times b [.., K, N] in one call; ``float32`` returns the accumulators."""
    result = np.matmul(_f32(a), _f32(b))
    return result if float32 else result.astype(a.dtype)


@twin("linear", "transposing")
def transposing(x: Any, weight: Any, bias: Any = None) -> Any:
    """Copies the transposed weight in every call, as the published baseline."""
    result = np.matmul(_f32(x), np.ascontiguousarray(_f32(weight).T))
    return (result if bias is None else result + _f32(bias)).astype(x.dtype)


@twin("linear", "laid_out")
def laid_out(x: Any, weight: Any, bias: Any = None) -> Any:
    """Reads the weight [N, K] in its stored layout."""
    result = np.matmul(_f32(x), _f32(weight).T)
    return (result if bias is None else result + _f32(bias)).astype(x.dtype)
