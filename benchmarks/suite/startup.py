"""Start-up, each sample in a fresh process: seconds to import, and seconds until the end of the first forward."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from .rungs import SAMPLES, WORKLOADS, need_gpu_for

_FIRST_FORWARD = """
import sys, time
start = time.perf_counter()
from fluxperf.workloads import prepare, workload_named
prepared = prepare("fused", workload_named(sys.argv[1]))
prepared.observed().begin(prepared.request).velocity(prepared.latents, 0)
prepared.device.synchronize()
print(time.perf_counter() - start)
"""

_IMPORT = """
import sys, time
start = time.perf_counter()
__import__(sys.argv[1])
print(time.perf_counter() - start)
"""


def fresh(code: str, argument: str) -> dict[str, Any]:
    """The seconds that a program prints last, from `SAMPLES` fresh processes after one that warms the file cache.

    Args:
        code: the program.
        argument: its command-line argument.

    Raises:
        subprocess.CalledProcessError: the program failed; its message is on standard error.
    """
    command = [sys.executable, "-c", code, argument]
    times = [
        float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1])
        for _ in range(1 + SAMPLES)
    ]
    return {"samples": times[1:], "number": 1}


class Startup:
    """Seconds of imports, without the interpreter's start."""

    params = ("fluxperf", "fluxperf.workloads", "fluxperf.cli")
    param_names = ("module",)
    timeout = 120
    unit = "seconds"
    version = "1"

    def track_import(self, module: str) -> dict[str, Any]:
        """Seconds to import a module."""
        return fresh(_IMPORT, module)


class FirstForward:
    """Seconds from process start to the first forward of rung fused: imports, device, weights, kernels, plans."""

    params = WORKLOADS
    param_names = ("workload",)
    timeout = 600
    unit = "seconds"
    version = "1"

    def setup(self, workload: str) -> None:
        """Skips benchmarks that cannot run here."""
        need_gpu_for(workload, "fused")

    def track_first_forward(self, workload: str) -> dict[str, Any]:
        """Seconds, with kernels that earlier processes left in the disk cache, as in a user's second run."""
        return fresh(_FIRST_FORWARD, workload)
