"""QKV products that were deferred to `qkv_heads`. They run with `qkv_heads` as their epilogue where that is quicker.

This file registers no implementation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fluxperf.engine.device.gpu import E4M3
from fluxperf.engine.ops.cuda import products
from fluxperf.engine.ops.cuda.finished import version
from fluxperf.engine.ops.cuda.products import HeadsStream
from fluxperf.engine.ops.cuda.tiles import CAPABILITY, Tile
from fluxperf.engine.ops.table import Quantized

#: Head dimension that the kernels support, and their alignment in bytes.
_DIM, _UNIT = 128, 16

Run = Callable[[], Any]


def beside(device: Any, work: list[Run]) -> tuple[Any, ...]:
    """Results of work on one or two streams of tokens.

    Single work is not forked off, as it may already run on a second stream.
    """
    results: tuple[Any, ...] = device.beside(*work) if len(work) > 1 else (work[0](),)
    return results


def plain(
    device: Any, qkvs: Any, biases: Any, q_norms: Any, k_norms: Any, cos: Any, sin: Any, heads: int, library: Run
) -> Any:
    """Q, K, V [1, H, L, 128] in bfloat16 from one or two products ``x W^T``, by cuBLASLt or this project's kernels."""
    streams = _streams(device, qkvs, (biases, q_norms, k_norms), (cos, sin), heads)
    if streams is None:
        return library()
    tokens = sum(qkv.shape[1] for qkv in qkvs)

    def own(tile: Tile) -> Any:
        out = device.empty((3, 1, heads, tokens, _DIM), "bfloat16")
        products.heads(device, tile, streams, out.data.ptr, tokens)
        return out[0], out[1], out[2]

    return _quickest(device, "product_heads", streams, own, library)


def scaled(
    device: Any, qkvs: Any, biases: Any, q_norms: Any, k_norms: Any, cos: Any, sin: Any, heads: int, library: Run
) -> Any:
    """Q, K, V [1, H, L, 128] in e4m3 with one scale each, from e4m3 products.

    The library's V has the scale of its largest value; this project's kernel uses an upper bound, and finds the scale
    of the largest value for V's means. Operands without `Quantized.lengths` have no bound: the library takes them.
    """
    numbers = [qkv._replace(x=qkv.x.data, weight=qkv.weight.data) for qkv in qkvs]
    streams = _streams(device, numbers, (biases, q_norms, k_norms), (cos, sin), heads)
    if streams is None or not all(_bounded(qkv.x) and qkv.weight.scale.data.ptr % _UNIT == 0 for qkv in qkvs):
        return library()
    tokens = sum(qkv.shape[1] for qkv in qkvs)
    streams = [stream._replace(scales=_scales(*qkv)) for stream, qkv in zip(streams, qkvs, strict=True)]

    def own(tile: Tile) -> Any:
        shape = (1, heads, tokens, _DIM)
        q, k, v = (device.empty(shape, E4M3) for _ in range(3))
        powers = device.empty((5,), "float32")
        places = *(part.data.ptr for part in (q, k, v, powers)), device.tally
        products.scaled_heads(device, tile, streams, places, tokens)
        parts = (powers[index : index + 1].reshape(1, 1, 1, 1) for index in range(3))
        first, second, third = (Quantized(x, scale) for x, scale in zip((q, k, v), parts, strict=True))
        return first, second, third._replace(means=powers[3:])

    return _quickest(device, "product_heads_fp8", streams, own, library)


def _bounded(x: Quantized) -> bool:
    """Whether the lengths of an operand's rows are known, and lie as their scales do."""
    scale: Any = x.scale
    lengths: Any = x.lengths
    return lengths is not None and lengths.shape == scale.shape and lengths.strides == scale.strides


def _scales(x: Any, weight: Any) -> tuple[int, int, int, int]:
    """Addresses and stride, as `HeadsStream.scales` has them."""
    rows, columns, lengths = x.scale, weight.scale, x.lengths
    return rows.data.ptr, columns.data.ptr, lengths.data.ptr, rows.strides[1] // rows.itemsize


def _places(cos: Any, sin: Any, start: int) -> tuple[int, int]:
    """Addresses of cos and sin at a token."""
    return cos.data.ptr + start * cos.strides[0], sin.data.ptr + start * sin.strides[0]


def _streams(
    device: Any, qkvs: Any, vectors: tuple[Any, Any, Any], tables: tuple[Any, Any], heads: int
) -> list[HeadsStream] | None:
    """Streams in the form that the kernels take; ``None`` if they do not fit, and the library must take them."""
    if device.capability != CAPABILITY or {len(qkvs), *map(len, vectors)} not in ({1}, {2}):
        return None
    found: list[HeadsStream] = []
    start, width = 0, heads * _DIM
    for qkv, bias, q_norm, k_norm in zip(qkvs, *vectors, strict=True):
        x, weight = products.matrix(qkv.x), products.matrix(qkv.weight)
        if x is None or weight is None or len(qkv.shape) != 3 or qkv.shape[-1] != 3 * width:
            return None
        shapes = [tuple(part.shape) for part in (bias, q_norm, k_norm)]
        even = all(str(part.dtype) == "bfloat16" and part.data.ptr % _UNIT == 0 for part in (bias, q_norm, k_norm))
        if shapes != [(3 * width,), (_DIM,), (_DIM,)] or not even or {str(qkv.x.dtype)} - {"bfloat16", "uint8"}:
            return None
        places = bias.data.ptr, q_norm.data.ptr, k_norm.data.ptr, *_places(*tables, start)
        found.append(HeadsStream(x, weight, start, places))
        if x.extents[0] != found[0].x.extents[0]:  # one launch has a single K
            return None
        start += qkv.shape[1]
    for table in tables:
        rows = table.data.ptr % _UNIT == 0 and table.strides == (_DIM * table.itemsize, table.itemsize)
        if table.shape != (start, _DIM) or str(table.dtype) != "float32" or not rows:
            return None
    return found


def _quickest(device: Any, file: str, streams: list[HeadsStream], own: Callable[[Tile], Any], library: Run) -> Any:
    """The result of the quicker implementation."""
    shapes = [(stream.x.extents[1], stream.weight.extents[1], stream.x.extents[0]) for stream in streams]
    common = set(products.tiles_for(device, file, *shapes[0]))
    tiles = [tile for tile in products.tiles_for(device, file, *shapes[-1]) if tile in common]
    ways: dict[str, Run] = {"library": library}
    ways |= {f"tiles of {tile.name}": partial(own, tile) for tile in tiles}
    rows = " + ".join(str(m) for m, _, _ in shapes)
    numbers = "float8_e4m3fn" if streams[0].x.itemsize == 1 else "bfloat16"
    what = f"qkv_heads {rows} x {shapes[0][1]} x {shapes[0][2]} {numbers}"
    return device.ways.run(what, ways, version(file))
