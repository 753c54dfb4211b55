"""Sampling: runs something again and again on a clock that knows when the work is really done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

Run = Callable[[Callable[[int], None]], Any]


class Clock(Protocol):
    """A device's clock. Marks are points in the device's own time, so that asynchronous work is timed where it runs."""

    def mark(self) -> Any:
        """A point in time."""

    def elapsed_s(self, start: Any, end: Any) -> float:
        """Seconds between two points."""

    def synchronize(self) -> None:
        """Waits for all work."""


class Variant(NamedTuple):
    """Something to time, and the clock to time it with.

    ``run`` calls its argument with the index of each step once that has been given to the device.
    """

    clock: Clock
    run: Run


class Samples(NamedTuple):
    """Seconds of every repetition, and of every step in it; warm-ups kept apart; and what the last run returned."""

    whole_s: list[float]
    steps_s: list[float]
    warmup_s: list[float]
    last: Any


def interleave(
    variants: Sequence[Variant], repeat: int, warmup: int = 1, on_sample: Callable[[], None] = lambda: None
) -> list[Samples]:
    """Times several variants in turns, A B B A, so that drift falls on all alike.

    Args:
        variants: what to time.
        repeat: samples of each to keep.
        warmup: runs of each before them.
        on_sample: called after each turn of all variants, for a progress bar.
    """
    collected = [Samples([], [], [], None) for _ in variants]
    for turn in range(warmup + repeat):
        order = list(range(len(variants)))
        for index in reversed(order) if turn % 2 else order:
            whole, steps, last = _once(variants[index])
            samples = collected[index]._replace(last=last)
            if turn < warmup:
                samples.warmup_s.append(whole)
            else:
                samples.whole_s.append(whole)
                samples.steps_s.extend(steps)
            collected[index] = samples
        on_sample()
    return collected


def _once(variant: Variant) -> tuple[float, list[float], Any]:
    """Seconds of one run, seconds of its steps, and its result."""
    clock = variant.clock
    marks: list[Any] = [clock.mark()]
    last = variant.run(lambda step: marks.append(clock.mark()))
    end = clock.mark()
    clock.synchronize()
    return clock.elapsed_s(marks[0], end), [clock.elapsed_s(a, b) for a, b in pairwise(marks)], last
