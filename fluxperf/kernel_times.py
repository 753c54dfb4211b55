"""Kernels by themselves at the shapes of schnell-1024: calls, bytes and times of every memory-bound one.

Bytes are those that the op must move: each tensor read or written once. Calls rotate among several sets of tensors, so
that no set stays in the L2 cache.
"""

from __future__ import annotations

import datetime
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fluxperf
from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.ops.table import Quantized, Settings, Unscaled
from fluxperf.engine.phases import table
from fluxperf.errors import UnknownNameError
from fluxperf.harness.measure.clocks import Watch
from fluxperf.harness.measure.environment import commit, machine
from fluxperf.harness.measure.sampler import Call, Series, batch
from fluxperf.harness.records import Record, Totals, WorkloadRow

#: Workload that their records name, and the gate.
KERNELS = "kernels"

#: Sets to rotate among, calls between two events, and batches before those that are kept.
SETS, LAUNCHES, WARMUP = 8, 40, 2

DTYPES = ("bfloat16", "float32")
TEXT, IMAGE, HEADS, DIM = 512, 4096, 24, 128
WIDTH, TOKENS = HEADS * DIM, TEXT + IMAGE

#: Ops whose kernels exist in fused form alone, and one that is shown for the kernel beside its product.
FUSED_OPS = ("norm_modulate", "qkv_heads", "linear_gated_residual")
_SHOWN = {"linear_gated_residual": "gated_residual with bias"}

_Call = Callable[[], Any]
_Function = Callable[[dict[str, Any]], Any]
_Sets = Sequence[dict[str, Any]]


class Kernel(NamedTuple):
    """One kernel: the op, the phase whose implementation it is, the bytes that it must move, and its calls."""

    op: str
    phase: str
    nbytes: int
    calls: Sequence[_Call]


def kernels(device: CudaDevice, dtype: str) -> dict[str, Kernel]:
    """Every memory-bound kernel by name; in brackets what is fused, and what makes an op take another version.

    ``misaligned`` tensors begin one element behind a 16-byte boundary, which single elements must serve; rows that are
    ``long`` do not fit into registers.
    """
    fused = bind(KERNELS, table("fused"), device, Settings(dtype)).ops["double"]
    plain = bind(KERNELS, table("batched"), device, Settings(dtype)).ops["double"]
    sets, odd = _sets(device, dtype), _sets(device, dtype, 1)
    bias, norm = _draw(device, dtype, (3 * WIDTH,)), _draw(device, dtype, (DIM,))
    cos, sin = plain.rope_table(TEXT, 64, 64, (16, 56, 56), 10_000.0)
    item = 2 if dtype == "bfloat16" else 4
    size, heads = TOKENS * WIDTH * item, (1, TOKENS, HEADS, DIM)
    rows, scores = (1, TOKENS // 2, 2 * WIDTH), 2 * TOKENS * TOKENS * (4 + item)
    found: dict[str, Kernel] = {}

    def add(op: str, nbytes: int, function: _Function, note: str = "", operands: _Sets = sets) -> None:
        phase = "fused" if op in FUSED_OPS else "batched"
        notes = ", ".join(word for word in ("fused" if phase == "fused" else "", note) if word)
        name = _SHOWN.get(op, op) + (f" ({notes})" if notes else "")
        found[name] = Kernel(op, phase, nbytes, [lambda one=one: function(one) for one in operands])  # type: ignore[misc]

    def both(op: str, nbytes: int, function: _Function) -> None:
        add(op, nbytes, function)
        add(op, nbytes, function, "misaligned", odd)

    streams = (bias, bias), (norm, norm), (norm, norm), cos, sin, HEADS
    both("layer_norm", 2 * size, lambda s: plain.layer_norm(s["x"]))
    add("layer_norm", 2 * size, lambda s: plain.layer_norm(s["x"].reshape(rows)), "long rows")
    both("modulate", 2 * size, lambda s: plain.modulate(s["x"], s["row"], s["row"]))
    both("gated_residual", 3 * size, lambda s: plain.gated_residual(s["x"], s["row"], s["y"]))
    both("add_broadcast", 6 * IMAGE * WIDTH * item, lambda s: plain.add_broadcast(s["img"], s["wide"]))
    add("add_broadcast", 2 * size, lambda s: plain.add_broadcast(s["x"], s["column"]), "along the last axis")
    both("gelu", 2 * size, lambda s: plain.gelu(s["x"]))
    both("silu", 2 * size, lambda s: plain.silu(s["x"]))
    both("scale", 2 * size, lambda s: plain.scale(s["x"], 0.5))
    both("rms_norm", 2 * size, lambda s: plain.rms_norm(s["x"].reshape(heads), norm))
    both("apply_rope", 2 * size, lambda s: plain.apply_rope(s["x"].reshape(heads), cos, sin))
    both("transpose_heads", 2 * size, lambda s: plain.transpose_heads(s["x"].reshape(heads)))
    both("concat_tokens", 2 * size, lambda s: plain.concat_tokens(s["x"][:, :TEXT], s["y"][:, TEXT:]))
    both("softmax", scores, lambda s: plain.softmax(s["scores"], dtype))
    both("cast", 6 * TOKENS * WIDTH, lambda s: plain.cast(s["x"], "float32" if dtype == "bfloat16" else "bfloat16"))
    both("euler_step", 2 * 4 * TOKENS * WIDTH + size, lambda s: plain.euler_step(s["latents"], s["x"], -0.25))
    add("timestep_embedding", 4 * 256, lambda s: plain.timestep_embedding((0.5,)))
    add("rope_table", 8 * TOKENS * DIM, lambda s: plain.rope_table(TEXT, 64, 64, (16, 56, 56), 10_000.0))
    both("norm_modulate", 2 * size, lambda s: fused.norm_modulate(s["x"], s["row"], s["row"]))
    add("norm_modulate", 2 * size, lambda s: fused.norm_modulate(s["x"].reshape(rows), s["two"], s["two"]), "long rows")
    both("qkv_heads", 6 * size, lambda s: fused.qkv_heads((s["txt"], s["img"]), *streams))
    both("linear_gated_residual", 3 * size, lambda s: _epilogue(device, s))
    if dtype == "bfloat16":
        _add_fp8(device, found, sets, bias, norm, (cos, sin))
    return found


def _add_fp8(
    device: CudaDevice, found: dict[str, Kernel], sets: _Sets, bias: Any, norm: Any, tables: tuple[Any, Any]
) -> None:
    """The kernels that quantize, and those behind a product in e4m3."""
    from fluxperf.engine.ops.cuda.fp8 import quantized_gelu, scaled_gated_residual

    ops, size = bind(KERNELS, table("fp8"), device, Settings("bfloat16")).ops["single"], TOKENS * WIDTH
    scales = device.empty((1, TOKENS, 1), "float32"), device.empty((4 * WIDTH,), "float32")
    for scale in scales:
        scale.fill(1)
    rows, columns = scales

    def unscaled(x: Any) -> Unscaled:
        return Unscaled(x, rows[:, : x.shape[1]], columns[: x.shape[2]])

    def add(op: str, name: str, nbytes: int, function: _Function) -> None:
        found[f"{name} (fp8)"] = Kernel(op, "fp8", nbytes, [lambda one=one: function(one) for one in sets])  # type: ignore[misc]

    halves = itertools.cycle([ops.joined_halves(1, TOKENS, WIDTH, 4 * WIDTH, "bfloat16") for _ in sets])
    doubled = device.empty(rows.shape, "float32")
    doubled.fill(2)
    streams = (bias, bias), (norm, norm), (norm, norm), *tables, HEADS
    # The second half's scale is the larger one, as is usual: only the first half is written.
    add("join_features", "join_features", 2 * size,
        lambda s: ops.join_features(*map(Quantized, next(halves), (rows, doubled))))  # fmt: skip
    add("quantize_rows", "quantize_rows", 3 * size, lambda s: ops.quantize_rows(s["x"]))
    add("norm_modulate", "norm_modulate", 3 * size, lambda s: ops.norm_modulate(s["x"], s["row"], s["row"]))
    add("qkv_heads", "qkv_heads", 9 * size, lambda s: ops.qkv_heads((unscaled(s["txt"]), unscaled(s["img"])), *streams))
    add("linear_gelu", "gelu with bias", 12 * size, lambda s: quantized_gelu(device, unscaled(s["mlp"]), s["up"]))
    add("linear_gated_residual", "gated_residual with bias", 6 * size,
        lambda s: scaled_gated_residual(device, s["x"], s["row"], unscaled(s["y"]), s["row"].reshape(-1)))  # fmt: skip


def timed(device: CudaDevice, calls: Sequence[_Call], repeat: int) -> Series:
    """Batches of calls in rotation."""
    rotation = itertools.cycle(calls)
    (series,) = batch([Call(device, lambda: next(rotation)())], LAUNCHES, repeat, WARMUP)
    return series


def records(device: CudaDevice, repeat: int, names: Sequence[str] = ()) -> list[Record]:
    """A record for each kernel and dtype, in ``times_s["call"]`` the seconds of one call, by batch.

    Args:
        device: the GPU.
        repeat: batches that are kept.
        names: kernels such as ``"norm_modulate (fused)"``, with or without a dtype behind it; all if none.

    Raises:
        UnknownNameError: there is no such kernel; lists the known ones.
    """
    made = {f"{name} {dtype}": (dtype, kernel) for dtype in DTYPES for name, kernel in kernels(device, dtype).items()}
    known = [*made, *dict.fromkeys(name.rpartition(" ")[0] for name in made)]
    for name in names:
        if name not in known:
            raise UnknownNameError("kernel", name, known)
    return [
        _record(device, name, dtype, kernel, repeat)
        for name, (dtype, kernel) in made.items()
        if not names or name in names or name.rpartition(" ")[0] in names
    ]


def _record(device: CudaDevice, name: str, dtype: str, kernel: Kernel, repeat: int) -> Record:
    with Watch(device.bus_id) as watch:
        series = timed(device, kernel.calls, repeat)
    revision, dirty = commit(Path(fluxperf.__file__).resolve().parent.parent)
    nothing = Totals(d2h_copies=0, h2d_copies=0, d2h_bytes=0, h2d_bytes=0, launches=1, syncs=0, peak_bytes=None)
    return Record(
        created_utc=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        fluxperf=fluxperf.__version__,
        commit=revision,
        dirty=dirty,
        machine=machine(device.describe()),
        workload=WorkloadRow(
            name=KERNELS, model="schnell", height=1024, width=1024, text_tokens=TEXT, steps=1, batch=1, weights="none"
        ),
        implementation="fluxperf",
        rung=name,
        ran_as="kernel",
        phase_table={kernel.op: table(kernel.phase)[kernel.op]},
        policy={"activations": dtype},
        times_s={"call": [series.times_s], "warmup": [series.warmup_s]},
        totals=nothing,
        setup_totals=nothing,
        ledger=[],
        ops=[],
        error=None,
        settings={"kind": series.kind, "launches": str(LAUNCHES), "bytes": str(kernel.nbytes)},
        sampling=[series.outcome],
        conditions=[watch.conditions] if watch.conditions else None,
    )


def _sets(device: CudaDevice, dtype: str, skipped: int = 0) -> _Sets:
    """Sets of operands, each that many elements behind the beginning of its memory."""
    shapes = {
        "x": (1, TOKENS, WIDTH), "y": (1, TOKENS, WIDTH), "row": (1, WIDTH), "two": (1, 2 * WIDTH),
        "wide": (3 * WIDTH,), "column": (1, TOKENS, 1), "img": (1, IMAGE, 3 * WIDTH), "txt": (1, TEXT, 3 * WIDTH),
        "mlp": (1, TOKENS, 4 * WIDTH), "up": (4 * WIDTH,),
    }  # fmt: skip
    single = {"scores": (1, 2, TOKENS, TOKENS), "latents": (1, TOKENS, WIDTH)}
    return [
        {name: _draw(device, dtype, shape, skipped) for name, shape in shapes.items()}
        | {name: _draw(device, "float32", shape, skipped) for name, shape in single.items()}
        for _ in range(SETS)
    ]


def _draw(device: CudaDevice, dtype: str, shape: tuple[int, ...], skipped: int = 0) -> Any:
    size = math.prod(shape) + skipped
    return device.draw_normal((len(shape), *shape), (size,), dtype, 1.0)[skipped:].reshape(shape)


def _epilogue(device: CudaDevice, one: dict[str, Any]) -> Any:
    from fluxperf.engine.ops.cuda.epilogues import bias_gated_residual

    return bias_gated_residual(device, one["x"], one["row"], one["y"], one["row"].reshape(-1))
