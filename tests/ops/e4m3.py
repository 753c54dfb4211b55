"""Cases for e4m3 values, for the twins and for kernels, which must agree bit by bit."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from fluxperf.engine.device.base import Device
from fluxperf.engine.ops import reference
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.ops.table import Quantized, Settings
from fluxperf.engine.phases import table
from tests.ops.checking import on_host

#: Largest values of a row, and the scale that each needs. 448 is 1.75 times 2^8.
BOUNDARIES = [
    (448.0, 1.0),
    (448.0 * (1 + 2**-20), 2.0),
    (449.0, 2.0),
    (447.0, 1.0),
    (224.0, 0.5),
    (1.0, 2.0**-8),
    (1.75, 2.0**-8),
    (1.7501, 2.0**-7),
    (3e4, 128.0),
    (2.0**100, 2.0**92),
    (2.0**-100, 2.0**-108),
    (1e-38, 2.0**-126),
]


def ops_of(device: Device) -> Any:
    """The ops of a single block on the rung fp8."""
    return bind("fp8", table("fp8"), device, Settings("bfloat16")).ops["single"]


def up(device: Device, numbers: Any, dtype: Any = ml_dtypes.bfloat16) -> Any:
    """Values on the device, rounded to a dtype."""
    return device.door.to_device(np.asarray(numbers).astype(dtype), "argument")


def rows_of_every_size() -> Any:
    """Random rows [60, 128] from 2^-30 to 2^29, float64."""
    draw = np.random.default_rng(5)
    return draw.standard_normal((60, 128)) * 2.0 ** np.arange(-30, 30)[:, None]


def joined_by_hand(left: Any, right: Any) -> tuple[Any, Any]:
    """Values and scales, in float64, of two halves (data, scale) after bringing them to one scale per row.

    It is the right half's scale wherever the left half fits it, else the smallest power of two that holds the left
    half.
    """
    wide = [half.data.astype(np.float64) * half.scale for half in (left, right)]
    scale = right.scale.astype(np.float64).copy()
    for place in np.ndindex(scale.shape[:-1]):
        while np.abs(wide[0][place]).max() > 448 * scale[place][0]:
            scale[place] *= 2
    numbers = np.concatenate(wide, axis=-1) / scale
    return numbers.astype(np.float32).astype(ml_dtypes.float8_e4m3fn).astype(np.float64), scale


def least(largest: float) -> float:
    """The smallest power of two that brings a number within 448."""
    return float(2.0 ** np.ceil(np.log2(largest / 448)))


def errors_of_means(device: Device, tokens: int, larger: float) -> list[float]:
    """Relative errors of attention that averages over all tokens, against float64.

    With values in their own scale; in one that is too large by a power of two, with a scale for means; and without.
    """
    draw, dtype = np.random.default_rng(7), ml_dtypes.float8_e4m3fn
    wide = [draw.standard_normal((1, 2, tokens, 128)) * std for std in (0.3, 0.3, 5.0)]
    scales = [least(np.abs(x).max()) for x in wide]
    numbers = [(x / scale).astype(np.float32).astype(dtype) for x, scale in zip(wide, scales, strict=True)]
    wanted = reference.attention(*(x.astype(np.float64) * scale for x, scale in zip(numbers, scales, strict=True)))
    numbers.append((wide[2] / (scales[2] * larger)).astype(np.float32).astype(dtype))
    scales.append(scales[2] * larger)
    stored = [x if device.kind == "host" else x.view(np.uint8) for x in numbers]
    q, k, v, loose = (
        Quantized(up(device, x, x.dtype), up(device, np.full((1, 1, 1, 1), scale), np.float32))
        for x, scale in zip(stored, scales, strict=True)
    )
    means = up(device, [scales[2], larger], np.float32)
    results = [ops_of(device).attention(q, k, values) for values in (v, loose._replace(means=means), loose)]
    assert np.array_equal(on_host(device, results[0].scale), on_host(device, results[1].scale))
    values = [on_host(device, result).astype(np.float64) for result in results]
    return [float(np.linalg.norm(x - wanted) / np.linalg.norm(wanted)) for x in values]
