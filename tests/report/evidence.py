"""Synthetic records of several machines, with all other evidence that a report can show."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fluxperf.harness.calibration import Calibrated, Calibration, kind_of
from fluxperf.harness.columns import columns_of
from fluxperf.harness.facts.ceilings import MEMORY, Ceiling
from fluxperf.harness.facts.inputs import Extras
from fluxperf.harness.history import history
from fluxperf.harness.points import Point
from fluxperf.harness.records import Record, RecordsFile, SamplingRow
from fluxperf.harness.series import History
from fluxperf.harness.verdict import Row, Verdict, conclude
from tests.report import captures
from tests.report.pages import GPU_SECONDS, H100, LAPTOP, RUNGS, files_of, make, on_gpu, twins

CEILINGS = [
    Ceiling("NVIDIA H100 80GB HBM3", MEMORY, 2.9e12, "measured", "a device copy"),
    Ceiling("NVIDIA H100 80GB HBM3", "float32", 5e13, "measured", "a product"),
]


def ladder(**changes: object) -> list[Record]:
    """The whole ladder on a GPU, with op rows that add up to less time than the step takes."""
    records = []
    for rung, seconds in GPU_SECONDS.items():
        record = on_gpu(rung, seconds, **changes)
        ops = [msgspec.structs.replace(row, time_s=row.time_s * seconds) for row in record.ops]
        sampling = [SamplingRow(stopped="count", settled=True, half_width=0.01)] * 6
        policy = {"activations": "float32"}
        records.append(msgspec.structs.replace(record, ops=ops, sampling=sampling, policy=policy))
    return records


def peers() -> list[Record]:
    return [
        on_gpu(form, seconds, implementation=form, ran_as="peer", ops=[], blocks=(0, 0), error=None)
        for form, seconds in (("diffusers", 3.1), ("diffusers-compiled", 2.4))
    ]


def kernels() -> list[Record]:
    settings = {"kind": "batch", "launches": "40", "bytes": "56623104"}
    return [
        on_gpu(
            name,
            1.0,
            times_s={"call": [[2.1e-5, 2.2e-5, 2.15e-5]]},
            settings=settings,
            workload=msgspec.structs.replace(make().workload, name="kernels"),
        )
        for name in ("layer_norm bfloat16", "gelu bfloat16")
    ]


def calibration() -> Calibration:
    row = Calibrated(
        spread=0.008,
        detectable=0.021,
        pairs=8,
        alpha=0.02,
        power=0.95,
        ran_as="kernel",
        created_utc="2026-07-20T00:00:00Z",
    )
    rows = {f"schnell-1024/{rung}/times.denoise": row for rung in RUNGS[4:]}
    return Calibration(schema=1, machine=kind_of(on_gpu("fused", 1.0)), rows=rows)


def row(verdict: str = "SAME", outcome: str = "pass", **changes: object) -> Row:
    base = Row(
        workload="schnell-1024",
        rung="fused",
        metric="times.denoise",
        kind="noisy",
        verdict="SAME",
        reason="shown_same",
        outcome="pass",
        message="The pairs rule out a change of 3 %.",
        unit="s",
        base=0.483,
        head=0.485,
        change=0.004,
        low=-0.011,
        high=0.019,
        p=0.4,
        pairs=8,
        spread=0.01,
        margin=0.005,
        detectable=0.021,
    )
    return msgspec.structs.replace(base, verdict=verdict, outcome=outcome, **changes)


def verdict(*rows: Row) -> Verdict:
    return conclude(rows or [row()], base="main", head="change", made=("2026-07-26T12:00:00Z", "0.1.0"))


def points(commits: int, metrics: int = 1, rung: str = "fused") -> list[Point]:
    """A history with steps: every value is within one percent of its level, without random numbers."""
    found = []
    for metric in range(metrics):
        for number in range(commits):
            level = (4.0 - 3.0 * (number * 5 // commits) / 5) * (1 + metric)
            value = level * (1 + 0.01 * ((number * 7919 + metric * 104729) % 17 - 8) / 8)
            found.append(
                Point(
                    source="record",
                    commit=f"{number + 1:040x}",
                    date_utc=f"2026-{1 + number // 100 % 12:02}-{1 + number // 4 % 25:02}T{number % 24:02}:00:00+00:00",
                    machine="NVIDIA H100 80GB HBM3",
                    metric="denoise" if metric == 0 else f"metric_{metric}",
                    workload="schnell-1024",
                    rung=rung,
                    ran_as="kernel",
                    unit="seconds",
                    exact=False,
                    value=value,
                    low=value * 0.99,
                    high=value * 1.01,
                    samples=12,
                )
            )
    return found


def course(commits: int, metrics: int = 1) -> History:
    return history(columns_of(points(commits, metrics)), Path("no checkout"))


def everything(*more: Record) -> tuple[list[RecordsFile], Extras]:
    """Files and evidence of a page that shows everything: a sample, a missing rung, mixed machines, every part."""
    other = msgspec.structs.replace(LAPTOP, cpu="Intel Xeon 8488C")
    here = [*twins("tensorcore"), make(machine=other), *more]
    files = files_of(*here, problems=("a.jsonl, line 3: torn " + "y" * 300,))
    files += files_of(*ladder(machine=H100), *peers(), *kernels(), path="sample.jsonl")
    unsure = row("UNSURE", "unsure", reason="too_noisy", rung="fp8", message="The pairs show nothing.")
    slower = row("SLOWER", "regression", reason="shown_slower", change=0.06, low=0.04, high=0.08, p=0.004)
    extras = Extras(
        samples=frozenset({"sample.jsonl"}),
        verdict=verdict(row(), unsure, slower),
        calibrations=[calibration()],
        ceilings=CEILINGS,
        history=course(40, 3),
        timeline=captures.everything(),
        command="fluxperf report a.jsonl --sample sample.jsonl -o page.html",
    )
    return files, extras
