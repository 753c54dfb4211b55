"""Recording: a prepared rung is counted, checked and timed, and becomes a record. Engine and harness meet here."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fluxperf
from fluxperf.engine.device.observers import LedgerScopes
from fluxperf.engine.device.transfers import Crossing
from fluxperf.engine.ops.meter import OpMeter
from fluxperf.harness.measure.environment import commit, machine
from fluxperf.harness.measure.sampler import Samples, sample
from fluxperf.harness.records import BlockRow, ErrorRow, LedgerRow, OpRow, Record, Totals, WorkloadRow
from fluxperf.workloads import Prepared

#: Runs that `measure` makes besides the timed ones: one counted, one to warm up.
EXTRA_RUNS = 2


@dataclass(frozen=True)
class Counts:
    """What one forward did, and what a whole generation did besides its forwards."""

    forward: list[Crossing]
    outside: Totals
    totals: Totals
    meter: OpMeter


def measure(
    prepared: Prepared, repeat: int, reference: Any | None = None, on_sample: Callable[[], None] = lambda: None
) -> Record:
    """Counts one forward and one generation of a prepared rung, then times it unobserved.

    Args:
        prepared: the rung.
        repeat: timed generations, after one warm-up.
        reference: final latents [B, I, C] to state the error against, or ``None``.
        on_sample: called after the counted and after each timed generation.

    Raises:
        TransferError: a rung that makes no copies made one.
    """
    counts, numbers = count(prepared)
    on_sample()
    samples = sample(prepared.device, prepared.denoise, repeat, on_sample=on_sample)
    return _record(prepared, counts, samples, _error(numbers, reference))


def count(prepared: Prepared) -> tuple[Counts, Any]:
    """Exact counts of a prepared rung, and the final latents as host numbers.

    The forward is the first step's, sealed unless the phase may copy. Outside of the forwards lie weights, tables and
    inputs, what the executor does once per image, the sampler's own steps, and the latents' way down.
    """
    device, ledger = prepared.device, prepared.device.door.ledger
    meter = OpMeter(device)
    forwards = prepared.observed(LedgerScopes(ledger), meter).begin(prepared.request)
    meter.totals.clear()
    start, syncs, allocations = len(ledger.crossings), ledger.syncs, device.memory.allocations
    device.memory.reset_peak()
    if prepared.phase.copies:
        forwards.velocity(prepared.latents, 0)
    else:
        with device.door.sealed(f"rung {prepared.phase.name!r} makes no copies in a forward"):
            forwards.velocity(prepared.latents, 0)
    forward = ledger.crossings[start:]
    totals = _totals(
        forward,
        syncs=ledger.syncs - syncs,
        peak_bytes=device.memory.peak_bytes,
        allocations=device.memory.allocations - allocations,
        op_calls=meter.calls,
    )
    start = len(ledger.crossings)
    numbers = device.door.to_host(prepared.denoise(), "latents")
    around = ledger.crossings[: prepared.setup_crossings] + ledger.crossings[start:]
    return Counts(forward, _outside(around, totals, prepared.workload.steps), totals, meter), numbers


def _totals(crossings: list[Crossing], **others: int) -> Totals:
    copies, sizes = _sums(crossings)
    return Totals(
        d2h_copies=copies["d2h"],
        h2d_copies=copies["h2d"],
        d2h_bytes=sizes["d2h"],
        h2d_bytes=sizes["h2d"],
        launches=None,
        **others,
    )


def _outside(around: list[Crossing], forward: Totals, steps: int) -> Totals:
    """Totals of everything less those of the forwards in it."""
    copies, sizes = _sums(around)
    down = copies["d2h"] - steps * forward.d2h_copies
    return Totals(
        d2h_copies=down,
        h2d_copies=copies["h2d"] - steps * forward.h2d_copies,
        d2h_bytes=sizes["d2h"] - steps * forward.d2h_bytes,
        h2d_bytes=sizes["h2d"] - steps * forward.h2d_bytes,
        launches=None,
        syncs=down,
        peak_bytes=None,
    )


def _sums(crossings: Iterable[Crossing]) -> tuple[Counter[str], Counter[str]]:
    """Copies and bytes by direction."""
    copies: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for crossing in crossings:
        copies[crossing.direction] += 1
        sizes[crossing.direction] += crossing.bytes
    return copies, sizes


def _error(numbers: Any, reference: Any | None) -> ErrorRow | None:
    """``||out - ref|| / ||ref||`` of the final latents."""
    if reference is None:
        return None
    relative = float(np.linalg.norm(numbers - reference) / np.linalg.norm(reference))
    return ErrorRow(relative=relative, against="float64 oracle, final latents")


def _record(prepared: Prepared, counts: Counts, samples: Samples, error: ErrorRow | None) -> Record:
    workload, phase, config = prepared.workload, prepared.phase, prepared.source.config
    revision, dirty = commit(Path(fluxperf.__file__).resolve().parent.parent)
    return Record(
        created_utc=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        fluxperf=fluxperf.__version__,
        commit=revision,
        dirty=dirty,
        machine=machine(),
        workload=WorkloadRow(
            name=workload.name,
            model=config.name,
            height=workload.height,
            width=workload.width,
            text_tokens=workload.text_tokens,
            steps=workload.steps,
            batch=workload.batch,
            weights=prepared.source.description,
        ),
        implementation="fluxperf",
        rung=phase.name,
        ran_as=prepared.device.ran_as,
        phase_table=prepared.rows,
        times_s={"denoise": [samples.whole_s], "step": [samples.steps_s], "warmup": [samples.warmup_s]},
        totals=counts.totals,
        setup_totals=counts.outside,
        blocks=_blocks(counts.forward, config.double_blocks, config.single_blocks),
        ledger=_ledger(counts.forward),
        ops=_ops(counts.meter),
        error=error,
        policy={"activations": phase.activations, "executor": phase.executor, "e4m3": " ".join(phase.e4m3)},
        settings={"nvtx": "on" if prepared.observers else "off"},
    )


def _blocks(crossings: list[Crossing], double: int, single: int) -> list[BlockRow]:
    """Copies of every block, in the order of the forward."""
    sections = {"embed": 1, "double": double, "single": single, "final": 1}
    rows = []
    for section, index in ((section, index) for section, number in sections.items() for index in range(number)):
        copies, sizes = _sums(row for row in crossings if (row.section, row.index) == (section, index))
        rows.append(
            BlockRow(
                section=section,
                index=index,
                d2h_copies=copies["d2h"],
                h2d_copies=copies["h2d"],
                d2h_bytes=sizes["d2h"],
                h2d_bytes=sizes["h2d"],
            )
        )
    return rows


def _ledger(crossings: list[Crossing]) -> list[LedgerRow]:
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


def _ops(meter: OpMeter) -> list[OpRow]:
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
