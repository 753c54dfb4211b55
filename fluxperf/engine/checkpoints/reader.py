"""Bytes of tensors from files into host memory: positioned reads of any number of threads, converted and checked."""

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
    """Numbers of one tensor that lie together in a file: ``size`` of them from a byte ``offset`` on.

    ``scales``, if there are any, are what the file's numbers are multiplied by: one for all, or one for each of the
    rows that the numbers part into evenly, in float32.
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
    """Open files for reading. Every reader has one of its own, as the system reads ahead per descriptor."""

    def __init__(self) -> None:
        self._idle: dict[Path, list[int]] = {}
        weakref.finalize(self, _close, self._idle)

    @contextmanager
    def of(self, path: Path) -> Iterator[int]:
        """A descriptor that nobody else uses meanwhile.

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


#: Element types that two numbers of so many bytes are moved as; and pairs of 8 bits that are looked up together.
_PAIRS = {2: np.uint32, 4: np.uint64, 8: np.complex128}
_TOGETHER = 1 << 15


class Reader:
    """Fills host memory with the numbers of stretches, one after the other, as numbers of one dtype.

    *Numerics*: where the file has another dtype, NumPy's ``astype``, which rounds to nearest even. Numbers with scales
    are multiplied in float32, which is exact but for the scale's own digits, and rounded once.

    Args:
        stretches: what is read, in order.
        dtype: of the numbers in memory.
        descriptors: where files are open.
        on_bytes: called by the reading thread with the bytes of a file that it has read.
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
        """Fills ``memory`` [n] with the bytes that begin at ``offset``; any thread may call it.

        Raises:
            CheckpointError: the file ends too early or cannot be read, or a number is not finite.
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
        if done != len(numbers):  # an internal truth: the stretches are as long as the tensor
            raise AssertionError(f"{done} of {len(numbers)} numbers are in the stretches")

    def _read(self, whole: Stretch, skipped: int, numbers: npt.NDArray[Any]) -> None:
        """Fills ``numbers`` [n] with those of a stretch behind the first ``skipped``."""
        stretch = whole._replace(offset=whole.offset + skipped * whole.dtype.itemsize, size=len(numbers))
        if stretch.dtype == self._dtype and whole.scales is None:
            self._read_bytes(stretch, numbers.view(np.uint8))
        else:
            stored = np.empty(stretch.size, stretch.dtype)
            self._read_bytes(stretch, stored.view(np.uint8))
            with np.errstate(over="ignore", invalid="ignore"):  # told below, by name
                _convert(stored, _scales_of(whole, skipped, len(numbers)), numbers)
        if not all_finite(numbers):
            raise CheckpointError(
                f"{stretch.path}: tensor {stretch.tensor!r} holds NaN or infinity, or a number beyond the range of "
                f"{self._dtype}; expected finite numbers. The file is damaged or was saved from a diverged run; "
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
                f"{stretch.path}: tensor {stretch.tensor!r} cannot be read ({error.strerror}). Check that the file is "
                "still there and its disk is in order, or download it again."
            ) from error
        if done != len(memory):
            raise CheckpointError(
                f"{stretch.path}: tensor {stretch.tensor!r}: expected {len(memory)} bytes from byte {stretch.offset} "
                f"on, got {done}: the file became shorter than when it was opened. If it is still being written, wait; "
                "otherwise download it again."
            )


def _scales_of(stretch: Stretch, skipped: int, count: int) -> npt.NDArray[np.float32]:
    """Factors of ``count`` numbers behind the first ``skipped``: one for all, or one for each."""
    if stretch.scales is None:
        return np.ones(1, np.float32)
    if len(stretch.scales) == 1:
        return stretch.scales
    rows = np.arange(skipped, skipped + count) // (stretch.size // len(stretch.scales))
    return stretch.scales[rows]


def _convert(stored: npt.NDArray[Any], scales: npt.NDArray[np.float32], numbers: npt.NDArray[Any]) -> None:
    """Fills ``numbers`` [n] with stored ones [n] times scales [1] or [n], in another dtype."""
    if stored.dtype.itemsize > 1:
        if (scales != 1).any():
            np.multiply(stored, scales, out=numbers, dtype=np.float32, casting="unsafe")
        else:
            np.copyto(numbers, stored, casting="unsafe")
        return
    # There are 256 numbers of 8 bits: each is looked up, which no interpreter lock holds up.
    if len(scales) == 1:
        _look_up(stored, float(scales[0]), numbers)
    else:
        wide = np.take(_all_of(stored.dtype, np.dtype(np.float32), 1.0), stored.view(np.uint8))
        np.copyto(numbers, wide * scales, casting="unsafe")


def _look_up(stored: npt.NDArray[Any], scale: float, numbers: npt.NDArray[Any]) -> None:
    """Fills ``numbers`` [n] with stored ones of 8 bits times a scale: two at a time, and so many that caches hold them.

    Looking up takes 8 bytes for each place in a table, which would otherwise be more memory than both arrays.
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
    """Both numbers of all pairs of 8 bits, as they lie in memory, by the bits of both."""
    both = np.arange(1 << 16, dtype=np.uint16).view(np.uint8)
    return _all_of(stored, dtype, scale)[both].view(_PAIRS[dtype.itemsize])


@functools.lru_cache(maxsize=64)
def _all_of(stored: np.dtype[Any], dtype: np.dtype[Any], scale: float) -> npt.NDArray[Any]:
    """All numbers of a dtype of 8 bits, by their bits, times a scale, in another dtype."""
    wide = np.arange(256, dtype=np.uint8).view(stored).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return (wide * np.float32(scale)).astype(dtype)


def all_finite(numbers: npt.NDArray[Any]) -> bool:
    """Whether no number is NaN or infinite.

    Nothing is computed with the numbers: read as integers, what is not finite comes after all that is finite. That is
    so with a sign bit of 0 among signed integers, and with a sign bit of 1 among unsigned ones.

    Args:
        numbers: floating-point array of any shape, contiguous.
    """
    if not numbers.size:
        return True
    signed, unsigned, infinity, negative = _infinities(numbers.dtype)
    return bool(numbers.view(signed).max() < infinity and numbers.view(unsigned).max() < negative)


@functools.cache
def _infinities(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], np.dtype[Any], int, int]:
    """Integer dtypes of the same width, signed and unsigned, and the infinities read as those."""
    width = dtype.itemsize
    infinities = np.array([np.inf, -np.inf], dtype).view(f"u{width}")
    return np.dtype(f"i{width}"), np.dtype(f"u{width}"), int(infinities[0]), int(infinities[1])


def _close(idle: dict[Path, list[int]]) -> None:
    for numbers in idle.values():
        while numbers:
            os.close(numbers.pop())
