"""Code that benchmarks of the suite share: a rung prepared once per process, and samples on the device's clock.

Files of the suite are those of the current checkout, whatever commit is installed, so they ask little of it:
`fluxperf.workloads`, `fluxperf.recording.count` and binding. What a commit does not have, or a machine cannot run, is
skipped with the reason. Imports of fluxperf are inside functions: a benchmark that is skipped does not pay for them.
"""

from __future__ import annotations

import functools
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: The ladder. Written out, because asv asks for parameters at one commit and runs them at others.
RUNGS = ("baseline", "broadcast", "batched", "tensorcore", "fused", "captured", "fp8")

#: A machine without a driver has no GPU. What needs one is no parameter there: asv would start a process for each
#: combination to be told so. Where there is a driver, a benchmark's setup says what cannot run.
NO_GPU = shutil.which("nvidia-smi") is None and not Path("/dev/nvidiactl").exists()

#: One workload that runs anywhere, and the headline, which needs a GPU.
HEADLINE = "schnell-1024"
WORKLOADS = ("tiny",) if NO_GPU else ("tiny", HEADLINE)

#: Samples of a result. Six against six can never be called different by asv's rank test, ten against ten can.
#: `make asv`, which only proves that everything runs, asks for fewer.
SAMPLES = int(os.environ.get("FLUXPERF_ASV_SAMPLES", "10"))

#: A sample is of so many calls that it takes at least this long; its value is seconds per call.
SAMPLE_S = 2e-3

#: Shortest time that is believed of one call, so that a clock that stands still does not ask for endless ones.
SHORTEST_S = 1e-7


@functools.cache
def device_kind() -> str:
    """The kind of device that runs get here: "cuda" or "host"; without a driver nothing has to be imported to know."""
    if NO_GPU:
        return "host"
    from fluxperf.engine.device import open_device

    return open_device("auto").kind


def need_gpu_for(workload: str, rung: str) -> None:
    """Skips what this machine cannot run, or not in a benchmark's time.

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
    """A rung of a workload, ready to run; made once per process, though asv calls `setup` before every timed call.

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

    asv keeps a `track_*` result of this form with median and interval, as it does for its own timings.

    Args:
        device: whose clock counts; on a GPU, events on its stream.
        call: what is timed.
    """
    timed(device, call, 1)
    calls = max(1, math.ceil(SAMPLE_S / max(timed(device, call, 1), SHORTEST_S)))
    return {"samples": [timed(device, call, calls) for _ in range(SAMPLES)], "number": 1}


def timed(device: Any, call: Callable[[], Any], calls: int) -> float:
    """Seconds per call of so many calls, back to back, on the device's clock."""
    start = device.mark()
    for _ in range(calls):
        call()
    end = device.mark()
    device.synchronize()
    return float(device.elapsed_s(start, end)) / calls
