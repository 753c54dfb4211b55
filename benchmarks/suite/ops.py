"""Single ops as a rung implements them: baseline (float32, NumPy round trips), batched (float32), fused (bfloat16)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from .rungs import WORKLOADS, need_gpu_for, samples

#: Rungs with different implementations of these ops.
OP_RUNGS = ("baseline", "batched", "fused")


def _specifications() -> Any:
    """The specifications of this checkout, whichever commit is installed, so that every commit measures the same work.

    asv reads parameters at one commit and passes them to others by index.
    """
    folder = Path(__file__).resolve().parents[2] / "fluxperf" / "engine" / "ops" / "specs"
    name = f"{__name__}_specs"
    found = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if found is None or found.loader is None:
        raise ImportError(f"no specifications of ops in {folder}")
    module = sys.modules[name] = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


SPECIFICATIONS = _specifications()

#: Ops that are timed, each with its first case marked for benchmarks; ops of fp8 only are left out.
OPS = tuple(name for name, spec in SPECIFICATIONS.SPECS.items() if spec.timed and "float32" in spec.tolerance)


class Ops:
    """Times of one op on arrays with a model's shapes."""

    params = (OPS, WORKLOADS, OP_RUNGS)
    param_names = ("op", "shape", "rung")
    timeout = 120
    unit = "seconds"
    version = "2"

    def setup(self, op: str, shape: str, rung: str) -> None:
        """Skips benchmarks that cannot run here."""
        need_gpu_for(shape, "batched")

    def track_op(self, op: str, shape: str, rung: str) -> dict[str, Any]:
        """Seconds of one call, back to back with others. On a GPU the operands may stay in the L2 cache."""
        from fluxperf.engine.device import open_device
        from fluxperf.engine.ops.bind import bind
        from fluxperf.engine.phases import phase_named, table

        phase, device, rows = phase_named(rung), open_device("auto"), table(rung)
        if op not in rows:
            raise NotImplementedError(f"this commit has no op {op!r} at rung {rung}")
        call = getattr(bind(rung, rows, device, phase.settings).ops["double"], op)
        spec = SPECIFICATIONS.SPECS[op]
        draw = SPECIFICATIONS.Operands(device, phase.activations)
        one = spec.cases[spec.timed[0]](draw, SPECIFICATIONS.WORKLOAD_SIZES[shape])
        return samples(device, lambda: call(*one.args, **one.options))
