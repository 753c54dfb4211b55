"""Tables that the GPU computes from launch parameters: nothing is copied."""

from __future__ import annotations

from typing import Any

from fluxperf.engine.ops.catalog import implements
from fluxperf.engine.ops.cuda.arrays import grid
from fluxperf.engine.ops.cuda.entries import family, start
from fluxperf.engine.ops.frequencies import timestep_frequencies
from fluxperf.errors import ArgumentError

#: Timesteps and frequencies that one launch takes. The kernel has the same constants; a test compares them.
_TIMESTEPS = 64  # TIMESTEPS: timestep_embedding.cu
_FREQUENCIES = 128  # FREQUENCIES: timestep_embedding.cu


family("timestep_embedding", f"P {_TIMESTEPS}f {_FREQUENCIES}f i", "f32")


@implements("timestep_embedding", "primitives", device="cuda")
def timestep_embedding(device: Any, values: tuple[float, ...], features: int = 256) -> Any:
    """S timesteps to [S, features] float32, cosines first; angles in float32."""
    half = features // 2
    if features % 2 or half > _FREQUENCIES:
        raise ArgumentError(
            f"timestep_embedding: expected an even number of features, at most {2 * _FREQUENCIES}, got {features}. "
            "FLUX.1 has 256."
        )
    frequencies = (*map(float, timestep_frequencies(half)), *(0.0,) * (_FREQUENCIES - half))
    out = device.empty((len(values), features), "float32")
    for first in range(0, len(values), _TIMESTEPS):
        part = values[first : first + _TIMESTEPS]
        padded = (*map(float, part), *(0.0,) * (_TIMESTEPS - len(part)))
        place = out.data.ptr + first * features * 4
        blocks = (len(part) if features else 0, 1)
        start(device, "timestep_embedding_f32", blocks, 128, place, *padded, *frequencies, half)
    return out


family("rope_table", "P P d 3i i i", "f32")


@implements("rope_table", "primitives", device="cuda")
def rope_table(
    device: Any, text_tokens: int, rows: int, columns: int, axes: tuple[int, ...], theta: float
) -> tuple[Any, Any]:
    """cos and sin [T + rows columns, d] in float32, from angles in float64."""
    if len(axes) != 3 or any(width % 2 for width in axes):
        raise ArgumentError(
            f"rope_table: expected three even axis widths, got {axes}. Check the model's configuration."
        )
    shape = (text_tokens + rows * columns, sum(axes))
    cos, sin = device.empty(shape, "float32"), device.empty(shape, "float32")
    blocks = grid("rope_table", shape[0] if shape[1] else 0)
    start(device, "rope_table_f32", blocks, 128, cos.data.ptr, sin.data.ptr, float(theta), *axes, text_tokens, columns)
    return cos, sin
