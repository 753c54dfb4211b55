"""Choices of algorithms: found by trial once per shape, then kept on disk for the processes that follow.

A process that finds a choice need not try: it starts sooner, and two processes that are compared run the same
algorithms. A choice holds for one kind of GPU and one version of the library, and only while the library still offers
that very candidate at that place; else it is tried anew.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

from fluxperf.engine.cache import cache_folder, changing, recall, remember

#: Launches of each candidate in a row, and rounds of that.
_TRIALS, _ROUNDS = 3, 3

#: The first round launches fewer, and leaves only candidates that took at most so many times the best one's time.
_FIRST_TRIALS, _NEAR = 2, 1.08

#: Of ways that are tried on a hot card: seconds before the first turn is timed, of a turn of each, rounds of turns; and
#: how many times the best one's time, when each is run once, is too far from it to be tried.
_HEAT_S, _TURN_S, _HOT_ROUNDS, _NOT_FAR = 0.6, 0.02, 5, 1.3

#: How much longer than the library a way of this project's own may take in a trial and still be chosen: trials of one
#: pair differ by as much, and in a generation, which leaves less in the caches, the way that moves fewer bytes gains.
_TIE = 1.015


class Choice(NamedTuple):
    """One choice: a candidate, the number of candidates, and the seconds of each."""

    candidate: int
    times_s: tuple[float, ...]

    def __str__(self) -> str:
        return f"candidate {self.candidate} of {len(self.times_s)}"


class Trial(NamedTuple):
    """A problem that an algorithm was chosen for, and the choice.

    ``sizes`` are rows, columns and inner size of a product of each of ``batch``, or the shape [B, H, L, d] of an
    attention's queries. A way is one of several implementations of an op: ``name`` says of what, ``way`` which it is.
    """

    kind: Literal["product", "attention", "way"]
    dtype: str
    sizes: tuple[int, ...]
    choice: Choice
    batch: int = 1
    epilogue: str = ""
    name: str = ""
    way: str = ""

    @property
    def what(self) -> str:
        """Its name in records."""
        if self.name:
            return self.name
        sizes = " x ".join(map(str, self.sizes))
        if self.kind == "attention":
            return f"attention {sizes} {self.dtype}"
        return f"{sizes} {self.dtype} {self.epilogue}{f' batch {self.batch}' if self.batch > 1 else ''}"


class Choices:
    """The choices of one kind of GPU.

    Args:
        gpu: its name.
        folder: where they are kept; that of all caches unless given.
    """

    def __init__(self, gpu: str, folder: Path | None = None) -> None:
        self.path = (folder or cache_folder("choices")) / f"{re.sub(r'[^a-z0-9]+', '-', gpu.lower())}.json"
        self._known: dict[str, Any] | None = None

    def find(self, what: str, candidates: list[str]) -> Choice | None:
        """The choice of that name, if the candidates are as many as they were and the chosen one is the same.

        Args:
            what: library with its version, and all that a plan depends on.
            candidates: what each candidate is, in words or bytes that differ.
        """
        if self._known is None:
            self._known = self._read()
        try:
            chosen, name, times = self._known[what]
            found = Choice(int(chosen), tuple(math.inf if time is None else float(time) for time in times))
            same = 0 <= found.candidate < len(candidates) and candidates[found.candidate] == name
            same = same and len(found.times_s) == len(candidates) and math.isfinite(found.times_s[found.candidate])
        except (KeyError, ValueError, TypeError, IndexError):
            return None
        return found if same else None

    def keep(self, what: str, candidates: list[str], choice: Choice) -> None:
        """Keeps a choice, beside those that other processes have kept meanwhile."""
        times = [time if math.isfinite(time) else None for time in choice.times_s]
        with changing(self.path):
            self._known = self._read() | {what: [choice.candidate, candidates[choice.candidate], times]}
            remember(self.path, json.dumps(self._known).encode())

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(recall(self.path) or b"{}")
        except ValueError:
            return {}
        return known if isinstance(known, dict) else {}


def tried(device: Any, candidates: Sequence[Callable[[], Any]]) -> Choice:
    """The candidate that takes the least time.

    In rounds, so that a card that warms up slows all candidates alike; behind what keeps the device busy while the host
    gives it the first launches, so that what the host takes is not timed.

    Args:
        device: whose clock is read; nothing else runs on it meanwhile.
        candidates: each launches its work on the current stream.
    """
    device.quiet()
    times = [_timed(device, run, _FIRST_TRIALS) for run in candidates]
    near = [index for index, seconds in enumerate(times) if seconds <= _NEAR * min(times)]
    rounds = [[_timed(device, candidates[index], _TRIALS) for index in near] for _ in range(_ROUNDS)]
    for index, samples in zip(near, zip(*rounds, strict=True), strict=True):
        times[index] = median(samples)
    slowest = max(times[index] for index in near)
    times = [seconds if index in near else max(seconds, slowest) for index, seconds in enumerate(times)]
    return Choice(times.index(min(times)), tuple(times))


def tried_hot(device: Any, candidates: Sequence[Callable[[], Any]]) -> Choice:
    """The candidate that takes the least time on a card at its limit of power, where it works for most of its life.

    Ways of different kinds change places there: what moves fewer bytes, or leaves fewer gaps, loses less clock. So all
    run in turns until the card is hot, and then in turns that are long enough for its clock to follow.

    Args:
        device: whose clock is read; nothing else runs on it meanwhile.
        candidates: each launches its work on the current stream.
    """
    device.quiet()
    once = [_timed(device, run, 1) for run in candidates]
    near = [index for index, seconds in enumerate(once) if seconds <= _NOT_FAR * min(once)]
    counts = {index: max(1, math.ceil(_TURN_S / max(once[index], 1e-6))) for index in near}
    passed = 0.0
    while passed < _HEAT_S:
        passed += sum(counts[index] * _timed(device, candidates[index], counts[index]) for index in near)
    rounds = [[_timed(device, candidates[index], counts[index]) for index in near] for _ in range(_HOT_ROUNDS)]
    times = [math.inf] * len(once)
    for index, samples in zip(near, zip(*rounds, strict=True), strict=True):
        times[index] = median(samples)
    far = _NOT_FAR * max(times[index] for index in near)  # what was not tried is no tie
    times = [times[index] if index in near else max(seconds, far) for index, seconds in enumerate(once)]
    return Choice(times.index(min(times)), tuple(times))


def _untied(choice: Choice) -> Choice:
    """The best of the others, where the first is quicker by no more than a tie."""
    own = min(range(1, len(choice.times_s)), key=choice.times_s.__getitem__)
    tied = choice.candidate == 0 and choice.times_s[own] <= _TIE * choice.times_s[0]
    return choice._replace(candidate=own) if tied else choice


def _timed(device: Any, run: Callable[[], Any], trials: int) -> float:
    """Mean seconds of a few runs after one."""
    run()
    device.occupy()
    start = device.mark()
    for _ in range(trials):
        run()
    return float(device.elapsed_s(start, device.mark())) / trials


class Ways:
    """Ways to compute what an op asks for, of which the quickest is found by trial, once per shape, and kept.

    Args:
        device: where they run; counts launches, those of trials apart.
    """

    def __init__(self, device: Any) -> None:
        self._device = device
        #: By what was asked for: which way was chosen, and how.
        self.chosen: dict[str, tuple[str, Choice]] = {}

    def run(self, what: str, ways: dict[str, Callable[[], Any]], version: str) -> Any:
        """The result of the way that takes the least time; where that is the library by little, of the best other.

        Args:
            what: op, shape and all else that the time depends on.
            ways: by name, the library's first; each may run any number of times.
            version: of the ways; a choice among others does not hold.
        """
        if len(ways) == 1:
            return next(iter(ways.values()))()
        if what not in self.chosen:
            self.chosen[what] = self._choose(what, ways, version)
        return ways[self.chosen[what][0]]()

    def _choose(self, what: str, ways: dict[str, Callable[[], Any]], version: str) -> tuple[str, Choice]:
        device, names = self._device, list(ways)
        marked = [f"{name} {version}" for name in names]
        choice = device.choices_kept.find(what, marked)
        if choice is None:
            launches = device.launches
            with device.products.trial():
                for run in ways.values():  # compiles, and lets the library choose for itself
                    run()
                choice = tried_hot(device, list(ways.values()))
            device.launches = launches
            choice = _untied(choice)
            device.choices_kept.keep(what, marked, choice)
        return names[choice.candidate], choice
