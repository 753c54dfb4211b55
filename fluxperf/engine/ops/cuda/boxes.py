"""Launches that only move data: they copy one or two boxes between strided places, in the widest possible words."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from fluxperf.engine.ops.cuda.arrays import (
    Layout,
    address,
    described,
    element,
    grid,
    merged,
    mismatch,
    power_of_two,
    steps,
)
from fluxperf.engine.ops.cuda.entries import start
from fluxperf.errors import ArgumentError

#: Threads of a block, and words that each one has in flight. The kernels have the same constants; a test compares them.
_THREADS = 256  # COPY_THREADS: common/boxes.cuh
_WORDS = 4  # COPY_WORDS: common/boxes.cuh
#: An empty box.
_NOTHING = (0,) * 6 + (0, 1, 1, 0, 1, 0)


class Part(NamedTuple):
    """A box to copy: its extents, and the strides in bytes of source and destination."""

    shape: tuple[int, ...]
    source: tuple[int, ...]
    target: tuple[int, ...]


class Copies(NamedTuple):
    """A planned launch: parameters of each box after its two addresses, and the number of blocks of the first box."""

    word: int
    grid: tuple[int, int]
    boxes: tuple[tuple[int, ...], ...]
    blocks: int


def contiguous(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Strides in bytes of a contiguous array."""
    strides = [itemsize]
    for extent in reversed(shape[1:]):
        strides.insert(0, strides[0] * extent)
    return tuple(strides)


@lru_cache(maxsize=4096)
def planned(op: str, parts: tuple[Part, ...], itemsize: int, alignment: int) -> Copies:
    """Plans a launch that copies boxes.

    Args:
        op: for messages.
        parts: one or two; unit stride along the last axis.
        itemsize: bytes of an element.
        alignment: all addresses together, as bits.

    Raises:
        ArgumentError: more than three unevenly spaced leading axes, or more than the kernel counts.
    """
    flat = []
    for part in parts:
        extents, (source, target) = merged(part.shape, (part.source, part.target))
        if len(extents) > 4:
            raise ArgumentError(
                f"{op}: expected at most four unevenly spaced axes, got {list(part.shape)} with strides of "
                f"{part.source} bytes. Reshape the array, or copy it to a contiguous one first."
            )
        flat.append((extents, source, target))
    spaced = [n for extents, source, target in flat for n in (extents[-1] * itemsize, *source[:-1], *target[:-1])]
    word = next(size for size in (16, 4, 2) if all(n % size == 0 for n in (alignment, *spaced)))
    boxes, blocks = zip(*(_box(*part, itemsize, word) for part in flat), strict=True)
    if max(box[6] for box in boxes) >= 2**30 or max(box[9] for box in boxes) >= 2**30:
        raise ArgumentError(
            f"{op}: expected fewer than 2^30 rows, and fewer than 2^30 words per row, got {parts}. Split the batch."
        )
    return Copies(word, grid(op, sum(blocks)), boxes, blocks[0])


def _box(
    extents: list[int], source: list[int], target: list[int], itemsize: int, word: int
) -> tuple[tuple[int, ...], int]:
    """Parameters of a box after its addresses, and its number of blocks."""
    columns = extents[-1] * itemsize // word
    leading = [1] * (4 - len(extents)) + extents[:-1]
    rows = leading[0] * leading[1] * leading[2]
    if not rows * columns:
        return _NOTHING, 0
    strides = []
    for side in (source, target):
        strides += [0] * (4 - len(side)) + [stride // word for stride in side[:-1]]
    if columns <= _THREADS:
        lanes, tiles = power_of_two(columns), 0
        blocks = -(-rows // (_WORDS * _THREADS // lanes))
    else:
        lanes, tiles = 1, -(-columns // (_WORDS * _THREADS))
        blocks = rows * tiles
    return (*strides, rows, leading[1], leading[2], columns, lanes, tiles), blocks


def copy(device: Any, op: str, itemsize: int, parts: tuple[Part, ...], places: tuple[tuple[int, int], ...]) -> None:
    """Copies each part from its source address to its destination, all in one launch."""
    bits = 0
    for source, target in places:
        bits |= source | target
    plan = planned(op, parts, itemsize, bits & 15)
    values = [value for place, box in zip(places, plan.boxes, strict=True) for value in (*place, *box)]
    if len(parts) > 1:
        values.append(plan.blocks)
    start(device, f"{op}_b{plan.word}", plan.grid, _THREADS, *values)


def side_by_side(device: Any, op: str, first: Any, second: Any, axis: int) -> Any:
    """Two arrays, concatenated along an axis in one launch.

    Raises:
        ArgumentError: they differ in dtype or along another axis.
    """
    one, other = described(first), described(second)
    kind = element(op, "first", one)
    axis %= max(len(one.shape), 1)
    expected = (*one.shape[:axis], *other.shape[axis : axis + 1], *one.shape[axis + 1 :])
    if other.shape != expected or other.dtype != one.dtype or len(one.shape) not in (3, 4):
        raise mismatch(
            op, "second", f"{kind.name} as first, {list(one.shape)} except along axis {axis}, with 3 or 4 axes", other,
            "Give both the same shape and dtype.",
        )  # fmt: skip
    shape = (*one.shape[:axis], one.shape[axis] + other.shape[axis], *one.shape[axis + 1 :])
    out = device.empty(shape, kind.name)
    target = contiguous(shape, kind.itemsize)
    parts = tuple(part_of(op, name, x, target) for name, x in (("first", one), ("second", other)))
    begin = address(op, "out", out)
    behind = begin + one.shape[axis] * target[axis]
    places = (address(op, "first", first), begin), (address(op, "second", second), behind)
    copy(device, op, kind.itemsize, parts, places)
    return out


def part_of(op: str, argument: str, x: Layout, target: tuple[int, ...]) -> Part:
    """The part that copies a whole array to a place with the given strides.

    Raises:
        ArgumentError: its last axis has no unit stride.
    """
    kind = element(op, argument, x)
    source = tuple(step * kind.itemsize for step in steps(op, argument, x, kind))
    return Part(x.shape, source, target)
