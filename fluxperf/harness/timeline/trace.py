"""A timeline in the trace event format, which ui.perfetto.dev and chrome://tracing open.

Ranges, calls and work are slices of the tracks that `trace_tracks` assigns. Start/end ranges, ranges never closed,
synchronizations, and other rows that do not nest are asynchronous events. An arrow leads from each launch call to its
work. Times are microseconds since the first event.

The trace contains the whole timeline: `trace_reading` reads it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluxperf.documents import encoded
from fluxperf.harness.timeline.columns import Column, codes, empty, nest
from fluxperf.harness.timeline.model import NONE, Ranges, Timeline, Waits, What, process_of, thread_id
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.trace_tracks import FIRST_GPU, HostTrack, Tracks
from fluxperf.harness.timeline.weaving import Piece, looked_up, texts, woven

#: Categories as in PyTorch's profiler, so that tools for its traces can read these.
CATEGORIES = {
    "kernel": "kernel",
    "copy": "gpu_memcpy",
    "memset": "gpu_memset",
    "decompression": "gpu_memcpy",
    "graph": "kernel",
}

#: Version of fluxperf's additions to the format.
VERSION = 1

#: Rows whose events are written at once.
_CHUNK = 20_000


def trace(timeline: Timeline) -> str:
    """The timeline as a JSON document in the trace event format."""
    return b"".join(trace_parts(timeline)).decode()


def trace_parts(timeline: Timeline, places: Places | None = None) -> Iterator[bytes]:
    """`trace` in pieces, for writing large timelines.

    Args:
        timeline: an attributed timeline.
        places: its places, if they are known already.
    """
    writer = _Writer(timeline, places or Places(timeline))
    # Perfetto interprets times as nanoseconds if that is the display unit. Times here are always microseconds.
    yield b'{"displayTimeUnit":"ms","otherData":' + encoded(writer.about()) + b',"traceEvents":['
    first = True
    for events in filter(None, writer.events()):
        yield events[1:] if first else events
        first = False
    yield b"]}"


def _chunks(number: int) -> Iterator[slice]:
    for start in range(0, number, _CHUNK):
        yield slice(start, start + _CHUNK)


def _place(pid: int, tid: int) -> bytes:
    """The fields of an event that come before its time."""
    return b'"pid":%d,"tid":%d,"ts":' % (pid, tid)


class _Writer:
    """Writes the events of one timeline, as many texts that each begin with a comma."""

    def __init__(self, timeline: Timeline, places: Places) -> None:
        self._timeline = timeline
        self._tracks = Tracks(timeline)
        self._places = places
        rows = (timeline.ranges, timeline.calls, timeline.work, timeline.syncs)
        self._first_ns = min((int(group.start_ns.min()) for group in rows if len(group)), default=0)

    def about(self) -> dict[str, Any]:
        """Facts about the capture that its events do not contain."""
        timeline, first, tracks = self._timeline, self._first_ns, self._tracks
        return {
            "fluxperf": VERSION,
            "source": timeline.source,
            "tool": timeline.tool,
            "product": timeline.product,
            "schema": timeline.schema,
            "graph mode": timeline.graph_mode,
            "processes": {tracks.pids[process]: name for process, name in timeline.processes.items()},
            "threads": [[tracks.pids[row.process], thread_id(row.id), row.name] for row in tracks.threads()],
            "gpus": timeline.gpus,
            "nodes": [
                [row.id, row.original, row.start_ns - first, *tracks.where(row.thread)]
                for row in timeline.nodes
                if row.process in tracks.pids
            ],
            "notes": timeline.notes,
            "lost": timeline.lost,
            "damage": [[row.of, row.text] for row in timeline.damage],
            "losses": [[row.of, row.text, tracks.pid(row.process)] for row in timeline.losses],
            "diagnostics": [[row.severity, row.text, tracks.pid(row.process)] for row in timeline.diagnostics],
            "page faults": [
                [
                    row.side,
                    row.access,
                    row.start_ns - first,
                    row.end_ns - first,
                    tracks.pid(row.process),
                    row.gpu,
                    row.number,
                ]
                for row in timeline.faults
            ],
            "page faults of": sorted(timeline.faults_of),
            "overheads": [
                [row.kind, row.start_ns - first, row.end_ns - first, *tracks.where(row.thread)]
                for row in timeline.overheads
                if process_of(row.thread) in tracks.pids
            ],
        }

    def events(self) -> Iterator[bytes]:
        """All events. Names of tracks come last, as all tracks are known only then."""
        for track in self._tracks.of_threads():
            yield from self._of_thread(track)
        yield from self._started()
        yield from self._work()
        yield from self._syncs()
        yield b"".join(b"," + encoded(event) for event in self._tracks.names())

    def _us(self, times_ns: Column) -> list[bytes]:
        """Microseconds as a double that Perfetto reads as exact nanoseconds: it multiplies by 1000 and truncates."""
        found = times_ns / 1e3
        short = (found * 1e3).astype(np.int64) < times_ns
        found[short] = np.nextafter(found[short], np.inf)
        return texts(found)

    def _of_thread(self, track: HostTrack) -> Iterator[bytes]:
        """Slices of a track. Of those that start together the longer comes first."""
        ranges, calls = self._timeline.ranges, self._timeline.calls
        starts = np.concatenate((ranges.start_ns[track.ranges], calls.start_ns[track.calls]))
        ends = np.concatenate((ranges.end_ns[track.ranges], calls.end_ns[track.calls]))
        order = np.lexsort((-ends, starts))
        starts, ends = starts[order], ends[order]
        apart = np.zeros(len(order), bool) if nest(starts, ends) else _crossing(starts, ends)
        heads, of_range = self._range_heads(track.ranges)
        number = len(heads)  # heads of calls come after them, and lack the correlation
        heads += [
            b'"name":%b,"cat":"cuda_%b","args":{"correlation":' % (encoded(name), api.encode())
            for name, api in calls.kinds
        ]
        head = np.concatenate((of_range, calls.what[track.calls] + number))[order]
        correlation = np.concatenate((empty(len(track.ranges)), calls.correlation[track.calls]))[order]
        place = b"}," + _place(track.pid, track.tid)
        for rows in _chunks(len(order)):
            numbers = _only(head[rows] >= number, texts(correlation[rows]))
            text = (looked_up(heads, head[rows]), numbers, place)
            pairs = {row: b"n%d.%d" % (track.thread, order[rows][row]) for row in np.flatnonzero(apart[rows]).tolist()}
            yield self._slices(text, starts[rows] - self._first_ns, ends[rows] - self._first_ns, pairs)

    def _slices(
        self, text: tuple[list[bytes], list[bytes], bytes], starts: Column, ends: Column, pairs: Mapping[int, bytes]
    ) -> bytes:
        """Slices of one track. Rows of ``pairs`` become pairs of asynchronous events with these ids instead."""
        ts, dur = self._us(starts), self._us(ends - starts)
        begin, lasts = [b',{"ph":"X",'] * len(ts), [b',"dur":'] * len(ts)
        for row, number in pairs.items():
            head, more, place = text[0][row], text[1][row], text[2]
            begun = b"".join((head, more, place, ts[row]))
            begin[row] = b',{"ph":"b","id":"%b",%b},{"ph":"e","id":"%b",' % (number, begun, number)
            (ts[row],) = self._us(ends[row : row + 1])
            lasts[row] = dur[row] = b""
        return woven(len(ts), begin, *text, ts, lasts, dur, b"}")

    def _range_heads(self, rows: Column) -> tuple[list[bytes], Column]:
        """Distinct texts of ranges without the last brace, and for each row the index of its text."""
        ranges = self._timeline.ranges
        if not len(rows):
            return [], empty()
        told = (ranges.name, ranges.domain, ranges.thread, ranges.end_thread, ranges.pushed, ranges.closed)
        places, firsts = codes(*(one[rows] for one in (*told, ranges.paid, ranges.payload)))
        return [self._range_head(row) for row in rows[firsts].tolist()], places

    def _range_head(self, index: int) -> bytes:
        row = self._timeline.ranges[index]
        args: dict[str, Any] = {"domain": row.domain}
        if row.payload is not None:
            args["payload"] = row.payload
        if not row.pushed:
            args["ended by"] = thread_id(row.end_thread)
        if not row.closed:
            args["closed"] = False
        if (row.thread, self._timeline.ranges.domain[index].item()) in self._tracks.domains:
            args["thread"] = thread_id(row.thread)
        return b'"name":%b,"cat":"user_annotation","args":%b' % (encoded(row.name), encoded(args)[:-1])

    def _started(self) -> Iterator[bytes]:
        """Start/end ranges and ranges that were never closed, as pairs of asynchronous events."""
        ranges = self._timeline.ranges
        rows = np.flatnonzero((ranges.pushed == 0) | (ranges.closed == 0))
        heads, of_range = self._range_heads(rows)
        threads, firsts = codes(ranges.thread[rows]) if len(rows) else (empty(), empty())
        places = [b"}," + _place(*self._tracks.where(thread)) for thread in ranges.thread[rows][firsts].tolist()]
        for part in _chunks(len(rows)):
            text = (looked_up(heads, of_range[part]), looked_up(places, threads[part]))
            yield self._pairs(b"r", rows[part], ranges, *text)

    def _pairs(self, letter: bytes, rows: Column, table: Ranges | Waits, *text: list[bytes]) -> bytes:
        """Asynchronous events, a start and an end for each row. Their ids are the letter and the row's index."""
        starts, ends = (self._us(one[rows] - self._first_ns) for one in (table.start_ns, table.end_ns))
        begin, end, ids = b',{"ph":"b","id":"' + letter, b'},{"ph":"e","id":"' + letter, texts(rows)
        return woven(len(rows), begin, ids, b'",', *text, starts, end, ids, b'",', *text, ends, b"}")

    def _work(self) -> Iterator[bytes]:
        """GPU work as slices of streams, each with an arrow from its launch call."""
        work, tracks = self._timeline.work, self._tracks.of_work()
        if not len(work):
            return
        kinds = [_what_text(what) for what in work.kinds]
        head, firsts = codes(work.what, work.gpu, tracks)
        where = [_place(FIRST_GPU + gpu, track) for gpu, track in _rows(firsts, work.gpu, tracks)]
        heads = [
            b',{"ph":"X",%b,%b' % (kinds[what][0], at)
            for (what,), at in zip(_rows(firsts, work.what), where, strict=True)
        ]
        ends = [b"," + at for at in where]
        place, paths = self._places.paths_of(work)
        about, firsts = codes(work.stream, work.process, place)
        abouts = [
            b',"stream":%d,"process":%d,"range":%b' % (stream, self._tracks.pid(process), encoded(paths[path]))
            for stream, process, path in _rows(firsts, work.stream, work.process, place)
        ]
        tails = [tail + b"}}" for _, tail, _ in kinds]
        sized = np.array([one for _, _, one in kinds], bool)[work.what]
        arrows = self._arrows()
        for rows in _chunks(len(work)):
            ts, node = self._us(work.start_ns[rows] - self._first_ns), work.graph_node[rows]
            slices = (
                looked_up(heads, head[rows]), ts,
                b',"dur":', self._us(work.end_ns[rows] - work.start_ns[rows]),
                b',"args":{"correlation":', texts(work.correlation[rows]), looked_up(abouts, about[rows]),
                _argument(b',"bytes":', work.bytes[rows], sized[rows]), _argument(b',"graph node":', node, node != 0),
                looked_up(tails, work.what[rows]),
            )  # fmt: skip
            yield woven(len(ts), *slices, *arrows(rows, looked_up(ends, head[rows]), ts))

    def _arrows(self) -> Callable[[slice, list[bytes], list[bytes]], Iterator[Piece]]:
        """Returns a function that writes arrows to the work of some rows, for the places and times of their ends."""
        work, calls = self._timeline.work, self._timeline.calls
        threads, firsts = codes(calls.thread) if len(calls) else (empty(), empty())
        places = [b"," + _place(*self._tracks.where(thread)) for (thread,) in _rows(firsts, calls.thread)]
        threads, launched = np.append(threads, 0), np.append(calls.start_ns, self._first_ns)

        def written(rows: slice, ends: list[bytes], ts: list[bytes]) -> Iterator[Piece]:
            call = work.call[rows]
            ids = texts(np.arange(len(work))[rows])
            begun = (looked_up(places or [b""], threads[call]), self._us(launched[call] - self._first_ns))
            arrow = (
                b',{"ph":"s","name":"launch","cat":"ac2g","id":', ids, *begun,
                b'},{"ph":"f","bp":"e","name":"launch","cat":"ac2g","id":', ids, ends, ts, b"}",
            )  # fmt: skip
            there = call != NONE
            return iter(arrow) if there.all() else (_only(there, piece) for piece in arrow)

        return written

    def _syncs(self) -> Iterator[bytes]:
        """Synchronizations as pairs of asynchronous events of the waiting thread, if it is known."""
        syncs, calls = self._timeline.syncs, self._timeline.calls
        if not len(syncs):
            return
        heads = [b'"name":%b,"cat":"cuda_sync","args":{"correlation":' % encoded(kind) for kind in syncs.kinds]
        thread = np.append(thread_id(calls.thread), 0)[syncs.call]  # NONE, which is -1, is thread 0
        columns = (syncs.gpu, syncs.stream, syncs.blocks, syncs.process, thread)
        place, firsts = codes(*columns)
        tails = [
            b',"gpu":%d,"stream":%d,"blocks":%b},%b'
            % (gpu, stream, encoded(bool(blocks)), _place(self._tracks.pid(process), tid))
            for gpu, stream, blocks, process, tid in _rows(firsts, *columns)
        ]
        for part in _chunks(len(syncs)):
            text = (looked_up(heads, syncs.what[part]), texts(syncs.correlation[part]), looked_up(tails, place[part]))
            yield self._pairs(b"s", np.arange(len(syncs))[part], syncs, *text)


def _rows(which: Column, *columns: Column) -> Iterator[tuple[int, ...]]:
    """Rows of columns."""
    return zip(*(one[which].tolist() for one in columns), strict=True)


def _crossing(starts: Column, ends: Column) -> NDArray[np.bool_]:
    """Which intervals, in order of their starts, overlap the end of an earlier interval that is kept."""
    found = []
    stack: list[int] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        while stack and stack[-1] <= start:
            stack.pop()
        crosses = bool(stack) and end > stack[-1]
        found.append(crosses)
        if not crosses:
            stack.append(end)
    return np.array(found, bool)


def _only(which: NDArray[np.bool_], piece: Piece) -> list[bytes]:
    """The texts of some rows, and an empty text for the others."""
    held = np.empty(len(which), object)
    held[:] = [piece] if isinstance(piece, bytes) else piece
    held[~which] = b""
    found: list[bytes] = held.tolist()
    return found


def _argument(name: bytes, values: Column, which: NDArray[np.bool_]) -> Piece:
    """An argument of the rows that have it."""
    if not which.any():
        return b""
    return _only(which, [name + text for text in texts(values)])


def _what_text(what: What) -> tuple[bytes, bytes, bool]:
    """Name, category and shared arguments of a kind of work, and whether all its work has the same number of bytes."""
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
        if copy.cause:
            args["cause"] = copy.cause
    tail = b"," + encoded(args)[1:-1] if args else b""
    return b'"name":%b,"cat":"%b"' % (encoded(what.name), CATEGORIES[what.kind].encode()), tail, what.kind != "kernel"
