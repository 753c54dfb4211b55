"""What is read from the tables of an Nsight Systems export."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from fluxperf.harness.timeline.model import (
    Call,
    Copy,
    Node,
    Range,
    Side,
    Sync,
    Thread,
    Timeline,
    Work,
    WorkKind,
    process_id,
)
from fluxperf.harness.timeline.nsys_export import Export
from fluxperf.words import plural

_KERNEL = "CUPTI_ACTIVITY_KIND_KERNEL"
_MEMCPY = "CUPTI_ACTIVITY_KIND_MEMCPY"
_MEMSET = "CUPTI_ACTIVITY_KIND_MEMSET"
_GRAPH = "CUPTI_ACTIVITY_KIND_GRAPH_TRACE"
_SYNC = "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION"
_CALLS = "CUPTI_ACTIVITY_KIND_RUNTIME"
_NODES = "CUDA_GRAPH_NODE_EVENTS"

_ON_GPU = ("start", "end", "deviceId", "streamId", "correlationId", "globalPid")

#: Tables of CUDA activity, and the columns without which a row of them says nothing.
ACTIVITIES = {
    _KERNEL: (*_ON_GPU, "shortName"),
    _MEMCPY: (*_ON_GPU, "bytes", "copyKind"),
    _MEMSET: (*_ON_GPU, "bytes"),
    _GRAPH: ("start", "end", "deviceId", "correlationId", "globalPid"),
    _SYNC: ("start", "end", "syncType"),
    _CALLS: ("start", "end", "globalTid", "correlationId", "nameId"),
}

#: Event types of NVTX: push/pop range, start/end range, and the creation of a domain.
_PUSHED, _STARTED, _DOMAIN = 59, 60, 75

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
_SYNC_KINDS = {1: "EVENT_SYNCHRONIZE", 2: "STREAM_WAIT_EVENT", 3: "STREAM_SYNCHRONIZE", 4: "CONTEXT_SYNCHRONIZE"}

_DIRECTION = re.compile(r"(?:^|_)(UVM_)?([HDAP])TO([HDAP])$")
_SIDES: dict[str, Side] = {"H": "host", "D": "device", "A": "device", "P": "device"}
_LOST = re.compile(r"\b(?:dropped|lost)\b", re.IGNORECASE)
_VERSION = re.compile(r"_v\d+$")


def timeline_of(export: Export, schema: str) -> Timeline:
    """The timeline of an export, not attributed yet."""
    about = dict(export.texts("META_DATA_EXPORT", "name", "value"))
    capture = dict(export.texts("META_DATA_CAPTURE", "name", "value"))
    notes: list[str] = []
    calls = _calls(export)
    gpus = _gpu_ids(export)
    work = [*_kernels(export, gpus), *_copies(export, gpus), *_memsets(export, gpus), *_graphs(export, gpus)]
    timed = [row for row in work if row.end_ns > 0]
    if len(timed) < len(work):
        notes.append(f"Left out, without times: {plural(len(work) - len(timed), 'piece')} of GPU work.")
    # Two sorts by a number each, the second of which keeps the order of the first, cost less than one by pairs.
    timed.sort(key=attrgetter("end_ns"))
    timed.sort(key=attrgetter("start_ns"))
    callers = {call.thread for call in calls}
    syncs = list(_syncs(export, gpus, {_process_of(thread) for thread in callers}))
    ranges = _ranges(export, (timed, calls, syncs), notes)
    mode = capture.get("CUDA_GRAPH_TRACE_OPTIONS:MODE", "")
    _note_gaps(mode, calls, ranges, timed, notes)
    lost = [text for _, text in export.texts("DIAGNOSTIC_EVENT", "severity", "text") if _LOST.search(text)]
    notes.extend(f"Nsight Systems says: {text}" for text in lost[:5])
    threads = callers | {row.thread for row in ranges}
    seen = {_process_of(thread) for thread in threads} | {row.process for row in timed}
    names = dict(export.texts("PROCESSES", "globalPid", "name"))
    return Timeline(
        source=export.source,
        product=about.get("EXPORT_PRODUCT_VERSION", ""),
        schema=schema,
        graph_mode=mode,
        processes={process: names.get(process, "") for process in sorted(seen)},
        threads=_threads(export, threads),
        gpus=_gpu_names(export, {row.gpu for row in timed}),
        ranges=ranges,
        calls=calls,
        work=timed,
        syncs=syncs,
        notes=notes,
        lost=bool(lost),
        nodes=list(_nodes(export)),
    )


def _process_of(thread: int) -> int:
    """The capture's id of the process of a ``globalTid``."""
    return thread >> 24 << 24


def _note_gaps(mode: str, calls: list[Call], ranges: list[Range], work: list[Work], notes: list[str]) -> None:
    """Says what the capture cannot show."""
    if mode.lower() == "graph" or any(row.kind == "graph" for row in work):
        notes.append(
            "CUDA graphs were traced as a whole: kernels and copies inside a graph are not in the capture, and not in "
            "any count here. Capture with --cuda-graph-trace=node."
        )
    if not calls:
        notes.append("No CUDA calls were captured, so no work can be attributed to a range.")
    if not ranges:
        notes.append("No NVTX ranges were captured: run the program with ranges, and nsys with -t cuda,nvtx.")


def _calls(export: Export) -> list[Call]:
    """Calls; what a thread and a name say is found once for each pair of them."""
    known: dict[Any, tuple[str, Literal["runtime", "driver"], int, int]] = {}
    found = []
    for row in export.numbers(_CALLS, "start", "end", "correlationId", "globalTid", "nameId"):
        same = row[3:]
        held = known.get(same)
        if held is None:
            thread, name = same[0] or 0, _VERSION.sub("", export.strings.get(same[1], "(unknown call)"))
            api: Literal["runtime", "driver"] = "runtime" if name.startswith("cuda") else "driver"
            held = known[same] = (name, api, _process_of(thread), thread)
        name, api, process, thread = held
        start, end = row[0] or 0, row[1] or 0
        found.append(Call(name, api, start, end if end > start else start, process, thread, row[2] or 0))
    return found


def _gpu_ids(export: Export) -> dict[tuple[int, int], int]:
    """GPU of the machine, by pid and CUDA's number of it in that process."""
    rows = export.numbers("TARGET_INFO_CUDA_DEVICE", "pid", "cudaId", "gpuId")
    return {(pid, cuda): gpu for pid, cuda, gpu in rows if None not in (pid, cuda, gpu)}


def _gpu_names(export: Export, used: set[int]) -> dict[int, str]:
    names = dict(export.texts("TARGET_INFO_GPU", "id", "name"))
    return {gpu: names.get(gpu, "") for gpu in sorted(used)}


class _What(NamedTuple):
    """What many pieces of work have in common."""

    name: str
    full_name: str = ""
    shape: tuple[int, ...] = ()
    copy: Copy | None = None


def _work(
    export: Export,
    kind: WorkKind,
    table: str,
    gpus: dict[tuple[int, int], int],
    size: str,
    columns: tuple[str, ...],
    what: Callable[..., _What],
) -> list[Work]:
    """Work of one table. Of what it is, and where it ran, a capture holds few combinations: each is looked up once.

    Args:
        export: the export.
        kind: kind of the work.
        table: its table.
        gpus: what `_gpu_ids` found.
        size: the column with its bytes, or empty.
        columns: what ``what`` is told.
        what: gives what work is from the values of these columns.
    """
    known: dict[Any, tuple[int, int, int, _What]] = {}
    found = []
    where = ("globalPid", "deviceId", "streamId")
    for row in export.numbers(table, "start", "end", "correlationId", "graphNodeId", size, *where, *columns):
        same = row[5:]
        held = known.get(same)
        if held is None:
            process, device = same[0] or 0, same[1] or 0
            gpu = gpus.get((process_id(process), device), device)
            held = known[same] = (process, gpu, same[2] or 0, what(*same[3:]))
        process, gpu, stream, (name, full_name, shape, copy) = held
        start, end, length = row[0] or 0, row[1] or 0, row[4] or 0
        end, length = end if end > start else start, length if length > 0 else 0
        correlation, node = row[2] or 0, row[3] or None
        found.append(
            Work(kind, name, start, end, process, gpu, stream, correlation, length, node, full_name, shape, copy)
        )
    return found


def _kernels(export: Export, gpus: dict[tuple[int, int], int]) -> list[Work]:
    def what(short_name: int | None, full_name: int | None, *shape: int) -> _What:
        name = export.strings.get(short_name, "(unknown kernel)")
        return _What(name, export.strings.get(full_name, name), shape)  # type: ignore[arg-type]

    shape = ("gridX", "gridY", "gridZ", "blockX", "blockY", "blockZ")
    return _work(export, "kernel", _KERNEL, gpus, "", ("shortName", "demangledName", *shape), what)


def _copies(export: Export, gpus: dict[tuple[int, int], int]) -> list[Work]:
    kinds = export.labels("ENUM_CUDA_MEMCPY_OPER", "name", _COPY_KINDS)
    labels = export.labels("ENUM_CUDA_MEMCPY_OPER", "label", {})
    memories = export.labels("ENUM_CUDA_MEM_KIND", "label", _MEMORY_KINDS)

    def what(kind: int, source: int, target: int, count: int | None) -> _What:
        found = _DIRECTION.search(kinds.get(kind, ""))
        copy = Copy(
            direction=labels.get(kind) or (found[0].strip("_") if found else f"kind {kind}"),
            source=_SIDES[found[2]] if found else "",
            target=_SIDES[found[3]] if found else "",
            source_memory=memories.get(source, "Unknown"),
            target_memory=memories.get(target, "Unknown"),
            count=max(1, count or 1),
            unified=bool(found and found[1]),
        )
        return _What(copy.direction, copy=copy)

    return _work(export, "copy", _MEMCPY, gpus, "bytes", ("copyKind", "srcKind", "dstKind", "copyCount"), what)


def _memsets(export: Export, gpus: dict[tuple[int, int], int]) -> list[Work]:
    return _work(export, "memset", _MEMSET, gpus, "bytes", (), lambda: _What("memset"))


def _graphs(export: Export, gpus: dict[tuple[int, int], int]) -> list[Work]:
    def what(graph: int | None) -> _What:
        return _What("graph" if graph is None else f"graph {graph}")

    return _work(export, "graph", _GRAPH, gpus, "", ("graphId",), what)


def _nodes(export: Export) -> Iterator[Node]:
    """Nodes of graphs as they were created; those without a node or a thread say nothing."""
    for start, thread, node, original in export.numbers(
        _NODES, "start", "globalTid", "graphNodeId", "originalGraphNodeId"
    ):
        if node and thread:
            yield Node(node, original or None, start or 0, _process_of(thread), thread)


def _syncs(export: Export, gpus: dict[tuple[int, int], int], processes: set[int]) -> Iterator[Sync]:
    names = export.labels("ENUM_CUPTI_SYNC_TYPE", "name", _SYNC_KINDS)
    labels = export.labels("ENUM_CUPTI_SYNC_TYPE", "label", {})
    alone = next(iter(processes)) if len(processes) == 1 else 0
    for start, end, device, stream, correlation, process, kind in export.numbers(_SYNC, *_ON_GPU, "syncType"):
        start, process, device = start or 0, process or alone, device or 0
        name = names.get(kind, f"kind {kind}")
        yield Sync(
            kind=labels.get(kind) or name.replace("_", " ").lower(),
            blocks=name.endswith("SYNCHRONIZE"),
            start_ns=start,
            end_ns=max(start, end or 0),
            process=process,
            gpu=gpus.get((process_id(process), device), device),
            stream=stream or 0,
            correlation=correlation or 0,
        )


def _ranges(export: Export, others: Iterable[list[Any]], notes: list[str]) -> list[Range]:
    """Push/pop and start/end ranges; one that was never closed lasts to the end of the others."""
    domains: dict[tuple[int, int], str] = {}
    for row in export.nvtx(f"WHERE eventType = {_DOMAIN}"):
        domains[(row[3] or 0) >> 24, row[5] or 0] = row[6] or export.strings.get(row[7], "")
    found, unclosed = [], []
    for start, end, kind, thread, end_thread, domain, text, text_id, payload in export.nvtx(
        f"WHERE eventType IN ({_PUSHED}, {_STARTED})"
    ):
        start, thread = start or 0, thread or 0
        row = Range(
            name=text or export.strings.get(text_id, "(unnamed)"),
            domain=domains.get((thread >> 24, domain or 0), ""),
            start_ns=start,
            end_ns=start if end is None or end < start else end,
            process=_process_of(thread),
            thread=thread,
            end_thread=thread if kind == _PUSHED else end_thread or thread,
            pushed=kind == _PUSHED,
            payload=payload,
        )
        found.append(row)
        if end is None:
            unclosed.append(row)
    if unclosed:
        last = max((row.end_ns for rows in others for row in rows), default=0)
        for row in unclosed:
            row.end_ns = max(row.start_ns, last)
        notes.append(f"Still open when the capture ended, and counted up to there: {plural(len(unclosed), 'range')}.")
    return found


def _threads(export: Export, used: set[int]) -> list[Thread]:
    names = {
        thread: export.strings.get(name, "") for thread, name in export.numbers("ThreadNames", "globalTid", "nameId")
    }
    return [Thread(process=_process_of(thread), id=thread, name=names.get(thread, "")) for thread in sorted(used)]
