"""Measures both sides of a comparison: pairs in random order, and heads with planted work beside one base.

For one program on both sides (A/A), turns may also form a chain, where each turn is in two comparisons.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

from fluxperf.errors import RecordError
from fluxperf.harness.alive import SIDES
from fluxperf.harness.gate import Runner, Side
from fluxperf.harness.records import Record


class AA(NamedTuple):
    """Records of two sides of the same program."""

    base: list[Record]
    head: list[Record]


def planted_cycles(plants: Sequence[float], warm: Sequence[Record]) -> list[int]:
    """Cycles planted in each step of the heads of a comparison: none in the first head, then each share of a step.

    Empty if nothing is planted.

    Raises:
        RecordError: the device counts no cycles.
    """
    if not plants:
        return []
    steps = [value for record in warm for samples in record.cycles.get("step", []) for value in samples]
    if not steps:
        raise RecordError("gate calibrate --plant: expected a device that counts cycles of a step. Measure on a GPU.")
    return [0, *(round(share * median(steps)) for share in plants)]


def take(
    runner: Runner,
    pairs: int,
    on_pair: Callable[[int], None] = lambda number: None,
    plants: Sequence[int] = (),
) -> list[AA]:
    """Measures both sides of pairs. The side that runs first is random in each pair, as in the gate.

    Args:
        runner: of both sides; it must support planted work if there is any.
        pairs: number of pairs.
        on_pair: called with the number of pairs so far.
        plants: cycles planted in the head, one head for each in every pair, beside one base without.

    Returns:
        Both sides for each of ``plants``, which share their base; one if there are none.

    Raises:
        FluxperfError: a process failed.
    """
    base: list[Record] = []
    found = [AA(base, []) for _ in plants or (0,)]
    for number in range(pairs):
        turns: list[tuple[Side, list[Record], int]] = [("base", base, 0)]
        turns += [("head", one.head, cycles) for one, cycles in zip(found, plants or (0,), strict=True)]
        for side, into, cycles in secrets.SystemRandom().sample(turns, len(turns)):
            into.extend(runner.measure(side, cycles) if plants else runner.measure(side))  # type: ignore[call-arg]
        on_pair(number + 1)
    return found


class Chain:
    """Consecutive turns of one program, each in two comparisons: with the turn before it, and with the one after it.

    This halves the number of turns. Consecutive comparisons share turns, but no pair: a disturbance of a turn affects
    both, with opposite signs if the turn is the base of one and the head of the other.

    Args:
        runner: of both sides, which are the same program.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._turns: list[Sequence[Record]] = []
        self._taken = 0
        self._again = False

    def take(self, pairs: int, on_pair: Callable[[int], None] = lambda number: None) -> AA:
        """The next comparison. Which turn of a pair is the base is random.

        Args:
            pairs: number of pairs; the same in every call.
            on_pair: called with the number of pairs so far.

        Raises:
            FluxperfError: a process failed.
        """
        self._turns = self._turns[1:] if self._again else self._turns[-1:]
        self._again = not self._again
        while len(self._turns) < 2 * pairs:
            self._turns.append(self._runner.measure(SIDES[self._taken % 2]))
            self._taken += 1
            on_pair(len(self._turns) // 2)
        found = AA([], [])
        for pair in zip(self._turns[::2], self._turns[1::2], strict=True):
            for into, records in zip(found, secrets.SystemRandom().sample(pair, 2), strict=True):
                into.extend(records)
        return found
