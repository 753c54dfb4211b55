"""The floor: the minimum time of a rung's ops on a machine, under its ceilings."""

from __future__ import annotations

from typing import NamedTuple

from fluxperf.harness.facts.ceilings import MEMORY, Ceiling, bound
from fluxperf.harness.facts.samples import summary_of
from fluxperf.harness.facts.study import Ladder, Study
from fluxperf.harness.facts.work import outer
from fluxperf.harness.records import Record
from fluxperf.harness.text import units


class Floor(NamedTuple):
    """The floor of a ladder at its quickest rung: seconds of all steps, and the ceilings it is computed from."""

    time_s: float
    rung: str
    share: float
    ceilings: tuple[Ceiling, ...]

    @property
    def measured(self) -> bool:
        """Whether every ceiling was measured."""
        return all(ceiling.kind == "measured" for ceiling in self.ceilings)

    @property
    def source(self) -> str:
        """The ceilings as text."""
        return "; ".join(rate(ceiling) for ceiling in self.ceilings) + "."


def rate(ceiling: Ceiling) -> str:
    """A ceiling as text, with its source."""
    unit = "B/s" if ceiling.what == MEMORY else "FLOP/s"
    what = "memory" if ceiling.what == MEMORY else f"products in {ceiling.what}"
    kind = "" if ceiling.kind == "measured" else "published peak, "
    return f"{what} {units.quantity(ceiling.rate, unit)} ({kind}{ceiling.source})"


def floor_of(study: Study, ladder: Ladder) -> Floor | None:
    """The floor of a ladder on a GPU; ``None`` if it lacks op rows, a time, or a ceiling.

    The sum over the ops of one forward of ``max(bytes / memory, flops / products)``, times the steps. It holds for the
    ops as the rung splits them: fusing ops moves fewer bytes and lowers it. An op that took less than the time for its
    bytes did not move all of them (views, caches), and counts with its measured time.
    """
    best = ladder.best
    found = summary_of(best.record) if best else None
    if ladder.twin or not best or not best.record or not found or not best.record.ops:
        return None
    ceilings = study.ceilings_of(ladder.machine)
    least = _least(best.record, ceilings)
    if least is None:
        return None
    seconds, used = least
    whole = seconds * best.record.workload.steps
    return Floor(whole, best.label, whole / found.median, tuple(ceilings[name] for name in used))


def _least(record: Record, ceilings: dict[str, Ceiling]) -> tuple[float, list[str]] | None:
    whole, used = 0.0, []
    for row in outer(record.ops):
        least = bound(record, row, ceilings)
        if least is None:
            return None
        whole += min(least.time_s, row.time_s)
        if least.by not in used:
            used.append(least.by)
    return (whole, used) if whole > 0 else None
