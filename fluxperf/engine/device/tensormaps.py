"""Tensor maps: descriptors of a matrix and of the box that one copy moves, for Hopper's TMA.

The driver encodes them in 128 bytes, from address, extents, strides and box. A kernel takes them by value. They are
made once per matrix and kept.
"""

from __future__ import annotations

import ctypes
import struct
from functools import lru_cache
from typing import Any, NamedTuple

from fluxperf.errors import DeviceError

#: CUtensorMapDataType by element size in bytes: e4m3 as uint8, bfloat16.
_TYPES = {1: 0, 2: 9}

#: CUtensorMapSwizzle: 128 bytes; CUtensorMapL2promotion: 256 bytes.
_SWIZZLE, _PROMOTION = 3, 3

#: Bytes of a row of a box, which is also the span of the swizzle.
ROW_BYTES = 128

#: Alignment that the driver requires of addresses and strides, and of the map itself.
_UNIT, _MAP_ALIGNMENT, _MAP_BYTES = 16, 64, 128


class Matrix(NamedTuple):
    """A matrix, or a stack of matrices (planes), in device memory; the innermost extent comes first.

    ``extents`` are (columns, rows, ..), ``strides`` bytes of all axes but the columns, ``itemsize`` 1 or 2 bytes.
    """

    address: int
    extents: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int


def misfit(matrix: Matrix) -> str:
    """Why a matrix cannot have a tensor map; an empty string if it can."""
    if matrix.itemsize not in _TYPES:
        return f"elements of {matrix.itemsize} bytes, expected 1 or 2"
    for name, values in (("address", (matrix.address,)), ("strides in bytes", matrix.strides)):
        if any(value % _UNIT for value in values):
            return f"{name} {values}, expected multiples of {_UNIT}"
    if not all(0 < extent < 2**31 for extent in matrix.extents):
        return f"extents {matrix.extents}, expected 1 to 2^31 - 1"
    if not all(0 < stride < 2**40 for stride in matrix.strides):
        return f"strides of {matrix.strides} bytes, expected 1 to 2^40 - 1"
    return ""


def box_of(matrix: Matrix, rows: int) -> tuple[int, ...]:
    """Extents of a box with that many rows of 128 bytes, in one plane."""
    return (ROW_BYTES // matrix.itemsize, rows, *(1 for _ in matrix.extents[2:]))


@lru_cache(maxsize=8192)
def tensor_map(matrix: Matrix, rows: int) -> tuple[int, ...]:
    """The 16 words of a map whose boxes have that many rows of 128 bytes. Reads beyond the matrix give zeros.

    Raises:
        DeviceError: the matrix does not fit, or the driver refuses it.
    """
    reason = misfit(matrix) or ("" if 0 < rows <= 256 else f"boxes of {rows} rows, expected 1 to 256")
    if reason:
        raise DeviceError(f"tensor map: got {reason}. Use cuBLASLt for this product.")
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
        raise DeviceError(
            f"tensor map: expected the driver to accept {matrix} in boxes of {rows} rows, but it refused (CUDA error "
            f"{code}). Use cuBLASLt for this product."
        )
    return struct.unpack("16q", ctypes.string_at(place, _MAP_BYTES))


@lru_cache(maxsize=1)
def _driver() -> Any:
    """The CUDA driver library, which CuPy has loaded.

    Raises:
        DeviceError: it is missing, or too old for tensor maps.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
        _ = library.cuTensorMapEncodeTiled
    except (OSError, AttributeError) as error:
        raise DeviceError(
            f"tensor map: expected a driver with tensor maps, got: {error}. Update the driver (CUDA 12 or newer)."
        ) from error
    return library
