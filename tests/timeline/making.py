"""Synthetic exports of Nsight Systems: two variants of the schema, with the rows that a test adds."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Literal

from fluxperf.harness.timeline.model import Timeline
from fluxperf.harness.timeline.nsys import read_capture

Variant = Literal["2023", "2025"]

US = 1_000
MS = 1_000_000

_ON_GPU = "start deviceId contextId streamId correlationId globalPid end"
_COLUMNS: dict[str, str] = {
    "META_DATA_EXPORT": "name value",
    "META_DATA_CAPTURE": "name value",
    "StringIds": "id value",
    "ThreadNames": "nameId priority globalTid",
    "DIAGNOSTIC_EVENT": "timestamp severity text globalPid",
    "CUPTI_ACTIVITY_KIND_OVERHEAD": "start end globalTid correlationId nameId overheadType",
    "CUPTI_ACTIVITY_KIND_JIT": "start end globalTid nameId overheadType jitOperationType",
    "PROFILER_OVERHEAD": "start end globalTid nameId overheadType",
    "PROCESSES": "globalPid pid name",
    "TARGET_INFO_GPU": "id name smCount",
    "TARGET_INFO_CUDA_DEVICE": "gpuId cudaId pid uuid",
    "NVTX_EVENTS": "start end eventType rangeId text globalTid endGlobalTid textId domainId category int64Value",
    "CUPTI_ACTIVITY_KIND_RUNTIME": "start end eventClass globalTid correlationId nameId returnValue",
    "CUPTI_ACTIVITY_KIND_KERNEL": f"{_ON_GPU} demangledName shortName gridX gridY gridZ blockX blockY blockZ "
    "graphNodeId graphId",
    "CUPTI_ACTIVITY_KIND_MEMCPY": f"{_ON_GPU} bytes copyKind srcKind dstKind graphNodeId copyCount migrationCause",
    "CUPTI_ACTIVITY_KIND_MEMSET": f"{_ON_GPU} value bytes memKind graphNodeId",
    "CUPTI_ACTIVITY_KIND_MEM_DECOMPRESS": f"{_ON_GPU} eventClass ChannelID sourceBytes NumberOfOperations",
    "CUPTI_ACTIVITY_KIND_GRAPH_TRACE": f"{_ON_GPU} graphId graphExecId",
    "CUDA_UM_GPU_PAGE_FAULT_EVENTS": "start end globalPid deviceId address numberOfPageFaults faultAccessType",
    "CUDA_UM_CPU_PAGE_FAULT_EVENTS": "start globalPid address CpuInstruction",
    "CUDA_GRAPH_NODE_EVENTS": "start end nameId eventClass globalTid graphNodeId originalGraphNodeId",
    "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION": f"{_ON_GPU} syncType eventId",
    "ENUM_CUDA_MEMCPY_OPER": "id name label",
    "ENUM_CUDA_MEM_KIND": "id name label",
    "ENUM_CUPTI_SYNC_TYPE": "id name label",
}

#: Columns and tables that an older export does not have.
_YOUNGER_COLUMNS = {"copyCount", "graphId", "textId", "endGlobalTid", "graphNodeId"}
_YOUNGER_TABLES = {"TARGET_INFO_CUDA_DEVICE", "ENUM_CUDA_MEMCPY_OPER", "ENUM_CUDA_MEM_KIND", "ENUM_CUPTI_SYNC_TYPE"}

_ENUMS = {
    "ENUM_CUDA_MEMCPY_OPER": [
        (1, "CUDA_MEMCPY_KIND_HTOD", "Host-to-Device"),
        (2, "CUDA_MEMCPY_KIND_DTOH", "Device-to-Host"),
        (8, "CUDA_MEMCPY_KIND_DTOD", "Device-to-Device"),
        (10, "CUDA_MEMCPY_KIND_PTOP", "Peer-to-Peer"),
        (11, "CUDA_MEMCPY_KIND_UVM_HTOD", "Unified Host-to-Device"),
        (12, "CUDA_MEMCPY_KIND_UVM_DTOH", "Unified Device-to-Host"),
    ],
    "ENUM_CUDA_MEM_KIND": [
        (number, f"CUDA_MEMOPR_MEMORY_KIND_{label.upper()}", label)
        for number, label in enumerate(("Pageable", "Pinned", "Device", "Array", "Managed"))
    ],
    "ENUM_CUPTI_SYNC_TYPE": [
        (1, "CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_EVENT_SYNCHRONIZE", "Event sync"),
        (2, "CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_STREAM_WAIT_EVENT", "Stream wait sync"),
        (3, "CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_STREAM_SYNCHRONIZE", "Stream sync"),
        (4, "CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_CONTEXT_SYNCHRONIZE", "Context sync"),
    ],
}


def thread(pid: int = 100, tid: int = 1) -> int:
    """A ``globalTid``."""
    return 1 << 48 | pid << 24 | tid


def process(pid: int = 100) -> int:
    """A ``globalPid``."""
    return 1 << 48 | pid << 24


class Capture:
    """Rows of an export. Times are in nanoseconds; every method adds one event."""

    def __init__(self, variant: Variant = "2025", graph_mode: str = "Node", gpu_faults: bool = True) -> None:
        self.variant = variant
        self.rows: dict[str, list[dict[str, object]]] = {}
        self._strings: dict[str, int] = {"": 1}
        self._correlation = 0
        version = {"2023": "3.1.7", "2025": "3.24.14"}[variant]
        self.about = {"EXPORT_SCHEMA_VERSION": version, "EXPORT_PRODUCT_VERSION": f"{variant}.1.1.100"}
        of_process = "" if variant == "2023" else "PROCESS_0:"
        told = {"CUDA_GRAPH_TRACE_OPTIONS:MODE": graph_mode, "COLLECT_UVM_GPU_PAGE_FAULTS": str(gpu_faults).lower()}
        for name, value in told.items():
            self.add("META_DATA_CAPTURE", name=f"{of_process}{name}", value=value)
        if variant == "2025":
            for table, values in _ENUMS.items():
                for number, name, label in values:
                    self.add(table, id=number, name=name, label=label)

    def add(self, table: str, **values: object) -> None:
        self.rows.setdefault(table, []).append(values)

    def string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings) + 1)

    def next_correlation(self) -> int:
        self._correlation += 1
        return self._correlation

    def range(
        self,
        name: str,
        start: int,
        end: int | None,
        *,
        pid: int = 100,
        tid: int = 1,
        domain: int = 0,
        payload: int | None = None,
    ) -> None:
        """A push/pop range; younger exports register its name."""
        named = {"text": name} if self.variant == "2023" else {"textId": self.string(name)}
        where = {"globalTid": thread(pid, tid), "domainId": domain, "int64Value": payload}
        self.add("NVTX_EVENTS", start=start, end=end, eventType=59, **named, **where)

    def started(self, name: str, start: int, end: int, *, pid: int = 100, tid: int = 1, end_tid: int = 0) -> None:
        """A start/end range, which another thread may end."""
        where = {"globalTid": thread(pid, tid), "endGlobalTid": thread(pid, end_tid or tid)}
        self.add("NVTX_EVENTS", start=start, end=end, eventType=60, text=name, **where)

    def domain(self, number: int, name: str, *, pid: int = 100) -> None:
        self.add("NVTX_EVENTS", start=0, eventType=75, domainId=number, text=name, globalTid=thread(pid))

    def call(
        self,
        name: str,
        start: int,
        end: int,
        *,
        pid: int = 100,
        tid: int = 1,
        correlation: int | None = None,
        returned: int = 0,
    ) -> int:
        """A runtime or driver call; returns its correlation id."""
        number = self.next_correlation() if correlation is None else correlation
        where = {"globalTid": thread(pid, tid), "correlationId": number, "nameId": self.string(name)}
        self.add("CUPTI_ACTIVITY_KIND_RUNTIME", start=start, end=end, eventClass=0, returnValue=returned, **where)
        return number

    def _gpu(
        self, table: str, start: int, end: int, correlation: int, pid: int, gpu: int, stream: int, **more: object
    ) -> None:
        where = {"correlationId": correlation, "globalPid": process(pid), "deviceId": gpu, "streamId": stream}
        self.add(f"CUPTI_ACTIVITY_KIND_{table}", start=start, end=end, contextId=1, **where, **more)

    def kernel(
        self,
        name: str,
        start: int,
        end: int,
        correlation: int,
        *,
        pid: int = 100,
        gpu: int = 0,
        stream: int = 7,
        grid: int = 1,
        node: int | None = None,
    ) -> None:
        shape = {"gridX": grid, "gridY": 1, "gridZ": 1, "blockX": 128, "blockY": 1, "blockZ": 1}
        names = {"shortName": self.string(name), "demangledName": self.string(f"void {name}<float>()")}
        self._gpu("KERNEL", start, end, correlation, pid, gpu, stream, graphNodeId=node, **shape, **names)

    def copy(
        self,
        kind: int,
        start: int,
        end: int,
        correlation: int,
        size: int,
        *,
        source: int | None = 1,
        target: int | None = 2,
        count: int = 1,
        pid: int = 100,
        gpu: int = 0,
        node: int | None = None,
        cause: int | None = None,
    ) -> None:
        more = {"bytes": size, "copyKind": kind, "srcKind": source, "dstKind": target, "copyCount": count}
        more["migrationCause"] = cause
        self._gpu("MEMCPY", start, end, correlation, pid, gpu, 7, graphNodeId=node, **more)

    def node(self, number: int, at: int, original: int | None = None, *, pid: int = 100, tid: int = 1) -> None:
        """Records the creation of a graph node, by capture or as a copy of another node."""
        named = {"nameId": self.string("Graph Node Creation"), "eventClass": 0}
        where = {"globalTid": thread(pid, tid), "graphNodeId": number, "originalGraphNodeId": original}
        self.add("CUDA_GRAPH_NODE_EVENTS", start=at, end=at, **named, **where)

    def memset(self, start: int, end: int, correlation: int, size: int) -> None:
        self._gpu("MEMSET", start, end, correlation, 100, 0, 7, bytes=size, value=0)

    def decompress(self, start: int, end: int, correlation: int, size: int) -> None:
        self._gpu("MEM_DECOMPRESS", start, end, correlation, 100, 0, 7, sourceBytes=size, NumberOfOperations=1)

    def sync(self, kind: int, start: int, end: int, correlation: int, *, pid: int = 100) -> None:
        self._gpu("SYNCHRONIZATION", start, end, correlation, pid, 0, 7, syncType=kind, eventId=0)

    def launch(
        self,
        name: str,
        call_at: int,
        run_at: int,
        lasts: int,
        *,
        pid: int = 100,
        tid: int = 1,
        gpu: int = 0,
        grid: int = 1,
    ) -> None:
        """A launch call of 2 us, and its kernel."""
        number = self.call("cudaLaunchKernel_v7000", call_at, call_at + 2 * US, pid=pid, tid=tid)
        self.kernel(name, run_at, run_at + lasts, number, pid=pid, gpu=gpu, grid=grid)

    def write(self, path: Path) -> Path:
        """Writes the export; tables without rows are not created."""
        for name, value in self.about.items():
            self.add("META_DATA_EXPORT", name=name, value=value)
        for text, number in self._strings.items():
            self.add("StringIds", id=number, value=text)
        connection = sqlite3.connect(path)
        for table, rows in self.rows.items():
            if self.variant == "2023" and table in _YOUNGER_TABLES:
                continue
            columns = [
                name for name in _COLUMNS[table].split() if self.variant == "2025" or name not in _YOUNGER_COLUMNS
            ]
            connection.execute(f'CREATE TABLE "{table}" ({", ".join(map(_quoted, columns))})')
            marks = ", ".join("?" * len(columns))
            values = [tuple(row.get(name) for name in columns) for row in rows]
            connection.executemany(f'INSERT INTO "{table}" VALUES ({marks})', values)
        connection.commit()
        connection.close()
        return path

    def read(self, folder: Path) -> Timeline:
        """Writes and reads it."""
        return read_capture(self.write(folder / "capture.sqlite"))


def _quoted(name: str) -> str:
    return f'"{name}"'


def lossy(*warnings: tuple[str, int]) -> Capture:
    """A range with one launch, and warnings of the tool, each with its process id."""
    capture = Capture()
    capture.range("step 1", 0, 4000 * US)
    capture.launch("kernel", 10 * US, 20 * US, 480 * US)
    for text, pid in warnings:
        capture.add("DIAGNOSTIC_EVENT", severity=2, text=text, globalPid=process(pid), timestamp=0)
    return capture


def example(variant: Variant = "2025") -> Capture:
    """Two steps with fluxperf's range names, and an example of every finding; docs/timeline.md shows it.

    Each step uploads 4 MB of pageable memory, launches a kernel per head, reads one value back and waits, and has one
    block whose kernels run later than their launches.
    """
    capture = Capture(variant)
    capture.add("TARGET_INFO_GPU", id=0, name="Example GPU", smCount=4)
    capture.add("PROCESSES", globalPid=process(), pid=100, name="python")
    capture.add("ThreadNames", nameId=capture.string("main"), priority=0, globalTid=thread())
    capture.domain(1, "fluxperf")
    for step in range(2):
        at = step * 4 * MS
        _embed(capture, at)
        _double(capture, at + MS)
        capture.range(f"step {step}", at, at + 3 * MS, domain=1)
    return capture


def _embed(capture: Capture, at: int) -> None:
    capture.range("embed 0", at, at + 900 * US, domain=1)
    capture.range("embed", at + 10 * US, at + 800 * US, domain=1)
    number = capture.call("cudaMemcpyAsync_v3020", at + 20 * US, at + 420 * US)
    capture.copy(1, at + 30 * US, at + 410 * US, number, 4_000_000, source=0)
    capture.launch("embed_tokens", at + 430 * US, at + 440 * US, 160 * US)
    number = capture.call("cudaMemcpyAsync_v3020", at + 450 * US, at + 460 * US)
    capture.copy(2, at + 600 * US, at + 602 * US, number, 4, source=2, target=1)
    number = capture.call("cudaStreamSynchronize_v3020", at + 461 * US, at + 611 * US)
    capture.sync(3, at + 461 * US, at + 611 * US, number)


def _double(capture: Capture, at: int) -> None:
    capture.range("double 0", at, at + 900 * US, domain=1)
    capture.range("qkv_heads", at + 10 * US, at + 50 * US, domain=1)
    capture.launch("qkv", at + 20 * US, at + 30 * US, 500 * US)
    capture.range("attention", at + 60 * US, at + 800 * US, domain=1)
    for head in range(24):
        capture.launch("head_matmul", at + (70 + 10 * head) * US, at + (530 + 20 * head) * US, 20 * US)
