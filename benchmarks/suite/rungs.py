"""Code shared by the suite's benchmarks: a rung prepared once per process, and samples by the device's clock.

The suite's files come from the current checkout, whichever commit is installed, so they use little of it:
`fluxperf.workloads`, `fluxperf.recording.count` and binding. A benchmark that a commit does not have, or that a machine
cannot run, is skipped with the reason. fluxperf is imported inside functions, so that a skipped benchmark does not
import it.
"""

from __future__ import annotations

import functools
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: The ladder, as literals: asv reads parameters at one commit and runs them at others.
RUNGS = ("baseline", "broadcast", "batched", "tensorcore", "fused", "captured", "fp8")

#: A machine without a driver has no GPU. Its parameters then exclude combinations that need one, because asv would
#: start a process for each just to skip it. With a driver, a benchmark's setup skips them.
NO_GPU = shutil.which("nvidia-smi") is None and not Path("/dev/nvidiactl").exists()

#: One workload that runs everywhere, and the main one, which needs a GPU.
HEADLINE = "schnell-1024"
WORKLOADS = ("tiny",) if NO_GPU else ("tiny", HEADLINE)

#: Number of samples. asv's rank test can never find a difference with six against six, but can with ten against ten.
#: `make asv`, which only checks that everything runs, uses fewer.
SAMPLES = int(os.environ.get("FLUXPERF_ASV_SAMPLES", "10"))

#: Shortest duration of a sample in seconds; it contains as many calls as that needs. Its value is seconds per call.
SAMPLE_S = 2e-3

#: Shortest accepted time of one call, so that a clock that does not advance cannot request endless calls.
SHORTEST_S = 1e-7


@functools.cache
def device_kind() -> str:
    """The kind of device used here: "cuda" or "host". Without a driver nothing is imported to find out."""
    if NO_GPU:
        return "host"
    from fluxperf.engine.device import open_device

    return open_device("auto").kind


def need_gpu_for(workload: str, rung: str) -> None:
    """Skips workloads that this machine cannot run, or not in a benchmark's time.

    Args:
        workload: "tiny" or `HEADLINE`.
        rung: one of `RUNGS`.

    Raises:
        NotImplementedError: with the reason; asv stores such a result as NaN, "n/a".
    """
    if workload == "tiny":
        return
    if device_kind() != "cuda":
        raise NotImplementedError(f"{workload} needs a GPU, this machine runs host twins; tiny runs here")
    if rung == "baseline":
        raise NotImplementedError(f"{workload} takes minutes at rung baseline; `fluxperf run` measures it")


@functools.cache
def prepared(rung: str, workload: str) -> Any:
    """A prepared rung of a workload; made once per process, although asv calls `setup` before every timed call.

    Args:
        rung: one of `RUNGS`.
        workload: name of a workload.

    Raises:
        NotImplementedError: the installed commit has no such rung or workload, or the device cannot run it.
    """
    from fluxperf.errors import BindError, UnknownNameError
    from fluxperf.workloads import prepare, workload_named

    need_gpu_for(HEADLINE if workload == HEADLINE else "tiny", rung)
    try:
        return prepare(rung, workload_named(workload))
    except (BindError, UnknownNameError) as error:
        raise NotImplementedError(str(error)) from error


def samples(device: Any, call: Callable[[], Any]) -> dict[str, Any]:
    """Seconds per call, back to back, between two marks of the device: `SAMPLES` of them after a warm-up.

    asv stores a `track_*` result in this form with median and interval, like its own timings.

    Args:
        device: sets the marks; on a GPU they are events on its stream.
        call: the function to time.
    """
    timed(device, call, 1)
    calls = max(1, math.ceil(SAMPLE_S / max(timed(device, call, 1), SHORTEST_S)))
    return {"samples": [timed(device, call, calls) for _ in range(SAMPLES)], "number": 1}


def timed(device: Any, call: Callable[[], Any], calls: int) -> float:
    """Seconds per call of ``calls`` calls, back to back, by the device's clock."""
    start = device.mark()
    for _ in range(calls):
        call()
    end = device.mark()
    device.synchronize()
    return float(device.elapsed_s(start, end)) / calls
