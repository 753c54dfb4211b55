"""Sampling: runs something repeatedly, on a clock that measures when asynchronous work is finished.

Three kinds of measurement, which are never compared with each other:

generation  the device is idle before each sample; nothing is flushed, as a generation moves more than a cache holds
cold        the device is idle before each sample, its L2 cache is flushed, and the launch gap is hidden
batch       a number of calls back to back between two marks, queued behind an operation that hides the first gap

Every sample is kept, including warm-ups. Several variants take turns, A B B A, so that drift affects all equally.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

from fluxperf.errors import ArgumentError
from fluxperf.harness.measure import stopping
from fluxperf.harness.measure.sampling import Sampling
from fluxperf.harness.measure.stopping import Reading
from fluxperf.harness.records import SamplingRow

Run = Callable[[Callable[[int], None]], Any]
Now = Callable[[], float]

#: Seconds that the device is kept busy before the first cold or batch sample; later ones depend on the sample before.
_BUSY_S = 1e-3

#: Maximum seconds that it is kept busy: work whose submission takes the host longer cannot be hidden.
_MOST_BUSY_S = 0.5


class Clock(Protocol):
    """A device's clock. Stamps are times on the device, so asynchronous work is timed where it runs."""

    def stamp(self) -> Any:
        """A point in time, also in the device's cycles if it counts them."""

    def elapsed(self, start: Any, end: Any) -> tuple[float, float | None, float | None]:
        """Seconds between two stamps; cycles and their mean clock in hertz, if the device counts them."""

    def synchronize(self) -> None:
        """Waits for all work."""


class FlushingClock(Clock, Protocol):
    """A clock of a device whose caches can be flushed, for cold and batch measurements. Marks have seconds only."""

    def mark(self) -> Any:
        """A point in time."""

    def elapsed_s(self, start: Any, end: Any) -> float:
        """Seconds between two marks."""

    def flush(self, busy_s: float = 0.0) -> None:
        """Submits writes that leave nothing else in the device's caches, and that last at least ``busy_s``.

        On an asynchronous device it returns at once, and work submitted next is queued behind the writes.
        """


class Variant(NamedTuple):
    """A generation to time, and the clock to time it with.

    ``run`` calls its argument with the index of each step once that step is submitted. It may make several
    ``generations`` back to back; a sample is then their mean.
    """

    clock: Clock
    run: Run
    generations: int = 1


class Samples(NamedTuple):
    """Readings of every generation and of every step in it; separate warm-ups; the result of the last run."""

    whole: list[Reading]
    steps: list[Reading]
    warmup: list[Reading]
    warmup_steps: list[Reading]
    last: Any
    outcome: SamplingRow

    @property
    def whole_s(self) -> list[float]:
        """Seconds of every generation."""
        return [reading.seconds for reading in self.whole]

    @property
    def warmup_s(self) -> list[float]:
        """Seconds of every generation of the warm-up."""
        return [reading.seconds for reading in self.warmup]


class Call(NamedTuple):
    """Something small to time, a kernel or an op, and the clock to time it with."""

    clock: FlushingClock
    run: Callable[[], Any]


class Series(NamedTuple):
    """Samples of one cold or batch measurement.

    Args:
        kind: ``"cold"`` or ``"batch"``.
        times_s: seconds of one call, by sample; in a batch the mean over its calls.
        warmup_s: the same for the warm-up.
        exposed: number of samples, without warm-ups, that may include launch gaps: submitting the calls took the host
            longer than the device was busy before them. All samples on a synchronous device.
        outcome: how sampling ended.
    """

    kind: str
    times_s: list[float]
    warmup_s: list[float]
    exposed: int
    outcome: SamplingRow


class _Taken(NamedTuple):
    """One sample, and further data that the kind of measurement keeps."""

    reading: Reading
    steps: Sequence[Reading] = ()
    hidden: bool = False

    @property
    def seconds(self) -> float:
        return self.reading.seconds


class _Course(NamedTuple):
    """All samples of one variant."""

    warmup: list[_Taken]
    kept: list[_Taken]
    outcome: SamplingRow


def interleave(
    variants: Sequence[Variant],
    sampling: Sampling,
    on_sample: Callable[[], None] = lambda: None,
    now: Now = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    window: AbstractContextManager[None] | None = None,
) -> list[Samples]:
    """Times generations of several variants in turns.

    Args:
        variants: generations to time.
        sampling: of each; if devices count cycles, its warm-up is the minimum number.
        on_sample: called after each turn of all variants, for a progress bar.
        now: seconds of the host's clock, for time limits.
        sleep: waits on the host.
        window: entered after the warm-up, and left after the last sample.
    """
    last: list[Any] = [None] * len(variants)

    def taker(index: int) -> Callable[[], _Taken]:
        def take() -> _Taken:
            if sampling.rest_s:
                variants[index].clock.synchronize()
                sleep(sampling.rest_s)
            whole, steps, last[index] = _run(variants[index])
            return _Taken(whole, steps)

        return take

    takers = [taker(index) for index in range(len(variants))]
    courses = _in_turns(takers, sampling, on_sample, now, window or nullcontext())
    return [
        Samples(
            whole=[_share(taken.reading, variant.generations) for taken in course.kept],
            steps=[step for taken in course.kept for step in taken.steps],
            warmup=[_share(taken.reading, variant.generations) for taken in course.warmup],
            warmup_steps=[step for taken in course.warmup for step in taken.steps],
            last=result,
            outcome=course.outcome,
        )
        for variant, course, result in zip(variants, courses, last, strict=True)
    ]


def batch(calls: Sequence[Call], launches: int, sampling: Sampling, now: Now = time.perf_counter) -> list[Series]:
    """Times calls of several variants in turns, many back to back between two marks; a single one is a cold call.

    Each batch comes after a flush of the caches that keeps the device busy until the batch is submitted. A call that
    should not find its operands in a cache rotates among several sets of them itself.

    Args:
        calls: calls to time.
        launches: calls between two marks; 1 for cold calls, each on an idle device with flushed caches.
        sampling: of each, a batch at a time, without a rest.
        now: seconds of the host's clock.

    Raises:
        ArgumentError: no launches, or a rest.
    """
    if launches < 1:
        raise ArgumentError(f"batch: expected at least 1 launch between two marks, got {launches}. Pass 1 or more.")
    if sampling.rest_s:
        raise ArgumentError(f"batch: expected no rest before a sample, got {sampling.rest_s} s. Leave it out.")
    takers = [_Hidden(call, launches, now) for call in calls]
    courses = _in_turns(takers, sampling, lambda: None, now, nullcontext())
    return [
        Series(
            kind="cold" if launches == 1 else "batch",
            times_s=[taken.seconds for taken in course.kept],
            warmup_s=[taken.seconds for taken in course.warmup],
            exposed=sum(not taken.hidden for taken in course.kept),
            outcome=course.outcome,
        )
        for course in courses
    ]


class _Hidden:
    """Takes samples of calls queued behind a flush, which lasts twice the submission time of the last sample."""

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
        # The device starts the flush at ``begun`` at the earliest, so it is still busy when the last call is submitted.
        hidden = given - begun <= clock.elapsed_s(before, start)
        self._busy_s = min(max(_BUSY_S, 2 * (given - flushed)), _MOST_BUSY_S)
        return _Taken(Reading(clock.elapsed_s(start, end) / self._launches), hidden=hidden)


def _in_turns(
    takers: Sequence[Callable[[], _Taken]],
    sampling: Sampling,
    on_sample: Callable[[], None],
    now: Now,
    window: AbstractContextManager[None],
) -> list[_Course]:
    """Samples of several variants, one of each per turn, in reversed order in every second turn."""
    repeat, warmup, until, _ = sampling
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
    while not stopping.warm(_readings(warmups), warmup, until, now() - start):
        turn(warmups)
    if until is not None and len(warmups[0]) == 1 and now() - start >= until.most_s:
        # one turn took all the time for samples: it is the sample, and there is no warm-up
        warmups, kept = kept, warmups
    else:
        start = now()
    with window:
        while (why := stopping.stopped(_seconds(kept), repeat, until, now() - start)) is None:
            turn(kept)
    return [
        _Course(before, taken, stopping.outcome(why, first, seconds))
        for before, taken, first, seconds in zip(warmups, kept, _readings(warmups), _seconds(kept), strict=True)
    ]


def _seconds(series: Sequence[Sequence[_Taken]]) -> list[list[float]]:
    return [[taken.seconds for taken in samples] for samples in series]


def _readings(series: Sequence[Sequence[_Taken]]) -> list[list[Reading]]:
    return [[taken.reading for taken in samples] for samples in series]


def _run(variant: Variant) -> tuple[Reading, list[Reading], Any]:
    """One sample on an idle device, with all its generations; their steps; and the result."""
    clock = variant.clock
    clock.synchronize()
    stamps: list[Any] = [clock.stamp()]
    last = variant.run(lambda step: stamps.append(clock.stamp()))
    end = clock.stamp()
    clock.synchronize()
    steps = [Reading(*clock.elapsed(before, after)) for before, after in pairwise(stamps)]
    return Reading(*clock.elapsed(stamps[0], end)), steps, last


def _share(sample: Reading, generations: int) -> Reading:
    """One generation's share of a sample of several."""
    seconds, cycles, clock_hz = sample
    return Reading(seconds / generations, None if cycles is None else cycles / generations, clock_hz)
