"""Exact baselines: counts of each rung on the host device, measured now and stored as records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from fluxperf.documents import encoded
from fluxperf.engine.checkpoints.sources import SyntheticWeights, WeightSource
from fluxperf.engine.config import config_named
from fluxperf.engine.phases import PHASES, phase_named
from fluxperf.errors import FluxperfError
from fluxperf.files import write_whole
from fluxperf.harness.measure.sampling import Sampling
from fluxperf.harness.records import Record
from fluxperf.harness.verdict import Row, problem
from fluxperf.recording import Reference, measure
from fluxperf.workloads import Workload, prepare, reference_latents, workload_named

#: Workloads that are counted: a model with few blocks, and one with the 57 blocks of FLUX.1.
WORKLOADS = ("tiny", "tiny-57")

#: Errors of a broken rung: fluxperf's own, and those of the code that it runs.
_FAILURES = (
    FluxperfError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def counted(
    workloads: Sequence[str], rungs: Sequence[str] = (), on_rung: Callable[[str], None] = lambda name: None
) -> tuple[list[Record], list[Row]]:
    """Records of rungs on the host device, without times, and a row for each rung that failed.

    Rungs without copies are counted with an open door, so that all new copies are named, not only the first.

    Args:
        workloads: names of workloads.
        rungs: names of rungs; all of the ladder if none.
        on_rung: called with the workload and rung that comes next.

    Raises:
        UnknownNameError: a workload or rung that does not exist.
    """
    names = [phase_named(name).name for name in rungs] or [phase.name for phase in PHASES]
    records: list[Record] = []
    failures: list[Row] = []
    for workload in [workload_named(name) for name in workloads]:
        on_rung(f"{workload.name} oracle")
        source = SyntheticWeights(config_named(workload.model))
        latents = reference_latents(workload, source)
        reference = None if latents is None else Reference(latents, "float64 oracle, final latents")
        for name in names:
            on_rung(f"{workload.name} {name}")
            try:
                records.append(_count(name, workload, source, reference))
            except _FAILURES as error:
                text = f"rung {name!r} failed while it was counted: {type(error).__name__}: {error}"
                failures.append(problem("failed", text, workload=workload.name, rung=name, metric="record"))
    return records, failures


def _count(name: str, workload: Workload, source: WeightSource, reference: Reference | None) -> Record:
    prepared = prepare(name, workload, source, "host")
    prepared.phase = replace(prepared.phase, copies=True)
    (record,), _ = measure(prepared, Sampling(1, 0), reference)
    prepared.close()
    return _without_times(record)


def write_baseline(path: Path, records: Sequence[Record]) -> None:
    """Replaces a baseline file by these records, a line each.

    Raises:
        RecordError: the file cannot be written.
    """
    write_whole(path, "".join(encoded(record).decode() + "\n" for record in records))


def _without_times(record: Record) -> Record:
    """The record with only its exact values, so that a remade baseline differs only in real changes."""
    return msgspec.structs.replace(
        record,
        times_s={"denoise": [], "step": []},
        ops=[msgspec.structs.replace(row, time_s=0.0) for row in record.ops],
        blocks=[msgspec.structs.replace(row, time_s=None) for row in record.blocks],
        sampling=[],
        conditions=None,
        load=None,
    )
