"""Every round trip of the baseline makes exactly the copies that its docstring lists, wherever its inputs rest.

`residency` has a letter per array argument: D on the device, H on the host. The expected values are the labels of
copies down and up, in order, without the op's name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fluxperf.engine.device.host import HostArray, HostDevice
from fluxperf.engine.ops import roundtrip
from fluxperf.engine.ops.specs import SPECS
from fluxperf.errors import ArgumentError
from tests.ops import checking
from tests.ops.checking import Trial

#: op, implementation, variant of the call, residency, copied down, copied up
ROWS = [
    ("layer_norm", "roundtrip", "", "D", "x", "result"),
    ("layer_norm", "roundtrip", "", "H", "x", "x result"),
    ("modulate", "roundtrip", "", "DDD", "x scale shift", "result"),
    ("modulate", "roundtrip", "", "DHH", "x", "result"),
    ("modulate", "roundtrip", "", "HDH", "scale", "result"),
    ("modulate", "roundtrip", "", "HHH", "", "result"),
    ("gated_residual", "roundtrip", "", "DDD", "x gate y", ""),
    ("gated_residual", "roundtrip", "", "HDD", "gate y", ""),
    ("gated_residual", "roundtrip", "", "HHH", "", ""),
    ("add_broadcast", "roundtrip", "", "DD", "x y", ""),
    ("add_broadcast", "roundtrip", "vector", "HD", "y", ""),
    ("add_broadcast", "roundtrip", "", "HH", "", ""),
    ("scale", "roundtrip", "", "D", "x", "result"),
    ("apply_rope", "roundtrip", "", "DDD", "x cos sin", "result"),
    ("concat_tokens", "roundtrip", "", "DD", "first second", "result"),
    ("concat_tokens", "kept_on_host", "", "DD", "first second", ""),
    ("split_tokens", "roundtrip", "", "D", "x", "first second"),
    ("split_tokens", "roundtrip", "", "H", "", "first second"),
    ("split_modulation", "roundtrip", "two", "D", "x", ""),
    ("split_modulation", "roundtrip", "six", "D", "x", "vector vector vector vector"),
    ("join_features", "roundtrip", "", "DD", "first second", "result"),
    ("linear_gelu", "host_reshape", "", "DDD", "x", "x"),
    ("linear", "host_reshape", "", "DDD", "result", ""),
    ("linear", "host_reshape", "no_bias", "DD", "result", ""),
    ("timestep_embedding", "roundtrip", "", "", "", "result"),
    ("rope_table", "roundtrip", "", "", "", "cos sin"),
    ("euler_step", "roundtrip", "", "DD", "latents velocity", "result"),
]
BY_NAME = {(row.op, row.name): row for row in checking.under_test()}


def _placed(device: HostDevice, trial: Trial, residency: str) -> tuple[Any, ...]:
    letters = iter(residency)
    values = checking.bare(checking.drawn(trial).args)
    return tuple(
        device.door.to_device(value, "argument") if isinstance(value, np.ndarray) and next(letters) == "D" else value
        for value in values
    )


@pytest.mark.parametrize(
    ("op", "name", "variant", "residency", "down", "up"), ROWS, ids=["-".join(filter(None, row[:4])) for row in ROWS]
)
def test_makes_exactly_these_copies(
    op: str, name: str, variant: str, residency: str, down: str, up: str, device: HostDevice
) -> None:
    trial = Trial(BY_NAME[op, name], "float32", variant, "odd")
    function = getattr(checking.bound_ops(device, trial.implementation, "float32"), op)
    args = _placed(device, trial, residency)
    since, ledger = len(device.door.ledger.crossings), device.door.ledger
    results = checking.listed(function(*args))
    crossings = ledger.crossings[since:]
    assert [row.label for row in crossings if row.direction == "d2h"] == [f"{op}.{what}" for what in down.split()]
    assert [row.label for row in crossings if row.direction == "h2d"] == [f"{op}.{what}" for what in up.split()]
    assert [row.order for row in crossings] == list(range(since, since + len(crossings)))
    checking.judge(trial, [checking.on_host(device, value) for value in results], _expected(trial))
    resting = [isinstance(value, np.ndarray) for value in results]
    assert any(resting) == trial.implementation.rests_on_host


def _expected(trial: Trial) -> list[Any]:
    return checking.oracle(trial, checking.drawn(trial))


def test_every_round_trip_has_a_row() -> None:
    names = ("roundtrip", "kept_on_host", "host_reshape")
    there = {(row.op, row.name) for row in checking.under_test() if row.name in names}
    assert {row[:2] for row in ROWS} == there
    assert {SPECS[op].name for op, _ in there} <= set(dir(roundtrip))


def test_bytes_are_those_of_the_operands(device: HostDevice) -> None:
    x = device.door.to_device(np.ones((2, 3, 8), np.float32), "x")
    gate = device.door.to_device(np.ones((2, 8), np.float32), "gate")
    roundtrip.gated_residual(device, x, gate, x)
    assert [(row.label, row.bytes) for row in device.door.ledger.crossings[2:]] == [
        ("gated_residual.x", 192),
        ("gated_residual.gate", 64),
        ("gated_residual.y", 192),
    ]


def test_the_resting_vectors_are_shift_and_scale(device: HostDevice) -> None:
    vectors = roundtrip.split_modulation(device, device.door.to_device(np.ones((1, 12), np.float32), "x"), 6)
    assert [isinstance(vector, np.ndarray) for vector in vectors] == [True, True, False, False, False, False]
    assert all(isinstance(vector, HostArray) for vector in vectors[2:])


@pytest.mark.parametrize("op", ["scale", "concat_tokens", "join_features", "euler_step"])
def test_ops_that_took_device_arrays_only_refuse_host_numbers(op: str, device: HostDevice) -> None:
    trial = Trial(BY_NAME[op, "roundtrip"], "float32", "", "odd")
    with pytest.raises(ArgumentError, match=f"{op}.*already"):
        getattr(checking.bound_ops(device, trial.implementation, "float32"), op)(*_placed(device, trial, "HH"))
