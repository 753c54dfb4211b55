"""Speedups from one rung to a later one, expected and measured."""

from __future__ import annotations

from typing import NamedTuple

from fluxperf.harness.facts.samples import Speedup, speedup
from fluxperf.harness.facts.study import Ladder, Study
from fluxperf.harness.records import Record


class Climb(NamedTuple):
    """The speedup from one rung to a later one: its name, the expected range, and the measured value."""

    name: str
    before: Record | None
    after: Record | None
    expected: tuple[float, float] | None
    found: Speedup | None


def climbs(study: Study, ladder: Ladder) -> list[Climb]:
    """The mission's phases, then each later rung against the rung before it."""
    rows = []
    for phase in study.context.phases:
        before, after = ladder.at(phase.before), ladder.at(phase.after)
        rows.append(Climb(phase.name, before, after, phase.expected, speedup(before, after)))
    names = [info.name for info in study.context.ladder]
    last = max((names.index(phase.after) for phase in study.context.phases if phase.after in names), default=0)
    for old, new in zip(names[last:], names[last + 1 :], strict=False):
        before, after = ladder.at(old), ladder.at(new)
        rows.append(Climb(new, before, after, None, speedup(before, after)))
    return rows
