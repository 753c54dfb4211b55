"""Entry points of `kernels/`: file and layout of parameters of each, as `nvrtc.launch.Kernel` describes them.

Launchers of ops tell of theirs (`family`); those of what is no op are here.

A test compiles all files and compares: names in both directions, and size and place of every parameter.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fluxperf.engine.device import gpu, graphs, stamps
from fluxperf.engine.nvrtc.launch import launch


class Entry(NamedTuple):
    """Where an entry point is, what it takes, and bytes of shared memory that its blocks are launched with."""

    file: str
    layout: str
    shared: int = 0


# Parameters passed by value: extents (4i) and strides (4q) of leading axes, batch and token stride (2q), a box to copy,
# a stream of a product in e4m3.
BOX, SCALED = "2P6q6i", "6P4q2i"
MAP, MAP_TWO = "P P 4i 4q i i", "P P P 4i 4q 4q i i"
COPIES = "b16 b4 b2"

ENTRIES: dict[str, Entry] = {}


def family(name: str, layout: str, variants: str, shared: int = 0) -> None:
    """Tells of the entry points of ``name.cu``; a launcher does so beside the launch.

    Args:
        name: of the file, and the beginning of every entry point's.
        layout: of the parameters of all.
        variants: what follows the name and an underscore, separated by spaces.
        shared: bytes of shared memory that their blocks are launched with.
    """
    for variant in variants.split():
        ENTRIES[f"{name}_{variant}"] = Entry(f"{name}.cu", layout, shared)


family("spin", gpu.SPIN, "ns cycles")
family("stamp", stamps.LAYOUT, "sm")
for _family in graphs.FAMILIES:
    family(*_family)


def known() -> dict[str, Entry]:
    """Every entry point, those of all launchers too."""
    from fluxperf.engine.ops import catalog  # here, because launchers import this file

    catalog.load("cuda")
    return ENTRIES


def start(device: Any, entry: str, grid: tuple[int, int], threads: int, *values: Any) -> None:
    """Launches an entry point on the device's current stream; an empty grid launches nothing."""
    if grid[0] and grid[1]:
        launch(device, device.kernels.get(ENTRIES[entry].file, entry, *ENTRIES[entry][1:]), grid, threads, *values)
