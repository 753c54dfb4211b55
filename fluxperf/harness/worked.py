"""Tasks in cycles and joules, if both sides measured them. Cycles are converted to one clock."""

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
    """The tasks that can be judged, with cycles converted to one clock.

    Metrics that the base did not measure are left out. A base that was measured on a host, or whose revision did not
    measure cycles, has only seconds. A metric that the base measured and the head did not stays a task, and becomes an
    error. Joules are left out if a process of either side has none, because its window was too short for the GPU's
    counter.

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
    """Tasks for means and tails of cycles, which explain changes of means and tails of seconds, and of joules.

    A few slow generations affect means, tails and joules, but not the median of cycles. The policy need not gate these
    metrics: they are judged only to explain others.

    Args:
        tasks: the judged tasks, with cycles converted to one clock.
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
    """Whether every process with times of this metric has joules. A process with a short window has none."""
    timed = sum(len(samples_of(record, f"times.{key}")) for record in records)
    return bool(joules) and len(joules) == timed and all(map(len, joules))


def _clocks(records: Sequence[Record], key: str) -> list[list[float]]:
    return [samples for record in records for samples in samples_of(record, f"clock.{key}")]
