"""Cycles, clock and joules of a step, and how the ops share the joules."""

from __future__ import annotations

import msgspec
import pytest

from fluxperf.harness.facts.work import op_joules, work_of
from fluxperf.harness.records import Conditions, EnergyRow, OpRow
from tests.pure.test_records import make

replace = msgspec.structs.replace
OPS = [
    OpRow(op="linear", count=2, time_s=0.06, bytes=1, flops=4),
    OpRow(op="gelu", count=1, time_s=0.02, bytes=9, flops=0),
]


def test_a_record_of_seconds_has_no_work() -> None:
    assert work_of(make("fused")) is None
    assert op_joules(make("fused")) == []


def test_medians_of_the_processes_medians() -> None:
    record = replace(
        make("fused"),
        times_s={"step": [[0.1, 0.1, 0.3], [0.2]]},
        cycles={"step": [[1e8, 1e8, 9e8], [2e8]]},
        clock_hz={"step": [[1e9], [1.5e9]]},
        ops=OPS,
    )
    work = work_of(record)
    assert work is not None
    assert work[:3] == pytest.approx((0.15, 1.5e8, 1.25e9))
    assert work[3:] == (None, None, None)
    assert op_joules(record) == [], "without a counter no op has joules"


def test_joules_by_power_by_operation_and_by_op() -> None:
    record = replace(make("fused"), times_s={"step": [[0.1]]}, energy_j={"step": [[70.0], [], [74.0]]}, ops=OPS)
    windows = [
        EnergyRow(window_s=2.0, counter_j=joules, integrated_j=None, renewals=20) for joules in (1380.0, None, 1390.0)
    ]
    record = replace(record, conditions=[Conditions(readings=[], energy=row) for row in windows])
    work = work_of(record)
    assert work is not None
    assert (work.joules, work.watts) == (72.0, pytest.approx(692.5))
    assert work.joules_per_tflop == pytest.approx(72.0 / 4e-12)
    assert op_joules(record) == [(OPS[0], pytest.approx(54.0)), (OPS[1], pytest.approx(18.0))]
