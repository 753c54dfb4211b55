"""Implementations that move no data: the result is a view of the argument. They serve every device."""

from __future__ import annotations

from typing import Any

from fluxperf.engine.ops.catalog import implements
from fluxperf.engine.ops.table import Quantized


@implements("split_modulation", "views")
def split_modulation(device: Any, modulation: Any, parts: int) -> tuple[Any, ...]:
    """Column slices of the modulation vectors."""
    width = modulation.shape[-1] // parts
    return tuple(modulation[:, part * width : (part + 1) * width] for part in range(parts))


@implements("split_tokens", "views")
def split_tokens(device: Any, x: Any, tokens: int) -> tuple[Any, Any]:
    """The first tokens, and the rest; of quantized ones with their scales."""
    if isinstance(x, Quantized):
        first, rest = (split_tokens(device, part, tokens) for part in x)
        return Quantized(first[0], rest[0]), Quantized(first[1], rest[1])
    return x[:, :tokens], x[:, tokens:]


@implements("joined_halves", "views")
def joined_halves(device: Any, batch: int, tokens: int, left: int, right: int, dtype: str) -> tuple[Any, Any]:
    """Two column slices of one buffer, for results that `join_features` will then find joined."""
    whole = device.empty((batch, tokens, left + right), dtype)
    return whole[:, :, :left], whole[:, :, left:]


@implements("joined_halves", "composed")
def separate_halves(device: Any, batch: int, tokens: int, left: int, right: int, dtype: str) -> tuple[None, None]:
    """No destinations: each op allocates its own result, and `join_features` copies."""
    return None, None
