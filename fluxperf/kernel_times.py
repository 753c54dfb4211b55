"""Kernels by themselves at the shapes of schnell-1024: calls, bytes and times of every memory-bound one.

Bytes are those that the op must move: each tensor read or written once. Calls rotate among several sets of tensors, so
that no set stays in the L2 cache.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fluxperf
from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.ops.table import Settings
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
WIDTH = HEADS * DIM

_Call = Callable[[], Any]


class Kernel(NamedTuple):
    """One kernel: the op, the phase whose implementation it is, the bytes that it must move, and its calls."""

    op: str
    phase: str
    nbytes: int
    calls: Sequence[_Call]


def kernels(device: CudaDevice, dtype: str) -> dict[str, Kernel]:
    """Every memory-bound kernel by name; those of a fused op are marked so."""
    fused = bind(KERNELS, table("fused"), device, Settings(dtype)).ops["double"]
    plain = bind(KERNELS, table("batched"), device, Settings(dtype)).ops["double"]
    sets = _sets(device, dtype)
    bias, norm = _draw(device, dtype, 3 * WIDTH), _draw(device, dtype, DIM)
    cos, sin = plain.rope_table(TEXT, 64, 64, (16, 56, 56), 10_000.0)
    tokens, item = TEXT + IMAGE, 2 if dtype == "bfloat16" else 4
    size, heads = tokens * WIDTH * item, (1, TEXT + IMAGE, HEADS, DIM)

    def rotating(function: Callable[[dict[str, Any]], Any]) -> list[_Call]:
        return [lambda one=one: function(one) for one in sets]  # type: ignore[misc]

    def primitive(op: str, nbytes: int, function: Callable[[dict[str, Any]], Any]) -> tuple[str, Kernel]:
        return op, Kernel(op, "batched", nbytes, rotating(function))

    def of_fused(name: str, op: str, nbytes: int, function: Callable[[dict[str, Any]], Any]) -> tuple[str, Kernel]:
        return f"{name} (fused)", Kernel(op, "fused", nbytes, rotating(function))

    streams = (bias, bias), (norm, norm), (norm, norm), cos, sin, HEADS
    return dict([
        primitive("layer_norm", 2 * size, lambda s: plain.layer_norm(s["x"])),
        primitive("modulate", 2 * size, lambda s: plain.modulate(s["x"], s["row"], s["row"])),
        primitive("gated_residual", 3 * size, lambda s: plain.gated_residual(s["x"], s["row"], s["y"])),
        primitive("add_broadcast", 6 * IMAGE * WIDTH * item, lambda s: plain.add_broadcast(s["img"], bias)),
        primitive("gelu", 2 * size, lambda s: plain.gelu(s["x"])),
        primitive("silu", 2 * size, lambda s: plain.silu(s["x"])),
        primitive("scale", 2 * size, lambda s: plain.scale(s["x"], 0.5)),
        primitive("rms_norm", 2 * size, lambda s: plain.rms_norm(s["x"].reshape(*heads), norm)),
        primitive("apply_rope", 2 * size, lambda s: plain.apply_rope(s["x"].reshape(*heads), cos, sin)),
        primitive("transpose_heads", 2 * size, lambda s: plain.transpose_heads(s["x"].reshape(*heads))),
        primitive("concat_tokens", 2 * size, lambda s: plain.concat_tokens(s["x"][:, :TEXT], s["y"][:, TEXT:])),
        of_fused("norm_modulate", "norm_modulate", 2 * size, lambda s: fused.norm_modulate(s["x"], s["row"], s["row"])),
        of_fused("qkv_heads", "qkv_heads", 6 * size, lambda s: fused.qkv_heads((s["txt"], s["img"]), *streams)),
        of_fused("gated_residual with bias", "linear_gated_residual", 3 * size, lambda s: _epilogue(device, s)),
    ])  # fmt: skip


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


def _sets(device: CudaDevice, dtype: str) -> list[dict[str, Any]]:
    tokens = TEXT + IMAGE
    shapes = {
        "x": (1, tokens, WIDTH), "y": (1, tokens, WIDTH), "row": (1, WIDTH),
        "img": (1, IMAGE, 3 * WIDTH), "txt": (1, TEXT, 3 * WIDTH),
    }  # fmt: skip
    return [{name: _draw(device, dtype, *shape) for name, shape in shapes.items()} for _ in range(SETS)]


def _draw(device: CudaDevice, dtype: str, *shape: int) -> Any:
    return device.draw_normal((len(shape), *shape), shape, dtype, 1.0)


def _epilogue(device: CudaDevice, one: dict[str, Any]) -> Any:
    from fluxperf.engine.ops.cuda.epilogues import bias_gated_residual

    return bias_gated_residual(device, one["x"], one["row"], one["y"], one["row"].reshape(-1))
