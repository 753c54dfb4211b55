"""A timeline as plain data: what the host called, what a GPU did, and the NVTX ranges around the calls.

Times are nanoseconds on the capture's own clock. A process is known by the id that the capture gives it
(``globalPid``), since two machines may use one pid; a GPU by its id on the machine, since two processes may number the
same GPU differently. Work belongs to the innermost range that was open when its *launch call* began: a GPU runs behind
the host, so what executes during a range may have been launched before it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Side = Literal["host", "device", ""]
WorkKind = Literal["kernel", "copy", "memset", "graph"]

#: Index of "no range", and of "no launch call".
NONE = -1


class Thread(msgspec.Struct, frozen=True, gc=False):
    """A thread of a process; ``id`` is the system's."""

    process: int
    id: int
    name: str = ""


class Range(msgspec.Struct, gc=False):
    """An NVTX range. ``pushed`` tells push/pop ranges, which nest, from start/end ranges, which need not.

    A push/pop range belongs to one thread. A start/end range belongs to the thread that began it and to the one that
    ended it (``end_thread``). ``parent`` is the index of the innermost range around it on its thread, or ``NONE``.
    ``payload`` is a whole number that came with it: fluxperf gives the ranges of copies their bytes.
    """

    name: str
    domain: str
    start_ns: int
    end_ns: int
    process: int
    thread: int
    end_thread: int
    pushed: bool
    parent: int = NONE
    payload: int | None = None


class Call(msgspec.Struct, gc=False):
    """A call of the CUDA runtime or driver; ``range`` is the index of the innermost range open on its thread."""

    name: str
    api: Literal["runtime", "driver"]
    start_ns: int
    end_ns: int
    process: int
    thread: int
    correlation: int
    range: int = NONE


class Copy(msgspec.Struct, frozen=True, gc=False):
    """What a copy moved: ``count`` copies, from one side and kind of memory to another.

    ``direction`` and the memory kinds are the capture's words; ``source`` and ``target`` are host or device, or empty
    where the capture does not say. ``unified`` copies are migrations of unified memory.
    """

    direction: str
    source: Side
    target: Side
    source_memory: str
    target_memory: str
    count: int
    unified: bool = False

    @property
    def crossing(self) -> str:
        """``d2h``, ``h2d``, or empty for a copy that does not cross between host and device."""
        return {("device", "host"): "d2h", ("host", "device"): "h2d"}.get((self.source, self.target), "")

    @property
    def pageable(self) -> bool:
        """Whether one side is pageable host memory."""
        return "pageable" in (self.source_memory.lower(), self.target_memory.lower())


class Work(msgspec.Struct, gc=False):
    """What a GPU did: a kernel, a copy, a memset, or a whole graph where its nodes were not traced.

    ``call`` and ``range`` are indices of its launch call and of that call's range; for a node of a graph that is the
    graph's launch, and ``captured`` is the range in which the node was captured. ``full_name`` is a kernel's name with
    its template arguments, ``shape`` its grid and block.
    """

    kind: WorkKind
    name: str
    start_ns: int
    end_ns: int
    process: int
    gpu: int
    stream: int
    correlation: int
    bytes: int = 0
    graph_node: int | None = None
    full_name: str = ""
    shape: tuple[int, ...] = ()
    copy: Copy | None = None
    call: int = NONE
    range: int = NONE
    captured: int = NONE


class Node(msgspec.Struct, frozen=True, gc=False):
    """The creation of a node of a CUDA graph, by capture or, where ``original`` names another node, as its copy."""

    id: int
    original: int | None
    start_ns: int
    process: int
    thread: int


class Sync(msgspec.Struct, gc=False):
    """A synchronization; ``blocks`` says whether the host waited in it."""

    kind: str
    blocks: bool
    start_ns: int
    end_ns: int
    process: int
    gpu: int
    stream: int
    correlation: int
    call: int = NONE
    range: int = NONE


class Timeline(msgspec.Struct):
    """One capture by a tool. ``notes`` say what it cannot show; ``lost`` says that the tool dropped events."""

    source: str
    product: str
    schema: str
    graph_mode: str
    processes: dict[int, str]
    threads: list[Thread]
    gpus: dict[int, str]
    ranges: list[Range]
    calls: list[Call]
    work: list[Work]
    syncs: list[Sync]
    notes: list[str]
    lost: bool = False
    nodes: list[Node] = []
    tool: str = "Nsight Systems"

    def chain(self, index: int) -> list[int]:
        """Indices of a range and of those around it, the outermost first; empty for ``NONE``."""
        found: list[int] = []
        while index != NONE:
            found.append(index)
            index = self.ranges[index].parent
        return found[::-1]


def process_id(process: int) -> int:
    """The system's pid in a capture's process id."""
    return process >> 24 & 0xFFFFFF


def thread_id(thread: int) -> int:
    """The system's thread id in a capture's ``globalTid``."""
    return thread & 0xFFFFFF
