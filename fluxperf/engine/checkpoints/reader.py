"""Reads tensors from files into host memory, with positioned reads from several threads; converts and checks them."""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fluxperf.errors import CheckpointError


class Stretch(NamedTuple):
    """A contiguous range of one tensor's values in a file: ``size`` values from the byte ``offset`` on.

    ``scales``, if present, are float32 factors for the values in the file: one for all, or one for each row. The values
    divide evenly into these rows.
    """

    tensor: str
    path: Path
    offset: int
    size: int
    dtype: np.dtype[Any]
    scales: npt.NDArray[np.float32] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.size * self.dtype.itemsize


class Descriptors:
    """Open files for reading. Every reader has its own descriptor: the system reads ahead per descriptor."""

    def __init__(self) -> None:
        self._idle: dict[Path, list[int]] = {}
        weakref.finalize(self, _close, self._idle)

    @contextmanager
    def of(self, path: Path) -> Iterator[int]:
        """A descriptor that no other thread uses during the region.

        Raises:
            OSError: the file cannot be opened.
        """
        idle = self._idle.setdefault(path, [])
        try:
            number = idle.pop()
        except IndexError:
            number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield number
        finally:
            idle.append(number)


#: Integer types to move pairs of values with, by the bytes of one value; and number of 8-bit pairs that are converted
#: together.
_PAIRS = {2: np.uint32, 4: np.uint64, 8: np.complex128}
_TOGETHER = 1 << 15


class Reader:
    """Fills host memory with the values of stretches, one after the other, converted to one dtype.

    *Numerics*: where the file has another dtype, NumPy's ``astype`` converts; it rounds to nearest even. Values with
    scales are multiplied in float32 and then rounded once.

    Args:
        stretches: the ranges to read, in order.
        dtype: of the values in memory.
        descriptors: open files.
        on_bytes: the reading thread calls it with the number of bytes that it has read from a file.
    """

    def __init__(
        self,
        stretches: Sequence[Stretch],
        dtype: np.dtype[Any],
        descriptors: Descriptors,
        on_bytes: Callable[[int], None] = lambda nbytes: None,
    ) -> None:
        self._stretches, self._dtype, self._descriptors, self._on_bytes = stretches, dtype, descriptors, on_bytes

    def __call__(self, offset: int, memory: npt.NDArray[np.uint8]) -> None:
        """Fills ``memory`` [n] with the converted bytes that begin at ``offset``; any thread may call it.

        Raises:
            CheckpointError: the file ends too early or cannot be read, or a value is not finite.
        """
        numbers = memory.view(self._dtype)
        first, done = offset // self._dtype.itemsize, 0
        for stretch in self._stretches:
            skipped = min(first, stretch.size)
            first -= skipped
            taken = min(stretch.size - skipped, len(numbers) - done)
            if taken:
                self._read(stretch, skipped, numbers[done : done + taken])
                done += taken
        if done != len(numbers):  # internal consistency: the stretches are as long as the tensor
            raise AssertionError(f"{done} of {len(numbers)} numbers are in the stretches")

    def _read(self, whole: Stretch, skipped: int, numbers: npt.NDArray[Any]) -> None:
        """Fills ``numbers`` [n] with the values of a stretch that follow the first ``skipped``."""
        stretch = whole._replace(offset=whole.offset + skipped * whole.dtype.itemsize, size=len(numbers))
        if stretch.dtype == self._dtype and whole.scales is None:
            self._read_bytes(stretch, numbers.view(np.uint8))
        else:
            stored = np.empty(stretch.size, stretch.dtype)
            self._read_bytes(stretch, stored.view(np.uint8))
            with np.errstate(over="ignore", invalid="ignore"):  # reported below, with the tensor's name
                _convert(stored, _scales_of(whole, skipped, len(numbers)), numbers)
        if not all_finite(numbers):
            raise CheckpointError(
                f"{stretch.path}: tensor {stretch.tensor!r} holds NaN or infinity, or a value beyond the range of "
                f"{self._dtype}; expected finite values. The file is damaged or was saved from a diverged run; "
                "download it again."
            )
        self._on_bytes(stretch.nbytes)

    def _read_bytes(self, stretch: Stretch, memory: npt.NDArray[np.uint8]) -> None:
        """Fills memory [n] from the file."""
        view, done = memory.data, 0
        try:
            with self._descriptors.of(stretch.path) as number:
                while done < len(memory):
                    read = os.preadv(number, [view[done:]], stretch.offset + done)
                    if not read:
                        break
                    done += read
        except OSError as error:
            raise CheckpointError(
                f"{stretch.path}: tensor {stretch.tensor!r} cannot be read ({error.strerror}). Check that the file "
                "still exists and that the disk works, or download the file again."
            ) from error
        if done != len(memory):
            raise CheckpointError(
                f"{stretch.path}: tensor {stretch.tensor!r}: expected {len(memory)} bytes from byte {stretch.offset} "
                f"on, got {done}: the file became shorter after it was opened. If it is still being written, wait; "
                "otherwise download it again."
            )


def _scales_of(stretch: Stretch, skipped: int, count: int) -> npt.NDArray[np.float32]:
    """Factors of ``count`` values after the first ``skipped``: one for all, or one for each value."""
    if stretch.scales is None:
        return np.ones(1, np.float32)
    if len(stretch.scales) == 1:
        return stretch.scales
    rows = np.arange(skipped, skipped + count) // (stretch.size // len(stretch.scales))
    return stretch.scales[rows]


def _convert(stored: npt.NDArray[Any], scales: npt.NDArray[np.float32], numbers: npt.NDArray[Any]) -> None:
    """Fills ``numbers`` [n] with the stored values [n] times ``scales`` [1] or [n], in another dtype."""
    if stored.dtype.itemsize > 1:
        if (scales != 1).any():
            np.multiply(stored, scales, out=numbers, dtype=np.float32, casting="unsafe")
        else:
            np.copyto(numbers, stored, casting="unsafe")
        return
    # 8 bits have 256 values, so a table converts them. NumPy releases the interpreter lock meanwhile.
    if len(scales) == 1:
        _look_up(stored, float(scales[0]), numbers)
    else:
        wide = np.take(_all_of(stored.dtype, np.dtype(np.float32), 1.0), stored.view(np.uint8))
        np.copyto(numbers, wide * scales, casting="unsafe")


def _look_up(stored: npt.NDArray[Any], scale: float, numbers: npt.NDArray[Any]) -> None:
    """Fills ``numbers`` [n] with stored 8-bit values times a scale, two at a time, in chunks that fit the caches.

    NumPy's table look-up needs an index of 8 bytes per element. For a whole array that would be more memory than both
    arrays.
    """
    even = len(stored) // 2 * 2
    pairs: npt.NDArray[Any] = stored[:even].view(np.uint16)
    found: npt.NDArray[Any] = numbers[:even].view(_PAIRS[numbers.itemsize])
    table = _all_pairs_of(stored.dtype, numbers.dtype, scale)
    for at in range(0, len(pairs), _TOGETHER):
        np.take(table, pairs[at : at + _TOGETHER], out=found[at : at + _TOGETHER], mode="clip")
    numbers[even:] = _all_of(stored.dtype, numbers.dtype, scale)[stored[even:].view(np.uint8)]


@functools.lru_cache(maxsize=16)
def _all_pairs_of(stored: np.dtype[Any], dtype: np.dtype[Any], scale: float) -> npt.NDArray[Any]:
    """The converted pair for every pair of 8-bit values, indexed by the 16 bits of the pair."""
    both = np.arange(1 << 16, dtype=np.uint16).view(np.uint8)
    return _all_of(stored, dtype, scale)[both].view(_PAIRS[dtype.itemsize])


@functools.lru_cache(maxsize=64)
def _all_of(stored: np.dtype[Any], dtype: np.dtype[Any], scale: float) -> npt.NDArray[Any]:
    """The converted value for every value of an 8-bit dtype, indexed by its bits, times a scale."""
    wide = np.arange(256, dtype=np.uint8).view(stored).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return (wide * np.float32(scale)).astype(dtype)


def all_finite(numbers: npt.NDArray[Any]) -> bool:
    """Whether no value is NaN or infinite.

    No floating-point arithmetic is needed: read as integers, all values that are not finite come after all finite ones.
    Values with sign bit 0 are compared as signed integers, values with sign bit 1 as unsigned integers.

    Args:
        numbers: contiguous floating-point array of any shape.
    """
    if not numbers.size:
        return True
    signed, unsigned, infinity, negative = _infinities(numbers.dtype)
    return bool(numbers.view(signed).max() < infinity and numbers.view(unsigned).max() < negative)


@functools.cache
def _infinities(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], np.dtype[Any], int, int]:
    """Signed and unsigned integer dtypes of the same width, and both infinities read as these integers."""
    width = dtype.itemsize
    infinities = np.array([np.inf, -np.inf], dtype).view(f"u{width}")
    return np.dtype(f"i{width}"), np.dtype(f"u{width}"), int(infinities[0]), int(infinities[1])


def _close(idle: dict[Path, list[int]]) -> None:
    for numbers in idle.values():
        while numbers:
            os.close(numbers.pop())
