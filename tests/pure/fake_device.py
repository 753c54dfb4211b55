"""A device with two clocks: the host submits work, the device runs it in order. No test waits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


class FakeDevice:
    """Host and device seconds that pass only when work is submitted.

    ``give_s`` is the host's time to submit one piece of work. ``cached`` says whether something ran since the last
    flush; ``log`` names the submitted work.
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
        """A kernel of twenty microseconds with a cold cache, five with a warm one."""
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
    """A GPU with a given clock: work is submitted in cycles, and takes the time that they need at that clock.

    Args:
        clocks_hz: clock of each run, in order; several steps or generations in one run have the same clock.
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
