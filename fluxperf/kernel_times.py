"""Single kernels at the shapes of schnell-1024: calls, bytes and times of every memory-bound one.

Operands are those of the ops' specifications. Bytes are the required ones: each tensor read or written once. Calls
rotate among several sets of tensors, so that no set stays in the L2 cache.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import fluxperf
from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.ops.specs import PRODUCTS, SPECS, WORKLOAD_SIZES, Call, Case, Draw, Operands, Sizes
from fluxperf.engine.ops.specs.spec import array_bytes, case, normal
from fluxperf.engine.ops.table import Halves, Ops, Quantized, Settings, Unscaled
from fluxperf.engine.phases import table
from fluxperf.errors import UnknownNameError
from fluxperf.harness.measure import sampler
from fluxperf.harness.measure.clocks import Watch
from fluxperf.harness.measure.environment import commit, machine
from fluxperf.harness.measure.sampler import Series
from fluxperf.harness.measure.sampling import Sampling
from fluxperf.harness.records import Record, Totals, WorkloadRow

#: Workload name in their records, and in the gate.
KERNELS = "kernels"

#: Sets to rotate among, calls between two events, and warm-up batches.
SETS, LAUNCHES, WARMUP = 8, 40, 2

DTYPES = ("bfloat16", "float32")

#: Sizes of the joint sequence, of softmax with fewer heads (a tensor of all scores takes 2 GB), and of rows that do not
#: fit into registers.
JOINT = WORKLOAD_SIZES["schnell-1024"]
_SMALLER = {"softmax": JOINT._replace(heads=2)}
_LONG = {op: JOINT._replace(tokens=JOINT.tokens // 2, heads=2 * JOINT.heads) for op in ("layer_norm", "norm_modulate")}

#: Rungs whose tables differ in kernels, and implementations that are kernels.
_RUNGS, _METHODS = ("batched", "fused", "fp8"), ("primitives", "fused", "fp8")

_Call = Callable[[], Any]


class Kernel(NamedTuple):
    """One kernel: the op, the phase with its implementation, and how it is called.

    ``function`` is called with the arguments of ``case``, whose arrays start ``skipped`` elements after an alignment
    boundary. ``nbytes`` must be moved; if it is 0, all operands and results.
    """

    op: str
    phase: str
    function: Callable[..., Any]
    case: Case
    sizes: Sizes = JOINT
    skipped: int = 0
    nbytes: int = 0

    def calls(self, device: CudaDevice, dtype: str) -> tuple[list[_Call], int]:
        """Calls on separate sets of operands, and the bytes that each must move."""
        sets = [self.case(Operands(device, dtype, self.skipped), self.sizes) for _ in range(SETS)]
        first = sets[0]
        moved = self.nbytes or array_bytes((first.args, self.function(*first.args, **first.options)))
        return [partial(self.function, *one.args, **one.options) for one in sets], moved


def kernels(device: CudaDevice, dtype: str) -> dict[str, Kernel]:
    """Every memory-bound kernel by name; in brackets its fusion, and the condition of another version of the op.

    ``misaligned`` tensors start one element after a 16-byte boundary, so that single elements are accessed. ``long``
    rows do not fit into registers.
    """
    found: dict[str, Kernel] = {}
    seen = set()
    for rung in _RUNGS if dtype == "bfloat16" else _RUNGS[:-1]:
        rows = table(rung)
        ops = bind(KERNELS, rows, device, Settings(dtype)).ops["single"]
        for op, spec in SPECS.items():
            method = rows.get(f"single.{op}", rows.get(op, ""))
            if op not in PRODUCTS and method in _METHODS and (op, method) not in seen:
                seen.add((op, method))
                for variant in spec.timed:
                    words = ["" if method == "primitives" else method, variant if len(spec.timed) > 1 else ""]
                    _add(found, words, Kernel(op, rung, getattr(ops, op), spec.cases[variant], _SMALLER.get(op, JOINT)))
        found |= _behind_products(device, ops, rung)
    return found


def _add(found: dict[str, Kernel], words: list[str], kernel: Kernel) -> None:
    """Adds an op's kernel, and operands that select other versions of it, if they are array operands."""
    op, fp8 = kernel.op, kernel.phase == "fp8"
    if fp8 and op == "qkv_heads":
        kernel = kernel._replace(case=_scaled(kernel.case))
    found[_name(op, *words)] = kernel
    if fp8 or "[" not in SPECS[op].signature.partition("->")[0]:
        return
    found[_name(op, *words, "misaligned")] = kernel._replace(skipped=1)
    if op in _LONG:
        found[_name(op, *words, "long rows")] = kernel._replace(sizes=_LONG[op])


def _name(op: str, *words: str) -> str:
    notes = ", ".join(word for word in words if word)
    return f"{op} ({notes})" if notes else op


def _behind_products(device: CudaDevice, ops: Ops, rung: str) -> dict[str, Kernel]:
    """Kernels that follow a matrix product in the same op, without the product; and the one that joins halves."""
    from fluxperf.engine.ops.cuda.epilogues import bias_gated_residual
    from fluxperf.engine.ops.cuda.fp8 import at_one_scale, quantized_gelu, scaled_gated_residual

    gated = case(normal("B L D"), normal("B D"), normal("B L D"), normal("D"))
    if rung == "fused":
        kernel = Kernel("linear_gated_residual", rung, partial(bias_gated_residual, device), gated)
        name = "gated_residual with bias"
        return {_name(name, rung): kernel, _name(name, rung, "misaligned"): kernel._replace(skipped=1)}
    if rung == "fp8":
        gelu = _scaled(case(normal("B L 4D"), normal("4D")))
        joined = Kernel("join_features", rung, partial(at_one_scale, device), partial(_halves, ops))
        return {
            # The scale of the second half is larger, as is usual: only the first half is written.
            "join_features (fp8)": joined._replace(nbytes=2 * JOINT.tokens * JOINT.width),
            "gelu with bias (fp8)": Kernel("linear_gelu", rung, partial(quantized_gelu, device), gelu),
            "gated_residual with bias (fp8)": Kernel(
                "linear_gated_residual", rung, partial(scaled_gated_residual, device), _scaled(gated, 2)
            ),
        }
    return {}


def _halves(ops: Ops, draw: Draw, s: Sizes) -> Call:
    """Two halves in e4m3 of one buffer, with scales of 1 and 2."""
    scales = (draw(s.batch, s.tokens, 1, std=0.0, mean=scale, dtype="float32") for scale in (1.0, 2.0))
    parts = ops.joined_halves(s.batch, s.tokens, s.width, 4 * s.width, "bfloat16")
    return Call((Halves(*map(Quantized, parts, scales)),))


def _scaled(unscaled: Case, place: int = 0) -> Case:
    """A case whose argument at that place is a product in e4m3, or several, before scales of 1."""

    def product(draw: Draw, x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(product(draw, one) for one in x)
        rows, columns = (
            draw(*shape, std=0.0, mean=1.0, dtype="float32") for shape in ((*x.shape[:-1], 1), x.shape[-1:])
        )
        return Unscaled(x, rows, columns)

    def scaled(draw: Draw, s: Sizes) -> Call:
        call = unscaled(draw, s)
        args = list(call.args)
        args[place] = product(draw, args[place])
        return replace(call, args=tuple(args))

    return scaled


def timed(device: CudaDevice, calls: Sequence[_Call], repeat: int) -> Series:
    """Batches of calls in rotation."""
    rotation = itertools.cycle(calls)
    (series,) = sampler.batch([sampler.Call(device, lambda: next(rotation)())], LAUNCHES, Sampling(repeat, WARMUP))
    return series


def records(device: CudaDevice, repeat: int, names: Sequence[str] = ()) -> list[Record]:
    """A record for each kernel and dtype, with the seconds of one call, by batch, in ``times_s["call"]``.

    Args:
        device: the GPU.
        repeat: batches that are kept.
        names: kernels such as ``"norm_modulate (fused)"``, optionally followed by a dtype; all if none.

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
    calls, nbytes = kernel.calls(device, dtype)
    with Watch(device.bus_id) as watch:
        series = timed(device, calls, repeat)
    revision, dirty = commit(Path(fluxperf.__file__).resolve().parent.parent)
    nothing = Totals(d2h_copies=0, h2d_copies=0, d2h_bytes=0, h2d_bytes=0, launches=1, syncs=0, peak_bytes=None)
    return Record(
        created_utc=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        fluxperf=fluxperf.__version__,
        commit=revision,
        dirty=dirty,
        machine=machine(device.describe()),
        workload=WorkloadRow(
            name=KERNELS,
            model="schnell",
            height=1024,
            width=1024,
            text_tokens=JOINT.text,
            steps=1,
            batch=1,
            weights="none",
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
        settings={"kind": series.kind, "launches": str(LAUNCHES), "bytes": str(nbytes)},
        sampling=[series.outcome],
        conditions=[watch.conditions] if watch.conditions else None,
    )
