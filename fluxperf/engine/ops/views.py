"""Implementations that move no data: the result is a view of the argument. They work on every device."""

from __future__ import annotations

from typing import Any

from fluxperf.engine.ops.catalog import implements
from fluxperf.engine.ops.table import Deferred, Halves, Quantized
from fluxperf.errors import ArgumentError


@implements("split_modulation", "views")
def split_modulation(device: Any, modulation: Any, parts: int) -> tuple[Any, ...]:
    """Column slices [B, D] of the modulation vectors [B, n D]."""
    width = modulation.shape[-1] // parts
    return tuple(modulation[:, part * width : (part + 1) * width] for part in range(parts))


@implements("linear", "deferred")
def deferred(device: Any, x: Any, weight: Any, bias: Any = None) -> Deferred:
    """Defers the product: `qkv_heads` computes it, with bias, norms, rotation and layout as its epilogue.

    Raises:
        ArgumentError: there is a bias, or features differ.
    """
    if bias is not None:
        raise ArgumentError(
            "linear 'deferred': expected a product without bias, got one with a bias. Pass the bias in biases."
        )
    if x.shape[-1] != weight.shape[-1]:
        raise ArgumentError(
            f"linear: expected x [.., {weight.shape[-1]}], with the number of features of the weight "
            f"{tuple(weight.shape)}, got {tuple(x.shape)}. Pass the tensor that belongs to this weight."
        )
    return Deferred(x, weight)


@implements("split_tokens", "views")
def split_tokens(device: Any, x: Any, tokens: int) -> tuple[Any, Any]:
    """The first tokens of x [B, L, ..], and the rest; of a quantized x with their scales."""
    if isinstance(x, Quantized | Halves):
        parts = [(None, None) if part is None else split_tokens(device, part, tokens) for part in x]
        first, rest = zip(*parts, strict=True)
        return type(x)(*first), type(x)(*rest)
    return x[:, :tokens], x[:, tokens:]


@implements("joined_halves", "views")
def joined_halves(device: Any, batch: int, tokens: int, left: int, right: int, dtype: str) -> tuple[Any, Any]:
    """Two column slices [B, L, D] and [B, L, M] of one buffer, so that `join_features` need not copy their results."""
    whole = device.empty((batch, tokens, left + right), dtype)
    return whole[:, :, :left], whole[:, :, left:]


@implements("joined_halves", "composed")
def separate_halves(device: Any, batch: int, tokens: int, left: int, right: int, dtype: str) -> tuple[None, None]:
    """No destinations: each op allocates its own result, and `join_features` copies."""
    return None, None
