"""Reads a trace that `trace` wrote back into a timeline.

Traces of other programs have the same format, but lack data for attribution: launch calls by correlation id, sides and
memory of copies. They are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from fluxperf.errors import TimelineError
from fluxperf.harness.text.escape import shown
from fluxperf.harness.timeline.attribution import attribute
from fluxperf.harness.timeline.columns import distinct
from fluxperf.harness.timeline.model import (
    Call,
    Calls,
    Copy,
    Damage,
    Diagnostic,
    Fault,
    Faults,
    Loss,
    Node,
    Of,
    Overheads,
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
from fluxperf.harness.timeline.tables import Overhead
from fluxperf.harness.timeline.trace import CATEGORIES, VERSION
from fluxperf.harness.timeline.trace_tracks import FIRST_GPU

_WRITE = "fluxperf profile --output FOLDER/NAME`, or `fluxperf timeline FILE --trace OUT.json"


_Id = Annotated[int, msgspec.Meta(ge=0, lt=1 << 24)]
_Track = Annotated[int, msgspec.Meta(ge=0, lt=1 << 26)]
_Pid = Annotated[int, msgspec.Meta(ge=0, lt=1 << 25)]
_Number = Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]
_Time = Annotated[float, msgspec.Meta(ge=0, le=5e15)]


class _About(msgspec.Struct):
    """The trace's facts about itself."""

    fluxperf: int
    source: str = ""
    tool: str = ""
    product: str = ""
    schema: str = ""
    graph_mode: str = msgspec.field(default="", name="graph mode")
    processes: dict[int, str] = {}
    threads: list[tuple[_Pid, _Id, str]] = []
    gpus: dict[int, str] = {}
    nodes: list[tuple[int, int | None, int, _Pid, _Id]] = []
    notes: list[str] = []
    lost: bool = False
    losses: list[tuple[Literal["cuda", "copies", "ranges"], str, _Pid]] = []
    damage: list[tuple[Of, str]] = []
    diagnostics: list[tuple[str, str, _Pid]] = []
    overheads: list[tuple[str, int, int, _Pid, _Id]] = []
    faults: list[tuple[Side, str, int, int, _Pid, _Id, _Number]] = msgspec.field(default=[], name="page faults")
    faults_of: list[Side] = msgspec.field(default=[], name="page faults of")


class _Args(msgspec.Struct):
    """Arguments of an event: of ranges, calls, work and synchronizations."""

    domain: str = ""
    payload: int | None = None
    closed: bool = True
    thread: _Id | None = None
    ended_by: int | None = msgspec.field(default=None, name="ended by")
    correlation: int = 0
    process: _Pid = 0
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
    cause: str = ""


class _Event(msgspec.Struct):
    """One event. Its fields depend on its phase."""

    ph: str
    name: str = ""
    cat: str = ""
    ts: _Time = 0.0
    dur: _Time = 0.0
    pid: _Pid = 0
    tid: _Track = 0
    id: int | str = 0
    args: _Args | None = None


class _Document(msgspec.Struct):
    other: _About = msgspec.field(name="otherData")
    events: list[_Event] = msgspec.field(name="traceEvents")


def read_trace(path: Path, text: bytes | None = None) -> Timeline:
    """Reads a trace and attributes its work to ranges.

    Args:
        path: of the file.
        text: its content, if it was read already.

    Raises:
        TimelineError: the file cannot be read, is damaged, or is not a trace of fluxperf.
    """
    try:
        text = path.read_bytes() if text is None else text
    except OSError as error:
        raise TimelineError(
            f"cannot read {path}: {error.strerror}. Expected a trace. Make one with `{_WRITE}`."
        ) from error
    try:
        document = msgspec.json.decode(text, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if document.other.fluxperf != VERSION:
        raise TimelineError(
            f"cannot read {path}: expected a trace of version {VERSION}, got {document.other.fluxperf}. Read it "
            "with the version of fluxperf that wrote it."
        )
    try:
        timeline = _Reader(document).timeline(str(path))
    except _ContradictionError as error:
        raise _damaged(path, str(error)) from error
    before, timeline.notes = timeline.notes, []
    attribute(timeline)
    timeline.notes = list(dict.fromkeys([*before, *timeline.notes]))
    return timeline


def _process(pid: int) -> int:
    return pid << 24


def _thread(pid: int, tid: int) -> int:
    return _process(pid) | tid


class _ContradictionError(Exception):
    """The fields of an event contradict each other."""


def _damaged(path: Path, problem: str) -> TimelineError:
    return TimelineError(
        f"cannot read {path}: expected a complete trace of fluxperf, got: {shown(problem, 200)}. It is damaged, "
        f"truncated, or from another program. Make one with `{_WRITE}`."
    )


class _Reader:
    """Builds rows from the events of a document."""

    def __init__(self, document: _Document) -> None:
        self._about = document.other
        self._begun: dict[str, list[_Event]] = {}
        self._ended: dict[tuple[str, int | str], _Event] = {}
        for event in document.events:
            if event.ph in ("X", "b"):
                self._begun.setdefault(event.cat, []).append(event)
            elif event.ph == "e":
                self._ended[event.cat, event.id] = event

    def _of(self, category: str) -> Iterator[tuple[_Event, int]]:
        """Slices and asynchronous events of a category, in their order, with their end times."""
        for event in self._begun.get(category, []):
            if event.ph == "X":
                yield event, _ns(event.ts) + _ns(event.dur)
            elif (event.cat, event.id) in self._ended:
                yield event, _ns(self._ended[event.cat, event.id].ts)

    def timeline(self, source: str) -> Timeline:
        """The timeline, before attribution."""
        about = self._about
        ranges = Ranges.of(self._range(event, end_ns) for event, end_ns in self._of("user_annotation"))
        calls = Calls.of([*self._calls("runtime"), *self._calls("driver")])
        work = Works.of(self._work())
        losses = [Loss(of, text, _process(pid)) for of, text, pid in about.losses]
        if about.lost and not losses:  # format of older versions of fluxperf
            losses = [Loss("cuda", "events were lost")]
        named = {_process(pid): name for pid, name in about.processes.items()}
        seen = {int(process) for rows in (ranges.process, calls.process, work.process) for process in distinct(rows)}
        return Timeline(
            source=source,
            tool=about.tool,
            product=about.product,
            schema=about.schema,
            graph_mode=about.graph_mode,
            processes=named | dict.fromkeys(sorted(seen - set(named)), ""),
            threads=[Thread(_process(pid), _thread(pid, tid), name) for pid, tid, name in about.threads],
            gpus=about.gpus,
            ranges=ranges,
            calls=calls,
            work=work,
            syncs=Waits.of(self._sync(event, end_ns) for event, end_ns in self._of("cuda_sync")),
            notes=about.notes,
            losses=losses,
            damage=[Damage(*row) for row in about.damage],
            diagnostics=[Diagnostic(severity, text, _process(pid)) for severity, text, pid in about.diagnostics],
            overheads=Overheads.of(
                Overhead(kind, start, end, _thread(pid, tid)) for kind, start, end, pid, tid in about.overheads
            ),
            faults=Faults.of(
                Fault(side, access, start, end, _process(pid), gpu, number)
                for side, access, start, end, pid, gpu, number in about.faults
            ),
            faults_of=frozenset(about.faults_of),
            nodes=[
                Node(number, original, start, _process(pid), _thread(pid, tid))
                for number, original, start, pid, tid in about.nodes
            ],
        )

    def _range(self, event: _Event, end_ns: int) -> Range:
        args = event.args or _Args()
        thread = _thread(event.pid, event.tid if args.thread is None else args.thread)
        return Range(
            name=event.name,
            domain=args.domain,
            start_ns=_ns(event.ts),
            end_ns=max(_ns(event.ts), end_ns),
            thread=thread,
            end_thread=thread if args.ended_by is None else _thread(event.pid, args.ended_by),
            pushed=args.ended_by is None,
            payload=args.payload,
            closed=args.closed,
        )

    def _calls(self, api: Literal["runtime", "driver"]) -> list[Call]:
        return [
            Call(
                name=event.name,
                api=api,
                start_ns=_ns(event.ts),
                end_ns=end_ns,
                thread=_thread(event.pid, event.tid),
                correlation=(event.args or _Args()).correlation,
            )
            for event, end_ns in self._of(f"cuda_{api}")
        ]

    def _work(self) -> list[Work]:
        found = [
            self._piece(event, end_ns, event.args or _Args())
            for category in sorted(set(CATEGORIES.values()))
            for event, end_ns in self._of(category)
        ]
        return sorted(found, key=lambda row: (row.start_ns, row.end_ns))

    def _piece(self, event: _Event, end_ns: int, args: _Args) -> Work:
        # Events without a kind are kernels. Without this check, a copy that lost its kind would count as a kernel.
        if CATEGORIES[args.kind] != event.cat:
            raise _ContradictionError(f"an event of the category {event.cat} whose kind is {args.kind}")
        copy = None
        if args.copies is not None:
            memory = (args.source_memory, args.target_memory)
            copy = Copy(event.name, *args.sides, *memory, args.copies, args.unified, args.cause)
        return Work(
            kind=args.kind,
            name=event.name,
            start_ns=_ns(event.ts),
            end_ns=end_ns,
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

    def _sync(self, event: _Event, end_ns: int) -> Sync:
        args = event.args or _Args()
        return Sync(
            kind=event.name,
            blocks=args.blocks,
            start_ns=_ns(event.ts),
            end_ns=max(_ns(event.ts), end_ns),
            process=_process(event.pid),
            gpu=args.gpu,
            stream=args.stream,
            correlation=args.correlation,
        )


def _ns(microseconds: float) -> int:
    return round(microseconds * 1e3)
