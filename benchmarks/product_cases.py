"""Cases of `benchmarks.products`: operands, cuBLASLt's computation, this project's kernels, and the expected result."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.device.gpu import cupy
from fluxperf.engine.device.tensormaps import Matrix
from fluxperf.engine.ops.cuda import fp8, fused, products
from fluxperf.engine.ops.cuda.epilogues import bias_gated_residual
from fluxperf.engine.ops.cuda.projection import project
from fluxperf.engine.ops.cuda.tiles import Tile
from fluxperf.engine.ops.table import Halves, Quantized, Unscaled

#: Number of operand sets that calls alternate between. Together they exceed the L2 cache.
_SETS = 3

#: Relative errors against float32 that are allowed, by operands; and of results in e4m3.
_BOUNDS = {"bf16": 4e-3, "e4m3": 2e-2, "gelu e4m3": 4e-2, "heads e4m3": 4e-2}

Calls = dict[str, list[Callable[[], Any]]]


class Case(NamedTuple):
    """A product with its epilogue: M x N x K, the kind of epilogue, e4m3 or bfloat16 operands."""

    kind: str
    m: int
    n: int
    k: int
    numbers: str = "bf16"

    @property
    def name(self) -> str:
        """Name of the case."""
        return f"{self.kind} {self.m} x {self.n} x {self.k} {self.numbers}"

    @property
    def flops(self) -> float:
        """Operations of the product."""
        return 2.0 * self.m * self.n * self.k

    @property
    def bound(self) -> float:
        """Allowed relative error: from rounding the result, and a product in between."""
        return _BOUNDS.get(f"{self.kind} {self.numbers}", _BOUNDS[self.numbers])


_GATED = ((4608, 3072, 15360), (4096, 3072, 12288), (4096, 3072, 3072), (512, 3072, 12288), (512, 3072, 3072))
_GELU = ((4608, 12288, 3072), (4096, 12288, 3072), (512, 12288, 3072))
_HEADS = ((4608, 9216, 3072), (4096, 9216, 3072), (512, 9216, 3072))
_PLAIN = ((4608, 9216, 3072), (4608, 12288, 3072), (4608, 3072, 15360), (4096, 3072, 3072))

CASES = tuple(
    Case(kind, *shape, numbers)
    for numbers, kinds in (
        ("bf16", (("gated", _GATED), ("heads", _HEADS), ("gelu", _GELU), ("plain", _PLAIN))),
        (
            "e4m3",
            (("heads", _HEADS[:2]), ("gelu", _GELU), ("gated", _GATED), ("halves", _GATED[:1]), ("plain", _PLAIN[:3])),
        ),
    )
    for kind, shapes in kinds
    for shape in shapes
)


class _Set(NamedTuple):
    """One set of operands."""

    x: Any
    weight: Any
    bias: Any
    gate: Any
    residual: Any
    lengths: Any


def made(device: CudaDevice, case: Case, only: str = "") -> tuple[Calls, dict[str, float]]:
    """Calls of every variant, and its relative error on the first set; ``only`` selects one of this project's tiles."""
    sets = [_drawn(device, case, seed) for seed in range(_SETS)]
    bf16 = {"gated": _gated, "gelu": _gelu, "heads": _heads, "plain": _plain}
    e4m3 = {**bf16, "gated": _gated_e4m3, "halves": _halves_e4m3, "gelu": _gelu_e4m3}
    maker = bf16 if case.numbers == "bf16" else e4m3
    file = ("product_heads" if case.kind == "heads" else "product") + ("_fp8" if case.numbers == "e4m3" else "")
    tiles = products.tiles_for(device, file, case.m, case.n, case.k)
    tiles = tuple(tile for tile in tiles if not only or tile.name in only.split(","))
    calls, wanted = maker[case.kind](device, case, sets, tiles)
    errors = {}
    for name, variants in calls.items():
        first, again = _value(variants[0]()), _value(variants[0]())
        errors[name] = _apart(first, wanted) if bool((first == again).all()) else float("nan")
    return calls, errors


def _drawn(device: CudaDevice, case: Case, seed: int) -> _Set:
    """Operands whose results are near 1 in size, because the weight's scale is chosen so."""

    def draw(key: int, shape: tuple[int, ...], std: float) -> Any:
        return device.draw_normal((seed, key), shape, "bfloat16", std)

    x, weight = draw(1, (1, case.m, case.k), 1.0), draw(2, (case.n, case.k), case.k**-0.5)
    bias, gate = draw(3, (case.n,), 0.5), draw(4, (1, case.n), 1.0)
    residual = draw(5, (1, case.m, case.n), 1.0) if case.kind in ("gated", "halves") else None
    lengths = None
    if case.numbers == "e4m3":
        cp = cupy()
        lengths = cp.linalg.norm(_wide(x), axis=-1).ravel() * 1.0645
        x, weight = (fp8.quantize_rows(device, part) for part in (x, weight))
    return _Set(x, weight, bias, gate, residual, lengths)


def _wide(x: Any) -> Any:
    """Values in float32; those in e4m3 are multiplied by their scale."""
    cp = cupy()
    if isinstance(x, Quantized):
        import ml_dtypes
        import numpy as np

        table = cp.asarray(np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32))
        return table[x.data] * x.scale
    if isinstance(x, Unscaled):
        return _wide(x.data) * x.rows * x.columns
    return x.astype(cp.float32)


def _value(result: Any) -> Any:
    if isinstance(result, tuple) and not isinstance(result, (Quantized, Unscaled)):
        return cupy().concatenate([_wide(part).ravel() for part in result])
    return _wide(result).ravel()


def _apart(result: Any, wanted: Any) -> float:
    norm = cupy().linalg.norm
    return float(norm(result - wanted.ravel()) / norm(wanted))


def _summed(one: _Set) -> Any:
    """``X W^T`` in float32."""
    return _wide(one.x) @ _wide(one.weight).T


def _matrix(x: Any) -> Matrix:
    found = products.matrix(x)
    assert found is not None
    return found


def _plain(device: CudaDevice, case: Case, sets: list[_Set], tiles: tuple[Tile, ...]) -> tuple[Calls, Any]:
    e4m3 = case.numbers == "e4m3"

    def library(one: _Set) -> Any:
        return fp8.linear(device, one.x, one.weight) if e4m3 else project(device, one.x, one.weight)

    def own(tile: Tile, one: _Set) -> Any:
        out = device.empty((1, case.m, case.n), "bfloat16")
        x, w = (one.x.data, one.weight.data) if e4m3 else (one.x, one.weight)
        products.plain(device, tile, _matrix(x), _matrix(w), _matrix(out))
        return Unscaled(out, one.x.scale, one.weight.scale.reshape(-1)) if e4m3 else out

    return _calls(sets, tiles, library, own), _summed(sets[0])


def _calls(sets: list[_Set], tiles: tuple[Tile, ...], library: Any, own: Any) -> Calls:
    calls: Calls = {"library": [partial(library, one) for one in sets]}
    return calls | {tile.name: [partial(own, tile, one) for one in sets] for tile in tiles}


def _gated(device: CudaDevice, case: Case, sets: list[_Set], tiles: tuple[Tile, ...]) -> tuple[Calls, Any]:
    def library(one: _Set) -> Any:
        return bias_gated_residual(device, one.residual, one.gate, project(device, one.x, one.weight), one.bias)

    def own(tile: Tile, one: _Set) -> Any:
        out = device.empty((1, case.m, case.n), "bfloat16")
        x, w, residual, target = (_matrix(part) for part in (one.x, one.weight, one.residual, out))
        products.gated(device, tile, x, w, residual, target, one.gate.data.ptr, one.bias.data.ptr)
        return out

    one = sets[0]
    return _calls(sets, tiles, library, own), _wide(one.residual) + _wide(one.gate) * (_summed(one) + _wide(one.bias))


def _gelued(x: Any) -> Any:
    cp = cupy()
    return 0.5 * x * (1 + cp.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))


def _gelu(device: CudaDevice, case: Case, sets: list[_Set], tiles: tuple[Tile, ...]) -> tuple[Calls, Any]:
    def library(one: _Set) -> Any:
        return project(device, one.x, one.weight, one.bias, gelu=True)

    def own(tile: Tile, one: _Set) -> Any:
        out = device.empty((1, case.m, case.n), "bfloat16")
        products.gelu(device, tile, _matrix(one.x), _matrix(one.weight), _matrix(out), one.bias.data.ptr)
        return out

    return _calls(sets, tiles, library, own), _gelued(_summed(sets[0]) + _wide(sets[0].bias))


def _heads(device: CudaDevice, case: Case, sets: list[_Set], tiles: tuple[Tile, ...]) -> tuple[Calls, Any]:
    cp = cupy()
    count, width = case.n // 384, case.n // 3
    norms = [device.draw_normal((9, key), (128,), "bfloat16", 0.2, 1.0) for key in (1, 2)]
    angles = cp.repeat(cp.random.uniform(-3, 3, (case.m, 64)).astype(cp.float32), 2, axis=1)
    cos, sin = cp.cos(angles), cp.sin(angles)

    def library(one: _Set) -> Any:
        if case.numbers == "e4m3":
            product = fp8.linear(device, one.x, one.weight)
            return fp8.qkv_heads(device, (product,), (one.bias,), (norms[0],), (norms[1],), cos, sin, count)
        qkv = project(device, one.x, one.weight)
        return fused.qkv_heads(device, (qkv,), (one.bias,), (norms[0],), (norms[1],), cos, sin, count)

    def own(tile: Tile, one: _Set) -> Any:
        places = tuple(part.data.ptr for part in (one.bias, *norms, cos, sin))
        if case.numbers == "e4m3":
            return _own_heads_e4m3(device, case, tile, one, places)
        out = device.empty((3, 1, count, case.m, 128), "bfloat16")
        stream = products.HeadsStream(_matrix(one.x), _matrix(one.weight), 0, places)
        products.heads(device, tile, [stream], out.data.ptr, case.m)
        return out[0], out[1], out[2]

    u = (_summed(sets[0]) + _wide(sets[0].bias)).reshape(case.m, 3, count, 128).transpose(1, 2, 0, 3)
    wanted = [u[2]]
    for x, norm in ((u[1], norms[1]), (u[0], norms[0])):
        y = x / cp.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * _wide(norm)
        turned = cp.stack([-y[..., 1::2], y[..., ::2]], axis=-1).reshape(y.shape)
        wanted.insert(0, y * cos + turned * sin)
    assert width == count * 128
    return _calls(sets, tiles, library, own), cp.concatenate([part.ravel() for part in wanted])


def _own_heads_e4m3(device: CudaDevice, case: Case, tile: Tile, one: _Set, places: tuple[int, ...]) -> Any:
    shape = (1, case.n // 384, case.m, 128)
    q, k, v = (device.empty(shape, "float8_e4m3fn") for _ in range(3))
    powers = device.empty((5,), "float32")
    results = *(part.data.ptr for part in (q, k, v, powers)), device.tally
    scales = one.x.scale.data.ptr, one.weight.scale.data.ptr, one.lengths.data.ptr, 1
    x, w = _matrix(one.x.data), _matrix(one.weight.data)
    products.scaled_heads(device, tile, [products.HeadsStream(x, w, 0, places, scales)], results, case.m)
    scales = (powers[index : index + 1].reshape(1, 1, 1, 1) for index in range(3))
    return tuple(Quantized(part, scale) for part, scale in zip((q, k, v), scales, strict=True))


def _gated_e4m3(device: CudaDevice, case: Case, sets: list[_Set], tiles: tuple[Tile, ...]) -> tuple[Calls, Any]:
    def library(one: _Set) -> Any:
        return fp8.scaled_gated_residual(
            device, one.residual, one.gate, fp8.linear(device, one.x, one.weight), one.bias
        )

    def own(tile: Tile, one: _Set) -> Any:
        out = device.empty((1, case.m, case.n), "bfloat16")
        x, w, residual, target = (_matrix(part) for part in (one.x.data, one.weight.data, one.residual, out))
        places = tuple(part.data.ptr for part in (one.x.scale, one.weight.scale, one.gate, one.bias))
        products.scaled_gated(device, tile, x, w, residual, target, places, 1)
        return out

    one = sets[0]
    return _calls(sets, tiles, library, own), _wide(one.residual) + _wide(one.gate) * (_summed(one) + _wide(one.bias))


def _halves_e4m3(device: CudaDevice, case: Case, sets: list[_Set], tiles: tuple[Tile, ...]) -> tuple[Calls, Any]:
    """A fifth of K has one scale for all rows, as attention's result beside GELU's; the library's takes one per row."""
    width, cp, halves = case.k // 5, cupy(), {}
    for one in sets:
        scale = cp.broadcast_to(one.x.scale[:, :1] / 64, one.x.scale.shape)
        x = Halves(Quantized(one.x.data[..., :width], scale), Quantized(one.x.data[..., width:], one.x.scale))
        halves[id(one)] = x, fp8.room_for(device, x)

    def library(one: _Set) -> Any:
        rows = fp8.at_one_scale(device, *halves[id(one)])
        return fp8.scaled_gated_residual(device, one.residual, one.gate, fp8.linear(device, rows, one.weight), one.bias)

    def own(tile: Tile, one: _Set) -> Any:
        out, (first, second) = device.empty((1, case.m, case.n), "bfloat16"), halves[id(one)][0]
        w, residual, target = (_matrix(part) for part in (one.weight.data, one.residual, out))
        places = tuple(part.data.ptr for part in (second.scale, one.weight.scale, one.gate, one.bias))
        ahead = first.scale.data.ptr, 0, width
        products.scaled_gated(device, tile, _matrix(one.x.data), w, residual, target, places, 1, ahead)
        return out

    one = sets[0]
    sums = cp.concatenate([_wide(half) for half in halves[id(one)][0]], axis=-1) @ _wide(one.weight).T
    return _calls(sets, tiles, library, own), _wide(one.residual) + _wide(one.gate) * (sums + _wide(one.bias))


def _gelu_e4m3(device: CudaDevice, case: Case, sets: list[_Set], tiles: tuple[Tile, ...]) -> tuple[Calls, Any]:
    def library(one: _Set) -> Any:
        return fp8.quantized_gelu(device, fp8.linear(device, one.x, one.weight), one.bias)

    def own(tile: Tile, one: _Set) -> Any:
        out, powers = device.empty((1, case.m, case.n), "uint8"), device.empty((1, case.m, 1), "float32")
        parts = one.x.scale, one.weight.scale, one.lengths, one.bias, out, powers
        places = tuple(part.data.ptr for part in parts)
        products.scaled_gelu(
            device, tile, _matrix(one.x.data), _matrix(one.weight.data), places, case.n, 448 * case.k**0.5
        )
        return Quantized(out, powers)

    return _calls(sets, tiles, library, own), _gelued(_summed(sets[0]) + _wide(sets[0].bias))
