"""Launches kernels: packs parameters into one buffer, and passes it to the driver with grid and current stream."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

#: Size in bytes of C types, by their letter in `struct`. On every CUDA host it is also their alignment.
_SIZES = {"P": 8, "q": 8, "d": 8, "i": 4, "f": 4}


def offsets(layout: str) -> list[tuple[int, int]]:
    """Offset and size in bytes of each parameter of a layout, by the rules for members of a C struct.

    The letters of a parameter must be in descending order of size, so that it has no padding inside. Padding at its end
    is possible, as in ``2q3i``.
    """
    places, end = [], 0
    for parameter in layout.split():
        alignment = _SIZES[parameter.lstrip("0123456789")[0]]
        start = -(-end // alignment) * alignment
        end = start + struct.calcsize("=" + parameter.replace("P", "Q"))
        places.append((start, -(-(end - start) // alignment) * alignment))
        end = sum(places[-1])
    return places


class Kernel:
    """An entry point and the buffer that its parameters are packed into.

    The driver copies the parameters at launch, so one buffer serves all launches. A kernel must not be launched from
    several threads at once.

    Args:
        entry: name of the entry point.
        function: CuPy's function object; it is kept because it keeps the module loaded.
        layout: parameters in order, separated by spaces, in the letters of `struct` (P pointer, q, i, d, f). A struct
            that is passed by value has several letters: ``"P P 2q i f"``.
        shared: bytes of dynamic shared memory per block, besides the static memory that the kernel declares.
    """

    __slots__ = ("_addresses", "_buffer", "_function", "_pack", "entry", "handle", "layout", "parameters", "shared")

    def __init__(self, entry: str, function: Any, layout: str, shared: int = 0) -> None:
        places = offsets(layout)
        self.entry, self.layout, self.shared = entry, layout, shared
        self._function = function
        self.handle = function.ptr
        self._buffer = ctypes.create_string_buffer(sum(places[-1]))
        base = ctypes.addressof(self._buffer)
        self._addresses = (ctypes.c_void_p * len(places))(*(base + start for start, _ in places))
        #: Address of the array of parameter pointers, as cuLaunchKernel takes it.
        self.parameters = ctypes.addressof(self._addresses)
        self._pack = struct.Struct(_padded(layout)).pack_into

    def fill(self, *values: Any) -> None:
        """Packs parameters; structs are passed as their members, one by one."""
        self._pack(self._buffer, 0, *values)


def _padded(layout: str) -> str:
    """`struct` format of a whole layout, with explicit padding."""
    parts, end = ["="], 0
    for parameter, (start, size) in zip(layout.split(), offsets(layout), strict=True):
        letters = parameter.replace("P", "Q")
        parts.append(f"{start - end}x{letters}")
        end = start + struct.calcsize("=" + letters)
        parts.append(f"{start + size - end}x")
        end = start + size
    return "".join(parts)


def launch(device: Any, kernel: Kernel, grid: tuple[int, int], threads: int, *values: Any) -> None:
    """Launches a kernel on the current stream and counts it in ``device.launches``.

    Args:
        device: counts launches.
        kernel: from `Kernels.get`.
        grid: blocks along x and y.
        threads: per block.
        values: parameters in order, struct members one by one: addresses and integers as int, other numbers as float.
    """
    launch_kernel, current_stream = _driver()
    kernel.fill(*values)
    launch_kernel(
        kernel.handle, grid[0], grid[1], 1, threads, 1, 1, kernel.shared, current_stream().ptr, kernel.parameters, 0
    )  # fmt: skip
    device.launches += 1


_CALLS: list[Any] = []


def _driver() -> list[Any]:
    """CuPy's launch functions, imported once."""
    if not _CALLS:
        from cupy.cuda import driver, get_current_stream

        _CALLS.extend((driver.launchKernel, get_current_stream))
    return _CALLS
