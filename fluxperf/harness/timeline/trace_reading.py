"""Reads a trace that `trace` wrote back into a timeline.

Traces of other programs have the same format, but not what attribution needs: launch calls by correlation id, sides and
memory of copies. They are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from fluxperf.errors import TimelineError
from fluxperf.harness.report.escape import shown
from fluxperf.harness.timeline.attribution import attribute
from fluxperf.harness.timeline.model import (
    Call,
    Copy,
    Node,
    Range,
    Side,
    Sync,
    Thread,
    Timeline,
    Work,
    WorkKind,
)
from fluxperf.harness.timeline.trace import CATEGORIES, FIRST_GPU, VERSION

_WRITE = "fluxperf profile --output FOLDER/NAME`, or `fluxperf timeline FILE --trace OUT.json"


class _About(msgspec.Struct):
    """What the trace says of itself."""

    fluxperf: int
    source: str = ""
    tool: str = ""
    product: str = ""
    schema: str = ""
    graph_mode: str = msgspec.field(default="", name="graph mode")
    processes: dict[str, str] = {}
    threads: list[tuple[int, int, str]] = []
    gpus: dict[str, str] = {}
    nodes: list[tuple[int, int | None, int, int, int]] = []
    notes: list[str] = []
    lost: bool = False


class _Args(msgspec.Struct):
    """What stands beside an event: of ranges, calls, work and synchronizations."""

    domain: str = ""
    payload: int | None = None
    ended_by: int | None = msgspec.field(default=None, name="ended by")
    correlation: int = 0
    process: int = 0
    gpu: int = 0
    stream: int = 0
    blocks: bool = False
    kind: WorkKind = "kernel"
    bytes: int = 0
    grid: list[int] = []
    block: list[int] = []
    full_name: str = msgspec.field(default="", name="full name")
    graph_node: int | None = msgspec.field(default=None, name="graph node")
    copies: int | None = None
    source_memory: str = msgspec.field(default="", name="from")
    target_memory: str = msgspec.field(default="", name="to")
    sides: tuple[Side, Side] = ("", "")
    unified: bool = False


class _Event(msgspec.Struct):
    """One event; which of the fields are there depends on its phase."""

    ph: str
    name: str = ""
    cat: str = ""
    ts: float = 0.0
    dur: float = 0.0
    pid: int = 0
    tid: int = 0
    id: int = 0
    args: _Args | None = None


class _Document(msgspec.Struct):
    other: _About = msgspec.field(name="otherData")
    events: list[_Event] = msgspec.field(name="traceEvents")


def read_trace(path: Path) -> Timeline:
    """Reads a trace and attributes its work to ranges.

    Raises:
        TimelineError: the file cannot be read, is damaged, or is not a trace of fluxperf.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise TimelineError(f"cannot read {path}: {error.strerror}. Expected a trace, made by `{_WRITE}`.") from error
    try:
        document = msgspec.json.decode(text, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TimelineError(
            f"cannot read {path}: expected a whole trace that fluxperf wrote, got: {shown(str(error), 200)}. It is "
            f"damaged, cut off, or of another program; make one with `{_WRITE}`."
        ) from error
    if document.other.fluxperf != VERSION:
        raise TimelineError(
            f"cannot read {path}: expected a trace of version {VERSION}, got {document.other.fluxperf}. Read it with "
            "the fluxperf that wrote it."
        )
    timeline = _Reader(document).timeline(str(path))
    before, timeline.notes = timeline.notes, []
    attribute(timeline)
    timeline.notes = list(dict.fromkeys([*before, *timeline.notes]))
    return timeline


def _process(pid: int) -> int:
    return pid << 24


def _thread(pid: int, tid: int) -> int:
    return _process(pid) | tid


class _Reader:
    """Rows of a document's events."""

    def __init__(self, document: _Document) -> None:
        self._about = document.other
        self._slices: dict[str, list[_Event]] = {}
        self._begun: dict[tuple[str, int], _Event] = {}
        self._pairs: dict[str, list[tuple[_Event, _Event]]] = {}
        for event in document.events:
            if event.ph == "X":
                self._slices.setdefault(event.cat, []).append(event)
            elif event.ph == "b":
                self._begun[event.cat, event.id] = event
            elif event.ph == "e" and (begun := self._begun.pop((event.cat, event.id), None)):
                self._pairs.setdefault(event.cat, []).append((begun, event))

    def timeline(self, source: str) -> Timeline:
        """The timeline, not attributed yet."""
        about = self._about
        return Timeline(
            source=source,
            tool=about.tool,
            product=about.product,
            schema=about.schema,
            graph_mode=about.graph_mode,
            processes={_process(int(pid)): name for pid, name in about.processes.items()},
            threads=[Thread(_process(pid), _thread(pid, tid), name) for pid, tid, name in about.threads],
            gpus={int(gpu): name for gpu, name in about.gpus.items()},
            ranges=[*self._pushed(), *self._started()],
            calls=[*self._calls("runtime"), *self._calls("driver")],
            work=self._work(),
            syncs=[self._sync(*pair) for pair in self._pairs.get("cuda_sync", [])],
            notes=about.notes,
            lost=about.lost,
            nodes=[
                Node(number, original, start, _process(pid), _thread(pid, tid))
                for number, original, start, pid, tid in about.nodes
            ],
        )

    def _pushed(self) -> list[Range]:
        return [self._range(event, _end(event), True) for event in self._slices.get("user_annotation", [])]

    def _started(self) -> list[Range]:
        pairs = self._pairs.get("user_annotation", [])
        return [self._range(begun, _ns(ended.ts), False) for begun, ended in pairs]

    def _range(self, event: _Event, end_ns: int, pushed: bool) -> Range:
        args, thread = event.args or _Args(), _thread(event.pid, event.tid)
        return Range(
            name=event.name,
            domain=args.domain,
            start_ns=_ns(event.ts),
            end_ns=end_ns,
            process=_process(event.pid),
            thread=thread,
            end_thread=thread if args.ended_by is None else _thread(event.pid, args.ended_by),
            pushed=pushed,
            payload=args.payload,
        )

    def _calls(self, api: Literal["runtime", "driver"]) -> list[Call]:
        return [
            Call(
                name=event.name,
                api=api,
                start_ns=_ns(event.ts),
                end_ns=_end(event),
                process=_process(event.pid),
                thread=_thread(event.pid, event.tid),
                correlation=(event.args or _Args()).correlation,
            )
            for event in self._slices.get(f"cuda_{api}", [])
        ]

    def _work(self) -> list[Work]:
        found = [
            self._piece(event, event.args or _Args())
            for category in sorted(set(CATEGORIES.values()))
            for event in self._slices.get(category, [])
        ]
        return sorted(found, key=lambda row: (row.start_ns, row.end_ns))

    def _piece(self, event: _Event, args: _Args) -> Work:
        copy = None
        if args.copies is not None:
            memory = (args.source_memory, args.target_memory)
            copy = Copy(event.name, *args.sides, *memory, args.copies, args.unified)
        return Work(
            kind=args.kind,
            name=event.name,
            start_ns=_ns(event.ts),
            end_ns=_end(event),
            process=_process(args.process),
            gpu=event.pid - FIRST_GPU,
            stream=args.stream,
            correlation=args.correlation,
            bytes=args.bytes,
            graph_node=args.graph_node,
            full_name=args.full_name or (event.name if args.kind == "kernel" else ""),
            shape=(*args.grid, *args.block),
            copy=copy,
        )

    def _sync(self, begun: _Event, ended: _Event) -> Sync:
        args = begun.args or _Args()
        return Sync(
            kind=begun.name,
            blocks=args.blocks,
            start_ns=_ns(begun.ts),
            end_ns=_ns(ended.ts),
            process=_process(begun.pid),
            gpu=args.gpu,
            stream=args.stream,
            correlation=args.correlation,
        )


def _ns(microseconds: float) -> int:
    return round(microseconds * 1e3)


def _end(event: _Event) -> int:
    return _ns(event.ts) + _ns(event.dur)
