"""QKV products that were left to `qkv_heads`, which finishes them in their epilogue where that is quicker.

Registers nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from fluxperf.engine.device.gpu import E4M3
from fluxperf.engine.device.tensormaps import Matrix
from fluxperf.engine.ops.cuda import products
from fluxperf.engine.ops.cuda.finished import version
from fluxperf.engine.ops.cuda.tiles import CAPABILITY, Tile
from fluxperf.engine.ops.table import Quantized

#: Width of a head that the kernels take, and bytes that their addresses are multiples of.
_DIM, _UNIT = 128, 16

Run = Callable[[], Any]


class _Stream(NamedTuple):
    """Tokens of one stream as a kernel takes them: matrices, addresses of bias and norms, and where they begin."""

    x: Matrix
    weight: Matrix
    places: tuple[int, int, int]
    start: int


def beside(device: Any, work: list[Run]) -> tuple[Any, ...]:
    """Results of work on one or two streams of tokens; one is not forked off, as it may be beside other work itself."""
    results: tuple[Any, ...] = device.beside(*work) if len(work) > 1 else (work[0](),)
    return results


def plain(
    device: Any, qkvs: Any, biases: Any, q_norms: Any, k_norms: Any, cos: Any, sin: Any, heads: int, library: Run
) -> Any:
    """q, k, v [1, H, L, 128] in bfloat16 of one or two products ``x W^T``, by the library or in our tiles."""
    streams = _streams(device, qkvs, (biases, q_norms, k_norms), (cos, sin), heads)
    if streams is None:
        return library()
    tokens = sum(qkv.shape[1] for qkv in qkvs)

    def own(tile: Tile) -> Any:
        out = device.empty((3, 1, heads, tokens, _DIM), "bfloat16")

        def one(stream: _Stream) -> None:
            place = out.data.ptr + 2 * _DIM * stream.start
            tables = _tables(cos, sin, stream.start)
            strides = cos.strides[0] // 4, sin.strides[0] // 4
            products.heads(device, tile, stream.x, stream.weight, (*stream.places, *tables), strides, (place, tokens))

        beside(device, [partial(one, stream) for stream in streams])
        return out[0], out[1], out[2]

    return _quickest(device, "product_heads", streams, own, library)


def scaled(
    device: Any, qkvs: Any, biases: Any, q_norms: Any, k_norms: Any, cos: Any, sin: Any, heads: int, library: Run
) -> Any:
    """The same of numbers in e4m3, into e4m3 with one scale each; V's is that of its largest number."""
    numbers = [qkv._replace(x=qkv.x.data, weight=qkv.weight.data) for qkv in qkvs]
    streams = _streams(device, numbers, (biases, q_norms, k_norms), (cos, sin), heads)
    if streams is None or any(qkv.weight.scale.data.ptr % _UNIT for qkv in qkvs):
        return library()
    tokens = sum(qkv.shape[1] for qkv in qkvs)
    norms = [[norm.data.ptr for norm in (both[0], both[-1])] for both in (q_norms, k_norms)]

    def own(tile: Tile) -> Any:
        shape = (1, heads, tokens, _DIM)
        q, k, v = (device.empty(shape, E4M3) for _ in range(3))
        wide, powers = device.empty(shape, "bfloat16"), device.empty((3,), "float32")
        most = products.PEAKS * device.processors
        peaks = device.empty((most * len(streams),), "float32")
        counts: list[int] = []

        def one(index: int, stream: _Stream) -> int:
            scales, columns = qkvs[index].x.scale, qkvs[index].weight.scale
            held = peaks.data.ptr + 4 * sum(counts)
            others = tuple(pair[1 - index] for pair in norms)
            results = q.data.ptr, k.data.ptr, wide.data.ptr, held
            rest = tokens, stream.start, scales.strides[1] // 4
            places = *stream.places, *_tables(cos, sin, stream.start)
            strides = cos.strides[0] // 4, sin.strides[0] // 4
            return products.scaled_heads(
                device, tile, stream.x, stream.weight, places, strides,
                (scales.data.ptr, columns.data.ptr, *others, *results, *rest),
            )  # fmt: skip

        def counted(index: int, stream: _Stream) -> None:
            counts.append(one(index, stream))

        beside(device, [partial(counted, *pair) for pair in enumerate(streams)])
        places = wide.data.ptr, v.data.ptr, peaks.data.ptr, *norms[0], *norms[1], powers.data.ptr
        products.quantize_values(device, places, wide.size, sum(counts), _DIM)
        parts = (powers[index : index + 1].reshape(1, 1, 1, 1) for index in range(3))
        return tuple(Quantized(x, scale) for x, scale in zip((q, k, v), parts, strict=True))

    return _quickest(device, "product_heads_fp8", streams, own, library)


def _tables(cos: Any, sin: Any, start: int) -> tuple[int, int]:
    """Addresses of both tables at a token."""
    return cos.data.ptr + start * cos.strides[0], sin.data.ptr + start * sin.strides[0]


def _streams(
    device: Any, qkvs: Any, vectors: tuple[Any, Any, Any], tables: tuple[Any, Any], heads: int
) -> list[_Stream] | None:
    """Streams as the kernels take them, or ``None``: everything else is the library's, and its errors."""
    if device.capability != CAPABILITY or {len(qkvs), *map(len, vectors)} not in ({1}, {2}):
        return None
    found: list[_Stream] = []
    start, width = 0, heads * _DIM
    for qkv, bias, q_norm, k_norm in zip(qkvs, *vectors, strict=True):
        x, weight = products.matrix(qkv.x), products.matrix(qkv.weight)
        if x is None or weight is None or len(qkv.shape) != 3 or qkv.shape[-1] != 3 * width:
            return None
        shapes = [tuple(part.shape) for part in (bias, q_norm, k_norm)]
        even = all(str(part.dtype) == "bfloat16" and part.data.ptr % _UNIT == 0 for part in (bias, q_norm, k_norm))
        if shapes != [(3 * width,), (_DIM,), (_DIM,)] or not even or {str(qkv.x.dtype)} - {"bfloat16", "uint8"}:
            return None
        found.append(_Stream(x, weight, (bias.data.ptr, q_norm.data.ptr, k_norm.data.ptr), start))
        start += qkv.shape[1]
    for table in tables:
        rows = table.data.ptr % _UNIT == 0 and table.strides[0] % _UNIT == 0 and table.strides[1] == table.itemsize
        if table.shape != (start, _DIM) or str(table.dtype) != "float32" or not rows:
            return None
    return found


def _quickest(device: Any, file: str, streams: list[_Stream], own: Callable[[Tile], Any], library: Run) -> Any:
    """The result of the quicker way."""
    shapes = [(stream.x.extents[1], stream.weight.extents[1], stream.x.extents[0]) for stream in streams]
    common = set(products.tiles_for(device, file, *shapes[0]))
    tiles = [tile for tile in products.tiles_for(device, file, *shapes[-1]) if tile in common]
    ways: dict[str, Run] = {"library": library}
    ways |= {f"tiles of {tile.name}": partial(own, tile) for tile in tiles}
    rows = " + ".join(str(m) for m, _, _ in shapes)
    numbers = "float8_e4m3fn" if streams[0].x.itemsize == 1 else "bfloat16"
    what = f"qkv_heads {rows} x {shapes[0][1]} x {shapes[0][2]} {numbers}"
    return device.ways.run(what, ways, version(file))
