"""Queries the CUDA driver directly, independent of the library that the program uses."""

from __future__ import annotations

import ctypes
from typing import Any


def _driver() -> Any:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def device_count() -> int:
    """The number of GPUs of the driver; 0 without a driver."""
    cuda, number = _driver(), ctypes.c_int(0)
    if cuda is None or cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(number)):
        return 0
    return number.value


def device_name() -> str | None:
    """Name of the first GPU, as in records, without initializing it; ``None`` if there is none."""
    cuda, name, device = _driver(), ctypes.create_string_buffer(256), ctypes.c_int(0)
    if not device_count() or cuda.cuDeviceGet(ctypes.byref(device), 0):
        return None
    return None if cuda.cuDeviceGetName(name, len(name), device) else name.value.decode(errors="replace")


def settle() -> None:
    """Waits for the work of every GPU that this process uses. Initializes nothing."""
    cuda, number = _driver(), ctypes.c_int(0)
    if cuda is None or cuda.cuDeviceGetCount(ctypes.byref(number)):
        return
    for index in range(number.value):
        device, flags, active = ctypes.c_int(0), ctypes.c_uint(0), ctypes.c_int(0)
        cuda.cuDeviceGet(ctypes.byref(device), index)
        if cuda.cuDevicePrimaryCtxGetState(device, ctypes.byref(flags), ctypes.byref(active)) or not active.value:
            continue
        context = ctypes.c_void_p()
        if cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
            continue
        cuda.cuCtxPushCurrent_v2(context)
        cuda.cuCtxSynchronize()
        cuda.cuCtxPopCurrent_v2(ctypes.byref(context))
        cuda.cuDevicePrimaryCtxRelease_v2(device)
