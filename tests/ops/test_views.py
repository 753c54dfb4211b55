"""Destinations and views: results that are written to their final place, and joins that move no data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.ops.table import Deferred, Ops, Settings
from fluxperf.engine.phases import table
from fluxperf.errors import ArgumentError
from tests.ops import checking
from tests.ops.checking import Trial

BY_NAME = {(row.op, row.name): row for row in checking.under_test()}


def _ops(device: HostDevice, section: str = "double") -> Ops:
    return bind("fp8", table("fp8"), device, Settings("bfloat16")).ops[section]


def _array(device: HostDevice, *shape: int) -> Any:
    return device.draw_normal((3, *shape), shape, "float32", 1.0)


def _numbers(device: HostDevice, array: Any) -> Any:
    return device.door.to_host(array, "checked")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", ["ordinary", "odd", "one_token", "empty"])
@pytest.mark.parametrize(
    ("op", "name"), [("attention", "flash"), ("linear_gelu", "fused"), ("attention", "fp8"), ("linear_gelu", "fp8")]
)
def test_writes_into_its_half(op: str, name: str, size: str, dtype: str, device: HostDevice) -> None:
    trial = Trial(BY_NAME[op, name], "bfloat16" if name == "fp8" else dtype, "", size)
    call = checking.drawn(trial)
    expected = checking.oracle(trial, call)[0]
    batch, tokens, width = expected.shape
    for half in (0, 1):
        section = "single" if name == "fp8" else "double"
        halves = _ops(device, section).joined_halves(batch, tokens, width, width, trial.dtype)
        quantize = _ops(device).quantize_rows if name == "fp8" else None
        args = checking.place(device, call.args, checking.SIZES[size], quantize)
        function = getattr(checking.bound_ops(device, trial.implementation, trial.dtype), op)
        before = device.memory.allocations
        result = function(*args, out=halves[half])
        numbers = result.data if name == "fp8" else result
        assert numbers is halves[half]
        # e4m3 halves have scales, and are joined by a launch that a GPU runs in place.
        assert device.memory.allocations - before == (2 if name == "fp8" else 0)
        checking.judge(trial, [checking.on_host(device, result)], [expected])
        assert np.isnan(_numbers(device, halves[1 - half]).astype(np.float32)).all(), "wrote beside its half"


@pytest.mark.parametrize("op", ["attention", "linear_gelu"])
def test_composed_ops_refuse_a_destination(op: str, device: HostDevice) -> None:
    trial = Trial(BY_NAME[op, "composed"], "float32", "", "odd")
    args = checking.place(device, checking.drawn(trial).args, checking.SIZES["odd"])
    with pytest.raises(ArgumentError, match=f"{op} 'composed'.*joined_halves"):
        getattr(checking.bound_ops(device, trial.implementation, "float32"), op)(*args, out=_array(device, 2, 5, 48))


def test_host_reshape_refuses_a_destination(device: HostDevice) -> None:
    trial = Trial(BY_NAME["linear_gelu", "host_reshape"], "float32", "", "odd")
    args = checking.place(device, checking.drawn(trial).args, checking.SIZES["odd"])
    function = checking.bound_ops(device, trial.implementation, "float32").linear_gelu
    with pytest.raises(ArgumentError, match="linear_gelu 'host_reshape'"):
        function(*args, out=_array(device, 2, 5, 33))


def test_separate_halves_allocate_nothing(device: HostDevice) -> None:
    ops = bind("broadcast", table("broadcast"), device, Settings("float32")).ops["single"]
    assert ops.joined_halves(1, 2, 3, 4, "float32") == (None, None)
    assert device.memory.allocations == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_joined_halves_are_views_of_one_allocation(dtype: str, device: HostDevice) -> None:
    left, right = _ops(device).joined_halves(2, 5, 3, 4, dtype)
    assert (left.shape, right.shape, str(left.dtype)) == ((2, 5, 3), (2, 5, 4), dtype)
    assert device.memory.allocations == 1
    assert left.base is right.base
    assert left.base.shape == (2, 5, 7)


@pytest.mark.parametrize(("batch", "tokens"), [(1, 1), (2, 5), (0, 3)])
def test_joining_halves_returns_their_owner(batch: int, tokens: int, device: HostDevice) -> None:
    left, right = _ops(device).joined_halves(batch, tokens, 3, 4, "float32")
    before = device.memory.allocations
    assert _ops(device).join_features(left, right) is left.base
    assert device.memory.allocations == before


@pytest.mark.parametrize(("batch", "text", "image"), [(1, 3, 4), (2, 1, 1), (3, 0, 2), (0, 1, 2)])
def test_concatenating_what_was_split_returns_the_whole(batch: int, text: int, image: int, device: HostDevice) -> None:
    whole = _array(device, batch, text + image, 6)
    first, second = _ops(device).split_tokens(whole, text)
    before = device.memory.allocations
    assert _ops(device).concat_tokens(first, second) is whole
    assert device.memory.allocations == before


def _apart(device: HostDevice, ops: Ops) -> tuple[Any, Any]:
    return _array(device, 2, 3, 4), _array(device, 2, 3, 4)


def _exchanged(device: HostDevice, ops: Ops) -> tuple[Any, Any]:
    first, second = ops.split_tokens(_array(device, 2, 6, 4), 3)
    return second, first


def _with_a_gap(device: HostDevice, ops: Ops) -> tuple[Any, Any]:
    whole = _array(device, 2, 6, 4)
    return whole[:, :2], whole[:, 3:]


def _overlapping(device: HostDevice, ops: Ops) -> tuple[Any, Any]:
    whole = _array(device, 2, 6, 4)
    return whole[:, :4], whole[:, 3:]


def _not_all(device: HostDevice, ops: Ops) -> tuple[Any, Any]:
    whole = _array(device, 2, 6, 4)
    return whole[:, :2], whole[:, 2:5]


def _of_two_wholes(device: HostDevice, ops: Ops) -> tuple[Any, Any]:
    return ops.split_tokens(_array(device, 2, 6, 4), 3)[0], ops.split_tokens(_array(device, 2, 6, 4), 3)[1]


def _of_a_transposed_whole(device: HostDevice, ops: Ops) -> tuple[Any, Any]:
    return ops.split_tokens(_array(device, 4, 4, 4).swapaxes(1, 2), 2)


def _of_a_reshaped_whole(device: HostDevice, ops: Ops) -> tuple[Any, Any]:
    return ops.split_tokens(_array(device, 2, 6, 4).reshape(4, 3, 4), 1)


def _every_other(device: HostDevice, ops: Ops) -> tuple[Any, Any]:
    whole = _array(device, 2, 6, 4)
    return whole[:, 0::2], whole[:, 1::2]


def _every_other_then_the_rest(device: HostDevice, ops: Ops) -> tuple[Any, Any]:
    whole = _array(device, 2, 4, 4)
    return whole[:, 0:4:2], whole[:, 2:]


def _transposed_halves(device: HostDevice, ops: Ops) -> tuple[Any, Any]:
    first, second = ops.split_tokens(_array(device, 2, 6, 4, 4), 2)
    return first.swapaxes(2, 3), second.swapaxes(2, 3)


NOT_HALVES = [
    _every_other_then_the_rest,
    _transposed_halves,
    _apart,
    _exchanged,
    _with_a_gap,
    _overlapping,
    _not_all,
    _of_two_wholes,
    _of_a_transposed_whole,
    _of_a_reshaped_whole,
    _every_other,
]


@pytest.mark.parametrize("make", NOT_HALVES, ids=lambda make: make.__name__)
def test_what_is_not_two_halves_is_copied(make: Any, device: HostDevice) -> None:
    ops = _ops(device)
    first, second = make(device, ops)
    before = device.memory.allocations
    result = ops.concat_tokens(first, second)
    assert device.memory.allocations == before + 1
    assert result.base is None
    parts = [_numbers(device, first), _numbers(device, second)]
    assert np.array_equal(_numbers(device, result), np.concatenate(parts, axis=1))


def test_features_that_are_not_halves_are_copied(device: HostDevice) -> None:
    left, right = _array(device, 2, 3, 4), _array(device, 2, 3, 5)
    joined = _ops(device).join_features(left, right)
    assert joined.base is None
    parts = [_numbers(device, left), _numbers(device, right)]
    assert np.array_equal(_numbers(device, joined), np.concatenate(parts, axis=-1))


@pytest.mark.parametrize("op", ["split_tokens", "split_modulation"])
def test_views_allocate_nothing_and_share_memory(op: str, device: HostDevice) -> None:
    whole = _array(device, 2, 6, 4) if op == "split_tokens" else _array(device, 2, 12)
    parts = getattr(_ops(device), op)(whole, 2)
    assert device.memory.allocations == 1
    assert all(part.base is whole for part in parts)
    assert parts[0].data.ptr == whole.data.ptr


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cast_to_the_same_dtype_is_the_array_itself(dtype: str, device: HostDevice) -> None:
    x = device.draw_normal((1,), (2, 3), dtype, 1.0)
    assert _ops(device).cast(x, dtype) is x


@pytest.mark.parametrize(("rung", "computes"), [("captured", "laid_out"), ("fp8", "fp8")])
@pytest.mark.parametrize("lengths", [(5,), (3, 4)])
def test_a_product_that_was_left_has_the_bits_of_one_that_was_not(
    rung: str, computes: str, lengths: tuple[int, ...]
) -> None:
    """Nothing is launched for the deferred product; its extents are the product's."""
    device, heads, dim = HostDevice(), 2, 16
    settings = Settings("bfloat16")
    left = bind(rung, table(rung), device, settings).ops["single"]
    done = bind(rung, {**table(rung), "single.linear": computes}, device, settings).ops["single"]
    draw = lambda seed, *shape: device.draw_normal((seed, *shape), shape, "bfloat16", 1.0)  # noqa: E731
    xs, weight = [draw(tokens, 1, tokens, 32) for tokens in lengths], draw(9, 3 * heads * dim, 32)
    if rung == "fp8":
        xs, weight = [left.quantize_rows(x) for x in xs], left.quantize_rows(weight)
    norms = tuple(draw(1 + index, dim) for index in range(len(lengths)))
    biases = tuple(draw(5 + index, 3 * heads * dim) for index in range(len(lengths)))
    total = sum(lengths)
    cos, sin = (device.draw_normal((seed,), (total, dim), "float32", 1.0) for seed in (1, 2))
    results = []
    for ops in (left, done):
        launches = device.launches
        qkvs = tuple(ops.linear(x, weight) for x in xs)
        if ops is left:
            assert device.launches == launches
            assert all(isinstance(qkv, Deferred) for qkv in qkvs)
        assert [qkv.shape for qkv in qkvs] == [(1, tokens, 3 * heads * dim) for tokens in lengths]
        assert sum(qkv.size for qkv in qkvs) == total * 3 * heads * dim
        found = ops.qkv_heads(qkvs, biases, norms, norms, cos, sin, heads)
        results.append([_numbers(device, x.data if rung == "fp8" else x) for x in found])
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one.view(np.uint8), other.view(np.uint8))


def test_a_product_is_left_only_where_it_fits_and_without_bias() -> None:
    device = HostDevice()
    ops = bind("captured", table("captured"), device, Settings("bfloat16")).ops["single"]
    x, weight, bias = _array(device, 1, 3, 8), _array(device, 6, 8), _array(device, 6)
    with pytest.raises(ArgumentError, match="without bias"):
        ops.linear(x, weight, bias)
    with pytest.raises(ArgumentError, match=r"expected x \[\.\., 8\]"):
        ops.linear(x[..., :4], weight)
