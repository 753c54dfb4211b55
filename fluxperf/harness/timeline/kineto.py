"""Reads a trace of PyTorch's profiler (Kineto) into a timeline: Chrome's JSON, plain or compressed by gzip.

Operators and annotations of the program are ranges, in domains of those names; calls of CUDA and GPU work are joined by
correlation id, as everywhere. A trace says less than a capture: no nodes of graphs as they are created, and of waits
only the calls. Categories and arguments are those that Kineto writes (``output_json.cpp`` in pytorch/kineto).
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from fluxperf.errors import TimelineError
from fluxperf.harness.text import units
from fluxperf.harness.timeline.attribution import attribute
from fluxperf.harness.timeline.damage import Damages, Kind, note_of
from fluxperf.harness.timeline.kernel_names import short_name
from fluxperf.harness.timeline.model import (
    Call,
    Calls,
    Copy,
    Diagnostic,
    Overheads,
    Range,
    Ranges,
    Side,
    Thread,
    Timeline,
    Waits,
    Work,
    Works,
    process_of,
)
from fluxperf.harness.timeline.overheads import word_of
from fluxperf.harness.timeline.tables import Overhead
from fluxperf.words import plural

#: Domain of the ranges of each category.
_RANGES = {"user_annotation": "user_annotation", "cpu_op": "cpu_op"}
_CALLS = {"cuda_runtime": "runtime", "cuda_driver": "driver"}
_WORK = {"kernel": "kernel", "gpu_memcpy": "copy", "gpu_memset": "memset"}

#: Categories that are read, and the kind of their rows.
_READ = {
    **dict.fromkeys(_RANGES, Kind("ranges", "range")),
    **dict.fromkeys(_CALLS, Kind("cuda", "CUDA call")),
    "kernel": Kind("cuda", "kernel"),
    "gpu_memcpy": Kind("cuda", "copy", "copies"),
    "gpu_memset": Kind("cuda", "memset"),
    "overhead": Kind("", "overhead"),
}

#: Microseconds that no clock shows.
_LATEST_US = 1e15

#: Categories that repeat what others say, or that nothing is made of.
_PASSED_OVER = {"", "ac2g", "fwdbwd", "gpu_user_annotation", "Trace", "cuda_sync", "python_function", "cuda_event"}

_COPY = re.compile(r"Memcpy\s+(?P<from>[HDAP])to(?P<to>[HDAP])(?:\s*\((?P<source>.+?)\s*->\s*(?P<target>.+?)\))?")
_SIDES: dict[str, Side] = {"H": "host", "D": "device", "A": "device", "P": "device"}
_WORDS = {"H": "Host", "D": "Device", "A": "Array", "P": "Peer"}

#: Ids of processes and threads take 24 bits each.
_MOST_IDS = 1 << 24

#: Times of a trace since the epoch are rounded to a quarter of a microsecond by their own format.
_ROUNDED_NS = 1_000


class _Event(msgspec.Struct):
    """One event; other fields, and arguments that are not read, are passed over."""

    ph: str = ""
    name: str = ""
    cat: str = ""
    ts: float = math.inf
    dur: float = 0.0
    pid: Any = None
    tid: Any = None
    args: Any = None


class Document(msgspec.Struct):
    """Fields of a trace that are read."""

    events: list[_Event] = msgspec.field(name="traceEvents")
    devices: list[dict[str, Any]] = msgspec.field(name="deviceProperties", default_factory=list)
    version: Any = msgspec.field(name="schemaVersion", default=None)
    cupti: Any = msgspec.field(name="cupti_version", default=None)


def is_kineto(document: Document) -> bool:
    """Whether a trace is one of PyTorch's profiler, and not of some other program."""
    known = {*_RANGES, *_CALLS, *_WORK}
    return document.version is not None or any(event.cat in known for event in document.events)


def timeline_of(document: Document, path: Path) -> Timeline:
    """The attributed timeline of a trace.

    Raises:
        TimelineError: nothing of CUDA, and no operator, is in it.
    """
    reader = _Reader(document)
    timeline = reader.timeline(str(path))
    if not len(timeline.calls) and not len(timeline.work) and not len(timeline.ranges):
        raise TimelineError(
            f"{path}: the trace is empty: no operator, CUDA call or kernel is in it. Expected a trace of "
            "torch.profiler with activities CPU and CUDA."
        )
    attribute(timeline)
    return timeline


class _Reader:
    """Rows of a document's events."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._of: dict[str, list[_Event]] = defaultdict(list)
        self._ids: dict[tuple[str, Any], int] = {}
        self._taken: dict[str, set[int]] = defaultdict(set)
        self._unknown: Counter[str] = Counter()
        self._damages = Damages()
        for event in document.events:
            if event.ph == "X":
                self._take(event)

    def _take(self, event: _Event) -> None:
        """Puts an event to those of its category; counts it where its times cannot be true."""
        kind = _READ.get(event.cat)
        if kind is None:
            if event.cat not in _PASSED_OVER:
                self._unknown[event.cat] += 1
        elif abs(event.ts) >= _LATEST_US:
            self._damages.untimed(kind, 1)
        else:
            self._damages.reversed(kind, event.dur < 0)
            self._of[event.cat].append(event)

    def _id(self, kind: str, value: Any) -> int:
        """A number of 24 bits for an id of a process or thread, its own if it is one."""
        key = (kind, str(value))
        if key not in self._ids:
            number = value if isinstance(value, int) and 0 <= value < _MOST_IDS else _MOST_IDS - 1
            while number in self._taken[kind]:
                number -= 1
            self._taken[kind].add(number)
            self._ids[key] = number
        return self._ids[key]

    def _thread(self, event: _Event) -> int:
        process = self._id("process", event.pid)
        return process << 24 | self._id(f"thread {process}", event.tid)

    def timeline(self, source: str) -> Timeline:
        """The timeline, not attributed yet."""
        calls = [row for category, api in _CALLS.items() for row in self._calls(category, api)]
        owner = {call.correlation: call.process for call in calls if call.correlation}
        main = Counter(call.process for call in calls).most_common(1)
        alone = main[0][0] if main else self._id("process", 0) << 24
        work = [row for category, kind in _WORK.items() for row in self._work(category, kind, owner, alone)]
        ranges = list(self._ranges())
        busiest = Counter(call.thread for call in calls).most_common(1)
        threads = sorted({row.thread for rows in (calls, ranges) for row in rows})
        seen = sorted(set(map(process_of, threads)) | {row.process for row in work})
        names = self._names("process_name")
        version = f" of CUPTI {self._document.cupti}" if self._document.cupti else ""
        return Timeline(
            source=source,
            tool="PyTorch profiler",
            product=version.strip(),
            schema="" if self._document.version is None else str(self._document.version),
            graph_mode="Node",
            processes={process: names.get((process >> 24, None), "") for process in seen},
            threads=self._threads(threads),
            gpus=self._gpus(work),
            ranges=Ranges.of(_nesting(ranges)),
            calls=Calls.of(calls),
            work=Works.of(sorted(work, key=lambda row: (row.start_ns, row.end_ns))),
            syncs=Waits(),
            notes=list(self._notes(work, calls)),
            damage=self._damages.found(),
            diagnostics=[
                Diagnostic("info", f"{category}: {plural(number, 'event')} not read")
                for category, number in self._unknown.items()
            ],
            overheads=Overheads.of(self._overheads(busiest[0][0] if busiest else alone)),
        )

    def _notes(self, work: list[Work], calls: list[Call]) -> Iterator[str]:
        yield from note_of(self._damages.found())
        if not calls:
            yield "No CUDA calls were captured, so no work can be attributed to a range."
        if not work:
            yield "No GPU work was captured: nothing shows what the GPU did."
        if self._unknown:
            named = units.listing(list(self._unknown))
            yield f"Events of categories that are not known were not read: {named}."

    def _names(self, what: str) -> dict[tuple[int, Any], str]:
        found: dict[tuple[int, Any], str] = {}
        for event in self._document.events:
            name = event.args.get("name") if isinstance(event.args, dict) else None
            if event.ph == "M" and event.name == what and isinstance(name, str):
                tid = event.tid if what == "thread_name" else None
                found[self._id("process", event.pid), tid] = name
        return found

    def _threads(self, used: list[int]) -> list[Thread]:
        names = {(process, str(tid)): name for (process, tid), name in self._names("thread_name").items()}
        back = {(kind, number): value for (kind, value), number in self._ids.items()}
        found = []
        for thread in used:
            process, number = thread >> 24, thread & _MOST_IDS - 1
            value = back.get((f"thread {process}", number), "")
            found.append(Thread(process << 24, thread, names.get((process, value), "")))
        return found

    def _gpus(self, work: list[Work]) -> dict[int, str]:
        named = {row.get("id"): str(row.get("name", "")) for row in self._document.devices}
        return {gpu: named.get(gpu, "") for gpu in sorted({row.gpu for row in work})}

    def _ranges(self) -> Iterator[Range]:
        for category, domain in _RANGES.items():
            for event in self._of[category]:
                start, end = _times(event)
                thread = self._thread(event)
                yield Range(event.name, domain, start, end, thread, thread, pushed=True)

    def _calls(self, category: str, api: Any) -> Iterator[Call]:
        for event in self._of[category]:
            start, end = _times(event)
            thread = self._thread(event)
            yield Call(event.name, api, start, end, thread, _number(event, "correlation"))

    def _work(self, category: str, kind: Any, owner: dict[int, int], alone: int) -> Iterator[Work]:
        for event in self._of[category]:
            start, end = _times(event)
            correlation = _number(event, "correlation")
            name, full, shape = event.name, "", tuple[int, ...]()
            if kind == "kernel":
                name, full, shape = short_name(event.name), event.name, _shape(event)
            copy = _copy(event.name) if kind == "copy" else None
            yield Work(
                kind,
                "memset" if kind == "memset" else copy.direction if copy else name,
                start,
                end,
                owner.get(correlation, alone),
                max(0, _number(event, "device")),
                _number(event, "stream"),
                correlation,
                bytes=max(0, _number(event, "bytes")),
                graph_node=_number(event, "graph node id") or None,
                full_name=full,
                shape=shape,
                copy=copy,
            )

    def _overheads(self, thread: int) -> Iterator[Overhead]:
        """Overheads, which a trace gives to no thread: they are put to the one that calls most."""
        for event in self._of["overhead"]:
            word = word_of(event.name)
            if word:
                yield Overhead(word, *_times(event), thread)


def _times(event: _Event) -> tuple[int, int]:
    start = _ns(event.ts)
    return start, start + max(0, _ns(event.dur))


def _ns(microseconds: float) -> int:
    """Nanoseconds of a time; what is beyond any clock is 0."""
    return round(microseconds * 1e3) if abs(microseconds) < _LATEST_US else 0


def _number(event: _Event, name: str) -> int:
    """A whole number among the arguments, 0 for anything else."""
    value = event.args.get(name) if isinstance(event.args, dict) else None
    if isinstance(value, str) and value.isdecimal() and len(value) < 19:
        value = int(value)
    return int(value) if isinstance(value, int) and abs(value) < 1 << 61 else 0


def _shape(event: _Event) -> tuple[int, ...]:
    parts = [event.args.get(name) if isinstance(event.args, dict) else None for name in ("grid", "block")]
    whole = all(isinstance(part, list) and len(part) == 3 for part in parts)
    sizes = [size for part in parts for size in part] if whole else []  # type: ignore[union-attr]
    return tuple(sizes) if all(isinstance(size, int) for size in sizes) else ()


def _copy(name: str) -> Copy:
    found = _COPY.match(name)
    if found is None:
        return Copy(name or "copy", "", "", "Unknown", "Unknown", 1)
    source, target = found["from"], found["to"]
    return Copy(
        f"{_WORDS[source]}-to-{_WORDS[target]}",
        _SIDES[source],
        _SIDES[target],
        (found["source"] or "Unknown").strip().title(),
        (found["target"] or "Unknown").strip().title(),
        1,
    )


def _nesting(ranges: Iterable[Range]) -> list[Range]:
    """Ranges that end with the one around them, where rounding let them end a little after it."""
    found = []
    stacks: dict[int, list[int]] = defaultdict(list)
    for row in sorted(ranges, key=lambda row: (row.start_ns, -row.end_ns)):
        stack = stacks[row.thread]
        while stack and stack[-1] <= row.start_ns:
            stack.pop()
        end = row.end_ns
        if stack and stack[-1] < end <= stack[-1] + _ROUNDED_NS:
            end = stack[-1]
        stack.append(end)
        found.append(row if end == row.end_ns else msgspec.structs.replace(row, end_ns=end))
    return found
