"""Batches of decompressions are work of a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxperf.harness.capture.rows import rows_of
from fluxperf.harness.capture.windows import windows
from fluxperf.harness.timeline.nsys import read_capture
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.reading import read_timeline
from fluxperf.harness.timeline.summary import summarize
from fluxperf.harness.timeline.trace import trace
from fluxperf.harness.timeline.trimming import trim
from tests.timeline.judging import codes
from tests.timeline.making import US
from tests.timeline.test_missing_evidence import whole


def test_decompressions_are_work(tmp_path: Path):
    capture = whole()
    number = capture.call("cuMemBatchDecompressAsync", 15 * US, 18 * US)
    capture.decompress(420 * US, 1420 * US, number, 4096)
    capture.launch("next", 1400 * US, 1420 * US, 400 * US)
    path = capture.write(tmp_path / "x.sqlite")
    trim(path, tmp_path / "trimmed.sqlite")
    (tmp_path / "trace.json").write_text(trace(read_capture(path)), encoding="utf-8")
    for one in (path, tmp_path / "trimmed.sqlite", tmp_path / "trace.json"):
        timeline = read_timeline(one)
        (row,) = summarize(timeline, "range").rows
        assert (row.kernels, row.decompressions, row.memsets, row.copies, row.idle_ms) == (2, 1, 0, [], 0)
        assert (row.gpu_ms, [work.bytes for work in timeline.work]) == (pytest.approx(1.8), [0, 4096, 0])
        assert codes(timeline, "idle > 1 %", "kernels > 2", "copies > 0") == {
            "idle > 1 %": 0, "kernels > 2": 0, "copies > 0": 0,
        }  # fmt: skip
        places = Places(timeline)
        rows = rows_of(timeline, places, windows(timeline, places)[0][0])
        shown = [item for group in rows.groups for row in group.rows for item in row.items]
        assert [item.kind for item in shown if item.name == "decompression"] == ["copy"]
