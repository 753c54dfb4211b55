"""Avoidable costs in a timeline: findings with their range, count and cost.

Costs are taken from the capture and may not all be saved: findings overlap (a tiny pageable copy in a forward is three
of them), and host time that is hidden behind GPU work saves nothing. Tracing itself slows the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxperf.errors import UnknownNameError
from fluxperf.harness.timeline.causes import CAUSES, LOADS, PROFILED, Late, late_launches
from fluxperf.harness.timeline.columns import Column, codes, empty, numbered
from fluxperf.harness.timeline.model import NONE, FaultKind, Timeline, Work, Works
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.rows import FAULT, WITH_FAULT
from fluxperf.harness.timeline.waiting import blocking_copies

#: Maximum size of a tiny copy to the host: one value, not an array.
TINY_BYTES = 64

#: Minimum number of launches in a row for a repeated kernel, and of synchronizations in one place for a loop.
FEWEST_REPEATS = 8
FEWEST_SYNCS = 4

#: The place of copies without a recorded launch call, such as migrations of unified memory.
UNLAUNCHED = "(no recorded launch call)"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of finding in one range: count, cost, observation, and advice."""

    finding: str
    range: str
    count: int
    cost_ms: float
    seen: str
    advice: str
    bytes: int = 0


class _Hits(NamedTuple):
    """Occurrences of one kind as columns: index of place and of observation, cost, count and bytes."""

    place: Column
    places: list[str]
    seen: Column
    words: list[str]
    cost_ns: Column
    times: Column
    size: Column


class Kind(NamedTuple):
    """A kind of finding: meaning, advice, the function that finds it, and advice by observation."""

    meaning: str
    advice: str
    find: Callable[[Evidence], _Hits]
    by_seen: Mapping[str, str] = MappingProxyType({})


class Evidence:
    """A timeline with data that several kinds of findings use."""

    def __init__(self, timeline: Timeline, places: Places) -> None:
        self.timeline, self.places = timeline, places
        self.late = late_launches(timeline, places)

    @cached_property
    def work_paths(self) -> tuple[Column, list[str]]:
        """The path of each piece of work."""
        return self.places.paths_of(self.timeline.work)

    @cached_property
    def crossing(self) -> NDArray[np.bool_]:
        """Which work is a copy between host and device."""
        return crossing(self.timeline.work)

    @cached_property
    def trips(self) -> NDArray[np.bool_]:
        """`round_trips` of the timeline."""
        return round_trips(self.timeline, self.places)

    @cached_property
    def call_ns(self) -> Column:
        """For each piece of work, the duration of its launch call; 0 without one."""
        calls = self.timeline.calls
        found: Column = np.append(calls.end_ns - calls.start_ns, 0)[self.timeline.work.call]
        return found

    @cached_property
    def copy_ns(self) -> Column:
        """The longer of the copy and its launch call: a blocking call includes the copy, others overlap with it."""
        found: Column = np.maximum(self.timeline.work.end_ns - self.timeline.work.start_ns, self.call_ns)
        return found

    def hits(self, rows: Column, word: Callable[[Work], str], cost_ns: Column) -> _Hits:
        """Occurrences of copies; ``word`` gives the text for a kind of copy."""
        work, (place, names) = self.timeline.work, self.work_paths
        place = np.where(work.unplaced[rows], len(names), place[rows])
        numbers, firsts = codes(work.what[rows]) if len(rows) else (empty(), empty())
        counts = np.array([what.copy.count if what.copy else 1 for what in work.kinds], np.int64)
        of_kind, words = numbered(word(work[row]) for row in rows[firsts].tolist())
        seen = of_kind[numbers]
        return _Hits(place, [*names, UNLAUNCHED], seen, words, cost_ns, counts[work.what[rows]], work.bytes[rows])


def crossing(work: Works) -> NDArray[np.bool_]:
    """Whether each piece of work is a copy between host and device."""
    return work.where(what.copy is not None and bool(what.copy.crossing) for what in work.kinds)


def round_trips(timeline: Timeline, places: Places) -> NDArray[np.bool_]:
    """Whether each piece of work is a copy between host and device inside a forward."""
    found: NDArray[np.bool_] = crossing(timeline.work) & (places.forwards(timeline.work.range) > 0)
    return found


def findings(timeline: Timeline, places: Places | None = None) -> list[Finding]:
    """All findings of an attributed timeline, the most expensive first."""
    evidence = Evidence(timeline, places or Places(timeline))
    found = [row for name, kind in KINDS.items() for row in _summed(name, kind, kind.find(evidence))]
    return sorted(found, key=lambda row: (-row.cost_ms, row.finding, row.range, row.seen))


def _summed(name: str, kind: Kind, hits: _Hits) -> Iterator[Finding]:
    """A finding for each place and each observation there."""
    if not len(hits.place):
        return
    numbers, firsts = codes(hits.place, hits.seen)
    cost, times, size = (
        np.bincount(numbers, one, len(firsts)).tolist() for one in (hits.cost_ns, hits.times, hits.size)
    )
    for number, first in enumerate(firsts.tolist()):
        seen = hits.words[hits.seen[first]]
        moved = round(size[number])
        yield Finding(
            finding=name,
            range=hits.places[hits.place[first]],
            count=round(times[number]),
            cost_ms=cost[number] / 1e6,
            seen=f"{seen}, {moved:,} B" if moved else seen,
            advice=kind.by_seen.get(seen, kind.advice),
            bytes=moved,
        )


def known_findings(names: Iterable[str]) -> list[str]:
    """The names, if all are kinds of findings.

    Raises:
        UnknownNameError: a name is not a kind of finding.
    """
    wanted = list(names)
    for name in wanted:
        if name not in KINDS:
            raise UnknownNameError("finding", name, KINDS)
    return wanted


def _host_copies(evidence: Evidence) -> _Hits:
    """Copies between host and device inside a forward. The cost includes the time that a GPU waited for them to begin.

    Copies without a recorded launch call or another sign of their range are included, as they may be in a forward.
    """
    work, late = evidence.timeline.work, evidence.late
    waited = empty(len(work))
    waited[late.work] = late.lasted_ns
    rows = np.flatnonzero(evidence.trips | (evidence.crossing & work.unplaced))
    return evidence.hits(rows, lambda row: row.name, (evidence.copy_ns + waited)[rows])


def _pageable(evidence: Evidence) -> _Hits:
    """Copies between host and device from or to pageable memory, inside or outside of a forward."""
    work = evidence.timeline.work
    pageable = work.where(what.copy is not None and what.copy.pageable for what in work.kinds)
    rows = np.flatnonzero(evidence.crossing & pageable)

    def word(row: Work) -> str:
        return f"{row.copy.source_memory} to {row.copy.target_memory}" if row.copy else ""

    return evidence.hits(rows, word, evidence.copy_ns[rows])


def _items(evidence: Evidence) -> _Hits:
    """Tiny copies to the host that the host waits for before it launches anything else."""
    timeline, work, calls = evidence.timeline, evidence.timeline.work, evidence.timeline.calls
    counts = np.array([what.copy.count if what.copy else 1 for what in work.kinds], np.int64)
    down = work.where(what.copy is not None and what.copy.crossing == "d2h" for what in work.kinds)
    rows = np.flatnonzero(down & (work.call != NONE))
    rows = rows[work.bytes[rows] <= TINY_BYTES * counts[work.what[rows]]]
    blocked = np.isin(rows, blocking_copies(timeline))
    waits = timeline.syncs.blocking
    waits = waits.taken(waits.call != NONE)
    wait_of = empty(len(calls) + 1, NONE)
    wait_of[waits.call] = np.arange(len(waits))
    following = wait_of[_following(timeline, work.call[rows], waits.call)]
    waited = following != NONE
    lasted = np.append(waits.end_ns - waits.start_ns, 0)[following]
    told = waited | blocked | (wait_of[work.call[rows]] != NONE)
    rows, lasted, waited, following = rows[told], lasted[told], waited[told], following[told]
    words = [f"then {name}" for name in waits.kinds] + [name for name, _ in calls.kinds]
    seen = np.where(waited, np.append(waits.what, 0)[following], len(waits.kinds) + calls.what[work.call[rows]])
    hits = evidence.hits(rows, lambda row: row.name, evidence.copy_ns[rows] + np.where(waited, lasted, 0))
    return hits._replace(seen=seen, words=words)


def _following(timeline: Timeline, wanted: Column, waits: Column) -> Column:
    """For each wanted call, the next call of its thread that launched work or waited; ``NONE`` for the last."""
    calls = timeline.calls
    if not len(wanted):
        return empty()
    told = np.zeros(len(calls) + 1, bool)  # NONE is -1 and indexes the last element, which is not a call
    told[timeline.work.call] = told[waits] = True
    telling = np.flatnonzero(told[:-1])
    order = telling[np.lexsort((calls.start_ns[telling], calls.thread[telling]))]
    following = empty(len(calls) + 1, NONE)
    same = calls.thread[order[1:]] == calls.thread[order[:-1]]
    following[order[:-1][same]] = order[1:][same]
    found: Column = following[wanted]
    return found


def _starved(evidence: Evidence) -> _Hits:
    """GPUs idle before a launch. Delays of copies inside a forward are left out, as they are a cost of the copy."""
    late = evidence.late
    return _late(evidence, ~np.isin(late.cause, (LOADS, PROFILED)) & ~evidence.trips[late.work])


def _loading(evidence: Evidence) -> _Hits:
    """GPUs idle while the runtime loaded or compiled code."""
    return _late(evidence, evidence.late.cause == LOADS)


def _late(evidence: Evidence, which: NDArray[np.bool_]) -> _Hits:
    late, (place, names) = evidence.late, evidence.work_paths
    work, cause = late.work[which], late.cause[which]
    ones = np.ones(len(work), np.int64)
    return _Hits(place[work], names, cause, LATE_WORDS, late.lasted_ns[which], ones, ones * 0)


def _repeated(evidence: Evidence) -> _Hits:
    """Kernels of one name and shape, launched many times in a row by one range on one stream.

    Calls of operators do not count as ranges here, since an operator in a loop opens a range in each turn.
    """
    work, (place, names) = evidence.timeline.work, evidence.work_paths
    if not len(work):
        return _Hits(empty(), [], empty(), [], empty(), empty(), empty())
    streams, _ = codes(work.process, work.gpu, work.stream)
    order = np.argsort(streams, kind="stable")
    same = np.ones(len(order) - 1, bool)
    homes = (evidence.places.homes(one) for one in (work.range, work.captured))
    for one in (streams, *homes, work.what):
        same &= one[order[1:]] == one[order[:-1]]
    firsts = np.flatnonzero(np.r_[True, ~same])
    lengths = np.diff(np.r_[firsts, len(order)])
    long = (lengths >= FEWEST_REPEATS) & work.flags("kernel")[order[firsts]]
    starts, ends = work.start_ns[order], work.end_ns[order]
    last, longest = np.maximum.reduceat(ends, firsts), np.maximum.reduceat(ends - starts, firsts)
    cost = (last - starts[firsts] - longest)[long]
    head = order[firsts[long]]
    words = [what.name for what in work.kinds]
    return _Hits(place[head], names, work.what[head], words, cost, lengths[long], empty(len(head)))


def _loops(evidence: Evidence) -> _Hits:
    """Repeated blocking synchronizations in one place.

    In steps and blocks all turns of a process are counted together; in other ranges those inside of one outermost
    range.
    """
    timeline, places = evidence.timeline, evidence.places
    waits = timeline.syncs.blocking
    waits = waits.taken(waits.range != NONE)
    place, names = places.named(waits.range, "range")
    if not len(waits):
        return _Hits(place, names, empty(), [], empty(), empty(), empty())
    turn = np.where(places.stepped[waits.range], NONE, places.roots(waits.range))
    groups, firsts = codes(place, waits.what, waits.process, turn)
    counts = np.bincount(groups, minlength=len(firsts))
    spent = np.bincount(groups, waits.end_ns - waits.start_ns, len(firsts)).astype(np.int64)
    many = counts >= FEWEST_SYNCS
    head = firsts[many]
    return _Hits(place[head], names, waits.what[head], waits.kinds, spent[many], counts[many], empty(len(head)))


def _page_faults(evidence: Evidence) -> _Hits:
    """Page faults of unified memory, and the migrations that they caused."""
    work, faults = evidence.timeline.work, evidence.timeline.faults
    caused = work.where(what.copy is not None and what.copy.cause in (FAULT, WITH_FAULT) for what in work.kinds)
    rows = np.flatnonzero(caused)
    moved = evidence.hits(rows, lambda row: f"{row.name}, {row.copy.cause if row.copy else ''}", evidence.copy_ns[rows])
    place, names = evidence.places.named(faults.range, "range")
    words = ["page faults of the host" if one.side == "host" else _of_gpu(one) for one in faults.kinds]
    stalls = _Hits(
        place + len(moved.places), names, faults.what + len(moved.words), words, faults.end_ns - faults.start_ns,
        faults.number, empty(len(faults)),
    )  # fmt: skip
    return _Hits(
        np.concatenate((moved.place, stalls.place)), [*moved.places, *stalls.places],
        np.concatenate((moved.seen, stalls.seen)), [*moved.words, *stalls.words],
        *(np.concatenate(pair) for pair in zip(moved[4:], stalls[4:], strict=True)),
    )  # fmt: skip


def _of_gpu(kind: FaultKind) -> str:
    return f"page faults of a GPU ({kind.access})" if kind.access else "page faults of a GPU"


#: The observation for a late launch, by the number of its cause.
LATE_WORDS = [f"GPU idle: {CAUSES[number].seen}" for number in range(len(CAUSES))]

KINDS: dict[str, Kind] = {
    "host-copy": Kind(
        "a copy between host and device inside a forward; its cost includes the time that the GPU waited for it to "
        "begin",
        "Keep the value on the GPU, or compute it once before the loop.",
        _host_copies,
    ),
    "pageable-copy": Kind(
        "a copy from or to pageable host memory; the driver stages it and the host waits",
        "Use pinned memory on the host, allocated once.",
        _pageable,
    ),
    "item-sync": Kind(
        "a tiny copy to the host that the host waits for, as in .item()",
        "Decide on the GPU, or read the value once after the loop.",
        _items,
    ),
    "launch-bound": Kind(
        "the GPU is idle because the next launch comes late",
        "Fuse small kernels, capture a CUDA graph, or move host work out of the time between launches.",
        _starved,
        {word: CAUSES[number].advice for number, word in enumerate(LATE_WORDS)},
    ),
    "module-loading": Kind(
        "the GPU is idle while the runtime loads or compiles code, as at the first launch of a kernel",
        CAUSES[LOADS].advice,
        _loading,
    ),
    "repeated-kernel": Kind(
        "the same kernel with the same shape many times in a row; the cost is the time of all but the longest "
        "launch, an upper bound",
        "Combine them into one batched launch.",
        _repeated,
    ),
    "sync-in-loop": Kind(
        "a blocking synchronization that is repeated",
        "Wait once after the loop. Order streams by events, which do not block the host.",
        _loops,
    ),
    "page-fault": Kind(
        "an access to pages of unified memory that are on the other side; a kernel, or the host, waits for them",
        "Prefetch them with cudaMemPrefetchAsync before they are used, or use device memory and explicit copies.",
        _page_faults,
    ),
}

__all__ = ["KINDS", "LATE_WORDS", "Evidence", "Finding", "Late", "findings", "known_findings"]
