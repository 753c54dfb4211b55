"""Tasks in cycles and joules: where both sides tell them, and cycles at one clock."""

from __future__ import annotations

from collections.abc import Sequence

from fluxperf.harness.clock_slope import at_one_clock
from fluxperf.harness.metrics import samples_of
from fluxperf.harness.noisy import Processes, Task
from fluxperf.harness.records import Record


def worked(tasks: Sequence[Task], base: Sequence[Record], head: Sequence[Record]) -> list[Task]:
    """The tasks that can be judged: those of cycles at one clock, and without what the base does not tell.

    A base that was measured on a host, or before its revision told cycles, leaves seconds alone to judge. A head that
    no longer tells what the base did stays a task, and an error. Joules are left out where the window of some process,
    of either side, was too short for the GPU's counter.

    Args:
        tasks: noisy metrics of one rung.
        base: records of that rung, before.
        head: records of that rung, after.
    """
    kept = []
    for task in tasks:
        family, _, key = task.metric.partition(".")
        if family == "energy" and not (_whole(task.base, base, key) and _whole(task.head, head, key)):
            continue
        if family != "cycles":
            kept.append(task)
        elif any(task.base):
            clocks = _clocks(base, key), _clocks(head, key)
            found = at_one_clock((task.base, task.head), clocks)
            kept.append(task._replace(base=found.base, head=found.head, slope=found.slope))
    return kept


def _whole(joules: Processes, records: Sequence[Record], key: str) -> bool:
    """Whether every process that has times of something tells its joules; a record of a short window has none."""
    timed = sum(len(samples_of(record, f"times.{key}")) for record in records)
    return bool(joules) and len(joules) == timed and all(map(len, joules))


def _clocks(records: Sequence[Record], key: str) -> list[list[float]]:
    return [samples for record in records for samples in samples_of(record, f"clock.{key}")]
