"""Entry points of `kernels/`: file and parameter layout of each, in the notation of `nvrtc.launch.Kernel`.

Launchers of ops declare theirs with `family`. Entry points that belong to no op are declared here.

A test compiles all files and compares the names in both directions, and the size and offset of every parameter.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fluxperf.engine.device import gpu, graphs, stamps
from fluxperf.engine.nvrtc.launch import launch


class Entry(NamedTuple):
    """File and parameters of an entry point, and the dynamic shared memory of its blocks in bytes."""

    file: str
    layout: str
    shared: int = 0


# Parameters that are passed by value: extents (4i) and strides (4q) of leading axes, batch and token stride (2q), a box
# to copy, a stream of an e4m3 product.
BOX, SCALED = "2P6q6i", "6P4q2i"
MAP, MAP_TWO = "P P 4i 4q i i", "P P P 4i 4q 4q i i"
COPIES = "b16 b4 b2"

ENTRIES: dict[str, Entry] = {}


def family(name: str, layout: str, variants: str, shared: int = 0) -> None:
    """Declares the entry points of ``name.cu``. A launcher calls it next to its launch.

    Args:
        name: of the file; every entry point's name begins with it.
        layout: parameters, the same for all entry points.
        variants: the rest of each entry point's name, after an underscore; separated by spaces.
        shared: bytes of dynamic shared memory of their blocks.
    """
    for variant in variants.split():
        ENTRIES[f"{name}_{variant}"] = Entry(f"{name}.cu", layout, shared)


family("spin", gpu.SPIN, "ns cycles")
family("stamp", stamps.LAYOUT, "sm")
for _family in graphs.FAMILIES:
    family(*_family)


def known() -> dict[str, Entry]:
    """Every entry point, including those that launchers declare."""
    from fluxperf.engine.ops import catalog  # imported here because launchers import this file

    catalog.load("cuda")
    return ENTRIES


def start(device: Any, entry: str, grid: tuple[int, int], threads: int, *values: Any) -> None:
    """Launches an entry point on the device's current stream; an empty grid launches nothing."""
    if grid[0] and grid[1]:
        launch(device, device.kernels.get(ENTRIES[entry].file, entry, *ENTRIES[entry][1:]), grid, threads, *values)
