"""The state of the machine during both sides: finds pairs that show a change of the machine instead of the program."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from fluxperf.harness.metrics import samples_of
from fluxperf.harness.records import ClockReading, Conditions, Record, SamplingRow

#: Reasons for low clocks that are faults of the machine. The power cap itself is normal.
HELD = ("hardware slowdown", "software thermal slowdown", "hardware thermal slowdown", "power brake")

#: Reasons that a user can set.
SET = ("application clocks", "sync boost", "display clocks")

#: If clocks within a pair differ by more than this without the power cap, it is a fault of the machine.
CLOCK = 0.05

#: If this share of pairs is left out, the others are not a fair sample either.
MOST_LEFT_OUT = 0.5


class State(NamedTuple):
    """State of the machine during one process; ``None`` for values that were not read."""

    conditions: Conditions | None
    sampling: SamplingRow | None

    @property
    def busy(self) -> list[ClockReading]:
        """Readings while the GPU was working."""
        readings = self.conditions.readings if self.conditions else []
        return [reading for reading in readings if "idle" not in (reading.reasons or [])]

    @property
    def reasons(self) -> set[str]:
        """Reasons for low clocks."""
        return {reason for reading in self.busy for reason in reading.reasons or []}

    @property
    def clock(self) -> float | None:
        """The median clock of the multiprocessors, in MHz."""
        clocks = [reading.sm_mhz for reading in self.busy if reading.sm_mhz]
        return median(clocks) if clocks else None

    @property
    def memory_clock(self) -> float | None:
        """The median clock of the memory, in MHz."""
        clocks = [reading.memory_mhz for reading in self.busy if reading.memory_mhz]
        return median(clocks) if clocks else None

    @property
    def in_words(self) -> str:
        """Clock and temperature as text."""
        hottest = max((reading.temperature_c for reading in self.busy if reading.temperature_c), default=None)
        said = [f"{self.clock:g} MHz" if self.clock else "", f"{hottest} C" if hottest else ""]
        return ", ".join(part for part in said if part) or "no reading"


def states(records: Sequence[Record], metric: str) -> list[State]:
    """The state of each process that has samples of a metric, in order."""
    found = []
    for record in records:
        for index in range(len(samples_of(record, metric))):
            conditions = record.conditions[index] if record.conditions and index < len(record.conditions) else None
            sampling = record.sampling[index] if index < len(record.sampling) else None
            found.append(State(conditions, sampling))
    return found


def distinct(base: Sequence[State], head: Sequence[State]) -> int:
    """Number of processes of the side with fewer, if some took several turns; 0 if each turn had its own process."""
    fewest = 0
    for side in (base, head):
        known = [state.sampling.process if state.sampling else None for state in side]
        number = len({one for one in known if one is not None}) + known.count(None)
        if number < len(side):
            fewest = min(fewest or number, number)
    return fewest


def left_out(base: Sequence[State], head: Sequence[State]) -> dict[int, str]:
    """Pairs, by number, that say nothing about the program, with the reason; all pairs if too few others are left."""
    found = {}
    number = min(len(base), len(head))
    for index, (before, after) in enumerate(zip(base, head, strict=False)):
        if said := _said(before, after):
            found[index] = said
    if len(found) > MOST_LEFT_OUT * number:
        rest = f"{len(found)} of {number} pairs are left out, so the others prove nothing"
        found = {index: found.get(index, rest) for index in range(number)}
    return found


def _said(base: State, head: State) -> str:
    """Why a pair is not used, or ""."""
    for side, state in (("base", base), ("head", head)):
        if state.sampling is not None and state.sampling.settled is False:
            return f"the {side} had not settled when its samples began"
    for reasons, words in ((HELD, "was throttled"), (SET, "had a fixed clock")):
        before, after = (state.reasons.intersection(reasons) for state in (base, head))
        if before != after:
            side, state, more = ("base", base, before - after) if before - after else ("head", head, after - before)
            return f"the GPU {words} on the {side} only: {', '.join(sorted(more))} ({state.in_words})"
    if base.clock and head.clock:
        side, low, high = ("base", base, head) if base.clock < head.clock else ("head", head, base)
        if (low.clock or 0) < (1 - CLOCK) * (high.clock or 0) and "power cap" not in low.reasons:
            return f"the clock was lower on the {side} without the power cap: {low.clock:g} and {high.clock:g} MHz"
    old, new = base.memory_clock, head.memory_clock
    if old and new and min(old, new) < (1 - CLOCK) * max(old, new):  # the power cap does not change the memory clock
        return f"the memory clock differed: {old:g} MHz on the base, {new:g} MHz on the head"
    return ""


def other_limits(base: Sequence[State], head: Sequence[State]) -> tuple[str, str, str] | None:
    """A limit of the GPU that differs between the sides, with its values; ``None`` if there is none."""
    for name, what in (("power_limit_w", "power limit in W"), ("sm_highest_mhz", "highest clock in MHz")):
        sides = [
            sorted({getattr(state.conditions, name) for state in side if state.conditions} - {None})
            for side in (base, head)
        ]
        if all(sides) and sides[0] != sides[1]:
            before, after = (", ".join(f"{value:g}" for value in values) for values in sides)
            return what, before, after
    return None
