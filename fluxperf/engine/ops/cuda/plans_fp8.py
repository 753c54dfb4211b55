"""Plans of the launches that quantize to e4m3, or that follow an e4m3 product. See `plans`."""

from __future__ import annotations

from typing import NamedTuple

from fluxperf.engine.ops.cuda.arrays import (
    BFLOAT16,
    FLOAT32,
    Layout,
    element,
    grid,
    mismatch,
    need,
    rows_of,
    steps,
)
from fluxperf.engine.ops.cuda.plans import (
    HEADS_TOKENS,
    RESIDENT,
    ROW_VALUES,
    TEAM,
    Plan,
    access_width,
    by_rows,
    by_token,
    heads_lanes,
    remembered,
    rows_fill,
    three,
    up,
)

# Constants that kernels share have their name and files in a trailing comment; a test compares both.
#: Threads of a team of `gelu_fp8`, packs that each may hold, teams of a multiprocessor.
_GELU_TEAM = 512  # THREADS: gelu_fp8.cu
_GELU_PACKS = (1, 3)
_GELU_RESIDENT = 2  # RESIDENT: gelu_fp8.cu
#: Warps of a block of `join_features_fp8`, a row each.
_JOIN_WARPS = 4  # WARPS: join_features_fp8.cu
#: Threads and tokens of a block of `value_peaks`; elements of a pack; lanes that `qkv_heads_fp8` has versions for.
PEAK_THREADS = 384  # THREADS: value_peaks.cu
_PEAK_TOKENS = 16
_PACK = 8  # W: value_peaks.cu qkv_heads_fp8.cu
_LANES = 32


def _bfloat16(op: str, argument: str, layout: Layout) -> None:
    if element(op, argument, layout) is not BFLOAT16:
        raise mismatch(op, argument, "in bfloat16", layout, "Convert it with cast.")


@remembered
def quantize_rows(x: Layout, aligned: bool) -> Plan:
    """Plan that quantizes rows to e4m3, each with its scale."""
    op, kind = "quantize_rows", element("quantize_rows", "x", x)
    if not x.shape:
        raise mismatch(op, "x", "with at least one axis", x, "The op works along the last axis.")
    rows = rows_of(op, x.shape[:-1], (steps(op, "x", x, kind)[:-1],))
    w = access_width(kind, aligned, x.shape[-1], *rows.strides[0])
    tail = (*rows.extents, *rows.strides[0], x.shape[-1] // w)
    return Plan(f"{op}_{kind.code}_w{w}", grid(op, rows.number), 256, tail)


@remembered
def norm_modulate(
    x: Layout, shift: Layout, scale: Layout, eps: float, aligned: bool, processors: int, hopper: bool = False
) -> Plan:
    """Plan of a layer norm with modulation, into e4m3."""
    op = "norm_modulate"
    batch, tokens, width = three(op, x)
    _bfloat16(op, "x", x)
    xs = steps(op, "x", x, BFLOAT16)
    plus = need(op, "shift", shift, (batch, width), BFLOAT16, "[B, D]")
    by = need(op, "scale", scale, (batch, width), BFLOAT16, "[B, D]")
    strides = (*xs[:2], plus[0], by[0])
    w = access_width(BFLOAT16, aligned, width, *strides)
    tail = (*strides, tokens, width // w, eps)
    if hopper and w > 1 and width == ROW_VALUES and rows_fill(tokens * batch, processors):
        return by_rows(op, "norm_modulate_fp8_bf16", tokens, batch, processors, tail)
    team = next((t for t in RESIDENT if w > 1 and width // w <= TEAM * t), 0)
    if team:
        each = max(up(tokens * batch, processors * RESIDENT[team]), 1)
        blocks = grid(op, up(tokens, each) if width else 0, batch)
        return Plan(f"norm_modulate_fp8_bf16_w{w}_t{team}", blocks, TEAM, tail)
    return Plan(f"norm_modulate_fp8_bf16_w{w}_block", grid(op, tokens if width else 0, batch), 256, tail)


@remembered
def gelu(y: Layout, rows: Layout, columns: Layout, bias: Layout, out: Layout, aligned: bool, processors: int) -> Plan:
    """Plan that applies scales, bias and tanh-GELU to a product and quantizes to e4m3."""
    op = "linear_gelu"
    batch, tokens, width = three(op, y)
    _bfloat16(op, "the product", y)
    ys = steps(op, "the product", y, BFLOAT16)
    rs = need(op, "its scales by token", rows, (batch, tokens, 1), FLOAT32, "[B, L, 1]")
    need(op, "its scales by column", columns, (width,), FLOAT32, "[M]")
    need(op, "bias", bias, (width,), BFLOAT16, "[M]")
    if out.shape != y.shape or (y.shape[0] and width > 1 and out.strides[-1] != 1):
        raise mismatch(op, "out", f"[B, L, M] = {list(y.shape)} in e4m3, unit stride last", out, "See joined_halves.")
    w = access_width(BFLOAT16, aligned, width, *ys[:2], *out.strides[:2])
    tail = (*ys[:2], *rs[:2], *out.strides[:2], tokens, width // w)
    team = next((t for t in _GELU_PACKS if w > 1 and width // w <= _GELU_TEAM * t), 0)
    if team:
        each = max(up(tokens * batch, processors * _GELU_RESIDENT), 1)
        blocks = grid(op, up(tokens, each) if width else 0, batch)
        return Plan(f"gelu_fp8_bf16_w{w}_t{team}", blocks, _GELU_TEAM, tail)
    return Plan(f"gelu_fp8_bf16_w{w}_block", grid(op, tokens if width else 0, batch), 256, tail)


@remembered
def gated_residual(
    x: Layout, gate: Layout, y: Layout, rows: Layout, columns: Layout, bias: Layout, out: Layout, aligned: bool
) -> Plan:
    """Plan of ``x + gate (y rows columns + bias)``."""
    op = "linear_gated_residual"
    batch, tokens, width = three(op, x)
    _bfloat16(op, "x", x)
    xs = steps(op, "x", x, BFLOAT16)
    by = need(op, "gate", gate, (batch, width), BFLOAT16, "[B, D]")
    ys = need(op, "the product", y, x.shape, BFLOAT16, "[B, L, D]")
    rs = need(op, "its scales by token", rows, (batch, tokens, 1), FLOAT32, "[B, L, 1]")
    need(op, "its scales by column", columns, (width,), FLOAT32, "[D]")
    need(op, "bias", bias, (width,), BFLOAT16, "[D]")
    to = need(op, "out", out, x.shape, BFLOAT16, "[B, L, D]")
    strides = (*xs[:2], by[0], *ys[:2], *rs[:2], *to[:2])
    w = access_width(BFLOAT16, aligned, width, *xs[:2], by[0], *ys[:2], *to[:2])
    return by_token(f"gated_residual_fp8_bf16_w{w}", op, x.shape, w, (*strides, tokens))


@remembered
def join_features(half: Layout, whole: Layout, first: Layout, second: Layout, aligned: bool) -> Plan:
    """Plan that brings a half [B, L, D], and rows [B, L, D + M] that have the other half, in e4m3 to one scale each.

    ``first`` and ``second`` are the scales of both.
    """
    op = "join_features"
    batch, tokens, width = three(op, whole)
    left = half.shape[-1]
    scales = need(op, "first's scales", first, (batch, tokens, 1), FLOAT32, "[B, L, 1]")
    behind = need(op, "second's scales", second, (batch, tokens, 1), FLOAT32, "[B, L, 1]")
    if batch and ((tokens > 1 and behind[1] != 1) or (batch > 1 and behind[0] != tokens)):
        raise mismatch(op, "second's scales", "side by side, as its rows' scales are written there", second, "Copy it.")
    strides = *half.strides[:2], *whole.strides[:2]
    wide = aligned and all(extent % 16 == 0 for extent in (left, width, *strides))
    word = 16 if wide else 1
    blocks = grid(op, up(tokens, _JOIN_WARPS) if width else 0, batch)
    tail = (*strides, *scales[:2], tokens, left // word, (width - left) // word)
    return Plan(f"join_features_fp8_b{word}", blocks, 32 * _JOIN_WARPS, tail)


class Stream(NamedTuple):
    """Layouts of one stream of an e4m3 QKV product."""

    product: Layout
    rows: Layout
    columns: Layout
    bias: Layout
    q_norm: Layout
    k_norm: Layout


class HeadsPlan(NamedTuple):
    """Plans of `value_peaks` and `qkv_heads_fp8`: parameters of both streams (zeros if one is missing), the rest."""

    streams: tuple[tuple[int, ...], ...]
    peaks_grid: tuple[int, int]
    peaks_tail: tuple[int, int, int]
    entry: str
    grid: tuple[int, int]
    threads: int
    tables: tuple[int, int]
    rest: tuple[int, int, int, int]
    blocks: int


_NO_STREAM = (0,) * 6


@remembered
def qkv_heads(streams: tuple[Stream, ...], cos: Layout, sin: Layout, heads: int, aligned: bool) -> HeadsPlan:
    """Plan for the streams of an e4m3 product."""
    op, first = "qkv_heads", streams[0].product
    if len(first.shape) != 3 or heads < 1 or first.shape[-1] % (3 * _PACK * heads):
        raise mismatch(
            op, "qkvs[0]", f"[B, L, 3 H d] with H = {heads} and d a multiple of {_PACK}", first, "Use a bfloat16 rung."
        )
    batch, _, width = first.shape
    dim, start, places = width // (3 * heads), 0, []
    for index, stream in enumerate(streams):
        tokens = stream.product.shape[1] if len(stream.product.shape) == 3 else -1
        _bfloat16(op, f"qkvs[{index}]", stream.product)
        spaced = need(op, f"qkvs[{index}]", stream.product, (batch, tokens, width), BFLOAT16, "[B, Li, 3 H d]")
        rows = need(op, f"scales by token of qkvs[{index}]", stream.rows, (batch, tokens, 1), FLOAT32, "[B, Li, 1]")
        need(op, f"scales by column of qkvs[{index}]", stream.columns, (width,), FLOAT32, "[3 H d]")
        need(op, f"biases[{index}]", stream.bias, (width,), BFLOAT16, "[3 H d]")
        need(op, f"q_norms[{index}]", stream.q_norm, (dim,), BFLOAT16, "[d]")
        need(op, f"k_norms[{index}]", stream.k_norm, (dim,), BFLOAT16, "[d]")
        places.append((*spaced[:2], *rows[:2], tokens, start))
        start += tokens
    tables = tuple(need(op, name, x, (start, dim), FLOAT32, "[L, d]")[0] for name, x in (("cos", cos), ("sin", sin)))
    if dim // _PACK > _LANES:
        raise mismatch(op, "qkvs[0]", f"with heads of at most {_PACK * _LANES}", f"d = {dim}", "Use a bfloat16 rung.")
    if not aligned or any(step % _PACK for place in places for step in place[:2]):
        raise mismatch(
            op, "qkvs, scales by column, biases and norms", "at addresses and row strides of 16 bytes and multiples",
            first, "Copy what is not.",
        )  # fmt: skip
    lanes, threads = heads_lanes(dim // _PACK, heads)
    blocks = [up(place[4], HEADS_TOKENS) for place in places]
    peaks = [up(place[4], _PEAK_TOKENS) for place in places]
    there = width and batch
    return HeadsPlan(
        streams=(*places, _NO_STREAM)[:2],
        peaks_grid=grid(op, sum(peaks) if there else 0, batch),
        peaks_tail=(heads * dim, _PEAK_TOKENS, peaks[0]),
        entry=f"qkv_heads_fp8_bf16_g{lanes}",
        grid=grid(op, sum(blocks) if there else 0, batch),
        threads=threads,
        tables=(tables[0], tables[1]),
        rest=(heads, dim, start, HEADS_TOKENS),
        blocks=blocks[0],
    )
