"""The trace opens in ui.perfetto.dev: known events, nested slices, arrows with both ends."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from fluxperf.harness.timeline.trace import trace
from tests.timeline.making import US, Capture, example


def written(capture: Capture, folder: Path) -> list[dict[str, Any]]:
    document = json.loads(trace(capture.read(folder)))
    assert set(document) == {"displayTimeUnit", "otherData", "traceEvents"}
    for event in document["traceEvents"]:
        assert event["ph"] in "XMbesf"
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert event["ph"] == "M" or event["ts"] >= 0
        assert event["ph"] != "X" or event["dur"] >= 0
    return document["traceEvents"]


def phase(events: list[dict[str, Any]], letter: str) -> list[dict[str, Any]]:
    return [event for event in events if event["ph"] == letter]


def assert_slices_nest(events: list[dict[str, Any]]) -> None:
    tracks: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for event in phase(events, "X"):
        start = round(event["ts"] * 1000)
        tracks[event["pid"], event["tid"]].append((start, start + round(event["dur"] * 1000)))
    for slices in tracks.values():
        around: list[int] = []
        for start, end in sorted(slices, key=lambda row: (row[0], -row[1])):
            while around and around[-1] <= start:
                around.pop()
            assert not around or end <= around[-1]
            around.append(end)


@pytest.mark.parametrize("variant", ["2023", "2025"])
def test_the_example(variant, tmp_path: Path):
    events = written(example(variant), tmp_path)
    assert_slices_nest(events)
    kernels = [event for event in phase(events, "X") if event["cat"] == "kernel"]
    assert len(kernels) == 52
    assert kernels[-1]["args"]["range"] == "step * / double * / attention"
    assert kernels[-1]["args"]["grid"] == [1, 1, 1]
    copies = [event for event in phase(events, "X") if event["cat"] == "gpu_memcpy"]
    assert [event["args"]["bytes"] for event in copies] == [4_000_000, 4, 4_000_000, 4]
    assert copies[0]["args"]["from"] == "Pageable"
    names = {event["args"]["name"] for event in phase(events, "M")}
    assert names == {"python (100)", "main (1)", "GPU 0 Example GPU", "stream 7"}


def test_every_arrow_leads_from_a_call_to_its_work(tmp_path: Path):
    events = written(example(), tmp_path)
    slices = {
        (event["pid"], event["tid"], event["ts"]): event
        for event in phase(events, "X")
        if "correlation" in event["args"]
    }
    starts = {event["id"]: event for event in phase(events, "s")}
    ends = {event["id"]: event for event in phase(events, "f")}
    assert set(starts) == set(ends)
    assert len(starts) == 56
    for number, start in starts.items():
        call, work = (slices[event["pid"], event["tid"], event["ts"]] for event in (start, ends[number]))
        assert call["args"]["correlation"] == work["args"]["correlation"]
        assert call["cat"] == "cuda_runtime"
        assert work["cat"] in ("kernel", "gpu_memcpy")


def test_processes_that_share_correlation_ids_have_their_own_arrows(tmp_path: Path):
    capture = Capture()
    for pid in (100, 200):
        capture.call("cudaLaunchKernel", 10 * US, 12 * US, pid=pid, correlation=1)
        capture.kernel("kernel", (20 + pid) * US, (25 + pid) * US, 1, pid=pid)
    starts = phase(written(capture, tmp_path), "s")
    assert [event["pid"] for event in starts] == [100, 200]
    assert len({event["id"] for event in starts}) == 2


def test_what_overlaps_on_one_stream_gets_a_track_of_its_own(tmp_path: Path):
    capture = Capture()
    capture.started("one", 0, 50 * US)
    capture.started("two", 20 * US, 90 * US)
    capture.launch("first", US, 10 * US, 20 * US)
    capture.launch("overlaps", 5 * US, 25 * US, 20 * US)
    capture.launch("after", 10 * US, 50 * US, 20 * US)
    events = written(capture, tmp_path)
    assert_slices_nest(events)
    tracks = {event["name"]: event["tid"] for event in phase(events, "X") if event["cat"] == "kernel"}
    assert tracks["first"] == tracks["after"] != tracks["overlaps"]
    assert [event["name"] for event in phase(events, "b")] == ["one", "two"]
    assert len(phase(events, "e")) == 2
