"""Kinds of overhead that CUPTI and Nsight Systems record: loading of code, and costs of the profiler itself."""

from __future__ import annotations

import re

LOADING = "module loading"
COMPILING = "driver compiler"
QUEUE_FULL = "queue full"
TOOL = "profiler"

KINDS = [LOADING, COMPILING, QUEUE_FULL, TOOL]

#: By ``overheadType`` of an Nsight Systems export (``ENUM_CUPTI_OVERHEAD_TYPE``).
WORDS = {2: COMPILING, 3: TOOL, 4: TOOL, 5: TOOL, 6: LOADING, 7: LOADING, 8: QUEUE_FULL}

# Exports without types have a name for each overhead. Loading of a library counts as loading of code.
_BY_NAME = {
    LOADING: re.compile(r"module loading|lazy function|^dlopen|^dlclose", re.IGNORECASE),
    COMPILING: re.compile(r"compiler|\bJIT\b", re.IGNORECASE),
    QUEUE_FULL: re.compile(r"command buffer full", re.IGNORECASE),
    TOOL: re.compile(
        r"cupti|profiling|activity buffer|^resource|^TLS allocation|^chunk allocation|instrumentation", re.IGNORECASE
    ),
}


def word_of(name: str) -> str:
    """The kind of an overhead by its name; empty if the name is not known."""
    return next((kind for kind, pattern in _BY_NAME.items() if pattern.search(name)), "")
