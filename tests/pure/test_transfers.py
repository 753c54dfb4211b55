"""The door: what it records, what it refuses, and the effect of a sealed region."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.device.observers import LedgerScopes
from fluxperf.engine.device.transfers import Crossing
from fluxperf.errors import ArgumentError, DeviceError, TransferError

NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_numbers_come_back_as_they_went(device: HostDevice) -> None:
    for numbers in (
        NUMBERS,
        NUMBERS.astype(ml_dtypes.bfloat16),
        np.array(7),
        np.zeros((0, 3)),
        NUMBERS[:, ::2],
        NUMBERS.T,
    ):
        back = device.door.to_host(device.door.to_device(numbers, "there"), "back")
        assert (back.dtype, back.shape) == (numbers.dtype, numbers.shape)
        assert np.array_equal(back, numbers)
        assert back.flags.c_contiguous


def test_both_directions_copy(device: HostDevice) -> None:
    numbers = NUMBERS.copy()
    array = device.door.to_device(numbers, "there")
    numbers[:] = -1
    first = device.door.to_host(array, "back")
    first[:] = -2
    assert np.array_equal(device.door.to_host(array, "again"), NUMBERS)


def test_every_crossing_is_written_down_in_order(device: HostDevice) -> None:
    array = device.door.to_device(NUMBERS, "weights")
    device.door.to_host(array[:, :2], "part")
    device.door.to_host(array[:1, :1], "one")
    rows = [(row.order, row.direction, row.bytes, row.label) for row in device.door.ledger.crossings]
    assert rows == [(0, "h2d", 24, "weights"), (1, "d2h", 16, "part"), (2, "d2h", 4, "one")]
    assert {(row.op, row.section, row.index) for row in device.door.ledger.crossings} == {("", "", -1)}
    assert device.door.ledger.syncs == 2


def test_counts_and_bytes_since_a_position(device: HostDevice) -> None:
    ledger = device.door.ledger
    array = device.door.to_device(NUMBERS, "a")
    since = len(ledger.crossings)
    device.door.to_host(array, "b")
    device.door.to_host(array, "c")
    assert (ledger.count("h2d"), ledger.count("d2h"), ledger.bytes("h2d"), ledger.bytes("d2h")) == (1, 2, 24, 48)
    assert (ledger.count("h2d", since), ledger.count("d2h", since), ledger.bytes("d2h", since + 1)) == (0, 2, 24)


def test_crossings_name_the_scope_that_was_open(device: HostDevice) -> None:
    scopes = LedgerScopes(device.door.ledger)
    scopes.enter_section("double", 7)
    scopes.enter_op("modulate", False)
    device.door.to_device(NUMBERS, "x")
    scopes.leave_op((), None)
    scopes.leave_section()
    assert device.door.ledger.crossings == [Crossing(0, "h2d", 24, "x", "modulate", "double", 7)]


@pytest.mark.parametrize("call", ["to_device", "to_host"])
def test_a_label_is_required(call: str, device: HostDevice) -> None:
    value = NUMBERS if call == "to_device" else device.door.to_device(NUMBERS[:1, :1], "x")
    before = list(device.door.ledger.crossings)
    with pytest.raises(ArgumentError, match="expected a label"):
        getattr(device.door, call)(value, "")
    with pytest.raises(TypeError, match="label"):
        getattr(device.door, call)(value)
    assert device.door.ledger.crossings == before


def test_each_direction_refuses_what_is_there_already(device: HostDevice) -> None:
    array = device.door.to_device(NUMBERS, "x")
    with pytest.raises(ArgumentError, match=r"to_device\('x'\): expected a NumPy array, got HostArray"):
        device.door.to_device(array, "x")
    with pytest.raises(ArgumentError, match=r"to_device\('x'\): .* got list"):
        device.door.to_device([1.0], "x")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="already"):
        device.door.to_host(NUMBERS, "x")


def test_to_device_fills_a_slice(device: HostDevice) -> None:
    whole = device.empty((4, 3), "float32")
    before = device.memory.allocations
    part = whole[1:3]
    assert device.door.to_device(NUMBERS, "rows", out=part) is part
    assert device.memory.allocations == before
    back = device.door.to_host(whole, "whole")
    assert np.array_equal(back[1:3], NUMBERS)
    assert np.isnan(back[[0, 3]]).all()


@pytest.mark.parametrize(("shape", "dtype"), [((3, 2), "float32"), ((2, 3), "bfloat16"), ((1, 2, 3), "float32")])
def test_to_device_refuses_another_destination_and_counts_nothing(
    shape: tuple[int, ...], dtype: str, device: HostDevice
) -> None:
    with pytest.raises(ArgumentError, match="to_device: expected out"):
        device.door.to_device(NUMBERS, "x", out=device.empty(shape, dtype))
    assert device.door.ledger.crossings == []


@pytest.mark.parametrize("call", ["to_device", "to_host"])
def test_a_sealed_door_refuses_every_crossing(call: str, device: HostDevice) -> None:
    value = NUMBERS[:1, :1] if call == "to_device" else device.door.to_device(NUMBERS[:1, :1], "x")
    before = list(device.door.ledger.crossings)
    with device.door.sealed("the forward makes no copies"):
        with pytest.raises(TransferError, match=r"'norm'.*sealed \(the forward makes no copies\)"):
            getattr(device.door, call)(value, "norm")
        assert device.door.ledger.crossings == before
    assert device.door.ledger.syncs == 0
    getattr(device.door, call)(value, "norm")


def test_a_refusal_names_section_op_and_label(device: HostDevice) -> None:
    scopes = LedgerScopes(device.door.ledger)
    scopes.enter_section("single", 12)
    scopes.enter_op("attention", False)
    with device.door.sealed(), pytest.raises(DeviceError) as caught:
        device.door.to_device(NUMBERS, "attention.mask")
    assert "to_device('attention.mask') in single 12 / attention: the door is sealed" in str(caught.value)
    scopes.leave_op((), None)
    scopes.leave_section()


def test_seals_nest_and_the_innermost_gives_the_reason(device: HostDevice) -> None:
    door = device.door
    with door.sealed("outer"):
        with door.sealed("inner"), pytest.raises(TransferError, match="inner"):
            door.to_device(NUMBERS, "x")
        with pytest.raises(TransferError, match="outer"):
            door.to_device(NUMBERS, "x")
    door.to_device(NUMBERS, "x")


def test_an_exception_opens_the_door_again(device: HostDevice) -> None:
    with device.door.sealed("outer"):
        with pytest.raises(KeyError), device.door.sealed("inner"):
            raise KeyError
        with pytest.raises(TransferError, match="outer"):
            device.door.to_device(NUMBERS, "x")
    with pytest.raises(ZeroDivisionError), device.door.sealed("outer"):
        raise ZeroDivisionError
    device.door.to_device(NUMBERS, "x")


def test_a_seal_without_a_reason_still_seals(device: HostDevice) -> None:
    with device.door.sealed(""), pytest.raises(TransferError):
        device.door.to_device(NUMBERS, "x")
