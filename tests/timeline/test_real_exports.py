"""Exports of Nsight Systems 2025.3 from one H100: one step of `schnell-1024` at rungs `baseline` and `fused`.

Made by ``fluxperf profile`` and trimmed by ``fluxperf timeline --trimmed``; beside each is the ledger of its run.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from fluxperf.harness.capture.gaps import histogram, judged
from fluxperf.harness.timeline.findings import findings
from fluxperf.harness.timeline.ledger import Ledger, compare, read_ledger
from fluxperf.harness.timeline.model import Timeline
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.reading import read_timeline
from fluxperf.harness.timeline.summary import summarize

EXPORTS = Path(__file__).parent / "exports"
RUNGS = ("baseline", "fused")


def export(rung: str) -> Path:
    return EXPORTS / f"h100-schnell-1024-{rung}.sqlite"


@pytest.fixture(scope="module")
def captured() -> dict[str, tuple[Timeline, Ledger]]:
    return {
        rung: (read_timeline(export(rung)), read_ledger(export(rung).with_suffix(".ledger.json"))) for rung in RUNGS
    }


@pytest.mark.parametrize("rung", RUNGS)
def test_a_fixture_is_small_and_tells_nothing_of_its_machine(rung):
    assert export(rung).stat().st_size < 2_000_000
    with closing(sqlite3.connect(f"file:{export(rung)}?mode=ro", uri=True)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        texts = [
            str(value) for table in tables for row in database.execute(f'SELECT * FROM "{table}"') for value in row
        ]
    assert not [text for text in texts if text.startswith(("/", "~")) or "/tmp" in text or "HOME=" in text]
    assert not [table for table in tables if "ENVIRONMENT" in table or "COMMAND" in table]


@pytest.mark.parametrize(("rung", "copies", "kernels"), [("baseline", 2332, 10398), ("fused", 0, 628)])
def test_copies_bytes_and_launches_equal_the_ledger(captured, rung, copies, kernels):
    timeline, ledger = captured[rung]
    assert compare(timeline, ledger).problems == []
    assert sum(row.copy.count for row in timeline.work if row.copy is not None) == copies
    assert sum(row.kind == "kernel" for row in timeline.work) == kernels
    assert sum(row.count for row in ledger.copies) == copies


def test_waits_are_those_of_the_calls_and_not_of_the_types_of_records(captured):
    waits = {rung: {row.call: row for row in summarize(captured[rung][0]).waits} for rung in RUNGS}
    assert {call: row.count for call, row in waits["baseline"].items()} == {
        "cudaEventSynchronize": 510,
        "cudaStreamSynchronize": 2333,
    }
    assert sum(row.ms for row in waits["baseline"].values()) == pytest.approx(16_558.7, abs=0.1)
    assert {call: (row.count, round(row.ms, 1)) for call, row in waits["fused"].items()} == {
        "cudaStreamSynchronize": (1, 72.7)
    }
    drawn = [row for row in captured["fused"][0].syncs if row.end_ns - row.start_ns > 1e6]
    assert [(row.kind, row.blocks) for row in drawn] == [("cudaStreamSynchronize", True)]


def test_a_copy_that_the_ledger_does_not_know_is_named(captured):
    timeline, ledger = captured["baseline"]
    known = [row for row in ledger.copies if (row.op, row.label, row.block) != ("scale", "scale.result", "double 3")]
    assert len(known) == len(ledger.copies) - 1
    (problem,) = compare(timeline, msgspec.structs.replace(ledger, copies=known)).problems
    assert all(word in problem for word in ("double 3", "scale", "scale.result"))


@pytest.mark.parametrize("rung", RUNGS)
def test_ops_sum_to_the_step_within_two_percent(captured, rung):
    timeline, _ = captured[rung]
    steps = sum(row.gpu_sum_ms for row in summarize(timeline, "step").rows if row.name.startswith("step "))
    ops = sum(row.gpu_sum_ms for row in summarize(timeline, "op").rows if not row.name.startswith("("))
    assert steps > 100
    assert ops == pytest.approx(steps, rel=0.02)


def test_findings_of_the_baseline_rank_the_round_trip_of_the_attention_scale_first(captured):
    found = findings(captured["baseline"][0])
    assert [(row.finding, row.range) for row in found[:2]] == [
        ("host-copy", f"step * / {section} * / attention / scale / scale.result") for section in ("single", "double")
    ]
    trips = [row for row in found if row.finding == "host-copy"]
    assert sum(row.count for row in trips) == 2332
    assert sum(row.cost_ms for row in trips) > 0.8 * 93_798
    assert [row.cost_ms for row in found] == sorted((row.cost_ms for row in found), reverse=True)


def test_the_gaps_of_the_baseline_are_round_trips_and_fused_has_few(captured):
    said = {}
    for rung, (timeline, _) in captured.items():
        places = Places(timeline)
        said[rung] = judged(histogram(timeline, places), summarize(timeline, "op", places))[0]
    assert said["baseline"].startswith("Bound by round trips: copies between host and device come late for 9")
    assert said["fused"].startswith("Idle time is small")


def test_findings_of_fused_hold_no_round_trip(captured):
    found = findings(captured["fused"][0])
    assert {row.finding for row in found} <= {"launch-bound"}
    assert sum(row.cost_ms for row in found) < 1.5
