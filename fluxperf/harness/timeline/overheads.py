"""Kinds of overhead that CUPTI and Nsight Systems record: what loads code, and what the tool itself costs."""

from __future__ import annotations

LOADING = "module loading"
COMPILING = "driver compiler"
QUEUE_FULL = "queue full"
TOOL = "profiler"

#: By ``overheadType`` of an Nsight Systems export (``ENUM_CUPTI_OVERHEAD_TYPE``).
WORDS = {
    2: COMPILING,
    3: TOOL,
    4: TOOL,
    5: TOOL,
    6: LOADING,
    7: LOADING,
    8: QUEUE_FULL,
}
