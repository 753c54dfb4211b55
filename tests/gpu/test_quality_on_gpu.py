"""The quality benchmark on the GPU with a tiny model: all rungs, and diffusers on the same memory."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from benchmarks.quality import __main__ as command
from benchmarks.quality.figures import Result
from benchmarks.quality.layers import LAYERS, QUANTIZED
from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.phases import phase_named
from fluxperf.workloads import obstacles

pytestmark = pytest.mark.peer


def test_rungs_types_of_layers_and_the_peer(gpu: CudaDevice, tmp_path: Path) -> None:
    for module in ("torch", "diffusers"):
        pytest.importorskip(module, reason=f"compares with diffusers; {module} is in the test extra")
    gpu.synchronize()
    quantized = not obstacles(phase_named(QUANTIZED), "cuda")
    words = ["--rung", "broadcast", "--rung", "fused", "--rung", "captured"]
    words += ["--rung", QUANTIZED] if quantized else ["--layers", "none"]
    output = tmp_path / "quality.json"
    command.main(["--workload", "tiny", "--device", "cuda", "-o", str(output), *words])
    rows = {(row.group, row.name): row for row in msgspec.json.decode(output.read_bytes(), type=Result).rows}
    worst = {key[1]: max(map(max, row.figures.forward)) for key, row in rows.items() if row.figures is not None}
    assert worst["broadcast"] < 1e-5
    assert all(2e-3 < worst[name] < 1e-2 for name in ("fused", "captured"))
    if rows["peer", "diffusers-exact"].figures is not None:
        assert worst["fused"] < 1.2 * worst["diffusers-exact"]
    if quantized:
        assert set(LAYERS) <= worst.keys()
        assert worst["fused"] < worst[QUANTIZED] < 3e-2
        assert worst["all"] == pytest.approx(worst[QUANTIZED], rel=0.1)
        assert (
            rows["peer", "diffusers-fp8-exact"].reason is not None
            or worst[QUANTIZED] < 1.2 * worst["diffusers-fp8-exact"]
        )
