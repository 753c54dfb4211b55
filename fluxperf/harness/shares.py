"""The share of slow processes: detects processes that start badly, which a median over processes ignores."""

from __future__ import annotations

from statistics import fmean, median
from typing import NamedTuple

from fluxperf.harness.exact import Place
from fluxperf.harness.pairing import Processes
from fluxperf.harness.policy import SLOW, Slow
from fluxperf.harness.verdict import Judgement, Outcome, Row


class SlowTask(NamedTuple):
    """The share of slow processes of one metric of one rung, to be judged; the samples are those of a `Task`."""

    place: Place
    metric: str
    base: Processes
    head: Processes
    rule: Slow
    left_out: frozenset[int] = frozenset()


class Slowness(NamedTuple):
    """Which processes of a task's pairs are slow."""

    task: SlowTask
    base: list[bool]
    head: list[bool]

    @property
    def differences(self) -> list[float]:
        """For each pair: 1 if only the head is slow, -1 if only the base is, else 0."""
        return [float(after) - float(before) for before, after in zip(self.base, self.head, strict=True)]


def slowness(task: SlowTask) -> Slowness | None:
    """Slow processes, relative to the median of all processes of both sides; ``None`` without usable pairs."""
    if len(task.base) != len(task.head) or not all(map(len, (*task.base, *task.head))):
        return None
    kept = [index for index in range(len(task.base)) if index not in task.left_out]
    if not kept:
        return None
    base, head = ([median(side[index]) for index in kept] for side in (task.base, task.head))
    bound = task.rule.slower_than * median([*base, *head])
    return Slowness(task, [value > bound for value in base], [value > bound for value in head])


def judged(item: Slowness, p: float, alpha: float) -> Row:
    """The verdict: SLOWER if the pairs show it, UNSURE if the additional ones may be chance.

    Args:
        item: which processes are slow.
        p: of "more processes of the head are slow", adjusted for all tests.
        alpha: significance level.
    """
    more = fmean(item.differences)
    verdict: Judgement = "SAME"
    reason, outcome = "shown_same", "pass"
    if more >= item.task.rule.floor:
        shown = p <= alpha
        verdict, reason = ("SLOWER", "more_slow") if shown else ("UNSURE", "perhaps_more_slow")
        outcome = "regression" if shown else "unsure"
    number = len(item.base)
    return _row(item, verdict, reason, outcome, p, number, alpha)  # type: ignore[arg-type]


def _row(item: Slowness, verdict: Judgement, reason: str, outcome: Outcome, p: float, number: int, alpha: float) -> Row:
    task, before, after = item.task, sum(item.base), sum(item.head)
    return Row(
        workload=task.place.workload,
        rung=task.place.rung,
        metric=f"{task.metric}{SLOW}",
        kind="noisy",
        verdict=verdict,
        reason=reason,
        outcome=outcome,
        message=f"{task.metric}{SLOW} (processes {task.rule.slower_than - 1:.0%} slower than the median of all): "
        f"{before} of {number} before, {after} of {number} now; from {task.rule.floor:.0%} more on it counts; "
        f"p {p:.2g} at alpha {alpha:.2g}.",
        unit="share",
        base=before / number,
        head=after / number,
        p=p,
        pairs=number,
        detectable=task.rule.floor,
    )
