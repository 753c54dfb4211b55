"""The host device: NumPy memory with the restrictions of GPU memory.

A `HostArray` stands for device memory. Only the door and functions launched on its device can access its values. So
code that would copy implicitly on a GPU fails here too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import ml_dtypes
import numpy as np
import numpy.typing as npt

from fluxperf.engine.device.base import Device, Memory
from fluxperf.engine.device.transfers import Door, HostNumbers
from fluxperf.errors import ArgumentError, TransferError

#: dtypes that NumPy does not have by itself.
_EXTRA_DTYPES = {"bfloat16": ml_dtypes.bfloat16, "float8_e4m3fn": ml_dtypes.float8_e4m3fn}

#: The byte that makes NaN in every dtype of a weight.
_POISON = 0xFF

#: Bytes that a flush writes: more than a core's L2 cache and its share of L3 on current machines.
_FLUSH_BYTES = 64 << 20


def host_dtype(name: str) -> np.dtype[Any]:
    """NumPy dtype of that name, bfloat16 and float8_e4m3fn included."""
    dtype: np.dtype[Any] = np.dtype(_EXTRA_DTYPES.get(name, name))
    return dtype


class _Pointer(NamedTuple):
    """Address of an array's first element, under the attribute name that CuPy uses."""

    ptr: int


class HostArray:
    """An array in the memory of a host device. It allows views, but no arithmetic and no implicit copies."""

    __slots__ = ("_data", "_device", "_owned", "base")

    def __init__(
        self, device: HostDevice, data: npt.NDArray[Any], base: HostArray | None = None, borrowed: bool = False
    ) -> None:
        self._device = device
        self._data = data
        #: The array that owns the memory; ``None`` if this array does.
        self.base = base
        self._owned = 0 if base is not None or borrowed else data.nbytes
        if base is None and not borrowed:
            device.memory.allocate(data.nbytes)

    def __del__(self) -> None:
        if getattr(self, "_owned", 0):
            self._device.memory.free(self._owned)

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents."""
        return self._data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self._data.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of this array's elements (for a view, not of the whole owner)."""
        return self._data.nbytes

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._data.size

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._data.ndim

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one element to the next along each axis."""
        return self._data.strides

    @property
    def data(self) -> _Pointer:
        """Address of the first element."""
        return _Pointer(self._data.ctypes.data)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return f"HostArray(shape={self.shape}, dtype={self.dtype})"

    def __getitem__(self, index: Any) -> HostArray:
        return self._view(self._data[index], f"index {index!r}")

    def reshape(self, *shape: Any) -> HostArray:
        """A view with other extents.

        Raises:
            ArgumentError: the view would have to move data; on a GPU that would be a hidden launch.
        """
        try:
            return self._view(self._data.reshape(*shape, copy=False), "reshape")
        except ValueError as error:
            raise ArgumentError(
                f"reshape{shape} of an array {self.shape}: {error}. Use an op that moves the data."
            ) from error

    def swapaxes(self, first: int, second: int) -> HostArray:
        """A view with two axes exchanged."""
        return self._view(self._data.swapaxes(first, second), "swapaxes")

    def _view(self, data: Any, what: str) -> HostArray:
        if not isinstance(data, np.ndarray) or (data.size and not np.may_share_memory(data, self._data)):
            raise TransferError(
                f"{what} of a device array: expected a view, but this would copy elements. Use an op that moves data."
            )
        return HostArray(self._device, data, self.base if self.base is not None else self)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TransferError(
            f"{self!r} is device memory: expected an op or an explicit copy, got an implicit conversion or "
            "arithmetic. On a GPU this would be a hidden copy or launch. Use an op, or copy it with to_host(array, "
            "label)."
        )

    __array__ = __array_ufunc__ = __array_function__ = _refuse
    __float__ = __int__ = __bool__ = __index__ = __iter__ = __complex__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __matmul__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __hash__ = object.__hash__
    __neg__ = __pos__ = __abs__ = __pow__ = __rpow__ = __mod__ = __floordiv__ = __rfloordiv__ = __rmatmul__ = _refuse
    __setitem__ = __copy__ = __deepcopy__ = __reduce_ex__ = _refuse
    item = tolist = astype = _refuse


class _OwnMemory:
    """A lane of the host device: bytes are written directly to their destination, so there is nothing to send."""

    def __init__(self, chunk_bytes: int) -> None:
        self.chunk_bytes = chunk_bytes

    def memory(self, out: HostArray, start: int, stop: int) -> HostNumbers:
        numbers: HostNumbers = out._data.reshape(-1).view(np.uint8)[start:stop]
        return numbers

    def send(self, out: HostArray, start: int, stop: int) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class _HostSlot:
    """A slot of the host device. It holds its bytes only from `acquire` to `release`, and NaN at all other times."""

    def __init__(self, buffer: HostArray) -> None:
        self.buffer = buffer
        self._filling: HostNumbers | None = None
        self._held = False

    def fill(self, memory: HostNumbers) -> None:
        if self._held:
            raise AssertionError("a slot was filled while it was in use")
        self._filling = memory

    def acquire(self) -> None:
        if self._filling is None or self._held:
            raise AssertionError("a slot was acquired before it was filled")
        self.buffer._data[: self._filling.size] = self._filling
        self._filling, self._held = None, True

    def release(self) -> None:
        self.buffer._data.fill(_POISON)
        self._filling, self._held = None, False


class HostDevice(Device):
    """NumPy memory with a door and a clock. In place of CUDA kernels it runs plain NumPy functions, the twins."""

    kind = "host"
    ran_as = "twin"

    def __init__(self) -> None:
        self.door = Door(self._upload, self._download, _OwnMemory)
        self.memory = Memory()

    def empty(self, shape: Sequence[int], dtype: str) -> HostArray:
        """An array of NaN, or of the largest integer, so that an element that is never written is noticed."""
        kind = host_dtype(dtype)
        if kind.kind in "iu":
            return HostArray(self, np.full(tuple(shape), np.iinfo(kind).max, kind))
        return HostArray(self, np.full(tuple(shape), np.nan, np.float32).astype(kind))

    def draw_normal(
        self, key: Sequence[int], shape: Sequence[int], dtype: str, std: float, mean: float = 0.0
    ) -> HostArray:
        """Normally distributed values from NumPy's generator PCG64 seeded with ``key``, rounded to bfloat16."""
        numbers = np.random.default_rng(list(key)).standard_normal(math.prod(shape), np.float32)
        numbers = (numbers * np.float32(std) + np.float32(mean)).astype(ml_dtypes.bfloat16)
        return HostArray(self, numbers.reshape(tuple(shape)).astype(host_dtype(dtype)))

    def lend(self, array: HostArray) -> npt.NDArray[Any]:
        """The same memory as a NumPy array; bfloat16 as int16."""
        data = array._data
        return data.view(np.int16) if data.dtype == host_dtype("bfloat16") else data

    def borrow(self, tensor: Any) -> HostArray:
        """The memory of a host tensor; it is not counted as this device's."""
        return HostArray(self, np.from_dlpack(tensor), borrowed=True)

    def lasting(self, nbytes: int) -> HostNumbers:
        """Ordinary memory, which stands for pinned memory."""
        return np.empty(nbytes, np.uint8)

    def slot(self, nbytes: int) -> _HostSlot:
        """A slot whose copies complete when it is acquired."""
        made = _HostSlot(self.empty((nbytes,), "uint8"))
        made.release()
        return made

    def view(self, buffer: HostArray, offset: int, shape: Sequence[int], dtype: str) -> HostArray:
        """A view of the buffer's bytes with another shape and dtype."""
        kind = host_dtype(dtype)
        numbers = buffer._data[offset : offset + math.prod(shape) * kind.itemsize].view(kind).reshape(tuple(shape))
        return HostArray(self, numbers, buffer.base if buffer.base is not None else buffer)

    def copy(self, source: HostArray, out: HostArray) -> None:
        """Copies the values into the other array's memory."""
        out._data[...] = source._data

    def synchronize(self) -> None:
        """Counts a synchronization. Work on the host is always complete."""
        self.door.ledger.syncs += 1

    def mark(self) -> int:
        """The host's performance counter, in nanoseconds."""
        return time.perf_counter_ns()

    def elapsed_s(self, start: int, end: int) -> float:
        """Seconds between two marks."""
        return (end - start) / 1e9

    def flush(self, busy_s: float = 0.0) -> None:
        """Writes more than a core's caches hold. It is complete when the call returns."""
        np.zeros(_FLUSH_BYTES, np.uint8).fill(1)

    def launch(self, function: Callable[..., Any], *args: Any, out: HostArray | None = None, **options: Any) -> Any:
        """Runs a plain NumPy function on the memory of this device's arrays, as CUDA runs a kernel.

        Arguments may be host arrays, tuples of them (also nested or named), scalars and ``None``, but not plain NumPy
        arrays.

        Arguments may be host arrays, tuples of them (nested, named or not), scalars and none, no plain NumPy arrays.

        Raises:
            TransferError: a plain NumPy array came where device memory was expected.
            ArgumentError: the result does not fit ``out``.
        """
        result = function(*(self._open(arg) for arg in args), **options)
        if out is None:
            return self._close(result)
        if out.shape != result.shape or out.dtype != result.dtype:
            raise ArgumentError(
                f"{function.__name__}: expected out {result.dtype} {result.shape}, got {out.dtype} {out.shape}."
            )
        out._data[...] = result
        return out

    def _open(self, value: Any) -> Any:
        if isinstance(value, HostArray):
            return value._data
        if isinstance(value, np.ndarray):
            raise TransferError(
                f"expected device memory, got a plain NumPy array {value.shape}. Copy it with to_device(array, label)."
            )
        if isinstance(value, tuple):
            opened = [self._open(item) for item in value]
            return type(value)(*opened) if hasattr(value, "_fields") else tuple(opened)
        return value

    def _close(self, value: Any) -> Any:
        if isinstance(value, tuple):
            closed = [self._close(item) for item in value]
            return type(value)(*closed) if hasattr(value, "_fields") else tuple(closed)
        return None if value is None else HostArray(self, np.ascontiguousarray(value))

    def _upload(self, numbers: HostNumbers, out: HostArray | None) -> HostArray:
        if out is None:
            return HostArray(self, np.array(numbers, order="C"))
        if out.shape != numbers.shape or out.dtype != numbers.dtype:
            raise ArgumentError(
                f"to_device: expected out {out.dtype} {out.shape}, got {numbers.dtype} {numbers.shape}."
            )
        out._data[...] = numbers
        return out

    def _download(self, array: HostArray, out: HostNumbers | None = None) -> HostNumbers:
        if out is None:
            return np.array(array._data, order="C")
        if out.nbytes != array.nbytes:
            raise ArgumentError(f"to_host: expected out of {array.nbytes} bytes, got {out.nbytes}. Allocate that many.")
        out[...] = np.ascontiguousarray(array._data).reshape(-1).view(np.uint8)
        return out
