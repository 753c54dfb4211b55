"""Tiles of the products that are this project's own (`kernels/product*.cu`): sizes, shapes that they fit, grids."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from fluxperf.engine.device.tensormaps import ROW_BYTES

#: Rows of a warpgroup that multiplies; threads of a warpgroup.
_SLAB, _WARPGROUP = 64, 128

#: Bytes beside the ring's tiles: up to the next multiple of 1024, what warps leave for each other, barriers of a place.
_ALIGNMENT, _NOTES, _BARRIERS = 1024, 64, 16

#: Bytes that warps that finish tiles keep: rotations of rows under way of two heads, or a pair of numbers of each row.
_ROTATIONS, _PAIR = 12288, 8

#: Rows of D that are walked over together: 12 tiles of 192, 16 or 18 of 128.
_GROUP_ROWS = 2304

#: Compute capability of the GPUs whose instructions these kernels are written in.
CAPABILITY = (9, 0)


class Tile(NamedTuple):
    """A tile of D: its name in entry points, rows, columns."""

    name: str
    rows: int
    columns: int

    @property
    def threads(self) -> int:
        """Of a block: a warpgroup that copies, and one for 64 rows each."""
        return self.rows // _SLAB * _WARPGROUP + _WARPGROUP

    def shared(self, staged: bool) -> int:
        """Bytes of shared memory of a block, as `pipeline.cuh` lays them out.

        Args:
            staged: whether results leave through the ring, which then has four places; else it has three, and results
                in bfloat16 a buffer of their own, beside what the warps that finish them keep of rows.
        """
        scratch = _ROTATIONS if self.columns == 256 else _PAIR * self.rows
        stages, results = (4, 0) if staged else (3, 2 * self.rows * self.columns + scratch)
        return _ALIGNMENT + stages * ((self.rows + self.columns) * ROW_BYTES + _BARRIERS) + results + _NOTES


_SQUARE, _WIDE = Tile("192x192", 192, 192), Tile("128x256", 128, 256)

#: Tiles that each file has entry points for.
TILES: dict[str, tuple[Tile, ...]] = {
    "product": (_SQUARE, _WIDE),
    "product_heads": (_WIDE,),
    "product_fp8": (_SQUARE, _WIDE),
    "product_heads_fp8": (_WIDE,),
}


class Walk(NamedTuple):
    """How blocks walk over the tiles of a product: blocks, and the kernel's last five parameters."""

    blocks: int
    shape: tuple[int, int, int, int, int]


def fits(tile: Tile, m: int, n: int, k: int) -> bool:
    """Whether a product has tiles of that size: its columns must be whole tiles."""
    return m > 0 and k > 0 and n > 0 and n % tile.columns == 0


@lru_cache(maxsize=1024)
def walk(tile: Tile, m: int, n: int, k: int, processors: int, other: int = 0) -> Walk:
    """The walk over the tiles of D [M, N] on a GPU of that many multiprocessors, each of which holds one block.

    ``other`` is the number of rows of a second product of the same N and K that is computed behind it.
    """
    tiles = (-(-m // tile.rows) - (-other // tile.rows)) * (n // tile.columns)
    return Walk(min(processors, tiles), (m, n, k, _GROUP_ROWS // tile.rows, other))
