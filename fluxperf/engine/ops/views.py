"""Implementations that move no data: the result is a view of the argument. They serve every device."""

from __future__ import annotations

from typing import Any

from fluxperf.engine.ops.catalog import implements
from fluxperf.engine.ops.table import Deferred, Quantized
from fluxperf.errors import ArgumentError


@implements("split_modulation", "views")
def split_modulation(device: Any, modulation: Any, parts: int) -> tuple[Any, ...]:
    """Column slices of the modulation vectors."""
    width = modulation.shape[-1] // parts
    return tuple(modulation[:, part * width : (part + 1) * width] for part in range(parts))


@implements("linear", "deferred")
def deferred(device: Any, x: Any, weight: Any, bias: Any = None) -> Deferred:
    """The operands: `qkv_heads` computes the product, with bias, norms, rotation and layout behind it.

    Raises:
        ArgumentError: there is a bias, or features differ.
    """
    if bias is not None:
        raise ArgumentError("linear 'deferred': expected a product without bias, got one with. Pass it in biases.")
    if x.shape[-1] != weight.shape[-1]:
        raise ArgumentError(
            f"linear: expected x [.., {weight.shape[-1]}], as many features as the weight {tuple(weight.shape)} takes, "
            f"got {tuple(x.shape)}. Pass the tensor that this weight belongs to."
        )
    return Deferred(x, weight)


@implements("split_tokens", "views")
def split_tokens(device: Any, x: Any, tokens: int) -> tuple[Any, Any]:
    """The first tokens, and the rest; of quantized ones with their scales."""
    if isinstance(x, Quantized):
        parts = [(None, None) if part is None else split_tokens(device, part, tokens) for part in x]
        first, rest = zip(*parts, strict=True)
        return Quantized(*first), Quantized(*rest)
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
