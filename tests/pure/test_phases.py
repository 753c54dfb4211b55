"""The phase table: every rung can be bound, and names only its changes."""

from __future__ import annotations

import numpy as np
import pytest

from fluxperf.engine import phases
from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.executors import EXECUTORS
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.ops.table import OP_NAMES, OPTIONAL, SECTIONS
from fluxperf.engine.phases import PHASES, Phase, phase_named, table
from fluxperf.errors import UnknownNameError

NAMES = ["baseline", "broadcast", "batched", "tensorcore", "fused", "captured", "fp8"]


def _before(phase: Phase) -> dict[str, str]:
    at = PHASES.index(phase)
    return table(PHASES[at - 1].name) if at else {}


def test_the_ladder() -> None:
    assert [phase.name for phase in PHASES] == NAMES


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
def test_a_rung_names_only_what_it_changes(phase: Phase) -> None:
    before = _before(phase)
    for row, implementation in phase.rows.items():
        op = row.rpartition(".")[2]
        if implementation is None:
            assert row in before, f"{row} ends an exception that there is not"
            assert "." in row, f"{row} would leave an op without an implementation"
        elif row in before:
            assert before[row] != implementation, f"{row} is {implementation} already"
        elif "." in row:
            general = table(phase.name)[op]
            assert general != implementation, f"{row} is {implementation} without an exception"


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
def test_a_rung_changes_something(phase: Phase) -> None:
    at = PHASES.index(phase)
    before = PHASES[at - 1] if at else None
    others = (phase.activations, phase.e4m3, phase.executor)
    assert before is None or phase.rows or others != (before.activations, before.e4m3, before.executor)


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
def test_every_rung_binds(phase: Phase, device: HostDevice) -> None:
    bound = bind(phase.name, table(phase.name), device, phase.settings)
    assert set(bound.ops) == set(SECTIONS)
    assert bound.ops["double"].settings.activations == phase.activations


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
def test_values_are_valid(phase: Phase) -> None:
    assert phase.activations in ("float32", "bfloat16")
    assert phase.executor in EXECUTORS
    assert set(phase.e4m3) <= set(SECTIONS)
    assert phase.mission
    assert phase.change


def test_copies_are_allowed_at_the_baseline_alone() -> None:
    assert [phase.name for phase in PHASES if phase.copies] == ["baseline"]
    baseline_only = {"roundtrip", "kept_on_host", "host_reshape"}
    assert baseline_only <= set(table("baseline").values())
    for name in NAMES[1:]:
        assert not baseline_only & set(table(name).values()), name


def test_a_table_has_a_row_for_every_op_and_no_ended_exception() -> None:
    for name in NAMES:
        rows = {row for row in table(name) if "." not in row}
        assert rows | set(OPTIONAL) == set(OP_NAMES)
        assert ("quantize_rows" in rows) == (name == "fp8")
        assert None not in table(name).values()
    assert "final.linear" in table("baseline")
    assert "final.linear" not in table("broadcast")


def test_sections_in_e4m3_are_those_whose_products_take_quantized_weights() -> None:
    for phase in PHASES:
        rows = table(phase.name)
        for op in ("qkv_heads", "linear_gelu", "linear_gated_residual"):
            quantized = {section for section in SECTIONS if rows.get(f"{section}.{op}", rows[op]) == "fp8"}
            assert quantized == set(phase.e4m3), (phase.name, op)


def test_tables_are_copies() -> None:
    table("fused").clear()
    assert table("fused")["attention"] == "flash"


def test_an_unknown_rung_lists_the_known() -> None:
    for ask in (table, phase_named):
        with pytest.raises(UnknownNameError) as caught:
            ask("tensorcores")
        assert str(caught.value) == (
            f"unknown rung 'tensorcores'. Did you mean 'tensorcore'? Use one of: {', '.join(NAMES)}."
        )
    assert phase_named("fused").name == "fused"


def test_phases_of_the_mission_run_up_the_ladder() -> None:
    assert [(row[1], row[2]) for row in phases.MISSION] == [
        ("baseline", "broadcast"),
        ("broadcast", "tensorcore"),
        ("tensorcore", "fused"),
    ]
    expected = np.array([row[3] for row in phases.MISSION])
    assert (expected[:, 0] < expected[:, 1]).all()
    assert tuple(expected.prod(0)) == (30, 120), "the mission's product, 420 s toward less than 10"
