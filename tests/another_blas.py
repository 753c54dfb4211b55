"""A BLAS whose results depend on the sizes of a product, as a plugin: ``pytest -p tests.another_blas``.

Libraries choose kernels by shape, so the same row of the same operands may be summed in another order where a product
is larger, and in another one again where it is at the edge of a tile. Which machine does so where differs: OpenBLAS for
AVX-512 has kernels for small products, others have none. Here every product of floats does it, on every machine:

- terms are summed in an order that depends on the product's sizes;
- the last rows and columns, those that fill no tile of 16, are summed in another order.

The same product of the same sizes gives the same bits each time, as it does in a BLAS.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

_TILE = 16
_matmul = np.matmul


@lru_cache(maxsize=4096)
def _order(terms: int, *seed: int) -> npt.NDArray[np.intp]:
    return np.random.default_rng(zlib.crc32(repr((terms, *seed)).encode())).permutation(terms)


def _summed(a: Any, b: Any, *seed: int) -> Any:
    order = _order(a.shape[-1], *seed)
    return _matmul(a[..., order], b[..., order, :])


def matmul(a: Any, b: Any, /, *args: Any, **options: Any) -> Any:
    """As ``np.matmul``, of floats of two axes or more."""
    a, b = np.asarray(a), np.asarray(b)
    if args or set(options) - {"out"} or min(a.ndim, b.ndim) < 2 or a.dtype.kind != "f" or not a.shape[-1]:
        return _matmul(a, b, *args, **options)
    rows, columns = a.shape[-2], b.shape[-1]
    whole_rows, whole_columns = rows - rows % _TILE, columns - columns % _TILE
    result = _summed(a, b, rows, columns, 0)
    if whole_rows < rows:
        result[..., whole_rows:, :] = _summed(a[..., whole_rows:, :], b, rows, columns, 1)
    if whole_columns < columns:
        result[..., :, whole_columns:] = _summed(a, b[..., whole_columns:], rows, columns, 2)
    if (out := options.get("out")) is None:
        return result
    out[...] = result
    return out


def pytest_configure() -> None:
    """As a plugin, for all tests of a run."""
    np.matmul = matmul  # type: ignore[assignment]
