"""Records a timeline of this process through CUPTI, if Nsight Systems is missing.

CUPTI reports calls and the GPU work that they launched. Ranges are pushed into a `RecordedDomain`, which replaces an
NVTX domain and reads CUPTI's clock.
"""

from __future__ import annotations

import importlib.metadata
import re
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from fluxperf.harness.timeline import driver
from fluxperf.harness.timeline.attribution import attribute
from fluxperf.harness.timeline.cupti_source import BLOCKING, MEMORY, CuptiSource, bindings
from fluxperf.harness.timeline.kernel_names import demangled, short_name
from fluxperf.harness.timeline.model import (
    Call,
    Calls,
    Copy,
    Node,
    Range,
    Ranges,
    Side,
    Sync,
    Thread,
    Timeline,
    Waits,
    Work,
    WorkKind,
    Works,
)
from fluxperf.harness.timeline.waiting import blocks
from fluxperf.words import plural

_KINDS = ("CONCURRENT_KERNEL", "MEMCPY", "MEMSET", "SYNCHRONIZATION", "RUNTIME", "DRIVER")

#: Names that Nsight Systems gives to CUPTI's kinds of copies, and their sides (``CUpti_ActivityMemcpyKind``).
_COPIES: dict[int, tuple[str, Side, Side]] = {
    1: ("Host-to-Device", "host", "device"),
    2: ("Device-to-Host", "device", "host"),
    3: ("Host-to-Array", "host", "device"),
    4: ("Array-to-Host", "device", "host"),
    5: ("Array-to-Array", "device", "device"),
    6: ("Array-to-Device", "device", "device"),
    7: ("Device-to-Array", "device", "device"),
    8: ("Device-to-Device", "device", "device"),
    9: ("Host-to-Host", "host", "host"),
    10: ("Peer-to-Peer", "device", "device"),
}
#: Names that it gives to synchronizations (``CUpti_ActivitySynchronizationType``).
_SYNCS = {1: "Event sync", 2: "Stream wait sync", 3: "Stream sync", 4: "Context sync"}

_CALL_VERSION = re.compile(r"_v\d+\Z")


class Attributes(NamedTuple):
    """Attributes of a range."""

    name: str
    payload: int | None


class RecordedDomain:
    """Ranges with their times. It has the interface of a domain of ``nvtx``.

    Args:
        name: of the domain.
        clock: nanoseconds on the clock of CUPTI's records.
    """

    def __init__(self, name: str, clock: Callable[[], int]) -> None:
        self.name = name
        self._clock = clock
        self._local = threading.local()
        self._closed: list[tuple[Attributes, int, int, int]] = []
        self._threads: dict[int, int] = {}
        self.active = False

    def get_event_attributes(self, message: str, *, category: str | None, payload: int | None) -> Attributes:
        """Name and payload. A category is left out, as it would be the same in every range."""
        return Attributes(message, payload)

    def push_range(self, attributes: Attributes) -> None:
        """Opens a range on the calling thread."""
        if not hasattr(self._local, "open"):
            self._local.open = []
            self._threads[threading.get_ident()] = threading.get_native_id()
        self._local.open.append((attributes, self._clock() if self.active else None))

    def pop_range(self) -> None:
        """Closes the innermost range. A range that was opened or closed outside of the recording is dropped."""
        attributes, start_ns = self._local.open.pop()
        if self.active and start_ns is not None:
            self._closed.append((attributes, start_ns, self._clock(), threading.get_native_id()))

    def known_threads(self) -> dict[int, int]:
        """The operating system's thread ids by the lower half of their pthread ids, which CUPTI may use instead."""
        return {ident & 0xFFFFFFFF: native for ident, native in self._threads.items()}

    def ranges(self, process: int) -> list[Range]:
        """Recorded ranges, ordered by start."""
        rows = [
            Range(
                name=attributes.name,
                domain=self.name,
                start_ns=start_ns,
                end_ns=end_ns,
                thread=process | native,
                end_thread=process | native,
                pushed=True,
                payload=attributes.payload,
            )
            for attributes, start_ns, end_ns, native in self._closed
        ]
        return sorted(rows, key=lambda row: (row.start_ns, -row.end_ns))


class Recorder:
    """Records between ``start`` and ``stop``.

    Args:
        pid: the operating system's id of this process.
        cupti: replacement for CUPTI's bindings in a test.
        settle: waits for pending work.

    Raises:
        DeviceError: CUPTI's Python bindings are missing.
    """

    def __init__(self, pid: int, cupti: Any = None, settle: Callable[[], None] = driver.settle) -> None:
        self._cupti = cupti or bindings("profile")
        self._source = CuptiSource(_KINDS, self._read, cupti=self._cupti, command="profile", on_node=self._created)
        self._settle = settle
        self._process = pid << 24
        self._calls: list[Call] = []
        self._work: list[Work] = []
        self._syncs: list[Sync] = []
        self._nodes: list[Node] = []
        self._until_ns = 0
        self._names: dict[tuple[int, int], str] = {}
        self._kernels: dict[str, tuple[str, str]] = {}
        self._copies: dict[tuple[int, int, int, int], Copy] = {}
        self.domain = RecordedDomain("fluxperf", self._cupti.get_timestamp)

    def start(self) -> None:
        """Starts recording.

        Raises:
            DeviceError: there is no driver, or another tool is already tracing.
        """
        self._settle()
        self._source.start()
        self.domain.active = True

    def stop(self) -> None:
        """Waits for pending work, reads its records and ends recording.

        Raises:
            DeviceError: records were dropped.
        """
        self._until_ns = int(self._cupti.get_timestamp())
        self._settle()
        self.domain.active = False
        self._source.stop()

    def timeline(self, source: str, gpus: dict[int, str], command: str) -> Timeline:
        """The recorded timeline, attributed.

        Args:
            source: name of the file that will hold it.
            gpus: names by number.
            command: name of the process.
        """
        process, native = self._process, self.domain.known_threads()
        known = [
            msgspec.structs.replace(call, thread=process | native.get(call.thread - process, call.thread & 0xFFFFFF))
            for call in self._calls
            if not (blocks(call.name) and call.start_ns >= self._until_ns)  # the wait of the recording itself
        ]
        work = sorted((row for row in self._work if row.end_ns > 0), key=lambda row: (row.start_ns, row.end_ns))
        telling = {row.correlation for row in work} | {row.correlation for row in self._syncs}
        calls = _outer(known, telling)
        ranges = self.domain.ranges(process)
        used = sorted({row.thread for row in calls} | {row.thread for row in ranges})
        notes = self._notes(work)
        timeline = Timeline(
            source=source,
            tool="CUPTI",
            product=_version(),
            schema="",
            graph_mode="Node",
            processes={process: command},
            threads=[Thread(process, thread) for thread in used],
            gpus={gpu: gpus.get(gpu, "") for gpu in sorted({row.gpu for row in work})},
            ranges=Ranges.of(ranges),
            calls=Calls.of(calls),
            work=Works.of(work),
            syncs=Waits.of(self._syncs),
            notes=notes,
            nodes=self._nodes,
        )
        attribute(timeline)
        return timeline

    def _notes(self, work: list[Work]) -> list[str]:
        """Notes on gaps in the recording, for its work."""
        notes = []
        if len(work) < len(self._work):
            notes.append(
                f"{plural(len(self._work) - len(work), 'piece')} of GPU work left out, as its record has no times."
            )
        if self._source.untold and any(row.graph_node is not None for row in work):
            notes.append(
                f"Nodes of CUDA graphs could not be recorded at their creation: {self._source.untold}. Their work "
                "is under the range that launched the graph. Profile with nsys to assign it to ops."
            )
        return notes

    def _created(self, node: int, original: int | None) -> None:
        """Runs in the thread that creates a node, inside of its call."""
        thread = self._process | threading.get_native_id()
        self._nodes.append(Node(node, original, int(self._cupti.get_timestamp()), self._process, thread))

    def _read(self, activity: Any) -> None:
        kinds, kind = self._source.kinds, activity.kind
        if kind in (kinds.RUNTIME, kinds.DRIVER):
            self._calls.append(self._call(activity, runtime=kind == kinds.RUNTIME))
        elif kind == kinds.SYNCHRONIZATION:
            self._syncs.append(self._sync(activity))
        elif kind == kinds.CONCURRENT_KERNEL:
            self._work.append(self._kernel(activity))
        elif kind == kinds.MEMCPY:
            self._work.append(self._copy(activity))
        elif kind == kinds.MEMSET:
            self._work.append(self._piece(activity, "memset", "memset", int(activity.bytes)))

    def _call(self, activity: Any, runtime: bool) -> Call:
        key = (int(runtime), int(activity.cbid))
        if key not in self._names:
            domains = self._cupti.CallbackDomain
            name = self._cupti.get_callback_name(domains.RUNTIME_API if runtime else domains.DRIVER_API, key[1])
            text = name.decode() if isinstance(name, bytes) else str(name)
            self._names[key] = _CALL_VERSION.sub("", text)
        return Call(
            name=self._names[key],
            api="runtime" if runtime else "driver",
            start_ns=int(activity.start),
            end_ns=int(activity.end),
            thread=self._process + int(activity.thread_id),
            correlation=int(activity.correlation_id),
        )

    def _piece(
        self,
        activity: Any,
        kind: WorkKind,
        name: str,
        nbytes: int = 0,
        full_name: str = "",
        shape: tuple[int, ...] = (),
        copy: Copy | None = None,
    ) -> Work:
        return Work(
            kind=kind,
            name=name,
            start_ns=int(activity.start),
            end_ns=int(activity.end),
            process=self._process,
            gpu=int(activity.device_id),
            stream=int(activity.stream_id),
            correlation=int(activity.correlation_id),
            bytes=nbytes,
            graph_node=int(activity.graph_node_id) or None,
            full_name=full_name,
            shape=shape,
            copy=copy,
        )

    def _kernel(self, activity: Any) -> Work:
        name = activity.name
        if name not in self._kernels:
            full = demangled(name)
            self._kernels[name] = (short_name(full), full)
        short, full = self._kernels[name]
        sizes = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z")
        shape = tuple(int(getattr(activity, size)) for size in sizes)
        return self._piece(activity, "kernel", short, full_name=full, shape=shape)

    def _copy(self, activity: Any) -> Work:
        count = max(1, int(getattr(activity, "copy_count", 1)))
        key = (int(activity.copy_kind), int(activity.src_kind), int(activity.dst_kind), count)
        if key not in self._copies:
            direction, source, target = _COPIES.get(key[0], (f"kind {key[0]}", "", ""))
            memory = [MEMORY.get(kind, "unknown").title() for kind in key[1:3]]
            self._copies[key] = Copy(direction, source, target, memory[0], memory[1], count)
        copy = self._copies[key]
        return self._piece(activity, "copy", copy.direction, int(activity.bytes), copy=copy)

    def _sync(self, activity: Any) -> Sync:
        kind = int(activity.type)
        return Sync(
            kind=_SYNCS.get(kind, f"kind {kind}"),
            blocks=kind in BLOCKING,
            start_ns=int(activity.start),
            end_ns=int(activity.end),
            process=self._process,
            gpu=0,
            stream=int(activity.stream_id),
            correlation=int(activity.correlation_id),
        )


def _outer(calls: list[Call], telling: set[int]) -> list[Call]:
    """Calls without the driver calls that runtime calls make, unless a record belongs to them."""
    runtime = {call.correlation for call in calls if call.api == "runtime"}
    return [call for call in calls if call.api == "runtime" or call.correlation in telling - runtime]


def _version() -> str:
    """Version of the bindings, which equals that of their CUDA toolkit."""
    try:
        return importlib.metadata.version("cupti-python")
    except importlib.metadata.PackageNotFoundError:
        return ""
