"""Work, clock and energy of a step, from the GPU's own clock and its energy counter."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from fluxperf.harness.records import OpRow, Record
from fluxperf.harness.stats import summarize


class Work(NamedTuple):
    """One step of a record, medians of the processes' medians; ``None`` if the record lacks the value.

    ``cycles`` are of a multiprocessor at ``clock_hz``. ``joules`` are of the whole GPU, pauses between samples
    included. ``joules_per_tflop`` refers to the required operations of a forward. ``watts`` are the mean power in the
    timed windows.
    """

    seconds: float | None
    cycles: float | None
    clock_hz: float | None
    joules: float | None
    watts: float | None
    joules_per_tflop: float | None


def outer(rows: Sequence[OpRow]) -> list[OpRow]:
    """Ops that are not part of another op with its own row."""
    own = {(row.op, row.section) for row in rows}
    return [row for row in rows if row.within in ("", row.op) or (row.within, row.section) not in own]


def work_of(record: Record) -> Work | None:
    """Cycles, clock and joules of a step of a record, or ``None`` if it has none of them."""
    fields = (record.times_s, record.cycles, record.clock_hz, record.energy_j)
    seconds, cycles, clock_hz, joules = (
        None if (found := summarize(field.get("step", []))) is None else found.median for field in fields
    )
    if cycles is None and joules is None:
        return None
    windows = [process.energy for process in record.conditions or [] if process.energy is not None]
    watts = [window.counter_j / window.window_s for window in windows if window.counter_j is not None]
    flops = sum(row.flops for row in outer(record.ops))
    return Work(
        seconds=seconds,
        cycles=cycles,
        clock_hz=clock_hz,
        joules=joules,
        watts=median(watts) if watts else None,
        joules_per_tflop=joules / flops * 1e12 if joules and flops else None,
    )


def op_joules(record: Record) -> list[tuple[OpRow, float]]:
    """Joules of each op of a step: its share of the ops' time, applied to the joules of a step. None without these.

    An energy counter that is updated ten times a second cannot measure one op. The value is the energy of the op at the
    mean power of a step: for matrix products slightly too low, for memory-bound ops a third too high.
    """
    found = work_of(record)
    total_s = sum(row.time_s for row in outer(record.ops))
    if found is None or found.joules is None or not total_s:
        return []
    return [(row, found.joules * row.time_s / total_s) for row in record.ops]
