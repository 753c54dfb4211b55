"""Sampling: runs something again and again on a clock that knows when the work is really done."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple, Protocol


class Clock(Protocol):
    """A device's clock. Marks are points in the device's own time, so that asynchronous work is timed where it runs."""

    def mark(self) -> Any:
        """A point in time."""

    def elapsed_s(self, start: Any, end: Any) -> float:
        """Seconds between two points."""

    def synchronize(self) -> None:
        """Waits for all work."""


class Samples(NamedTuple):
    """Seconds of every repetition, and of every step in it. Warm-ups are kept apart, not thrown away."""

    whole_s: list[float]
    steps_s: list[float]
    warmup_s: list[float]


def sample(
    clock: Clock,
    run: Callable[[Callable[[int], None]], Any],
    repeat: int,
    warmup: int = 1,
    on_sample: Callable[[], None] = lambda: None,
) -> Samples:
    """Times ``run`` as a whole and step by step.

    Args:
        clock: the device's.
        run: the work; it calls its argument with the index of each step once that has been given to the device.
        repeat: samples to keep.
        warmup: runs before them.
        on_sample: called after each run, for a progress bar.
    """
    samples = Samples([], [], [])
    for number in range(warmup + repeat):
        marks: list[Any] = [clock.mark()]

        def note(step: int, marks: list[Any] = marks) -> None:
            marks.append(clock.mark())

        run(note)
        end = clock.mark()
        clock.synchronize()
        whole = clock.elapsed_s(marks[0], end)
        if number < warmup:
            samples.warmup_s.append(whole)
        else:
            samples.whole_s.append(whole)
            samples.steps_s.extend(clock.elapsed_s(a, b) for a, b in pairwise(marks))
        on_sample()
    return samples
