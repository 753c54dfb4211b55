"""Rows whose halves have scales of their own: what is joined stays as it is, and products multiply by both scales.

On a GPU a product that takes one scale per row rewrites a half in place. The tests here run the launchers of CUDA on a
stand-in whose kernels are NumPy functions on the same addresses, so that what a trial leaves behind is seen.
"""

from __future__ import annotations

import ctypes
from functools import partial
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxperf.engine.device.choices import Ways
from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.device.tensormaps import Matrix
from fluxperf.engine.ops.cuda import fp8, products
from fluxperf.engine.ops.table import Halves, Quantized, Unscaled
from fluxperf.errors import ArgumentError
from tests.ops.checking import on_host
from tests.ops.e4m3 import ops_of, up
from tests.ops.test_launches import Block, Empty, StandIn
from tests.pure.test_ways import ticking

E4M3 = ml_dtypes.float8_e4m3fn
TOKENS, LEFT, RIGHT, OUTPUTS = 5, 128, 64, 384


def drawn(seed: int, *shape: int) -> Any:
    return (np.random.default_rng(seed).uniform(-1, 1, shape) * 448).astype(E4M3)


def powers(seed: int, low: int, high: int, *shape: int) -> Any:
    return np.float32(2) ** np.random.default_rng(seed).integers(low, high, shape).astype(np.float32)


def value(x: Any) -> Any:
    return x.data.view(E4M3).astype(np.float64) * x.scale.astype(np.float64)


# --- host


def placed(device: HostDevice, half: Quantized) -> Quantized:
    return Quantized(*(device.door.to_device(part, "half") for part in half[:2]))


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(left=st.integers(-126, 100), right=st.integers(-126, 100), seed=st.integers(0, 2**32 - 1))
def test_a_product_multiplies_each_half_by_its_scale(left: int, right: int, seed: int) -> None:
    """For every ratio of the scales; numbers keep the bits that one scale for both would cost them."""
    device, draw = HostDevice(), np.random.default_rng(seed)
    halves = [
        Quantized(drawn(seed + side, 1, TOKENS, width), np.full((1, TOKENS, 1), 2.0**exponent, np.float32))
        for side, (exponent, width) in enumerate(((left, LEFT), (right, RIGHT)))
    ]
    ops = ops_of(device)
    joined = ops.join_features(*(placed(device, half) for half in halves))
    assert joined.shape == (1, TOKENS, LEFT + RIGHT)
    for half, found in zip(halves, joined, strict=True):
        assert np.array_equal(device.door.to_host(found.data, "half"), half.data)
    weight = ops.quantize_rows(up(device, draw.standard_normal((OUTPUTS, LEFT + RIGHT)) / 16))
    zeros, ones = (up(device, np.full((1, OUTPUTS), number)) for number in (0, 1))
    result = ops.linear_gated_residual(
        up(device, np.zeros((1, TOKENS, OUTPUTS))), ones, joined, weight, zeros.reshape(OUTPUTS)
    )
    wanted = np.concatenate([value(half) for half in halves], axis=-1) @ on_host(device, weight).T
    apart = np.linalg.norm(on_host(device, result) - wanted, axis=-1)
    assert (apart <= 2**-8 * np.linalg.norm(wanted, axis=-1)).all()


def test_a_first_half_of_zeros_at_any_scale_is_zero(device: HostDevice) -> None:
    ops = ops_of(device)
    for exponent in (-126, 0, 60):
        zeros = Quantized(np.zeros((1, TOKENS, LEFT), E4M3), np.full((1, TOKENS, 1), 2.0**exponent, np.float32))
        second = Quantized(drawn(1, 1, TOKENS, RIGHT), np.ones((1, TOKENS, 1), np.float32))
        weight = ops.quantize_rows(up(device, np.random.default_rng(2).standard_normal((OUTPUTS, LEFT + RIGHT))))
        product = ops.linear_gated_residual(
            up(device, np.zeros((1, TOKENS, OUTPUTS))), up(device, np.ones((1, OUTPUTS))),
            ops.join_features(placed(device, zeros), placed(device, second)), weight, up(device, np.zeros(OUTPUTS)),
        )  # fmt: skip
        wanted = value(second) @ on_host(device, weight)[:, LEFT:].T
        assert np.linalg.norm(on_host(device, product) - wanted) <= 2**-8 * np.linalg.norm(wanted)


def test_halves_must_have_the_same_rows(device: HostDevice) -> None:
    left, right = (Quantized(drawn(1, 1, rows, 32), powers(2, 0, 1, 1, rows, 1)) for rows in (5, 6))
    with pytest.raises(ArgumentError, match="expected halves with the same rows"):
        ops_of(device).join_features(placed(device, left), placed(device, right))


def test_tokens_of_halves_are_split_with_their_scales(device: HostDevice) -> None:
    ops = ops_of(device)
    halves = [Quantized(drawn(side, 2, TOKENS, 16), powers(side, -9, 9, 2, TOKENS, 1)) for side in (1, 2)]
    joined = ops.join_features(*(placed(device, half) for half in halves))
    first, rest = ops.split_tokens(joined, 2)
    assert isinstance(first, Halves)
    whole = np.concatenate([value(half) for half in halves], axis=-1)
    for part, wanted in ((first, whole[:, :2]), (rest, whole[:, 2:])):
        assert np.array_equal(on_host(device, part), wanted)


# --- launchers of CUDA


def at(address: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any) -> Any:
    """The array of that dtype at an address; strides in bytes."""
    item = np.dtype(dtype).itemsize
    extent = item + sum((count - 1) * stride for count, stride in zip(shape, strides, strict=True))
    held = np.frombuffer((ctypes.c_uint8 * extent).from_address(address), np.uint8)
    return np.ndarray(shape, dtype, held.data, strides=strides)


def join(device: Any, entry: str, grid: Any, threads: int, *values: int) -> None:
    """join_features_fp8.cu, for one sample."""
    half, whole, ahead, behind, _, ht, _, wt, _, at_first, tokens, left, right = values
    word = int(entry.rpartition("_b")[2])
    left, right = left * word, right * word
    rows, source = at(whole, (tokens, left + right), (wt, 1), E4M3), at(half, (tokens, left), (ht, 1), E4M3)
    first = at(ahead, (tokens, 1), (4 * at_first, 4), np.float32)
    second = at(behind, (tokens, 1), (4, 4), np.float32)
    wide = source.astype(np.float32) * first
    scale = second.copy()
    while (over := np.abs(wide).max(-1, keepdims=True) > 448 * scale).any():
        scale[over] *= 2
    rows[:, :left], rows[:, left:] = wide / scale, rows[:, left:].astype(np.float32) * (second / scale)
    second[...] = scale
    device.ran.append("join")


def two_scales(device: Any, tile: Any, x: Matrix, w: Matrix, residual: Matrix, out: Matrix, *rest: Any) -> None:
    """product_fp8.cu, halves."""
    (rows, columns, gate, bias), stride, (ahead, ahead_stride, turn) = rest
    bf16, f32 = ml_dtypes.bfloat16, np.float32

    def matrix(of: Matrix, dtype: Any) -> Any:
        return at(of.address, of.extents[::-1], (*of.strides, of.itemsize), dtype)

    source, weight = (matrix(of, E4M3).astype(np.float64) for of in (x, w))
    (tokens, _), outputs = source.shape, len(weight)
    second, first = at(rows, (tokens, 1), (4 * stride, 4), f32), at(ahead, (tokens, 1), (4 * ahead_stride, 4), f32)
    sums = source[:, :turn] @ weight[:, :turn].T * first + source[:, turn:] @ weight[:, turn:].T * second
    by, plus = (at(place, (outputs,), (2,), bf16).astype(np.float64) for place in (gate, bias))
    done = matrix(residual, bf16).astype(np.float64) + by * (sums * at(columns, (outputs,), (4,), f32) + plus)
    matrix(out, bf16)[...] = done
    device.ran.append(tile.name)


class Hopper(StandIn):
    """Launchers run on it, with real trials; ``seconds`` are the times of a product by way."""

    def __init__(self, folder: Path, seconds: dict[str, float]) -> None:
        super().__init__()
        self.clock, self.seconds, self.ran = ticking(folder), seconds, []
        self.choices_kept, self.aside, self.trial = self.clock.choices_kept, self.clock.aside, self.clock.trial
        self.ways = Ways(self)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """No number of e4m3, so that reading what was not written shows."""
        held = super().empty(shape, dtype)
        held.view(np.uint8)[...] = 0x7F
        return held

    def quiet(self) -> None:
        """Nothing else runs."""

    def occupy(self) -> None:
        """Launches take no time."""

    def mark(self) -> float:
        return self.clock.now

    def elapsed_s(self, start: float, end: float) -> float:
        return end - start

    def placed(self, array: Any) -> Any:
        held = self.empty(array.shape, "uint8" if array.dtype == E4M3 else str(array.dtype))
        held[...] = array.view(np.uint8) if array.dtype == E4M3 else array
        return held


def spent(on: Hopper, way: str, run: Any) -> Any:
    on.clock.now += on.seconds[way]
    return run()


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the kernels that the op launches."""

    def linear(device: Any, x: Any, weight: Any, bias: Any = None) -> Unscaled:
        x = fp8._operand(device, x)
        sums = x.data.view(E4M3).astype(np.float64) @ weight.data.view(E4M3).astype(np.float64).T
        return Unscaled(sums, x.scale, weight.scale.reshape(-1))

    def residual(device: Any, x: Any, gate: Any, product: Any, bias: Any) -> Any:
        wide = product.data * product.rows * product.columns + bias.astype(np.float64)
        device.clock.now += device.seconds["library"]
        return x.astype(np.float64) + gate.astype(np.float64)[:, None] * wide

    def own(device: Any, tile: Any, *rest: Any) -> None:
        spent(device, tile.name, partial(two_scales, device, tile, *rest))

    # CuPy's views have their memory's owner as base; those of NumPy have the array that was viewed.
    def owner(first: Any, second: Any, axis: int) -> Any:
        inside = second.ctypes.data == first.ctypes.data + first.shape[-1]
        return np.ndarray.__new__(Block, WHOLE, np.uint8, first.base, strides=first.strides) if inside else None

    monkeypatch.setattr(fp8, "start", join)
    monkeypatch.setattr(fp8, "linear", linear)
    monkeypatch.setattr(fp8, "scaled_gated_residual", residual)
    monkeypatch.setattr(fp8, "joined", owner)
    monkeypatch.setattr(products, "scaled_gated", own)


WHOLE = (1, TOKENS, LEFT + RIGHT)


@pytest.mark.parametrize("order", list(permutations(("library", "192x192", "128x256"))), ids="-".join)
@pytest.mark.usefixtures("kernels")
def test_a_trial_of_every_order_leaves_the_right_numbers(order: tuple[str, ...], tmp_path: Path) -> None:
    """Whichever way is the quickest: the first call, with its trial, and the next one, on new halves."""
    on = Hopper(tmp_path, {way: 1.0 + place / 2 for place, way in enumerate(order)})
    weight = Quantized(on.placed(drawn(3, 768, WHOLE[-1])), on.placed(powers(4, -9, -4, 768, 1)))
    x, gate, bias = (
        on.placed(np.random.default_rng(seed).standard_normal(shape).astype(ml_dtypes.bfloat16))
        for seed, shape in ((5, (1, TOKENS, 768)), (6, (1, 768)), (7, (768,)))
    )
    wide = [part.astype(np.float64) for part in (x, gate, bias)]
    for call in range(3):
        whole = on.placed(drawn(10 + call, *WHOLE))
        first = np.broadcast_to(powers(20 + call, 1, 3, 1), (1, TOKENS, 1))  # as attention's: one scale for all rows
        halves = Halves(
            Quantized(whole[..., :LEFT], on.placed(first)),
            Quantized(whole[..., LEFT:], on.placed(powers(30 + call, -3, 6, 1, TOKENS, 1))),
        )
        values = np.concatenate([value(half) for half in halves], axis=-1)
        wanted = wide[0] + wide[1][:, None] * (values @ value(weight).T + wide[2])
        on.ran.clear()
        result = fp8.linear_gated_residual(on, x, gate, halves, weight, bias)
        apart = np.linalg.norm(result.astype(np.float64) - wanted) / np.linalg.norm(wanted)
        assert apart <= (0.03 if order[0] == "library" else 2**-8), call
        expected = ["join"] if order[0] == "library" else [order[0]]
        assert on.ran[-1:] == expected if call == 0 else on.ran == expected


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("kind", ["older", "odd", "apart"])
def test_what_has_no_product_of_two_scales_gets_one_scale(kind: str, tmp_path: Path) -> None:
    """Another architecture, a first half that is no whole number of steps, and halves of different buffers."""
    on, left = Hopper(tmp_path, {"library": 1.0}), 112 if kind == "odd" else LEFT
    on.capability = (8, 9) if kind == "older" else (9, 0)
    weight = Quantized(on.placed(drawn(3, 768, WHOLE[-1])), on.placed(powers(4, -9, -4, 768, 1)))
    x, gate, bias = (on.placed(np.ones(shape, ml_dtypes.bfloat16)) for shape in ((1, TOKENS, 768), (1, 768), (768,)))
    whole = on.placed(drawn(10, *WHOLE))
    halves = Halves(
        Quantized(
            whole[..., :left].copy() if kind == "apart" else whole[..., :left], on.placed(powers(1, 0, 3, 1, TOKENS, 1))
        ),
        Quantized(whole[..., left:], on.placed(powers(2, -3, 6, 1, TOKENS, 1))),
    )
    values = np.concatenate([value(half) for half in halves], axis=-1)
    wanted = 2 + values @ value(weight).T
    result = fp8.linear_gated_residual(on, x, gate, halves, weight, bias)
    assert np.linalg.norm(result - wanted) <= 0.03 * np.linalg.norm(wanted)
    assert on.ran == ["join"]
    assert on.ways.chosen == {}


@pytest.mark.usefixtures("kernels")
def test_into_another_buffer_the_halves_stay_and_again_gives_the_same(tmp_path: Path) -> None:
    on = Hopper(tmp_path, {})
    whole = on.placed(drawn(10, *WHOLE))
    halves = Halves(
        Quantized(whole[..., :LEFT], on.placed(powers(1, 0, 9, 1, TOKENS, 1))),
        Quantized(whole[..., LEFT:], on.placed(powers(2, -9, 6, 1, TOKENS, 1))),
    )
    before, scale = whole.copy(), halves.second.scale.copy()
    beside = fp8.room_for(on, halves)
    first = [part.copy() for part in fp8.at_one_scale(on, halves, beside)[:2]]
    again = fp8.at_one_scale(on, halves, beside)
    assert all(map(np.array_equal, first, again[:2]))
    assert on.launches == 2, "copies of the second half and its scales, once"
    joined = np.concatenate([value(half) for half in halves], axis=-1)
    lost = np.abs(value(Quantized(*first)) - joined)
    assert (lost <= 2**-10 * first[1]).all(), "half a step of the smallest numbers of e4m3"
    assert (first[1] != scale).any(), "some row takes a larger scale"
    assert np.array_equal(whole, before)
    assert np.array_equal(halves.second.scale, scale)


@pytest.mark.usefixtures("kernels")
def test_halves_of_one_buffer_are_brought_to_one_scale_without_a_copy(tmp_path: Path) -> None:
    """A step may have 38 of them: a copy of each would be two launches more."""
    on = Hopper(tmp_path, {})
    whole, scale = on.placed(drawn(10, *WHOLE)), on.placed(powers(2, -9, 6, 1, TOKENS, 1))
    halves = Halves(
        Quantized(whole[..., :LEFT], on.placed(powers(1, 0, 9, 1, TOKENS, 1))), Quantized(whole[..., LEFT:], scale)
    )
    rows: Any = fp8.at_one_scale(on, halves)
    assert (rows.data.data.ptr, rows.scale.data.ptr) == (whole.data.ptr, scale.data.ptr)
    assert (on.launches, on.ran) == (0, ["join"])


@pytest.mark.usefixtures("kernels")
def test_a_trial_of_halves_times_the_librarys_work_and_no_copies(tmp_path: Path, monkeypatch: Any) -> None:
    """With a new buffer in every turn the library would seem slower than it is, and lose where it is the quickest."""
    on, room = Hopper(tmp_path, {"library": 1.0, "192x192": 1.5, "128x256": 2.0}), fp8.room_for
    made: list[Quantized] = []

    def making(*args: Any) -> Quantized:
        made.append(room(*args))
        return made[-1]

    monkeypatch.setattr(fp8, "room_for", making)
    weight = Quantized(on.placed(drawn(3, 768, WHOLE[-1])), on.placed(powers(4, -9, -4, 768, 1)))
    x, gate, bias = (on.placed(np.ones(shape, ml_dtypes.bfloat16)) for shape in ((1, TOKENS, 768), (1, 768), (768,)))
    whole = on.placed(drawn(10, *WHOLE))
    halves = Halves(
        Quantized(whole[..., :LEFT], on.placed(powers(1, 0, 3, 1, TOKENS, 1))),
        Quantized(whole[..., LEFT:], on.placed(powers(2, -3, 6, 1, TOKENS, 1))),
    )
    fp8.linear_gated_residual(on, x, gate, halves, weight, bias)
    assert on.ran.count("join") > 3
    assert len(made) == 1


@pytest.mark.parametrize("skipped", [0, 1])
def test_a_half_at_an_odd_address_is_joined_byte_by_byte(skipped: int, tmp_path: Path, monkeypatch: Any) -> None:
    """Words of 16 bytes from there would end the process with a misaligned address."""
    on, entries = Hopper(tmp_path, {}), []
    monkeypatch.setattr(fp8, "start", lambda device, entry, *_: entries.append(entry))
    monkeypatch.setattr(fp8, "joined", lambda *_: None)
    first, second, room = (
        Empty(on, "float8_e4m3fn", behind, False)(1, TOKENS, width)
        for behind, width in ((skipped, LEFT), (0, RIGHT), (0, WHOLE[-1]))
    )
    scales = [on.placed(powers(side, 0, 9, 1, TOKENS, 1)) for side in (1, 2)]
    fp8.at_one_scale(on, Halves(*map(Quantized, (first, second), scales)), Quantized(room, scales[1]))
    assert entries == ["join_features_fp8_b1" if skipped else "join_features_fp8_b16"]


def test_what_lies_side_by_side_is_one_matrix() -> None:
    whole = SimpleNamespace(rows=np.zeros((9, 640), np.uint8).view(Block))
    start = -whole.rows.ctypes.data % 16
    rows = whole.rows[:, start : start + 512]

    def found(first: Any, second: Any) -> Any:
        matrix = products.side_by_side(first, second)
        return matrix and (matrix.address - rows.ctypes.data, matrix.extents, matrix.strides)

    assert found(rows[:, :128], rows[:, 128:512]) == (0, (512, 9), (640,))
    assert found(rows[:1, :128], rows[:1, 128:512]) == (0, (512, 1), (512,))
    assert found(rows[2:, :256], rows[2:, 256:272]) == (1280, (272, 7), (640,))
    assert found(rows[:, :112], rows[:, 112:512]) is None, "no whole steps of K"
    assert found(rows[:, :64], rows[:, 64:512]) is None, "half a step of K"
    assert found(rows[:, :128], rows[:5, 128:512]) is None, "fewer rows"
    assert found(rows[:, :128], rows[:, 144:512]) is None, "a gap"
    assert found(rows[:, :128], rows[1:, 128:512]) is None, "other rows"
    assert found(rows[:, 128:256], rows[:, :128]) is None, "exchanged"
    assert found(rows[:, :128], rows[:, 128:512].copy()) is None, "another buffer"
