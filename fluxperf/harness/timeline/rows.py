"""Fields that many rows of a timeline share: the kind of work, and the data of a copy."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeVar

import msgspec

from fluxperf.harness.timeline.columns import Column

Side = Literal["host", "device", ""]
WorkKind = Literal["kernel", "copy", "memset", "decompression", "graph"]
Api = Literal["runtime", "driver"]

#: Why pages of unified memory move: a prefetch by the program, a page fault of a side that used them, pages that the
#: driver moves together with a fault, memory that others need, and counters of how often a side uses a page.
USER_PREFETCH, FAULT, WITH_FAULT, EVICTION, COUNTERS = CAUSES = (
    "user prefetch",
    "page fault",
    "speculative prefetch",
    "eviction",
    "access counters",
)

#: Index of "no range", and of "no launch call".
NONE = -1


IdT = TypeVar("IdT", int, Column)


def process_of(thread: IdT) -> IdT:
    """The capture's process id in a ``globalTid``; also for an array of them."""
    return thread >> 24 << 24


class Copy(msgspec.Struct, frozen=True, gc=False):
    """Data of ``count`` copies between two sides and kinds of memory.

    ``direction`` and the memory kinds are texts of the capture. ``source`` and ``target`` are host or device, or empty
    if unknown. ``unified`` copies are migrations of unified memory. ``cause`` is the reason of a migration: one of
    `CAUSES`, or empty if unknown.
    """

    direction: str
    source: Side
    target: Side
    source_memory: str
    target_memory: str
    count: int
    unified: bool = False
    cause: str = ""

    @property
    def crossing(self) -> str:
        """``d2h``, ``h2d``, or empty for a copy that is not between host and device."""
        return {("device", "host"): "d2h", ("host", "device"): "h2d"}.get((self.source, self.target), "")

    @property
    def pageable(self) -> bool:
        """Whether one side is pageable host memory."""
        return "pageable" in (self.source_memory.lower(), self.target_memory.lower())


class FaultKind(NamedTuple):
    """Page faults of unified memory: of the host or of a device, with the kind of access if the capture has it."""

    side: Side
    access: str = ""


class What(NamedTuple):
    """The kind of work: ``full_name`` is a kernel's name with its template arguments, ``shape`` its grid and block."""

    kind: WorkKind
    name: str
    full_name: str = ""
    shape: tuple[int, ...] = ()
    copy: Copy | None = None
