"""Launches of this project's own matrix products, with their epilogues. This file registers no implementation.

Operands are matrices: the rows of one sample, evenly spaced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from fluxperf.engine.device.tensormaps import ROW_BYTES, Matrix, misfit, tensor_map
from fluxperf.engine.ops.cuda.entries import family, start
from fluxperf.engine.ops.cuda.tiles import CAPABILITY, TILES, Tile, fits, walk

# Parameters: tensor maps of X, W and others by value, then those of the epilogue, then M, N, K, rows of tiles per
# group, and the M of a second product. Entry points with three maps, or with four of one product, are staged.
_HEADS = "5Pqif"
for _file, _ending, _maps, _layout, _staged in (
    ("product", "_plain", 3, "5i", True),
    ("product", "_gelu", 2, "P P q 5i", False),
    ("product", "_gated", 4, "P P 5i", True),
    ("product_heads", "", 4, f"{_HEADS} {_HEADS} Pq 5i", False),
    ("product_heads_fp8", "", 4, f"{_HEADS} {_HEADS} 3Pq 3Pq 5Pqf 5i", False),
    ("product_fp8", "_plain", 3, "5i", True),
    ("product_fp8", "_gated", 4, "P P P P i 5i", True),
    ("product_fp8", "_halves", 4, "P P P P P i i i 5i", True),
    ("product_fp8", "_gelu", 2, "P P P P P P q f 5i", False),
):
    for _tile in TILES[_file]:
        family(_file, " ".join(("16q",) * _maps) + f" {_layout}", f"{_tile.name}{_ending}", _tile.shared(_staged))

#: Rows and columns of a box in which results leave shared memory.
_SLAB = 64

#: Largest e4m3 value.
_MOST = 448.0


def matrix(x: Any) -> Matrix | None:
    """x [1, L, K] or [L, K] as one matrix; ``None`` if it is not one, or if tensor maps cannot describe it."""
    if x.ndim == 3 and x.shape[0] == 1:
        x = x[0]
    if x.ndim != 2 or not x.size or (x.shape[1] > 1 and x.strides[1] != x.itemsize):
        return None
    stride = x.strides[0] if x.shape[0] > 1 else x.shape[1] * x.itemsize
    found = Matrix(x.data.ptr, (x.shape[1], x.shape[0]), (stride,), x.itemsize)
    return None if misfit(found) else found


def reach(features: int) -> float:
    """Upper bound of the length of a row [K] of an e4m3 weight, in units of its scale."""
    return _MOST * math.sqrt(features)


def side_by_side(first: Any, second: Any = None) -> Matrix | None:
    """One matrix of the halves [L, D] and [L, M] of rows in e4m3, or of the whole rows; else ``None``.

    The halves must lie in one buffer, and the first must be whole steps of the kernels along K.
    """
    left = matrix(first)
    if second is None:
        return left
    right = matrix(second)
    if left is None or right is None or left.extents[0] % ROW_BYTES or left.extents[1] != right.extents[1]:
        return None
    (width, rows), inner = left.extents, left.extents[0] + right.extents[0]
    if right.address != left.address + width or (rows > 1 and left.strides != right.strides):
        return None
    found = left._replace(extents=(inner, rows), strides=left.strides if rows > 1 else (inner,))
    return None if misfit(found) else found


def tiles_for(device: Any, file: str, m: int, n: int, k: int) -> tuple[Tile, ...]:
    """Tiles of a kernel file with which a product can be computed on a device."""
    if device.capability != CAPABILITY:
        return ()
    return tuple(tile for tile in TILES[file] if fits(tile, m, n, k))


def _start(device: Any, entry: str, tile: Tile, x: Matrix, w: Matrix, *values: Any) -> None:
    """Launches a product of X and W; ``values`` are the parameters between their maps and the shape."""
    (k, m), n = x.extents, w.extents[1]
    blocks, shape = walk(tile, m, n, k, device.processors)
    maps = tensor_map(x, tile.rows), tensor_map(w, tile.columns)
    start(device, entry, (blocks, 1), tile.threads, *maps[0], *maps[1], *values, *shape)


def plain(device: Any, tile: Tile, x: Matrix, w: Matrix, out: Matrix) -> None:
    """``X W^T`` [M, N] in bfloat16."""
    file = "product" if x.itemsize == 2 else "product_fp8"
    _start(device, f"{file}_{tile.name}_plain", tile, x, w, *tensor_map(out, _SLAB))


def gelu(device: Any, tile: Tile, x: Matrix, w: Matrix, out: Matrix, bias: int) -> None:
    """``GELU(X W^T + b)`` [M, N] in bfloat16."""
    _start(device, f"product_{tile.name}_gelu", tile, x, w, bias, out.address, out.strides[0] // out.itemsize)


def gated(device: Any, tile: Tile, x: Matrix, w: Matrix, residual: Matrix, out: Matrix, gate: int, bias: int) -> None:
    """``residual + gate (X W^T + b)`` [M, N] in bfloat16."""
    maps = *tensor_map(residual, tile.rows), *tensor_map(out, _SLAB)
    _start(device, f"product_{tile.name}_gated", tile, x, w, *maps, gate, bias)


class HeadsStream(NamedTuple):
    """Tokens of one stream: matrices, first token, addresses.

    ``places`` are the addresses of bias, norms of Q and K, and cos and sin at the first token. ``scales``, in e4m3, are
    the addresses of the scales by row and by column, and of upper bounds of the lengths of X's rows; and the stride of
    what belongs to rows.
    """

    x: Matrix
    weight: Matrix
    start: int
    places: tuple[int, ...]
    scales: tuple[int, int, int, int] = (0, 0, 0, 0)


def _start_heads(device: Any, file: str, tile: Tile, streams: Sequence[HeadsStream], *values: Any) -> None:
    """Launches one stream or two, the longer one first."""
    first, second = streams[0], streams[-1]
    (k, m), n = first.x.extents, first.weight.extents[1]
    other = second.x.extents[1] if len(streams) > 1 else 0
    blocks, shape = walk(tile, m, n, k, device.processors, other)
    maps = [
        map_ for one in (first, second) for map_ in (tensor_map(one.x, tile.rows), tensor_map(one.weight, tile.columns))
    ]
    of = [(*one.places, one.start, n // 3, 1e-6) for one in (first, second)]
    flat = [word for part in (*maps, *of) for word in part]
    start(device, f"{file}_{tile.name}", (blocks, 1), tile.threads, *flat, *values, *shape)


def longest_first(streams: Sequence[HeadsStream]) -> list[HeadsStream]:
    """The streams, the longest first: tiles of the shorter one then fill the rest of the last wave."""
    return sorted(streams, key=lambda stream: -stream.x.extents[1])


def heads(device: Any, tile: Tile, streams: Sequence[HeadsStream], out: int, tokens: int) -> None:
    """``qkv_heads`` of ``X W^T`` for one stream or two of the same N and K.

    Args:
        device: the CUDA device.
        tile: of 256 columns.
        streams: tokens and projections [3 H 128, K].
        out: address of the planes [3 H, tokens, 128].
        tokens: of all streams.
    """
    _start_heads(device, "product_heads", tile, longest_first(streams), out, tokens)


def scaled_heads(device: Any, tile: Tile, streams: Sequence[HeadsStream], places: tuple[int, ...], tokens: int) -> None:
    """``qkv_heads`` of e4m3 operands, for one stream or two, into e4m3.

    Args:
        device: the CUDA device.
        tile: of 256 columns.
        streams: e4m3 tokens and projections, with their scales.
        places: addresses of q, k and v; of five results: their scales, that of V's largest value, and V's divided by
            it; and of two words that are zero between launches (`Gpu.tally`).
        tokens: of all streams.
    """
    ordered = longest_first(streams)
    values = *ordered[0].scales, *ordered[-1].scales, *places, tokens, reach(ordered[0].x.extents[0])
    _start_heads(device, "product_heads_fp8", tile, ordered, *values)


def scaled_gated(
    device: Any,
    tile: Tile,
    x: Matrix,
    w: Matrix,
    residual: Matrix,
    out: Matrix,
    places: tuple[int, ...],
    stride: int,
    ahead: tuple[int, ...] = (),
) -> None:
    """``residual + gate (X W^T rows columns + b)`` of e4m3 operands.

    Args:
        device: the CUDA device.
        tile: its size.
        x: e4m3 tokens [M, K].
        w: e4m3 weight [N, K].
        residual: [M, N] in bfloat16.
        out: [M, N] in bfloat16.
        places: addresses of scales by row and by column, of gate and bias.
        stride: of the scales by row, in elements.
        ahead: address and stride of scales by row for a first part of K, and its size, a multiple of 128.
    """
    maps = *tensor_map(residual, tile.rows), *tensor_map(out, _SLAB)
    ending, values = "gated", [stride]
    if ahead:
        address, ahead_stride, inner = ahead
        ending, values = "halves", [address, stride, ahead_stride, inner // ROW_BYTES]
    _start(device, f"product_fp8_{tile.name}_{ending}", tile, x, w, *maps, *places, *values)


def scaled_gelu(
    device: Any, tile: Tile, x: Matrix, w: Matrix, places: tuple[int, ...], stride: int, reach: float
) -> None:
    """``GELU(X W^T rows columns + b)`` of e4m3 operands, into e4m3 with a scale per row.

    Args:
        device: the CUDA device.
        tile: its size.
        x: e4m3 tokens [M, K].
        w: e4m3 weight [N, K].
        places: addresses of scales by row and by column, upper bounds of the lengths of X's rows, bias, data and scales
            of the result.
        stride: of the result's rows, in bytes.
        reach: upper bound of the length of a row of W, in units of its scale.
    """
    _start(device, f"product_fp8_{tile.name}_gelu", tile, x, w, *places, stride, reach)
