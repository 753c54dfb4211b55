"""Waits of the host: recognized by the call's name and duration, not by the type in its record.

Versions of Nsight Systems write different types for one call: from 2025.3 on ``cudaStreamSynchronize`` has the type of
a stream that waits for an event; 2024.4 and 2024.5 give ``cudaDeviceSynchronize`` the type of an event or an unknown
type. ``cudaEventQuery``, which does not wait, has records too. A call that waits counts even without a record.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from fluxperf.harness.timeline.columns import Column, distinct, empty
from fluxperf.harness.timeline.correlating import calls_of
from fluxperf.harness.timeline.model import NONE, Calls, Timeline, Waits
from fluxperf.words import plural

_BLOCKS = re.compile(r"(?:cuda|cu)(?:Stream|Event|Device|Thread|Ctx|Context)Synchronize(?![A-Za-z])")
_ORDERS = re.compile(r"(?:cuda|cu)Stream(?:WaitEvent|WaitValue|BatchMemOp)")
_ASKS = re.compile(r"(?:cuda|cu)\w*Query")

#: A call that only enqueues returns sooner. A longer call waited, or was blocked by another thread.
LONG_CALL_NS = 50_000

_OTHER, _WAIT, _ORDER, _ASK = range(4)


def blocks(name: str) -> bool:
    """Whether a CUDA call waits for the GPU. A suffix ``_v`` with a number is ignored."""
    return _BLOCKS.match(name) is not None


def _class(name: str) -> int:
    return _WAIT if blocks(name) else _ORDER if _ORDERS.match(name) else _ASK if _ASKS.match(name) else _OTHER


def waits_of(records: Waits, calls: Calls, notes: list[str]) -> Waits:
    """Synchronizations ordered by start: from calls that wait, and from records of other calls.

    Args:
        records: records of the profiler, with ``blocks`` by their type; used for calls that are not known by name.
        calls: attributed calls.
        notes: receives a sentence about records without a call, for which it is unknown whether the host waited.
    """
    call = calls_of(calls, records.process, records.correlation, records.start_ns)
    classes = np.array([_class(name) for name, _ in calls.kinds], np.int64)
    of_record = np.append(classes[calls.what], _OTHER)[call]
    told = _told(records, call, of_record, calls, notes)
    named = _named(records, call, calls, classes)
    both = Waits(
        [*told.kinds, *named.kinds],
        what=np.concatenate((told.what, named.what + len(told.kinds))),
        **{name: np.concatenate((getattr(told, name), getattr(named, name))) for name in Waits.numbers[1:]},
    )
    return both.taken(np.argsort(both.start_ns, kind="stable"))


def _named(records: Waits, call: Column, calls: Calls, classes: Column) -> Waits:
    """Calls with the name of a waiting call, with GPU and stream of their first record."""
    rows = np.flatnonzero(classes[calls.what] == _WAIT)
    rows = rows[_outermost(calls.thread[rows], calls.start_ns[rows], calls.end_ns[rows])]
    joined = np.flatnonzero(call != NONE)
    where = empty(len(calls) + 1, NONE)
    where[call[joined][::-1]] = joined[::-1]  # of several records of a call the first is written last
    record = where[rows]
    gpu, stream = (np.append(one, 0)[record] for one in (records.gpu, records.stream))
    return Waits(
        [name for name, _ in calls.kinds],
        what=calls.what[rows],
        blocks=empty(len(rows), 1),
        start_ns=calls.start_ns[rows],
        end_ns=calls.end_ns[rows],
        process=calls.process[rows],
        gpu=gpu,
        stream=stream,
        correlation=calls.correlation[rows],
        call=rows,
        range=calls.range[rows],
    )


def _outermost(threads: Column, starts: Column, ends: Column) -> Column:
    """Rows that lie in no other row of their thread: a runtime call makes a driver call that waits too."""
    order = np.lexsort((-ends, starts, threads))
    kept, thread, until = [], None, 0
    for row, own, start, end in zip(
        order.tolist(), threads[order].tolist(), starts[order].tolist(), ends[order].tolist(), strict=True
    ):
        if own == thread and end <= until and start < until:
            continue
        thread, until = own, end
        kept.append(row)
    return np.sort(np.array(kept, np.int64))


def _told(records: Waits, call: Column, classes: Column, calls: Calls, notes: list[str]) -> Waits:
    """Records whose call's name is not known, judged by their type; in processes without calls all records."""
    orders = classes == _ORDER
    silent = np.isin(records.process, distinct(calls.process), invert=True) & (call == NONE)
    by_type = (classes == _OTHER) & ((call != NONE) | silent)
    lone = int(((call == NONE) & ~silent & (records.blocks > 0)).sum())
    if lone:
        notes.append(
            f"Not counted as waits: {plural(lone, 'record')} of a synchronization whose call is not in the "
            "capture, so it is unknown whether the host waited."
        )
    kept = orders | by_type
    made = records.taken(kept)
    made.call = call[kept]
    made.range = np.append(calls.range, NONE)[made.call]
    made.blocks = np.where(orders[kept], 0, made.blocks)
    return made


def waiting_copies(timeline: Timeline) -> Column:
    """Calls that waited for their copy between host and device, except calls that are already known as waits."""
    rows = np.concatenate((blocking_copies(timeline), _waiting_uploads(timeline)))
    found = np.unique(timeline.work.call[rows])
    kept: Column = found[~np.isin(found, timeline.syncs.blocking.call)]
    return kept


def blocking_copies(timeline: Timeline) -> Column:
    """Indices of copies to the host that their launch call waited for.

    A call without ``Async`` in its name waits. Any other call that copies to pageable or unknown memory waited if it
    returned no earlier than the copy ended: the time decides, not the name.
    """
    work, calls = timeline.work, timeline.calls
    down = work.where(what.copy is not None and what.copy.crossing == "d2h" for what in work.kinds)
    rows = np.flatnonzero(down & (work.call != NONE))
    launches = work.call[rows]
    plain = _plain(calls)[calls.what[launches]]
    memory = {"pageable": 0, "unknown": LONG_CALL_NS, "": LONG_CALL_NS}
    least = [
        memory.get(what.copy.target_memory.lower(), NONE) if what.copy is not None else NONE for what in work.kinds
    ]
    at_least = np.array(least, np.int64)[work.what[rows]]
    lasted = calls.end_ns[launches] - calls.start_ns[launches]
    held = (at_least != NONE) & (lasted >= at_least) & (calls.end_ns[launches] >= work.end_ns[rows])
    found: Column = rows[plain | held]
    return found


def _waiting_uploads(timeline: Timeline) -> Column:
    """Indices of copies to the device that a call without ``Async`` in its name launched, and that ended in it.

    Such a call returns once it has staged what lies in pageable memory, so the name alone does not tell.
    """
    work, calls = timeline.work, timeline.calls
    up = work.where(what.copy is not None and what.copy.crossing == "h2d" for what in work.kinds)
    rows = np.flatnonzero(up & (work.call != NONE))
    launches = work.call[rows]
    found: Column = rows[_plain(calls)[calls.what[launches]] & (calls.end_ns[launches] >= work.end_ns[rows])]
    return found


def _plain(calls: Calls) -> NDArray[np.bool_]:
    """Whether each kind of call copies and is not asynchronous by its name."""
    return np.array(["Memcpy" in name and "Async" not in name for name, _ in calls.kinds], bool)
