"""`gpu_batched_matmul` on every kind of view, without a GPU: NumPy's memory is read as cuBLASLt would read it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from fluxperf import gpu
from fluxperf.engine.device.cublaslt import Product
from fluxperf.engine.device.host import host_dtype
from fluxperf.errors import ArgumentError
from tests.ops.test_launches import Block

ENTERED: list[str] = []


class Current:
    """A CuPy device: current inside the region, the previous one afterwards."""

    def __init__(self, ordinal: int = 0) -> None:
        self.id = ordinal

    def __enter__(self) -> None:
        ENTERED.append(f"in {self.id}")

    def __exit__(self, *_: Any) -> None:
        ENTERED.append(f"out {self.id}")


class Stand(Block):
    """An array on that device."""

    @property
    def device(self) -> Any:
        return Current()


def matrix(address: int, dtype: Any, rows: int, columns: int, leading: int) -> Any:
    """Rows in memory, a given number of elements apart."""
    size = ((rows - 1) * leading + columns) * dtype.itemsize
    memory = np.frombuffer((ctypes.c_char * size).from_address(address), dtype)
    return as_strided(memory, (rows, columns), (leading * dtype.itemsize, dtype.itemsize))


class Device:
    """Computes planned products from addresses only."""

    def __init__(self) -> None:
        self.launches, self.batches = 0, 0

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        return np.full(shape, np.nan, host_dtype(dtype)).view(Stand)

    def products(self, plan: Product, a: int, b: int, d: int) -> None:
        self.launches += 1
        self.batches += plan.batch
        dtype, out = np.dtype(host_dtype(plan.dtype)), np.dtype(host_dtype(plan.out_dtype))
        assert plan.lda >= plan.k
        assert plan.ldb >= (plan.k if plan.b_transposed else plan.n)
        assert plan.ldd >= plan.n
        for index in range(plan.batch):
            left = matrix(a + dtype.itemsize * plan.offset_a * index, dtype, plan.m, plan.k, plan.lda)
            at = b + dtype.itemsize * plan.offset_b * index
            sides = (plan.n, plan.k) if plan.b_transposed else (plan.k, plan.n)
            right = matrix(at, dtype, *sides, plan.ldb)
            right = right.T if plan.b_transposed else right
            place = matrix(d + out.itemsize * plan.offset_d * index, out, plan.m, plan.n, plan.ldd)
            place[...] = (left.astype(np.float64) @ right.astype(np.float64)).astype(out)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device()
    monkeypatch.setattr(gpu, "cupy", lambda: SimpleNamespace(ndarray=Stand))
    monkeypatch.setattr(gpu, "_gpu", lambda ordinal: made)
    return made


RNG = np.random.default_rng(5)


def draw(*shape: int) -> Any:
    return RNG.integers(-8, 9, shape).astype(np.float32)  # sums are exact in any order, and in bfloat16


#: Views [2, 3, R, C] with different layouts of their matrices, by description.
VIEWS: dict[str, Callable[[int, int], Any]] = {
    "contiguous": lambda r, c: draw(2, 3, r, c),
    "transposed": lambda r, c: draw(2, 3, c, r).swapaxes(-1, -2),
    "rows of a wider array": lambda r, c: draw(2, 3, r, c + 3)[..., 1 : 1 + c],
    "transposed rows of a wider array": lambda r, c: draw(2, 3, c, r + 3)[..., :r].swapaxes(-1, -2),
    "every second row": lambda r, c: draw(2, 3, 2 * r, c)[..., ::2, :],
    "every second column": lambda r, c: draw(2, 3, r, 2 * c)[..., ::2],
    "transposed, every second row": lambda r, c: draw(2, 3, c, 2 * r)[..., ::2].swapaxes(-1, -2),
    "rows backwards": lambda r, c: draw(2, 3, r, c)[..., ::-1, :],
    "columns backwards": lambda r, c: draw(2, 3, r, c)[..., ::-1],
    "both backwards": lambda r, c: draw(2, 3, r, c)[..., ::-1, ::-1],
    "one row for all": lambda r, c: np.broadcast_to(draw(2, 3, 1, c), (2, 3, r, c)),
    "one column for all": lambda r, c: np.broadcast_to(draw(2, 3, r, 1), (2, 3, r, c)),
    "one number for all": lambda r, c: np.broadcast_to(draw(1), (2, 3, r, c)),
    "one matrix for all": lambda r, c: np.broadcast_to(draw(r, c), (2, 3, r, c)),
    "one sample for all": lambda r, c: np.broadcast_to(draw(1, 3, r, c), (2, 3, r, c)),
    "one head for all": lambda r, c: np.broadcast_to(draw(2, 1, r, c), (2, 3, r, c)),
    "heads between tokens": lambda r, c: draw(2, r, 3, c).swapaxes(1, 2),
    "samples backwards": lambda r, c: draw(2, 3, r, c)[::-1],
    "heads backwards": lambda r, c: draw(2, 3, r, c)[:, ::-1],
    "some heads of more": lambda r, c: draw(2, 5, r, c)[:, 1:4],
    "heads and samples exchanged": lambda r, c: draw(3, 2, r, c).swapaxes(0, 1),
    "all axes backwards": lambda r, c: draw(c, r, 3, 2).T,
    "overlapping rows": lambda r, c: as_strided(draw(6, r + c), (2, 3, r, c), (12 * (r + c), 4 * (r + c), 4, 4)),
}
SIZES = [(4, 5, 6), (5, 5, 5), (1, 5, 6), (4, 1, 6), (4, 5, 1), (1, 1, 1), (4, 0, 6), (0, 5, 6), (4, 5, 0)]


def placed(x: Any, dtype: str = "float32") -> Any:
    """The same view, with the given dtype, in the stand-in's memory."""
    if dtype == "float32":
        return as_strided(x, x.shape, x.strides).view(Stand)
    return x.astype(host_dtype(dtype)).view(Stand)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("first", VIEWS)
def test_every_view_times_every_view(first: str, size: tuple[int, int, int], device: Device) -> None:
    rows, inner, columns = size
    for second in VIEWS:
        a, b = placed(VIEWS[first](rows, inner)), placed(VIEWS[second](inner, columns))
        found = gpu.gpu_batched_matmul(a, b)
        assert np.array_equal(found, np.asarray(a) @ np.asarray(b)), second


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_any_strides(data: st.DataObject) -> None:
    """Views with strides of any multiple of elements, positive and negative, inside a memory that holds them."""
    operands = []
    inner, leading = data.draw(st.integers(1, 4)), data.draw(st.lists(st.integers(1, 3), max_size=2))
    for ends in ((data.draw(st.integers(1, 4)), inner), (inner, data.draw(st.integers(1, 4)))):
        shape = (*leading, *ends)
        steps = data.draw(st.tuples(*[st.integers(-5, 5)] * len(shape)))
        reach = [step * (extent - 1) for step, extent in zip(steps, shape, strict=True)]
        memory = draw(sum(map(abs, reach)) + 1)
        begin = memory[-sum(min(way, 0) for way in reach) :]
        operands.append(placed(as_strided(begin, shape, [4 * step for step in steps])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "cupy", lambda: SimpleNamespace(ndarray=Stand))
        patch.setattr(gpu, "_gpu", lambda ordinal: Device())
        found = gpu.gpu_batched_matmul(*operands)
    assert np.array_equal(found, np.asarray(operands[0]) @ np.asarray(operands[1]))


@pytest.mark.parametrize(
    ("first", "second", "launches"),
    [
        ("contiguous", "contiguous", 1),
        ("contiguous", "transposed", 1),
        ("rows of a wider array", "transposed rows of a wider array", 1),
        ("one matrix for all", "contiguous", 1),
        ("every second row", "contiguous", 1),
        ("heads between tokens", "contiguous", 2),
        ("heads backwards", "contiguous", 6),
        ("transposed", "contiguous", 2),
        ("every second column", "every second column", 3),
    ],
)
def test_what_can_be_read_is_not_copied(first: str, second: str, launches: int, device: Device) -> None:
    """A copy costs a launch; so does each product if matrices are not evenly spaced."""
    gpu.gpu_batched_matmul(placed(VIEWS[first](4, 5)), placed(VIEWS[second](5, 6)))
    assert device.launches == launches
    assert device.batches == 6


@pytest.mark.parametrize("first", ["contiguous", "transposed", "columns backwards"])
def test_in_bfloat16(first: str, device: Device) -> None:
    a, b = placed(VIEWS[first](4, 5), "bfloat16"), placed(draw(2, 3, 5, 6), "bfloat16")
    found = gpu.gpu_batched_matmul(a, b)
    expected = (np.asarray(a, np.float32) @ np.asarray(b, np.float32)).astype(host_dtype("bfloat16"))
    assert np.array_equal(found, expected)


def test_matrices_between_elements_are_refused(device: Device) -> None:
    memory = draw(200).view(np.uint8)[2:]
    odd = np.ndarray((2, 3, 4, 5), np.float32, memory.data).view(Stand)
    with pytest.raises(
        ArgumentError,
        match=r"batched_matmul: expected strides and address of a to be multiples of its 4-byte elements, .* Copy it",
    ):
        gpu.gpu_batched_matmul(odd, placed(draw(2, 3, 5, 6)))


def test_the_callers_device_is_current_again(device: Device) -> None:
    ENTERED.clear()
    gpu.gpu_batched_matmul(placed(draw(2, 4, 5)), placed(draw(2, 5, 6)))
    with pytest.raises(ArgumentError, match=r"\[\.\., M, K\]"):
        gpu.gpu_batched_matmul(placed(draw(2, 4, 5)), placed(draw(2, 4, 6)))
    assert ENTERED == ["in 0", "out 0"] * 2
