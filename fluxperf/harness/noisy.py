"""Verdicts on noisy metrics from pairs of processes: medians, means and tails by the same rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from fluxperf.errors import RecordError
from fluxperf.harness.clock_slope import NONE
from fluxperf.harness.metrics import metric_of
from fluxperf.harness.pairing import CHANGED, SAME, Paired, Processes, Task, paired, parts
from fluxperf.harness.policy import Pairs
from fluxperf.harness.shares import SlowTask, judged, slowness
from fluxperf.harness.significance import (
    detectable,
    median_bound,
    pairs_needed,
    robust_spread,
    sign_flip,
    spread,
    step_down,
)
from fluxperf.harness.stats import median_interval
from fluxperf.harness.verdict import Outcome, Row, finite
from fluxperf.words import plural

__all__ = ["Processes", "Task", "judge", "logarithms"]


class _Level(NamedTuple):
    """Significance level of rows: the level of each look, and the number of rows."""

    pairs: Pairs
    alpha: float
    rows: int


def judge(tasks: Sequence[Task], pairs: Pairs, looks: int = 1, slow: Sequence[SlowTask] = ()) -> list[Row]:
    """A row for each task in their order, then one for each share of slow processes.

    A task has no row if it would only repeat the median of single samples.

    Verdicts:

    - A change for the worse or the better: the p-value of `step_down` against the policy's margin is at most
      ``alpha / looks``. The median change reaches both floors of the rule (relative and absolute), and exceeds what the
      calibrated machine shows by chance (`median_bound`).
    - SAME: `sign_flip` rules out a change of ``same_within`` in either direction at ``alpha``, and the mean over all
      processes is not worse by more than that.
    - UNSURE: everything else.

    The p-values of a direction are adjusted for the number of rows. ``alpha / looks`` is Bonferroni's correction for
    several looks at growing data. SAME is a claim about one row, so its p-value is not adjusted.

    If fewer processes than the policy's ``fewest`` took all turns, a difference may be a property of these processes
    and not of the program. A change must then be larger than what so few processes show by chance, and SAME must rule
    out a change smaller by the same amount. The scale of chance is that of the calibration, or the rule's
    ``between``. Without either, the verdict is UNSURE.

    Args:
        tasks: metrics to judge.
        pairs: significance level, and fewest pairs.
        looks: maximum number of looks at the data, including the last.
        slow: shares of slow processes to judge with them.
    """
    found = [item for task in tasks if (item := paired(task)) is not None]
    usable = [item for item in found if isinstance(item, Paired) and len(item.logs) >= pairs.fewest]
    shares = [share for one in slow if (share := slowness(one)) is not None]
    level = _Level(pairs, pairs.alpha / looks, max(1, len(usable)))
    margins = [item.margin for item in usable]
    values = [*(item.logs for item in usable), *(item.differences for item in shares)]
    slower = iter(step_down(values, [*margins, *(0.0 for _ in shares)]))
    gains = [item.margin_of_gain for item in usable]
    faster = iter(step_down([[-value for value in item.logs] for item in usable], gains))
    rows = []
    for item in found:
        if isinstance(item, Row):
            rows.append(item)
        elif len(item.logs) < pairs.fewest:
            few = "conditions" if item.task.left_out else "too_few_pairs"
            rows.append(_row(item, "UNSURE", few, None, level))
        else:
            rows.append(_judged(item, next(slower), next(faster), level))
    return rows + [judged(item, next(slower), level.alpha) for item in shares]


def logarithms(task: Task) -> list[float]:
    """Logarithm of worse over better of each pair of processes.

    Raises:
        RecordError: samples are missing, not finite or not above zero.
    """
    found = paired(task)
    if isinstance(found, Row):
        raise RecordError(found.message)
    return found.logs if found else []


def _judged(item: Paired, slower: float, faster: float, level: _Level) -> Row:
    verdict, reason, p = _said(item, slower, faster, level)
    if verdict == "UNSURE" and item.task.doubt.within(CHANGED) and (_apart(item, level) or _told(item, level)):
        return _row(item, "UNSURE", "clocks_apart", p, level)
    if _few(item, level) and not _scale(item, level):
        return _row(item, "UNSURE", "few_processes_same" if verdict == "SAME" else "few_processes", p, level)
    return _row(item, verdict, reason, p, level)


def _apart(item: Paired, level: _Level) -> bool:
    """Whether the slope's error is larger than the chance variation of the median of these pairs."""
    middle = median(item.logs)
    chance = median_bound(robust_spread([value - middle for value in item.logs]), len(item.logs), level.alpha)
    return item.task.doubt.within(CHANGED) > max(chance, math.log1p(item.task.rule.margin))


def _told(item: Paired, level: _Level) -> bool:
    """Whether the pairs would give a verdict if the removed slope were known exactly."""
    known = item._replace(task=item.task._replace(doubt=NONE))
    slower, faster = (sign_flip([sign * value for value in item.logs], known.margin) for sign in (1, -1))
    return _said(known, slower, faster, level)[0] != "UNSURE"


def _said(item: Paired, slower: float, faster: float, level: _Level) -> tuple[str, str, float]:
    """Verdict, reason and p-value from the pairs."""
    center, bound = median(item.logs), _bound(item, level)
    if slower <= level.alpha and math.expm1(center) >= item.floor:
        if center > bound:
            return "SLOWER", "shown_slower", slower
        return "UNSURE", "within_calibration", slower
    if faster <= level.alpha and -math.expm1(center) >= item.floor and -center > bound:
        return "FASTER", "shown_faster", faster
    limit, doubt = item.limit - (bound if _few(item, level) else 0.0), item.task.doubt
    below = sign_flip([-value for value in item.logs], doubt.under(SAME) - limit)
    above = sign_flip(item.logs, doubt.over(SAME) - limit)
    if max(below, above) <= level.pairs.alpha:
        if item.together > item.limit:
            return "UNSURE", "few_much_slower", slower
        return "SAME", "shown_same", max(below, above)
    enough = len(item.logs) >= pairs_needed(1, level.alpha)
    return "UNSURE", "too_noisy" if enough else "too_few_pairs", slower


def _bound(item: Paired, level: _Level) -> float:
    """Bound that the median of these pairs reaches by chance on the calibrated machine, in logarithms."""
    return median_bound(_scale(item, level), item.couples, level.alpha / level.rows)


def _few(item: Paired, level: _Level) -> bool:
    """Whether too few processes took all turns to represent other processes."""
    return item.couples < level.pairs.fewest


def _scale(item: Paired, level: _Level) -> float:
    """Scale of pairs of processes of one program: the calibrated one, or with few processes that of the rule."""
    return item.task.calibrated or (item.task.rule.between if _few(item, level) else 0.0)


def _row(item: Paired, verdict: str, reason: str, p: float | None, level: _Level) -> Row:
    """A row with the numbers that were used, and the smallest change that these pairs could have detected."""
    task, number, pairs = item.task, len(item.logs), level.pairs
    width = spread(item.logs)
    least = finite(detectable(width, number, level.alpha, pairs.power, item.margin)) if number > 1 else None
    least = None if least is None else max(least, item.floor, math.expm1(_bound(item, level)))
    found = median_interval(item.logs, pairs.confidence)
    ends = sorted(math.expm1(task.sign * value) for value in (found.low, found.high)) if found else [None, None]
    change = math.expm1(task.sign * median(item.logs)) if item.logs else None
    outcomes: dict[str, Outcome] = {"SLOWER": "regression", "UNSURE": "unsure"}
    return Row(
        workload=task.place.workload,
        rung=task.place.rung,
        metric=task.metric,
        kind="noisy",
        verdict=verdict,  # type: ignore[arg-type]
        reason=reason,
        outcome=outcomes.get(verdict, "pass"),
        message=_sentence(item, change, least, p, level, _margin(item, verdict)),
        unit=metric_of(parts(task.metric)[0]).short,
        base=median(item.base) if item.base else None,
        head=median(item.head) if item.head else None,
        change=change,
        low=ends[0],
        high=ends[1],
        p=p,
        pairs=number,
        spread=width,
        margin=_margin(item, verdict),
        detectable=least,
    )


def _margin(item: Paired, verdict: str) -> float:
    """The margin that a verdict is beyond; the wider one where none is shown."""
    known = {"SLOWER": item.margin, "FASTER": item.margin_of_gain}
    return known.get(verdict) or max(known.values())


def _sentence(
    item: Paired, change: float | None, least: float | None, p: float | None, level: _Level, margin: float
) -> str:
    number = len(item.logs)
    over = plural(number, "process pair")
    _, statistic = parts(item.task.metric)
    what = item.task.metric if statistic.words == "median" else f"{item.task.metric} ({statistic.words})"
    moved = "no change known" if change is None else f"{change:+z.2%}"
    said = [f"{what}: {moved} over {over}, margin {math.expm1(margin):.2%}"]
    if item.task.slope:
        said.append(f"at one clock, with a slope of {item.task.slope:.2f} removed")
    if (doubt := item.task.doubt.within(CHANGED)) > math.log1p(item.task.rule.margin):
        said.append(f"the sides ran at different clocks, for which the slope gives cycles to within {doubt:.2%}")
    if item.logs and abs(item.together - median(item.logs)) > item.limit:
        said.append(f"{math.expm1(item.together):+.2%} on average over all processes")
    if item.task.processes:
        said.append(f"turns of {plural(item.couples, 'process', 'processes')} of each side")
    if item.task.left_out:
        said.append(f"{plural(len(item.task.left_out), 'pair')} left out because of the machine's state")
    if p is not None:
        said.append(f"p {p:.2g} at alpha {level.alpha:.2g}")
    if (bound := _bound(item, level)) > item.margin:
        whose = "this machine shows" if item.task.calibrated else "processes of one program show"
        said.append(
            f"{whose} {math.expm1(bound):.2%} by chance ({'calibration' if item.task.calibrated else 'policy'})"
        )
    said.append(
        "no change could have been detected" if least is None else f"the smallest detectable change is {least:.2%}"
    )
    needed = max(level.pairs.fewest, pairs_needed(1, level.alpha))
    if number < needed:
        said.append(f"at least {needed} pairs must be left" if item.task.left_out else f"take at least {needed} pairs")
    return "; ".join(said) + "."
