"""A device in two times: the host gives work, the device does it in order. No test waits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


class FakeDevice:
    """Host and device seconds that pass only when work is given.

    ``give_s`` is what giving one piece of work takes the host. ``cached`` says whether something ran since the last
    flush; ``log`` names what was given.
    """

    def __init__(self, give_s: float = 1e-5) -> None:
        self.give_s = give_s
        self.host = self.free = 0.0
        self.cached = False
        self.log: list[str] = []

    def give(self, seconds: float, name: str = "work") -> None:
        self.host += self.give_s
        self.free = max(self.free, self.host) + seconds
        self.log.append(name)

    def mark(self) -> float:
        return max(self.free, self.host)

    def elapsed_s(self, start: float, end: float) -> float:
        return end - start

    def stamp(self) -> float:
        return self.mark()

    def elapsed(self, start: float, end: float) -> tuple[float, float | None, float | None]:
        return end - start, None, None

    def synchronize(self) -> None:
        self.host = max(self.host, self.free)

    def flush(self, busy_s: float = 0.0) -> None:
        self.give(max(busy_s, 1e-4), "flush")
        self.cached = False

    def now(self) -> float:
        return self.host

    def kernel(self) -> None:
        """Twenty microseconds cold, five from the cache."""
        self.give(5e-6 if self.cached else 20e-6, "kernel")
        self.cached = True

    def generations(self, seconds: Iterator[float], name: str = "work", steps: int = 2):
        """A generation of some steps whose seconds come from an iterator."""

        def run(on_step):
            each = next(seconds) / steps
            for step in range(steps):
                self.give(each, name)
                on_step(step)
            return f"{name} {len(self.log)}"

        return run


class ClockedDevice:
    """A GPU whose clock is planted: work is given in cycles, and takes what they take at the clock of that moment.

    Args:
        clocks_hz: clock of each run, in order; of a run of several steps, or generations, one for all of them.
    """

    def __init__(self, clocks_hz: Iterable[float]) -> None:
        self._clocks = iter(clocks_hz)
        self.seconds = self.cycles = 0.0

    def work(self, steps: Sequence[float]):
        """A generation whose steps take these cycles."""

        def run(on_step):
            clock = next(self._clocks)
            for index, cycles in enumerate(steps):
                self.cycles += cycles
                self.seconds += cycles / clock
                on_step(index)

        return run

    def stamp(self) -> tuple[float, float]:
        return self.seconds, self.cycles

    def elapsed(self, start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float, float]:
        seconds, cycles = end[0] - start[0], end[1] - start[1]
        return seconds, cycles, cycles / seconds

    def synchronize(self) -> None:
        pass

    def now(self) -> float:
        return self.seconds
