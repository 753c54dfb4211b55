"""Plans of `qkv_heads` launches: each token is processed by one block, each of its heads and columns by one lane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fluxperf.engine.ops.cuda import plans, plans_fp8
from tests.pure.launches import BF16, F32, dense, every, offsets, view

HEADS: dict[str, Any] = {"shape": [(1, 8), (3, 64), (24, 128), (2, 72), (24, 256), (50, 8), (7, 248)]}
STREAMS: dict[str, Any] = {"lengths": [(5,), (4, 9), (1, 16), (33, 2), (0, 3)]}


def check_heads(plan, lengths: Sequence[int], per_block: int, heads: int, dim: int, w: int) -> None:
    """Checks that each token is processed by one block, and each of its heads and columns by one lane."""
    seen = [
        (place[-1] + token)
        for index, place in enumerate(plan.streams)
        for block in (range(plan.blocks) if index == 0 else range(plan.blocks, plan.grid[0]))
        for token in range(
            (block - index * plan.blocks) * per_block, min((block - index * plan.blocks + 1) * per_block, place[-2])
        )
    ]
    assert seen == list(range(sum(lengths)))
    assert plan.grid[0] == sum(-(-length // per_block) for length in lengths), "no block without a token"
    lanes = int(plan.entry.rpartition("_g")[2]) if "_g" in plan.entry else 32
    assert plan.threads % lanes == 0
    assert plan.threads <= 384
    columns = lanes * w if "_g" in plan.entry else dim
    assert columns >= dim, "a lane has one pack"
    groups = plan.threads // lanes
    taken = sorted(
        head * dim + lane * w
        for group in range(groups)
        for head in range(group, heads, groups)
        for lane in range(lanes)
        if lane * w < dim
    )
    if "_g" in plan.entry:
        assert taken == list(range(0, heads * dim, w))


@every(**HEADS, **STREAMS, dtype=(F32, BF16), aligned=(True, False))
def test_qkv_heads(lengths, shape, dtype, aligned) -> None:
    heads, dim = shape
    batch, width = 2, 3 * heads * dim
    qkvs = [view((batch, length, width), dtype, 8 * (index + 1)) for index, length in enumerate(lengths)]
    vectors = (dense((width,), dtype), dense((dim,), dtype), dense((dim,), dtype))
    cos, sin = dense((sum(lengths), dim)), view((sum(lengths), dim))
    plan = plans.qkv_heads(tuple((qkv, *vectors) for qkv in qkvs), cos, sin, heads, aligned)
    found = plan.entry.split("_")[3]
    check_heads(plan, lengths, plan.rest[3], heads, dim, int(found[1:]))
    for qkv, place in zip(qkvs, plan.streams, strict=False):
        places = offsets(qkv).reshape(qkv.shape)[..., 0]
        expected = [[b * place[0] + t * place[1] for t in range(qkv.shape[1])] for b in range(batch)]
        assert places.tolist() == expected
    assert plan.rest[:3] == (heads, dim, sum(lengths))
    assert plan.grid[1] == batch
    assert plan.strides == (dim * (sum(lengths) > 1), (dim + 8) * (sum(lengths) > 1))


@every(**HEADS, **STREAMS)
def test_qkv_heads_into_e4m3(lengths, shape) -> None:
    heads, dim = shape
    batch, width = 2, 3 * heads * dim
    streams = tuple(
        plans_fp8.Stream(
            view((batch, length, width), BF16, 8 * (index + 1)), view((batch, length, 1), F32, 3), dense((width,)),
            dense((width,), BF16), dense((dim,), BF16), dense((dim,), BF16),
        )
        for index, length in enumerate(lengths)
    )  # fmt: skip
    plan = plans_fp8.qkv_heads(streams, dense((sum(lengths), dim)), view((sum(lengths), dim)), heads, True)
    check_heads(plan, lengths, plan.rest[3], heads, dim, 8)
    width_, per_block, blocks = plan.peaks_tail
    assert (width_, plan.peaks_grid[1]) == (heads * dim, batch)
    assert plan.peaks_grid[0] == sum(-(-length // per_block) for length in lengths), "no block without a token"
    seen = [
        index * lengths[0] + token
        for index, length in enumerate(lengths)
        for block in (range(blocks) if index == 0 else range(blocks, plan.peaks_grid[0]))
        for token in range((block - index * blocks) * per_block, min((block - index * blocks + 1) * per_block, length))
    ]
    assert seen == list(range(sum(lengths))), "each value's peak once"
    for stream, place in zip(streams, plan.streams, strict=False):
        for layout, (by_sample, along) in ((stream.product, place[:2]), (stream.rows, place[2:4])):
            places = offsets(layout).reshape(layout.shape)[..., 0]
            assert places.tolist() == [
                [b * by_sample + t * along for t in range(layout.shape[1])] for b in range(batch)
            ]
    assert plan.rest[:3] == (heads, dim, sum(lengths))
    assert plan.grid[1] == batch
