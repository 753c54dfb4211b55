"""Joules of a window of time, by a GPU's own counter, beside the integral of its power.

The counter adds up energy and is renewed about ten times a second, so a window has to be long against that. What it
added from the first renewal in the window to the last is taken as the mean power of all of it. Power is read as often
and integrated; two ways to the same joules that disagree are a reason to trust neither.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise

from fluxperf.harness.records import EnergyRow, Record

#: Seconds between two looks at counter and power while a renewal is due. How late one is seen is how well its time is
#: known: 4 ms of a window of 2 s are 0.2 %. A look at an H100's counter takes the host 3 ms, without Python's lock.
LOOK_S = 0.004

#: Share of the time from one renewal to the next that passes before the next is looked for.
_REST = 0.85

#: Renewals of the counter that a window must hold.
FEWEST_RENEWALS = 10

#: Share of its own by which the counter may be off from the integral of power, without a word about it.
AGREES = 0.03

Ask = Callable[[], float | None]


class EnergyMeter:
    """Looks at a GPU's energy and power, from time to time, and keeps what a window needs.

    Args:
        joules: the counter, ``None`` where there is none.
        watts: power of this moment, or its mean over the last second, ``None`` where it is not told.
        now: seconds of the host's clock.
    """

    def __init__(self, joules: Ask, watts: Ask, now: Callable[[], float]) -> None:
        self._joules, self._watts, self._now = joules, watts, now
        self._one = threading.Lock()  # the thread that looks from time to time, and the one whose window it is
        self._renewals: list[tuple[float, float]] = []
        self._power: list[tuple[float, float]] = []
        self._last: float | None = None
        self._open = False
        #: What the last window took; ``None`` before there was one.
        self.row: EnergyRow | None = None

    def look(self) -> None:
        """Notes a renewal of the counter, and the power; only while a window is open."""
        with self._one:
            if not self._open:
                return
            at_s, joules, watts = self._now(), self._joules(), self._watts()
            if watts is not None:
                self._power.append((at_s, watts))
            if joules is not None and joules != self._last:
                if self._last is not None:  # when the first value came, nobody saw
                    self._renewals.append((at_s, joules))
                self._last = joules

    @property
    def pause_s(self) -> float:
        """Seconds until the next look: most of the time between two renewals, where that is known."""
        with self._one:
            seen = self._renewals[-3:]
            if not self._open or len(seen) < 2:
                return LOOK_S
            usual_s = min(after - before for (before, _), (after, _) in pairwise(seen))
            return max(LOOK_S, seen[-1][0] + _REST * usual_s - self._now())

    @contextmanager
    def window(self) -> Iterator[None]:
        """A region of time whose joules are wanted; what was known of the one before is forgotten."""
        with self._one:
            self._renewals, self._power, self._last, self.row = [], [], None, None
            self._open, start_s = True, self._now()
        self.look()
        try:
            yield
        finally:
            self.look()
            with self._one:
                self._open = False
            self.row = self._taken(self._now() - start_s)

    def _taken(self, window_s: float) -> EnergyRow:
        counter = _rate(self._renewals)
        area = sum((b - a) * (p + q) / 2 for (a, p), (b, q) in pairwise(self._power))
        seen_s = self._power[-1][0] - self._power[0][0] if self._power else 0.0
        return EnergyRow(
            window_s=window_s,
            counter_j=None if counter is None else counter * window_s,
            integrated_j=area / seen_s * window_s if seen_s > 0 else None,
            renewals=len(self._renewals),
        )


def _rate(renewals: list[tuple[float, float]]) -> float | None:
    """Mean watts from the first renewal to the last, or ``None`` for too few, or for a counter that went back."""
    if len(renewals) < FEWEST_RENEWALS:
        return None
    (start_s, first), (end_s, last) = renewals[0], renewals[-1]
    return (last - first) / (end_s - start_s) if last > first else None


def energy_note(records: Iterable[Record]) -> str:
    """A sentence that names the rungs where counter and integrated power disagree; empty if none do."""
    apart = {}
    for record in records:
        rows = [process.energy for process in record.conditions or [] if process.energy is not None]
        off = [
            row.counter_j / row.integrated_j - 1
            for row in rows
            if row.counter_j is not None and row.integrated_j is not None
        ]
        worst = max(off, key=abs, default=0.0)
        if abs(worst) > AGREES:
            apart[record.rung] = worst
    if not apart:
        return ""
    which = "; ".join(f"{rung} ({worst:+.1%})" for rung, worst in apart.items())
    return f"Joules by the GPU's counter are off from its integrated power, so trust neither: {which}."
