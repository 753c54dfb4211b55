"""Blind spots of a capture: findings that it can neither show nor rule out, with reasons."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from fluxperf.harness.text import units
from fluxperf.harness.timeline.causes import SHORTEST_GAP_NS
from fluxperf.harness.timeline.columns import distinct
from fluxperf.harness.timeline.findings import FEWEST_SYNCS, KINDS, TINY_BYTES, crossing
from fluxperf.harness.timeline.losses import NO_MIGRATIONS
from fluxperf.harness.timeline.model import NONE, NSYS, Timeline
from fluxperf.harness.timeline.places import Places
from fluxperf.words import plural

#: Names of CUDA calls. A trace may contain calls of another runtime.
_CUDA = re.compile(r"cu(?:da)?[A-Z]")

#: Calls that allocate, move or advise on unified memory.
_MANAGED = re.compile(r"MallocManaged|MemAllocManaged|MemPrefetch|MemDiscard|MemAdvise")

_OF_COPIES = ("host-copy", "item-sync", "pageable-copy")
_OF_PLACES = ("host-copy", "sync-in-loop")

#: Findings, and the reason why their absence proves nothing.
_Reason = tuple[Iterable[str], str]


def blind_spots(timeline: Timeline, places: Places | None = None) -> dict[str, str]:
    """For each finding whose absence proves nothing in this capture, the reason."""
    reasons: dict[str, list[str]] = {name: [] for name in KINDS}
    found = (_missing, _unknown, _silent, _unified, _lost)
    said = [row for one in found for row in one(timeline)]
    for names, reason in (*said, *_unplaced(timeline, places or Places(timeline))):
        for name in names:
            reasons[name].append(reason)
    return {name: "; ".join(told) for name, told in reasons.items() if told}


def _missing(timeline: Timeline) -> Iterator[_Reason]:
    """Reasons from kinds of rows that are missing entirely."""
    launched = any("GraphLaunch" in name for name, _ in timeline.calls.kinds)
    if (timeline.graph_mode.lower() == "graph" and launched) or timeline.work.flags("graph").any():
        reason = "graphs were traced as a whole; capture again with --cuda-graph-trace=node"
        yield ("host-copy", "pageable-copy", "item-sync", "repeated-kernel"), reason
    if not len(timeline.ranges):
        yield _OF_PLACES, "the capture has no NVTX ranges; capture again with -t cuda,nvtx"
    if not len(timeline.work):
        yield KINDS, "the capture has no GPU work; capture with -t cuda while the program uses a GPU"
    if not len(timeline.calls):
        reason = "the capture has no CUDA calls; capture again with -t cuda"
        yield ("host-copy", "item-sync", "launch-bound", "module-loading", "sync-in-loop"), reason


def _unknown(timeline: Timeline) -> Iterator[_Reason]:
    """Reasons from rows of unknown meaning."""
    calls, work = timeline.calls, timeline.work
    strange = np.array([not _CUDA.match(name) for name, _ in calls.kinds], bool)[calls.what]
    if number := int(strange.sum()):
        names = units.listing([calls.kinds[what][0] for what in distinct(calls.what[strange]).tolist()])
        yield (
            ("item-sync", "module-loading", "sync-in-loop"),
            f"unknown whether {plural(number, 'call')} waited whose names are none of CUDA's ({names})",
        )
    aimless = work.where(what.copy is not None and not (what.copy.source and what.copy.target) for what in work.kinds)
    if number := int(aimless.sum()):
        yield (
            _OF_COPIES,
            f"unknown direction of {plural(number, 'copy', 'copies')}",
        )


def _silent(timeline: Timeline) -> Iterator[_Reason]:
    """Reasons from processes without some kinds of rows, and from copies with unknown host memory."""
    calls, work = timeline.calls, timeline.work
    mute = np.isin(distinct(work.process), distinct(calls.process), invert=True)
    if len(calls) and mute.any():
        told = plural(int(mute.sum()), "process", "processes")
        yield (
            ("item-sync", "launch-bound", "module-loading", "sync-in-loop"),
            f"{told} with GPU work but without CUDA calls in the capture",
        )
    of_host = {"d2h": "target_memory", "h2d": "source_memory"}
    untold = work.where(
        what.copy is not None
        and not what.copy.unified
        and what.copy.crossing in of_host
        and getattr(what.copy, of_host[what.copy.crossing]).lower() in ("", "unknown")
        for what in work.kinds
    )
    if number := int(untold.sum()):
        yield ("pageable-copy",), f"unknown kind of host memory of {plural(number, 'copy', 'copies')}"


def _unified(timeline: Timeline) -> Iterator[_Reason]:
    """Reasons from unified memory without recorded page faults or migrations."""
    recorded = timeline.tool == NSYS and not any(NO_MIGRATIONS.search(row.text) for row in timeline.diagnostics)
    used = [name for name, _ in timeline.calls.kinds if _MANAGED.search(name)]
    if used and not recorded:
        yield (
            _OF_COPIES,
            f"migrations of unified memory ({used[0]}) were not recorded; capture with Nsight Systems",
        )
    if not recorded:
        yield ("page-fault",), "migrations of unified memory were not recorded; capture with Nsight Systems"
    elif "device" not in timeline.faults_of:
        yield ("page-fault",), "page faults of GPUs were not recorded; capture with --cuda-um-gpu-page-faults=true"
    for reason in unreliable(timeline, "copies") if used else ():
        yield ("page-fault",), reason
    work = timeline.work
    without_cause = work.where(what.copy is not None and not what.copy.cause for what in work.kinds)
    if number := int((work.unified & without_cause).sum()):
        yield ("page-fault",), f"{plural(number, 'migration')} of unified memory without a recorded cause"


def _lost(timeline: Timeline) -> Iterator[_Reason]:
    for reason in unreliable(timeline, "cuda"):
        yield KINDS, reason
    for reason in unreliable(timeline, "copies"):
        yield _OF_COPIES, reason
    for reason in unreliable(timeline, "ranges"):
        yield _OF_PLACES, reason


def unreliable(timeline: Timeline, of: Literal["cuda", "copies", "ranges"]) -> Iterator[str]:
    """Reasons why CUDA rows, only copies, or NVTX ranges may be missing or have wrong times."""
    said = [loss.text.strip() for loss in timeline.losses if loss.of == of]
    if said:
        yield f"{timeline.tool} may have lost events ({said[0][:200]}); capture a shorter part of the run"
    damage = [row.text for row in timeline.damage if row.of == of]
    if damage:
        yield f"the data are damaged ({', '.join(damage)}); export again, or capture again"


def _unplaced(timeline: Timeline, places: Places) -> Iterator[_Reason]:
    """Reasons from work without a range or a launch call, which cannot be assigned to a place."""
    work, waits = timeline.work, timeline.syncs.blocking
    stray = int((crossing(work) & (work.call != NONE) & (work.range == NONE)).sum())
    if stray and len(timeline.ranges):
        yield (
            ("host-copy",),
            (
                f"{plural(stray, 'copy', 'copies')} between host and device outside of every range; add ranges, "
                "such as one around the work before the loop"
            ),
        )
    tiny = (
        work.bytes
        <= TINY_BYTES * np.array([what.copy.count if what.copy else 1 for what in work.kinds], np.int64)[work.what]
    )
    down = work.where(
        what.copy is not None and what.copy.crossing == "d2h" and not what.copy.unified for what in work.kinds
    )
    lone = int((down & tiny & (work.call == NONE)).sum())
    if lone:
        yield (
            ("item-sync",),
            (
                f"{plural(lone, 'tiny copy', 'tiny copies')} to the host without a recorded launch call, for which "
                "the host may have waited; begin the capture earlier"
            ),
        )
    idle = places.idle
    unknown = (work.call[idle.work] == NONE) & (idle.lasted_ns >= SHORTEST_GAP_NS)
    moved = unknown & work.unified[idle.work]
    if moved.any():
        yield (
            ("launch-bound", "module-loading"),
            f"{plural(int(moved.sum()), 'gap')} before migrations of unified memory, which have no launch call",
        )
    unknown &= ~moved
    if unknown.any():
        yield (
            ("launch-bound", "module-loading"),
            (
                f"{plural(int(unknown.sum()), 'gap')} before work whose launch call is not in the capture; begin "
                "the capture before this work is launched"
            ),
        )
    outside = waits.what[waits.range == NONE]
    if len(timeline.ranges) and np.bincount(outside, minlength=1).max() >= FEWEST_SYNCS:
        yield (
            ("sync-in-loop",),
            (f"{plural(len(outside), 'wait')} of the host outside of every range; add ranges"),
        )
