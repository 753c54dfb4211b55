"""Sampling: runs something again and again on a clock that knows when the work is really done.

Three kinds of measurement, which are never compared with each other:

    generation  the device is idle before each sample; nothing is flushed, as a generation moves more than a cache holds
    cold        the device is idle before each sample, its L2 cache is flushed, and the launch gap is hidden
    batch       a number of calls back to back between two marks, queued behind an operation that hides the first gap

Every sample is kept, those of warm-ups too. Several variants take turns, A B B A, so that drift falls on all alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

from fluxperf.errors import ArgumentError
from fluxperf.harness.measure import stopping
from fluxperf.harness.measure.stopping import Until
from fluxperf.harness.records import SamplingRow

Run = Callable[[Callable[[int], None]], Any]
Now = Callable[[], float]

#: Seconds that the device is kept busy before the first cold or batch sample; later ones follow from the sample before.
_BUSY_S = 1e-3

#: Seconds that it is kept busy at most: work that takes the host longer to give cannot be hidden.
_MOST_BUSY_S = 0.5


class Clock(Protocol):
    """A device's clock. Marks are points in the device's own time, so that asynchronous work is timed where it runs."""

    def mark(self) -> Any:
        """A point in time."""

    def elapsed_s(self, start: Any, end: Any) -> float:
        """Seconds between two points."""

    def synchronize(self) -> None:
        """Waits for all work."""


class FlushingClock(Clock, Protocol):
    """A clock of a device whose caches can be flushed, which cold and batch measurements need."""

    def flush(self, busy_s: float = 0.0) -> None:
        """Gives the device writes that leave nothing else in its caches, and that last ``busy_s`` at least.

        Where work is asynchronous it returns at once, and what is given to the device next queues up behind.
        """


class Variant(NamedTuple):
    """A generation to time, and the clock to time it with.

    ``run`` calls its argument with the index of each step once that has been given to the device.
    """

    clock: Clock
    run: Run


class Samples(NamedTuple):
    """Seconds of every generation, and of every step in it; warm-ups kept apart; what the last run returned."""

    whole_s: list[float]
    steps_s: list[float]
    warmup_s: list[float]
    warmup_steps_s: list[float]
    last: Any
    outcome: SamplingRow


class Call(NamedTuple):
    """Something small to time, a kernel or an op, and the clock to time it with."""

    clock: FlushingClock
    run: Callable[[], Any]


class Series(NamedTuple):
    """Samples of one cold or batch measurement.

    Args:
        kind: ``"cold"`` or ``"batch"``.
        times_s: seconds of one call, by sample; in a batch the mean over its calls.
        warmup_s: the same of the warm-up.
        exposed: samples, without warm-ups, that may hold launch gaps: giving the calls took the host longer than the
            device was busy before them. All of them on a device that works while it is called.
        outcome: how sampling ended.
    """

    kind: str
    times_s: list[float]
    warmup_s: list[float]
    exposed: int
    outcome: SamplingRow


class _Taken(NamedTuple):
    """One sample: seconds, and what else the kind of measurement keeps of it."""

    seconds: float
    steps_s: Sequence[float] = ()
    hidden: bool = False


class _Course(NamedTuple):
    """All samples of one variant."""

    warmup: list[_Taken]
    kept: list[_Taken]
    outcome: SamplingRow


def interleave(
    variants: Sequence[Variant],
    repeat: int,
    warmup: int = 1,
    on_sample: Callable[[], None] = lambda: None,
    until: Until | None = None,
    now: Now = time.perf_counter,
    rest_s: float = 0.0,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Samples]:
    """Times generations of several variants in turns.

    Args:
        variants: what to time.
        repeat: samples of each to keep; with ``until`` the least number.
        warmup: runs of each before them; with ``until`` the least number.
        on_sample: called after each turn of all variants, for a progress bar.
        until: go on until the warm-up has settled and the median is known this well, or a bound is reached.
        now: seconds of the host's clock, which bounds are kept by.
        rest_s: idle seconds before each generation. A card that works without a pause lowers its clock at its limit of
            power; one image after a pause is another measurement, and both are of use.
        sleep: waits on the host.
    """
    last: list[Any] = [None] * len(variants)

    def taker(index: int) -> Callable[[], _Taken]:
        def take() -> _Taken:
            if rest_s:
                variants[index].clock.synchronize()
                sleep(rest_s)
            whole, steps, last[index] = _generation(variants[index])
            return _Taken(whole, steps)

        return take

    courses = _in_turns([taker(index) for index in range(len(variants))], repeat, warmup, on_sample, until, now)
    return [
        Samples(
            whole_s=[taken.seconds for taken in course.kept],
            steps_s=[step for taken in course.kept for step in taken.steps_s],
            warmup_s=[taken.seconds for taken in course.warmup],
            warmup_steps_s=[step for taken in course.warmup for step in taken.steps_s],
            last=result,
            outcome=course.outcome,
        )
        for course, result in zip(courses, last, strict=True)
    ]


def cold(
    calls: Sequence[Call], repeat: int, warmup: int = 1, until: Until | None = None, now: Now = time.perf_counter
) -> list[Series]:
    """Times single calls of several variants in turns, each on an idle device with flushed caches, its gap hidden.

    Args:
        calls: what to time.
        repeat: samples of each to keep; with ``until`` the least number.
        warmup: calls of each before them; with ``until`` the least number. The first compiles and is never hidden.
        until: go on until the warm-up has settled and the median is known this well, or a bound is reached.
        now: seconds of the host's clock.
    """
    return _behind_flushes("cold", calls, 1, repeat, warmup, until, now)


def batch(
    calls: Sequence[Call],
    launches: int,
    repeat: int,
    warmup: int = 1,
    until: Until | None = None,
    now: Now = time.perf_counter,
) -> list[Series]:
    """Times calls of several variants in turns, many back to back between two marks.

    A call that should not find its operands in a cache rotates among several sets of them by itself.

    Args:
        calls: what to time.
        launches: calls between two marks, at least 1.
        repeat: samples of each to keep; with ``until`` the least number.
        warmup: batches of each before them; with ``until`` the least number.
        until: go on until the warm-up has settled and the median is known this well, or a bound is reached.
        now: seconds of the host's clock.

    Raises:
        ArgumentError: no launches.
    """
    if launches < 1:
        raise ArgumentError(f"batch: expected at least 1 launch between two marks, got {launches}.")
    return _behind_flushes("batch", calls, launches, repeat, warmup, until, now)


def _behind_flushes(
    kind: str, calls: Sequence[Call], launches: int, repeat: int, warmup: int, until: Until | None, now: Now
) -> list[Series]:
    takers = [_Hidden(call, launches, now) for call in calls]
    courses = _in_turns(takers, repeat, warmup, lambda: None, until, now)
    return [
        Series(
            kind=kind,
            times_s=[taken.seconds for taken in course.kept],
            warmup_s=[taken.seconds for taken in course.warmup],
            exposed=sum(not taken.hidden for taken in course.kept),
            outcome=course.outcome,
        )
        for course in courses
    ]


class _Hidden:
    """Takes samples of calls that queue up behind a flush, which lasts twice what the last sample took to be given."""

    def __init__(self, call: Call, launches: int, now: Now) -> None:
        self._call, self._launches, self._now = call, launches, now
        self._busy_s = _BUSY_S

    def __call__(self) -> _Taken:
        clock, run = self._call
        clock.synchronize()
        before = clock.mark()
        begun = self._now()
        clock.flush(self._busy_s)
        flushed = self._now()
        start = clock.mark()
        for _ in range(self._launches):
            run()
        end = clock.mark()
        given = self._now()
        clock.synchronize()
        # The device begins with the flush after ``begun`` at the earliest: it is still busy when the last call comes.
        hidden = given - begun <= clock.elapsed_s(before, start)
        self._busy_s = min(max(_BUSY_S, 2 * (given - flushed)), _MOST_BUSY_S)
        return _Taken(clock.elapsed_s(start, end) / self._launches, hidden=hidden)


def _in_turns(
    takers: Sequence[Callable[[], _Taken]],
    repeat: int,
    warmup: int,
    on_sample: Callable[[], None],
    until: Until | None,
    now: Now,
) -> list[_Course]:
    """Samples of several variants, one of each per turn, the order reversed in every second turn."""
    if repeat < 1 or warmup < 0 or not takers:
        raise ArgumentError(
            f"sampling: expected something to time, at least 1 sample and no negative warm-up, got {len(takers)} "
            f"variants, {repeat} samples and {warmup} warm-up runs."
        )
    warmups: list[list[_Taken]] = [[] for _ in takers]
    kept: list[list[_Taken]] = [[] for _ in takers]
    turns = 0

    def turn(into: list[list[_Taken]]) -> None:
        nonlocal turns
        order = range(len(takers))
        for index in reversed(order) if turns % 2 else order:
            into[index].append(takers[index]())
        turns += 1
        on_sample()

    start = now()
    while not stopping.warm(_seconds(warmups), warmup, until, now() - start):
        turn(warmups)
    if until is not None and len(warmups[0]) == 1 and now() - start >= until.most_s:
        # One turn took all the time there is for samples: it is the sample, and there was no warm-up.
        warmups, kept = kept, warmups
    else:
        start = now()
    while (why := stopping.stopped(_seconds(kept), repeat, until, now() - start)) is None:
        turn(kept)
    return [
        _Course(before, taken, stopping.outcome(why, first, seconds))
        for before, taken, first, seconds in zip(warmups, kept, _seconds(warmups), _seconds(kept), strict=True)
    ]


def _seconds(series: Sequence[Sequence[_Taken]]) -> list[list[float]]:
    return [[taken.seconds for taken in samples] for samples in series]


def _generation(variant: Variant) -> tuple[float, list[float], Any]:
    """Seconds of one generation on an idle device, seconds of its steps, and its result."""
    clock = variant.clock
    clock.synchronize()
    marks: list[Any] = [clock.mark()]
    last = variant.run(lambda step: marks.append(clock.mark()))
    end = clock.mark()
    clock.synchronize()
    return clock.elapsed_s(marks[0], end), [clock.elapsed_s(a, b) for a, b in pairwise(marks)], last
