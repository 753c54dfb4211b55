"""The schema version of an export, and tables in it that are unknown."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown
from fluxperf.harness.timeline.model import Loss
from fluxperf.harness.timeline.nsys_export import Export
from fluxperf.words import whole_in

#: Table of versions. Up to schema 3.0 it had the second name.
TABLES = ("META_DATA_EXPORT", "EXPORT_META_DATA")

#: Major versions of ``EXPORT_SCHEMA_VERSION`` with known tables. A new major version may change the meaning of columns.
KNOWN_MAJORS = (3,)

#: The newest known minor version of each.
NEWEST = (3, 25)


def versions(export: Export) -> dict[str, str]:
    """Versions in the export, by name; empty for another database."""
    found: dict[str, str] = {}
    for table in TABLES:
        found |= dict(export.texts(table, "name", "value"))
    return found


#: The option of `nsys export --tables`: patterns of whole names, separated by commas.
EXPORTED = "EXPORT_PARAM_TABLES_TO_EXPORT"


def left_out(export: Export, tables: Iterable[str]) -> list[Loss]:
    """A loss if an export was made without some of these tables, which may have had rows."""
    asked = versions(export).get(EXPORTED, "").strip()
    if not asked:
        return []
    missing = [name for name in tables if name not in export.tables and not _asked_for(name, asked)]
    if not missing:
        return []
    told = f"exported with --tables={shown(asked, 100)}, without {units.listing(missing)}"
    return [Loss("cuda", told)]


def _asked_for(table: str, patterns: str) -> bool:
    """Whether one of the patterns matches the table's name. Invalid patterns match nothing."""
    for pattern in patterns.split(","):
        try:
            if re.fullmatch(pattern.strip(), table):
                return True
        except re.error:
            continue
    return False


#: Known tables of CUDA activity. Those that are not read contain nothing that is shown.
_KNOWN_ACTIVITIES = frozenset(
    f"CUPTI_ACTIVITY_KIND_{name}"
    for name in (
        "CUDA_EVENT", "GRAPH_TRACE", "JIT", "KERNEL", "MEMCPY", "MEMCPY_P2P", "MEMSET", "MEMORY", "MEM_DECOMPRESS",
        "OPENACC_DATA", "OPENACC_LAUNCH", "OPENACC_OTHER", "OPENMP", "OVERHEAD", "RUNTIME", "SYNCHRONIZATION",
    )
)  # fmt: skip


def not_understood(export: Export, schema: str) -> list[str]:
    """A sentence about a schema that is newer than the known ones, and about tables that were not read."""
    minor = whole_in("".join(schema.split(".")[1:2]))
    if minor is None or minor <= NEWEST[1]:
        return []
    tables = [name for name in sorted(export.tables) if name.startswith("CUPTI_ACTIVITY_KIND_")]
    unread = [name for name in tables if name not in _KNOWN_ACTIVITIES and export.has_rows(name)]
    known = ".".join(map(str, NEWEST))
    text = f"Schema {schema} is newer than {known}, the newest known one. Known tables and columns were read."
    named = units.listing(unread)
    return [f"{text} Unknown tables were not read: {named}." if unread else text]
