"""Tasks in cycles and joules: where both sides tell them, cycles at one clock, and those of means and tails."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fluxperf.harness.clock_slope import at_one_clock, doubt
from fluxperf.harness.metrics import samples_of
from fluxperf.harness.noisy import Processes, Task
from fluxperf.harness.pairing import STATISTICS, parts
from fluxperf.harness.policy import Noisy
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
        family, _, key = parts(task.metric)[0].partition(".")
        if family == "energy" and not (_whole(task.base, base, key) and _whole(task.head, head, key)):
            continue
        if family != "cycles":
            kept.append(task)
        elif any(task.base):
            clocks = _clocks(base, key), _clocks(head, key)
            cycles = task.base, task.head
            found = at_one_clock(cycles, clocks)
            known = doubt(cycles, clocks, found.slope)
            kept.append(task._replace(base=found.base, head=found.head, slope=found.slope, doubt=known))
    return kept


def witnesses(tasks: Sequence[Task]) -> list[Task]:
    """Cycles of means and tails of the judged tasks, which show whether those of seconds and joules are more work.

    The median of cycles ignores a few slow generations, which affect a mean, a tail, and joules. A policy need not gate
    these metrics: they are judged to explain the others.

    Args:
        tasks: to be judged, cycles at one clock.
    """
    rules = {(task.place, task.metric): task.rule for task in tasks}
    found = []
    for task in tasks:
        family, _, key = task.metric.partition(".")
        if family != "cycles" or parts(task.metric)[0] != task.metric:
            continue
        for form in filter(None, STATISTICS):
            name, seconds = f"{task.metric}.{form}", rules.get((task.place, f"times.{key}.{form}"))
            if (task.place, name) not in rules:
                found.append(task._replace(metric=name, rule=_as_steady(task.rule, seconds)))
    return found


def _as_steady(cycles: Noisy, seconds: Noisy | None) -> Noisy:
    """A rule for cycles that says "the same" if they change by less than half of what counts in seconds."""
    half = seconds.floor_relative / 2 if seconds else 0.0
    return msgspec.structs.replace(cycles, same_within=max(cycles.same_within, half))


def _whole(joules: Processes, records: Sequence[Record], key: str) -> bool:
    """Whether every process that has times of something tells its joules; a record of a short window has none."""
    timed = sum(len(samples_of(record, f"times.{key}")) for record in records)
    return bool(joules) and len(joules) == timed and all(map(len, joules))


def _clocks(records: Sequence[Record], key: str) -> list[list[float]]:
    return [samples for record in records for samples in samples_of(record, f"clock.{key}")]
