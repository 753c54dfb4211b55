"""Rows of a record, from the data of a device's door and observers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fluxperf.budgets import policy_of
from fluxperf.engine.checkpoints.sources import WeightSource
from fluxperf.engine.device.choices import Trial
from fluxperf.engine.device.transfers import Crossing
from fluxperf.engine.ops.meter import OpMeter
from fluxperf.harness.measure.stopping import Reading
from fluxperf.harness.records import BlockRow, Conditions, LedgerRow, OpRow, Totals, TriedRow, WorkloadRow
from fluxperf.workloads import Prepared, Workload


def sums(crossings: Iterable[Crossing]) -> tuple[Counter[str], Counter[str]]:
    """Copies and bytes by direction."""
    copies: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for crossing in crossings:
        copies[crossing.direction] += 1
        sizes[crossing.direction] += crossing.bytes
    return copies, sizes


def block_rows(
    crossings: list[Crossing], sections_s: Mapping[tuple[str, int], float], double: int, single: int
) -> list[BlockRow]:
    """Copies and time of every block, in the order of the forward."""
    sections = {"embed": 1, "double": double, "single": single, "final": 1}
    rows = []
    for section, index in ((section, index) for section, number in sections.items() for index in range(number)):
        copies, sizes = sums(row for row in crossings if (row.section, row.index) == (section, index))
        rows.append(
            BlockRow(
                section=section,
                index=index,
                d2h_copies=copies["d2h"],
                h2d_copies=copies["h2d"],
                d2h_bytes=sizes["d2h"],
                h2d_bytes=sizes["h2d"],
                time_s=sections_s.get((section, index)),
            )
        )
    return rows


def ledger_rows(crossings: list[Crossing]) -> list[LedgerRow]:
    """Copies summed by section, op, label and direction, in order of first appearance."""
    keys = [(row.section, row.op, row.label, row.direction) for row in crossings]
    counts = Counter(keys)
    sizes: Counter[tuple[str, ...]] = Counter()
    for key, row in zip(keys, crossings, strict=True):
        sizes[key] += row.bytes
    return [
        LedgerRow(direction=key[3], label=key[2], op=key[1], section=key[0], count=number, bytes=sizes[key])
        for key, number in counts.items()
    ]


class Algorithms(NamedTuple):
    """Algorithms that libraries chose by trial, as fields of a record: texts, seconds of candidates, and rows."""

    choices: dict[str, str]
    trials_s: dict[str, list[float | None]]
    tried: list[TriedRow]


def algorithms(trials: Sequence[Trial]) -> Algorithms:
    """Rows of a device's trials."""
    return Algorithms(
        {trial.what: f"{trial.way}, {trial.choice}" if trial.way else str(trial.choice) for trial in trials},
        {trial.what: [s if math.isfinite(s) else None for s in trial.choice.times_s] for trial in trials},
        [
            TriedRow(
                what=trial.what,
                kind=trial.kind,
                dtype=trial.dtype,
                sizes=list(trial.sizes),
                batch=trial.batch,
                epilogue=trial.epilogue,
                way=trial.way,
                candidate=trial.choice.candidate,
                candidates=len(trial.choice.times_s),
            )
            for trial in trials
        ],
    )


def workload_row(workload: Workload, source: WeightSource) -> WorkloadRow:
    """The workload, and the origin of its weights."""
    return WorkloadRow(
        name=workload.name,
        model=source.config.name,
        height=workload.height,
        width=workload.width,
        text_tokens=workload.text_tokens,
        steps=workload.steps,
        batch=workload.batch,
        weights=source.description,
    )


def rung_policy(prepared: Prepared) -> dict[str, str]:
    """A rung's settings besides its table: dtype, executor, sections in e4m3, and the effects of its budget."""
    phase = prepared.phase
    fixed = {"activations": phase.activations, "executor": phase.executor, "e4m3": " ".join(phase.e4m3)}
    return {**fixed, **policy_of(prepared.plan)}


def op_rows(meter: OpMeter) -> list[OpRow]:
    """Calls, time, bytes and operations of every op that did work."""
    return [
        OpRow(
            op=key.op,
            section=key.section,
            within=key.within,
            count=total.count,
            time_s=total.time_s,
            bytes=total.bytes,
            flops=total.flops,
        )
        for key, total in meter.totals.items()
    ]


def clocked(readings: Mapping[str, Sequence[Reading]]) -> dict[str, dict[str, list[list[float]]]]:
    """A record's ``cycles`` and ``clock_hz``, for one process: metrics whose samples all have them.

    Args:
        readings: samples by metric.
    """
    return {
        field: {
            metric: [[getattr(reading, field) for reading in some]]
            for metric, some in readings.items()
            if some and all(getattr(reading, field) is not None for reading in some)
        }
        for field in ("cycles", "clock_hz")
    }


def joules(conditions: Conditions | None, numbers: Mapping[str, int]) -> dict[str, list[list[float]]]:
    """A record's ``energy_j``, for one process: joules of one generation, step and the like; none without a counter.

    Args:
        conditions: of the process, with the energy of its window.
        numbers: how many of each were in the window, by metric.
    """
    energy = conditions.energy if conditions else None
    if energy is None or energy.counter_j is None:
        return {}
    return {metric: [[energy.counter_j / number]] for metric, number in numbers.items() if number}


def crossed(crossings: Iterable[Crossing], launches: int | None, **others: Any) -> Totals:
    """Copies and bytes of crossings as totals, with other known values."""
    copies, sizes = sums(crossings)
    return Totals(
        d2h_copies=copies["d2h"],
        h2d_copies=copies["h2d"],
        d2h_bytes=sizes["d2h"],
        h2d_bytes=sizes["h2d"],
        launches=launches,
        **others,
    )


def outside(around: list[Crossing], generations: list[Crossing], number: int, forward: Totals, steps: int) -> Totals:
    """Copies of a generation outside its forwards: weights, tables, inputs, the sampler's steps, the final latents.

    Weights from files count one copy for each of the model's tensors, as the door counts a stream.

    Args:
        around: crossings before and after the generations.
        generations: crossings of ``number`` generations.
        number: number of these generations.
        forward: totals of one forward.
        steps: forwards of a generation.
    """
    copies, sizes = sums(around)
    whole, whole_bytes = sums(generations)
    down = copies["d2h"] + whole["d2h"] // number - steps * forward.d2h_copies
    return Totals(
        d2h_copies=down,
        h2d_copies=copies["h2d"] + whole["h2d"] // number - steps * forward.h2d_copies,
        d2h_bytes=sizes["d2h"] + whole_bytes["d2h"] // number - steps * forward.d2h_bytes,
        h2d_bytes=sizes["h2d"] + whole_bytes["h2d"] // number - steps * forward.h2d_bytes,
        launches=None,
        syncs=down,
        peak_bytes=None,
    )
