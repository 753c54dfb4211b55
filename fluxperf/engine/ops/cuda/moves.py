"""Primitives that move data, in one launch each: join or split tokens, exchange heads and tokens, join features."""

from __future__ import annotations

from typing import Any

from fluxperf.engine.ops.catalog import implements
from fluxperf.engine.ops.cuda.arrays import address, described, element, mismatch
from fluxperf.engine.ops.cuda.boxes import Part, contiguous, copy, part_of, side_by_side
from fluxperf.engine.ops.cuda.entries import BOX, COPIES, family

family("concat_tokens", f"{BOX} {BOX} i", COPIES)


@implements("concat_tokens", "primitives", device="cuda")
def concat_tokens(device: Any, first: Any, second: Any) -> Any:
    """Concatenates first [B, L1, ..] and second [B, L2, ..] along axis 1."""
    return side_by_side(device, "concat_tokens", first, second, axis=1)


family("join_features", f"{BOX} {BOX} i", COPIES)


@implements("join_features", "primitives", device="cuda")
def join_features(device: Any, first: Any, second: Any) -> Any:
    """Concatenates first [B, L, D] and second [B, L, M] along the last axis."""
    return side_by_side(device, "join_features", first, second, axis=-1)


family("split_tokens", f"{BOX} {BOX} i", COPIES)


@implements("split_tokens", "primitives", device="cuda")
def split_tokens(device: Any, x: Any, tokens: int) -> tuple[Any, Any]:
    """Splits x [B, L, ..] along axis 1 into two copies, in one launch."""
    op, layout = "split_tokens", described(x)
    kind = element(op, "x", layout)
    if len(layout.shape) not in (3, 4) or not 0 <= tokens <= layout.shape[1]:
        raise mismatch(op, "x", f"[B, L, ..] with 3 or 4 axes and L of {tokens} or more", layout, "Check tokens.")
    begin = address(op, "x", x)
    batch, length, *rest = layout.shape
    parts, places, results = [], [], []
    for start_, count in ((0, tokens), (tokens, length - tokens)):
        shape = (batch, count, *rest)
        out = device.empty(shape, kind.name)
        whole = part_of(op, "x", layout, contiguous(shape, kind.itemsize))
        parts.append(Part(shape, whole.source, whole.target))
        places.append((begin + start_ * layout.strides[1], address(op, "out", out)))
        results.append(out)
    copy(device, op, kind.itemsize, tuple(parts), tuple(places))
    return results[0], results[1]


family("transpose_heads", BOX, COPIES)


@implements("transpose_heads", "primitives", device="cuda")
def transpose_heads(device: Any, x: Any) -> Any:
    """Exchanges axes 1 and 2 of x [B, L, H, d]; the result [B, H, L, d] is a contiguous copy."""
    op, layout = "transpose_heads", described(x)
    kind = element(op, "x", layout)
    if len(layout.shape) != 4:
        raise mismatch(op, "x", "[B, L, H, d]", layout, "Split the heads with reshape.")
    place = address(op, "x", x)
    batch, tokens, heads, dim = layout.shape
    shape = (batch, heads, tokens, dim)
    out = device.empty(shape, kind.name)
    whole = part_of(op, "x", layout, contiguous(shape, kind.itemsize))
    first, second, third, last = whole.source
    part = Part(shape, (first, third, second, last), whole.target)
    copy(device, op, kind.itemsize, (part,), ((place, address(op, "out", out)),))
    return out
