"""A timeline as plain data: what the host called, what a GPU did, and the NVTX ranges around the calls.

Times are nanoseconds on the capture's own clock. A process is known by the id that the capture gives it
(``globalPid``), since two machines may use one pid; a GPU by its id on the machine, since two processes may number the
same GPU differently. Work belongs to the innermost range that was open when its *launch call* began: a GPU runs behind
the host, so what executes during a range may have been launched before it.

A capture holds millions of rows, so they are kept in columns (`Ranges`, `Calls`, `Works`, `Waits`); a row is made an
object (`Range`, `Call`, `Work`, `Sync`) where one is asked for.
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

#: The tool that records migrations of unified memory without being asked to.
NSYS = "Nsight Systems"


class Thread(msgspec.Struct, frozen=True, gc=False):
    """A thread of a process; ``id`` is the system's."""

    process: int
    id: int
    name: str = ""


class Node(msgspec.Struct, frozen=True, gc=False):
    """The creation of a node of a CUDA graph, by capture or, where ``original`` names another node, as its copy."""

    id: int
    original: int | None
    start_ns: int
    process: int
    thread: int


class Diagnostic(msgspec.Struct, frozen=True):
    """A remark of the tool about its own work; ``process`` is the one that it concerns, or 0."""

    severity: str
    text: str
    process: int = 0


class Loss(msgspec.Struct, frozen=True):
    """Events that the tool may have lost: of CUDA, or only copies, or only those of NVTX (``ranges``)."""

    of: Literal["cuda", "copies", "ranges"]
    text: str
    process: int = 0


class Damage(msgspec.Struct, frozen=True):
    """Rows whose times cannot be true, in words; ``of`` is what they would be evidence of, if of anything."""

    of: Of
    text: str


class Timeline(msgspec.Struct):
    """One capture by a tool. ``notes`` say what it cannot show, ``losses`` what the tool may have dropped.

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
        """Whether the tool may have dropped events of any kind."""
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
    """The system's pid in a capture's process id, or those of many."""
    return process >> 24 & 0xFFFFFF


def thread_id(thread: IdT) -> IdT:
    """The system's thread id in a capture's ``globalTid``, or those of many."""
    return thread & 0xFFFFFF
