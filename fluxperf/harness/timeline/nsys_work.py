"""GPU work in an Nsight Systems export: kernels, copies, memsets, decompressions, and graphs traced as a whole."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from fluxperf.harness.timeline.columns import FARTHEST_NS, codes, numbered
from fluxperf.harness.timeline.damage import Damages, Kind
from fluxperf.harness.timeline.model import Copy, Side, What, Works
from fluxperf.harness.timeline.nsys_export import Export
from fluxperf.harness.timeline.rows import COUNTERS, EVICTION, FAULT, NONE, USER_PREFETCH, WITH_FAULT

KERNEL = "CUPTI_ACTIVITY_KIND_KERNEL"
MEMCPY = "CUPTI_ACTIVITY_KIND_MEMCPY"
MEMSET = "CUPTI_ACTIVITY_KIND_MEMSET"
DECOMPRESS = "CUPTI_ACTIVITY_KIND_MEM_DECOMPRESS"
GRAPH = "CUPTI_ACTIVITY_KIND_GRAPH_TRACE"

# Names of the ENUM_* tables, for exports that were made without them.
_COPY_KINDS = {
    1: "HTOD",
    2: "DTOH",
    3: "HTOA",
    4: "ATOH",
    5: "ATOA",
    6: "ATOD",
    7: "DTOA",
    8: "DTOD",
    9: "HTOH",
    10: "PTOP",
    11: "UVM_HTOD",
    12: "UVM_DTOH",
    13: "UVM_DTOD",
}
_MEMORY_KINDS = dict(
    enumerate(("Pageable", "Pinned", "Device", "Array", "Managed", "Device Static", "Managed Static", "Unknown"))
)
_MIGRATIONS = {1: "USER", 2: "COHERENCE", 3: "PREFETCH", 4: "EVICTION", 5: "ACCESS_COUNTERS"}

#: By the end of a name of ``ENUM_CUDA_UNIF_MEM_MIGRATION``. Newer versions label coherence as a page fault.
_CAUSES = {
    "USER": USER_PREFETCH,
    "COHERENCE": FAULT,
    "PREFETCH": WITH_FAULT,
    "EVICTION": EVICTION,
    "ACCESS_COUNTERS": COUNTERS,
}
_MEMORY_SIDES: dict[str, Side] = {"pageable": "host", "pinned": "host", "device": "device", "device static": "device"}
_DIRECTION = re.compile(r"(?:^|_)(UVM_)?([HDAP])TO([HDAP])$")
_SIDES: dict[str, Side] = {"H": "host", "D": "device", "A": "device", "P": "device"}

#: Tables of work: the kind of their rows, and the column with their bytes.
_TABLES = {
    KERNEL: (Kind("cuda", "kernel"), ""),
    MEMCPY: (Kind("cuda", "copy", "copies"), "bytes"),
    MEMSET: (Kind("cuda", "memset"), "bytes"),
    DECOMPRESS: (Kind("cuda", "decompression"), "sourceBytes"),
    GRAPH: (Kind("cuda", "graph"), ""),
}

#: Columns in which a missing number differs from 0.
_NULLABLE = frozenset(("srcKind", "dstKind", "migrationCause"))

_SHAPE = ("gridX", "gridY", "gridZ", "blockX", "blockY", "blockZ")


def all_work(export: Export, damages: Damages) -> Works:
    """Work ordered by time, with the number that its process gives the GPU."""
    tables = [kind(export, damages) for kind in (_kernels, _copies, _memsets, _decompressions, _graphs)]
    work = Works.joined([table for table in tables if len(table)])
    untimed = int(((work.start_ns == 0) & (work.end_ns == 0)).sum())
    if untimed:
        damages.untimed(Kind("cuda", "piece of GPU work", "pieces of GPU work"), untimed)
        work = work.taken((work.start_ns != 0) | (work.end_ns != 0))
    return work


def _work(export: Export, damages: Damages, table: str, columns: tuple[str, ...], what: Callable[..., What]) -> Works:
    """Work of one table. A capture has few combinations of properties, so each is looked up once.

    Args:
        export: the export.
        damages: collects damage.
        table: its table.
        columns: arguments of ``what``.
        what: returns the kind of work for values of these columns.
    """
    kind, size = _TABLES[table]
    wanted = ("start", "end", "correlationId", "graphNodeId", size, "globalPid", "deviceId", "streamId", *columns)
    unsure = tuple(name for name in columns if name in _NULLABLE)
    found = export.columns(table, *wanted, filled=unsure)
    start, end, correlation, node, length, process, device, stream, *told = found[: len(wanted)]
    for name, filled in zip(unsure, found[len(wanted) :], strict=True):
        at = columns.index(name)
        told[at] = np.where(filled > 0, told[at], NONE)
    if not len(start):
        return Works()
    if "shortName" in columns:
        damages.unnamed(kind, export.unnamed(told[columns.index("shortName")]))
    missing = {name for name in columns if name not in export.tables[table]}
    numbers, firsts = codes(*told) if told else codes(np.zeros_like(start))
    merged, kinds = numbered(
        what(*(None if name in missing else int(one[first]) for name, one in zip(columns, told, strict=True)))
        for first in firsts.tolist()
    )
    start_ns, end_ns = damages.bounded(kind, start, end)
    return Works(
        kinds,
        what=merged[numbers],
        start_ns=start_ns,
        end_ns=end_ns,
        process=process,
        gpu=device,
        stream=stream,
        correlation=correlation,
        bytes=np.clip(length, 0, FARTHEST_NS),
        graph_node=node,
    )


def _kernels(export: Export, damages: Damages) -> Works:
    def what(short_name: int | None, full_name: int | None, *shape: int | None) -> What:
        name = export.string(short_name, "(unknown kernel)")
        sizes = () if None in shape else tuple(size or 0 for size in shape)
        return What("kernel", name, export.string(full_name, name), sizes)

    return _work(export, damages, KERNEL, ("shortName", "demangledName", *_SHAPE), what)


def _copies(export: Export, damages: Damages) -> Works:
    kinds = export.labels("ENUM_CUDA_MEMCPY_OPER", "name", _COPY_KINDS)
    labels = export.labels("ENUM_CUDA_MEMCPY_OPER", "label", {})
    memories = export.labels("ENUM_CUDA_MEM_KIND", "label", _MEMORY_KINDS)

    moves = export.labels("ENUM_CUDA_UNIF_MEM_MIGRATION", "name", _MIGRATIONS)
    causes = {number: word for number, name in moves.items() for end, word in _CAUSES.items() if _ends(name, end)}

    def what(kind: int, source: int | None, target: int | None, count: int | None, cause: int | None) -> What:
        found = _DIRECTION.search(kinds.get(kind, ""))
        memory = [memories.get(one, "Unknown") if one is not None else "Unknown" for one in (source, target)]
        # if the kind does not name the sides, the kinds of memory may
        sides = [_SIDES[found[at]] if found else _MEMORY_SIDES.get(memory[at - 2].lower(), "") for at in (2, 3)]
        copy = Copy(
            direction=labels.get(kind) or (found[0].strip("_") if found else f"kind {kind}"),
            source=sides[0],
            target=sides[1],
            source_memory=memory[0],
            target_memory=memory[1],
            count=max(1, count or 1),
            unified=bool(found and found[1]),
            cause=causes.get(cause, "") if found and found[1] and cause is not None else "",
        )
        return What("copy", copy.direction, copy=copy)

    return _work(export, damages, MEMCPY, ("copyKind", "srcKind", "dstKind", "copyCount", "migrationCause"), what)


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f"CAUSE_{end}")


def _memsets(export: Export, damages: Damages) -> Works:
    return _work(export, damages, MEMSET, (), lambda: What("memset", "memset"))


def _decompressions(export: Export, damages: Damages) -> Works:
    """Batches of decompressions, whose bytes are the compressed ones. The export does not say where these are."""
    return _work(export, damages, DECOMPRESS, (), lambda: What("decompression", "decompression"))


def _graphs(export: Export, damages: Damages) -> Works:
    def what(graph: int | None) -> What:
        return What("graph", "graph" if graph is None else f"graph {graph}")

    return _work(export, damages, GRAPH, ("graphId",), what)
