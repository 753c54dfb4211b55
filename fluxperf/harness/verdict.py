"""The verdict: one object, from which every output of the gate is made."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from fluxperf.documents import plain
from fluxperf.harness.provenance import Provenance
from fluxperf.words import plural

SCHEMA = 1

#: Times become FASTER or SLOWER, counts and errors BETTER or WORSE; NEW, GONE and RENAMED are of rungs and metrics.
Judgement = Literal[
    "SAME", "FASTER", "SLOWER", "BETTER", "WORSE", "UNSURE", "NOT_COMPARABLE", "NEW", "GONE", "RENAMED", "ERROR"
]
Outcome = Literal["pass", "regression", "error", "unsure", "ungated"]

EXIT_CODES: dict[Outcome, int] = {"pass": 0, "regression": 1, "error": 2, "unsure": 3}

#: Every reason code, and what it says.
REASONS: dict[str, str] = {
    "equal": "The exact metric is what it was.",
    "within_bound": "The exact metric moved by no more than the policy's slack, which is rounding.",
    "fewer": "The exact metric fell.",
    "more": "The exact metric rose.",
    "fewer_operations": "A forward of the head does fewer operations, so its times prove nothing.",
    "new": "The base has no such rung or metric.",
    "gone": "The head has no such rung, which its policy declares.",
    "renamed": "The rung has another name on the head, which its policy declares.",
    "changed": "An implementation, setting or choice is another one.",
    "shown_slower": "The pairs show a change for the worse beyond margin and floors.",
    "shown_faster": "The pairs show a change for the better beyond margin and floors.",
    "shown_same": "The pairs rule out a change of the size that matters.",
    "more_work": "The GPU takes more cycles: more work.",
    "less_work": "The GPU takes fewer cycles: less work.",
    "hungrier": "The same cycles take more joules, so a card at its limit of power lowers its clock.",
    "leaner": "The same cycles take fewer joules, so a card at its limit of power raises its clock.",
    "card_slower": "Cycles are the same and joules no more: not the change, the card ran slower.",
    "card_quicker": "Cycles are the same and joules no less: not the change, the card ran quicker.",
    "no_joules": "Cycles are the same and joules are not known: hungrier, or a slower card.",
    "noisy_joules": "Cycles are the same and joules are too noisy to tell: hungrier, or a slower card.",
    "clocks_apart": "The sides ran at clocks so far apart that how cycles follow the clock is not known well enough.",
    "too_few_pairs": "There are fewer process pairs than a verdict needs.",
    "too_noisy": "The pairs neither show a change nor rule out one of the size that matters.",
    "within_calibration": "The change is no larger than what the calibrated machine shows by chance.",
    "few_much_slower": "Most pairs are alike, but a few processes are so much slower that the average is not.",
    "more_slow": "The pairs show that more processes are slow.",
    "perhaps_more_slow": "More processes are slow; so few may be chance.",
    "few_processes": "So few processes took all turns that a change may be theirs. Take more, or calibrate.",
    "few_processes_same": "No change in turns of so few processes. Take more, or calibrate.",
    "same_work": "Seconds do not tell, and the work is the same in cycles and joules.",
    "conditions": "The machine's state differed in so many pairs that the others are too few.",
    "drifted": "A time is farther from the policy's reference than its budget allows.",
    "within_budget": "A time is within the budget from the policy's reference.",
    "twin_times": "Times of host twins say nothing about a GPU and are never gated.",
    "other_workload": "The two sides ran different workloads.",
    "other_ran_as": "One side ran kernels, the other something else.",
    "other_settings": "The two sides were measured in different ways.",
    "other_gpu": "The two sides ran on different GPUs.",
    "other_driver": "The two sides ran under drivers of different classes.",
    "other_host": "The two sides ran on different hosts.",
    "other_power_limit": "The two sides ran under different power limits.",
    "instrumented": "Times of an instrumented run are never gated.",
    "missing_record": "One side has no record of this rung.",
    "missing_metric": "One side has no value of this metric.",
    "no_samples": "A process has no sample.",
    "not_finite": "A value is not a finite number.",
    "zero_baseline": "A time of the base is not above zero, so nothing can be stated relative to it.",
    "not_above_zero": "A time of the head is not above zero.",
    "negative": "A count or a sample is below zero.",
    "not_counted": "One side has counted nothing.",
    "no_time": "A sample is no time that the same work can take.",
    "few_samples": "One side has too few samples of each process for this metric.",
    "unequal_processes": "The two sides have different numbers of processes.",
    "same_samples": "The samples of one process are there several times.",
    "not_in_turns": "The two sides were not measured in turns.",
    "witness_contradicts": "What was counted from outside contradicts the record.",
    "contradicts_itself": "Numbers of a record cannot all be true: times, cycles, joules, operations, memory.",
    "other_reference": "Errors of the two sides are against different references.",
    "gates_nothing": "A threshold of the policy is so large that the metric is not gated.",
    "times_not_gated": "The policy gates no time of this rung, though times were measured.",
    "judge_changed": "The change replaces what it is judged by.",
    "mixed_records": "Records of one side disagree on what must be the same.",
    "too_many_metrics": "There are more noisy metrics than the pairs can tell apart.",
    "damaged_file": "A records file has lines that could not be read.",
    "unreadable": "A file could not be read.",
    "failed": "A revision could not be built, or a process that measures failed.",
    "nothing_gated": "Nothing that was compared is gated.",
}


_NO_PROVENANCE = Provenance()


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one metric of one rung.

    ``change`` is head over base, minus 1, and ``low`` to ``high`` its interval of confidence; ``p`` is the adjusted
    p-value of the verdict, ``spread`` and ``margin`` are on the scale of logarithms. ``detectable`` is the smallest
    relative change that the samples could have shown, or 1 for a count. ``outcome`` is what the gate makes of it.
    """

    workload: str
    rung: str
    metric: str
    kind: Literal["exact", "noisy", "gate", "judge"]
    verdict: Judgement
    reason: str
    outcome: Outcome
    message: str
    unit: str = ""
    base: float | int | str | None = None
    head: float | int | str | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    pairs: int | None = None
    spread: float | None = None
    margin: float | None = None
    detectable: float | None = None
    accepted: str = ""

    @property
    def id(self) -> str:
        """How acceptances and annotations name it: ``workload/rung/metric``."""
        return f"{self.workload}/{self.rung}/{self.metric}"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The gate's verdict: outcome and exit code, both sides, and a row for each metric of each rung."""

    schema: int = SCHEMA
    created_utc: str
    fluxperf: str
    outcome: Outcome
    exit_code: int
    base: str
    head: str
    counts: dict[str, int]
    rows: list[Row]
    notes: list[str] = []
    provenance: Provenance = Provenance()

    @property
    def telling(self) -> list[Row]:
        """The rows that are not plain passes: the judge's changes, errors, regressions, what is unsure, the rest."""
        order = {"judge": -1, "error": 0, "regression": 1, "unsure": 2, "pass": 3, "ungated": 4}
        rows = [row for row in self.rows if row.verdict != "SAME" or row.outcome not in ("pass", "ungated")]
        return sorted(rows, key=lambda row: order["judge" if row.kind == "judge" else row.outcome])


def conclude(
    rows: Sequence[Row],
    *,
    base: str,
    head: str,
    made: tuple[str, str],
    notes: Iterable[str] = (),
    provenance: Provenance = _NO_PROVENANCE,
) -> Verdict:
    """The verdict of rows: an error before a regression, a regression before doubt, and never a pass of nothing.

    Args:
        rows: of everything that was compared.
        base: what the base is, in words.
        head: what the head is.
        made: when (UTC, ISO 8601) and by which version of fluxperf.
        notes: what else a reader should know.
        provenance: what every output names.
    """
    found = list(rows)
    if all(row.outcome == "ungated" for row in found):
        found.append(
            problem(
                "nothing_gated",
                f"nothing that was compared is gated ({plural(len(found), 'row')}). Expected at least one gated "
                "metric; name it in the policy, or compare records that have it.",
            )
        )
    outcomes = {row.outcome for row in found}
    outcome: Outcome = next((name for name in ("error", "regression", "unsure") if name in outcomes), "pass")
    return Verdict(
        created_utc=made[0],
        fluxperf=made[1],
        outcome=outcome,
        exit_code=EXIT_CODES[outcome],
        base=base,
        head=head,
        counts=dict(Counter(row.verdict for row in found)),
        rows=found,
        notes=list(notes),
        provenance=provenance,
    )


def problem(reason: str, message: str, *, workload: str = "", rung: str = "", metric: str = "gate") -> Row:
    """A row that says why something could not be judged: an error, never a pass."""
    return Row(
        workload=workload,
        rung=rung,
        metric=metric,
        kind="gate",
        verdict="ERROR",
        reason=reason,
        outcome="error",
        message=message,
    )


def as_json(verdict: Verdict) -> str:
    """The verdict as JSON in ASCII, every row of it."""
    return json.dumps(plain(msgspec.to_builtins(verdict)), indent=1, allow_nan=False) + "\n"


def finite(value: float) -> float | None:
    """``value``, or ``None`` where it is no finite number and so no JSON either."""
    return value if math.isfinite(value) else None
