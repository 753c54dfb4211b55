"""Damaged rows: impossible times, missing names. They are kept as far as possible, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fluxperf.harness.timeline.columns import FARTHEST_NS, Column
from fluxperf.harness.timeline.model import NONE, Damage, Of, Timeline
from fluxperf.words import plural

#: Texts for wrong times, for one row and for several.
_REVERSED = ("ends before it begins", "end before they begin")
_FAR = ("has an impossible time", "have impossible times")
_UNNAMED = ("has no name in the export", "have no names in the export")
_UNTIMED = ("has no time and is left out", "have no times and are left out")
_UNSTARTED = ("begins at 0, before its launch call", "begin at 0, before their launch calls")

#: More than the clocks of host and GPU differ by in a capture.
_CLOCKS_NS = 1_000_000


class Kind(NamedTuple):
    """A kind of rows: the finding they serve as evidence for, and the word for one and for several, as in `plural`."""

    of: Of
    word: str
    words: str = ""


class Damages:
    """Damage found while a capture is read."""

    def __init__(self) -> None:
        self._numbers: Counter[tuple[Kind, tuple[str, str]]] = Counter()

    def bounded(self, kind: Kind, starts: Column, ends: Column) -> tuple[Column, Column]:
        """Times limited to valid values: within 73 years, no end before its start."""
        self.reversed(kind, int((ends < starts).sum()))
        far = (np.minimum(starts, ends) < -FARTHEST_NS) | (np.maximum(starts, ends) > FARTHEST_NS)
        self._numbers[kind, _FAR] += int(far.sum())
        starts = np.clip(starts, -FARTHEST_NS, FARTHEST_NS)
        return starts, np.maximum(starts, np.clip(ends, -FARTHEST_NS, FARTHEST_NS))

    def reversed(self, kind: Kind, number: int) -> None:
        """Counts rows that end before they start. They are kept with a duration of zero."""
        self._numbers[kind, _REVERSED] += number

    def unnamed(self, kind: Kind, number: int) -> None:
        """Counts rows whose name is a string that is missing from the export, so they cannot be identified."""
        self._numbers[kind, _UNNAMED] += number

    def untimed(self, kind: Kind, number: int) -> None:
        """Counts rows without times. They are left out."""
        self._numbers[kind, _UNTIMED] += number

    def found(self) -> list[Damage]:
        """All damage, by kind."""
        return [
            Damage(kind.of, f"{plural(number, kind.word, kind.words)} {how[number > 1]}")
            for (kind, how), number in self._numbers.items()
            if number
        ]


def add_unstarted(timeline: Timeline) -> None:
    """Adds GPU work whose start is 0 or -1, which stand for an unknown time, to the damage of an attributed timeline.

    A capture may begin with work at time 0. But no work begins before its launch call does.
    """
    work = timeline.work
    rows = np.flatnonzero((work.start_ns == 0) | (work.start_ns == -1))
    rows = rows[work.call[rows] != NONE]
    number = int((timeline.calls.start_ns[work.call[rows]] > _CLOCKS_NS).sum())
    if number:
        kind = Kind("cuda", "piece of GPU work", "pieces of GPU work")
        told = Damage(kind.of, f"{plural(number, kind.word, kind.words)} {_UNSTARTED[number > 1]}")
        timeline.damage = [*timeline.damage, told]
        timeline.notes = [*note_of([told]), *timeline.notes]


def note_of(damage: Sequence[Damage]) -> list[str]:
    """A sentence about damage, if there is any."""
    if not damage:
        return []
    told = "; ".join(row.text for row in damage)
    untimed = (
        " Rows that end before they begin count with a duration of zero."
        if any(one in told for one in _REVERSED)
        else ""
    )
    return [f"Damaged: {told}.{untimed} Export again, or capture again."]
