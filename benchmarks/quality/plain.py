"""Operands in e4m3, and products before their scales, as the plain bfloat16 numbers that an unquantized op takes.

Nothing is lost: scales are powers of two, and e4m3 has fewer bits than bfloat16. Only the bias of a product, if it is
left to the reader, makes bfloat16 round, as a product with a bias rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from fluxperf.engine.device.base import Device
from fluxperf.engine.ops.table import Deferred, Quantized, Unscaled


def plainer(device: Device) -> Callable[[Any], Any]:
    """Makes an operand on a device plain; others stay as they are, tuples are looked into."""
    if device.kind == "host":
        launch: Callable[..., Any] = device.launch  # type: ignore[attr-defined]
        return partial(_plain, lambda x: launch(_numbers, x))
    values = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    return partial(_plain, partial(_numbers, decoded=device.door.to_device(values, "quality.e4m3")))


def _plain(numbers: Callable[[Any], Any], x: Any) -> Any:
    if isinstance(x, Quantized | Unscaled):
        return numbers(x)
    if isinstance(x, Deferred):
        return Deferred(*(_plain(numbers, operand) for operand in x))
    return tuple(_plain(numbers, item) for item in x) if isinstance(x, tuple) else x


def _numbers(x: Any, decoded: Any = None) -> Any:
    """Numbers in bfloat16.

    Args:
        x: of NumPy arrays, or of CuPy's.
        decoded: values of the 256 codes of e4m3, where their dtype is uint8.
    """
    if isinstance(x, Quantized):
        wide = (x.data.astype(np.float32) if decoded is None else decoded[x.data]) * x.scale
    else:
        wide = x.data.astype(np.float32) * x.rows * x.columns
        wide = wide if x.bias is None else wide + x.bias.astype(np.float32)
    return wide.astype(ml_dtypes.bfloat16)
