"""Flash attention on the GPU, which writes its result directly into the buffer that the next product reads."""

from __future__ import annotations

from typing import Any

from fluxperf.engine.device.cudnn import Layout
from fluxperf.engine.ops.catalog import implements
from fluxperf.engine.ops.cuda.arrays import check_heads


@implements("attention", "flash", device="cuda")
def attention(device: Any, q: Any, k: Any, v: Any, out: Any = None) -> Any:
    """Attention of Q [B, H, N, d], K and V [B, H, L, d] to [B, N, H d]; ``out`` may be half of a joined buffer.

    *Numerics*: bfloat16 operands, float32 scores and sums, one rounding of the result.
    """
    check_heads(q, k, v, out)
    batch, heads, tokens, dim = q.shape
    if out is None:
        out = device.empty((batch, tokens, heads * dim), str(q.dtype))
    if q.size == 0:
        return out
    item = out.itemsize
    layout = Layout(
        shape=q.shape, dtype=str(q.dtype),
        q=_elements(q), k=_elements(k), v=_elements(v),
        o=(out.strides[0] // item, dim, out.strides[1] // item, 1), keys=k.shape[2],
    )  # fmt: skip
    device.attention.attention(layout, q.data.ptr, k.data.ptr, v.data.ptr, out.data.ptr)
    return out


def _elements(x: Any) -> tuple[int, ...]:
    return tuple(stride // x.itemsize for stride in x.strides)
