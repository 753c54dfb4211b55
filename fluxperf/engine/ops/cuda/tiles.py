"""Tiles of this project's own matrix products (`kernels/product*.cu`): sizes, supported shapes, grids."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from fluxperf.engine.device.tensormaps import ROW_BYTES

#: Tile rows of a warpgroup that multiplies; threads of a warpgroup.
_SLAB, _WARPGROUP = 64, 128

#: Bytes of shared memory besides the tiles: padding to a multiple of 1024, scratch for the warps, barriers of a
#: pipeline stage.
_ALIGNMENT, _NOTES, _BARRIERS = 1024, 64, 16

#: Bytes that epilogue warps keep: rotations of the current rows of two heads, or two values per row.
_ROTATIONS, _PAIR = 12288, 8

#: Rows of D that are traversed together: 12 tiles of 192 rows, or 16 or 18 of 128.
_GROUP_ROWS = 2304

#: Compute capability of the GPUs whose instructions these kernels use.
CAPABILITY = (9, 0)


class Tile(NamedTuple):
    """A tile of D: rows, columns, and its name in entry points."""

    name: str
    rows: int
    columns: int

    @property
    def threads(self) -> int:
        """Threads of a block: one warpgroup that copies, and one for every 64 rows."""
        return self.rows // _SLAB * _WARPGROUP + _WARPGROUP

    def shared(self, staged: bool) -> int:
        """Bytes of shared memory of a block, as `pipeline.cuh` lays it out.

        Args:
            staged: whether results leave through the ring of pipeline stages, which then has four stages. Else it has
                three, and bfloat16 results have a buffer of their own, next to the values that epilogue warps keep of
                rows.
        """
        scratch = _ROTATIONS if self.columns == 256 else _PAIR * self.rows
        stages, results = (4, 0) if staged else (3, 2 * self.rows * self.columns + scratch)
        return _ALIGNMENT + stages * ((self.rows + self.columns) * ROW_BYTES + _BARRIERS) + results + _NOTES


_SQUARE, _WIDE = Tile("192x192", 192, 192), Tile("128x256", 128, 256)

#: Tiles for which each file has entry points.
TILES: dict[str, tuple[Tile, ...]] = {
    "product": (_SQUARE, _WIDE),
    "product_heads": (_WIDE,),
    "product_fp8": (_SQUARE, _WIDE),
    "product_heads_fp8": (_WIDE,),
}


class Walk(NamedTuple):
    """The traversal of a product's tiles: number of blocks, and the kernel's last five parameters."""

    blocks: int
    shape: tuple[int, int, int, int, int]


def fits(tile: Tile, m: int, n: int, k: int) -> bool:
    """Whether a product can use tiles of that size: its columns must be a multiple of the tile's."""
    return m > 0 and k > 0 and n > 0 and n % tile.columns == 0


@lru_cache(maxsize=1024)
def walk(tile: Tile, m: int, n: int, k: int, processors: int, other: int = 0) -> Walk:
    """The traversal of the tiles of D [M, N] on a GPU of that many multiprocessors, each of which runs one block.

    ``other`` is the number of rows of a second product with the same N and K, which is computed after the first.
    """
    tiles = (-(-m // tile.rows) - (-other // tile.rows)) * (n // tile.columns)
    return Walk(min(processors, tiles), (m, n, k, _GROUP_ROWS // tile.rows, other))
