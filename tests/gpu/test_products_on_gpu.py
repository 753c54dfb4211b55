"""This project's matrix products against float64: every tile, edges of all sizes, results inside larger buffers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from types import SimpleNamespace
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

from fluxperf.engine.device import choices
from fluxperf.engine.device.choices import Choice
from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.ops import reference
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.ops.cuda.tiles import CAPABILITY, TILES
from fluxperf.engine.ops.table import Deferred, Halves, Ops, Quantized, Settings
from fluxperf.engine.phases import table
from fluxperf.record_rows import algorithms
from tests.ops.checking import on_host
from tests.ops.e4m3 import errors_of_means, least, up

#: Rows and features: fewer than a tile and a step of K; a tile and one row; several tiles, odd sizes.
SIZES = [(1, 64), (7, 32), (193, 256), (300, 208), (700, 1056)]

#: Bounds of relative errors: one rounding to bfloat16 and float32 sums; e4m3 sums; one rounding to e4m3.
BFLOAT16, SUMS, E4M3 = 2.5e-3, 6e-3, 4e-2

Force = Callable[[str], list[str]]


@pytest.fixture
def hopper(gpu: CudaDevice) -> CudaDevice:
    if gpu.capability != CAPABILITY:
        pytest.skip("needs a GPU of compute capability 9.0")
    return gpu


@pytest.fixture
def force(hopper: CudaDevice, monkeypatch: pytest.MonkeyPatch) -> Force:
    """Forces every op to use the named implementation; records which ops did."""

    def forced(name: str) -> list[str]:
        noted: list[str] = []

        def run(what: str, ways: dict[str, Callable[[], Any]], version: str, *_: Any) -> Any:
            noted.append(what)
            return ways[name]()

        monkeypatch.setattr(hopper.ways, "run", run)
        return noted

    return forced


def ops_of(device: CudaDevice, rung: str) -> Ops:
    return bind(rung, table(rung), device, Settings("bfloat16")).ops["single"]


def drawn(seed: int, *shape: int, std: float = 1.0) -> Any:
    return (np.random.default_rng(seed).standard_normal(shape) * std).astype(ml_dtypes.bfloat16).astype(np.float64)


def down(device: CudaDevice, x: Any) -> Any:
    if isinstance(x, Quantized):
        numbers = device.door.to_host(x.data, "numbers").view(ml_dtypes.float8_e4m3fn).astype(np.float64)
        return numbers * on_host(device, x.scale).astype(np.float64)
    return on_host(device, x).astype(np.float64)


def apart(result: Any, wanted: Any) -> float:
    return float(np.linalg.norm(result - wanted) / np.linalg.norm(wanted))


def tiles(file: str) -> list[Any]:
    return [pytest.param(tile, id=tile.name) for tile in TILES[file]]


@pytest.mark.parametrize(("tokens", "features"), SIZES)
@pytest.mark.parametrize("tile", tiles("product"))
def test_a_gated_residual(hopper: CudaDevice, force: Force, tile: Any, tokens: int, features: int) -> None:
    """Of two samples with gates of their own; x and y are parts of larger arrays."""
    noted, outputs = force(f"tiles of {tile.name}"), 2 * tile.columns
    x, y = drawn(1, 2, tokens + 3, outputs), drawn(2, 2, tokens, features + 8)
    gate, weight, bias = drawn(3, 2, outputs), drawn(4, outputs, features, std=features**-0.5), drawn(5, outputs)
    whole, joined = up(hopper, x, ml_dtypes.bfloat16), up(hopper, y, ml_dtypes.bfloat16)
    rest = [up(hopper, part, ml_dtypes.bfloat16) for part in (gate, weight, bias)]
    run = ops_of(hopper, "captured").linear_gated_residual
    results = [run(whole[:, 3:], rest[0], joined[..., :features], *rest[1:]) for _ in range(2)]
    first, again = (down(hopper, result) for result in results)
    wanted = reference.linear_gated_residual(x[:, 3:], gate, y[..., :features], weight, bias)
    assert apart(first, wanted) <= BFLOAT16
    assert np.array_equal(first, again)
    assert noted[0] == f"linear_gated_residual {tokens} x {outputs} x {features} bfloat16 x 2 samples"


@pytest.mark.parametrize(("tokens", "features"), SIZES)
@pytest.mark.parametrize("tile", tiles("product"))
def test_gelu_into_half_of_a_buffer(hopper: CudaDevice, force: Force, tile: Any, tokens: int, features: int) -> None:
    """Nothing outside of the half and after its last row is written."""
    noted, outputs = force(f"tiles of {tile.name}"), 2 * tile.columns
    x, weight, bias = drawn(1, 1, tokens, features), drawn(2, outputs, features, std=features**-0.5), drawn(3, outputs)
    buffer = up(hopper, np.full((1, tokens + 9, outputs + 64), 7.0), ml_dtypes.bfloat16)
    operands = [up(hopper, part, ml_dtypes.bfloat16) for part in (x, weight, bias)]
    ops_of(hopper, "captured").linear_gelu(*operands, out=buffer[:, :tokens, 64:])
    found = down(hopper, buffer)
    assert apart(found[:, :tokens, 64:], reference.linear_gelu(x, weight, bias)) <= BFLOAT16
    assert (found[:, tokens:] == 7).all()
    assert (found[:, :, :64] == 7).all()
    assert len(noted) == 1


class Left(NamedTuple):
    """Products that were left to `qkv_heads`: a call of the op, its results in float64, and in e4m3 V's bound."""

    run: Callable[[], Any]
    wanted: tuple[Any, ...]
    bound: float


def left(device: CudaDevice, rung: str, lengths: tuple[int, ...], size: float = 1.0) -> Left:
    """Streams of any length, each with weights of its own, in token order; values of V have that size."""
    heads, features = 4, 160
    width, total = 3 * heads * 128, sum(lengths)
    xs = [drawn(1 + index, 1, tokens, features) for index, tokens in enumerate(lengths)]
    weights = [drawn(5 + index, width, features, std=features**-0.5) for index in range(len(lengths))]
    biases = [drawn(9 + index, width, std=0.3) for index in range(len(lengths))]
    for weight, bias in zip(weights, biases, strict=True):
        weight[2 * width // 3 :] *= size
        bias[2 * width // 3 :] *= size
        weight[-7] = 0  # raises no bound
    norms = [[drawn(13 + 2 * index + part, 128, std=0.2) + 1 for index in range(len(lengths))] for part in range(2)]
    norms = [[norm.astype(ml_dtypes.bfloat16).astype(np.float64) for norm in both] for both in norms]
    angles = np.repeat(np.random.default_rng(20).uniform(-3, 3, (total, 64)), 2, axis=1)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    ops, bound = ops_of(device, rung), 0.0
    operands = [[up(device, part, ml_dtypes.bfloat16) for part in parts] for parts in (xs, weights, biases, *norms)]
    if rung == "fp8":
        operands[:2] = [[ops.quantize_rows(part) for part in parts] for parts in operands[:2]]
        xs, weights = ([down(device, part) for part in parts] for parts in operands[:2])
        reaches = [1.0645 * np.linalg.norm(x, axis=-1, keepdims=True) for x in xs]
        operands[0] = [
            x._replace(lengths=up(device, reach, np.float32)) for x, reach in zip(operands[0], reaches, strict=True)
        ]
        columns = [448 * features**0.5 * on_host(device, weight.scale)[:, 0] for weight in operands[1]]
        values = slice(2 * width // 3, None)
        bound = max(
            (reach.max() * column + np.abs(bias))[values].max()
            for reach, column, bias in zip(reaches, columns, biases, strict=True)
        )
    qkvs = tuple(ops.linear(*pair) for pair in zip(*operands[:2], strict=True))
    assert all(isinstance(qkv, Deferred) for qkv in qkvs)
    tables = tuple(up(device, table_, np.float32) for table_ in (cos, sin))
    products = tuple(x @ weight.T for x, weight in zip(xs, weights, strict=True))
    wanted = reference.qkv_heads(products, tuple(biases), *map(tuple, norms), cos, sin, heads)
    return Left(lambda: ops.qkv_heads(qkvs, *map(tuple, operands[2:]), *tables, heads), wanted, float(bound))


@pytest.mark.parametrize("lengths", [(1,), (200,), (70, 130), (129, 1)])
@pytest.mark.parametrize("rung", ["captured", "fp8"])
def test_heads_of_products_that_were_left(
    hopper: CudaDevice, force: Force, rung: str, lengths: tuple[int, ...]
) -> None:
    noted, case = force("tiles of 128x256"), left(hopper, rung, lengths)
    launches = hopper.launches or 0
    results = case.run()
    assert (len(noted), hopper.launches) == (1, launches + 1)
    for result, right in zip(results, case.wanted, strict=True):
        assert tuple(result.shape) == right.shape
        assert apart(down(hopper, result), right) <= (E4M3 if rung == "fp8" else BFLOAT16)


@pytest.mark.parametrize("lengths", [(1,), (200,), (70, 130), (1, 129), (4096, 515)])
def test_values_have_a_scale_known_beforehand_and_their_means_that_of_the_largest(
    hopper: CudaDevice, force: Force, lengths: tuple[int, ...]
) -> None:
    force("tiles of 128x256")
    case = left(hopper, "fp8", lengths)
    q, k, v = case.run()
    means, scale = on_host(hopper, v.means), on_host(hopper, v.scale).item()
    assert scale == least(case.bound) > means[0]
    assert means[0] * means[1] == scale
    assert 0.49 * 448 < np.abs(case.wanted[2]).max() / means[0] < 1.01 * 448
    assert np.abs(down(hopper, v)).max() <= 448 * means[0], "a mean saturates"
    assert q.means is k.means is None


def test_heads_without_bounds_of_their_rows_are_the_librarys(hopper: CudaDevice, force: Force) -> None:
    noted, ops = force("tiles of 128x256"), ops_of(hopper, "fp8")
    x, weight, bias, norm = drawn(1, 1, 70, 160), drawn(2, 768, 160, std=0.1), drawn(3, 768), drawn(4, 128, std=0.2) + 1
    operands = [up(hopper, part, ml_dtypes.bfloat16) for part in (x, weight, bias, norm)]
    tables = [up(hopper, part * np.ones((70, 128)), np.float32) for part in (1, 0)]
    qkv = ops.linear(operands[0], ops.quantize_rows(operands[1]))
    *_, v = ops.qkv_heads((qkv,), (operands[2],), (operands[3],), (operands[3],), *tables, 2)
    assert (noted, v.means) == ([], None)


def test_a_launch_of_heads_leaves_nothing_to_the_next(hopper: CudaDevice, force: Force) -> None:
    """Large values and small ones by turns, on two streams at once, and in a graph that is launched again."""
    force("tiles of 128x256")
    cases = [left(hopper, "fp8", (300, 70), size) for size in (64.0, 0.5, 8.0)]

    def numbers(results: Any) -> list[Any]:
        return [hopper.door.to_host(part, "part") for x in results for part in x if part is not None]

    wanted = [numbers(case.run()) for case in cases]
    assert len({float(parts[-1][0]) for parts in wanted}) == 3
    for _ in range(8):
        for case, right in zip(cases, wanted, strict=True):
            assert all(map(np.array_equal, numbers(case.run()), right))
        for found, right in zip(hopper.beside(*(case.run for case in cases)), wanted, strict=True):
            assert all(map(np.array_equal, numbers(found), right))
    held: list[Any] = []
    arena = hopper.graphs.arena()
    with arena.opened():
        replay = hopper.graphs.capture(arena, lambda: held.extend(case.run() for case in cases))
    for _ in range(8):
        for results in held:
            for x in results:
                x.data.fill(0), x.scale.fill(0)
        replay.launch()
        for found, right in zip(held, wanted, strict=True):
            assert all(map(np.array_equal, numbers(found), right))


def test_attention_returns_means_in_a_scale_of_their_own(hopper: CudaDevice) -> None:
    """Means of many tokens are much smaller than a value: in the scale of loose values they would keep few bits."""
    errors = errors_of_means(hopper, 4096, 512.0)
    assert errors[0] <= 6e-2
    assert errors[1] <= 1.05 * errors[0]
    assert errors[2] > 2 * errors[0]


@pytest.mark.parametrize(("tokens", "features"), SIZES)
@pytest.mark.parametrize("tile", tiles("product_fp8"))
def test_a_gated_residual_of_e4m3(hopper: CudaDevice, force: Force, tile: Any, tokens: int, features: int) -> None:
    """Scales by token from 2^-6 to 2^6, and one scale for all tokens, as attention's result has."""
    noted, outputs, ops = force(f"tiles of {tile.name}"), 2 * tile.columns, ops_of(hopper, "fp8")
    sizes = 2.0 ** np.random.default_rng(0).integers(-6, 7, (1, tokens, 1))
    x, y = drawn(1, 1, tokens, outputs), drawn(2, 1, tokens, features) * sizes
    gate, weight, bias = drawn(3, 1, outputs), drawn(4, outputs, features, std=features**-0.5), drawn(5, outputs)
    operands = [up(hopper, part, ml_dtypes.bfloat16) for part in (x, gate, y, weight, bias)]
    numbers, projection = ops.quantize_rows(operands[2]), ops.quantize_rows(operands[3])
    one = Quantized(numbers.data, hopper._cp.broadcast_to(numbers.scale[:, :1], numbers.scale.shape))
    for source in (numbers, one):
        result = ops.linear_gated_residual(*operands[:2], source, projection, operands[4])
        right = reference.linear_gated_residual(x, gate, down(hopper, source), down(hopper, projection), bias)
        assert apart(down(hopper, result), right) <= SUMS
    assert len(noted) == 2


def halves_of(
    hopper: CudaDevice, seed: int, widths: tuple[int, int], scales: tuple[Any, Any], room: int = 16
) -> Halves:
    """Random numbers [B, L, D + M] in a buffer with these scales; with room behind its rows and between samples."""
    (left, right), (batch, tokens, _) = widths, scales[1].shape
    numbers = np.random.default_rng(seed).uniform(-448, 448, (batch, tokens + room, left + right + room))
    whole = up(hopper, numbers.astype(ml_dtypes.float8_e4m3fn).view(np.uint8), np.uint8)[:, room:]
    first, second = (up(hopper, scale, np.float32) for scale in scales)
    first = hopper._cp.broadcast_to(first, second.shape)
    return Halves(Quantized(whole[..., :left], first), Quantized(whole[..., left : left + right], second))


def powers(seed: int, low: int, high: int, *shape: int) -> Any:
    return 2.0 ** np.random.default_rng(seed).integers(low, high, shape)


#: First and second half: fewer steps of K than the ring has stages, as many, one more; a last step that is not full.
WIDTHS = [(128, 16), (128, 128), (256, 528), (384, 256), (512, 48), (640, 1024), (3072, 208)]


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("tokens", [1, 193, 700])
@pytest.mark.parametrize("tile", tiles("product_fp8"))
def test_a_gated_residual_of_halves(
    hopper: CudaDevice, force: Force, tile: Any, tokens: int, widths: tuple[int, int]
) -> None:
    """Of two samples; the first half has a scale for all rows, as attention's result, or one per row."""
    noted, outputs, features, ops = force(f"tiles of {tile.name}"), 2 * tile.columns, sum(widths), ops_of(hopper, "fp8")
    x, gate, bias = drawn(1, 2, tokens, outputs), drawn(2, 2, outputs), drawn(3, outputs)
    weight = drawn(4, outputs, features, std=features**-0.5)
    operands = [up(hopper, part, ml_dtypes.bfloat16) for part in (x, gate, weight, bias)]
    projection = ops.quantize_rows(operands[2])
    for seed, first in enumerate((powers(1, -9, -6, 2, 1, 1), powers(2, -14, -2, 2, tokens, 1))):
        halves = halves_of(hopper, seed, widths, (first, powers(3, -14, -2, 2, tokens, 1)))
        launches = hopper.launches
        joined = ops.join_features(*halves)
        results = [ops.linear_gated_residual(*operands[:2], joined, projection, operands[3]) for _ in range(2)]
        assert hopper.launches == (launches or 0) + 4, "one for each sample, none to join"
        found, again = (down(hopper, result) for result in results)
        wanted = reference.linear_gated_residual(x, gate, on_host(hopper, halves), down(hopper, projection), bias)
        assert apart(found, wanted) <= SUMS
        assert np.array_equal(found, again)
    assert noted[0] == f"linear_gated_residual of halves {tokens} x {outputs} x {features} float8_e4m3fn x 2 samples"


@pytest.mark.parametrize("tile", tiles("product_fp8"))
def test_halves_at_scales_far_apart(hopper: CudaDevice, force: Force, tile: Any) -> None:
    """Each row is right: with any ratio of its scales, and with a first or second half of zeros."""
    force(f"tiles of {tile.name}")
    tokens, outputs, ops = 200, 2 * tile.columns, ops_of(hopper, "fp8")
    first, second = (powers(seed, -126, 90, 1, tokens, 1) for seed in (1, 2))
    first[:, 100:], second[:, 100:] = 1.0, powers(3, -20, 21, 1, 100, 1)
    halves = halves_of(hopper, 4, (384, 256), (first, second))
    halves.first.data[:, 100:150], halves.second.data[:, 150:] = 0, 0  # type: ignore[index]
    projection = ops.quantize_rows(up(hopper, drawn(5, outputs, 640), ml_dtypes.bfloat16))
    zeros, ones = (up(hopper, np.full((1, tokens, outputs), number), ml_dtypes.bfloat16) for number in (0, 1))
    result = ops.linear_gated_residual(zeros, ones[:, 0], halves, projection, zeros[0, 0])
    wanted = on_host(hopper, halves) @ down(hopper, projection).T
    rows = np.linalg.norm(down(hopper, result) - wanted, axis=-1) / np.linalg.norm(wanted, axis=-1)
    assert np.isfinite(rows).all()
    assert rows.max() <= 2 * SUMS


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_a_trial_of_every_order_leaves_the_right_numbers(
    hopper: CudaDevice, order: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's way joins halves in place, the others read them as they are; the first of the order is taken."""
    tokens, outputs, widths, ops = 300, 768, (384, 640), ops_of(hopper, "fp8")

    def tried(device: Any, candidates: Any, rested_s: float) -> Choice:
        for index in (*order, *order):
            candidates[index]()
        return Choice(order[0], tuple(0.5 + (index != order[0]) for index in range(3)))

    monkeypatch.setattr(choices, "tried_hot", tried)
    monkeypatch.setattr(hopper, "choices_kept", SimpleNamespace(find=lambda *_: None, keep=lambda *_: None))
    monkeypatch.setattr(hopper, "ways", choices.Ways(hopper))
    x, gate, bias = drawn(1, 1, tokens, outputs), drawn(2, 1, outputs), drawn(3, outputs)
    operands = [up(hopper, part, ml_dtypes.bfloat16) for part in (x, gate, drawn(4, outputs, 1024, std=1 / 32), bias)]
    projection, results = ops.quantize_rows(operands[2]), []
    scales = powers(5, -8, -7, 1, 1, 1), powers(6, -10, -4, 1, tokens, 1)
    for _ in range(2):  # with a trial, and without
        halves = halves_of(hopper, 7, widths, scales, room=0)
        wanted = reference.linear_gated_residual(x, gate, on_host(hopper, halves), down(hopper, projection), bias)
        results.append(down(hopper, ops.linear_gated_residual(*operands[:2], halves, projection, operands[3])))
        assert apart(results[-1], wanted) <= (SUMS if order[0] else 2 * SUMS)
    assert np.array_equal(*results)


@pytest.mark.parametrize("tokens", [1, 7, 193, 700])
@pytest.mark.parametrize("tile", tiles("product_fp8"))
def test_gelu_of_e4m3_by_a_scale_known_beforehand(hopper: CudaDevice, force: Force, tile: Any, tokens: int) -> None:
    """Into half of a buffer; nothing saturates, even for rows parallel to a row of the weight."""
    noted, outputs, features, ops = force(f"tiles of {tile.name}"), 2 * tile.columns, 256, ops_of(hopper, "fp8")
    x, weight, bias = drawn(1, 1, tokens, features), drawn(2, outputs, features, std=0.1), drawn(3, outputs)
    weight[5] = 1.0
    weight[9] = 0  # raises no bound
    bias[7] = 40.0
    shift = drawn(4, 1, features) + 3  # tokens along the sixth row of the weight
    operands = [up(hopper, part, ml_dtypes.bfloat16) for part in (x, shift, np.zeros((1, features)), weight, bias)]
    normed, projection = ops.norm_modulate(*operands[:3]), ops.quantize_rows(operands[3])
    buffer = up(hopper, np.full((1, tokens + 9, outputs + 64), 99), np.uint8)
    result = ops.linear_gelu(normed, projection, operands[4], out=buffer[:, :tokens, 64:])
    assert noted == [f"linear_gelu {tokens} x {outputs} x {features} float8_e4m3fn"]
    right = reference.linear_gelu(down(hopper, normed), down(hopper, projection), bias)
    found = down(hopper, result)
    assert apart(found, right) <= E4M3
    large = right > 1
    assert (found[large] > 0.9 * right[large]).all()
    scale = on_host(hopper, result.scale)
    assert np.array_equal(scale, 2.0 ** np.round(np.log2(scale)))
    rest = hopper.door.to_host(buffer, "buffer")
    assert (rest[:, tokens:] == 99).all()
    assert (rest[:, :, :64] == 99).all()


def test_lengths_bound_the_rows_as_rounded(hopper: CudaDevice) -> None:
    for width, seed in ((3072, 1), (128, 2), (40, 3), (3000, 4)):
        x, shift, scale = drawn(seed, 2, 33, width), drawn(5, 2, width), drawn(6, 2, width)
        operands = [up(hopper, part, ml_dtypes.bfloat16) for part in (x, shift, scale)]
        normed = ops_of(hopper, "fp8").norm_modulate(*operands)
        assert normed.lengths is not None
        bounds, rows = on_host(hopper, normed.lengths)[..., 0], np.linalg.norm(down(hopper, normed), axis=-1)
        assert (bounds >= rows).all()
        assert (bounds <= 1.13 * rows).all()


def test_the_quicker_way_is_chosen_once_and_said(hopper: CudaDevice) -> None:
    """A choice by trial gives the op's result, counts the launches of one call, and is stored under
    the problem's name.
    """
    x, weight = drawn(1, 1, 192, 3072), drawn(2, 384, 3072, std=0.02)
    operands = [up(hopper, part, ml_dtypes.bfloat16) for part in (x, weight, drawn(3, 384))]
    run = ops_of(hopper, "captured").linear_gelu
    first = run(*operands)
    launches = hopper.launches
    assert np.array_equal(down(hopper, run(*operands)), down(hopper, first))
    assert hopper.launches == (launches or 0) + 1
    said = algorithms(hopper.trials()).choices["linear_gelu 192 x 384 x 3072 bfloat16"]
    assert said.startswith(("library, candidate 0 of 2", "tiles of 192x192, candidate 1 of 2"))
