"""Turns: rungs that are counted once and timed on request, in a process that stays alive.

Loading weights, compiling and capturing take longer than the samples of a comparison. Two processes that stay alive and
are measured in turns need to do this only once. `fluxperf.harness.alive` is the other end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TextIO

from fluxperf.errors import ConfigError
from fluxperf.harness.measure.sampler import Run
from fluxperf.harness.measure.sampling import Sampling
from fluxperf.harness.records import Record
from fluxperf.lifeline import DONE, READY
from fluxperf.recording import Reference, count, timed
from fluxperf.workloads import Prepared


class Turns:
    """One prepared rung.

    Args:
        prepared: the rung, which makes no copies in a forward on a GPU.
        sampling: of the generations of a turn.
        reference: latents to compute the error against, or ``None``.

    Raises:
        ConfigError: a rung whose forwards make copies and take minutes.
    """

    def __init__(self, prepared: Prepared, sampling: Sampling, reference: Reference | None = None) -> None:
        if prepared.phase.copies and prepared.device.launches is not None:
            raise ConfigError(
                f"turns of rung {prepared.phase.name!r}: expected a rung without copies in a forward, but this one "
                "makes copies and takes minutes for each forward. Measure it in new processes."
            )
        self._prepared, self._sampling, self._reference = prepared, sampling, reference
        self._counts = count(prepared)
        self._run: Run = prepared.repeating() if prepared.repeats else prepared.denoise

    def take(self, planted: int | None = None) -> Record:
        """A record of one turn.

        Args:
            planted: cycles of work that follow each step, 0 for a kernel that does nothing; ``None`` for no kernel.

        Raises:
            NoGpuError: planted work on a device that counts no cycles.
        """
        run = self._run if planted is None else partial(self._planted, planted)
        (record,), _ = timed(self._prepared, lambda: self._counts, run, self._sampling, self._reference)
        return record

    def _planted(self, cycles: int, on_step: Callable[[int], Any]) -> Any:
        def stepped(step: int) -> None:
            self._prepared.device.spend(cycles)
            on_step(step)

        return self._run(stepped)


def serve(rungs: Iterable[Turns], orders: Iterable[str], keep: Callable[[Record], None], out: TextIO) -> None:
    """Reports that the rungs are ready, and takes a turn of each for every input line, until the input ends.

    Args:
        rungs: in order.
        orders: lines, each empty or with a number of cycles to plant.
        keep: called with every record.
        out: called after every turn.

    Raises:
        ConfigError: a line that is neither.
    """
    print(READY, file=out, flush=True)
    for order in orders:
        word = order.strip()
        if word and not word.isdecimal():
            raise ConfigError(
                f"turns: expected an empty line or a number of cycles to plant, got {word!r}. Send one of these."
            )
        for rung in rungs:
            keep(rung.take(int(word) if word else None))
        print(DONE, file=out, flush=True)
