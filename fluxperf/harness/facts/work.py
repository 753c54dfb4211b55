"""Work, clock and energy of a step: what a GPU's own clock and its energy counter say beside the seconds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from fluxperf.harness.records import OpRow, Record
from fluxperf.harness.stats import summarize


class Work(NamedTuple):
    """One step of a record, medians of the processes' medians; ``None`` for what the record has not.

    ``cycles`` of a multiprocessor at ``clock_hz``, ``joules`` of the whole GPU, pauses between samples included, and
    ``joules_per_tflop`` over the operations that the ops of a forward must do. ``watts`` are those of the windows.
    """

    seconds: float | None
    cycles: float | None
    clock_hz: float | None
    joules: float | None
    watts: float | None
    joules_per_tflop: float | None


def outer(rows: Sequence[OpRow]) -> list[OpRow]:
    """Ops that are no part of another one that has a row of its own."""
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
    """Joules of each op of a step: its share of the ops' time, of the joules of a step. None without those.

    A counter that is renewed ten times a second cannot see one op. So this says what an op would have used at the mean
    power of a step: of products that is a little too few, of what waits for memory a third too many.
    """
    found = work_of(record)
    total_s = sum(row.time_s for row in outer(record.ops))
    if found is None or found.joules is None or not total_s:
        return []
    return [(row, found.joules * row.time_s / total_s) for row in record.ops]
