"""Questions of launchers about arrays: element types, addresses, strides in elements, and axes that merge evenly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from fluxperf.errors import ArgumentError

#: Largest extent of a grid along x, and along y.
_GRID = (2**31 - 1, 65535)

#: Longest row and most rows: a kernel counts them in 32 bits and steps past the end by less than a tile.
_LONGEST = 2**31 - 2**16


class Element(NamedTuple):
    """An element type: its name, its name in entry points, bytes, and elements in 16 bytes."""

    name: str
    code: str
    itemsize: int
    width: int


FLOAT32 = Element("float32", "f32", 4, 4)
BFLOAT16 = Element("bfloat16", "bf16", 2, 8)
_ELEMENTS = {np.dtype(np.float32): FLOAT32, np.dtype(ml_dtypes.bfloat16): BFLOAT16}


class Layout(NamedTuple):
    """Shape, strides in bytes and dtype of an array: what a plan depends on, besides alignment."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: Any

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)} with strides {self.strides} in bytes"


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
            f"{op}: expected {argument} in device memory, got {type(x).__module__}.{type(x).__name__}. "
            "Bring it in with to_device(array, label)."
        ) from error


def element(op: str, argument: str, layout: Layout) -> Element:
    """Element type of an argument.

    Raises:
        ArgumentError: it is neither float32 nor bfloat16.
    """
    found = _ELEMENTS.get(layout.dtype)
    if found is None:
        raise mismatch(op, argument, "float32 or bfloat16", layout, "Convert it first.")
    return found


def mismatch(op: str, argument: str, expected: str, got: object, advice: str) -> ArgumentError:
    """The error for an argument that does not fit."""
    return ArgumentError(f"{op}: expected {argument} {expected}, got {got}. {advice}")


def need(op: str, argument: str, layout: Layout, shape: tuple[int, ...], like: Element, axes: str) -> tuple[int, ...]:
    """Strides in elements of an argument that must have a shape and an element type; 0 along axes of one index.

    Args:
        op: for the message.
        argument: its name.
        layout: what it is.
        shape: what it must be.
        like: element type that it must have.
        axes: the shape in letters, such as ``"[B, D]"``.

    Raises:
        ArgumentError: shape or type differ, or the last axis has no unit stride.
    """
    if layout.shape != shape or _ELEMENTS.get(layout.dtype) is not like:
        raise mismatch(op, argument, f"{axes} = {list(shape)} in {like.name}", layout, "Shapes must agree, and dtypes.")
    return steps(op, argument, layout, like)


def steps(op: str, argument: str, layout: Layout, kind: Element) -> tuple[int, ...]:
    """Strides in elements, 0 along axes of one index, 1 along the last.

    Raises:
        ArgumentError: the last axis has no unit stride.
    """
    if not layout.shape:
        return ()
    if layout.shape[-1] > 1 and all(layout.shape) and layout.strides[-1] != kind.itemsize:
        raise mismatch(
            op, argument, "with unit stride along its last axis", layout,
            "Write it out first, with transpose_heads or another op that moves data.",
        )  # fmt: skip
    pairs = zip(layout.shape[:-1], layout.strides[:-1], strict=True)
    return (*(stride // kind.itemsize if extent > 1 else 0 for extent, stride in pairs), 1)


def check_heads(q: Any, k: Any, v: Any, out: Any) -> None:
    """Complains about tensors that are not of one shape [B, H, L, d], or not written to [B, L, H d].

    Raises:
        ArgumentError: so it is.
    """
    shapes = [tuple(x.shape) for x in (q, k, v)]
    if len(shapes[0]) != 4 or len(set(shapes)) > 1:
        raise ArgumentError(f"attention: expected q, k and v of one shape [B, H, L, d], got {shapes}. See qkv_heads.")
    batch, heads, tokens, dim = shapes[0]
    if out is not None and (tuple(out.shape) != (batch, tokens, heads * dim) or out.strides[-1] != out.itemsize):
        raise ArgumentError(
            f"attention: expected out [B, L, H d] = {[batch, tokens, heads * dim]} with unit stride last, got "
            f"{list(out.shape)} with strides {out.strides} in bytes. See joined_halves."
        )


class Rows(NamedTuple):
    """Leading axes of some operands as kernels take them: how many rows, four extents, four strides per operand."""

    number: int
    extents: tuple[int, int, int, int]
    strides: tuple[tuple[int, int, int, int], ...]


def merged(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Axes merged into their right neighbour wherever every operand is evenly spaced across both.

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
    """Axes as kernels take them.

    Raises:
        ArgumentError: more than four remain after merging, or there are too many rows.
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
            f"with strides {[list(operand) for operand in strides]} in elements. Write the array out first."
        )
    return Rows(count, _four(extents, 1), tuple(_four(operand, 0) for operand in kept))


def _four(values: Sequence[int], filler: int) -> tuple[int, int, int, int]:
    a, b, c, d = (*(filler,) * (4 - len(values)), *values)
    return a, b, c, d


def grid(op: str, x: int, y: int = 1) -> tuple[int, int]:
    """A grid of that many blocks.

    Raises:
        ArgumentError: it is larger than CUDA allows.
    """
    if x > _GRID[0] or y > _GRID[1]:
        raise ArgumentError(f"{op}: expected at most {_GRID[0]} by {_GRID[1]} blocks, got {x} by {y}. Split the batch.")
    return x, y


def length(op: str, columns: int) -> int:
    """The length of a row, as it is.

    Raises:
        ArgumentError: a kernel could not count it in 32 bits.
    """
    if columns > _LONGEST:
        raise ArgumentError(f"{op}: expected rows of at most {_LONGEST} elements, got {columns}. Split the array.")
    return columns


def power_of_two(least: int) -> int:
    """The smallest power of two that is not below ``least``."""
    return 1 << max(least - 1, 0).bit_length()
