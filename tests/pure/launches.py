"""Simulates the index arithmetic of kernels from a plan, block by block and thread by thread.

Each function has the index arithmetic of one family of kernels, with the kernel's names; its arguments are the kernel's
parameters. A plan that omits an element, writes it twice, or reads from a wrong place is found without a GPU.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt

from fluxperf.engine.ops.cuda.arrays import Layout
from fluxperf.engine.ops.cuda.plans import Plan

Numbers = npt.NDArray[np.int64]

F32, BF16, E4M3 = np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16), np.dtype(ml_dtypes.float8_e4m3fn)


class Visits(NamedTuple):
    """Indices of written elements in the flat result; and for each, where its operands are read."""

    written: Numbers
    read: tuple[Numbers, ...]


def width_of(plan: Plan) -> int:
    """Elements per access of the version."""
    found = re.search(r"_w(\d+)", plan.entry)
    assert found, plan.entry
    return int(found[1])


def offsets(x: Layout) -> Numbers:
    """Offset of each element of an array from the first one, in elements, in the order of indices."""
    places = np.zeros((1,) * len(x.shape), np.int64)
    for axis, (extent, stride) in enumerate(zip(x.shape, x.strides, strict=True)):
        along = np.arange(extent, dtype=np.int64) * (stride // np.dtype(x.dtype).itemsize)
        places = places + along.reshape([-1 if other == axis else 1 for other in range(len(x.shape))])
    return np.broadcast_to(places, x.shape).reshape(-1)


def row_offset(row: Numbers, extents: Sequence[int], strides: Sequence[int]) -> Numbers:
    """common/rows.cuh."""
    offset = np.zeros_like(row)
    for axis in (3, 2, 1):
        if extents[axis] > 1:
            offset += row % extents[axis] * strides[axis]
            row = row // extents[axis]
    return offset + row * strides[0]


def blocks_of(plan: Plan) -> tuple[Numbers, Numbers, Numbers]:
    """blockIdx.x, blockIdx.y and threadIdx.x of every thread."""
    x, y = plan.grid
    found = np.meshgrid(np.arange(x), np.arange(y), np.arange(plan.threads), indexing="ij")
    first, second, third = (axis.reshape(-1).astype(np.int64) for axis in found)
    return first, second, third


def spread(starts: Numbers, w: int) -> Numbers:
    """The elements of packs that begin at the given offsets."""
    return (starts[:, None] + np.arange(w)).reshape(-1)


def by_token(plan: Plan, rows: int, operands: Sequence[tuple[int, int]], tokens: int, packs: int, tiles: int) -> Visits:
    """modulate.cu, gated_residual.cu: ``operands`` are strides of sample and token; a vector has token stride 0."""
    x, sample, thread = blocks_of(plan)
    w = width_of(plan)
    group, tile = x // tiles, x % tiles
    pack = tile * plan.threads + thread
    written, read = [], [[] for _ in operands]
    for r in range(rows):
        token = group * rows + r
        here = (pack < packs) & (token < tokens)
        written.append((((sample * tokens + token) * packs + pack) * w)[here])
        for places, (by_sample, along) in zip(read, operands, strict=True):
            places.append((sample * by_sample + token * along + pack * w)[here])
    return Visits(spread(np.concatenate(written), w), tuple(spread(np.concatenate(places), w) for places in read))


def by_row(plan: Plan, rows_per_block: int, held: int | None, tail: Sequence[int]) -> Visits:
    """layer_norm.cu, softmax.cu, quantize_rows.cu, rms_norm.cu: rows of packs, each shared by threads of a block.

    ``held`` is the number of packs that a thread has registers for; ``None`` if it loops until the end of the row.
    """
    extents, strides, (rows, packs) = tail[:4], tail[4:8], tail[8:10]
    if not plan.grid[0]:
        return Visits(np.zeros(0, np.int64), (np.zeros(0, np.int64),))
    x, _, thread = blocks_of(plan)
    w = 4 if plan.entry.endswith("w4_held") else width_of(plan)
    lanes = plan.threads // rows_per_block
    row, lane = x * rows_per_block + thread // lanes, thread % lanes
    written, read = [], []
    for k in range(held or max(-(-packs // lanes), 1)):
        pack = lane + k * lanes
        here = (row < rows) & (pack < packs)
        written.append(((row * packs + pack) * w)[here])
        read.append((row_offset(row, extents, strides) + pack * w)[here])
    return Visits(spread(np.concatenate(written), w), (spread(np.concatenate(read), w),))


def tokens_in_turns(plan: Plan, per_block: int, lanes: int, held: int | None, tail: Sequence[int]) -> Visits:
    """norm_modulate*.cu, gelu_fp8.cu, join_features_fp8.cu: tokens by blocks, with a grid-stride loop.

    ``tail`` are strides of sample and token, number of tokens, and packs.
    """
    by_sample, along, tokens, packs = tail
    x, sample, thread = blocks_of(plan)
    w, lane = width_of(plan), thread % lanes
    written, read = [], []
    first = x * per_block + thread // lanes
    step = plan.grid[0] if per_block == 1 else max(tokens, 1)
    for turn in range(-(-tokens // max(step, 1)) if plan.grid[0] else 0):
        token = first + turn * step
        for k in range(held or max(-(-packs // lanes), 1)):
            pack = lane + k * lanes
            here = (token < tokens) & (pack < packs)
            written.append((((sample * tokens + token) * packs + pack) * w)[here])
            read.append((sample * by_sample + token * along + pack * w)[here])
    if not written:
        return Visits(np.zeros(0, np.int64), (np.zeros(0, np.int64),))
    return Visits(spread(np.concatenate(written), w), (spread(np.concatenate(read), w),))


def rows_by_warps(plan: Plan, warps: int, tail: Sequence[int]) -> Visits:
    """common/norm_rows.cuh: warp w of block b takes token b + w blocks, then those a grid of warps further on."""
    by_sample, along, tokens, packs = tail
    x, sample, thread = blocks_of(plan)
    lane, written, read = thread % 32, [], []
    for turn in range(-(-tokens // max(plan.grid[0] * warps, 1))):
        token = x + plan.grid[0] * (thread // 32 + warps * turn)
        for k in range(packs // 32):
            pack, here = lane + 32 * k, token < tokens
            written.append((((sample * tokens + token) * packs + pack) * 8)[here])
            read.append((sample * by_sample + token * along + pack * 8)[here])
    if not written:
        return Visits(np.zeros(0, np.int64), (np.zeros(0, np.int64),))
    return Visits(spread(np.concatenate(written), 8), (spread(np.concatenate(read), 8),))


def mapped(plan: Plan, operands: int, steps: Sequence[int] | None = None) -> Visits:
    """common/map.cuh: rows of packs in tiles of four packs per thread."""
    extents, flat = plan.tail[:4], plan.tail[4 : 4 + 4 * operands]
    packs, tiles = plan.tail[4 + 4 * operands : 6 + 4 * operands]
    w = 1 if plan.entry.endswith("_any") else width_of(plan)
    x, _, thread = blocks_of(plan)
    row, tile = x // tiles, x % tiles
    written, read = [], [[] for _ in range(operands)]
    for k in range(4):
        pack = tile * (128 * 4) + thread + k * 128
        here = pack < packs
        written.append(((row * packs + pack) * w)[here])
        for index, places in enumerate(read):
            start = row_offset(row, extents, flat[4 * index : 4 * index + 4])
            places.append((start + pack * w * (steps[index] if steps else 1))[here])
    return Visits(spread(np.concatenate(written), w), tuple(spread(np.concatenate(places), w) for places in read))


def box(parameters: Sequence[int], blocks: int) -> Iterator[tuple[int, int]]:
    """common/boxes.cuh: pairs of words (source, destination), from the parameters after the two addresses."""
    f0, f1, f2, t0, t1, t2, rows, n1, n2, columns, lanes, tiles = parameters
    for block in range(blocks):
        for thread in range(256):
            if tiles == 0:
                next_row, next_column = 256 // lanes, 0
                row, column = block * 4 * next_row + thread // lanes, thread & (lanes - 1)
            else:
                row = block // tiles
                column, next_row, next_column = (block - row * tiles) * 1024 + thread, 0, 256
            for k in range(4):
                r, c = row + k * next_row, column + k * next_column
                if r < rows and c < columns:
                    upper, i2 = divmod(r, n2)
                    i0, i1 = divmod(upper, n1)
                    yield i0 * f0 + i1 * f1 + i2 * f2 + c, i0 * t0 + i1 * t1 + i2 * t2 + c


def every(**axes: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Runs all combinations in one test: there are hundreds, and each takes less time than a test's overhead."""

    def decorated(test: Callable[..., None]) -> Callable[[], None]:
        def run() -> None:
            for values in itertools.product(*axes.values()):
                case = dict(zip(axes, values, strict=True))
                try:
                    test(**case)
                except Exception as error:
                    error.add_note(f"with {case}")
                    raise

        run.__doc__ = test.__doc__
        return run

    return decorated


def dense(shape: Sequence[int], dtype: np.dtype = F32) -> Layout:
    strides = [dtype.itemsize]
    for extent in reversed(shape[1:]):
        strides.insert(0, strides[0] * max(extent, 1))
    return Layout(tuple(shape), tuple(strides[: len(shape)]), dtype)


def view(shape: Sequence[int], dtype: np.dtype = F32, gap: int = 8) -> Layout:
    """Part of a wider array: rows are ``gap`` elements apart, and samples further apart than their rows need."""
    *leading, width = shape
    strides, behind = [dtype.itemsize], (width + gap) * dtype.itemsize
    for extent in reversed(leading):
        strides.insert(0, behind)
        behind = behind * max(extent, 1) + 16 * dtype.itemsize
    return Layout(tuple(shape), tuple(strides), dtype)
