"""The host device is as strict as a GPU: no uncounted copies, only views, memory counted."""

from __future__ import annotations

import copy
import gc
import operator
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from fluxperf.engine.device import cuda, open_device
from fluxperf.engine.device.base import Device
from fluxperf.engine.device.host import HostArray, HostDevice, host_dtype
from fluxperf.engine.ops.table import Quantized
from fluxperf.errors import ArgumentError, DeviceError, TransferError, UnknownNameError

NUMBERS = np.arange(1, 7, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def array(device: HostDevice) -> HostArray:
    return device.door.to_device(NUMBERS, "array")


def _arithmetic(name: str, first: Any, second: Any) -> Any:
    return getattr(operator, name)(first, second)


CONVERSIONS: dict[str, Callable[[HostArray], Any]] = {
    "asarray": np.asarray,
    "array": np.array,
    "ufunc": np.exp,
    "ufunc_left": lambda x: np.add(x, NUMBERS),
    "ufunc_right": lambda x: np.add(NUMBERS, x),
    "function": lambda x: np.concatenate([x, x]),
    "reduction": np.sum,
    "copyto": lambda x: np.copyto(np.zeros((2, 3)), x),
    "assignment": lambda x: operator.setitem(np.zeros((2, 3)), slice(None), x),
    "float": float,
    "int": int,
    "bool": bool,
    "complex": complex,
    "index": lambda x: [1, 2][x],  # type: ignore[index]
    "truth": lambda x: not x,
    "iteration": list,
    "unpacking": lambda x: (*x,),
    "contains": lambda x: 1.0 in x,
    "sorted": sorted,
    "item": lambda x: x.item(),
    "tolist": lambda x: x.tolist(),
    "astype": lambda x: x.astype(np.float64),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "setitem": lambda x: operator.setitem(x, 0, 1.0),
    "fancy": lambda x: x[[0, 1]],
    "mask": lambda x: x[np.array([True, False])],
    "element": lambda x: x[0, 0],
    "negation": operator.neg,
    "power": lambda x: x**2,
    "inplace": lambda x: operator.iadd(x, 1),
    "equal": lambda x: x == NUMBERS,
    "equal_right": lambda x: x == NUMBERS,
    "less": lambda x: x < 1,
    **{f"{name}_left": partial(_arithmetic, name, second=2.0) for name in ("add", "sub", "mul", "truediv", "mod")},
    **{f"{name}_right": partial(_arithmetic, name, 2.0) for name in ("add", "sub", "mul", "truediv", "pow")},
    **{f"{name}_numpy": partial(_arithmetic, name, NUMBERS) for name in ("add", "mul", "matmul", "lt")},
}


@pytest.mark.parametrize("name", CONVERSIONS)
def test_no_implicit_conversion(name: str, array: HostArray, device: HostDevice) -> None:
    before = (len(device.door.ledger.crossings), device.memory.allocations, device.memory.in_use_bytes)
    with pytest.raises(TransferError, match=r"Use an op|expected an op or the door"):
        CONVERSIONS[name](array)
    gc.collect()
    assert before == (len(device.door.ledger.crossings), device.memory.allocations, device.memory.in_use_bytes)


@pytest.mark.parametrize("name", ["T", "sum", "mean", "__array_interface__", "__dlpack__", "__cuda_array_interface__"])
def test_there_is_no_other_way_in(name: str, array: HostArray) -> None:
    assert not hasattr(array, name)


def test_a_refusal_says_what_and_what_to_do(array: HostArray) -> None:
    with pytest.raises(TransferError) as caught:
        np.asarray(array)
    message = str(caught.value)
    assert "HostArray(shape=(2, 3), dtype=float32) is device memory" in message
    assert "Use an op, or copy it with to_host(array, label)." in message


def test_what_may_be_asked_without_a_copy(array: HostArray) -> None:
    assert (array.shape, array.ndim, array.size, array.nbytes, len(array)) == ((2, 3), 2, 6, 24, 2)
    assert (str(array.dtype), array.strides, array.base) == ("float32", (12, 4), None)
    assert hash(array) == hash(array)
    assert repr(array) == "HostArray(shape=(2, 3), dtype=float32)"


VIEWS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "slice": (lambda x: x[:, 1:], (2, 2)),
    "step": (lambda x: x[:, ::2], (2, 2)),
    "row": (lambda x: x[1], (3,)),
    "newaxis": (lambda x: x[None, :, None], (1, 2, 1, 3)),
    "ellipsis": (lambda x: x[..., :1], (2, 1)),
    "element": (lambda x: x[0, 0, ...], ()),
    "nothing": (lambda x: x[:0], (0, 3)),
    "reshape": (lambda x: x.reshape(3, 2), (3, 2)),
    "reshape_unknown": (lambda x: x.reshape(-1), (6,)),
    "reshape_tuple": (lambda x: x.reshape((1, 6)), (1, 6)),
    "swapaxes": (lambda x: x.swapaxes(0, 1), (3, 2)),
    "view_of_view": (lambda x: x[1:].swapaxes(0, 1)[1:], (2, 1)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_share_memory_and_allocate_nothing(name: str, array: HostArray, device: HostDevice) -> None:
    make, shape = VIEWS[name]
    view = make(array)
    assert view.shape == shape
    assert view.base is array
    assert device.memory.allocations == 1
    assert np.array_equal(device.door.to_host(view, "view"), make(NUMBERS))


def test_a_view_points_into_its_owner(array: HostArray, device: HostDevice) -> None:
    assert array[1].data.ptr == array.data.ptr + array.strides[0]
    device.door.to_device(np.full(3, 9, np.float32), "row", out=array[1])
    assert device.door.to_host(array, "array").tolist() == [[1, 2, 3], [9, 9, 9]]


def test_a_reshape_that_would_copy_is_refused(array: HostArray) -> None:
    with pytest.raises(ArgumentError, match=r"reshape\(6,\) of an array \(3, 2\).*Use an op that moves the data"):
        array.swapaxes(0, 1).reshape(6)
    with pytest.raises(ArgumentError, match="reshape"):
        array.reshape(4, 2)


def test_memory_in_use_returns_to_where_it_was(device: HostDevice) -> None:
    first = device.empty((4, 4), "float32")
    second = device.empty((2,), "bfloat16")
    assert (device.memory.allocations, device.memory.in_use_bytes, device.memory.peak_bytes) == (2, 68, 68)
    del second
    assert device.memory.in_use_bytes == 64
    view = first[1:]
    del first
    assert device.memory.in_use_bytes == 64, "a view keeps its owner"
    del view
    assert (device.memory.allocations, device.memory.in_use_bytes, device.memory.peak_bytes) == (2, 0, 68)


def test_peak_restarts_at_the_bytes_in_use(device: HostDevice) -> None:
    kept = device.empty((3,), "float32")
    device.empty((100,), "float32")
    assert device.memory.peak_bytes == 412
    device.memory.reset_peak()
    assert device.memory.peak_bytes == kept.nbytes


def test_empty_is_poisoned(device: HostDevice) -> None:
    for dtype in ("float32", "bfloat16", "float8_e4m3fn"):
        numbers = device.door.to_host(device.empty((2, 2), dtype), "poison")
        assert numbers.dtype == host_dtype(dtype)
        assert np.isnan(numbers.astype(np.float32)).all()


def test_draw_normal_gives_the_same_numbers_in_every_dtype(device: HostDevice) -> None:
    wide = device.draw_normal((1, 2), (50, 7), "float32", 0.5, 1.0)
    narrow = device.draw_normal((1, 2), (50, 7), "bfloat16", 0.5, 1.0)
    numbers, rounded = device.door.to_host(wide, "wide"), device.door.to_host(narrow, "narrow")
    assert (numbers.dtype, rounded.dtype) == (np.float32, ml_dtypes.bfloat16)
    assert np.array_equal(numbers, rounded.astype(np.float32))
    assert (abs(numbers.mean() - 1), abs(numbers.std() - 0.5)) < (0.1, 0.1)


def test_draw_normal_is_reproducible_and_makes_no_copy(device: HostDevice) -> None:
    draws = [HostDevice(), HostDevice()]
    same = [one.door.to_host(one.draw_normal((3, 4), (9,), "float32", 1.0), "x") for one in draws]
    assert np.array_equal(*same)
    other = device.draw_normal((4, 3), (9,), "float32", 1.0)
    assert device.door.ledger.crossings == []
    assert not np.array_equal(same[0], device.door.to_host(other, "x"))


def test_launch_opens_arrays_in_tuples_and_wraps_results(device: HostDevice, array: HostArray) -> None:
    quantized = Quantized(array, array[:, :1])

    def kernel(pair: Any, rows: Any, factor: float, flip: bool) -> Any:
        assert isinstance(rows, Quantized)
        assert all(isinstance(part, np.ndarray) for part in (*pair, rows.data, rows.scale))
        return Quantized(rows.data * factor, pair[0]) if flip else pair[0]

    result = device.launch(kernel, (array, array), quantized, 2.0, flip=True)
    assert isinstance(result, Quantized)
    assert isinstance(result.data, HostArray)
    assert np.array_equal(device.door.to_host(result.data, "data"), 2 * NUMBERS)
    assert result.data.base is None


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x,), lambda x: (1.0, (x,)), lambda x: Quantized(x, x)])
def test_launch_refuses_plain_arrays(wrap: Callable[[Any], Any], device: HostDevice) -> None:
    with pytest.raises(TransferError, match=r"got a plain NumPy array \(2, 3\).*to_device"):
        device.launch(lambda x: x, wrap(NUMBERS))


def test_launch_fills_out(device: HostDevice, array: HostArray) -> None:
    whole = device.empty((2, 6), "float32")
    half = whole[:, 3:]
    assert device.launch(lambda x: 2 * x, array, out=half) is half
    assert np.array_equal(device.door.to_host(half, "half"), 2 * NUMBERS)


@pytest.mark.parametrize(("shape", "dtype"), [((2, 2), "float32"), ((2, 3), "bfloat16"), ((3,), "float32")])
def test_launch_refuses_an_out_that_does_not_fit(
    shape: tuple[int, ...], dtype: str, device: HostDevice, array: HostArray
) -> None:
    def double(x: Any) -> Any:
        return 2 * x

    with pytest.raises(ArgumentError, match=r"double: expected out float32 \(2, 3\), got"):
        device.launch(double, array, out=device.empty(shape, dtype))


def test_clock_and_synchronization(device: HostDevice) -> None:
    start = device.mark()
    device.synchronize()
    assert device.door.ledger.syncs == 1
    assert device.elapsed_s(start, device.mark()) > 0
    assert device.elapsed_s(1_000_000, 3_500_000) == pytest.approx(0.0025)


def test_an_opened_host_has_one_thread_of_the_blas() -> None:
    with threadpool_limits(limits=2, user_api="blas"):
        open_device("host")
        assert {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"} == {1}


def test_kinds_of_devices() -> None:
    assert isinstance(open_device("host"), HostDevice)
    assert isinstance(open_device("auto"), Device)
    with pytest.raises(UnknownNameError, match=r"unknown device 'hots'\. Did you mean 'host'"):
        open_device("hots")
    if not cuda.available():
        with pytest.raises(DeviceError, match=r"device 'cuda': expected"):
            open_device("cuda")
