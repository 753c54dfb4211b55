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

#: Times become FASTER or SLOWER, counts and errors BETTER or WORSE; NEW, GONE and RENAMED are for rungs and metrics.
Judgement = Literal[
    "SAME", "FASTER", "SLOWER", "BETTER", "WORSE", "UNSURE", "NOT_COMPARABLE", "NEW", "GONE", "RENAMED", "ERROR"
]
Outcome = Literal["pass", "regression", "error", "unsure", "ungated"]

EXIT_CODES: dict[Outcome, int] = {"pass": 0, "regression": 1, "error": 2, "unsure": 3}

#: Every reason code, with its meaning.
REASONS: dict[str, str] = {
    "equal": "The exact metric is unchanged.",
    "within_bound": "The exact metric changed within the policy's slack, which is rounding.",
    "fewer": "The exact metric decreased.",
    "more": "The exact metric increased.",
    "fewer_operations": "A forward of the head does fewer operations, so its times prove nothing.",
    "new": "The base has no such rung or metric.",
    "gone": "The head lacks this rung, as its policy declares.",
    "renamed": "The rung has another name on the head, as its policy declares.",
    "changed": "An implementation, setting or choice differs.",
    "shown_slower": "The pairs show a change for the worse beyond margin and floors.",
    "shown_faster": "The pairs show a change for the better beyond margin and floors.",
    "shown_same": "The pairs rule out a change of relevant size.",
    "more_work": "The GPU takes more cycles: more work.",
    "less_work": "The GPU takes fewer cycles: less work.",
    "hungrier": "The same cycles take more joules, so a card at its power limit lowers its clock.",
    "leaner": "The same cycles take fewer joules, so a card at its power limit raises its clock.",
    "card_slower": "Cycles are the same and joules no more: not the change, the card ran slower.",
    "card_quicker": "Cycles are the same and joules no less: not the change, the card ran quicker.",
    "no_joules": "Cycles are the same and joules are unknown: hungrier, or a slower card.",
    "noisy_joules": "Cycles are the same and joules are too noisy: hungrier, or a slower card.",
    "clocks_apart": "The clocks of the sides differ so much that their effect on cycles is not known well enough.",
    "too_few_pairs": "There are fewer process pairs than a verdict needs.",
    "too_noisy": "The pairs neither show a change nor rule out one of relevant size.",
    "within_calibration": "The change is no larger than the noise of the calibrated machine.",
    "few_much_slower": "Most pairs are alike, but a few processes are so much slower that the average differs.",
    "more_slow": "The pairs show that more processes are slow.",
    "perhaps_more_slow": "More processes are slow, but the number may be chance.",
    "few_processes": "Too few processes took all turns: the change may be specific to them. Use more, or calibrate.",
    "few_processes_same": "No change, but in turns of too few processes. Use more, or calibrate.",
    "same_work": "Seconds are inconclusive, and the work is the same in cycles and joules.",
    "conditions": "The machine's state differed in so many pairs that the others are too few.",
    "drifted": "A time exceeds the policy's reference by more than its budget.",
    "within_budget": "A time is within the budget of the policy's reference.",
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
    "no_time": "A sample is impossible for the same work.",
    "few_samples": "One side has too few samples of each process for this metric.",
    "unequal_processes": "The two sides have different numbers of processes.",
    "same_samples": "The same samples of one process occur several times.",
    "not_in_turns": "The two sides were not measured in turns.",
    "witness_contradicts": "The witness contradicts the record.",
    "contradicts_itself": "Numbers of a record cannot all be true: times, cycles, joules, operations, memory.",
    "other_reference": "Errors of the two sides are against different references.",
    "gates_nothing": "A threshold of the policy is so large that the metric is not gated.",
    "times_not_gated": "The policy gates no time of this rung, though times were measured.",
    "judge_changed": "The change replaces a part of its own judge.",
    "mixed_records": "Records of one side disagree on a value that must be the same.",
    "too_many_metrics": "There are more noisy metrics than the pairs can distinguish.",
    "damaged_file": "A records file has lines that could not be read.",
    "unreadable": "A file could not be read.",
    "failed": "A revision could not be built, or a measuring process failed.",
    "nothing_gated": "No compared metric is gated.",
}


_NO_PROVENANCE = Provenance()


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one metric of one rung.

    ``change`` is head over base, minus 1, and ``low`` to ``high`` its confidence interval. ``p`` is the adjusted
    p-value of the verdict; ``spread`` and ``margin`` are on the logarithmic scale. ``detectable`` is the smallest
    relative change that the samples could have detected, or 1 for a count. ``outcome`` is its effect on the gate.
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
        """Its name in acceptances and annotations: ``workload/rung/metric``."""
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
        """The rows that are not plain passes: changes of the judge, errors, regressions, unsure rows, others."""
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
    """The verdict from rows: errors before regressions, regressions before unsure; never a pass without gated rows.

    Args:
        rows: of everything that was compared.
        base: name of the base.
        head: name of the head.
        made: time (UTC, ISO 8601) and version of fluxperf.
        notes: further notes for the reader.
        provenance: origin, included in every output.
    """
    found = list(rows)
    if all(row.outcome == "ungated" for row in found):
        found.append(
            problem(
                "nothing_gated",
                "expected at least one gated metric, but none of the compared ones is "
                f"({plural(len(found), 'row')}). Name one in the policy, or compare records that have one.",
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
    """A row with the reason why something could not be judged: an error, never a pass."""
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
    """The verdict as JSON in ASCII, with every row."""
    return json.dumps(plain(msgspec.to_builtins(verdict)), indent=1, allow_nan=False) + "\n"


def finite(value: float) -> float | None:
    """``value``, or ``None`` if it is not finite, as JSON has no such numbers."""
    return value if math.isfinite(value) else None
