"""Plans of launches: entry point, grid and parameters, derived from the layouts of an op's arguments.

A plan depends on layouts and on whether all addresses are multiples of 16 bytes, never on values. So each is checked
and made once, and then looked up. An empty array gives an empty grid.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from fluxperf.engine.ops.cuda.arrays import (
    BFLOAT16,
    FLOAT32,
    Element,
    Layout,
    Rows,
    element,
    grid,
    length,
    merged,
    mismatch,
    need,
    power_of_two,
    rows_of,
    steps,
)
from fluxperf.errors import ArgumentError

# Constants that kernels share have their name and files in a trailing comment; a test compares both.
#: Tokens per thread; threads and packs per thread of a map; threads of a block.
_ROWS = 4  # ROWS: modulate.cu gated_residual.cu gated_residual_fp8.cu
_MAP_THREADS = 128  # MAP_THREADS: common/map.cuh
_MAP_PACKS = 4  # MAP_PACKS: common/map.cuh
_RMS_THREADS = 256  # THREADS: rms_norm.cu
_ROPE_THREADS = 128  # THREADS: apply_rope.cu
#: Warps of a block with a token each; threads that share a token; and blocks of such threads that a multiprocessor
#: holds, by packs per thread.
_NORM_WARPS = 4  # WARPS: norm_modulate.cu
TEAM = 128  # TEAM: common/team.cuh
RESIDENT = {1: 5, 3: 4, 4: 3}  # RESIDENT: common/team.cuh
#: On Hopper, rows of that many values are taken by a warp each; warps of a block, and bytes of its shared memory.
ROW_VALUES = 3072  # ROW_VALUES: common/norm_rows.cuh
ROW_WARPS = 12  # ROW_WARPS: common/norm_rows.cuh
ROW_SHARED = 98400  # ROW_SHARED: common/norm_rows.cuh
#: Packs of four that a thread of a softmax holds, and threads that it has at most.
_SOFTMAX_HELD = 4  # HELD: softmax.cu
_SOFTMAX_THREADS = 1024
#: Tokens of a block that makes heads; its threads at most, or where single elements are read.
HEADS_TOKENS = 4
_HEADS_THREADS = 384  # MOST_THREADS: qkv_heads.cu qkv_heads_fp8.cu
_PLAIN_THREADS = 128  # PLAIN_THREADS: qkv_heads.cu
#: Packs per lane that a warp can hold, by element type.
_HELD = {"f32": (8, 24), "bf16": (4, 12, 16)}

remembered = lru_cache(maxsize=4096)


class Plan(NamedTuple):
    """A launch without its addresses, which come first among the parameters."""

    entry: str
    grid: tuple[int, int]
    threads: int
    tail: tuple[Any, ...]


def three(op: str, x: Layout) -> tuple[int, int, int]:
    """Samples, tokens and width of x [B, L, D]."""
    if len(x.shape) != 3:
        raise mismatch(op, "x", "[B, L, D]", x, "Reshape it to samples, tokens and width.")
    batch, tokens, width = x.shape
    return batch, tokens, length(op, width)


def access_width(kind: Element, aligned: bool, columns: int, *strides: int) -> int:
    """Elements per access: those of 16 bytes if every row begins on 16 bytes and is a multiple of them, else 1."""
    fits = aligned and columns % kind.width == 0 and all(stride % kind.width == 0 for stride in strides)
    return kind.width if fits else 1


def up(value: int, unit: int) -> int:
    """Elements per access: 16 bytes if every row starts at a multiple of 16 bytes and is a multiple long, else 1."""
    return -(-value // unit)


@remembered
def modulate(x: Layout, scale: Layout, shift: Layout, aligned: bool) -> Plan:
    """Plan of ``x (1 + scale) + shift``: x [B, L, D], scale and shift [B, D]."""
    batch, tokens, width = three("modulate", x)
    kind = element("modulate", "x", x)
    xs = steps("modulate", "x", x, kind)
    by = need("modulate", "scale", scale, (batch, width), kind, "[B, D]")
    plus = need("modulate", "shift", shift, (batch, width), kind, "[B, D]")
    w = access_width(kind, aligned, width, *xs[:2], by[0], plus[0])
    return by_token(f"modulate_{kind.code}_w{w}", "modulate", x.shape, w, (*xs[:2], by[0], plus[0], tokens))


@remembered
def gated_residual(x: Layout, gate: Layout, y: Layout, bias: Layout | None, out: Layout, aligned: bool) -> Plan:
    """Plan of ``x + gate (y + bias)`` into ``out``: x, y and out [B, L, D], gate [B, D], bias [D]."""
    batch, tokens, width = three("gated_residual", x)
    kind = element("gated_residual", "x", x)
    xs = steps("gated_residual", "x", x, kind)
    by = need("gated_residual", "gate", gate, (batch, width), kind, "[B, D]")
    ys = need("gated_residual", "y", y, x.shape, kind, "[B, L, D]")
    to = need("gated_residual", "out", out, x.shape, kind, "[B, L, D]")
    if bias is not None:
        need("gated_residual", "bias", bias, (width,), kind, "[D]")
    strides = (*xs[:2], by[0], *ys[:2], *to[:2])
    w = access_width(kind, aligned, width, *strides)
    return by_token(f"gated_residual_{kind.code}_w{w}", "gated_residual", x.shape, w, (*strides, tokens))


def by_token(entry: str, op: str, shape: tuple[int, ...], w: int, tail: tuple[int, ...]) -> Plan:
    """Plan with blocks along x for groups of tokens and tiles of the width, and along y for samples."""
    batch, tokens, width = shape
    packs = width // w
    threads = 128 if packs >= 128 else 32 * max(up(packs, 32), 1)
    tiles = max(up(packs, threads), 1)
    blocks = grid(op, up(tokens, _ROWS) * tiles if width else 0, batch)
    return Plan(entry, blocks, threads, (*tail, packs, tiles))


@remembered
def layer_norm(x: Layout, eps: float, aligned: bool) -> Plan:
    """Plan of a layer norm over the last axis of x [.., D]."""
    kind, xs = _vector_rows("layer_norm", x)
    rows = rows_of("layer_norm", x.shape[:-1], (xs[:-1],))
    w = access_width(kind, aligned, x.shape[-1], *rows.strides[0])
    packs, held = x.shape[-1] // w, _held(kind, w, x.shape[-1] // w)
    tail = (*rows.extents, *rows.strides[0], rows.number, packs, eps)
    per_block = 4 if held else 1
    blocks = grid("layer_norm", up(rows.number, per_block) if packs else 0)
    return Plan(f"layer_norm_{kind.code}_w{w}_{held or 'block'}", blocks, 128 if held else 256, tail)


def rows_fill(rows: int, processors: int) -> bool:
    """Whether a warp per row leaves no warp idle. Fewer rows take less time with several warps each."""
    return rows >= processors * ROW_WARPS


def by_rows(op: str, prefix: str, tokens: int, batch: int, processors: int, tail: tuple[Any, ...]) -> Plan:
    """Plan of a norm with a warp per row: one block for each multiprocessor."""
    blocks = grid(op, min(max(processors // max(batch, 1), 1), tokens), batch)
    return Plan(f"{prefix}_w8_r{ROW_VALUES // 256}", blocks, 32 * ROW_WARPS, tail)


@remembered
def norm_modulate(
    x: Layout, shift: Layout, scale: Layout, eps: float, aligned: bool, processors: int, hopper: bool = False
) -> Plan:
    """Plan of a layer norm with modulation, for a GPU with that many multiprocessors."""
    batch, tokens, width = three("norm_modulate", x)
    kind = element("norm_modulate", "x", x)
    xs = steps("norm_modulate", "x", x, kind)
    plus = need("norm_modulate", "shift", shift, (batch, width), kind, "[B, D]")
    by = need("norm_modulate", "scale", scale, (batch, width), kind, "[B, D]")
    strides = (*xs[:2], plus[0], by[0])
    w = access_width(kind, aligned, width, *strides)
    packs = width // w
    tail = (*strides, tokens, packs, eps)
    if hopper and kind is BFLOAT16 and w > 1 and width == ROW_VALUES and rows_fill(tokens * batch, processors):
        return by_rows("norm_modulate", "norm_modulate_bf16", tokens, batch, processors, tail)
    team = next((t for t in RESIDENT if kind is BFLOAT16 and w > 1 and packs <= TEAM * t), 0)
    if team:
        # Few enough blocks that all run at once; each then takes the same share of the tokens.
        each = max(up(tokens * batch, processors * RESIDENT[team]), 1)
        blocks = grid("norm_modulate", up(tokens, each) if width else 0, batch)
        return Plan(f"norm_modulate_{kind.code}_w{w}_t{team}", blocks, TEAM, tail)
    held = _held(kind, w, packs) if kind is FLOAT32 else ""
    blocks = grid("norm_modulate", up(tokens, _NORM_WARPS if held else 1) if width else 0, batch)
    entry = f"norm_modulate_{kind.code}_w{w}_{held or 'block'}"
    return Plan(entry, blocks, 32 * _NORM_WARPS if held else 256, tail)


def _held(kind: Element, w: int, packs: int) -> str:
    """The version that holds a row in one warp's registers; an empty string if there is none."""
    fitting = [held for held in _HELD[kind.code] if packs <= 32 * held]
    return f"p{fitting[0]}" if fitting and w > 1 else ""


def _vector_rows(op: str, x: Layout) -> tuple[Element, tuple[int, ...]]:
    kind = element(op, "x", x)
    if not x.shape:
        raise mismatch(op, "x", "with at least one axis", x, "The op works along the last axis.")
    length(op, x.shape[-1])
    return kind, steps(op, "x", x, kind)


@remembered
def rms_norm(x: Layout, weight: Layout, eps: float, aligned: bool) -> Plan:
    """Plan of an RMS norm over the last axis of x [.., d]."""
    kind, xs = _vector_rows("rms_norm", x)
    need("rms_norm", "weight", weight, x.shape[-1:], kind, "[d]")
    rows = rows_of("rms_norm", x.shape[:-1], (xs[:-1],))
    w = access_width(kind, aligned, x.shape[-1], *rows.strides[0])
    packs = x.shape[-1] // w
    lanes = min(power_of_two(packs), 32)
    tail = (*rows.extents, *rows.strides[0], rows.number, packs, lanes, eps)
    blocks = grid("rms_norm", up(rows.number, _RMS_THREADS // lanes) if packs else 0)
    return Plan(f"rms_norm_{kind.code}_w{w}", blocks, _RMS_THREADS, tail)


@remembered
def apply_rope(x: Layout, cos: Layout, sin: Layout, aligned: bool) -> Plan:
    """Plan of a rotation of adjacent pairs of x [B, L, H, d]."""
    if len(x.shape) != 4 or x.shape[-1] % 2:
        raise mismatch("apply_rope", "x", "[B, L, H, d] with an even d", x, "Split the heads with reshape.")
    kind = element("apply_rope", "x", x)
    batch, tokens, heads, dim = x.shape
    xs = steps("apply_rope", "x", x, kind)
    cosine = need("apply_rope", "cos", cos, (tokens, dim), FLOAT32, "[L, d]")
    sine = need("apply_rope", "sin", sin, (tokens, dim), FLOAT32, "[L, d]")
    w = max(access_width(kind, aligned, dim, *xs[:3]), 2)
    packs = dim // w
    lanes = min(power_of_two(packs), _ROPE_THREADS)
    blocks = grid("apply_rope", tokens if heads * dim else 0, batch)
    return Plan(
        f"apply_rope_{kind.code}_w{w}", blocks, _ROPE_THREADS, (*xs[:3], cosine[0], sine[0], heads, packs, lanes)
    )


@remembered
def softmax(x: Layout, result: str, aligned: bool) -> Plan:
    """Plan of a softmax over the last axis of x [.., N]."""
    kind, xs = _vector_rows("softmax", x)
    to = _named("softmax", result)
    rows = rows_of("softmax", x.shape[:-1], (xs[:-1],))
    columns = x.shape[-1]
    most = 4 * _SOFTMAX_HELD * _SOFTMAX_THREADS
    whole = aligned and columns % 4 == 0 and columns <= most and all(stride % 4 == 0 for stride in rows.strides[0])
    packs = columns // 4 if whole else columns
    threads = min(32 * up(up(packs, _SOFTMAX_HELD) if whole else min(packs, 256), 32), _SOFTMAX_THREADS)
    version = "w4_held" if whole else "w1"
    blocks = grid("softmax", rows.number if columns else 0)
    tail = (*rows.extents, *rows.strides[0], packs)
    return Plan(f"softmax_{kind.code}_{to.code}_{version}", blocks, threads, tail)


def _named(op: str, name: str) -> Element:
    for kind in (FLOAT32, BFLOAT16):
        if kind.name == name:
            return kind
    raise ArgumentError(f"{op}: expected dtype 'float32' or 'bfloat16', got {name!r}. Choose one of them.")


@remembered
def elementwise(op: str, x: Layout, aligned: bool) -> Plan:
    """Plan of an elementwise function of one array that keeps its dtype."""
    kind = element(op, "x", x)
    return _map(f"{op}_{kind.code}", op, (x,), (kind,), kind.width, aligned)


@remembered
def cast(x: Layout, to: str, aligned: bool) -> Plan:
    """Plan of a conversion between float32 and bfloat16."""
    kind, result = element("cast", "x", x), _named("cast", to)
    return _map(f"cast_{kind.code}_{result.code}", "cast", (x,), (kind,), 4, aligned)


@remembered
def euler_step(latents: Layout, velocity: Layout, aligned: bool) -> Plan:
    """Plan of ``latents + delta velocity``, both of one shape."""
    kind = element("euler_step", "velocity", velocity)
    need("euler_step", "latents", latents, velocity.shape, FLOAT32, "[..] of velocity")
    return _map(f"euler_step_{kind.code}", "euler_step", (latents, velocity), (FLOAT32, kind), 4, aligned)


def _map(
    entry: str, op: str, operands: tuple[Layout, ...], kinds: tuple[Element, ...], width: int, aligned: bool
) -> Plan:
    """Plan of an elementwise function of operands of one shape; contiguous operands are treated as a single row."""
    strides = [steps(op, "x", x, kind) or (1,) for x, kind in zip(operands, kinds, strict=True)]
    return _mapped(entry, op, operands[0].shape or (1,), strides, width, aligned)


def _mapped(
    entry: str, op: str, shape: tuple[int, ...], strides: list[tuple[int, ...]], width: int, aligned: bool
) -> Plan:
    rows, columns = _rows_and_columns(op, shape, strides)
    fits = aligned and columns % width == 0 and all(step % width == 0 for operand in rows.strides for step in operand)
    w = width if fits else 1
    packs = columns // w
    tiles, flat = _tiles(packs), [step for operand in rows.strides for step in operand]
    return Plan(
        f"{entry}_w{w}", grid(op, rows.number * tiles), _MAP_THREADS, (*rows.extents, *flat, packs, max(tiles, 1))
    )


def _tiles(packs: int) -> int:
    return up(packs, _MAP_THREADS * _MAP_PACKS)


def _rows_and_columns(op: str, shape: tuple[int, ...], strides: list[tuple[int, ...]]) -> tuple[Rows, int]:
    extents, kept = merged(shape, strides)
    return rows_of(op, extents[:-1], [operand[:-1] for operand in kept]), length(op, extents[-1])


@remembered
def add_broadcast(x: Layout, y: Layout, shape: tuple[int, ...], aligned: bool) -> Plan:
    """Plan of ``x + y``, broadcast to a common shape."""
    kind = element("add_broadcast", "x", x)
    if element("add_broadcast", "y", y) is not kind:
        raise mismatch("add_broadcast", "y", f"in {kind.name} as x", y, "Convert one with cast.")
    shape = shape or (1,)
    strides = [_spread("add_broadcast", name, z, shape, kind) for name, z in (("x", x), ("y", y))]
    if shape[-1] == 1:  # rows of one element: the step is never used, and 1 needs no kernel of its own
        strides = [(*operand[:-1], 1) for operand in strides]
    if all(operand[-1] == 1 for operand in strides):
        return _mapped(f"add_broadcast_{kind.code}", "add_broadcast", shape, strides, kind.width, aligned)
    rows, columns = _rows_and_columns("add_broadcast", shape, strides)
    flat = [step for operand in rows.strides for step in operand]
    tail = (*rows.extents, *flat, columns, max(_tiles(columns), 1), *(operand[-1] for operand in strides))
    blocks = grid("add_broadcast", rows.number * _tiles(columns))
    return Plan(f"add_broadcast_{kind.code}_any", blocks, _MAP_THREADS, tail)


def _spread(op: str, argument: str, x: Layout, shape: tuple[int, ...], kind: Element) -> tuple[int, ...]:
    """Strides of an operand over the broadcast shape: 0 along axes that it lacks or where its extent is 1."""
    own = steps(op, argument, x, kind)
    own = (*own[:-1], 0 if x.shape[-1] == 1 else 1) if own else ()
    return (*(0,) * (len(shape) - len(own)), *own)


class HeadsPlan(NamedTuple):
    """Plan of `qkv_heads`: parameters of both streams (zeros if there is no second), and the other parameters."""

    entry: str
    grid: tuple[int, int]
    threads: int
    streams: tuple[tuple[int, int, int, int], ...]
    strides: tuple[int, int]
    rest: tuple[int, int, int, int]
    blocks: int


@remembered
def qkv_heads(
    streams: tuple[tuple[Layout, Layout, Layout, Layout], ...], cos: Layout, sin: Layout, heads: int, aligned: bool
) -> HeadsPlan:
    """Plan for streams of (qkv, bias, q_norm, k_norm)."""
    op, first = "qkv_heads", streams[0][0]
    if len(first.shape) != 3 or heads < 1 or first.shape[-1] % (6 * heads):
        raise mismatch(op, "qkvs[0]", f"[B, L, 3 H d] with H = {heads} and an even d", first, "Check heads.")
    kind, (batch, _, width) = element(op, "qkvs[0]", first), first.shape
    dim, start, places = width // (3 * heads), 0, []
    for index, (qkv, bias, *norms) in enumerate(streams):
        shape = (batch, qkv.shape[1] if len(qkv.shape) == 3 else -1, width)
        spaced = need(op, f"qkvs[{index}]", qkv, shape, kind, "[B, Li, 3 H d]")
        need(op, f"biases[{index}]", bias, (width,), kind, "[3 H d]")
        for name, norm in zip(("q_norms", "k_norms"), norms, strict=True):
            need(op, f"{name}[{index}]", norm, (dim,), kind, "[d]")
        places.append((spaced[0], spaced[1], qkv.shape[1], start))
        start += qkv.shape[1]
    tables = [need(op, name, table, (start, dim), FLOAT32, "[L, d]")[0] for name, table in (("cos", cos), ("sin", sin))]
    w = access_width(kind, aligned, dim, *(step for place in places for step in place[:2]))
    version, per_block, threads = _heads_version(dim // w, w, heads)
    blocks = [up(place[2], per_block) for place in places]
    return HeadsPlan(
        f"qkv_heads_{kind.code}_{version}", grid(op, sum(blocks) if width else 0, batch), threads,
        (*places, (0, 0, 0, 0))[:2], (tables[0], tables[1]), (heads, dim, start, per_block), blocks[0],
    )  # fmt: skip


def _heads_version(packs: int, w: int, heads: int) -> tuple[str, int, int]:
    """Version, tokens per block and threads. A block has the lanes of all heads, or of an equal share of them."""
    if w == 1 or packs > 32:
        return "w2", 1, _PLAIN_THREADS
    lanes, threads = heads_lanes(packs, heads)
    return f"w{w}_g{lanes}", HEADS_TOKENS, threads


def heads_lanes(packs: int, heads: int) -> tuple[int, int]:
    """Lanes that hold one head's row; threads of a block, which has the lanes of all heads or of an equal share."""
    lanes = max(power_of_two(packs), 4)
    return lanes, 32 * up(up(heads, up(heads * lanes, _HEADS_THREADS)) * lanes, 32)
