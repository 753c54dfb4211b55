"""Converts e4m3 operands, and products without their scales, to the bfloat16 arrays that an unquantized op takes.

The conversion is exact: scales are powers of two, and e4m3 has fewer bits than bfloat16. Only adding a product's
deferred bias rounds to bfloat16, as a product with a bias does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from fluxperf.engine.device.base import Device
from fluxperf.engine.ops.table import Deferred, Halves, Quantized, Unscaled


def plainer(device: Device) -> Callable[[Any], Any]:
    """A function that converts an operand to bfloat16; it leaves other values as they are and enters tuples."""
    if device.kind == "host":
        launch: Callable[..., Any] = device.launch  # type: ignore[attr-defined]
        return partial(_plain, lambda x: launch(_numbers, x))
    values = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    return partial(_plain, partial(_numbers, decoded=device.door.to_device(values, "quality.e4m3")))


def _plain(numbers: Callable[[Any], Any], x: Any) -> Any:
    if isinstance(x, Quantized | Halves | Unscaled):
        return numbers(x)
    if isinstance(x, Deferred):
        return Deferred(*(_plain(numbers, operand) for operand in x))
    return tuple(_plain(numbers, item) for item in x) if isinstance(x, tuple) else x


def _numbers(x: Any, decoded: Any = None) -> Any:
    """Values in bfloat16.

    Args:
        x: of NumPy or CuPy arrays.
        decoded: values of the 256 e4m3 codes, for arrays of dtype uint8.
    """
    if isinstance(x, Halves):
        return np.concatenate([_numbers(half, decoded) for half in x], axis=-1)
    if isinstance(x, Quantized):
        wide = (x.data.astype(np.float32) if decoded is None else decoded[x.data]) * x.scale
    else:
        wide = x.data.astype(np.float32) * x.rows * x.columns
        wide = wide if x.bias is None else wide + x.bias.astype(np.float32)
    return wide.astype(ml_dtypes.bfloat16)
