"""Tracks of a trace: assigns each row of a timeline to a track in which slices nest, and names the tracks.

Host threads are tracks of their process. Each GPU is a separate process whose tracks are streams. Slices of one track
must nest: Perfetto drops a complete event that begins inside of another and ends after it
(``slice_drop_overlapping_complete_event`` in its ``slice_tracker.cc``). So a thread has one track for its calls and the
domain with the most ranges, and one for each other domain, as every domain has its own stack. Work that overlaps other
work of its stream is moved to a further track of that stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fluxperf.harness.timeline.columns import Column, codes, empty, groups
from fluxperf.harness.timeline.model import Thread, Timeline, process_id, process_of, thread_id

#: Pids of GPUs, and ids of further tracks of a thread, are above all ids of operating systems.
FIRST_GPU = 1 << 24
FIRST_TRACK = 1 << 24


class HostTrack(NamedTuple):
    """Slices of one thread that share a track: ranges of a domain, and possibly calls."""

    pid: int
    tid: int
    thread: int
    ranges: Column
    calls: Column


class Tracks:
    """Tracks of one timeline. ``domains`` and ``streams`` are filled by calls of `of_threads` and `of_work`."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        # Two machines of one capture may use the same pid. Processes are numbered if pids are not unique.
        pids = [process_id(process) for process in timeline.processes]
        unique = len(set(pids)) == len(pids)
        self.pids = {
            process: pid if unique else number
            for number, (process, pid) in enumerate(zip(timeline.processes, pids, strict=True), start=1)
        }
        #: Tracks of threads and domains that have their own track.
        self.domains: dict[tuple[int, int], int] = {}
        self._streams: list[tuple[int, int, int, int]] = []

    def pid(self, process: int) -> int:
        """The number of a process in the trace."""
        return self.pids.get(process, process_id(process))

    def where(self, thread: int) -> list[int]:
        """Pid and tid of a thread."""
        return [self.pid(process_of(thread)), thread_id(thread)]

    def threads(self) -> list[Thread]:
        """Threads of processes that are known."""
        return [row for row in self._timeline.threads if row.process in self.pids]

    def of_threads(self) -> Iterator[HostTrack]:
        """Tracks of threads: calls and the domain with the most ranges share one, each other domain has its own."""
        ranges, none = self._timeline.ranges, empty()
        slices = np.flatnonzero((ranges.pushed > 0) & (ranges.closed > 0))
        own = {thread: slices[rows] for thread, rows in groups(ranges.thread[slices])}
        called = dict(groups(self._timeline.calls.thread))
        for thread in sorted({*own, *called}):
            pid, tid = self.where(thread)
            of_domains = [own[thread][rows] for _, rows in groups(ranges.domain[own.get(thread, none)])]
            of_domains.sort(key=lambda rows: (-len(rows), rows[0]))
            first = of_domains[0] if of_domains else none
            yield HostTrack(pid, tid, thread, first, called.get(thread, none))
            for rows in of_domains[1:]:
                domain = int(ranges.domain[rows[0]])
                track = self.domains[thread, domain] = FIRST_TRACK + len(self.domains)
                yield HostTrack(pid, track, thread, rows, none)

    def of_work(self) -> Column:
        """For each piece of work its track on its GPU: the first track of its stream that is free at its start."""
        work = self._timeline.work
        if not len(work):
            return empty()
        streams, _ = codes(work.gpu, work.process, work.stream)
        lanes = empty(len(work))
        for _, rows in groups(streams):
            lanes[rows] = _lanes(work.start_ns[rows], work.end_ns[rows])
        places, firsts = codes(streams, lanes)
        order = np.argsort(firsts)
        numbers = empty(len(firsts))
        numbers[order] = np.arange(1, len(firsts) + 1)
        columns = (work.gpu, work.process, work.stream, lanes)
        self._streams = list(zip(*(one[firsts[order]].tolist() for one in columns), strict=True))
        return numbers[places]

    def names(self) -> Iterator[dict[str, Any]]:
        """Events that name processes and tracks."""
        timeline = self._timeline
        for process, name in timeline.processes.items():
            yield _named("process_name", self.pids[process], 0, f"{name or 'process'} ({process_id(process)})")
        labels = {row.id: f"{row.name or 'thread'} ({thread_id(row.id)})" for row in self.threads()}
        for row in self.threads():
            yield _named("thread_name", self.pids[row.process], thread_id(row.id), labels[row.id])
        for (thread, domain), track in self.domains.items():
            name = timeline.ranges.domains[domain] or "default"
            label = f"{labels.get(thread, 'thread')}, domain {name}"
            yield _named("thread_name", self.pid(process_of(thread)), track, label)
        for gpu, name in timeline.gpus.items():
            yield _named("process_name", FIRST_GPU + gpu, 0, f"GPU {gpu} {name}".strip())
        several = len({process for _, process, _, _ in self._streams}) > 1
        for track, (gpu, process, stream, lane) in enumerate(self._streams, start=1):
            of = f" of process {process_id(process)}" if several else ""
            also = f", overlapping {lane}" if lane else ""
            yield _named("thread_name", FIRST_GPU + gpu, track, f"stream {stream}{of}{also}")


def _named(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}


def _lanes(starts: Column, ends: Column) -> Column:
    """For each interval the first lane in which it overlaps no other. Intervals must be ordered by start."""
    lanes = empty(len(starts))
    free = np.r_[True, starts[1:] >= np.maximum.accumulate(ends)[:-1]]  # when it starts all lanes are
    until: list[int] = []
    for row in np.flatnonzero(~(free & np.r_[free[1:], True])).tolist():
        if free[row]:
            until = []
        start = int(starts[row])
        lane = next((lane for lane, end in enumerate(until) if end <= start), len(until))
        until[lane : lane + 1] = [int(ends[row])]
        lanes[row] = lane
    return lanes
