"""The door: the only place where bytes cross between host and device.

Each crossing has a label and is written into a ledger, on the host device as on CUDA; so the number of copies is
exact, testable and gateable without a GPU. Inside `sealed` any crossing raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fluxperf.errors import ArgumentError, TransferError

Direction = Literal["d2h", "h2d"]
HostNumbers = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Crossing:
    """One copy through the door. ``op``, ``section`` and ``index`` are empty where nothing observes them."""

    order: int
    direction: Direction
    bytes: int
    label: str
    op: str
    section: str
    index: int


@dataclass
class Ledger:
    """Every crossing of a device, in order, under the scope that was open when it happened."""

    crossings: list[Crossing] = field(default_factory=list)
    syncs: int = 0
    section: str = ""
    index: int = -1
    op: str = ""

    def write(self, direction: Direction, nbytes: int, label: str) -> None:
        """Adds a crossing."""
        row = Crossing(len(self.crossings), direction, nbytes, label, self.op, self.section, self.index)
        self.crossings.append(row)

    def count(self, direction: Direction, since: int = 0) -> int:
        """Number of copies in that direction since a position in the ledger."""
        return sum(crossing.direction == direction for crossing in self.crossings[since:])

    def bytes(self, direction: Direction, since: int = 0) -> int:
        """Bytes copied in that direction since a position in the ledger."""
        return sum(crossing.bytes for crossing in self.crossings[since:] if crossing.direction == direction)


class Door:
    """Moves arrays between host and device, and writes down each move.

    Args:
        upload: device's own copy from host numbers into a new device array, or into ``out``.
        download: device's own copy into new host numbers; it blocks.
    """

    def __init__(self, upload: Callable[[HostNumbers, Any], Any], download: Callable[[Any], HostNumbers]) -> None:
        self._upload = upload
        self._download = download
        self._sealed: str | None = None
        self.ledger = Ledger()

    def to_device(self, numbers: HostNumbers, label: str, out: Any = None) -> Any:
        """A device array with a copy of the host numbers, or ``out`` filled with them.

        Args:
            numbers: a NumPy array of any shape and dtype.
            label: what is moved, such as ``"modulate.x"``; required.
            out: device array of the same shape and dtype to fill instead of a new one.

        Raises:
            TransferError: the door is sealed.
            ArgumentError: the numbers are not a NumPy array, or the label is empty.
        """
        if not isinstance(numbers, np.ndarray):
            raise ArgumentError(f"to_device({label!r}): expected a NumPy array, got {type(numbers).__name__}.")
        self._pass(label, "to_device")
        array = self._upload(numbers, out)
        self.ledger.write("h2d", numbers.nbytes, label)
        return array

    def to_host(self, array: Any, label: str) -> HostNumbers:
        """Host numbers with a copy of a device array; waits for the device.

        Raises:
            TransferError: the door is sealed.
            ArgumentError: the array is already on the host, or the label is empty.
        """
        if isinstance(array, np.ndarray):
            raise ArgumentError(f"to_host({label!r}): expected a device array, got a NumPy array, already on the host.")
        self._pass(label, "to_host")
        numbers = self._download(array)
        self.ledger.write("d2h", numbers.nbytes, label)
        self.ledger.syncs += 1
        return numbers

    def read_scalar(self, array: Any, label: str) -> float:
        """The one number in a device array of size 1; waits for the device.

        Raises:
            TransferError: the door is sealed.
            ArgumentError: the array does not hold exactly one number.
        """
        if array.size != 1:
            raise ArgumentError(f"read_scalar({label!r}): expected one number, got shape {tuple(array.shape)}.")
        return float(self.to_host(array, label).reshape(()).astype(np.float64))

    @contextmanager
    def sealed(self, reason: str = "this region makes no copies") -> Iterator[None]:
        """A region in which any crossing raises `TransferError`; regions may nest."""
        before, self._sealed = self._sealed, reason
        try:
            yield
        finally:
            self._sealed = before

    def _pass(self, label: str, call: str) -> None:
        if not label:
            raise ArgumentError(f"{call}: expected a label that says what is moved, got an empty one.")
        if self._sealed is not None:
            ledger = self.ledger
            where = f" in {ledger.section} {ledger.index} / {ledger.op}" if ledger.section else ""
            raise TransferError(
                f"{call}({label!r}){where}: the door is sealed ({self._sealed}). Expected no host-device copy here; "
                "keep the value on the device or move the copy out of the sealed region."
            )
