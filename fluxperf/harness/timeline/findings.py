"""What a timeline shows that costs time and need not be: each finding with its range, its count and its cost.

Costs are what the capture shows, not a promise: findings overlap (a tiny pageable copy in a forward is three of
them), and host time that hides behind GPU work would not be won back. Tracing itself slows the host.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from fluxperf.errors import UnknownNameError
from fluxperf.harness.timeline.busy import Gap, column
from fluxperf.harness.timeline.model import NONE, Call, Copy, Sync, Timeline, Work
from fluxperf.harness.timeline.places import Places

#: Bytes up to which a copy to the host is tiny: one value, not an array.
TINY_BYTES = 64

#: Shortest gap that counts; kernels that were queued in time follow each other within about a microsecond.
SHORTEST_GAP_NS = 1_000

#: Launches in a row that make a repeated kernel, and synchronizations in one place that make a loop.
FEWEST_REPEATS = 8
FEWEST_SYNCS = 4


#: Nanoseconds for which a GPU had nothing to do because a launch came late, by the index of the work that ended them.
_Late = dict[int, int]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of finding in one range: how often, what it cost, what was seen, and what to do."""

    finding: str
    range: str
    count: int
    cost_ms: float
    seen: str
    advice: str


class _Hit(NamedTuple):
    """One occurrence; ``size`` is bytes, or launches in a row."""

    place: str
    seen: str
    cost_ns: int
    times: int = 1
    size: int = 0


class Kind(NamedTuple):
    """A kind of finding: what it is, what to do, and what finds it."""

    meaning: str
    advice: str
    find: Callable[[Timeline, Places, _Late], Iterator[_Hit]]


def findings(timeline: Timeline, places: Places | None = None) -> list[Finding]:
    """All findings of an attributed timeline, the costliest first."""
    places = places or Places(timeline)
    late = _launches_late(timeline, places)
    found = []
    for name, kind in KINDS.items():
        hits: dict[tuple[str, str], list[_Hit]] = defaultdict(list)
        for hit in kind.find(timeline, places, late):
            hits[hit.place, hit.seen].append(hit)
        for (place, seen), group in hits.items():
            size = sum(hit.size for hit in group)
            found.append(
                Finding(
                    finding=name,
                    range=place,
                    count=sum(hit.times for hit in group),
                    cost_ms=sum(hit.cost_ns for hit in group) / 1e6,
                    seen=f"{seen}, {size:,} B" if size else seen,
                    advice=kind.advice,
                )
            )
    return sorted(found, key=lambda row: (-row.cost_ms, row.finding, row.range))


def known_findings(names: Iterable[str]) -> list[str]:
    """The names, if all are kinds of findings.

    Raises:
        UnknownNameError: one is not.
    """
    wanted = list(names)
    for name in wanted:
        if name not in KINDS:
            raise UnknownNameError("finding", name, KINDS)
    return wanted


def blind_spots(timeline: Timeline) -> dict[str, str]:
    """Why the absence of a finding proves nothing in this capture, for each finding of which that is so."""
    whole = timeline.graph_mode.lower() == "graph" and any("GraphLaunch" in call.name for call in timeline.calls)
    reasons: dict[str, str] = {}
    if whole or any(row.kind == "graph" for row in timeline.work):
        reason = "graphs were traced as a whole; capture with --cuda-graph-trace=node"
        reasons |= dict.fromkeys(("host-copy", "pageable-copy", "item-sync", "repeated-kernel"), reason)
    if not timeline.ranges:
        reasons |= dict.fromkeys(
            ("host-copy", "sync-in-loop"), "the capture has no NVTX ranges; capture with -t cuda,nvtx"
        )
    if not timeline.calls:
        reason = "the capture has no CUDA calls; capture with -t cuda"
        reasons |= dict.fromkeys(("host-copy", "item-sync", "launch-bound", "sync-in-loop"), reason)
    if timeline.lost:
        reasons |= dict.fromkeys(KINDS, "Nsight Systems lost events; capture a shorter stretch")
    return reasons


def _duration(row: Work | Call | Sync) -> int:
    return row.end_ns - row.start_ns


def _copy_cost(timeline: Timeline, row: Work) -> int:
    """The longer of a copy and its call: a call that waits holds the copy, one that does not runs beside it."""
    return _duration(row) if row.call == NONE else max(_duration(row), _duration(timeline.calls[row.call]))


def _host_copies(timeline: Timeline, places: Places, late: _Late) -> Iterator[_Hit]:
    """Copies between host and device inside a forward, with the time for which a GPU waited for them to begin."""
    for index, row in enumerate(timeline.work):
        if row.copy is not None and round_trip(row, places):
            cost = _copy_cost(timeline, row) + late.get(index, 0)
            yield _Hit(places.path_of(row), row.copy.direction, cost, row.copy.count, row.bytes)


def round_trip(row: Work, places: Places) -> bool:
    """Whether a piece of work is a copy between host and device inside a forward."""
    return row.copy is not None and bool(row.copy.crossing) and places.in_forward(row.range)


def _pageable(timeline: Timeline, places: Places, late: _Late) -> Iterator[_Hit]:
    """Copies between host and device from or to pageable memory, wherever they are."""
    for row in timeline.work:
        if row.copy is not None and row.copy.crossing and row.copy.pageable:
            seen = f"{row.copy.source_memory} to {row.copy.target_memory}"
            yield _Hit(places.path_of(row), seen, _copy_cost(timeline, row), row.copy.count, row.bytes)


def _items(timeline: Timeline, places: Places, late: _Late) -> Iterator[_Hit]:
    """Tiny copies to the host that the host waits for before it launches anything else."""
    tiny = [row for row in timeline.work if row.copy is not None and row.call != NONE and _is_tiny(row, row.copy)]
    waits: dict[int, Sync] = {sync.call: sync for sync in timeline.syncs if sync.blocks and sync.call != NONE}
    following = _following(timeline, {row.call for row in tiny}, set(waits))
    for row in tiny:
        wait = waits.get(following.get(row.call, NONE))
        copies = row.copy.count  # type: ignore[union-attr]
        if wait is not None:
            cost = _copy_cost(timeline, row) + max(_duration(wait), _duration(timeline.calls[wait.call]))
            yield _Hit(places.path_of(row), f"then {wait.kind}", cost, copies, row.bytes)
        elif row.call in waits or "Async" not in timeline.calls[row.call].name:
            name = timeline.calls[row.call].name
            yield _Hit(places.path_of(row), name, _copy_cost(timeline, row), copies, row.bytes)


def _is_tiny(row: Work, copy: Copy) -> bool:
    return copy.crossing == "d2h" and row.bytes <= TINY_BYTES * copy.count


def _following(timeline: Timeline, wanted: set[int], waits: set[int]) -> dict[int, int]:
    """For wanted calls the next one of their thread that launched work or waited; nothing for the last."""
    if not wanted:
        return {}
    telling = {row.call for row in timeline.work} | waits
    telling.discard(NONE)
    last: dict[int, int] = {}
    found: dict[int, int] = {}
    calls = timeline.calls
    for index in sorted(telling, key=lambda index: calls[index].start_ns):
        thread = calls[index].thread
        before = last.get(thread, NONE)
        if before in wanted:
            found[before] = index
        last[thread] = index
    return found


def _launches_late(timeline: Timeline, places: Places) -> _Late:
    """`launched_late` for all gaps at once."""
    idle = places.idle
    lengths = idle.end_ns - idle.start_ns
    calls = column(timeline.work, "call")[idle.work]
    # NONE, which is -1, finds the last: no call, which returned before anything.
    returned = np.append(column(timeline.calls, "end_ns"), np.iinfo(np.int64).min)[calls]
    late = (lengths >= SHORTEST_GAP_NS) & (returned > idle.start_ns)
    return dict(zip(idle.work[late].tolist(), lengths[late].tolist(), strict=True))


def _starved(timeline: Timeline, places: Places, late: _Late) -> Iterator[_Hit]:
    """GPUs idle before a launch. What a copy inside a forward was late by is that copy's cost, not a late launch's."""
    work = timeline.work
    spent: dict[str, list[int]] = {}
    for index, idle in late.items():
        row = work[index]
        if row.copy is not None and round_trip(row, places):
            continue
        place = places.path_of(row)
        held = spent.get(place)
        if held is None:
            spent[place] = [idle, 1]
        else:
            held[0] += idle
            held[1] += 1
    for place, (idle, times) in spent.items():
        yield _Hit(place, "GPU idle before a launch", idle, times)


def launched_late(timeline: Timeline, gap: Gap) -> bool:
    """Whether a gap that counts ended with work whose launch call had not returned when the GPU ran out of work."""
    if gap.end_ns - gap.start_ns < SHORTEST_GAP_NS:
        return False
    call = timeline.work[gap.work].call
    return call != NONE and timeline.calls[call].end_ns > gap.start_ns


def _repeated(timeline: Timeline, places: Places, late: _Late) -> Iterator[_Hit]:
    """Kernels of one name and shape, launched many times in a row by one range on one stream."""
    streams: dict[tuple[int, int, int], list[Work]] = defaultdict(list)
    for row in timeline.work:
        streams[row.process, row.gpu, row.stream].append(row)
    for rows in streams.values():
        for run in _runs(rows):
            if run[0].kind == "kernel":
                span = max(row.end_ns for row in run) - run[0].start_ns
                yield _Hit(places.path_of(run[0]), run[0].name, span - max(map(_duration, run)), len(run))


def _runs(rows: list[Work]) -> Iterator[list[Work]]:
    """Stretches of work of one identity, as far as they are long enough to count."""
    start, first = 0, rows[0]
    for index, row in enumerate(rows):
        # The range differs most often, so it is compared first.
        if (
            row.range != first.range
            or row.full_name != first.full_name
            or row.kind != first.kind
            or row.shape != first.shape
            or row.captured != first.captured
        ):
            if index - start >= FEWEST_REPEATS:
                yield rows[start:index]
            start, first = index, row
    if len(rows) - start >= FEWEST_REPEATS:
        yield rows[start:]


def _loops(timeline: Timeline, places: Places, late: _Late) -> Iterator[_Hit]:
    """Blocking synchronizations that come again and again in one place.

    In steps and blocks all turns of a process count, in other ranges those inside of one outermost range.
    """
    groups: dict[tuple[str, str, int, int], list[Sync]] = defaultdict(list)
    for sync in timeline.syncs:
        if sync.blocks and sync.range != NONE:
            turn = NONE if places.in_step(sync.range) else places.root(sync.range)
            groups[places.path(sync.range), sync.kind, sync.process, turn].append(sync)
    for (place, kind, _, _), syncs in groups.items():
        if len(syncs) >= FEWEST_SYNCS:
            yield _Hit(place, kind, sum(map(_duration, syncs)), len(syncs))


KINDS: dict[str, Kind] = {
    "host-copy": Kind(
        "a copy between host and device inside a forward; its cost holds what the GPU waited for it to begin",
        "Keep the value on the GPU, or make it once before the loop.",
        _host_copies,
    ),
    "pageable-copy": Kind(
        "a copy from or to pageable host memory, which is staged and makes the host wait",
        "Use pinned memory for the host side, allocated once.",
        _pageable,
    ),
    "item-sync": Kind(
        "a tiny copy to the host that the host waits for, as .item() makes",
        "Decide on the GPU, or read the value once after the loop.",
        _items,
    ),
    "launch-bound": Kind(
        "a GPU that is idle because the next launch comes late",
        "Fuse small kernels, capture a CUDA graph, or take work off the host between launches.",
        _starved,
    ),
    "repeated-kernel": Kind(
        "the same kernel of the same shape many times in a row; its cost is all but the longest, an upper bound",
        "Make it one batched launch.",
        _repeated,
    ),
    "sync-in-loop": Kind(
        "a blocking synchronization that comes again and again",
        "Wait once after the loop; order streams by events, which do not block the host.",
        _loops,
    ),
}
