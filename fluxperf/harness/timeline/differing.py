"""Two captures side by side: changes by range, op and kernel, matched by path and full name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec
import numpy as np

from fluxperf.harness.timeline.kernel_names import short_name
from fluxperf.harness.timeline.model import Timeline
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.summary import Row, summarize
from fluxperf.harness.timeline.tree import tree


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Costs of one side of a row: turns or launches, times, kernels, copies between host and device, waits."""

    calls: int = 0
    gpu_ms: float = 0.0
    idle_ms: float = 0.0
    kernels: int = 0
    copies: int = 0
    copy_bytes: int = 0
    waits: int = 0
    wait_ms: float = 0.0


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A row of both captures. A side without that row has zeros."""

    name: str
    before: Cost
    after: Cost
    seen: str

    @property
    def gpu_ms(self) -> float:
        """How much more GPU time the second capture has."""
        return self.after.gpu_ms - self.before.gpu_ms


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Rows by range with their children, by op, and by kernel, the largest changes first; and the totals."""

    before: str
    after: str
    total: Change
    ranges: list[Change]
    ops: list[Change]
    kernels: list[Change]


def difference(before: Timeline, after: Timeline) -> Difference:
    """Changes from one attributed timeline to another."""
    sides = [(one, Places(one)) for one in (before, after)]
    (ops, total), (ops_after, total_after) = (_of_rows(*side) for side in sides)
    kernels = [_of_kernels(one) for one, _ in sides]
    labels = _labels({name for one in kernels for name in one})
    return Difference(
        before=before.source,
        after=after.source,
        total=Change(name="total", before=total, after=total_after, seen="in both"),
        ranges=_changes(*(_of_tree(*side) for side in sides)),
        ops=_changes(ops, ops_after),
        kernels=[msgspec.structs.replace(row, name=labels[row.name]) for row in _changes(*kernels)],
    )


def _changes(before: dict[str, Cost], after: dict[str, Cost]) -> list[Change]:
    nothing = Cost()
    rows = [
        Change(
            name=name,
            before=before.get(name, nothing),
            after=after.get(name, nothing),
            seen="in both" if name in before and name in after else "only before" if name in before else "only after",
        )
        for name in dict.fromkeys([*before, *after])
    ]
    return sorted(rows, key=lambda row: (-abs(row.gpu_ms), -abs(row.after.calls - row.before.calls), row.name))


def _of_tree(timeline: Timeline, places: Places) -> dict[str, Cost]:
    rows = (row for branch in tree(timeline, places) for _, row in branch.rows())
    return {row.path: msgspec.convert(row, Cost, from_attributes=True) for row in rows}


def _of_rows(timeline: Timeline, places: Places) -> tuple[dict[str, Cost], Cost]:
    """Costs by op, and in total."""
    found = summarize(timeline, "op", places)
    return {row.name: _cost(row) for row in found.rows}, _cost(found.total)


def _cost(row: Row) -> Cost:
    return Cost(
        calls=row.calls,
        gpu_ms=row.gpu_ms,
        idle_ms=row.idle_ms,
        kernels=row.kernels,
        copies=sum(copy.count for copy in row.copies),
        copy_bytes=sum(copy.bytes for copy in row.copies),
        waits=row.syncs,
        wait_ms=row.sync_ms,
    )


def _of_kernels(timeline: Timeline) -> dict[str, Cost]:
    """Costs by full kernel name; durations are summed."""
    work, found = timeline.work, dict[str, list[float]]()
    times = np.bincount(work.what, minlength=len(work.kinds)).tolist()
    spent = np.bincount(work.what, work.end_ns - work.start_ns, len(work.kinds)).tolist()
    for what, number, lasted in zip(work.kinds, times, spent, strict=True):
        if what.kind == "kernel":
            held = found.setdefault(what.full_name or what.name, [0.0, 0.0])
            held[0] += number
            held[1] += lasted
    return {
        name: Cost(calls=int(number), kernels=int(number), gpu_ms=lasted / 1e6)
        for name, (number, lasted) in found.items()
    }


def _labels(names: Iterable[str]) -> dict[str, str]:
    """Short form of each full name, or the full name if several kernels share the short form."""
    short = {name: short_name(name) for name in names}
    taken = Counter(short.values())
    return {name: one if taken[one] == 1 else name for name, one in short.items()}
