"""Reads a timeline from whatever file holds one: an export or report of Nsight Systems, or a trace of fluxperf."""

from __future__ import annotations

from pathlib import Path

from fluxperf.harness.timeline.model import Timeline
from fluxperf.harness.timeline.nsys import read_capture
from fluxperf.harness.timeline.trace_reading import read_trace


def read_timeline(path: Path) -> Timeline:
    """An attributed timeline; ``.json`` is a trace, anything else a capture of Nsight Systems.

    Raises:
        TimelineError: the file cannot be read, is damaged, or holds none.
    """
    return read_trace(path) if path.suffix == ".json" else read_capture(path)
