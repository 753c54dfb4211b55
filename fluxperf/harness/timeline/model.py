"""A timeline as plain data: calls of the host, work of GPUs, and the NVTX ranges around the calls.

Times are nanoseconds on the capture's own clock. A process has the id that the capture gives it (``globalPid``), since
two machines may use the same pid. A GPU has its id on the machine, since two processes may number the same GPU
differently. Work belongs to the innermost range that was open when its *launch call* began: the GPU runs behind the
host, so work that runs during a range may have been launched before it.

A capture has millions of rows, so they are kept in columns (`Ranges`, `Calls`, `Works`, `Waits`). A row becomes an
object (`Range`, `Call`, `Work`, `Sync`) when it is accessed.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from fluxperf.harness.timeline.page_faults import Fault, Faults
from fluxperf.harness.timeline.rows import NONE, Api, Copy, FaultKind, IdT, Side, What, WorkKind, process_of
from fluxperf.harness.timeline.tables import (
    Call,
    Calls,
    Overheads,
    Range,
    Ranges,
    Sync,
    Waits,
    Work,
    Works,
)

__all__ = [
    "NONE",
    "NSYS",
    "Api",
    "Call",
    "Calls",
    "Copy",
    "Damage",
    "Diagnostic",
    "Fault",
    "FaultKind",
    "Faults",
    "Loss",
    "Node",
    "Of",
    "Overheads",
    "Range",
    "Ranges",
    "Side",
    "Sync",
    "Thread",
    "Timeline",
    "Waits",
    "What",
    "Work",
    "WorkKind",
    "Works",
    "process_id",
    "process_of",
    "thread_id",
]


Of = Literal["cuda", "ranges", ""]

#: The tool that records migrations of unified memory without an option.
NSYS = "Nsight Systems"


class Thread(msgspec.Struct, frozen=True, gc=False):
    """A thread of a process; ``id`` is its id in the operating system."""

    process: int
    id: int
    name: str = ""


class Node(msgspec.Struct, frozen=True, gc=False):
    """The creation of a node of a CUDA graph: by capture, or as a copy of the node ``original``."""

    id: int
    original: int | None
    start_ns: int
    process: int
    thread: int


class Diagnostic(msgspec.Struct, frozen=True):
    """A diagnostic of the profiler about its own work; ``process`` is the process concerned, or 0."""

    severity: str
    text: str
    process: int = 0


class Loss(msgspec.Struct, frozen=True):
    """Events that the profiler may have lost: of CUDA, only copies, or only those of NVTX (``ranges``)."""

    of: Literal["cuda", "copies", "ranges"]
    text: str
    process: int = 0


class Damage(msgspec.Struct, frozen=True):
    """A sentence about rows with impossible times; ``of`` is the kind of evidence that they affect, if any."""

    of: Of
    text: str


class Timeline(msgspec.Struct):
    """One capture. ``notes`` say what it cannot show, ``losses`` what the profiler may have dropped.

    ``faults_of`` are the sides whose page faults of unified memory were recorded.
    """

    source: str
    product: str
    schema: str
    graph_mode: str
    processes: dict[int, str]
    threads: list[Thread]
    gpus: dict[int, str]
    ranges: Ranges
    calls: Calls
    work: Works
    syncs: Waits
    notes: list[str]
    losses: list[Loss] = []
    damage: list[Damage] = []
    diagnostics: list[Diagnostic] = []
    overheads: Overheads = msgspec.field(default_factory=Overheads)
    nodes: list[Node] = []
    faults: Faults = msgspec.field(default_factory=Faults)
    faults_of: frozenset[Side] = frozenset()
    tool: str = NSYS

    @property
    def lost(self) -> bool:
        """Whether the profiler may have dropped events of any kind."""
        return bool(self.losses)

    def chain(self, index: int) -> list[int]:
        """Indices of a range and of those around it, the outermost first; empty for ``NONE``."""
        found: list[int] = []
        parents = self.ranges.parent
        while index != NONE:
            found.append(index)
            index = int(parents[index])
        return found[::-1]


def process_id(process: IdT) -> IdT:
    """The operating system's pid in a capture's process id; also for an array of them."""
    return process >> 24 & 0xFFFFFF


def thread_id(thread: IdT) -> IdT:
    """The operating system's thread id in a capture's ``globalTid``; also for an array of them."""
    return thread & 0xFFFFFF
