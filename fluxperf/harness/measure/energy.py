"""Joules of a window of time, from a GPU's energy counter, compared with the integral of its power.

The counter is updated about ten times a second, so a window must be much longer. The energy between the first and the
last update in the window gives the mean power, which is used for the whole window. Power is read as often and
integrated. If the two results disagree, neither can be trusted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise

from fluxperf.harness.records import EnergyRow, Record

#: Seconds between two looks at counter and power while an update is due. The delay of seeing it is the error of its
#: time: 4 ms of a window of 2 s are 0.2 %. A look at an H100's counter takes the host 3 ms, without Python's lock.
LOOK_S = 0.004

#: Share of the time between two updates that passes before the next one is looked for.
_REST = 0.85

#: Minimum number of updates of the counter in a window.
FEWEST_RENEWALS = 10

#: Maximum relative difference of the counter from the integral of power without a note.
AGREES = 0.03

Ask = Callable[[], float | None]


class EnergyMeter:
    """Reads a GPU's energy and power periodically, and keeps the readings of a window.

    Args:
        joules: the counter, ``None`` if there is none.
        watts: current power, or its mean over the last second, ``None`` if it is not reported.
        now: seconds of the host's clock.
    """

    def __init__(self, joules: Ask, watts: Ask, now: Callable[[], float]) -> None:
        self._joules, self._watts, self._now = joules, watts, now
        self._one = threading.Lock()  # the thread that reads periodically, and the thread of the window
        self._renewals: list[tuple[float, float]] = []
        self._power: list[tuple[float, float]] = []
        self._last: float | None = None
        self._open = False
        #: The energy of the last window; ``None`` before there was one.
        self.row: EnergyRow | None = None

    def look(self) -> None:
        """Records an update of the counter, and the power; only while a window is open."""
        with self._one:
            if not self._open:
                return
            at_s, joules, watts = self._now(), self._joules(), self._watts()
            if watts is not None:
                self._power.append((at_s, watts))
            if joules is not None and joules != self._last:
                if self._last is not None:  # the time of the first value is unknown
                    self._renewals.append((at_s, joules))
                self._last = joules

    @property
    def pause_s(self) -> float:
        """Seconds until the next look: most of the time between two updates, if that is known."""
        with self._one:
            seen = self._renewals[-3:]
            if not self._open or len(seen) < 2:
                return LOOK_S
            usual_s = min(after - before for (before, _), (after, _) in pairwise(seen))
            return max(LOOK_S, seen[-1][0] + _REST * usual_s - self._now())

    @contextmanager
    def window(self) -> Iterator[None]:
        """A region of time whose joules are measured. Readings of the previous one are discarded."""
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
    """Mean watts from the first update to the last, or ``None`` for too few, or for a counter that decreased."""
    if len(renewals) < FEWEST_RENEWALS:
        return None
    (start_s, first), (end_s, last) = renewals[0], renewals[-1]
    return (last - first) / (end_s - start_s) if last > first else None


def energy_note(records: Iterable[Record]) -> str:
    """A sentence that names the rungs whose counter and integrated power disagree; empty if none do."""
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
    return f"The GPU's energy counter and its integrated power disagree, so do not trust either: {which}."
