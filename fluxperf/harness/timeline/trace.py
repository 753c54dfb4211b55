"""A timeline in the trace event format, which ui.perfetto.dev and chrome://tracing open.

Host threads are tracks of their process; each GPU is a process of its own whose tracks are streams. Slices of one
track must nest, so push/pop ranges and calls are slices of their thread, start/end ranges and synchronizations are
asynchronous events, and work that overlaps other work of its stream goes to a further track of that stream. An arrow
leads from each launch call to its work. Times are microseconds since the first event.

The trace holds all of the timeline: `trace_reading` reads it back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from fluxperf.harness.timeline.model import NONE, Thread, Timeline, Work, process_id, thread_id
from fluxperf.harness.timeline.places import Places

#: Categories as PyTorch's profiler names them, so that tools for its traces read these.
CATEGORIES = {"kernel": "kernel", "copy": "gpu_memcpy", "memset": "gpu_memset", "graph": "kernel"}

#: Pids of GPUs begin above those of any system.
FIRST_GPU = 1 << 24

#: Version of what fluxperf adds to the format.
VERSION = 1


def trace(timeline: Timeline) -> str:
    """The timeline as a JSON document in the trace event format."""
    writer = _Writer(timeline)
    events = [*writer.ranges(), *writer.calls(), *writer.work(), *writer.syncs()]
    document = {
        "displayTimeUnit": "ns",
        "otherData": writer.about(),
        "traceEvents": [*writer.names(), *events],
    }
    return msgspec.json.encode(document).decode()


class _Writer:
    """Events of one timeline, and the tracks that they need."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._places = Places(timeline)
        rows: tuple[list[Any], ...] = (timeline.ranges, timeline.calls, timeline.work, timeline.syncs)
        self._first_ns = min((row.start_ns for group in rows for row in group), default=0)
        # Two machines of one capture may use one pid, so processes are numbered where pids are not unique.
        pids = [process_id(process) for process in timeline.processes]
        unique = len(set(pids)) == len(pids)
        self._pids = {
            process: pid if unique else number
            for number, (process, pid) in enumerate(zip(timeline.processes, pids, strict=True), start=1)
        }
        self._lanes: dict[tuple[int, int], list[int]] = {}
        self._tracks: dict[tuple[int, int, int], int] = {}

    def about(self) -> dict[str, Any]:
        """What the events do not say."""
        timeline = self._timeline
        return {
            "fluxperf": VERSION,
            "source": timeline.source,
            "tool": timeline.tool,
            "product": timeline.product,
            "schema": timeline.schema,
            "graph mode": timeline.graph_mode,
            "processes": {self._pids[process]: name for process, name in timeline.processes.items()},
            "threads": [[self._pids[row.process], thread_id(row.id), row.name] for row in self._threads()],
            "gpus": timeline.gpus,
            "nodes": [
                [row.id, row.original, row.start_ns - self._first_ns, self._pids[row.process], thread_id(row.thread)]
                for row in timeline.nodes
                if row.process in self._pids
            ],
            "notes": timeline.notes,
            "lost": timeline.lost,
        }

    def _threads(self) -> list[Thread]:
        return [row for row in self._timeline.threads if row.process in self._pids]

    def _at(self, time_ns: int) -> float:
        return (time_ns - self._first_ns) / 1e3

    def _slice(
        self, name: str, category: str, row: Any, place: tuple[int, int], args: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "ph": "X",
            "name": name,
            "cat": category,
            "ts": self._at(row.start_ns),
            "dur": (row.end_ns - row.start_ns) / 1e3,
            "pid": place[0],
            "tid": place[1],
            "args": args,
        }

    def names(self) -> Iterator[dict[str, Any]]:
        """Names of processes and tracks; call it when all other events are made."""
        timeline = self._timeline
        for process, name in timeline.processes.items():
            yield _named("process_name", self._pids[process], 0, f"{name or 'process'} ({process_id(process)})")
        for thread in self._threads():
            label = f"{thread.name or 'thread'} ({thread_id(thread.id)})"
            yield _named("thread_name", self._pids[thread.process], thread_id(thread.id), label)
        for gpu, name in timeline.gpus.items():
            yield _named("process_name", FIRST_GPU + gpu, 0, f"GPU {gpu} {name}".strip())
        for (gpu, stream, lane), track in self._tracks.items():
            also = f", overlapping {lane}" if lane else ""
            yield _named("thread_name", FIRST_GPU + gpu, track, f"stream {stream}{also}")

    def ranges(self) -> Iterator[dict[str, Any]]:
        """Push/pop ranges as slices, start/end ranges as pairs of asynchronous events."""
        for number, row in enumerate(self._timeline.ranges):
            place = (self._pids[row.process], thread_id(row.thread))
            args: dict[str, Any] = {"domain": row.domain}
            if row.payload is not None:
                args["payload"] = row.payload
            if row.pushed:
                yield self._slice(row.name, "user_annotation", row, place, args)
            else:
                args["ended by"] = thread_id(row.end_thread)
                yield from self._pair(number, row.name, "user_annotation", row, place, args)

    def _pair(
        self, number: int, name: str, category: str, row: Any, place: tuple[int, int], args: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """An asynchronous event: its beginning and its end."""
        at = {"name": name, "cat": category, "id": number, "pid": place[0], "tid": place[1], "args": args}
        for phase, time_ns in (("b", row.start_ns), ("e", row.end_ns)):
            yield {"ph": phase, **at, "ts": self._at(time_ns)}

    def calls(self) -> Iterator[dict[str, Any]]:
        """CUDA calls as slices of their threads."""
        for row in self._timeline.calls:
            place = (self._pids[row.process], thread_id(row.thread))
            yield self._slice(row.name, f"cuda_{row.api}", row, place, {"correlation": row.correlation})

    def work(self) -> Iterator[dict[str, Any]]:
        """GPU work as slices of streams, each with an arrow from its launch call."""
        for number, row in enumerate(self._timeline.work):
            place = (FIRST_GPU + row.gpu, self._track(row))
            yield self._slice(row.name, CATEGORIES[row.kind], row, place, self._args(row))
            if row.call == NONE:
                continue
            call = self._timeline.calls[row.call]
            flow = {"name": "launch", "cat": "ac2g", "id": number}
            origin = {"pid": self._pids[call.process], "tid": thread_id(call.thread), "ts": self._at(call.start_ns)}
            yield {"ph": "s", **flow, **origin}
            yield {"ph": "f", "bp": "e", **flow, "pid": place[0], "tid": place[1], "ts": self._at(row.start_ns)}

    def syncs(self) -> Iterator[dict[str, Any]]:
        """Synchronizations as pairs of asynchronous events, of the thread that waited where it is known."""
        for number, row in enumerate(self._timeline.syncs):
            thread = NONE if row.call == NONE else self._timeline.calls[row.call].thread
            place = (self._pids.get(row.process, process_id(row.process)), 0 if thread == NONE else thread_id(thread))
            args = {"correlation": row.correlation, "gpu": row.gpu, "stream": row.stream, "blocks": row.blocks}
            yield from self._pair(number, row.kind, "cuda_sync", row, place, args)

    def _track(self, row: Work) -> int:
        """The stream's first track that is free when the work begins."""
        lanes = self._lanes.setdefault((row.gpu, row.stream), [])
        lane = next((lane for lane, until in enumerate(lanes) if until <= row.start_ns), len(lanes))
        lanes[lane : lane + 1] = [row.end_ns]
        return self._tracks.setdefault((row.gpu, row.stream, lane), len(self._tracks) + 1)

    def _args(self, row: Work) -> dict[str, Any]:
        args: dict[str, Any] = {
            "correlation": row.correlation,
            "stream": row.stream,
            "process": self._pids.get(row.process, process_id(row.process)),
            "range": self._places.path_of(row),
        }
        if row.kind != "kernel":
            args |= {"kind": row.kind, "bytes": row.bytes}
        if row.shape:
            args |= {"grid": row.shape[:3], "block": row.shape[3:]}
        if row.full_name and row.full_name != row.name:
            args["full name"] = row.full_name
        if row.graph_node is not None:
            args["graph node"] = row.graph_node
        if row.copy is not None:
            args |= {"copies": row.copy.count, "from": row.copy.source_memory, "to": row.copy.target_memory}
            args |= {"sides": [row.copy.source, row.copy.target], "unified": row.copy.unified}
        return args


def _named(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}
