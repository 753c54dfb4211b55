"""Damaged rows: times that cannot be true, names that are missing; kept as well as they can be, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fluxperf.harness.timeline.columns import FARTHEST_NS, Column
from fluxperf.harness.timeline.model import Damage, Of
from fluxperf.words import plural

#: How times are wrong, of one row and of several.
_REVERSED = ("ends before it begins", "end before they begin")
_FAR = ("has a time that no clock shows", "have times that no clock shows")
_UNNAMED = ("has no name in the export", "have no names in the export")
_UNTIMED = ("has no time and is left out", "have no times and are left out")


class Kind(NamedTuple):
    """A kind of rows: what they are evidence of, and one and several of them in words, as in `plural`."""

    of: Of
    word: str
    words: str = ""


class Damages:
    """Damage that is seen while a capture is read."""

    def __init__(self) -> None:
        self._numbers: Counter[tuple[Kind, tuple[str, str]]] = Counter()

    def bounded(self, kind: Kind, starts: Column, ends: Column) -> tuple[Column, Column]:
        """Times that can be reckoned with: within 73 years, no end before its start."""
        self.reversed(kind, int((ends < starts).sum()))
        far = (np.minimum(starts, ends) < -FARTHEST_NS) | (np.maximum(starts, ends) > FARTHEST_NS)
        self._numbers[kind, _FAR] += int(far.sum())
        starts = np.clip(starts, -FARTHEST_NS, FARTHEST_NS)
        return starts, np.maximum(starts, np.clip(ends, -FARTHEST_NS, FARTHEST_NS))

    def reversed(self, kind: Kind, number: int) -> None:
        """Counts rows that end before they begin, and are kept as if they took no time."""
        self._numbers[kind, _REVERSED] += number

    def unnamed(self, kind: Kind, number: int) -> None:
        """Counts rows whose name is a string that is not in the export: nothing says what they are."""
        self._numbers[kind, _UNNAMED] += number

    def untimed(self, kind: Kind, number: int) -> None:
        """Counts rows without times, which are left out."""
        self._numbers[kind, _UNTIMED] += number

    def found(self) -> list[Damage]:
        """All of it, by kind."""
        return [
            Damage(kind.of, f"{plural(number, kind.word, kind.words)} {how[number > 1]}")
            for (kind, how), number in self._numbers.items()
            if number
        ]


def note_of(damage: Sequence[Damage]) -> list[str]:
    """A sentence about damage, if there is any."""
    if not damage:
        return []
    told = "; ".join(row.text for row in damage)
    untimed = " What ends before it begins counts with no time." if any(one in told for one in _REVERSED) else ""
    return [f"Damaged: {told}.{untimed} Export again, or capture again."]
