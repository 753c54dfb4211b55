"""Ops that consist of a product and its epilogue, by this project's own kernels where they take less time.

On Hopper each shape is computed both ways when it first occurs, and the quicker implementation is kept
(`choices.Ways`). On other GPUs, and for shapes that the kernels do not support, the library computes it. This file
registers no implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from fluxperf.engine.device.host import host_dtype
from fluxperf.engine.nvrtc.sources import read_source
from fluxperf.engine.ops.cuda import products
from fluxperf.engine.ops.cuda.tiles import CAPABILITY, Tile
from fluxperf.engine.ops.table import Halves, Quantized

#: Alignment in bytes of vectors: a thread reads two bfloat16 values, or 16 bytes.
_PAIR, _QUAD = 4, 16

Run = Callable[[], Any]
Runs = Mapping[str, Run]


def gelu(device: Any, x: Any, weight: Any, bias: Any, out: Any, library: Run) -> Any:
    """``GELU(x W^T + b)`` into ``out`` [.., N], by the library or by one of this project's kernels."""
    if not _fit(device, (x, weight, bias, out), bias.shape == (weight.shape[0],), (bias,), _QUAD):
        return library()
    parts = [[products.matrix(part) for part in pair] for pair in _samples(x, out)]
    return _quickest(
        device, "linear_gelu", "product", weight, parts, library, out,
        lambda tile, source, w, target: products.gelu(device, tile, source, w, target, bias.data.ptr),
    )  # fmt: skip


def gated(device: Any, x: Any, gate: Any, y: Any, weight: Any, bias: Any, library: Run) -> Any:
    """``x + gate (y W^T + b)`` [B, L, D], all in bfloat16, by the library or by one of this project's kernels."""
    if not _fit(device, (x, gate, y, weight, bias), _gates(x, gate, y, weight, bias), (gate, bias), _PAIR):
        return library()
    out = device.empty(x.shape, "bfloat16")
    gates = [gate[index].data.ptr for index in range(len(gate))]
    parts = [
        [*(products.matrix(part) for part in sample), place]
        for sample, place in zip(_samples(y, x, out), gates, strict=True)
    ]
    return _quickest(
        device, "linear_gated_residual", "product", weight, parts, library, out,
        lambda tile, source, w, residual, target, by: products.gated(
            device, tile, source, w, residual, target, by, bias.data.ptr
        ),
    )  # fmt: skip


def scaled_gated(
    device: Any, x: Any, gate: Any, y: Quantized | Halves, weight: Quantized, bias: Any, library: Run, in_trials: Runs
) -> Any:
    """``x + gate (y W^T rows columns + b)`` [B, L, D]: as `gated`, from e4m3 operands with scales.

    ``in_trials`` has what trials run in place of a way that changes y.
    """
    numbers: Any = weight.data
    even = _fit(device, (x, gate, bias), _gates(x, gate, y, weight, bias), (gate, bias, weight.scale), _PAIR)
    if not even or weight.scale.data.ptr % _QUAD:  # type: ignore[attr-defined]
        return library()
    out = device.empty(x.shape, "bfloat16")
    parts: list[list[Any]] = []
    halves, op = (y, "linear_gated_residual of halves") if isinstance(y, Halves) else ((y,), "linear_gated_residual")
    for index, (residual, target) in enumerate(_samples(x, out)):
        source = products.side_by_side(*(half.data[index] for half in halves))
        *ahead, (rows, stride) = (_vector(half.scale[index]) for half in halves)
        turn = (*ahead[0], halves[0].shape[-1]) if ahead else ()
        places = rows, gate[index].data.ptr
        parts.append([source, *map(products.matrix, (residual, target)), places, stride, turn])
    columns: Any = weight.scale

    def run(tile: Tile, source: Any, w: Any, residual: Any, target: Any, places: Any, stride: int, turn: Any) -> None:
        rows, by = places
        addresses = rows, columns.data.ptr, by, bias.data.ptr
        products.scaled_gated(device, tile, source, w, residual, target, addresses, stride, turn)

    return _quickest(device, op, "product_fp8", numbers, parts, library, out, run, in_trials)


def scaled_gelu(device: Any, x: Quantized, weight: Quantized, bias: Any, out: Any, library: Run) -> Any:
    """``GELU(x W^T rows columns + b)`` into e4m3 ``out`` [B, L, N].

    The library's result has the smallest possible scale per row; this project's kernels use an upper bound.
    """
    source_numbers: Any = x.data
    numbers, columns, lengths = weight.data, weight.scale, x.lengths
    if lengths is None:
        return library()
    vectors = bias, columns
    shapes = bias.shape == (weight.shape[0],) and source_numbers.ndim == out.ndim == 3
    if not _fit(device, (bias,), shapes, vectors, _QUAD) or out.strides[-1] != 1 or out.strides[1] % _QUAD:
        return library()
    powers = device.empty((*x.shape[:-1], 1), "float32")
    reach = products.reach(weight.shape[1])
    parts: list[list[Any]] = []
    for source, *rest in _samples(x.data, x.scale, lengths, out, powers):
        if any(part.strides[0] != part.itemsize and part.shape[0] > 1 for part in (*rest[:2], rest[3])):
            return library()
        if rest[2].data.ptr % _QUAD:
            return library()
        parts.append([products.matrix(source), tuple(part.data.ptr for part in rest)])

    def run(tile: Tile, source: Any, w: Any, places: Any) -> None:
        rows, bounds, target, scales = places
        addresses = rows, columns.data.ptr, bounds, bias.data.ptr, target, scales  # type: ignore[attr-defined]
        products.scaled_gelu(device, tile, source, w, addresses, out.strides[1], reach)

    return _quickest(device, "linear_gelu", "product_fp8", numbers, parts, library, Quantized(out, powers), run)


def _vector(x: Any) -> tuple[int, int]:
    """Address of a vector [L, 1], and its stride in elements."""
    return x.data.ptr, x.strides[0] // x.itemsize


def _gates(x: Any, gate: Any, y: Any, weight: Any, bias: Any) -> bool:
    """Whether the shapes are those of a gated residual. Others go to the library, which reports them."""
    outputs, inputs = weight.shape
    leading = tuple(x.shape[:-1])
    return (
        len(x.shape) == 3
        and tuple(x.shape) == (*leading, outputs)
        and tuple(y.shape) == (*leading, inputs)
        and (tuple(gate.shape), tuple(bias.shape)) == ((leading[0], outputs), (outputs,))
    )


def _fit(device: Any, arrays: Sequence[Any], shapes: bool, vectors: Sequence[Any], alignment: int) -> bool:
    """Whether this project's kernels support these bfloat16 arrays and the alignment of these vectors."""
    return (
        device.capability == CAPABILITY
        and shapes
        and all(x.dtype == host_dtype("bfloat16") for x in arrays)
        and all(x.data.ptr % alignment == 0 and (x.ndim < 2 or x.strides[-1] == x.itemsize) for x in vectors)
    )


def _samples(*arrays: Any) -> list[tuple[Any, ...]]:
    """The samples of each array [B, L, ..]; an array without a batch is one sample."""
    return list(zip(*arrays, strict=True)) if arrays[0].ndim > 2 else [arrays]


def _quickest(
    device: Any,
    op: str,
    file: str,
    weight: Any,
    parts: list[list[Any]],
    library: Run,
    out: Any,
    run: Any,
    in_trials: Runs | None = None,
) -> Any:
    """The result of the quicker implementation: the library's, or one of this project's tiles for all samples.

    Args:
        device: the CUDA device.
        op: for the name of the choice.
        file: of this project's kernels.
        weight: [N, K].
        parts: for each sample the arguments of ``run`` after the tile and the weight's matrix; the matrix of x comes
            first.
        library: returns the result.
        out: the result that ``run`` fills.
        run: launches one sample.
        in_trials: as `choices.Ways.run` takes it.
    """
    w = products.matrix(weight)
    if w is None or any(part is None for sample in parts for part in sample) or not parts:
        return library()
    m, (k, n) = parts[0][0].extents[1], w.extents
    if parts[0][0].extents[0] != k:
        return library()

    def own(tile: Tile) -> Any:
        for first, *rest in parts:
            run(tile, first, w, *rest)
        return out

    ways: dict[str, Run] = {"library": library}
    ways |= {f"tiles of {tile.name}": partial(own, tile) for tile in products.tiles_for(device, file, m, n, k)}
    samples = f" x {len(parts)} samples" if len(parts) > 1 else ""
    what = f"{op} {m} x {n} x {k} {_numbers(w.itemsize)}{samples}"
    return device.ways.run(what, ways, version(file), in_trials or {})


def _numbers(itemsize: int) -> str:
    return {1: "float8_e4m3fn", 2: "bfloat16"}[itemsize]


@lru_cache(maxsize=8)
def version(file: str) -> str:
    """Version of these kernels: the first digits of their sources' digest."""
    return read_source(f"{file}.cu").digest[:12]
