"""Choices of algorithms: measured once per shape, then kept on disk for later processes.

A process that finds a choice need not measure: it starts sooner, and two processes that are compared run the same
algorithms. A choice is valid for one GPU model and one library version, and only while the library offers the same
candidate at the same index. Otherwise the candidates are measured again.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from fluxperf.engine.cache import cache_folder, changing, recall, remember

#: Launches of each candidate in a row, and number of rounds.
_TRIALS, _ROUNDS = 3, 3

#: The first round has fewer launches. Candidates that take longer than this factor times the best are dropped after it.
_FIRST_TRIALS, _NEAR = 2, 1.08

#: For trials on a hot card: seconds of warm-up at most, seconds of each turn, rounds of turns; and the factor to the
#: best time in a single run above which a candidate is not tried.
_HEAT_S, _TURN_S, _HOT_ROUNDS, _NOT_FAR = 0.6, 0.02, 5, 1.3

#: A kernel of this project may take up to this factor of the library's time in a trial and still be chosen. Trials of
#: one pair differ by as much, and in a generation, where the caches hold less, the kernel that moves fewer bytes gains.
_TIE = 1.015


class Choice(NamedTuple):
    """The chosen candidate, and the time of every candidate in seconds."""

    candidate: int
    times_s: tuple[float, ...]

    def __str__(self) -> str:
        return f"candidate {self.candidate} of {len(self.times_s)}"


class Trial(NamedTuple):
    """A problem whose algorithm was chosen by measurement, and the choice.

    ``sizes`` are rows, columns and inner size of each of ``batch`` products, or the shape [B, H, N, d] of an
    attention's queries, which read ``keys`` keys. A "way" is one of several implementations of an op: ``name``
    identifies the op and its shape, ``way`` the implementation.
    """

    kind: Literal["product", "attention", "way"]
    dtype: str
    sizes: tuple[int, ...]
    choice: Choice
    batch: int = 1
    epilogue: str = ""
    name: str = ""
    way: str = ""
    keys: int = 0

    @property
    def what(self) -> str:
        """Name of the problem in records."""
        if self.name:
            return self.name
        sizes = " x ".join(map(str, self.sizes))
        if self.kind == "attention":
            keys = f", {self.keys} keys" if self.keys not in (0, self.sizes[2]) else ""
            return f"attention {sizes} {self.dtype}{keys}"
        return f"{sizes} {self.dtype} {self.epilogue}{f' batch {self.batch}' if self.batch > 1 else ''}"


class Choices:
    """The choices for one GPU model.

    Args:
        gpu: name of the GPU.
        folder: where they are kept; the folder of all cache files unless given.
    """

    def __init__(self, gpu: str, folder: Path | None = None) -> None:
        self.path = (folder or cache_folder("choices")) / f"{re.sub(r'[^a-z0-9]+', '-', gpu.lower())}.json"
        self._known: dict[str, Any] | None = None

    def find(self, what: str, candidates: list[str]) -> Choice | None:
        """The stored choice of that name, if the candidates are as many as then and the chosen one is unchanged.

        Args:
            what: library, its version, and everything else that a plan depends on.
            candidates: a distinct description of each candidate.
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
        """Stores a choice, together with those that other processes have stored meanwhile."""
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

    Candidates run in rounds, so that a card that warms up slows all of them alike. A busy kernel runs first while the
    host submits the first launches, so that the host's time is not measured.

    Args:
        device: its clock is read; nothing else may run on it meanwhile.
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


def tried_hot(device: Any, candidates: Sequence[Callable[[], Any]], rested_s: float = math.inf) -> Choice:
    """The candidate that takes the least time on a card at its power limit, which is where it works most of the time.

    The order of implementations can change there: one that moves fewer bytes, or leaves fewer gaps, loses less clock.
    So all run in turns until the card is hot, and then in turns long enough for the clock to adapt.

    Args:
        device: its clock is read; nothing else may run on it meanwhile.
        candidates: each launches its work on the current stream.
        rested_s: seconds since an earlier trial left the card hot. It is warmed up for as long, but for no longer than
            a cool card.
    """
    device.quiet()
    once = [_timed(device, run, 1) for run in candidates]
    near = [index for index, seconds in enumerate(once) if seconds <= _NOT_FAR * min(once)]
    counts = {index: max(1, math.ceil(_TURN_S / max(once[index], 1e-6))) for index in near}
    passed = 0.0
    while passed < min(rested_s, _HEAT_S):
        passed += sum(counts[index] * _timed(device, candidates[index], counts[index]) for index in near)
    rounds = [[_timed(device, candidates[index], counts[index]) for index in near] for _ in range(_HOT_ROUNDS)]
    times = [math.inf] * len(once)
    for index, samples in zip(near, zip(*rounds, strict=True), strict=True):
        times[index] = median(samples)
    far = _NOT_FAR * max(times[index] for index in near)  # a candidate that was not tried cannot tie
    times = [times[index] if index in near else max(seconds, far) for index, seconds in enumerate(once)]
    return Choice(times.index(min(times)), tuple(times))


def _untied(choice: Choice) -> Choice:
    """The best other candidate, where the first one is ahead by no more than a tie."""
    own = min(range(1, len(choice.times_s)), key=choice.times_s.__getitem__)
    tied = choice.candidate == 0 and choice.times_s[own] <= _TIE * choice.times_s[0]
    return choice._replace(candidate=own) if tied else choice


def _timed(device: Any, run: Callable[[], Any], trials: int) -> float:
    """Mean seconds of several runs after one warm-up run."""
    run()
    device.occupy()
    start = device.mark()
    for _ in range(trials):
        run()
    return float(device.elapsed_s(start, device.mark())) / trials


class Ways:
    """Several ways to compute an op. The quickest is found by measurement, once per shape, and kept.

    Args:
        device: where they run. It counts launches; those of trials are left out.
    """

    def __init__(self, device: Any) -> None:
        self._device = device
        #: For each problem, the chosen way and how it was chosen.
        self.chosen: dict[str, tuple[str, Choice]] = {}
        #: When the last trial ended; none has.
        self._ended_s = -math.inf

    def run(
        self,
        what: str,
        ways: Mapping[str, Callable[[], Any]],
        version: str,
        in_trials: Mapping[str, Callable[[], Any]] = MappingProxyType({}),
    ) -> Any:
        """The result of the way that takes the least time.

        If the library wins only by a tie, the best other way is used.

        Args:
            what: op, shape and everything else that the time depends on.
            ways: by name, the library first.
            version: of the ways; a choice that was made among other versions is not used.
            in_trials: what trials run in place of a way that changes its operands. It takes as long, and may run any
                number of times, as all other ways may.
        """
        if len(ways) == 1:
            return next(iter(ways.values()))()
        if what not in self.chosen:
            self.chosen[what] = self._choose(what, {**ways, **in_trials}, version)
        return ways[self.chosen[what][0]]()

    def _choose(self, what: str, ways: dict[str, Callable[[], Any]], version: str) -> tuple[str, Choice]:
        device, names = self._device, list(ways)
        stored = f"{what}, kernels {version}"  # choices of two versions stand side by side, as two checkouts take turns
        choice = device.choices_kept.find(stored, names)
        if choice is None:
            launches = device.launches
            with device.aside(), device.trial():
                for run in ways.values():  # compiles the kernels, and lets the library choose its own algorithm
                    run()
                choice = tried_hot(device, list(ways.values()), time.monotonic() - self._ended_s)
            self._ended_s = time.monotonic()
            device.launches = launches
            choice = _untied(choice)
            device.choices_kept.keep(stored, names, choice)
        return names[choice.candidate], choice
