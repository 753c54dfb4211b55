"""Parts of a timeline: an interval of time, a range, a process, a GPU, or an NVTX domain."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxperf.errors import ConfigError
from fluxperf.harness.text import units
from fluxperf.harness.timeline.attribution import attribute
from fluxperf.harness.timeline.crossing import calls_in, perhaps_in
from fluxperf.harness.timeline.limits import ranges_like
from fluxperf.harness.timeline.model import NONE, Damage, Loss, Timeline, process_id
from fluxperf.harness.timeline.places import Places, normal

Mask = NDArray[np.bool_]
TroubleT = TypeVar("TroubleT", Damage, Loss)


class Filter(NamedTuple):
    """Conditions for a part of a capture; ``None`` keeps all. Times are milliseconds after the first event."""

    between_ms: tuple[float, float] | None = None
    range: str | None = None
    process: int | None = None
    gpu: int | None = None
    domain: str | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in self)


def filtered(timeline: Timeline, wanted: Filter) -> Timeline:
    """The part of an attributed timeline that a filter keeps, attributed again.

    An interval of time keeps everything that was launched, called or opened in it, and nothing that started earlier.

    Raises:
        ConfigError: the timeline has no such part.
    """
    if not wanted:
        return timeline
    ranges, calls, work, syncs = timeline.ranges, timeline.calls, timeline.work, timeline.syncs
    faults = timeline.faults
    tables: dict[str, Sized] = {"ranges": ranges, "calls": calls, "work": work, "syncs": syncs, "faults": faults}
    keep: dict[str, Mask] = {name: np.ones(len(rows), np.bool_) for name, rows in tables.items()}
    if wanted.process is not None:
        _known("--process", wanted.process, [process_id(one) for one in timeline.processes])
        for name, rows in (("ranges", ranges), ("calls", calls), ("work", work), ("syncs", syncs), ("faults", faults)):
            keep[name] &= process_id(rows.process) == wanted.process
    if wanted.gpu is not None:
        _known("--gpu", wanted.gpu, list(timeline.gpus))
        keep["work"] &= work.gpu == wanted.gpu
        of_host = np.array([kind.side == "host" for kind in faults.kinds], bool)[faults.what]
        keep["faults"] &= of_host | (faults.gpu == wanted.gpu)
    if wanted.domain is not None:
        _known("--domain", wanted.domain, [name or "default" for name in ranges.domains])
        alike = [number for number, name in enumerate(ranges.domains) if (name or "default") == wanted.domain]
        keep["ranges"] &= np.isin(ranges.domain, alike)
    if wanted.range is not None:
        _within(timeline, wanted.range, keep)
    if wanted.between_ms is not None:
        _between(timeline, wanted.between_ms, keep)
    if not any(mask.any() for mask in keep.values()):
        raise ConfigError(
            f"timeline: expected events in the requested part of {timeline.source}, found none. Choose another part."
        )
    made = msgspec.structs.replace(
        timeline,
        ranges=ranges.taken(keep["ranges"]),
        calls=calls.taken(keep["calls"]),
        work=work.taken(keep["work"]),
        syncs=syncs.taken(keep["syncs"]),
        faults=faults.taken(keep["faults"]),
        notes=[],
        losses=timeline.losses if wanted.range is None else _of_all(timeline.losses),
        damage=timeline.damage if wanted.range is None else _of_all(timeline.damage),
    )
    for rows, name in ((made.ranges, "parent"), (made.calls, "range"), (made.work, "captured")):
        setattr(rows, name, np.full(len(rows), NONE, np.int64))
    attribute(made)
    made.notes = [*dict.fromkeys([*timeline.notes, *made.notes]), _said(wanted)]
    made.gpus = {gpu: name for gpu, name in timeline.gpus.items() if gpu in set(made.work.gpu.tolist())}
    return made


def _known(option: str, value: Any, known: Sequence[Any]) -> None:
    if value not in known:
        have = units.listing([str(one) for one in dict.fromkeys(known)]) or "none"
        raise ConfigError(f"timeline {option} {value}: expected one of those in the capture: {have}.")


def _within(timeline: Timeline, name: str, keep: dict[str, Mask]) -> None:
    """Keeps ranges with a name, their content, and the work launched in them."""
    inside = ranges_like(Places(timeline), timeline, name)
    if not inside.any():
        have = units.listing([repr(one) for one in dict.fromkeys(map(normal, timeline.ranges.names))])
        raise ConfigError(f"timeline --in {name}: expected a range of the capture. It has {have or 'none'}.")
    known = np.append(inside, False)
    # Everything launched while the range was open is in it, even from a range that overlaps it. Work without a call may
    # be.
    made = np.append(calls_in(timeline.ranges, timeline.calls, inside)[0], False)
    keep["ranges"] &= inside
    keep["calls"] &= made[:-1]
    perhaps = perhaps_in(timeline.ranges, timeline.work, inside)
    work = timeline.work
    placed = (work.call == NONE) & known[work.range]
    keep["work"] &= made[work.call] | known[work.captured] | placed | perhaps
    keep["syncs"] &= made[timeline.syncs.call]
    keep["faults"] &= known[timeline.faults.range] | perhaps_in(timeline.ranges, timeline.faults, inside)


def _of_all(rows: list[TroubleT]) -> list[TroubleT]:
    """Losses or damage of a part selected by ranges: missing or wrong ranges mean that its CUDA rows may be missing."""
    return [msgspec.structs.replace(row, of="cuda") if row.of == "ranges" else row for row in rows]


def _between(timeline: Timeline, between_ms: tuple[float, float], keep: dict[str, Mask]) -> None:
    """Keeps events that started in an interval. Work is kept by its launch, so that it stays with its range."""
    tables = (timeline.ranges, timeline.calls, timeline.work, timeline.syncs, timeline.faults)
    first = min((int(rows.start_ns.min()) for rows in tables if len(rows)), default=0)
    low, high = (first + round(ms * 1e6) for ms in between_ms)
    if high <= low:
        raise ConfigError(
            f"timeline --between {between_ms[0]:g} {between_ms[1]:g}: expected a start before its end. Swap the two."
        )
    work, calls = timeline.work, timeline.calls
    launched = np.where(work.call == NONE, work.start_ns, np.append(calls.start_ns, 0)[work.call])
    begins = {"ranges": timeline.ranges.start_ns, "calls": calls.start_ns, "work": launched}
    for name, begun in (begins | {"syncs": timeline.syncs.start_ns, "faults": timeline.faults.start_ns}).items():
        keep[name] &= (begun >= low) & (begun < high)
    # Ranges around the interval stay, so that its content keeps its place.
    keep["ranges"] |= (timeline.ranges.start_ns < low) & (timeline.ranges.end_ns > low)


def _said(wanted: Filter) -> str:
    parts = []
    if wanted.between_ms is not None:
        parts.append(f"between {wanted.between_ms[0]:g} and {wanted.between_ms[1]:g} ms")
    if wanted.range is not None:
        parts.append(f"in range {wanted.range}")
    for name in ("process", "gpu", "domain"):
        if (value := getattr(wanted, name)) is not None:
            parts.append(f"of {name} {value}")
    return f"Only a part of the capture is shown: {', '.join(parts)}."
