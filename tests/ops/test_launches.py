"""Launches of CUDA implementations without a GPU: a stand-in receives them, with real array layouts and no kernel.

Some size reaches every entry point of every kernel. Each launch must fit the layout of its parameters, and its block
the bound that the kernel is compiled for.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from contextlib import suppress
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from fluxperf.engine.device.gpu import E4M3
from fluxperf.engine.device.host import host_dtype
from fluxperf.engine.nvrtc.launch import Kernel
from fluxperf.engine.ops.catalog import Implementation
from fluxperf.engine.ops.cuda import entries, products
from fluxperf.engine.ops.cuda.plans import ROW_WARPS
from fluxperf.engine.ops.cuda.tiles import TILES
from fluxperf.engine.ops.specs import SPECS, Operands
from fluxperf.engine.ops.table import Deferred, Halves, Quantized
from fluxperf.errors import ArgumentError
from tests.ops import checking
from tests.ops.cases import SIZES, Sizes
from tests.ops.test_mirrored_constants import KERNELS, SOURCES, evaluated

#: Row lengths for every version of a kernel, in addition to the sizes of all tests: heads, width, features.
WIDTHS = tuple(
    Sizes(1, 5, 2, heads, width // heads, (2, 2, 2), features, (2, 2))
    for heads, width, features in (
        (1, 32, 4096), (1, 64, 8192), (1, 128, 20480), (1, 256, 64), (8, 1024, 64), (16, 2048, 64), (24, 3072, 64),
        (32, 4096, 64), (10, 20480, 64),
    )
)  # fmt: skip

#: Enough rows for kernels with a warp per row.
MANY = Sizes(1, 132 * ROW_WARPS, 2, 24, 128, (2, 2, 2), 64, (2, 2))


class Launch(NamedTuple):
    """Arguments of a kernel's launch."""

    entry: str
    grid: tuple[int, int]
    threads: int


class Function:
    """Replaces the driver's handle of an entry point."""

    ptr = 0


class Block(np.ndarray[Any, Any]):
    """An array in the memory of the stand-in, with an address as CuPy's has."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)


class StandIn:
    """Receives what launchers ask of a CUDA device, checks the parameters of launches, and runs nothing."""

    processors, capability, name, tally = 132, (9, 0), "stand-in", 0

    def __init__(self) -> None:
        self.kernels, self.products, self.ways = self, lambda *_: None, self
        self.launches = 0
        self.noted: list[Launch] = []

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        return np.empty(shape, "uint8" if dtype == E4M3 else host_dtype(dtype)).view(Block)

    def run(self, what: str, ways: dict[str, Any], version: str, in_trials: dict[str, Any] | None = None) -> Any:
        """Runs every implementation of an op, not only the quickest."""
        results = [way() for way in (*ways.values(), *(in_trials or {}).values())]
        return results[0]

    def beside(self, *work: Any) -> tuple[Any, ...]:
        return tuple(piece() for piece in work)

    def get(self, file: str, entry: str, layout: str, *_: Any) -> Kernel:
        return Kernel(entry, Function(), layout)


def note(device: StandIn, kernel: Kernel, grid: tuple[int, int], threads: int, *values: Any) -> None:
    """Replaces `nvrtc.launch.launch`; raises if number or types of the parameters differ."""
    kernel.fill(*values)
    device.noted.append(Launch(kernel.entry, grid, threads))


class Empty(Operands):
    """Draws uninitialized arrays, ``skipped`` elements after an alignment of 16 bytes."""

    def __init__(self, device: Any, dtype: str, skipped: int, strided: bool) -> None:
        super().__init__(device, dtype, skipped)
        self.behind, self.strided = skipped, strided

    def __call__(self, *shape: int, std: float = 1.0, mean: float = 0.0, dtype: str = "") -> Any:
        if self.strided:
            larger = self.device.empty([extent + 3 for extent in shape], dtype or self.dtype)
            return larger[tuple(slice(1, 1 + extent) for extent in shape)]
        size = math.prod(shape)
        whole = self.device.empty((size + 16 + self.behind,), dtype or self.dtype)
        item = whole.itemsize
        first = -(whole.data.ptr // item) % (16 // item) + self.behind
        return whole[first : first + size].reshape(shape)


def launchers() -> list[Implementation]:
    """Implementations with kernels of this project, of ops with cases; attention is a library's."""
    return [
        row
        for row in checking.under_test("cuda")
        if row.device == "cuda" and SPECS[row.op].cases and row.op != "attention" and not row.composed
    ]


@cache
def launched(op: str, name: str) -> tuple[Launch, ...]:
    """Launches of every case that an implementation supports, aligned and not."""
    implementation = next(row for row in launchers() if (row.op, row.name) == (op, name))
    device: Any = StandIn()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entries, "launch", note)
        patch.setattr(products, "tensor_map", lambda matrix, rows: (0,) * 16)
        for dtype, sizes, skipped in itertools.product(
            checking.dtypes(implementation), (*SIZES.values(), *WIDTHS, MANY), (0, 1)
        ):
            draw = Empty(device, dtype, skipped, sizes.strided)
            for case in SPECS[op].cases.values():
                one = case(draw, sizes)
                args = [_in_e4m3(device, implementation, place, x) for place, x in enumerate(one.args)]
                if op == "qkv_heads":  # products deferred to it, of one and of two streams
                    left = [_left(draw, implementation, qkv) for qkv in args[0]]
                    with suppress(ArgumentError):
                        implementation.function(device, tuple(left), *args[1:], **one.options)
                if (op, name) == ("linear_gelu", "fp8"):  # a result of norm_modulate, with bounds of the rows' lengths
                    vectors = (device.empty((*args[0].shape[:-1], 1), "float32") for _ in range(2))
                    bounded = Quantized(device.empty(args[0].shape, E4M3), *vectors)
                    with suppress(ArgumentError):
                        implementation.function(device, bounded, *args[1:], **one.options)
                if (op, name) == ("linear_gated_residual", "fp8"):  # halves of one buffer with scales of their own
                    for left in (8, 128):
                        halves = [
                            _halves(device, (*args[0].shape[:-1], 256), left),
                            _rows(device, args[3].shape[0], 256),
                        ]
                        with suppress(ArgumentError):
                            implementation.function(device, *args[:2], *halves, args[4])
                with suppress(ArgumentError):  # an unsupported case raises an error with a message
                    implementation.function(device, *args, **one.options)
    return tuple(device.noted)


def _in_e4m3(device: Any, implementation: Implementation, place: int, x: Any) -> Any:
    """A weight as e4m3 implementations take it."""
    names = re.findall(r"(\w+) \[", SPECS[implementation.op].signature.partition("->")[0])
    if implementation.name != "fp8" or place >= len(names) or names[place] != "weight":
        return x
    return _rows(device, *x.shape)


def _rows(device: Any, *shape: int) -> Quantized:
    return Quantized(device.empty(shape, E4M3), device.empty((*shape[:-1], 1), "float32"))


def _halves(device: Any, shape: tuple[int, ...], left: int) -> Halves:
    """Rows of that shape, of which the first half has ``left`` numbers."""
    whole, scales = _rows(device, *shape), device.empty((*shape[:-1], 1), "float32")
    return Halves(Quantized(whole.data[..., :left], scales), Quantized(whole.data[..., left:], whole.scale))


def _left(draw: Empty, implementation: Implementation, qkv: Any) -> Deferred:
    """A deferred product of that shape."""
    x, weight = (draw(*shape) for shape in ((*qkv.shape[:-1], 64), (qkv.shape[-1], 64)))
    if implementation.name != "fp8":
        return Deferred(x, weight)
    device = draw.device
    vectors = [[device.empty((*part.shape[:-1], 1), "float32") for _ in range(2)] for part in (x, weight)]
    numbers = [
        Quantized(device.empty(part.shape, E4M3), *both) for part, both in zip((x, weight), vectors, strict=True)
    ]
    return Deferred(*numbers)


def test_heads_of_bounded_rows_are_one_launch_and_others_the_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bounds of the rows' lengths V has no scale before the product."""
    device: Any = StandIn()
    monkeypatch.setattr(entries, "launch", note)
    monkeypatch.setattr(products, "tensor_map", lambda matrix, rows: (0,) * 16)
    monkeypatch.setattr(device, "run", lambda what, ways, version: list(ways.values())[-1]())
    implementation = next(row for row in launchers() if (row.op, row.name) == ("qkv_heads", "fp8"))
    draw = Empty(device, "bfloat16", 0, False)
    product, bias, norm = draw(1, 40, 768), draw(768), draw(128)
    tables = [draw(40, 128, dtype="float32") for _ in range(2)]
    rest = (bias,), (norm,), (norm,), *tables, 2
    left = _left(draw, implementation, product)
    *_, values = implementation.function(device, (left,), *rest)
    assert [one.entry for one in device.noted] == ["product_heads_fp8_128x256"]
    assert values.means.shape == (2,)
    device.noted.clear()
    *_, values = implementation.function(device, (left._replace(x=left.x._replace(lengths=None)),), *rest)
    assert [one.entry for one in device.noted] == ["value_peaks_bf16", "qkv_heads_fp8_bf16_g16"]
    assert values.means is None


@pytest.mark.parametrize("kind", ["bfloat16", "halves"])
def test_what_deferred_heads_read_is_made_an_operand_once(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Halves are brought to one scale in place, so another reading would take the first half at a wrong scale."""
    device: Any = StandIn()
    monkeypatch.setattr(entries, "launch", note)
    implementation = next(row for row in launchers() if (row.op, row.name) == ("qkv_heads", "fp8"))
    draw = Empty(device, "bfloat16", 0, False)
    product, bias, norm = draw(1, 40, 768), draw(768), draw(128)
    tables = [draw(40, 128, dtype="float32") for _ in range(2)]
    left = _left(draw, implementation, product)
    x = draw(1, 40, 64) if kind == "bfloat16" else _halves(device, (1, 40, 64), 16)
    implementation.function(device, (left._replace(x=x),), (bias,), (norm,), (norm,), *tables, 2)
    first, *others = (one.entry.partition("_bf16")[0].partition("_b")[0] for one in device.noted)
    assert first == ("quantize_rows" if kind == "bfloat16" else "join_features_fp8")
    assert others == ["value_peaks", "qkv_heads_fp8"]


#: Name and tile of a product's entry point; threads of a block by tile: one warpgroup that copies, one per 64 rows.
PRODUCT = r"(?:TWO_)?PRODUCT\(\s*([\w#]+),\s+(\w+),"
TILE_BOUNDS = {
    name: 2 * int(rows) + 128
    for rows, name in re.findall(r"typedef Tile<(\d+), [^>]+> (\w+);", SOURCES["common/tiles.cuh"])
}


def bounds() -> dict[str, int]:
    """The most threads of a block, by entry point, from the sources."""
    found = {}
    for file, text in SOURCES.items():
        included = [file, *re.findall(r'#include "([^"]+)"', text)]
        included += [deeper for one in included[1:] for deeper in re.findall(r'#include "([^"]+)"', SOURCES[one])]
        there = {name: value for one in included for name, value in KERNELS.get(one, {}).items()}
        names = {name: int(value) for name, value in there.items() if value.isdigit()}
        flat = re.sub(r"\\\n\s*", " ", text)
        bounded = r"__launch_bounds__\(([^(),]+)(?:, [^()]+)?\) (\w+(?:##\w+)?)\("
        for macro, parameters, body in re.findall(r"^#define (\w+)\(([^)]*)\) (.*)$", flat, re.MULTILINE):
            for arguments in re.findall(rf"^{macro}\(([^)]*)\)", flat, re.MULTILINE):
                given = dict(zip(parameters.split(", "), arguments.split(", "), strict=True))
                sizes = {name: int(value) for name, value in given.items() if value.isdigit()}
                for bound, name in re.findall(bounded, body):
                    entry = "".join(given.get(part, part) for part in name.split("##"))
                    found[entry] = evaluated(bound, **{**names, **sizes})
                for name, tile in re.findall(PRODUCT, body):
                    found["".join(given.get(part, part) for part in name.split("##"))] = TILE_BOUNDS[given[tile]]
        found |= {name: TILE_BOUNDS[tile] for name, tile in re.findall(rf"^{PRODUCT}", flat, re.MULTILINE)}
        for bound, name in re.findall(bounded, flat):
            if name.startswith(file.removesuffix(".cu")):
                found[name] = evaluated(bound, **names)
    return found


BOUNDS = bounds()
#: Versions that no rung uses: for float32 with e4m3, softmax of bfloat16 into float32, and plain products, which
#: `benchmarks.products` compares with the library's.
NOBODY_ASKS = {"quantize_rows_f32_w1", "quantize_rows_f32_w4", "softmax_bf16_f32_w1", "softmax_bf16_f32_w4_held"} | {
    f"{file}_{tile.name}_plain" for file in ("product", "product_fp8") for tile in TILES[file]
}
ROWS = [(row.op, row.name) for row in launchers()]


@pytest.mark.parametrize(("op", "name"), ROWS, ids=["-".join(row) for row in ROWS])
def test_what_is_launched_fits_its_kernel(op: str, name: str) -> None:
    for one in launched(op, name):
        assert one.threads <= BOUNDS[one.entry], one
        assert one.threads % 32 == 0, one
        assert min(one.grid) > 0, one


def test_every_entry_point_of_a_launcher_is_reached() -> None:
    reached: dict[str, set[str]] = defaultdict(set)
    for row in ROWS:
        for one in launched(*row):
            reached[entries.known()[one.entry].file].add(one.entry)
    missing = {
        name for name, entry in entries.known().items() if entry.file in reached and name not in reached[entry.file]
    }
    assert missing == NOBODY_ASKS
    assert len(reached) > 25
