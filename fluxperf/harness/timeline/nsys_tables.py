"""What is read from the tables of an Nsight Systems export."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from typing import Any

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


class Export:
    """An open export: its tables with their columns, and rows of those columns that are there."""

    def __init__(self, connection: sqlite3.Connection, source: str) -> None:
        self.source = source
        self._connection = connection
        names = [str(name) for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        self.tables = {name: self._columns(name) for name in names}
        self.strings = dict(self.texts("StringIds", "id", "value")) if "StringIds" in self.tables else {}

    def _columns(self, table: str) -> frozenset[str]:
        return frozenset(str(row[1]) for row in self._connection.execute(f"PRAGMA table_info({_quoted(table)})"))

    def count(self, table: str) -> int:
        """Rows of a table; none if it is missing."""
        if table not in self.tables:
            return 0
        (found,) = self._connection.execute(f"SELECT count(*) FROM {_quoted(table)}").fetchone()
        return int(found)

    def numbers(self, table: str, *columns: str, where: str = "") -> Iterator[Any]:
        """Rows of whole numbers; ``None`` for a column that is missing or empty. Nothing if the table is missing."""
        return self._rows(table, [(column, "INTEGER") for column in columns], where)

    def texts(self, table: str, key: str, value: str) -> Iterator[tuple[Any, str]]:
        """Pairs of a key and a text that is not null."""
        kind = "TEXT" if key == "name" else "INTEGER"
        for row in self._rows(table, [(key, kind), (value, "TEXT")], ""):
            if row[0] is not None and row[1] is not None:
                yield row

    def nvtx(self, where: str) -> Iterator[Any]:
        """Rows of NVTX events: start, end, type, thread, end thread, domain, text, id of a registered text, payload."""
        columns = ("start", "end", "eventType", "globalTid", "endGlobalTid", "domainId")
        return self._rows(
            "NVTX_EVENTS",
            [
                *((column, "INTEGER") for column in columns),
                ("text", "TEXT"),
                ("textId", "INTEGER"),
                ("int64Value", "INTEGER"),
            ],
            where,
        )

    def labels(self, table: str, column: str, default: dict[int, str]) -> dict[int, str]:
        """Names of an ``ENUM_*`` table, or those known where it is missing."""
        return {**default, **dict(self.texts(table, "id", column))}

    def _rows(self, table: str, columns: list[tuple[str, str]], where: str) -> Iterator[Any]:
        there = self.tables.get(table)
        if there is None:
            return iter(())
        # Any value may stand in any column of an SQLite file: a cast leaves numbers and text only.
        wanted = [f"CAST({_quoted(name)} AS {kind})" if name in there else "NULL" for name, kind in columns]
        return self._connection.execute(f"SELECT {', '.join(wanted)} FROM {_quoted(table)} {where}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def timeline_of(export: Export, schema: str) -> Timeline:
    """The timeline of an export, not attributed yet."""
    about = dict(export.texts("META_DATA_EXPORT", "name", "value"))
    capture = dict(export.texts("META_DATA_CAPTURE", "name", "value"))
    notes: list[str] = []
    calls = list(_calls(export))
    gpus = _gpu_ids(export)
    work = [*_kernels(export, gpus), *_copies(export, gpus), *_memsets(export, gpus), *_graphs(export, gpus)]
    timed = [row for row in work if row.end_ns > 0]
    if len(timed) < len(work):
        notes.append(f"{len(work) - len(timed)} pieces of GPU work have no times and were left out.")
    timed.sort(key=lambda row: (row.start_ns, row.end_ns))
    syncs = list(_syncs(export, gpus, {(call.process, call.correlation) for call in calls}))
    last = max((row.end_ns for rows in (timed, calls, syncs) for row in rows), default=0)
    ranges = _ranges(export, last, notes)
    mode = capture.get("CUDA_GRAPH_TRACE_OPTIONS:MODE", "")
    _note_gaps(mode, calls, ranges, timed, notes)
    lost = [text for _, text in export.texts("DIAGNOSTIC_EVENT", "severity", "text") if _LOST.search(text)]
    notes.extend(f"Nsight Systems says: {text}" for text in lost[:5])
    seen = {row.process for rows in (calls, ranges, timed) for row in rows}
    names = dict(export.texts("PROCESSES", "globalPid", "name"))
    return Timeline(
        source=export.source,
        product=about.get("EXPORT_PRODUCT_VERSION", ""),
        schema=schema,
        graph_mode=mode,
        processes={process: names.get(process, "") for process in sorted(seen)},
        threads=_threads(export, {row.thread for row in calls} | {row.thread for row in ranges}),
        gpus=_gpu_names(export, {row.gpu for row in timed}),
        ranges=ranges,
        calls=calls,
        work=timed,
        syncs=syncs,
        notes=notes,
        lost=bool(lost),
        nodes=list(_nodes(export)),
    )


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


def _calls(export: Export) -> Iterator[Call]:
    strings = export.strings
    names: dict[Any, str] = {}
    for start, end, thread, correlation, name in export.numbers(
        _CALLS, "start", "end", "globalTid", "correlationId", "nameId"
    ):
        if name not in names:
            names[name] = _VERSION.sub("", strings.get(name, "(unknown call)"))
        thread = thread or 0
        yield Call(
            name=names[name],
            api="runtime" if names[name].startswith("cuda") else "driver",
            start_ns=start or 0,
            end_ns=max(start or 0, end or 0),
            process=thread >> 24 << 24,
            thread=thread,
            correlation=correlation or 0,
        )


def _gpu_ids(export: Export) -> dict[tuple[int, int], int]:
    """GPU of the machine, by pid and CUDA's number of it in that process."""
    rows = export.numbers("TARGET_INFO_CUDA_DEVICE", "pid", "cudaId", "gpuId")
    return {(pid, cuda): gpu for pid, cuda, gpu in rows if None not in (pid, cuda, gpu)}


def _gpu_names(export: Export, used: set[int]) -> dict[int, str]:
    names = dict(export.texts("TARGET_INFO_GPU", "id", "name"))
    return {gpu: names.get(gpu, "") for gpu in sorted(used)}


def _work(kind: WorkKind, name: str, row: Any, gpus: dict[tuple[int, int], int]) -> Work:
    """Work from a row that begins with the columns of ``_ON_GPU``, size and graph node."""
    start, end, device, stream, correlation, process, size, node = row[:8]
    start, process, device = start or 0, process or 0, device or 0
    return Work(
        kind=kind,
        name=name,
        start_ns=start,
        end_ns=max(start, end or 0),
        process=process,
        gpu=gpus.get((process_id(process), device), device),
        stream=stream or 0,
        correlation=correlation or 0,
        bytes=max(0, size or 0),
        graph_node=node or None,
    )


def _kernels(export: Export, gpus: dict[tuple[int, int], int]) -> Iterator[Work]:
    shape = ("gridX", "gridY", "gridZ", "blockX", "blockY", "blockZ")
    shapes: dict[Any, Any] = {}
    for row in export.numbers(_KERNEL, *_ON_GPU, "", "graphNodeId", "shortName", "demangledName", *shape):
        work = _work("kernel", export.strings.get(row[8], "(unknown kernel)"), row, gpus)
        work.full_name = export.strings.get(row[9], work.name)
        work.shape = shapes.setdefault(row[10:], row[10:])
        yield work


def _copies(export: Export, gpus: dict[tuple[int, int], int]) -> Iterator[Work]:
    kinds = export.labels("ENUM_CUDA_MEMCPY_OPER", "name", _COPY_KINDS)
    labels = export.labels("ENUM_CUDA_MEMCPY_OPER", "label", {})
    memories = export.labels("ENUM_CUDA_MEM_KIND", "label", _MEMORY_KINDS)
    known: dict[Any, Copy] = {}
    for row in export.numbers(_MEMCPY, *_ON_GPU, "bytes", "graphNodeId", "copyKind", "srcKind", "dstKind", "copyCount"):
        if row[8:] not in known:
            kind, source, target, count = row[8:]
            found = _DIRECTION.search(kinds.get(kind, ""))
            known[row[8:]] = Copy(
                direction=labels.get(kind) or (found[0].strip("_") if found else f"kind {kind}"),
                source=_SIDES[found[2]] if found else "",
                target=_SIDES[found[3]] if found else "",
                source_memory=memories.get(source, "Unknown"),
                target_memory=memories.get(target, "Unknown"),
                count=max(1, count or 1),
                unified=bool(found and found[1]),
            )
        copy = known[row[8:]]
        work = _work("copy", copy.direction, row, gpus)
        work.copy = copy
        yield work


def _memsets(export: Export, gpus: dict[tuple[int, int], int]) -> Iterator[Work]:
    for row in export.numbers(_MEMSET, *_ON_GPU, "bytes", "graphNodeId"):
        yield _work("memset", "memset", row, gpus)


def _graphs(export: Export, gpus: dict[tuple[int, int], int]) -> Iterator[Work]:
    for row in export.numbers(_GRAPH, *_ON_GPU, "", "", "graphId"):
        yield _work("graph", f"graph {row[8]}" if row[8] is not None else "graph", row, gpus)


def _nodes(export: Export) -> Iterator[Node]:
    """Nodes of graphs as they were created; those without a node or a thread say nothing."""
    for start, thread, node, original in export.numbers(
        _NODES, "start", "globalTid", "graphNodeId", "originalGraphNodeId"
    ):
        if node and thread:
            yield Node(node, original or None, start or 0, thread >> 24 << 24, thread)


def _syncs(export: Export, gpus: dict[tuple[int, int], int], called: set[tuple[int, int]]) -> Iterator[Sync]:
    names = export.labels("ENUM_CUPTI_SYNC_TYPE", "name", _SYNC_KINDS)
    labels = export.labels("ENUM_CUPTI_SYNC_TYPE", "label", {})
    only = {process for process, _ in called}
    alone = only.pop() if len(only) == 1 else 0
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


def _ranges(export: Export, last_ns: int, notes: list[str]) -> list[Range]:
    """Push/pop and start/end ranges; one that was never closed lasts to the end of the capture."""
    domains: dict[tuple[int, int], str] = {}
    for row in export.nvtx(f"WHERE eventType = {_DOMAIN}"):
        domains[(row[3] or 0) >> 24, row[5] or 0] = row[6] or export.strings.get(row[7], "")
    found = []
    unclosed = 0
    for start, end, kind, thread, end_thread, domain, text, text_id, payload in export.nvtx(
        f"WHERE eventType IN ({_PUSHED}, {_STARTED})"
    ):
        start, thread = start or 0, thread or 0
        unclosed += end is None
        found.append(
            Range(
                name=text or export.strings.get(text_id, "(unnamed)"),
                domain=domains.get((thread >> 24, domain or 0), ""),
                start_ns=start,
                end_ns=max(start, last_ns if end is None else end),
                process=thread >> 24 << 24,
                thread=thread,
                end_thread=thread if kind == _PUSHED else end_thread or thread,
                pushed=kind == _PUSHED,
                payload=payload,
            )
        )
    if unclosed:
        notes.append(f"{unclosed} ranges were still open when the capture ended; they count up to there.")
    return found


def _threads(export: Export, used: set[int]) -> list[Thread]:
    names = {
        thread: export.strings.get(name, "") for thread, name in export.numbers("ThreadNames", "globalTid", "nameId")
    }
    return [Thread(process=thread >> 24 << 24, id=thread, name=names.get(thread, "")) for thread in sorted(used)]
