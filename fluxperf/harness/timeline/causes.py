"""Causes of idle GPU time: whether the next launch came late, and what the launching thread did meanwhile.

The time of a gap is divided by the activity on the launching thread: loading of code and the profiler's own work
(recorded as overheads), waits, allocations, calls of other threads that block the launch, other calls, and the rest, in
which the thread ran its own code between calls. The largest part is the cause.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluxperf.harness.timeline.busy import Gaps
from fluxperf.harness.timeline.columns import Column, Cover, distinct, empty
from fluxperf.harness.timeline.model import NONE, Calls, Timeline
from fluxperf.harness.timeline.overheads import COMPILING, LOADING, QUEUE_FULL, TOOL
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.waiting import LONG_CALL_NS, blocking_copies, blocks

#: Shortest gap that counts. Kernels that were queued in time start within about a microsecond of each other.
SHORTEST_GAP_NS = 1_000

_LOADS = re.compile(
    r"(?:cuda|cu)(?:Library(?:Load|Get)|Module(?:Load|Get)|Link|KernelGetFunction|FuncLoad|GetFuncBySymbol)"
)
_ALLOCATES = re.compile(r"(?:cuda|cu)(?:Malloc|Free|Mem(?:Alloc|Free|Pool|Create|Map|Unmap|Release|Host|Set\w*Access|"
                        r"Address)|Host(?:Alloc|Register|Unregister)|Pool|Memory|Array(?:Create|Destroy))")  # fmt: skip
_INSTANTIATES = re.compile(r"(?:cuda|cu)Graph(?:Instantiate|ExecUpdate|Upload)")


class Cause(NamedTuple):
    """A cause of late launches: the observation, and advice."""

    seen: str
    advice: str


LOADS, ALLOCATES, WAITED, OTHER_THREAD, PREPARES, CALLS, HOST, PROFILED = range(8)

CAUSES: dict[int, Cause] = {
    LOADS: Cause(
        "the runtime loaded or compiled code",
        "Load it earlier: run one step as a warm-up, or set CUDA_MODULE_LOADING=EAGER. A CUDA graph does not help.",
    ),
    ALLOCATES: Cause(
        "memory was allocated or freed",
        "Allocate before the loop and reuse the memory, or use a caching or stream-ordered allocator.",
    ),
    WAITED: Cause(
        "the host had waited for the GPU",
        "Remove the wait, or launch the next work before it: after a wait the queue is empty.",
    ),
    OTHER_THREAD: Cause(
        "a call of another thread blocked the launch",
        "Calls of one CUDA context block each other: move allocations, loading and waits out of the other thread, "
        "or out of the loop.",
    ),
    PREPARES: Cause("a graph was instantiated or updated", "Instantiate it once, before the loop."),
    CALLS: Cause(
        "the host was busy with CUDA calls",
        "Make fewer calls: fuse small kernels, or capture a CUDA graph.",
    ),
    HOST: Cause(
        "the host ran code between CUDA calls",
        "Fuse small kernels, capture a CUDA graph, or move host work out of the time between launches.",
    ),
    PROFILED: Cause("the profiler itself took the time", "None: this time is not spent without the profiler."),
}


_OVERHEADS = {LOADING: LOADS, COMPILING: LOADS, TOOL: PROFILED, QUEUE_FULL: CALLS}


class Late(NamedTuple):
    """Gaps that ended with a late launch, as columns: the work that ended them, their length, and their cause."""

    work: Column
    lasted_ns: Column
    cause: Column


def late_launches(timeline: Timeline, places: Places) -> Late:
    """Gaps that are long enough, and whose launch call had not returned when the GPU became idle."""
    idle = places.idle
    rows = np.flatnonzero(launched_late(timeline, idle))
    found = Gaps(idle.start_ns[rows], idle.end_ns[rows], idle.work[rows])
    return Late(found.work, found.lasted_ns, _causes(timeline, found))


def launched_late(timeline: Timeline, idle: Gaps) -> NDArray[np.bool_]:
    """Whether each gap is long enough to count and ended with a late launch."""
    # NONE is -1 and indexes the last element: no call, which counts as returned before everything.
    returned = np.append(timeline.calls.end_ns, np.iinfo(np.int64).min)[timeline.work.call[idle.work]]
    late: NDArray[np.bool_] = (idle.lasted_ns >= SHORTEST_GAP_NS) & (returned > idle.start_ns)
    return late


def _causes(timeline: Timeline, late: Gaps) -> Column:
    """The cause of each late launch."""
    calls = timeline.calls
    launch = timeline.work.call[late.work]
    found = empty(len(launch), HOST)
    classes = _classes(timeline)
    threads = calls.thread[launch]
    for thread in distinct(threads).tolist():
        rows = np.flatnonzero(threads == thread)
        found[rows] = _of_thread(timeline, late, rows, launch[rows], thread, classes)
    return found


def _classes(timeline: Timeline) -> Column:
    """The cause that each call indicates."""
    calls = timeline.calls
    of_name = [
        LOADS if _LOADS.match(name)
        else WAITED if blocks(name)
        else ALLOCATES if _ALLOCATES.match(name)
        else PREPARES if _INSTANTIATES.match(name)
        else CALLS
        for name, _ in calls.kinds
    ]  # fmt: skip
    found = np.array(of_name, np.int64)[calls.what] if len(calls) else empty()
    waits = timeline.syncs.blocking.call
    found[waits[waits != NONE]] = WAITED
    found[timeline.work.call[blocking_copies(timeline)]] = WAITED
    return found


def _of_thread(timeline: Timeline, late: Gaps, rows: Column, launch: Column, thread: int, classes: Column) -> Column:
    """Causes of the late launches of one thread."""
    calls, overheads = timeline.calls, timeline.overheads
    starts, ends = late.start_ns[rows], late.end_ns[rows]
    own = np.flatnonzero(calls.thread == thread)
    kinds = np.array([_OVERHEADS[kind] for kind in overheads.kinds], np.int64)
    over = np.flatnonzero(overheads.thread == thread)
    main, most = empty(len(rows)), empty(len(rows))

    def count(cause: int, share: Column) -> None:
        more = (share > most) | ((share == most) & (cause < main))
        main[more], most[more] = cause, share[more]

    covered, held_starts, held_ends = empty(len(rows)), empty(), empty()
    # Each cause gets the time that earlier ones have not covered: loading happens inside of launches.
    for cause in (PROFILED, LOADS, ALLOCATES, WAITED, PREPARES, OTHER_THREAD, CALLS):
        if cause == OTHER_THREAD:
            begun, ended = _in_the_way(calls, launch, thread, classes)
        else:
            mine = own[classes[own] == cause]
            told = over[kinds[overheads.what[over]] == cause] if len(over) else empty()
            begun = np.concatenate((calls.start_ns[mine], overheads.start_ns[told]))
            ended = np.concatenate((calls.end_ns[mine], overheads.end_ns[told]))
        if not len(begun):
            continue
        held_starts, held_ends = np.concatenate((held_starts, begun)), np.concatenate((held_ends, ended))
        now = Cover(held_starts, held_ends).within(starts, ends)
        count(cause, now - covered)
        covered = now
    count(HOST, ends - starts - covered)
    # A wait ends when the GPU becomes idle, so it covers hardly any of the gap. The time after it is still caused by
    # the wait if nothing was launched in between and the gap is no longer than the cost of a wait itself.
    after = _after_wait(timeline, own, launch, starts, classes) & (ends - starts < LONG_CALL_NS)
    return np.where(after & np.isin(main, (HOST, CALLS)), WAITED, main)


def _in_the_way(calls: Calls, launch: Column, thread: int, classes: Column) -> tuple[Column, Column]:
    """Parts of launch calls that lie in calls of other threads of the process that block all of its calls."""
    process = thread >> 24
    holding = np.isin(classes, (LOADS, ALLOCATES, PREPARES)) & (calls.thread >> 24 == process)
    others = np.flatnonzero(holding & (calls.thread != thread))
    long = launch[calls.end_ns[launch] - calls.start_ns[launch] >= LONG_CALL_NS]
    if not len(others) or not len(long):
        return empty(), empty()
    cover = Cover(calls.start_ns[others], calls.end_ns[others])
    lasted = cover.within(calls.start_ns[long], calls.end_ns[long])
    return calls.start_ns[long], calls.start_ns[long] + lasted


def _after_wait(timeline: Timeline, own: Column, launch: Column, starts: Column, classes: Column) -> NDArray[np.bool_]:
    """Whether the last wait of the thread before a launch ended when the GPU became idle or later."""
    calls = timeline.calls
    waits = own[classes[own] == WAITED]
    if not len(waits):
        return np.zeros(len(launch), bool)
    ended = np.sort(calls.end_ns[waits])
    at = np.searchsorted(ended, calls.start_ns[launch], "right") - 1
    found: NDArray[np.bool_] = (at >= 0) & (ended[np.maximum(at, 0)] >= starts)
    return found
