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
    """Numbers of one tensor that lie together in a file: ``size`` of them from a byte ``offset`` on."""

    tensor: str
    path: Path
    offset: int
    size: int
    dtype: np.dtype[Any]

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


class Reader:
    """Fills host memory with the numbers of stretches, one after the other, as numbers of one dtype.

    *Numerics*: where the file has another dtype, NumPy's ``astype``, which rounds to nearest even.

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
                part = stretch._replace(offset=stretch.offset + skipped * stretch.dtype.itemsize, size=taken)
                self._read(part, numbers[done : done + taken])
                done += taken
        if done != len(numbers):  # an internal truth: the stretches are as long as the tensor
            raise AssertionError(f"{done} of {len(numbers)} numbers are in the stretches")

    def _read(self, stretch: Stretch, numbers: npt.NDArray[Any]) -> None:
        if stretch.dtype == self._dtype:
            self._read_bytes(stretch, numbers.view(np.uint8))
        else:
            stored = np.empty(stretch.size, stretch.dtype)
            self._read_bytes(stretch, stored.view(np.uint8))
            with np.errstate(over="ignore", invalid="ignore"):  # told below, by name
                np.copyto(numbers, stored, casting="unsafe")
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
