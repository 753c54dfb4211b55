"""Reads a capture of Nsight Systems: an SQLite file from ``nsys export``, or a ``.nsys-rep`` that is exported first.

Tables and columns differ between versions, so each table is read by the columns that ``PRAGMA table_info`` lists;
`nsys_tables` describes the data read from them. Sources for the schema: NVIDIA's "SQLite Export Schema Reference", and
real exports of schema 3.24 and 3.25.
"""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from fluxperf.errors import TimelineError
from fluxperf.harness.text.escape import shown
from fluxperf.harness.timeline.attribution import attribute
from fluxperf.harness.timeline.capturing import find_nsys
from fluxperf.harness.timeline.damage import add_unstarted
from fluxperf.harness.timeline.model import Timeline
from fluxperf.harness.timeline.nsys_export import EXPORT, Export
from fluxperf.harness.timeline.nsys_tables import ACTIVITIES, failed_calls, timeline_of
from fluxperf.harness.timeline.nsys_versions import EXPORTED, KNOWN_MAJORS, TABLES, versions
from fluxperf.harness.timeline.unanswered import add_unanswered
from fluxperf.harness.timeline.uncopied import add_uncopied
from fluxperf.lifeline import scratch
from fluxperf.words import whole_in

_MAGIC = b"SQLite format 3\0"
_CAPTURE = "nsys profile -t cuda,nvtx --cuda-graph-trace=node --sample=none --cpuctxsw=none -o FILE PROGRAM"


def read_capture(path: Path) -> Timeline:
    """Reads a capture and attributes its work to ranges.

    Raises:
        TimelineError: the file cannot be read, is damaged, empty, of an unknown schema, or not a capture.
    """
    if path.suffix == ".nsys-rep":
        return _read_report(path)
    _check_file(path)
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            export = Export(connection, str(path))
            schema = _check_schema(export)
            _check_content(export)
            timeline = timeline_of(export, schema)
            attribute(timeline)
            add_unstarted(timeline)
            add_unanswered(timeline, lambda: failed_calls(export))
            add_uncopied(timeline, lambda: failed_calls(export), whole=EXPORTED in versions(export))
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise TimelineError(
            f"cannot read {path}: expected a complete export, but SQLite reports {shown(str(error))!r}. The file "
            f"is damaged or truncated. Export it again: {EXPORT}"
        ) from error
    return timeline


def _read_report(path: Path) -> Timeline:
    """Exports a report with the installed nsys, and reads the export."""
    if not path.is_file():
        raise TimelineError(f"cannot read {path}: expected a capture, found no such file. Make one with: {_CAPTURE}")
    program = find_nsys()
    if program is None:
        raise TimelineError(
            f"cannot read {path}: expected nsys on PATH or in an install path to export it, found none. On a "
            f"machine with Nsight Systems run: {EXPORT}; then give the .sqlite file."
        )
    with scratch("fluxperf-nsys-") as folder:
        target = folder / "export.sqlite"
        command = [str(program), "export", "--type", "sqlite", "-o", str(target), str(path.resolve())]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode or not target.is_file():
            said = shown((done.stderr or done.stdout).strip()[-400:], 400)
            raise TimelineError(
                f"cannot export {path}: nsys exited with {done.returncode} and said: {said}. Expected a report "
                "that this version of nsys can read. Export it with the version that wrote it."
            )
        timeline = read_capture(target)
    timeline.source = str(path)
    return timeline


def _check_file(path: Path) -> None:
    """Refuses a file that is not SQLite, or that has fewer bytes than its header states."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(100)
    except OSError as error:
        raise TimelineError(
            f"cannot read {path}: {error.strerror}. Expected an export of Nsight Systems, made by: {EXPORT}"
        ) from error
    if not head.startswith(_MAGIC):
        raise TimelineError(
            f"cannot read {path}: expected an SQLite file, got {size:,} bytes of another format. Traces in JSON "
            f"must be named .json or .json.gz. Make an SQLite file with: {EXPORT}"
        )
    page = int.from_bytes(head[16:18], "big")
    whole = (65536 if page == 1 else page) * int.from_bytes(head[28:32], "big")
    counted = head[24:28] == head[92:96]  # otherwise an old writer left the number of pages unset
    if len(head) < 100 or (counted and size < whole):
        raise TimelineError(
            f"cannot read {path}: expected {whole:,} bytes, got {size:,}: the file is truncated. Copy or export it "
            f"again: {EXPORT}"
        )


def _check_schema(export: Export) -> str:
    """The version of the schema, if its major version is known."""
    if not any(table in export.tables for table in TABLES):
        found = ", ".join(shown(name, 40) for name in sorted(export.tables)[:8]) or "no table at all"
        raise TimelineError(
            f"{export.source}: expected an export of Nsight Systems, with a table {TABLES[0]}; found {found}. Make "
            f"one with: {EXPORT}"
        )
    said = versions(export)
    version = said.get("EXPORT_SCHEMA_VERSION", "")
    major = version.partition(".")[0]
    if whole_in(major) not in KNOWN_MAJORS:
        known = ", ".join(f"{known}.x" for known in KNOWN_MAJORS)
        product = said.get("EXPORT_PRODUCT_VERSION", "")
        by = f", written by Nsight Systems {shown(product, 40)}" if product else ""
        raise TimelineError(
            f"{export.source}: expected an EXPORT_SCHEMA_VERSION of {known}, got {shown(version, 40)!r}{by}. "
            "Export the report with a version of Nsight Systems that writes a known schema (2022.4 and later), or "
            "update fluxperf."
        )
    return version


def _check_content(export: Export) -> None:
    """Refuses a capture without CUDA events, and one whose tables lack required columns."""
    if not any(export.has_rows(table) for table in ACTIVITIES):
        have = "it has NVTX ranges but " if export.has_rows("NVTX_EVENTS") else ""
        raise TimelineError(
            f"{export.source}: expected CUDA events, but the capture is empty: {have}no kernel, copy or CUDA call "
            f"is in it. Trace CUDA while the program uses a GPU: {_CAPTURE}"
        )
    for table, columns in _needed(export):
        missing = [column for column in columns if column not in export.tables.get(table, ())]
        if missing:
            what = f"columns {', '.join(missing)} of table {table}" if table in export.tables else f"table {table}"
            raise TimelineError(
                f"{export.source}: expected {what}, which every export of schema {KNOWN_MAJORS[-1]}.x has, but it "
                f"is missing. Export the whole report again, without --tables: {EXPORT}"
            )


def _needed(export: Export) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Required tables, with their required columns."""
    yield "StringIds", ("id", "value")
    for table, columns in ACTIVITIES.items():
        if export.has_rows(table):
            yield table, columns
    if export.has_rows("NVTX_EVENTS"):
        yield "NVTX_EVENTS", ("start", "end", "eventType", "globalTid")
