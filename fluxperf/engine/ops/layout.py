"""Halves of rows: recognizes two views that make up one array, so that joining them moves no data."""

from __future__ import annotations

from typing import Any

from fluxperf.engine.ops.table import Halves, Quantized
from fluxperf.errors import ArgumentError


def joined(first: Any, second: Any, axis: int) -> Any | None:
    """The array whose halves along ``axis`` are ``first`` and ``second``; ``None`` if there is none.

    Both must be views of one owner that covers exactly the joined extents, in order. Owners are compared by identity,
    not by address: two allocations that happen to be adjacent are not taken for one.
    """
    owner = first.base
    if owner is None or owner is not second.base or len(first.shape) != len(second.shape):
        return None
    axis %= len(first.shape)
    extents, beside = list(first.shape), list(second.shape)
    extents[axis] = beside[axis] = first.shape[axis] + second.shape[axis]
    fits = (
        tuple(extents) == tuple(beside) == tuple(owner.shape)
        and first.strides == owner.strides == second.strides
        and first.data.ptr == owner.data.ptr
        and second.data.ptr == owner.data.ptr + first.shape[axis] * owner.strides[axis]
    )
    return owner if fits else None


def halves(first: Quantized, second: Quantized) -> Halves:
    """Two operands [.., D] and [.., M] as halves of the same rows.

    Raises:
        ArgumentError: their rows differ.
    """
    if first.shape[:-1] != second.shape[:-1]:
        raise ArgumentError(
            f"join_features: expected halves with the same rows, got {tuple(first.shape)} and {tuple(second.shape)}. "
            "Only the last axis may differ."
        )
    return Halves(first, second)
