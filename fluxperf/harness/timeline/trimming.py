"""Reduces an export of Nsight Systems to the data that is read, without details of the machine.

Kept are the tables and columns that `nsys_tables` reads, diagnostics about events that may be missing, and strings that
kept rows refer to. Times begin at 0. Removed are paths in strings, names of processes and threads other than Python's,
and all data about host, environment, command line and user.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from fluxperf.errors import RecordError
from fluxperf.files import place
from fluxperf.harness.timeline.columns import FARTHEST_NS
from fluxperf.harness.timeline.losses import is_read
from fluxperf.harness.timeline.nsys import read_capture
from fluxperf.harness.timeline.nsys_export import real_names
from fluxperf.harness.timeline.nsys_faults import FAULT_OPTIONS, GPU_FAULTS, HOST_FAULTS
from fluxperf.harness.timeline.nsys_tables import GRAPH_MODE
from fluxperf.harness.timeline.nsys_versions import EXPORTED
from fluxperf.harness.timeline.nsys_work import DECOMPRESS, GRAPH, KERNEL, MEMCPY, MEMSET
from fluxperf.lifeline import scratch

_ON_GPU = "start end deviceId streamId correlationId globalPid graphNodeId"
_CALLS = "CUPTI_ACTIVITY_KIND_RUNTIME"

#: Columns that are kept, by table. Columns with a time are shifted to begin at 0.
_KEPT = {
    "NVTX_EVENTS": "start end eventType text globalTid endGlobalTid textId domainId category int64Value",
    _CALLS: "start end globalTid correlationId nameId returnValue",
    KERNEL: f"{_ON_GPU} shortName demangledName gridX gridY gridZ blockX blockY blockZ",
    MEMCPY: f"{_ON_GPU} bytes copyKind srcKind dstKind copyCount migrationCause",
    MEMSET: f"{_ON_GPU} bytes",
    DECOMPRESS: f"{_ON_GPU} sourceBytes",
    GRAPH: f"{_ON_GPU} graphId",
    "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION": f"{_ON_GPU} syncType",
    "CUPTI_ACTIVITY_KIND_OVERHEAD": "start end globalTid correlationId overheadType",
    "CUPTI_ACTIVITY_KIND_JIT": "start end globalTid correlationId overheadType",
    "PROFILER_OVERHEAD": "start end globalTid overheadType nameId",
    GPU_FAULTS: "start end globalPid deviceId numberOfPageFaults faultAccessType",
    HOST_FAULTS: "start globalPid",
    "ANALYSIS_DETAILS": "duration",
    "CUPTI_ACTIVITY_KIND_CUDA_EVENT": "globalPid",
    "CUDA_GRAPH_NODE_EVENTS": "start globalTid graphNodeId originalGraphNodeId",
    "ENUM_CUDA_MEMCPY_OPER": "id name label",
    "ENUM_CUDA_MEM_KIND": "id name label",
    "ENUM_CUDA_UNIF_MEM_MIGRATION": "id name label",
    "ENUM_CUDA_UNIF_MEM_ACCESS_TYPE": "id name label",
    "ENUM_CUPTI_SYNC_TYPE": "id name label",
    "TARGET_INFO_GPU": "vmId id name",
    "TARGET_INFO_CUDA_DEVICE": "gpuId cudaId pid uuid",
    "PROCESSES": "globalPid pid name",
    "ThreadNames": "nameId globalTid",
    "META_DATA_EXPORT": "name value",
    "EXPORT_META_DATA": "name value",
    "META_DATA_CAPTURE": "name value",
    "DIAGNOSTIC_EVENT": "timestamp severity text globalPid",
    "ENUM_DIAGNOSTIC_SEVERITY_LEVEL": "id label",
    "StringIds": "id value",
}

#: Rows that are kept of tables with private details: a column, and a condition on it.
_WHERE = {
    "EXPORT_META_DATA": ("name", "name IN ('EXPORT_SCHEMA_VERSION', 'EXPORT_PRODUCT_VERSION')"),
    "META_DATA_EXPORT": ("name", f"name IN ('EXPORT_SCHEMA_VERSION', 'EXPORT_PRODUCT_VERSION', '{EXPORTED}')"),
    "META_DATA_CAPTURE": ("name", " OR ".join(f"name LIKE '%{name}'" for name in (GRAPH_MODE, *FAULT_OPTIONS))),
    "DIAGNOSTIC_EVENT": ("text", "is_read(text)"),
}

#: Columns with the number of a string.
_STRINGS = {
    "NVTX_EVENTS": ("textId",),
    _CALLS: ("nameId",),
    KERNEL: ("shortName", "demangledName"),
    "ThreadNames": ("nameId",),
    "PROFILER_OVERHEAD": ("nameId",),
}

#: Columns with text of the program, or of the profiler about it.
_TEXTS = {"NVTX_EVENTS": "text", "DIAGNOSTIC_EVENT": "text", "StringIds": "value"}

#: Tables of GPU work, and the condition for rows without times, which a timeline leaves out.
_ON_GPUS = (KERNEL, MEMCPY, MEMSET, DECOMPRESS, GRAPH)
_UNTIMED = '(ifnull(start, 0) = 0 AND ifnull("end", 0) = 0)'

_PATH = re.compile(r"(?:[A-Za-z]:)?(?<![\w)>])[/\\](?:[^\s/\\:;,'\"<>()]+[/\\])+[^\s/\\:;,'\"<>()]*")
_PYTHON = re.compile(r"python[\d.]*\Z")
_OTHER = "process"


class Trimmed(NamedTuple):
    """Bytes before and after."""

    before: int
    after: int


def trim(path: Path, out: Path) -> Trimmed:
    """Writes the trimmed export to a temporary file, checks that it can be read, and moves it to its path.

    Raises:
        TimelineError: the export cannot be read.
        RecordError: the trimmed export cannot be written, or would replace the original.
    """
    read_capture(path)
    if out.exists() and out.samefile(path):
        raise RecordError(
            f"--trimmed {out}: expected another file than the export itself, got the same. Choose another name."
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with scratch(".fluxperf-trimmed-", out.parent) as folder:
            made = folder.resolve() / "trimmed.sqlite"
            with closing(sqlite3.connect(made.as_uri(), uri=True)) as connection:
                _copy(connection, path)
            read_capture(made)
            place(made, out)
    except (OSError, sqlite3.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise RecordError(f"cannot write {out}: {why}. Expected a writable path. Choose another.") from error
    return Trimmed(path.stat().st_size, out.stat().st_size)


def _copy(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("ATTACH DATABASE ? AS whole", (f"{path.resolve().as_uri()}?mode=ro",))
    connection.create_function("scrubbed", 1, _scrubbed, deterministic=True)
    connection.create_function("python_only", 1, _python_only, deterministic=True)
    connection.create_function("instance", 1, _instances())
    connection.create_function("is_read", 1, is_read, deterministic=True)
    found = connection.execute("SELECT name FROM whole.sqlite_master WHERE type IN ('table', 'view')")
    real = real_names(str(name) for (name,) in found)
    held = {
        table: _columns(connection, real[table], wanted.split()) for table, wanted in _KEPT.items() if table in real
    }
    columns = {table: names for table, names in held.items() if names}
    first = _first(connection, columns, real)
    for table, names in columns.items():
        values = ", ".join(_value(table, name, first) for name in names)
        column, condition = _WHERE.get(table, ("", ""))
        where = "" if not column else f"WHERE {condition}" if f'"{column}"' in names else "WHERE 0"
        connection.execute(f'CREATE TABLE "{table}" ({", ".join(names)})')
        connection.execute(f'INSERT INTO "{table}" SELECT {values} FROM whole."{real[table]}" {where}')
    _drop_strings(connection, columns)
    connection.commit()
    connection.execute("DETACH DATABASE whole")
    connection.execute("VACUUM")


def _columns(connection: sqlite3.Connection, table: str, wanted: Iterable[str]) -> list[str]:
    there = {str(row[1]) for row in connection.execute(f'PRAGMA whole.table_info("{table}")')}
    return [f'"{name}"' for name in wanted if name in there]


def _first(connection: sqlite3.Connection, columns: dict[str, list[str]], real: dict[str, str]) -> int:
    """The earliest start of all events with times, which may be before the profiler's zero."""
    timed = [table for table, names in columns.items() if '"start"' in names and '"end"' in names]
    where = {"NVTX_EVENTS": "eventType IN (59, 60)"} | dict.fromkeys(_ON_GPUS, f"NOT {_UNTIMED}")
    begun = "CAST(start AS INTEGER)"
    clock = f"abs({begun} / 2) <= {FARTHEST_NS // 2}"  # halved, since no number is the negative of the lowest
    asked = [f'SELECT min({begun}) FROM whole."{real[one]}" WHERE {where.get(one, 1)} AND {clock}' for one in timed]
    found = [connection.execute(text).fetchone()[0] for text in asked]
    return min((int(start) for start in found if start is not None), default=0)


def _value(table: str, name: str, first: int) -> str:
    """The SQL expression for the written value of a column."""
    if name in ('"start"', '"end"'):
        moved = f"{name} - {first}"
        return f"CASE WHEN {_UNTIMED} THEN 0 ELSE {moved} END" if table in _ON_GPUS else moved
    if name in ('"timestamp"', '"duration"'):
        return f"{name} - {first}"
    if name == '"uuid"':
        return f"instance({name})"
    if name == f'"{_TEXTS.get(table)}"':
        return f"scrubbed({name})"
    return f"python_only({name})" if table == "PROCESSES" and name == '"name"' else name


def _drop_strings(connection: sqlite3.Connection, columns: dict[str, list[str]]) -> None:
    """Deletes names of threads that are not Python's, and strings without a reference."""
    if '"nameId"' in columns.get("ThreadNames", ()):
        named = "SELECT id FROM StringIds WHERE value GLOB 'python*' OR value = 'main'"
        connection.execute(f"DELETE FROM ThreadNames WHERE nameId NOT IN ({named})")
    used = " UNION ".join(
        f'SELECT {name} FROM "{table}" WHERE {name} IS NOT NULL'
        for table, names in _STRINGS.items()
        for name in names
        if f'"{name}"' in columns.get(table, ())
    )
    connection.execute(f"DELETE FROM StringIds WHERE id NOT IN ({used})" if used else "DELETE FROM StringIds")


def _instances() -> Callable[[object], str | None]:
    """Returns a function that replaces ids of devices by numbers, as an id identifies the machine."""
    known: dict[object, str] = {}
    return lambda uuid: known.setdefault(uuid, f"device {len(known)}") if uuid else None


def _scrubbed(text: str | bytes | float | None) -> str | bytes | float | None:
    return _PATH.sub("(path)", text) if isinstance(text, str) else text


def _python_only(name: object) -> str:
    """The name of a Python interpreter without its folder; a generic name for any other process."""
    last = re.split(r"[/\\]", str(name))[-1]
    return last if _PYTHON.fullmatch(last) else _OTHER
