"""`fluxperf.gpu`, called as from a program that uses nothing else of fluxperf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fluxperf import gpu as primitives
from fluxperf.engine.device import cuda
from fluxperf.engine.device.host import host_dtype
from fluxperf.engine.ops import reference
from fluxperf.errors import ArgumentError, FluxperfError

needs_gpu = pytest.mark.skipif(not cuda.available(), reason="needs a GPU and CuPy")

CALLS = {
    "gpu_layer_norm": (reference.layer_norm, [(2, 9, 96)]),
    "gpu_modulate": (reference.modulate, [(2, 9, 96), (2, 96), (2, 96)]),
    "gpu_gated_residual": (reference.gated_residual, [(2, 9, 96), (2, 96), (2, 9, 96)]),
    "gpu_add_broadcast": (reference.add_broadcast, [(2, 9, 96), (9, 1)]),
    "gpu_batched_matmul": (reference.batched_matmul, [(2, 3, 9, 64), (2, 3, 64, 24)]),
}


@needs_gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CALLS)
def test_agrees_with_the_oracle(name: str, dtype: str) -> None:
    import cupy

    formula, shapes = CALLS[name]
    draw = np.random.default_rng(3)
    numbers = [draw.standard_normal(shape).astype(host_dtype(dtype)) for shape in shapes]
    with cupy.cuda.Stream(non_blocking=True) as stream:
        result = getattr(primitives, name)(*map(cupy.asarray, numbers))
        stream.synchronize()
        assert cupy.cuda.get_current_stream() == stream, "the caller's stream stays current"
    assert str(result.dtype) == dtype
    expected = formula(*numbers)
    error = np.linalg.norm(cupy.asnumpy(result).astype(np.float64) - expected) / np.linalg.norm(expected)
    assert error < (5e-7 if dtype == "float32" else 3e-3)


@needs_gpu
def test_transposed_views_are_multiplied_in_place() -> None:
    import cupy

    a, b = (cupy.random.standard_normal((3, 16, 32), dtype=cupy.float32) for _ in range(2))
    result = primitives.gpu_batched_matmul(a, b.swapaxes(-1, -2))
    assert cupy.allclose(result, cupy.einsum("bmk,bnk->bmn", a, b), atol=1e-4)


#: Views [3, 16, 16] of CuPy arrays, by description; each is made by a function that gets a random source.
VIEWS: dict[str, Callable[[Callable[..., Any]], Any]] = {
    "contiguous": lambda draw: draw(3, 16, 16),
    "transposed": lambda draw: draw(3, 16, 16).swapaxes(-1, -2),
    "every second column": lambda draw: draw(3, 16, 32)[..., ::2],
    "every second row": lambda draw: draw(3, 32, 16)[:, ::2],
    "rows backwards": lambda draw: draw(3, 16, 16)[:, ::-1],
    "columns backwards": lambda draw: draw(3, 16, 16)[..., ::-1],
    "samples backwards": lambda draw: draw(3, 16, 16)[::-1],
    "one row for all": lambda draw: draw(3, 1, 16),
    "one matrix for all": lambda draw: draw(1, 16, 16),
    "samples last": lambda draw: draw(16, 16, 3).transpose(2, 0, 1),
}


@needs_gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("first", VIEWS)
def test_views_are_multiplied_as_they_read(first: str, dtype: str) -> None:
    import cupy

    rng = np.random.default_rng(4)

    def draw(*shape: int) -> Any:  # sums of such numbers are exact in any order
        return cupy.asarray(rng.integers(-8, 9, shape).astype(host_dtype(dtype)))

    for second in VIEWS:
        a, b = (cupy.broadcast_to(VIEWS[name](draw), (3, 16, 16)) for name in (first, second))
        found = cupy.asnumpy(primitives.gpu_batched_matmul(a, b)).astype(np.float32)
        expected = cupy.asnumpy(a).astype(np.float32) @ cupy.asnumpy(b).astype(np.float32)
        assert np.array_equal(found, expected.astype(host_dtype(dtype)).astype(np.float32)), second


@needs_gpu
def test_a_sum_of_nothing_is_zero() -> None:
    import cupy

    result = primitives.gpu_batched_matmul(cupy.ones((2, 3, 0), cupy.float32), cupy.ones((2, 0, 5), cupy.float32))
    assert cupy.array_equal(result, cupy.zeros((2, 3, 5)))


@needs_gpu
def test_the_callers_device_stays_current() -> None:
    import cupy

    number = cupy.cuda.runtime.getDeviceCount()
    for ordinal in range(number):
        with cupy.cuda.Device(ordinal):
            x = cupy.ones((2, 9, 64), cupy.float32)
        result = primitives.gpu_layer_norm(x)
        product = primitives.gpu_batched_matmul(x, x.swapaxes(-1, -2))
        assert (result.device.id, product.device.id) == (ordinal, ordinal)
        assert cupy.cuda.runtime.getDevice() == 0
        assert float(product[0, 0, 0]) == 64


@needs_gpu
@pytest.mark.parametrize(
    ("name", "shapes", "phrase"),
    [
        ("gpu_modulate", [(2, 9, 96), (2, 95), (2, 96)], "scale"),
        ("gpu_gated_residual", [(2, 9, 96), (3, 96), (2, 9, 96)], "gate"),
        ("gpu_add_broadcast", [(2, 9, 96), (5,)], "broadcast"),
        ("gpu_batched_matmul", [(2, 9, 64), (3, 64, 9)], r"\[\.\., M, K\]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(name: str, shapes: list[Any], phrase: str) -> None:
    import cupy

    with pytest.raises(ArgumentError, match=phrase):
        getattr(primitives, name)(*(cupy.ones(shape, cupy.float32) for shape in shapes))


@needs_gpu
def test_other_dtypes_are_refused() -> None:
    import cupy

    with pytest.raises(ArgumentError, match="float16"):
        primitives.gpu_layer_norm(cupy.ones((2, 8), cupy.float16))


@pytest.mark.parametrize("name", CALLS)
def test_numpy_arrays_are_refused_and_not_copied(name: str) -> None:
    pytest.importorskip("cupy", reason="needs CuPy")
    shapes = CALLS[name][1]
    with pytest.raises(
        ArgumentError, match=rf"{name}: expected \w+ to be a CuPy array, got ndarray\. Use cupy\.asarray"
    ):
        getattr(primitives, name)(*(np.ones(shape, np.float32) for shape in shapes))


def test_without_cupy_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(FluxperfError, match=r"expected CuPy.*cuda12 or cuda13"):
        primitives.gpu_layer_norm(np.ones((2, 8), np.float32))
