"""Every implementation in every case against the oracle. Generated, so a new op or implementation is tested too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fluxperf.engine.device.host import HostArray, HostDevice
from fluxperf.engine.ops.specs import SPECS
from fluxperf.engine.ops.table import OP_NAMES, Halves, Quantized, Unscaled
from tests.ops import checking
from tests.ops.cases import CALLS, SIZES, Call
from tests.ops.checking import Trial

TRIALS = list(checking.trials())


@pytest.mark.parametrize("trial", TRIALS, ids=str)
def test_is_within_tolerance_of_the_oracle(trial: Trial, device: HostDevice) -> None:
    call = checking.drawn(trial)
    results = checking.listed(checking.perform(device, trial, call))
    checking.judge(trial, [checking.on_host(device, value) for value in results], checking.oracle(trial, call))
    for result in results:
        assert_is_of_its_types(result, trial, call, "float8_e4m3fn")
        on_device = isinstance(result, HostArray | Quantized | Halves | Unscaled)
        assert on_device or trial.implementation.rests_on_host, f"{trial} left its result on the host"


def assert_is_of_its_types(result: Any, trial: Trial, call: Call, e4m3: str) -> None:
    """Checks the dtypes of a result; ``e4m3`` is the dtype that a device stores e4m3 values in."""
    if isinstance(result, Halves):
        for half in result:
            assert_is_of_its_types(half, trial, call, e4m3)
    elif isinstance(result, Quantized):
        assert (str(result.data.dtype), str(result.scale.dtype)) == (e4m3, "float32")
        assert trial.key == "fp8"
    elif isinstance(result, Unscaled):
        assert [str(x.dtype) for x in result[:3]] == ["bfloat16", "float32", "float32"]
        assert trial.key == "fp8"
    else:
        assert str(result.dtype) == (call.result or trial.dtype)


def test_every_implementation_is_covered() -> None:
    tried = {(trial.op, trial.implementation.name) for trial in TRIALS}
    there = {(row.op, row.name) for row in checking.under_test() if row.op not in checking.WITHOUT_NUMBERS}
    assert tried == there
    assert len(there) > 50


def test_vocabulary_and_table_have_the_same_ops_in_the_same_order() -> None:
    assert tuple(SPECS) == OP_NAMES


def test_an_op_is_timed_in_cases_that_it_has() -> None:
    assert {name: spec.timed for name, spec in SPECS.items() if not set(spec.timed) <= set(spec.cases)} == {}


def test_every_op_has_calls_in_every_size() -> None:
    assert set(CALLS) | set(checking.WITHOUT_NUMBERS) == set(OP_NAMES)
    tried = {(trial.op, trial.size) for trial in TRIALS}
    assert tried == {(op, size) for op in CALLS for size in SIZES}


def test_every_tolerance_is_listed_and_used() -> None:
    used = {(trial.op, trial.key) for trial in TRIALS}
    assert used == {(op, key) for op, spec in SPECS.items() for key in spec.tolerance}


def test_drawn_numbers_are_never_zero_and_already_rounded() -> None:
    for trial in TRIALS:
        for value in checking.drawn(trial).args:
            if isinstance(value, np.ndarray):
                assert value.all(), trial
                assert str(value.dtype) in ("float32", "bfloat16")


def test_strided_arguments_are_not_contiguous(device: HostDevice) -> None:
    numbers = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    placed = checking.place(device, numbers, SIZES["strided"])
    assert placed.strides != numbers.strides
    assert np.array_equal(device.door.to_host(placed, "placed"), numbers)
