"""Trials: which of a library's candidates takes the least time, by launching them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

from fluxperf.engine.device.choices import Choice


class Search(NamedTuple):
    """How candidates are tried: a first round of a few launches each, then rounds of the ones near the best."""

    #: What distinguishes its choices from those of the other search.
    name: str
    #: Multiprocessors left out by each request for candidates. The first request, ``None``, leaves that to the library.
    spared: tuple[int | None, ...]
    #: Launches of each candidate in the first round.
    first: int
    #: A candidate is tried further if it took at most so many times the best time, and these are so many.
    near: float
    most: int
    #: Launches of each in a row, and rounds of that.
    trials: int
    rounds: int


#: What a first call does: milliseconds per shape.
QUICK = Search("", (None,), first=2, near=1.08, most=64, trials=3, rounds=3)

#: What `fluxperf tune` does: about a second per shape. The card gets as hot, and as slow, as it will be in long runs,
#: and a library that is told to leave multiprocessors out offers other tiles and splits than it does of itself.
THOROUGH = Search(
    "thorough", (None, 0, 2, 4, 8, 12, 16, 20), first=2, near=1.06, most=14, trials=40, rounds=5
)  # fmt: skip


def quickest(search: Search, own: int, timed: Sequence[Callable[[int], float]]) -> Choice:
    """The candidate that takes the least time.

    Args:
        search: how they are tried.
        own: how many, the first ones, the library offers of itself: the best of them is in every round.
        timed: by candidate, mean seconds of so many launches in a row.
    """
    times = [run(search.first) for run in timed]
    order = sorted(range(len(times)), key=times.__getitem__)
    near = [index for index in order if times[index] <= search.near * times[order[0]]][: search.most]
    near = list(dict.fromkeys([*near, min(range(own), key=times.__getitem__)]))
    # In rounds, so that a card that warms up slows all candidates alike.
    rounds = [[timed[index](search.trials) for index in near] for _ in range(search.rounds)]
    for index, samples in zip(near, zip(*rounds, strict=True), strict=True):
        times[index] = median(samples)
    slowest = max(times[index] for index in near)
    times = [seconds if index in near else max(seconds, slowest) for index, seconds in enumerate(times)]
    return Choice(times.index(min(times)), tuple(times))
