"""A timeline in the trace event format, which ui.perfetto.dev and chrome://tracing open.

Host threads are tracks of their process; each GPU is a process of its own whose tracks are streams. Slices of one
track must nest: Perfetto drops a complete event that begins inside of another and ends after it
(``slice_drop_overlapping_complete_event`` in its ``slice_tracker.cc``). So a thread has a track for its calls and the
domain with the most ranges, and one for each other domain, since every domain has a stack of its own; work that
overlaps other work of its stream goes to a further track of that stream; start/end ranges, ranges never closed,
synchronizations, and what does not nest in spite of all this are asynchronous events. An arrow leads from each launch
call to its work. Times are microseconds since the first event.

The trace holds all of the timeline: `trace_reading` reads it back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np

from fluxperf.harness.timeline.columns import Column
from fluxperf.harness.timeline.model import NONE, Thread, Timeline, What, process_id, process_of, thread_id
from fluxperf.harness.timeline.places import Places

#: Categories as PyTorch's profiler names them, so that tools for its traces read these.
CATEGORIES = {"kernel": "kernel", "copy": "gpu_memcpy", "memset": "gpu_memset", "graph": "kernel"}

#: Pids of GPUs, and ids of further tracks of a thread, begin above those of any system.
FIRST_GPU = 1 << 24
FIRST_TRACK = 1 << 24

#: Version of what fluxperf adds to the format.
VERSION = 1

#: Events that are encoded at once.
_CHUNK = 20_000


def trace(timeline: Timeline) -> str:
    """The timeline as a JSON document in the trace event format."""
    return b"".join(trace_parts(timeline)).decode()


def trace_parts(timeline: Timeline) -> Iterator[bytes]:
    """`trace` in pieces, which a large timeline is written in."""
    writer = _Writer(timeline)
    # Perfetto has read nanoseconds where the unit of display is them; times here are microseconds, as ever.
    yield b'{"displayTimeUnit":"ms","otherData":' + _json(writer.about()).encode() + b',"traceEvents":['
    between = ""
    held: list[str] = []
    for event in writer.events():
        held.append(event)
        if len(held) == _CHUNK:
            yield (between + ",".join(held)).encode()
            between, held = ",", []
    if held:
        yield (between + ",".join(held)).encode()
    yield b"]}"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


class _Track(NamedTuple):
    """Slices of one thread that share a track: ranges of a domain, and perhaps calls."""

    pid: int
    tid: int
    thread: int
    ranges: Column
    calls: Column


class _Writer:
    """Events of one timeline, and the tracks that they need."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._places = Places(timeline)
        rows = (timeline.ranges, timeline.calls, timeline.work, timeline.syncs)
        self._first_ns = min((int(group.start_ns.min()) for group in rows if len(group)), default=0)
        # Two machines of one capture may use one pid, so processes are numbered where pids are not unique.
        pids = [process_id(process) for process in timeline.processes]
        unique = len(set(pids)) == len(pids)
        self._pids = {
            process: pid if unique else number
            for number, (process, pid) in enumerate(zip(timeline.processes, pids, strict=True), start=1)
        }
        self._streams: dict[tuple[int, int, int, int], int] = {}
        self._domains: dict[tuple[int, int], int] = {}

    def about(self) -> dict[str, Any]:
        """Facts about the capture that its events lack."""
        timeline, first = self._timeline, self._first_ns
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
                [row.id, row.original, row.start_ns - self._first_ns, *self._where(row.thread)]
                for row in timeline.nodes
                if row.process in self._pids
            ],
            "notes": timeline.notes,
            "lost": timeline.lost,
            "losses": [[row.of, row.text, self._pid(row.process)] for row in timeline.losses],
            "diagnostics": [[row.severity, row.text, self._pid(row.process)] for row in timeline.diagnostics],
            "overheads": [
                [row.kind, row.start_ns - first, row.end_ns - first, *self._where(row.thread)]
                for row in timeline.overheads
                if process_of(row.thread) in self._pids
            ],
        }

    def _pid(self, process: int) -> int:
        return self._pids.get(process, process_id(process))

    def _where(self, thread: int) -> list[int]:
        return [self._pid(process_of(thread)), thread_id(thread)]

    def _threads(self) -> list[Thread]:
        return [row for row in self._timeline.threads if row.process in self._pids]

    def _us(self, times_ns: Column) -> list[float]:
        """Microseconds whose double, times 1000 and cut, is the number of nanoseconds: so Perfetto reads them."""
        found = times_ns / 1e3
        short = (found * 1e3).astype(np.int64) < times_ns
        found[short] = np.nextafter(found[short], np.inf)
        return list(found.tolist())

    def events(self) -> Iterator[str]:
        """All events: names of tracks last, since what the others need is known then."""
        for track in self._tracks():
            yield from self._of_thread(track)
        yield from self._started()
        yield from self._work()
        yield from self._syncs()
        yield from self._names()

    def _names(self) -> Iterator[str]:
        timeline = self._timeline
        for process, name in timeline.processes.items():
            yield _named("process_name", self._pids[process], 0, f"{name or 'process'} ({process_id(process)})")
        labels = {row.id: f"{row.name or 'thread'} ({thread_id(row.id)})" for row in self._threads()}
        for row in self._threads():
            yield _named("thread_name", self._pids[row.process], thread_id(row.id), labels[row.id])
        for (thread, domain), track in self._domains.items():
            name = timeline.ranges.domains[domain] or "default"
            label = f"{labels.get(thread, 'thread')}, domain {name}"
            yield _named("thread_name", self._pid(process_of(thread)), track, label)
        for gpu, name in timeline.gpus.items():
            yield _named("process_name", FIRST_GPU + gpu, 0, f"GPU {gpu} {name}".strip())
        several = len({process for _, process, _, _ in self._streams}) > 1
        for (gpu, process, stream, lane), track in self._streams.items():
            of = f" of process {process_id(process)}" if several else ""
            also = f", overlapping {lane}" if lane else ""
            yield _named("thread_name", FIRST_GPU + gpu, track, f"stream {stream}{of}{also}")

    def _tracks(self) -> Iterator[_Track]:
        """Tracks of threads: calls and the domain of most ranges on that of the thread, other domains on their own."""
        ranges, calls = self._timeline.ranges, self._timeline.calls
        slices = np.flatnonzero((ranges.pushed > 0) & (ranges.closed > 0))
        counts: dict[int, Counter[int]] = {}
        for thread, domain in zip(ranges.thread[slices].tolist(), ranges.domain[slices].tolist(), strict=True):
            counts.setdefault(thread, Counter())[domain] += 1
        none = np.zeros(0, np.int64)
        for thread in sorted({*counts, *np.unique(calls.thread).tolist()}):
            pid, tid = self._where(thread)
            own = slices[ranges.thread[slices] == thread]
            domains = [domain for domain, _ in counts.get(thread, Counter()).most_common()]
            called = np.flatnonzero(calls.thread == thread)
            first = own[ranges.domain[own] == domains[0]] if domains else none
            yield _Track(pid, tid, thread, first, called)
            for domain in domains[1:]:
                track = self._domains[thread, domain] = FIRST_TRACK + len(self._domains)
                yield _Track(pid, track, thread, own[ranges.domain[own] == domain], none)

    def _of_thread(self, track: _Track) -> Iterator[str]:
        """Slices of a track, of those that begin together the longer first; what does not nest as pairs of events."""
        ranges, calls = self._timeline.ranges, self._timeline.calls
        starts = np.concatenate((ranges.start_ns[track.ranges], calls.start_ns[track.calls]))
        ends = np.concatenate((ranges.end_ns[track.ranges], calls.end_ns[track.calls]))
        order = np.lexsort((np.arange(len(starts)), -ends, starts))
        ts, dur = self._us(starts - self._first_ns), self._us(ends - starts)
        until = self._us(ends - self._first_ns)
        texts = [*map(self._range_text, track.ranges.tolist()), *self._call_texts(track.calls)]
        place = f'"pid":{track.pid},"tid":{track.tid}'
        stack: list[int] = []
        for at, start, end in zip(order.tolist(), starts[order].tolist(), ends[order].tolist(), strict=True):
            while stack and stack[-1] <= start:
                stack.pop()
            if stack and end > stack[-1]:
                yield from _pair(f"n{track.thread}.{at}", texts[at], place, ts[at], until[at])
                continue
            stack.append(end)
            yield f'{{"ph":"X",{texts[at]},{place},"ts":{ts[at]},"dur":{dur[at]}}}'

    def _range_text(self, index: int) -> str:
        row = self._timeline.ranges[index]
        args: dict[str, Any] = {"domain": row.domain}
        if row.payload is not None:
            args["payload"] = row.payload
        if not row.pushed:
            args["ended by"] = thread_id(row.end_thread)
        if not row.closed:
            args["closed"] = False
        if (row.thread, self._timeline.ranges.domain[index].item()) in self._domains:
            args["thread"] = thread_id(row.thread)
        return f'"name":{_json(row.name)},"cat":"user_annotation","args":{_json(args)}'

    def _call_texts(self, rows: Column) -> Iterator[str]:
        calls = self._timeline.calls
        heads = [f'"name":{_json(name)},"cat":"cuda_{api}","args":{{"correlation":' for name, api in calls.kinds]
        for what, correlation in zip(calls.what[rows].tolist(), calls.correlation[rows].tolist(), strict=True):
            yield f"{heads[what]}{correlation}}}"

    def _started(self) -> Iterator[str]:
        """Start/end ranges, and those that were never closed, as pairs of asynchronous events."""
        ranges = self._timeline.ranges
        rows = np.flatnonzero((ranges.pushed == 0) | (ranges.closed == 0))
        begun, ended = (self._us(one[rows] - self._first_ns) for one in (ranges.start_ns, ranges.end_ns))
        for index, start, end in zip(rows.tolist(), begun, ended, strict=True):
            thread = int(ranges.thread[index])
            pid, tid = self._where(thread)
            yield from _pair(f"r{index}", self._range_text(index), f'"pid":{pid},"tid":{tid}', start, end)

    def _work(self) -> Iterator[str]:
        """GPU work as slices of streams, each with an arrow from its launch call."""
        work, calls = self._timeline.work, self._timeline.calls
        texts = [_what_text(what) for what in work.kinds]
        place, paths = self._places.paths_of(work)
        ranges = [_json(path) for path in paths]
        rows: Iterable[Any] = zip(
            self._us(work.start_ns - self._first_ns), self._us(work.end_ns - work.start_ns), self._stream_tracks(),
            work.what.tolist(), work.gpu.tolist(), work.stream.tolist(), work.process.tolist(),
            work.correlation.tolist(), work.bytes.tolist(), work.graph_node.tolist(), place.tolist(),
            work.call.tolist(), strict=True,
        )  # fmt: skip
        launched = self._us(calls.start_ns - self._first_ns)
        threads = calls.thread.tolist()
        for number, (ts, dur, track, what, gpu, stream, process, correlation, size, node, path, call) in enumerate(
            rows
        ):
            head, tail, sized = texts[what]
            of_size = f',"bytes":{size}' if sized else ""
            of_node = f',"graph node":{node}' if node else ""
            at = f'"pid":{FIRST_GPU + gpu},"tid":{track},"ts":{ts}'
            yield (
                f'{{"ph":"X",{head},{at},"dur":{dur},"args":{{"correlation":{correlation},"stream":{stream},'
                f'"process":{self._pid(process)},"range":{ranges[path]}{of_size}{of_node}{tail}}}}}'
            )
            if call == NONE:
                continue
            pid, tid = self._where(threads[call])
            flow = f'"name":"launch","cat":"ac2g","id":{number}'
            yield f'{{"ph":"s",{flow},"pid":{pid},"tid":{tid},"ts":{launched[call]}}}'
            yield f'{{"ph":"f","bp":"e",{flow},{at}}}'

    def _stream_tracks(self) -> Iterator[int]:
        """For each piece of work its stream's first track that is free when it begins."""
        work, lanes = self._timeline.work, dict[tuple[int, int, int], list[int]]()
        columns = (work.gpu, work.process, work.stream, work.start_ns, work.end_ns)
        for gpu, process, stream, start, end in zip(*(one.tolist() for one in columns), strict=True):
            until = lanes.setdefault((gpu, process, stream), [])
            lane = next((lane for lane, free in enumerate(until) if free <= start), len(until))
            until[lane : lane + 1] = [end]
            yield self._streams.setdefault((gpu, process, stream, lane), len(self._streams) + 1)

    def _syncs(self) -> Iterator[str]:
        """Synchronizations as pairs of asynchronous events, of the thread that waited where it is known."""
        syncs, calls = self._timeline.syncs, self._timeline.calls
        begun, ended = (self._us(one - self._first_ns) for one in (syncs.start_ns, syncs.end_ns))
        for number, (row, start, end) in enumerate(zip(syncs, begun, ended, strict=True)):
            thread = 0 if row.call == NONE else thread_id(int(calls.thread[row.call]))
            args = {"correlation": row.correlation, "gpu": row.gpu, "stream": row.stream, "blocks": row.blocks}
            text = f'"name":{_json(row.kind)},"cat":"cuda_sync","args":{_json(args)}'
            yield from _pair(f"s{number}", text, f'"pid":{self._pid(row.process)},"tid":{thread}', start, end)


def _what_text(what: What) -> tuple[str, str, bool]:
    """Name and category of work, the arguments that all work of this kind shares, and whether its bytes are one."""
    args: dict[str, Any] = {}
    if what.kind != "kernel":
        args["kind"] = what.kind
    if what.shape:
        args |= {"grid": what.shape[:3], "block": what.shape[3:]}
    if what.full_name and what.full_name != what.name:
        args["full name"] = what.full_name
    if what.copy is not None:
        copy = what.copy
        args |= {"copies": copy.count, "from": copy.source_memory, "to": copy.target_memory}
        args |= {"sides": [copy.source, copy.target], "unified": copy.unified}
    tail = f",{_json(args)[1:-1]}" if args else ""
    return f'"name":{_json(what.name)},"cat":"{CATEGORIES[what.kind]}"', tail, what.kind != "kernel"


def _pair(number: str, text: str, place: str, start: float, end: float) -> Iterator[str]:
    """An asynchronous event: its beginning and its end."""
    for phase, at in (("b", start), ("e", end)):
        yield f'{{"ph":"{phase}","id":"{number}",{text},{place},"ts":{at}}}'


def _named(what: str, pid: int, tid: int, name: str) -> str:
    return _json({"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}})
