"""Reads a trace of PyTorch's profiler (Kineto) into a timeline: Chrome's JSON, plain or compressed by gzip.

Operators and annotations of the program become ranges, in domains with those names. CUDA calls and GPU work are matched
by correlation id, as for other captures. A trace has less data than a capture: no creation of graph nodes, and only the
calls of waits. Categories and arguments are those that Kineto writes (``output_json.cpp`` in pytorch/kineto).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fluxperf.errors import TimelineError
from fluxperf.harness.text import units
from fluxperf.harness.timeline.attribution import attribute
from fluxperf.harness.timeline.columns import Column, codes, distinct, empty, groups, nest, numbered
from fluxperf.harness.timeline.damage import Damages, Kind, note_of
from fluxperf.harness.timeline.gpus import Gpus, gpus_of
from fluxperf.harness.timeline.kineto_events import KIND_OF, LATEST_US, Document, Event, numbers, times
from fluxperf.harness.timeline.model import (
    Api,
    Calls,
    Diagnostic,
    Overheads,
    Ranges,
    Thread,
    Timeline,
    Waits,
    Works,
    process_of,
)
from fluxperf.harness.timeline.overheads import KINDS, word_of
from fluxperf.harness.timeline.unanswered import add_unanswered
from fluxperf.words import plural

#: Domain of the ranges of each category.
_RANGES = {"user_annotation": "user_annotation", "cpu_op": "cpu_op"}
_CALLS: dict[str, Api] = {"cuda_runtime": "runtime", "cuda_driver": "driver"}
_WORK = ("kernel", "gpu_memcpy", "gpu_memset")

#: Categories that are read, with the kind of their rows.
_READ = {
    **dict.fromkeys(_RANGES, Kind("ranges", "range")),
    **dict.fromkeys(_CALLS, Kind("cuda", "CUDA call")),
    "kernel": Kind("cuda", "kernel"),
    "gpu_memcpy": Kind("cuda", "copy", "copies"),
    "gpu_memset": Kind("cuda", "memset"),
    "overhead": Kind("", "overhead"),
}

#: Names of categories in PyTorch 1.8 to 1.11, in lower case; they occur in several spellings.
_OLDER = {
    "operator": "cpu_op",
    "runtime": "cuda_runtime",
    "kernel": "kernel",
    "memcpy": "gpu_memcpy",
    "memset": "gpu_memset",
}

#: Categories that repeat others, or that are not used.
_PASSED_OVER = {"", "ac2g", "fwdbwd", "gpu_user_annotation", "Trace", "cuda_sync", "python_function", "cuda_event"}

#: Ids of processes and threads have 24 bits each.
_MOST_IDS = 1 << 24

#: Times since the epoch are rounded to a quarter of a microsecond by the format of the trace.
_ROUNDED_NS = 1_000


def is_kineto(document: Document) -> bool:
    """Whether a trace is from PyTorch's profiler."""
    known = {*_RANGES, *_CALLS, *_WORK}
    return document.version is not None or any(_category(event.cat) in known for event in document.events)


def _category(name: str) -> str:
    """The name of a category in current versions."""
    return name if name in _READ or name in _PASSED_OVER else _OLDER.get(name.lower(), name)


def timeline_of(document: Document, path: Path) -> Timeline:
    """The attributed timeline of a trace.

    Raises:
        TimelineError: it contains neither CUDA events nor operators.
    """
    reader = _Reader(document)
    timeline = reader.timeline(str(path))
    if not len(timeline.calls) and not len(timeline.work) and not len(timeline.ranges):
        raise TimelineError(
            f"{path}: expected a trace of torch.profiler with activities CPU and CUDA, found no operator, CUDA "
            "call or kernel in it. Trace with both activities."
        )
    attribute(timeline)
    add_unanswered(timeline)
    return timeline


class _Reader:
    """Builds rows from the events of a document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._of: dict[str, list[Event]] = defaultdict(list)
        self._ids: dict[tuple[str, Any], int] = {}
        self._taken: dict[str, set[int]] = defaultdict(set)
        self._unknown: Counter[str] = Counter()
        self._damages = Damages()
        self._ambiguous = 0
        self._named: dict[str, list[Event]] = defaultdict(list)
        for event in document.events:
            if event.ph == "X":
                self._take(event)
            elif event.ph == "M":
                self._named[event.name].append(event)

    def _take(self, event: Event) -> None:
        """Adds an event to the list of its category, and counts it if its times are impossible."""
        kind = _READ.get(event.cat)
        if kind is None:
            event.cat = _category(event.cat)
            kind = _READ.get(event.cat)
        if kind is None:
            if event.cat not in _PASSED_OVER:
                self._unknown[event.cat] += 1
        elif abs(event.ts) >= LATEST_US or math.isnan(event.dur):
            self._damages.untimed(kind, 1)
        else:
            if event.dur < 0:
                self._damages.reversed(kind, 1)
            self._of[event.cat].append(event)

    def _id(self, kind: str, value: Any) -> int:
        """A 24-bit number for an id of a process or thread; the id itself if it fits."""
        key = (kind, str(value))
        if key not in self._ids:
            number = value if isinstance(value, int) and 0 <= value < _MOST_IDS else _MOST_IDS - 1
            while number in self._taken[kind]:
                number -= 1
            self._taken[kind].add(number)
            self._ids[key] = number
        return self._ids[key]

    def _of_category(self, *categories: str) -> list[Event]:
        return [event for category in categories for event in self._of[category]]

    def _threads_of(self, events: Sequence[Event]) -> Column:
        """The thread of each event."""
        places, keys = numbered((str(event.pid), str(event.tid)) for event in events)
        firsts = dict(zip(reversed(places.tolist()), reversed(events), strict=True))
        threads = []
        for place in range(len(keys)):
            process = self._id("process", firsts[place].pid)
            threads.append(process << 24 | self._id(f"thread {process}", firsts[place].tid))
        return np.array(threads, np.int64)[places] if len(events) else empty()

    def timeline(self, source: str) -> Timeline:
        """The timeline, before attribution."""
        calls = self._calls()
        main = Counter(calls.process.tolist()).most_common(1)
        alone = main[0][0] if main else self._id("process", 0) << 24
        work, ranges = self._work(calls, alone), self._ranges()
        gpus = self._numbered_gpus(work)
        busiest = Counter(calls.thread.tolist()).most_common(1)
        threads = sorted({*distinct(calls.thread).tolist(), *distinct(ranges.thread).tolist()})
        seen = sorted(set(map(process_of, threads)) | set(distinct(work.process).tolist()))
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
            gpus={gpu: gpus.names[gpu] for gpu in distinct(work.gpu).tolist()},
            ranges=ranges,
            calls=calls,
            work=work,
            syncs=Waits(),
            notes=[*self._notes(work, calls), *gpus.notes],
            damage=self._damages.found(),
            diagnostics=[
                Diagnostic("info", f"{category}: {plural(number, 'event')} not read")
                for category, number in self._unknown.items()
            ],
            overheads=self._overheads(busiest[0][0] if busiest else alone),
        )

    def _notes(self, work: Works, calls: Calls) -> Iterator[str]:
        yield from note_of(self._damages.found())
        if not len(calls):
            yield "No CUDA calls were captured, so no work can be attributed to a range."
        if not len(work):
            yield "No GPU work was captured, so nothing is known about the activity of the GPU."
        if self._ambiguous:
            yield (
                "Several processes use the same ids, so it is unknown which of them launched "
                f"{plural(self._ambiguous, 'piece')} of GPU work. Read the trace of each process separately."
            )
        if self._unknown:
            named = units.listing(list(self._unknown))
            yield f"Events of unknown categories were not read: {named}."

    def _names(self, what: str) -> dict[tuple[int, Any], str]:
        found: dict[tuple[int, Any], str] = {}
        for event in self._named[what]:
            name = event.args.name if event.args else None
            if isinstance(name, str):
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

    def _numbered_gpus(self, work: Works) -> Gpus:
        """Keeps GPUs of several processes separate, as each process may number them differently."""
        names = {
            (-1, row["id"]): str(row.get("name", "")) for row in self._document.devices if type(row.get("id")) is int
        }
        numbers, firsts = codes(work.process, work.gpu) if len(work) else (empty(), empty())
        used = [(int(work.process[first]), int(work.gpu[first])) for first in firsts.tolist()]
        found = gpus_of(used, {}, names)
        work.gpu = np.array([found.numbers[key] for key in used], np.int64)[numbers]
        return found

    def _ranges(self) -> Ranges:
        """Ranges ordered by start, the longer first."""
        events = self._of_category(*_RANGES)
        start_ns, end_ns = times(events)
        order = np.lexsort((-end_ns, start_ns))
        thread, start_ns = self._threads_of(events)[order], start_ns[order]
        number = len(events)
        name, names = numbered(events[at].name for at in order.tolist())
        domain, domains = numbered(_RANGES[events[at].cat] for at in order.tolist())
        return Ranges(
            names,
            domains,
            name=name,
            domain=domain,
            start_ns=start_ns,
            end_ns=_nesting(thread, start_ns, end_ns[order]),
            thread=thread,
            end_thread=thread,
            pushed=empty(number, 1),
            closed=empty(number, 1),
        )

    def _calls(self) -> Calls:
        events = self._of_category(*_CALLS)
        start_ns, end_ns = times(events)
        what, kinds = numbered((event.name, _CALLS[event.cat]) for event in events)
        return Calls(
            kinds,
            what=what,
            start_ns=start_ns,
            end_ns=end_ns,
            thread=self._threads_of(events),
            correlation=numbers(events, "correlation"),
        )

    def _work(self, calls: Calls, alone: int) -> Works:
        """Work ordered by time, each under the process whose call launched it."""
        owners, shared = _owners(calls)
        parts = []
        for category in _WORK:
            events = self._of[category]
            start_ns, end_ns = times(events)
            what, kinds = numbered(map(KIND_OF[category], events))
            correlation = numbers(events, "correlation")
            ambiguous = np.isin(correlation, shared)
            self._ambiguous += int(ambiguous.sum())
            correlation[ambiguous] = 0
            process = [owners.get(number, alone) for number in correlation.tolist()]
            part = Works(
                kinds,
                what=what,
                start_ns=start_ns,
                end_ns=end_ns,
                process=np.array(process, np.int64),
                gpu=np.maximum(0, numbers(events, "device")),
                stream=numbers(events, "stream"),
                correlation=correlation,
                bytes=np.maximum(0, numbers(events, "bytes")),
                graph_node=numbers(events, "node"),
            )
            parts.append(part)
        return Works.joined([part for part in parts if len(part)])

    def _overheads(self, thread: int) -> Overheads:
        """Overheads. A trace assigns them to no thread, so they are assigned to the thread with the most calls."""
        events = [event for event in self._of["overhead"] if word_of(event.name)]
        start_ns, end_ns = times(events)
        what = np.array([KINDS.index(word_of(event.name)) for event in events], np.int64)
        return Overheads(KINDS, what=what, start_ns=start_ns, end_ns=end_ns, thread=empty(len(events), thread))


def _owners(calls: Calls) -> tuple[dict[int, int], Column]:
    """The process of each correlation id, and the ids that several processes use, as in merged traces."""
    _, firsts = codes(calls.process, calls.correlation) if len(calls) else (empty(), empty())
    ids = calls.correlation[firsts]
    owners = dict(zip(ids.tolist(), calls.process[firsts].tolist(), strict=True))
    owners.pop(0, None)
    known, times = np.unique(ids, return_counts=True)
    return owners, known[(times > 1) & (known != 0)]


def _nesting(threads: Column, starts: Column, ends: Column) -> Column:
    """Ends of ranges. If rounding let a range end slightly after the range around it, it gets the end of that range.

    Args:
        threads: of the ranges.
        starts: in ascending order; of ranges that start together the longer first.
        ends: in nanoseconds.
    """
    found = ends.copy()
    for _, rows in groups(threads):
        if nest(starts[rows], ends[rows]):
            continue
        stack: list[int] = []
        for row, start, end in zip(rows.tolist(), starts[rows].tolist(), ends[rows].tolist(), strict=True):
            while stack and stack[-1] <= start:
                stack.pop()
            if stack and stack[-1] < end <= stack[-1] + _ROUNDED_NS:
                found[row] = stack[-1]
            stack.append(int(found[row]))
    return found
