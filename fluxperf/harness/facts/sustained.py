"""The sustained bound: the time of a step's matrix products and attention alone, at the sustained rates of a GPU.

At its power limit a GPU lowers its clock, so its sustained rate is lower than that of a short trial. The floor
(`fluxperf.harness.facts.floor`) uses the rates of short trials. Generations back to back are compared with the
sustained bound.
"""

from __future__ import annotations

from typing import NamedTuple

from fluxperf.harness.facts.ceilings import dtype_in
from fluxperf.harness.facts.inputs import Context
from fluxperf.harness.facts.samples import summary_of
from fluxperf.harness.facts.work import outer
from fluxperf.harness.records import Record


class Sustained(NamedTuple):
    """The bound of a step in seconds, and its share of the measured step."""

    step_s: float
    share: float


def sustained_of(context: Context, record: Record | None) -> Sustained | None:
    """``products / rate + attention / rate`` of the blocks of a step; ``None`` without ops, a time, or rates.

    Args:
        context: with the rates, by the dtype of the blocks' products.
        record: of a GPU.
    """
    found = summary_of(record)
    if record is None or found is None or record.ran_as != "kernel":
        return None
    rates = context.sustained.get(dtype_in(record.policy, "single"))
    blocks = [row for row in outer(record.ops) if row.section in ("double", "single")]
    attention = sum(row.flops for row in blocks if row.op == "attention")
    products = sum(row.flops for row in blocks) - attention
    if rates is None or not attention:
        return None
    step_s = products / rates.products + attention / rates.attention
    return Sustained(step_s, step_s * record.workload.steps / found.median)
