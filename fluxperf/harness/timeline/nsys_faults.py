"""Page faults of unified memory in an Nsight Systems export, and whether they were recorded.

They are recorded only with ``--cuda-um-gpu-page-faults`` and ``--cuda-um-cpu-page-faults``. Migrations are always
recorded.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fluxperf.harness.timeline.columns import codes
from fluxperf.harness.timeline.damage import Damages, Kind
from fluxperf.harness.timeline.model import FaultKind, Faults, Side
from fluxperf.harness.timeline.nsys_export import Export

GPU_FAULTS = "CUDA_UM_GPU_PAGE_FAULT_EVENTS"
HOST_FAULTS = "CUDA_UM_CPU_PAGE_FAULT_EVENTS"

#: By side: its table, and the end of the name in ``META_DATA_CAPTURE`` of a process's option to record them.
_SIDES: dict[Side, tuple[str, str]] = {
    "device": (GPU_FAULTS, "COLLECT_UVM_GPU_PAGE_FAULTS"),
    "host": (HOST_FAULTS, "COLLECT_UVM_CPU_PAGE_FAULTS"),
}

#: Ends of the names of these options.
FAULT_OPTIONS = tuple(option for _, option in _SIDES.values())

_ACCESSES = {1: "READ", 2: "WRITE", 3: "ATOMIC", 4: "PREFETCH"}
_KIND = Kind("cuda", "page fault")


def read_faults(export: Export, damages: Damages) -> Faults:
    """Page faults of devices, which come in groups, and those of the host, ordered by time."""
    names = export.labels("ENUM_CUDA_UNIF_MEM_ACCESS_TYPE", "name", _ACCESSES)
    columns = ("start", "end", "globalPid", "deviceId", "numberOfPageFaults", "faultAccessType")
    start, end, process, gpu, number, access = export.columns(GPU_FAULTS, *columns)
    begun, owner = export.columns(HOST_FAULTS, "start", "globalPid")
    places, firsts = codes(access) if len(access) else (access, access)
    kinds = [FaultKind("device", _word(names.get(one, ""))) for one in access[firsts].tolist()]
    start_ns, end_ns = damages.bounded(_KIND, np.concatenate((start, begun)), np.concatenate((end, begun)))
    order = np.lexsort((end_ns, start_ns))
    nothing = np.zeros_like(begun)
    found = {
        "what": np.concatenate((places, nothing + len(kinds))),
        "start_ns": start_ns,
        "end_ns": end_ns,
        "process": np.concatenate((process, owner)),
        "gpu": np.concatenate((gpu, nothing)),
        "number": np.concatenate((np.maximum(1, number), nothing + 1)),
    }
    return Faults([*kinds, FaultKind("host")], **{name: column[order] for name, column in found.items()})


def _word(name: str) -> str:
    """The kind of a device's access to a page, by the end of a name of ``ENUM_CUDA_UNIF_MEM_ACCESS_TYPE``."""
    word = name.rpartition("_")[2].lower()
    return "" if word == "unknown" else word


def recorded_sides(export: Export, captured: Iterable[tuple[str, str]]) -> frozenset[Side]:
    """The sides whose page faults were recorded: some exist, or the option was set for every process.

    Args:
        export: the export.
        captured: names and values of ``META_DATA_CAPTURE``; a name may begin with a process.
    """
    said = list(captured)
    found = set[Side]()
    for side, (table, option) in _SIDES.items():
        told = {value.lower() for name, value in said if name.rpartition(":")[2] == option}
        if told == {"true"} or export.has_rows(table):
            found.add(side)
    return frozenset(found)
