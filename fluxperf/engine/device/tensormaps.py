"""Tensor maps: what Hopper's copy engine is told about a matrix in memory and the box that one copy moves.

The driver writes them, 128 bytes each, from address, extents, strides and box; a kernel takes them by value. They are
made once per matrix and kept.
"""

from __future__ import annotations

import ctypes
import struct
from functools import lru_cache
from typing import Any, NamedTuple

from fluxperf.errors import DeviceError

#: CUtensorMapDataType by bytes of a number: e4m3 as bytes, bfloat16.
_TYPES = {1: 0, 2: 9}

#: CUtensorMapSwizzle: rows of 128 bytes, their sixteenths permuted by the row's number; CUtensorMapL2promotion: 256 B.
_SWIZZLE, _PROMOTION = 3, 3

#: Bytes of a row of a box: what the swizzle permutes.
ROW_BYTES = 128

#: What the driver asks of addresses and strides, and of the map's own address.
_UNIT, _MAP_ALIGNMENT, _MAP_BYTES = 16, 64, 128


class Matrix(NamedTuple):
    """A matrix, or planes of them, in device memory; innermost extent first.

    ``extents`` (columns, rows, ..), ``strides`` in bytes of all but the columns, ``itemsize`` 1 or 2.
    """

    address: int
    extents: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int


def misfit(matrix: Matrix) -> str:
    """Why there is no map of a matrix, or an empty string."""
    if matrix.itemsize not in _TYPES:
        return f"numbers of {matrix.itemsize} bytes, where 1 or 2 are expected"
    for name, values in (("address", (matrix.address,)), ("strides in bytes", matrix.strides)):
        if any(value % _UNIT for value in values):
            return f"{name} {values}, where multiples of {_UNIT} are expected"
    if not all(0 < extent < 2**31 for extent in matrix.extents):
        return f"extents {matrix.extents}, where 1 to 2^31 - 1 are expected"
    if not all(0 < stride < 2**40 for stride in matrix.strides):
        return f"strides in bytes {matrix.strides}, where 1 to 2^40 - 1 are expected"
    return ""


def box_of(matrix: Matrix, rows: int) -> tuple[int, ...]:
    """The box of that many rows of 128 bytes, in one plane."""
    return (ROW_BYTES // matrix.itemsize, rows, *(1 for _ in matrix.extents[2:]))


@lru_cache(maxsize=8192)
def tensor_map(matrix: Matrix, rows: int) -> tuple[int, ...]:
    """The 16 words of a map whose boxes have that many rows of 128 bytes; zeros are read beyond the matrix.

    Raises:
        DeviceError: the matrix does not fit, or the driver refuses it.
    """
    reason = misfit(matrix) or ("" if 0 < rows <= 256 else f"boxes of {rows} rows, where 1 to 256 are expected")
    if reason:
        raise DeviceError(f"tensor map: got {reason}. Use a product of the library.")
    rank = len(matrix.extents)
    held = ctypes.create_string_buffer(_MAP_BYTES + _MAP_ALIGNMENT)
    place = -(-ctypes.addressof(held) // _MAP_ALIGNMENT) * _MAP_ALIGNMENT
    code = _driver().cuTensorMapEncodeTiled(
        ctypes.c_void_p(place), ctypes.c_int(_TYPES[matrix.itemsize]), ctypes.c_uint32(rank),
        ctypes.c_void_p(matrix.address), (ctypes.c_uint64 * rank)(*matrix.extents),
        (ctypes.c_uint64 * (rank - 1))(*matrix.strides), (ctypes.c_uint32 * rank)(*box_of(matrix, rows)),
        (ctypes.c_uint32 * rank)(*(1,) * rank), ctypes.c_int(0), ctypes.c_int(_SWIZZLE), ctypes.c_int(_PROMOTION),
        ctypes.c_int(0),
    )  # fmt: skip
    if code:
        raise DeviceError(f"tensor map: the driver refuses {matrix} in boxes of {rows} rows (CUDA error {code}).")
    return struct.unpack("16q", ctypes.string_at(place, _MAP_BYTES))


@lru_cache(maxsize=1)
def _driver() -> Any:
    """The driver's library, which CuPy has loaded.

    Raises:
        DeviceError: it is not there, or older than Hopper.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
        _ = library.cuTensorMapEncodeTiled
    except (OSError, AttributeError) as error:
        raise DeviceError(
            f"tensor map: expected a driver that makes them, got: {error}. Update the driver (CUDA 12 or newer)."
        ) from error
    return library
