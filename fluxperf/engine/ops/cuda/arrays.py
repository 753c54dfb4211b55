"""Properties of arrays that launchers need: element types, addresses, strides in elements, axes that can be merged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from fluxperf.errors import ArgumentError

#: Largest extents of a grid along x and along y.
_GRID = (2**31 - 1, 65535)

#: Longest row, and largest number of rows. Kernels count them in 32 bits, and count past the end by less than a tile.
_LONGEST = 2**31 - 2**16


class Element(NamedTuple):
    """An element type: its name, its code in entry points, its bytes, and elements per 16 bytes."""

    name: str
    code: str
    itemsize: int
    width: int


FLOAT32 = Element("float32", "f32", 4, 4)
BFLOAT16 = Element("bfloat16", "bf16", 2, 8)
_ELEMENTS = {np.dtype(np.float32): FLOAT32, np.dtype(ml_dtypes.bfloat16): BFLOAT16}


class Layout(NamedTuple):
    """Shape, strides in bytes and dtype of an array. A plan depends on these and on alignment."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: Any

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)} with strides of {self.strides} bytes"


def described(x: Any) -> Layout:
    """Layout of a device array."""
    return Layout(x.shape, x.strides, x.dtype)


def address(op: str, argument: str, x: Any) -> int:
    """Address of a device array's first element.

    Raises:
        ArgumentError: it is not in device memory.
    """
    try:
        return int(x.data.ptr)
    except AttributeError as error:
        raise ArgumentError(
            f"{op}: expected {argument} in device memory, got {type(x).__module__}.{type(x).__name__}. Copy it with "
            "to_device(array, label)."
        ) from error


def element(op: str, argument: str, layout: Layout) -> Element:
    """Element type of an argument.

    Raises:
        ArgumentError: it is neither float32 nor bfloat16.
    """
    found = _ELEMENTS.get(layout.dtype)
    if found is None:
        raise mismatch(op, argument, "float32 or bfloat16", layout, "Convert it with cast.")
    return found


def mismatch(op: str, argument: str, expected: str, got: object, advice: str) -> ArgumentError:
    """The error for an argument that does not fit."""
    return ArgumentError(f"{op}: expected {argument} {expected}, got {got}. {advice}")


def need(op: str, argument: str, layout: Layout, shape: tuple[int, ...], like: Element, axes: str) -> tuple[int, ...]:
    """Strides in elements of an argument, which must have the given shape and element type; 0 along axes of extent 1.

    Args:
        op: for the message.
        argument: name of the argument.
        layout: of the argument.
        shape: required shape.
        like: required element type.
        axes: the shape in letters, such as ``"[B, D]"``.

    Raises:
        ArgumentError: the shape or the type differs, or the last axis does not have unit stride.
    """
    if layout.shape != shape or _ELEMENTS.get(layout.dtype) is not like:
        raise mismatch(op, argument, f"{axes} = {list(shape)} in {like.name}", layout, "Make shapes and dtypes match.")
    return steps(op, argument, layout, like)


def steps(op: str, argument: str, layout: Layout, kind: Element) -> tuple[int, ...]:
    """Strides in elements; 0 along axes of extent 1, and 1 along the last axis.

    Raises:
        ArgumentError: the last axis has no unit stride.
    """
    if not layout.shape:
        return ()
    if layout.shape[-1] > 1 and all(layout.shape) and layout.strides[-1] != kind.itemsize:
        raise mismatch(
            op, argument, "with unit stride along its last axis", layout,
            "Copy it to a contiguous array first, for example with transpose_heads.",
        )  # fmt: skip
    pairs = zip(layout.shape[:-1], layout.strides[:-1], strict=True)
    return (*(stride // kind.itemsize if extent > 1 else 0 for extent, stride in pairs), 1)


def check_heads(q: Any, k: Any, v: Any, out: Any) -> None:
    """Checks that Q is [B, H, N, d], K and V are [B, H, L, d], and ``out`` is [B, N, H d].

    Raises:
        ArgumentError: a shape or stride does not match.
    """
    shapes = [tuple(x.shape) for x in (q, k, v)]
    apart = any(len(shape) != 4 or (*shape[:2], shape[3]) != (*shapes[0][:2], shapes[0][3]) for shape in shapes)
    if apart or shapes[1] != shapes[2]:
        raise ArgumentError(
            f"attention: expected q [B, H, N, d], and k and v of one shape [B, H, L, d], got {shapes}. Use the results "
            "of qkv_heads."
        )
    batch, heads, tokens, dim = shapes[0]
    if out is not None and (tuple(out.shape) != (batch, tokens, heads * dim) or out.strides[-1] != out.itemsize):
        raise ArgumentError(
            f"attention: expected out [B, N, H d] = {[batch, tokens, heads * dim]} with unit stride last, got "
            f"{list(out.shape)} with strides of {out.strides} bytes. Allocate it with joined_halves."
        )


class Rows(NamedTuple):
    """Leading axes of operands in the form that kernels take: row count, four extents, four strides per operand."""

    number: int
    extents: tuple[int, int, int, int]
    strides: tuple[tuple[int, int, int, int], ...]


def merged(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Merges each axis into its right neighbour wherever every operand is evenly spaced across both.

    Args:
        shape: of all operands; at least one axis.
        strides: per operand; the last axis is kept as it is and merged into.

    Returns:
        Extents, and strides per operand.
    """
    extents = [shape[-1]]
    kept = [[operand[-1]] for operand in strides]
    for axis in reversed(range(len(shape) - 1)):
        if shape[axis] == 1:
            continue
        if all(operand[axis] == extents[0] * spaced[0] for operand, spaced in zip(strides, kept, strict=True)):
            extents[0] *= shape[axis]
        else:
            extents.insert(0, shape[axis])
            for operand, spaced in zip(strides, kept, strict=True):
                spaced.insert(0, operand[axis])
    return extents, kept


def rows_of(op: str, shape: Sequence[int], strides: Sequence[Sequence[int]]) -> Rows:
    """Leading axes in the form that kernels take.

    Raises:
        ArgumentError: more than four axes remain after merging, or there are too many rows.
    """
    real = [axis for axis, extent in enumerate(shape) if extent != 1]
    extents, kept = [1], [[0] for _ in strides]
    if real:
        extents, kept = merged([shape[a] for a in real], [[operand[a] for a in real] for operand in strides])
    count = 1
    for extent in extents:
        count *= extent
    if len(extents) > 4 or count > _LONGEST:
        raise ArgumentError(
            f"{op}: expected at most four unevenly spaced leading axes and {_LONGEST} rows, got axes {list(shape)} "
            f"with strides {[list(operand) for operand in strides]} in elements. Copy the array to a contiguous one "
            "first."
        )
    return Rows(count, _four(extents, 1), tuple(_four(operand, 0) for operand in kept))


def _four(values: Sequence[int], filler: int) -> tuple[int, int, int, int]:
    a, b, c, d = (*(filler,) * (4 - len(values)), *values)
    return a, b, c, d


def grid(op: str, x: int, y: int = 1) -> tuple[int, int]:
    """Checks and returns a grid of that many blocks.

    Raises:
        ArgumentError: it is larger than CUDA allows.
    """
    if x > _GRID[0] or y > _GRID[1]:
        raise ArgumentError(f"{op}: expected at most {_GRID[0]} by {_GRID[1]} blocks, got {x} by {y}. Split the batch.")
    return x, y


def length(op: str, columns: int) -> int:
    """Checks and returns the length of a row.

    Raises:
        ArgumentError: the row is too long for the 32 bits in which kernels count.
    """
    if columns > _LONGEST:
        raise ArgumentError(f"{op}: expected rows of at most {_LONGEST} elements, got {columns}. Split the array.")
    return columns


def power_of_two(least: int) -> int:
    """The smallest power of two that is at least ``least``."""
    return 1 << max(least - 1, 0).bit_length()
