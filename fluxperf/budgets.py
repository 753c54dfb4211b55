"""Memory budgets: converts gigabytes, a rung, a model and the size of its forwards into a plan of resident weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from fluxperf.engine.checkpoints.sources import WeightSource
from fluxperf.engine.device.base import Device
from fluxperf.engine.device.host import host_dtype
from fluxperf.engine.phases import Phase
from fluxperf.engine.residence.plan import Form, Plan, Sizes, demand_of, planned
from fluxperf.errors import ConfigError

#: How often an executor reads the whole modulation projection.
_PRODUCTS = {"eager": "none", "stacked": "step", "captured": "image"}


class Budget(NamedTuple):
    """Gigabytes (10^9 bytes) of device memory for weights, activations and libraries; and the size of the forwards."""

    gigabytes: float
    sizes: Sizes


def check_gigabytes(gigabytes: float) -> None:
    """Refuses an invalid budget.

    Raises:
        ConfigError: it is not a finite number above zero.
    """
    if not 0 < gigabytes < math.inf:
        raise ConfigError(
            f"memory budget of {gigabytes:g} GB: expected a number above 0, in 10^9 bytes, such as "
            "--memory-gb 24. Without a budget all weights stay on the device."
        )


def plan_of(device: Device, phase: Phase, rows: Mapping[str, str], source: WeightSource, budget: Budget) -> Plan:
    """The plan for a budget.

    Args:
        device: the device.
        phase: the rung.
        rows: its table.
        source: weights; synthetic ones need more memory during placement than those from files.
        budget: for everything.

    Raises:
        ConfigError: the budget is invalid or too small, or the rung makes copies anyway; the message says what is
            needed.
    """
    check_gigabytes(budget.gigabytes)
    if phase.copies:
        raise ConfigError(
            f"memory budget: expected a rung whose forward makes no copies of its own, got {phase.name!r}. "
            "Choose another, or leave the budget out."
        )
    form = Form(
        itemsize=host_dtype(phase.activations).itemsize,
        e4m3=phase.e4m3,
        scores=rows.get("attention") == "composed",
        products=_PRODUCTS[phase.executor],
    )
    drawing = None if source.stored_bytes else device.drawing_bytes
    demand = demand_of(source.config, form, budget.sizes, device.scratch_bytes, drawing)
    room = int(budget.gigabytes * 1e9) - device.outside_bytes
    return planned(demand, form, budget.sizes.steps, room, device.outside_bytes)


def in_words(plan: Plan, budget: Budget) -> str:
    """One line: which weights stay on the device and which are streamed."""
    units = len(plan.demand.units)
    told = [f"memory budget of {budget.gigabytes:g} GB: {_size(plan.resident_bytes)} of weights stay"]
    if plan.streamed:
        told.append(
            f"{_size(plan.step_bytes)} ({len(plan.streamed)} of {units} half or single blocks) are streamed in each "
            f"step through {plan.slots} slots"
        )
    if plan.pieces:
        told.append(f"{_size(plan.image_bytes)} (the modulation projection) are streamed for each product of it")
    told.append(f"{_size(plan.demand.work)} are left as work memory")
    return ", ".join(told)


def settings_of(budget: Budget | None) -> dict[str, str]:
    """A budget as settings of a record: records with different budgets, or without one, are not compared."""
    return {} if budget is None else {"memory_gb": f"{budget.gigabytes:g}"}


def policy_of(plan: Plan | None) -> dict[str, str]:
    """A plan as rows of a record's policy."""
    if plan is None:
        return {}
    return {
        "resident_bytes": str(plan.resident_bytes),
        "streamed_bytes_per_step": str(plan.step_bytes),
        "streamed_bytes_per_modulation": str(plan.image_bytes),
        "slots": f"{plan.slots} of {plan.slot_bytes} bytes",
    }


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"
