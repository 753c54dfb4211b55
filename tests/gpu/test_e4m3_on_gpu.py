"""Kernels that quantize or follow e4m3 products, compared with their twins in cases that the trials do not reach."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.ops.table import Quantized, Settings, Unscaled
from fluxperf.engine.phases import table
from fluxperf.errors import ArgumentError
from tests.ops.checking import on_host
from tests.ops.e4m3 import BOUNDARIES, joined_by_hand, ops_of, rows_of_every_size, up

#: Share of values that may round to a neighbour: sums and exponentials differ in their last bits.
NEIGHBOURS = 0.002


def _bytes(device: Any, array: Any) -> Any:
    return device.door.to_host(array, "result").view(np.uint8)


def _draw(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def _steps(numbers: Any) -> Any:
    """Signed number of e4m3 values between each value and zero: neighbours differ by 1."""
    return np.where(numbers < 128, 1, -1) * (numbers & 127).astype(int)


def _alike(gpu: CudaDevice, result: Quantized, twin: Quantized, host: HostDevice) -> None:
    """The scales are equal, and the values too, except for a few that differ by one e4m3 step."""
    ours, theirs = (_steps(_bytes(*place)) for place in ((gpu, result.data), (host, twin.data)))
    assert np.array_equal(on_host(gpu, result.scale), on_host(host, twin.scale))
    apart = np.abs(ours - theirs)
    assert apart.max() <= 1
    assert (apart != 0).mean() <= NEIGHBOURS


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("width", [128, 127])
def test_rows_have_the_bits_of_the_twin(gpu: CudaDevice, dtype: Any, width: int) -> None:
    rows = rows_of_every_size()[:, :width]
    edges = np.zeros((len(BOUNDARIES), width))
    edges[:, 3] = [largest for largest, _ in BOUNDARIES]
    host, numbers = HostDevice(), np.concatenate([rows, edges, np.zeros((1, width))])
    result, twin = (ops_of(device).quantize_rows(up(device, numbers, dtype)) for device in (gpu, host))
    assert np.array_equal(_bytes(gpu, result.data), _bytes(host, twin.data))
    assert np.array_equal(on_host(gpu, result.scale), on_host(host, twin.scale))
    if dtype is np.float32:
        assert on_host(gpu, result.scale)[-len(BOUNDARIES) - 1 : -1, 0].tolist() == [scale for _, scale in BOUNDARIES]


@pytest.mark.parametrize("widths", [(64, 192), (60, 20)])
def test_halves_are_brought_to_one_scale(gpu: CudaDevice, widths: tuple[int, int]) -> None:
    """Scales of the first half below, at and above those of the second; rows that fit and rows that do not."""
    from fluxperf.engine.ops.cuda.fp8 import at_one_scale, room_for

    left, right = widths
    first = (_draw(1, 2, 30, left) * 60).astype(ml_dtypes.float8_e4m3fn)
    second = (_draw(2, 2, 30, right) * 60).astype(ml_dtypes.float8_e4m3fn)
    scales = 2.0 ** np.random.default_rng(3).integers(-12, 12, (2, 30, 1)).astype(np.float32)
    behind = 2.0 ** np.random.default_rng(4).integers(-12, 4, (2, 30, 1)).astype(np.float32)
    first[:, ::5] = 0  # zeros fit every scale
    numbers, scale = joined_by_hand(Quantized(first, scales), Quantized(second, behind))
    assert (scale != behind).any()
    assert (scale == behind).any()
    for apart in (False, True):  # halves of one buffer, and two arrays that are copied into one
        halves = gpu.empty((2, 30, left), "uint8"), gpu.empty((2, 30, right), "uint8")
        if not apart:
            halves = ops_of(gpu).joined_halves(2, 30, left, right, "bfloat16")
        for half, data in zip(halves, (first, second), strict=True):
            half[...] = up(gpu, data.view(np.uint8), np.uint8)
        powers = up(gpu, behind, np.float32)
        operands = Quantized(halves[0], up(gpu, scales, np.float32)), Quantized(halves[1], powers)
        joined, launches = ops_of(gpu).join_features(*operands), gpu.launches
        before = on_host(gpu, joined)
        assert np.array_equal(before, np.concatenate([first * scales, second * behind], axis=-1, dtype=np.float64))
        beside = room_for(gpu, joined)
        for _ in range(2):  # into another buffer, any number of times
            result = at_one_scale(gpu, joined, beside)
            assert np.array_equal(on_host(gpu, result.scale), scale)
            assert np.array_equal(on_host(gpu, result), numbers * scale)
        assert np.array_equal(on_host(gpu, joined), before)
        result = at_one_scale(gpu, joined)
        assert gpu.launches == launches + (7 if apart else 5)
        assert not apart or np.array_equal(on_host(gpu, powers), behind), "what was copied is not written to"
        assert np.array_equal(on_host(gpu, result.scale), scale)
        assert np.array_equal(on_host(gpu, result), numbers * scale)


@pytest.mark.parametrize("width", [48, 1024, 3072, 4096, 6144, 100])
def test_norms_of_every_version(gpu: CudaDevice, width: int) -> None:
    host = HostDevice()
    numbers = _draw(1, 2, 67, width) * 3 + 0.5, _draw(2, 2, width), _draw(3, 2, width)
    results = [ops_of(device).norm_modulate(*(up(device, x) for x in numbers)) for device in (gpu, host)]
    _alike(gpu, *results, host)


@pytest.mark.parametrize("width", [48, 2048, 12288, 14336, 100])
def test_gelu_of_every_version(gpu: CudaDevice, width: int) -> None:
    from fluxperf.engine.ops.cuda.fp8 import quantized_gelu
    from fluxperf.engine.ops.host.fp8 import _quantized

    host, power = HostDevice(), np.random.default_rng(4)
    product = (_draw(1, 2, 67, width) * 300).astype(ml_dtypes.bfloat16)
    rows, columns = (2.0 ** power.integers(-5, -2, shape).astype(np.float32) for shape in ((2, 67, 1), (width,)))
    bias = _draw(2, width).astype(ml_dtypes.bfloat16)
    arguments = up(gpu, product), up(gpu, rows, np.float32), up(gpu, columns, np.float32)
    results = [quantized_gelu(gpu, Unscaled(*arguments), up(gpu, bias))]
    _, half = ops_of(gpu).joined_halves(2, 67, 64, width, "bfloat16")
    results.append(quantized_gelu(gpu, Unscaled(*arguments), up(gpu, bias), half))
    assert results[1].data is half
    wide = product.astype(np.float32) * rows * columns + bias.astype(np.float32)
    inner = np.float32(0.7978845608028654) * (wide + np.float32(0.044715) * wide**3)
    twin = _quantized(np.float32(0.5) * wide * (1 + np.tanh(inner)))
    for result in results:
        _alike(gpu, result, Quantized(*(host.door.to_device(part, "twin") for part in twin[:2])), host)


def test_numbers_that_are_none_have_the_bits_of_the_twin(gpu: CudaDevice) -> None:
    host, numbers = HostDevice(), _draw(1, 5, 64)
    numbers[0, 3], numbers[1, 4], numbers[2, :2], numbers[3] = np.inf, -np.inf, (np.nan, 7.0), np.nan
    result, twin = (ops_of(device).quantize_rows(up(device, numbers, np.float32)) for device in (gpu, host))
    assert np.array_equal(on_host(gpu, result.scale), on_host(host, twin.scale))
    ours, theirs = _bytes(gpu, result.data), _bytes(host, twin.data)
    assert np.array_equal(np.isnan(numbers), (ours & 127) == 127)
    assert np.array_equal(np.isnan(numbers), (theirs & 127) == 127)
    assert np.array_equal(ours[~np.isnan(numbers)], theirs[~np.isnan(numbers)])


def test_halves_must_have_the_same_rows(gpu: CudaDevice) -> None:
    ops = ops_of(gpu)
    left, right = (ops.quantize_rows(up(gpu, _draw(1, 2, tokens, 32))) for tokens in (5, 6))
    with pytest.raises(ArgumentError, match="expected halves with the same rows"):
        ops.join_features(left, right)


def test_attention_takes_keys_and_values_of_one_shape_and_writes_to_that_of_queries(gpu: CudaDevice) -> None:
    q, k = (up(gpu, _draw(1, 1, 2, tokens, 32)) for tokens in (16, 17))
    for ops in (ops_of(gpu), bind("a test", table("fused"), gpu, Settings("bfloat16")).ops["single"]):
        with pytest.raises(ArgumentError, match=r"expected q \[B, H, N, d\], and k and v of one shape \[B, H, L, d\]"):
            ops.attention(q, k, q)
        with pytest.raises(ArgumentError, match=r"expected out \[B, N, H d\] = \[1, 16, 64\]"):
            ops.attention(q, q, q, out=gpu.empty((1, 16, 65), "uint8")[..., :64][:, :15])


def test_a_product_takes_as_many_features_as_its_weight(gpu: CudaDevice) -> None:
    x, weight = up(gpu, _draw(1, 1, 8, 32)), up(gpu, _draw(2, 64, 48))
    narrow, wide = ops_of(gpu), bind("a test", table("fused"), gpu, Settings("bfloat16")).ops["single"]
    for ops, placed in ((narrow, narrow.quantize_rows(weight)), (wide, weight)):
        with pytest.raises(ArgumentError, match=r"expected x \[\.\., 48\]"):
            ops.linear(x, placed)


@pytest.mark.parametrize("width", [48, 3072, 100])
def test_residuals_of_every_version(gpu: CudaDevice, width: int) -> None:
    from fluxperf.engine.ops.cuda.fp8 import scaled_gated_residual

    x, gate, product, bias = (_draw(seed, *shape) for seed, shape in enumerate(
        ((2, 67, width), (2, width), (2, 67, width), (width,))
    ))  # fmt: skip
    rows, columns = 2.0 ** (np.arange(134).reshape(2, 67, 1) % 7 - 3.0), 2.0 ** (np.arange(width) % 5 - 2.0)
    arguments = up(gpu, product * 100), up(gpu, rows, np.float32), up(gpu, columns, np.float32)
    result = scaled_gated_residual(gpu, up(gpu, x), up(gpu, gate), Unscaled(*arguments), up(gpu, bias))
    wide = [value.astype(ml_dtypes.bfloat16).astype(np.float64) for value in (x, gate, product * 100, bias)]
    expected = wide[0] + wide[1][:, None] * (wide[2] * rows * columns + wide[3])
    error = np.linalg.norm(on_host(gpu, result) - expected) / np.linalg.norm(expected)
    assert error <= 0.75 * 2**-8
