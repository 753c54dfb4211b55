"""This project's matrix products without a GPU: tensor maps, tiles, traversals, and supported operands."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fluxperf.engine.device import tensormaps
from fluxperf.engine.device.host import host_dtype
from fluxperf.engine.device.tensormaps import Matrix, tensor_map
from fluxperf.engine.ops.cuda import deferred_heads, finished, products
from fluxperf.engine.ops.cuda.tiles import TILES, fits, walk
from fluxperf.engine.ops.table import Deferred
from fluxperf.errors import DeviceError

SHAPES = [(4608, 3072, 15360), (4096, 3072, 12288), (4096, 3072, 3072), (4608, 12288, 3072), (4608, 9216, 3072)]
EVERY_TILE = sorted({tile for tiles in TILES.values() for tile in tiles})

#: Shared memory that a block of Hopper may have.
MOST_SHARED = 232448


class Array(np.ndarray[Any, Any]):
    """An array with an address, as CuPy's has."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)


def array(*shape: int, dtype: str = "bfloat16", skipped: int = 0) -> Any:
    """Zeros, ``skipped`` bytes after a multiple of 64."""
    kind = host_dtype(dtype)
    room = np.zeros(int(np.prod(shape)) * kind.itemsize + 128, np.uint8)
    start = -room.ctypes.data % 64 + skipped
    return room[start : start + int(np.prod(shape)) * kind.itemsize].view(kind).reshape(shape).view(Array)


class Driver:
    """Replaces libcuda: records the requested maps, and fills them with a pattern."""

    def __init__(self, code: int = 0) -> None:
        self.code, self.asked = code, []  # type: ignore[var-annotated]

    def cuTensorMapEncodeTiled(
        self,
        place: Any,
        kind: Any,
        rank: Any,
        address: Any,
        extents: Any,
        strides: Any,
        box: Any,
        steps: Any,
        *how: Any,
    ) -> int:
        assert place.value % 64 == 0
        self.asked.append(
            (kind.value, rank.value, address.value, *map(tuple, (extents, strides, box, steps)), [x.value for x in how])
        )
        ctypes.memmove(place.value, struct.pack("16q", *range(16)), 128)
        return self.code


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    stand_in = Driver()
    monkeypatch.setattr(tensormaps, "_driver", lambda: stand_in)
    tensor_map.cache_clear()
    yield stand_in
    tensor_map.cache_clear()


def test_a_map_has_boxes_of_swizzled_rows_of_128_bytes(driver: Driver) -> None:
    assert tensor_map(Matrix(4096, (3072, 4608), (6144,), 2), 192) == tuple(range(16))
    assert tensor_map(Matrix(4096, (3072, 4608), (6144,), 2), 192) == tuple(range(16))
    tensor_map(Matrix(8192, (15360, 4608), (15360,), 1), 128)
    tensor_map(Matrix(4096, (128, 500, 72), (256, 1179648), 2), 64)
    how = [0, 3, 3, 0]  # no interleave, 128-byte swizzle, 256 bytes fetched into L2, zeros beyond
    assert driver.asked == [
        (9, 2, 4096, (3072, 4608), (6144,), (64, 192), (1, 1), how),
        (0, 2, 8192, (15360, 4608), (15360,), (128, 128), (1, 1), how),
        (9, 3, 4096, (128, 500, 72), (256, 1179648), (64, 64, 1), (1, 1, 1), how),
    ]


@pytest.mark.parametrize(
    ("matrix", "rows", "words"),
    [
        (Matrix(4104, (64, 64), (128,), 2), 64, r"address \(4104,\), expected multiples of 16"),
        (Matrix(4096, (60, 64), (120,), 2), 64, r"strides in bytes \(120,\), expected multiples of 16"),
        (Matrix(4096, (64, 64), (256,), 4), 64, "elements of 4 bytes, expected 1 or 2"),
        (Matrix(4096, (0, 64), (128,), 2), 64, r"extents \(0, 64\)"),
        (Matrix(4096, (64, 64), (0,), 2), 64, r"strides of \(0,\) bytes, expected 1"),
        (Matrix(4096, (64, 64), (128,), 2), 257, "boxes of 257 rows"),
    ],
)
def test_what_has_no_map_is_said(driver: Driver, matrix: Matrix, rows: int, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        tensor_map(matrix, rows)
    assert driver.asked == []


def test_a_map_that_the_driver_refuses_is_an_error(driver: Driver) -> None:
    driver.code = 1
    with pytest.raises(DeviceError, match="CUDA error 1"):
        tensor_map(Matrix(4096, (64, 64), (128,), 2), 64)


@pytest.mark.parametrize("tile", EVERY_TILE, ids=lambda tile: tile.name)
def test_a_tile_fits_a_block(tile: Any) -> None:
    assert tile.name == f"{tile.rows}x{tile.columns}"
    assert max(tile.shared(staged) for staged in (True, False)) <= MOST_SHARED
    assert tile.rows % 64 == 0 == tile.columns % 64
    assert tile.threads == 128 * (tile.rows // 64 + 1)
    # All registers of an SM, for threads that multiply and threads of the first warpgroup: staged, and finished by it.
    for of_each, of_first in {2: ((240, 24), (192, 120)), 3: ((160, 32), (136, 104))}[tile.rows // 64]:
        assert 128 * (tile.rows // 64 * of_each + of_first) <= 65536


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tile", EVERY_TILE, ids=lambda tile: tile.name)
@pytest.mark.parametrize("processors", [132, 114, 7])
def test_a_walk_comes_to_every_tile_once(tile: Any, shape: tuple[int, int, int], processors: int) -> None:
    """By the formula of `tile_of` in tiles.cuh; tiles of a second product follow those of the first."""
    assert fits(tile, *shape)
    blocks, (m, n, k, group, other) = walk(tile, *shape, processors)
    assert other == 0
    both = walk(tile, *shape, processors, 200)
    assert both.shape == (m, n, k, group, 200)
    assert both.blocks == min(processors, (-(-m // tile.rows) + -(-200 // tile.rows)) * (n // tile.columns))
    rows, columns = -(-m // tile.rows), n // tile.columns
    assert (m, n, k) == shape
    assert blocks == min(processors, rows * columns)
    seen = set()
    for block in range(blocks):
        for t in range(block, rows * columns, blocks):
            area = group * columns
            which, inside = divmod(t, area)
            size = min(rows - which * group, group)
            seen.add((which * group + inside % size, inside // size))
    assert seen == {(row, column) for row in range(rows) for column in range(columns)}


def test_only_whole_columns_of_tiles_fit() -> None:
    square, wide = TILES["product"]
    assert not fits(wide, 4608, 3072 + 192, 3072)
    assert fits(square, 1, 3072 + 192, 8)
    assert not fits(square, 0, 3072, 3072)
    assert not fits(square, 4608, 3072, 0)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (array(5, 64), ((64, 5), (128,))),
        (array(1, 5, 64), ((64, 5), (128,))),
        (array(1, 7, 80)[:, 2:, :64], ((64, 5), (160,))),
        (array(1, 1, 64), ((64, 1), (128,))),
        (array(5, 64, dtype="uint8"), ((64, 5), (64,))),
        (array(2, 5, 64), None),  # two samples are no matrix
        (array(5, 60), None),  # rows of 120 bytes
        (array(5, 64, skipped=2), None),
        (array(64, 5).T, None),
        (array(0, 64), None),
    ],
)
def test_what_is_a_matrix(x: Any, expected: Any) -> None:
    found = products.matrix(x)
    assert (found and (found.extents, found.strides)) == expected


def device(capability: tuple[int, int] = (9, 0)) -> Any:
    """Takes implementations and records their names; computes nothing."""
    noted: list[tuple[str, list[str]]] = []

    def run(what: str, ways: dict[str, Any], version: str, *_: Any) -> Any:
        noted.append((what, list(ways)))
        return "done"

    return SimpleNamespace(
        capability=capability, processors=132, ways=SimpleNamespace(run=run), noted=noted,
        empty=lambda shape, dtype: array(*shape, dtype=dtype),
    )  # fmt: skip


def gated(on: Any, *, samples: int = 1, outputs: int = 384, dtype: str = "bfloat16", bias: Any = None) -> Any:
    x, gate, y = array(samples, 9, outputs, dtype=dtype), array(samples, outputs), array(samples, 9, 64)
    plus = array(outputs) if bias is None else bias
    return finished.gated(on, x, gate, y, array(outputs, 64), plus, lambda: "library")


def test_a_shape_that_has_tiles_is_offered_both_ways() -> None:
    on = device()
    assert gated(on) == gated(on, samples=2) == "done"
    both = ["library", "tiles of 192x192"]
    assert on.noted == [
        ("linear_gated_residual 9 x 384 x 64 bfloat16", both),
        ("linear_gated_residual 9 x 384 x 64 bfloat16 x 2 samples", both),
    ]


@pytest.mark.parametrize(
    "how",
    [
        {"dtype": "float32"},
        {"bias": array(128)},  # of another shape: the library's to complain about
        {"bias": array(384, skipped=2)},  # two numbers are not one word
        {"bias": array(384, dtype="float32")},
    ],
)
def test_what_the_kernels_do_not_take_is_the_librarys(how: dict[str, Any]) -> None:
    on = device()
    assert gated(on, **how) == "library"
    assert on.noted == []


@pytest.mark.parametrize(
    ("tables", "way"),
    [
        (array(9, 128, dtype="float32"), "done"),
        (array(9, 160, dtype="float32")[:, :128], "library"),  # rows apart: four are copied at once
        (array(9, 128, dtype="float32", skipped=8), "library"),
        (array(9, 128), "library"),
    ],
)
def test_heads_take_rotations_whose_rows_follow_each_other(tables: Any, way: str) -> None:
    on, qkv, norm = device(), Deferred(array(1, 9, 64), array(768, 64)), (array(128),)
    assert deferred_heads.plain(on, (qkv,), (array(768),), norm, norm, tables, tables, 2, lambda: "library") == way


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (10, 0), (12, 0)])
def test_other_architectures_keep_the_library(capability: tuple[int, int]) -> None:
    on = device(capability)
    assert gated(on) == "library"
    assert on.noted == []
