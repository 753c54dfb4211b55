"""Reads the tables of an Nsight Systems export."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fluxperf.harness.text import units
from fluxperf.harness.timeline.columns import FARTHEST_NS, Column, codes, distinct, empty, matched, numbered
from fluxperf.harness.timeline.correlating import calls_of
from fluxperf.harness.timeline.damage import Damages, Kind, note_of
from fluxperf.harness.timeline.gpus import Device, Gpus, gpus_of
from fluxperf.harness.timeline.losses import Held, losses_of
from fluxperf.harness.timeline.model import (
    NONE,
    Api,
    Calls,
    Diagnostic,
    Faults,
    Node,
    Overheads,
    Ranges,
    Thread,
    Timeline,
    Waits,
    Works,
    process_of,
)
from fluxperf.harness.timeline.nsys_export import Export
from fluxperf.harness.timeline.nsys_faults import read_faults, recorded_sides
from fluxperf.harness.timeline.nsys_versions import left_out, not_understood, versions
from fluxperf.harness.timeline.nsys_work import DECOMPRESS, GRAPH, KERNEL, MEMCPY, MEMSET, all_work
from fluxperf.harness.timeline.overheads import KINDS, TOOL, WORDS, word_of
from fluxperf.words import first_few, plural

_SYNC = "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION"
_CALLS = "CUPTI_ACTIVITY_KIND_RUNTIME"
_NODES = "CUDA_GRAPH_NODE_EVENTS"
_OVERHEADS = ("CUPTI_ACTIVITY_KIND_OVERHEAD", "CUPTI_ACTIVITY_KIND_JIT", "PROFILER_OVERHEAD")

_ON_GPU = ("start", "end", "deviceId", "streamId", "correlationId", "globalPid")

#: Tables of CUDA activity, and the columns without which their rows are useless.
ACTIVITIES = {
    KERNEL: (*_ON_GPU, "shortName"),
    MEMCPY: (*_ON_GPU, "bytes", "copyKind"),
    MEMSET: (*_ON_GPU, "bytes"),
    DECOMPRESS: _ON_GPU,
    GRAPH: ("start", "end", "deviceId", "correlationId", "globalPid"),
    _SYNC: ("start", "end", "syncType"),
    _CALLS: ("start", "end", "globalTid", "correlationId", "nameId"),
}

#: The end of the name in ``META_DATA_CAPTURE`` of the option for tracing graphs, possibly set per process.
GRAPH_MODE = "CUDA_GRAPH_TRACE_OPTIONS:MODE"

#: Event types of NVTX: push/pop range, start/end range, and the creation of a domain.
_PUSHED, _STARTED, _DOMAIN = 59, 60, 75

_SYNC_KINDS = {1: "EVENT_SYNCHRONIZE", 2: "STREAM_WAIT_EVENT", 3: "STREAM_SYNCHRONIZE", 4: "CONTEXT_SYNCHRONIZE"}
_SEVERITIES = {0: "unknown", 1: "info", 2: "warning", 3: "error", 4: "verbose"}
_LAUNCHES = re.compile(r"(?:cuda|cu)(?:Launch(?!HostFunc)|GraphLaunch|Memcpy|Memset)")
_VERSION = re.compile(r"_v\d+$")


def timeline_of(export: Export, schema: str) -> Timeline:
    """The timeline of an export, before attribution."""
    about, captured = versions(export), list(export.texts("META_DATA_CAPTURE", "name", "value"))
    notes, damages = not_understood(export, schema), Damages()
    calls = _calls(export, damages)
    work = all_work(export, damages)
    callers = distinct(calls.thread)
    computing = set(map(process_of, callers.tolist()))
    if len(computing) == 1:  # in exports without a process for GPU work, it belongs to the process of the call
        work.process = np.where(work.process == 0, next(iter(computing)), work.process)
    syncs = _syncs(export, callers, damages)
    ranges = _ranges(export, (work, calls, syncs), notes, damages)
    faults, overheads = read_faults(export, damages), _read_overheads(export, damages, calls)
    damage = damages.found()
    gpus = _numbered_gpus(export, work, syncs, faults)
    mode = _graph_mode(captured)
    _note_gaps(mode, calls, ranges, work, notes)
    threads = {*callers.tolist(), *distinct(ranges.thread).tolist()}
    diagnostics = _diagnostics(export)
    losses, refuted = losses_of(diagnostics, _held(export, calls, work, syncs))
    told = [f"Nsight Systems reports: {row.text}" for row in losses]
    apart = left_out(export, (*ACTIVITIES, "NVTX_EVENTS", "DIAGNOSTIC_EVENT"))
    told += [f"Incomplete: {row.text}. Export the whole report again." for row in apart]
    seen = {process_of(thread) for thread in threads} | set(distinct(work.process).tolist())
    names = dict(export.texts("PROCESSES", "globalPid", "name"))
    return Timeline(
        source=export.source,
        product=about.get("EXPORT_PRODUCT_VERSION", ""),
        schema=schema,
        graph_mode=mode,
        processes={process: names.get(process, "") for process in sorted(seen)},
        threads=_threads(export, threads),
        gpus={gpu: gpus.names[gpu] for gpu in sorted(distinct(work.gpu).tolist())},
        ranges=ranges,
        calls=calls,
        work=work,
        syncs=syncs,
        notes=[*note_of(damage), *notes, *gpus.notes, *refuted, *first_few(told, "such warning", most=5)],
        losses=[*losses, *apart],
        damage=damage,
        diagnostics=diagnostics,
        overheads=overheads,
        nodes=_nodes(export),
        faults=faults,
        faults_of=recorded_sides(export, captured),
    )


def _graph_mode(captured: Iterable[tuple[str, str]]) -> str:
    """How graphs were traced. If processes differ: as a whole, which shows the least.

    Args:
        captured: names and values of ``META_DATA_CAPTURE``; a name may begin with a process.
    """
    found = {value for name, value in captured if name.endswith(GRAPH_MODE)}
    return next((value for value in sorted(found) if value.lower() == "graph"), min(found, default=""))


def _note_gaps(mode: str, calls: Calls, ranges: Ranges, work: Works, notes: list[str]) -> None:
    """Notes about data that the capture lacks."""
    launched = any("GraphLaunch" in name for name, _ in calls.kinds)
    if (mode.lower() == "graph" and launched) or work.flags("graph").any():
        notes.append(
            "CUDA graphs were traced as a whole: kernels and copies inside a graph are missing from the capture, "
            "and from all counts here. Capture again with --cuda-graph-trace=node."
        )
    if not len(calls):
        notes.append("No CUDA calls were captured, so no work can be attributed to a range.")
    if not len(work):
        notes.append("No GPU work was captured, so nothing is known about the activity of the GPU.")
    if not len(ranges):
        notes.append("No NVTX ranges were captured: run the program with ranges, and nsys with -t cuda,nvtx.")


def _calls(export: Export, damages: Damages) -> Calls:
    start, end, correlation, thread, name = export.columns(
        _CALLS, "start", "end", "correlationId", "globalTid", "nameId"
    )
    numbers, firsts = codes(name) if len(name) else (name, name)
    damages.unnamed(Kind("cuda", "CUDA call"), export.unnamed(name))
    # versions of a call count as one kind
    texts = (_VERSION.sub("", export.strings.get(one, "(unknown call)")) for one in name[firsts].tolist())
    merged, names = numbered((text, _api(text)) for text in texts)
    start_ns, end_ns = damages.bounded(Kind("cuda", "CUDA call"), start, end)
    return Calls(names, what=merged[numbers], start_ns=start_ns, end_ns=end_ns, thread=thread, correlation=correlation)


def failed_calls(export: Export) -> NDArray[np.bool_]:
    """Whether each call returned an error."""
    (returned,) = export.columns(_CALLS, "returnValue")
    found: NDArray[np.bool_] = returned != 0
    return found


def _api(name: str) -> Api:
    return "runtime" if name.startswith("cuda") else "driver"


def _numbered_gpus(export: Export, work: Works, syncs: Waits, faults: Faults) -> Gpus:
    """Replaces the GPU number of the process by that of the machine, in work, waits and page faults."""
    columns = [("pid", "INTEGER"), ("cudaId", "INTEGER"), ("gpuId", "INTEGER"), ("uuid", "TEXT")]
    rows = [row for row in export.rows("TARGET_INFO_CUDA_DEVICE", columns) if None not in row[:3]]
    known = {(pid, cuda): Device(gpu, uuid or "") for pid, cuda, gpu, uuid in rows}
    named = export.rows("TARGET_INFO_GPU", [("vmId", "INTEGER"), ("id", "INTEGER"), ("name", "TEXT")])
    names = {(-1 if vm is None else vm, gpu): name or "" for vm, gpu, name in named if gpu is not None}
    names = {**{(-1, gpu): name for (_, gpu), name in names.items()}, **names}
    numbers, firsts = codes(work.process, work.gpu) if len(work) else (work.gpu, work.gpu)
    used = [(int(work.process[first]), int(work.gpu[first])) for first in firsts.tolist()]
    found = gpus_of(used, known, names)
    if used:
        work.gpu = np.array([found.numbers[key] for key in used], np.int64)[numbers]
    for table in (syncs, faults):
        pairs = zip(table.process.tolist(), table.gpu.tolist(), strict=True)
        table.gpu = np.array([found.numbers.get(key, key[1]) for key in pairs], np.int64)
    return found


def _nodes(export: Export) -> list[Node]:
    """Creations of graph nodes. Those without a node or a thread are ignored."""
    return [
        Node(node, original or None, start or 0, process_of(thread), thread)
        for start, thread, node, original in export.numbers(
            _NODES, "start", "globalTid", "graphNodeId", "originalGraphNodeId"
        )
        if node and thread
    ]


def _syncs(export: Export, callers: Column, damages: Damages) -> Waits:
    names = export.labels("ENUM_CUPTI_SYNC_TYPE", "name", _SYNC_KINDS)
    labels = export.labels("ENUM_CUPTI_SYNC_TYPE", "label", {})
    processes = set(map(process_of, callers.tolist()))
    alone = next(iter(processes)) if len(processes) == 1 else 0
    start, end, device, stream, correlation, process, kind = export.columns(_SYNC, *_ON_GPU, "syncType")
    numbers, firsts = codes(kind) if len(kind) else (kind, kind)
    types = kind[firsts].tolist()
    known = [names.get(number, f"kind {number}") for number in types]
    blocks = np.array([name.endswith("SYNCHRONIZE") for name in known], np.int64)
    start_ns, end_ns = damages.bounded(Kind("cuda", "synchronization"), start, end)
    return Waits(
        [labels.get(number) or name.replace("_", " ").lower() for number, name in zip(types, known, strict=True)],
        what=numbers,
        blocks=blocks[numbers],
        start_ns=start_ns,
        end_ns=end_ns,
        process=np.where(process == 0, alone, process),
        gpu=device,
        stream=stream,
        correlation=correlation,
    )


def _ranges(export: Export, others: tuple[Works, Calls, Waits], notes: list[str], damages: Damages) -> Ranges:
    """Push/pop and start/end ranges. A range that was never closed ends at the last end of the others."""
    domains: dict[tuple[int, int], str] = {}
    texts = [("text", "TEXT"), ("textId", "INTEGER")]
    which = [("globalTid", "INTEGER"), ("domainId", "INTEGER")]
    for thread, domain, text, text_id in export.rows("NVTX_EVENTS", which + texts, f"WHERE eventType = {_DOMAIN}"):
        domains[(thread or 0) >> 24, domain or 0] = text or export.strings.get(text_id, "")
    where = f"eventType IN ({_PUSHED}, {_STARTED})"
    columns = ("start", "end", "eventType", "globalTid", "endGlobalTid", "domainId", "int64Value", "textId")
    start, end, kind, thread, end_thread, domain, payload, registered, *filled = export.columns(
        "NVTX_EVENTS", *columns, where=where, filled=("end", "int64Value", "textId", "text")
    )
    ended, paid, named, worded = (one > 0 for one in filled)
    damages.unnamed(Kind("ranges", "NVTX range"), export.unnamed(registered[named & ~worded]))
    name, names = _range_names(export, where, np.where(named, registered, NONE), worded)
    # Nsight Systems closes open ranges when profiling stops.
    closed = ended & ~np.isin(end, _stopped(export))
    of_domain, firsts = codes(thread >> 24, domain) if len(thread) else (thread, thread)
    start_ns, end_ns = damages.bounded(Kind("ranges", "NVTX range"), start, np.where(closed, end, start))
    end_thread = np.where((kind == _PUSHED) | (end_thread == 0), thread, end_thread)
    if not closed.all():
        last = max((int(rows.end_ns.max()) for rows in others if len(rows)), default=0)
        end_ns = np.where(closed, end_ns, np.maximum(start_ns, last))
        _note_unclosed([names[at] for at in name[~closed].tolist()], notes)
    return Ranges(
        names,
        [domains.get((int(thread[at]) >> 24, int(domain[at])), "") for at in firsts.tolist()],
        name=name,
        domain=of_domain,
        start_ns=start_ns,
        end_ns=end_ns,
        thread=thread,
        end_thread=end_thread,
        pushed=(kind == _PUSHED).astype(np.int64),
        closed=closed.astype(np.int64),
        payload=payload,
        paid=paid.astype(np.int64),
    )


def _range_names(export: Export, where: str, registered: Column, worded: NDArray[np.bool_]) -> tuple[Column, list[str]]:
    """For each range the index of its name, and the names: own texts, or registered strings."""
    if not len(registered):
        return empty(), []
    words: list[str] = []
    own = np.flatnonzero(worded)
    texts = empty(len(registered), NONE)
    if len(own):
        rows = export.rows("NVTX_EVENTS", [("text", "TEXT")], f"WHERE ({where}) AND text IS NOT NULL ORDER BY rowid")
        texts[own], words = numbered(text for (text,) in rows)
    # Many ranges share few names: each name is looked up once, in the order of the first use.
    places, firsts = codes(texts, registered)
    order = np.argsort(firsts)
    pairs = zip(texts[firsts[order]].tolist(), registered[firsts[order]].tolist(), strict=True)
    numbers, names = numbered(
        (words[at] if at != NONE else "") or export.strings.get(text, "(unnamed)") for at, text in pairs
    )
    of_place = empty(len(firsts))
    of_place[order] = numbers
    return of_place[places], names


def _stopped(export: Export) -> list[int]:
    """When profiling stopped, if the export says so."""
    said = export.rows("DIAGNOSTIC_EVENT", [("timestamp", "INTEGER"), ("text", "TEXT")])
    found = [at for at, text in said if at is not None and text and text.startswith("Profiling has stopped")]
    return [*found, *(row for (row,) in export.numbers("ANALYSIS_DETAILS", "duration") if row)]


def _note_unclosed(names: list[str], notes: list[str]) -> None:
    several = list(dict.fromkeys(names))
    shown = units.listing([repr(name) for name in several])
    notes.append(
        f"Never closed: {plural(len(names), 'range')} ({shown}). They are drawn up to the end of the capture and "
        "contain nothing: work launched in them alone is under (no range)."
    )


def _diagnostics(export: Export) -> list[Diagnostic]:
    labels = export.labels("ENUM_DIAGNOSTIC_SEVERITY_LEVEL", "label", _SEVERITIES)
    columns = [("severity", "INTEGER"), ("text", "TEXT"), ("globalPid", "INTEGER")]
    return [
        Diagnostic(labels.get(severity, str(severity)).lower(), text, process or 0)
        for severity, text, process in export.rows("DIAGNOSTIC_EVENT", columns)
        if text
    ]


def _held(export: Export, calls: Calls, work: Works, syncs: Waits) -> Held:
    """Content of the capture by process."""

    def counts(*processes: Column) -> dict[int, int]:
        found = {process for one in processes for process in distinct(one).tolist()}
        return {process: sum(int((one == process).sum()) for one in processes) for process in found}

    (event,) = export.columns("CUPTI_ACTIVITY_KIND_CUDA_EVENT", "globalPid")
    (node,) = export.columns(_NODES, "globalTid")
    (thread,) = export.columns("NVTX_EVENTS", "globalTid")
    launching = np.array([bool(_LAUNCHES.match(name)) for name, _ in calls.kinds], bool)
    rows = np.flatnonzero(launching[calls.what])
    lone = matched((calls.process[rows], calls.correlation[rows]), (work.process, work.correlation)) == NONE
    return Held(
        counts(calls.process, work.process, syncs.process, event, process_of(node)),
        counts(process_of(thread)),
        counts(calls.process[rows][lone]),
    )


def _read_overheads(export: Export, damages: Damages, calls: Calls) -> Overheads:
    """Loading of code, and overhead of the profiler itself. Unknown kinds are ignored."""
    parts = []
    columns = ("start", "end", "globalTid", "overheadType", "nameId", "correlationId")
    for table in _OVERHEADS:
        start, end, thread, kind, name, correlation = export.columns(table, *columns)
        numbers, firsts = codes(kind, name) if len(kind) else (kind, kind)
        pairs = zip(kind[firsts].tolist(), name[firsts].tolist(), strict=True)
        words = [WORDS.get(one) or word_of(export.strings.get(named, "")) for one, named in pairs]
        places = np.array([KINDS.index(word) if word else NONE for word in words], np.int64)[numbers]
        start_ns, end_ns = damages.bounded(Kind("", "overhead"), start, end)
        lone = np.flatnonzero(thread == 0)
        if len(lone):
            thread[lone] = _causing(calls, places[lone], correlation[lone], start_ns[lone])
        # One that seems to last for ever would excuse all that is late.
        kept = (places != NONE) & (np.abs(start_ns) < FARTHEST_NS) & (end_ns < FARTHEST_NS)
        parts.append([one[kept] for one in (places, start_ns, end_ns, thread)])
    what, start_ns, end_ns, thread = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Overheads(KINDS, what=what, start_ns=start_ns, end_ns=end_ns, thread=thread)


def _causing(calls: Calls, kinds: Column, correlation: Column, start_ns: Column) -> Column:
    """The thread of overheads that have none in the export; 0 if it may be another one.

    It is the thread of the call that the overhead belongs to. Without that call: only calls load code, so it is the
    thread that makes all calls. The profiler's own work may be done by a thread of its own.
    """
    threads = distinct(calls.thread)
    processes = distinct(process_of(threads))
    if len(processes) != 1:  # ids of calls are those of a process
        return empty(len(kinds))
    alone = threads[0] if len(threads) == 1 else 0
    call = calls_of(calls, np.repeat(processes, len(kinds)), correlation, start_ns)
    sure = np.where(kinds == KINDS.index(TOOL), 0, alone)
    found: Column = np.where(call != NONE, calls.thread[call], sure)
    return found


def _threads(export: Export, used: set[int]) -> list[Thread]:
    names = {
        thread: export.strings.get(name, "") for thread, name in export.numbers("ThreadNames", "globalTid", "nameId")
    }
    return [Thread(process=process_of(thread), id=thread, name=names.get(thread, "")) for thread in sorted(used)]
