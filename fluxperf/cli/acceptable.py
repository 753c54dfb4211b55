"""Checks of the names that ``gate accept`` takes; not a command."""

from __future__ import annotations

from fluxperf.engine.phases import phase_named
from fluxperf.errors import UnknownNameError
from fluxperf.kernel_times import KERNELS
from fluxperf.workloads import WORKLOADS


def check_names(workload: str, rung: str, metric: str) -> None:
    """Refuses an acceptance that no verdict can match.

    Parts of the judge and malformed names pass here. Later checks judge them.

    Raises:
        UnknownNameError: no workload or rung has that name.
    """
    parts = [workload, rung] if workload else metric.split("/", 2)[:2]
    if parts[0] in ("judge", KERNELS, "custom") or len(parts) != 2:
        return
    if parts[0] not in WORKLOADS:
        raise UnknownNameError("workload", parts[0], [*WORKLOADS, KERNELS])
    phase_named(parts[1])
