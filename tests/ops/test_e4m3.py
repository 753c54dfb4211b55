"""e4m3 on the host: scales are powers of two, nothing saturates."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.ops.table import Unscaled
from fluxperf.errors import ArgumentError
from tests.ops.checking import on_host
from tests.ops.e4m3 import BOUNDARIES, errors_of_means, least, ops_of, rows_of_every_size, up

MOST = 448.0


def _down(device: HostDevice, array: Any) -> Any:
    return device.door.to_host(array, "result").astype(np.float64)


@pytest.mark.parametrize(("largest", "scale"), BOUNDARIES)
def test_a_scale_is_the_least_power_of_two_that_keeps_a_row_within_448(
    largest: float, scale: float, device: HostDevice
) -> None:
    numbers = np.zeros((3, 16))
    numbers[1, 5], numbers[2, 7] = largest, -largest
    result = ops_of(device).quantize_rows(up(device, numbers, np.float32))
    assert _down(device, result.scale).ravel().tolist() == [2.0**-126, scale, scale]
    assert np.abs(_down(device, result.data)).max() <= MOST
    assert abs(_down(device, result.data)[1, 5] * scale / largest - 1) <= 2**-4


def test_a_row_of_zeros_in_a_weight_raises_no_bound(device: HostDevice) -> None:
    """GELU's result and V get a scale from the largest one of a weight before the product (`epilogues.cuh`).

    Here it is computed as there. With a scale of 1 for a row of zeros, a usual one is 2^-12, all results would be zero.
    """
    draw, (tokens, outputs, inputs) = np.random.default_rng(3), (16, 96, 1024)
    weight, bias = draw.standard_normal((outputs, inputs)) * 0.02, draw.standard_normal(outputs) * 0.1
    weight[5] = 0
    ops, zeros = ops_of(device), up(device, np.zeros((1, inputs)))
    normed = ops.norm_modulate(up(device, draw.standard_normal((1, tokens, inputs))), zeros, zeros)
    projection = ops.quantize_rows(up(device, weight))
    x, columns = on_host(device, normed)[0], on_host(device, projection.scale)
    wanted = x @ on_host(device, projection).T + bias
    lengths = 1.0645 * np.linalg.norm(x, axis=-1)
    scale = least(lengths.max() * 448 * inputs**0.5 * columns.max() + np.abs(bias).max())
    found = (wanted / scale).astype(np.float32).astype(ml_dtypes.float8_e4m3fn).astype(np.float64) * scale
    assert np.linalg.norm(found - wanted) <= 0.04 * np.linalg.norm(wanted)


def test_infinity_has_the_largest_scale_and_what_is_no_number_none(device: HostDevice) -> None:
    numbers = np.ones((4, 16))
    numbers[0, 3], numbers[1, 3], numbers[2, 3], numbers[3] = np.inf, -np.inf, np.nan, np.nan
    result = ops_of(device).quantize_rows(up(device, numbers, np.float32))
    assert _down(device, result.scale).ravel().tolist() == [2.0**120, 2.0**120, 2.0**-8, 2.0**-126]
    data = _down(device, result.data)
    assert (data[0, 3], data[1, 3], data[2, 0]) == (MOST, -MOST, 256.0)
    assert np.array_equal(np.isnan(data), np.isnan(numbers))


def test_rows_of_every_size_keep_three_bits(device: HostDevice) -> None:
    numbers = rows_of_every_size().astype(ml_dtypes.bfloat16).astype(np.float64)
    result = ops_of(device).quantize_rows(up(device, numbers))
    back = _down(device, result.data) * _down(device, result.scale)
    errors = np.linalg.norm(back - numbers, axis=-1) / np.linalg.norm(numbers, axis=-1)
    assert errors.max() <= 0.04


def test_norms_bound_queries_and_keys(device: HostDevice) -> None:
    """The longest row that a norm can return, with all its length in one element, is not clipped."""
    heads, dim = 2, 16
    product = np.zeros((1, 4, 3 * heads * dim))
    product[..., ::dim] = 50.0
    rows, columns = np.ones((1, 4, 1), np.float32), np.ones(3 * heads * dim, np.float32)
    norm = np.full(dim, 0.75)
    norm[3] = -1.875
    arguments = (
        (Unscaled(up(device, product), up(device, rows, np.float32), up(device, columns, np.float32)),),
        (up(device, np.zeros(3 * heads * dim)),), (up(device, norm),), (up(device, norm),),
        up(device, np.ones((4, dim)), np.float32), up(device, np.zeros((4, dim)), np.float32), heads,
    )  # fmt: skip
    for result, largest in zip(ops_of(device).qkv_heads(*arguments), (0.75 * 4, 0.75 * 4, 50.0), strict=True):
        numbers = _down(device, result.data) * _down(device, result.scale)
        assert numbers.max() == pytest.approx(largest, rel=2**-4)
        assert result.scale.shape == (1, 1, 1, 1)


def test_heads_refuse_a_product_with_a_bias_of_its_own(device: HostDevice) -> None:
    ops, width = ops_of(device), 3 * 2 * 16
    product = Unscaled(
        up(device, np.ones((1, 2, width))), up(device, np.ones((1, 2, 1)), np.float32),
        up(device, np.ones(width), np.float32), up(device, np.ones(width)),
    )  # fmt: skip
    norm, table_ = up(device, np.ones(16)), up(device, np.ones((2, 16)), np.float32)
    with pytest.raises(ArgumentError, match="expected a product without bias"):
        ops.qkv_heads((product,), (up(device, np.ones(width)),), (norm,), (norm,), table_, table_, 2)


def test_attention_is_in_units_of_its_values(device: HostDevice) -> None:
    """If all tokens have the same value, it comes back unchanged, however large: a mean never saturates."""
    draw = np.random.default_rng(3)
    q, k = (draw.standard_normal((1, 2, 5, 16)) for _ in range(2))
    v = np.broadcast_to(draw.standard_normal((1, 2, 1, 16)) * 1e4, (1, 2, 5, 16))
    operands = [up(device, x) for x in (q, k, v)]
    result = ops_of(device).attention(*operands)
    numbers = _down(device, result.data) * _down(device, result.scale)
    expected = v.swapaxes(1, 2).reshape(1, 5, 32)
    assert np.linalg.norm(numbers - expected) / np.linalg.norm(expected) <= 0.06


def test_means_have_a_scale_of_their_own(device: HostDevice) -> None:
    """Means of many tokens are much smaller than a value: in the scale of loose values they would keep few bits."""
    errors = errors_of_means(device, 1024, 512.0)
    assert errors[0] <= 6e-2
    assert errors[1] <= 1.05 * errors[0]
    assert errors[2] > 2 * errors[0]
