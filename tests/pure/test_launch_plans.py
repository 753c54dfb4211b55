"""Plans of launches: every element is written once, from the right places of its operands, for all sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fluxperf.engine.ops.cuda import boxes, plans, plans_fp8
from fluxperf.engine.ops.cuda.arrays import Layout, merged
from fluxperf.errors import ArgumentError
from tests.pure.launches import (
    BF16,
    E4M3,
    F32,
    Visits,
    box,
    by_row,
    by_token,
    dense,
    every,
    mapped,
    offsets,
    rows_by_warps,
    tokens_in_turns,
    view,
)

#: Samples, tokens and width: one more and one less than threads, packs, groups and blocks hold; and zero.
SIZES = [
    (1, 1, 8), (2, 3, 64), (1, 4, 64), (3, 5, 72), (2, 9, 257), (1, 13, 1024), (2, 6, 1032), (1, 2, 3072), (1, 7, 3080),
    (2, 130, 16), (1, 3, 1), (2, 5, 7), (1, 1, 12_288), (2, 2, 12_296), (1, 0, 64), (0, 4, 64), (2, 3, 0),
]  # fmt: skip


def check(visits: Visits, out: Sequence[int], *operands: Layout) -> None:
    """Checks that each result element is written once, and that its operands are read at the right places."""
    order = np.argsort(visits.written, kind="stable")
    assert np.array_equal(visits.written[order], np.arange(math.prod(out))), "each element once"
    for found, operand in zip(visits.read, operands, strict=True):
        shape = (1,) * (len(out) - len(operand.shape)) + operand.shape
        strides = (0,) * (len(out) - len(operand.shape)) + operand.strides
        wide = Layout(tuple(out), tuple(0 if n == 1 else s for n, s in zip(shape, strides, strict=True)), operand.dtype)
        assert np.array_equal(found[order], offsets(wide)), "read where it lies"


def vector(layout: Layout) -> Layout:
    """[B, D] as [B, 1, D], which is broadcast over tokens."""
    (batch, width), (by_sample, along) = layout.shape, layout.strides
    return Layout((batch, 1, width), (by_sample, 0, along), layout.dtype)


DTYPES: dict[str, Any] = {"dtype": (F32, BF16)}
SIZED: dict[str, Any] = {"size": SIZES}
LAYOUTS: dict[str, Any] = {"made": (dense, view)}
ALIGNED: dict[str, Any] = {"aligned": (True, False)}


@every(**DTYPES, **SIZED, **LAYOUTS, **ALIGNED)
def test_modulate(size, dtype, made, aligned) -> None:
    batch, _, width = size
    x, scale, shift = made(size, dtype), made((batch, width), dtype), view((batch, width), dtype, 24)
    plan = plans.modulate(x, scale, shift, aligned)
    (xb, xt, sb, hb, count, packs, tiles) = plan.tail
    visits = by_token(plan, 4, [(xb, xt), (sb, 0), (hb, 0)], count, packs, tiles)
    check(visits, size, x, vector(scale), vector(shift))


@every(**DTYPES, **SIZED, **LAYOUTS)
def test_gated_residual(size, dtype, made) -> None:
    batch, _, width = size
    x, gate, y = made(size, dtype), view((batch, width), dtype), view(size, dtype, 16)
    plan = plans.gated_residual(x, gate, y, dense((width,), dtype), dense(size, dtype), True)
    (xb, xt, gb, yb, yt, ob, ot, count, packs, tiles) = plan.tail
    check(by_token(plan, 4, [(xb, xt), (gb, 0), (yb, yt)], count, packs, tiles), size, x, vector(gate), y)
    # Rows of the result, by its own strides.
    check(by_token(plan, 4, [(ob, ot)], count, packs, tiles), size, dense(size, dtype))


@every(**SIZED, **LAYOUTS)
def test_gated_residual_behind_a_product_in_e4m3(size, made) -> None:
    batch, tokens, width = size
    x, gate, y, out = made(size, BF16), view((batch, width), BF16), view(size, BF16, 16), view(size, BF16)
    rows = view((batch, tokens, 1), F32, 3)
    given = (x, gate, y, rows, dense((width,)), dense((width,), BF16), out)
    plan = plans_fp8.gated_residual(*given, True)
    (xb, xt, gb, yb, yt, rb, rt, ob, ot, count, packs, tiles) = plan.tail
    visits = by_token(plan, 4, [(xb, xt), (gb, 0), (yb, yt), (ob, ot)], count, packs, tiles)
    check(visits, size, x, vector(gate), y, out)
    if width and batch and tokens:
        scales = offsets(rows).reshape(batch, tokens)
        assert [b * rb + t * rt for b in range(batch) for t in range(tokens)] == scales.reshape(-1).tolist()


@every(**DTYPES, **SIZED, **LAYOUTS, **ALIGNED)
def test_layer_norm(size, dtype, made, aligned) -> None:
    x = made(size, dtype)
    plan = plans.layer_norm(x, 1e-6, aligned)
    version = plan.entry.rpartition("_")[2]
    held = None if version == "block" else int(version.removeprefix("p"))
    check(by_row(plan, 1 if held is None else 4, held, plan.tail[:-1]), size, x)


@every(**DTYPES, **SIZED, **LAYOUTS, **ALIGNED)
def test_rms_norm(size, dtype, made, aligned) -> None:
    x = made(size, dtype)
    plan = plans.rms_norm(x, dense((size[-1],), dtype), 1e-6, aligned)
    lanes = plan.tail[-2]
    assert 256 % lanes == 0
    assert lanes <= 32, "sums are made by shuffles within a warp"
    check(by_row(plan, 256 // lanes, None, plan.tail[:10]), size, x)


@every(
    **DTYPES,
    **LAYOUTS,
    **ALIGNED,
    size=[*SIZES, (1, 2, 16_384), (1, 1, 16_385), (1, 1, 16_388), (1, 2, 255), (1, 2, 8192)],
)
def test_softmax(size, dtype, made, aligned) -> None:
    x = made(size, dtype)
    plan = plans.softmax(x, "bfloat16", aligned)
    assert plan.threads % 32 == 0
    assert plan.threads <= 1024
    *rows, packs = plan.tail
    held = 4 if plan.entry.endswith("_held") else None
    check(by_row(plan, 1, held, (*rows, math.prod(size[:-1]), packs)), size, x)


@every(**DTYPES, **SIZED, **LAYOUTS, **ALIGNED)
def test_quantize_rows(size, dtype, made, aligned) -> None:
    x = made(size, dtype)
    plan = plans_fp8.quantize_rows(x, aligned)
    *rows, packs = plan.tail
    check(by_row(plan, 1, None, (*rows, math.prod(size[:-1]), packs)), size, x)


def turns(plan, tail, team: int) -> Visits:
    """Kinds of plans: a team per row, a warp per token, or a block per row."""
    version = plan.entry.rpartition("_")[2]
    if version.startswith("t"):
        return tokens_in_turns(plan, 1, team, int(version[1:]), tail)
    if version.startswith("p"):
        return tokens_in_turns(plan, 4, 32, int(version[1:]), tail)
    if version.startswith("r"):
        return rows_by_warps(plan, plan.threads // 32, tail)
    return tokens_in_turns(plan, 1, 256, None, tail)


@every(**DTYPES, **SIZED, **LAYOUTS, processors=[1, 132], made_by=[plans, plans_fp8])
def test_norm_modulate(size, dtype, made, processors, made_by) -> None:
    if made_by is plans_fp8 and dtype is F32:
        return
    batch, _, width = size
    x, shift, scale = made(size, dtype), view((batch, width), dtype), dense((batch, width), dtype)
    plan = made_by.norm_modulate(x, shift, scale, 1e-6, True, processors)
    (xb, xt, hb, sb, count, packs, _) = plan.tail
    check(turns(plan, (xb, xt, count, packs), 128), size if width else (0,), x if width else dense((0,)))
    if width:
        assert [b * hb for b in range(batch)] == offsets(shift)[::width].tolist()
        assert [b * sb for b in range(batch)] == offsets(scale)[::width].tolist()


@every(batch=[1, 2, 5], tokens=[24, 25, 31], pad=[0, 8], processors=[1, 2], made_by=[plans, plans_fp8])
def test_on_hopper_a_warp_takes_a_row(batch, tokens, pad, processors, made_by) -> None:
    size = batch, tokens, plans.ROW_VALUES
    x, vectors = view(size, BF16, pad), dense((batch, plans.ROW_VALUES), BF16)
    plan = made_by.norm_modulate(x, vectors, vectors, 1e-6, True, processors, True)
    assert plan.entry.endswith("bf16_w8_r12")
    assert plan.threads == 32 * plans.ROW_WARPS
    assert plan.grid[0] <= max(processors // batch, 1)
    (xb, xt, _, _, count, packs, _) = plan.tail
    check(rows_by_warps(plan, plans.ROW_WARPS, (xb, xt, count, packs)), size, x)
    for other in ((x, True, False), (x, False, True), (dense((batch, tokens, 2048), BF16), True, True)):
        narrow = dense((batch, other[0].shape[-1]), BF16)
        assert "r12" not in made_by.norm_modulate(other[0], narrow, narrow, 1e-6, other[1], processors, other[2]).entry


@every(batch=[1, 2], made_by=[plans, plans_fp8])
def test_few_rows_take_several_warps_each(batch, made_by) -> None:
    """512 rows took 4.1 us by several warps each and 4.3 by one on an H200; 4096 rows 15.6 and 11.8."""
    vectors = dense((batch, plans.ROW_VALUES), BF16)
    full = 132 * plans.ROW_WARPS // batch
    entries = [
        made_by.norm_modulate(dense((batch, tokens, 3072), BF16), vectors, vectors, 1e-6, True, 132, True).entry[-3:]
        for tokens in (0, full - 1, full)
    ]
    assert entries == ["_t3", "_t3", "r12"]


def test_a_team_takes_as_many_tokens_as_leave_no_block_waiting() -> None:
    x, vectors = dense((1, 4608, 3072), BF16), dense((1, 3072), BF16)
    plan = plans.norm_modulate(x, vectors, vectors, 1e-6, True, 132)
    assert (plan.entry, plan.threads) == ("norm_modulate_bf16_w8_t3", 128)
    assert plan.grid[0] <= 132 * 4, "blocks that the card holds at once"
    assert plan.grid[0] >= 4608 / math.ceil(4608 / (132 * 4))


@every(**SIZED, **LAYOUTS, processors=[1, 132])
def test_gelu_into_e4m3(size, made, processors) -> None:
    batch, tokens, width = size
    y, rows, out = made(size, BF16), view((batch, tokens, 1), F32, 3), view(size, E4M3, 64)
    plan = plans_fp8.gelu(y, rows, dense((width,)), dense((width,), BF16), out, True, processors)
    (yb, yt, rb, rt, ob, ot, count, packs) = plan.tail
    visits = turns(plan, (yb, yt, count, packs), 512)
    check(visits, size if width else (0,), y if width else dense((0,)))
    if math.prod(size):
        check(turns(plan, (ob, ot, count, packs), 512), size, out)
        assert [b * rb + t * rt for b in range(batch) for t in range(tokens)] == offsets(rows).tolist()


@every(
    aligned=[True, False], size=[(2, 5, 48, 16), (1, 4, 3072, 12_288), (2, 3, 7, 9), (1, 9, 16, 24), (1, 0, 16, 16)],
    gap=[0, 16, 3],
)  # fmt: skip
def test_join_features_in_e4m3(size, aligned, gap) -> None:
    batch, tokens, left, right = size
    whole, half = view((batch, tokens, left + right), E4M3, 16), view((batch, tokens, left), E4M3, gap)
    first, second = view((batch, tokens, 1), F32, 1), dense((batch, tokens, 1))
    plan = plans_fp8.join_features(half, whole, first, second, aligned)
    (hb, ht, wb, wt, fb, ft, count, one, other) = plan.tail
    word = int(plan.entry.rpartition("_b")[2])
    assert (one * word, other * word) == (left, right)
    plan = plan._replace(entry=f"_w{word}")
    for packs, width, steps, made in (
        (one, left, (hb, ht), half),
        (one, left, (wb, wt), whole),
        (other, right, (wb, wt), whole),
    ):
        visits = tokens_in_turns(plan, 4, 32, None, (*steps, count, packs))
        check(visits, (batch, tokens, width), Layout((batch, tokens, width), made.strides, E4M3))
    if math.prod(size):
        assert [b * fb + t * ft for b in range(batch) for t in range(tokens)] == offsets(first).tolist()
    assert word == (16 if aligned and left % 16 == (left + right) % 16 == gap % 16 == 0 else 1)


def test_scales_that_lie_apart_are_an_error_and_others_are_not_written_over() -> None:
    """The kernel writes the scales of whole rows behind each other."""
    half, whole, first = dense((2, 5, 48), E4M3), dense((2, 5, 64), E4M3), dense((2, 5, 1))
    for second in (view((2, 5, 1), F32, 1), Layout((2, 5, 1), (6, 1, 1), F32)):
        with pytest.raises(ArgumentError, match="side by side, as its rows' scales are written there"):
            plans_fp8.join_features(half, whole, first, second, True)


@every(heads=[1, 3, 24, 300], dim=[2, 8, 64, 72, 128, 264], **DTYPES)
def test_apply_rope(heads, dim, dtype) -> None:
    batch, tokens = 2, 3
    x = view((batch, tokens, heads, dim), dtype)
    plan = plans.apply_rope(x, dense((tokens, dim)), view((tokens, dim)), True)
    (xb, xt, xh, cos, sin, count, packs, lanes) = plan.tail
    w = int(plan.entry.rpartition("_w")[2])
    assert (plan.grid, packs * w, count, cos, sin) == ((tokens, batch), dim, heads, dim, dim + 8)
    groups = 128 // lanes
    found = sorted(
        head * dim + p * w
        for thread in range(128)
        for p in range(thread & (lanes - 1), packs, lanes)
        for head in range(thread // lanes, heads, groups)
    )
    assert found == list(range(0, heads * dim, w))
    places = offsets(x).reshape(batch, tokens, heads, dim)[..., 0]
    assert places.tolist() == [
        [[b * xb + t * xt + h * xh for h in range(heads)] for t in range(tokens)] for b in range(batch)
    ]


MAPPED = [(5,), (2, 3), (2, 3, 64), (1, 1, 4096), (3, 513), (2, 2, 2, 2, 8), (2, 0, 4), (4, 2048), (7, 2052), (2, 2, 1)]


@every(**DTYPES, **LAYOUTS, **ALIGNED, shape=MAPPED)
def test_maps_of_one_array(shape, dtype, made, aligned) -> None:
    x = made(shape, dtype)
    for plan in (plans.elementwise("gelu", x, aligned), plans.cast(x, "bfloat16", aligned)):
        check(mapped(plan, 1), shape, x)


@every(**DTYPES, shape=MAPPED)
def test_euler_step(shape, dtype) -> None:
    latents, velocity = dense(shape, F32), view(shape, dtype)
    check(mapped(plans.euler_step(latents, velocity, True), 2), shape, latents, velocity)


BROADCAST = [
    ((2, 3, 64), (64,)), ((2, 3, 64), (2, 1, 64)), ((2, 3, 64), (2, 3, 64)), ((2, 1, 5), (1, 4, 1)), ((3, 1), (1, 7)),
    ((2, 3, 1), (3, 1)), ((1,), (2, 600)), ((4, 1, 2, 1, 3), (1, 5, 1, 2, 3)), ((2, 0, 4), (4,)), ((2, 2100), (2, 1)),
]  # fmt: skip


@every(**DTYPES, **ALIGNED, pair=BROADCAST)
def test_add_broadcast(pair, dtype, aligned) -> None:
    one, other = pair
    shape = np.broadcast_shapes(one, other)
    x, y = view(one, dtype), view(other, dtype, 16)
    plan = plans.add_broadcast(x, y, shape, aligned)
    steps = plan.tail[-2:] if plan.entry.endswith("_any") else None
    check(mapped(plan._replace(tail=plan.tail[:14]), 2, steps), shape, x, y)


BOXES = [(2, 3, 8), (1, 5, 64), (2, 2, 3, 7), (3, 1, 1), (1, 2, 2100), (2, 0, 8), (5, 130, 2), (2, 3, 4, 5)]


@every(itemsize=[2, 4], alignment=[0, 4, 2], shape=BOXES)
def test_boxes(shape, itemsize, alignment) -> None:
    if alignment % itemsize:
        return  # addresses are multiples of an element
    dtype = F32 if itemsize == 4 else BF16
    second = (*shape[:1], 3, *shape[2:])
    places = [(view(part, dtype, 6), dense(part, dtype)) for part in (shape, second)]
    parts = tuple(boxes.Part(x.shape, x.strides, to.strides) for x, to in places)
    plan = boxes.planned("concat_tokens", parts, itemsize, alignment)
    assert plan.word in (16, 4, 2)
    assert alignment % plan.word == 0
    assert plan.grid[1] == 1
    counts = (plan.blocks, plan.grid[0] - plan.blocks)
    for (x, to), parameters, blocks in zip(places, plan.boxes, counts, strict=True):
        words = sorted(
            (target * plan.word + byte, source * plan.word + byte)
            for source, target in box(parameters, blocks)
            for byte in range(0, plan.word, itemsize)
        ) if plan.word >= itemsize else sorted(
            (target * plan.word, source * plan.word)
            for source, target in box(parameters, blocks) if target * plan.word % itemsize == 0
        )  # fmt: skip
        expected = sorted(zip((offsets(to) * itemsize).tolist(), (offsets(x) * itemsize).tolist(), strict=True))
        assert words == expected


def test_axes_of_one_index_count_for_nothing() -> None:
    """Their stride is never used."""
    assert merged((2, 1, 3, 1, 4), [(100, 7, 30, 9, 1)]) == ([2, 3, 4], [[100, 30, 1]])
    assert merged((1, 2, 1, 4), [(5, 4, 77, 1), (9, 8, 3, 2)]) == ([8], [[1], [2]])


def test_boxes_that_are_too_many() -> None:
    uneven = boxes.Part((2, 2, 2, 2, 2), (1000, 300, 90, 20, 2), (32, 16, 8, 4, 2))
    with pytest.raises(ArgumentError, match="at most four unevenly spaced axes"):
        boxes.planned("transpose_heads", (uneven,), 2, 0)
    with pytest.raises(ArgumentError, match="fewer than 2\\^30 rows"):
        boxes.planned("transpose_heads", (boxes.Part((2**30, 1), (32, 2), (16, 2)),), 2, 0)


def test_wide_accesses_need_every_row_at_sixteen_bytes() -> None:
    """One operand with misaligned rows is enough to fall back to single elements."""
    size, vectors = (2, 3, 64), dense((2, 64), BF16)
    odd, odd_vectors = view(size, BF16, 1), view((2, 64), BF16, 1)
    assert plans.modulate(dense(size, BF16), vectors, vectors, True).entry == "modulate_bf16_w8"
    for given in (
        (odd, vectors, vectors, True),
        (dense(size, BF16), odd_vectors, vectors, True),
        (dense(size, BF16), vectors, odd_vectors, True),
        (dense(size, BF16), vectors, vectors, False),
    ):
        assert plans.modulate(*given).entry == "modulate_bf16_w1"
    x, out = dense(size, BF16), dense(size, BF16)
    for given in (
        (odd, vectors, x, None, out),
        (x, odd_vectors, x, None, out),
        (x, vectors, odd, None, out),
        (x, vectors, x, None, odd),
    ):
        assert plans.gated_residual(*given, True).entry == "gated_residual_bf16_w1"
