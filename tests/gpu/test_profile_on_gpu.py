"""``fluxperf profile`` on a real GPU: what CUPTI and Nsight Systems see is what the run counted, op by op."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.harness.timeline.capturing import find_nsys
from fluxperf.harness.timeline.findings import Finding, findings
from fluxperf.harness.timeline.ledger import Ledger, compare, read_ledger
from fluxperf.harness.timeline.model import NONE, Timeline
from fluxperf.harness.timeline.reading import read_timeline
from fluxperf.harness.timeline.summary import summarize
from tests.contracts import tree

#: What a rung that makes no copies must be free of.
ROUND_TRIPS = {"host-copy", "pageable-copy", "item-sync", "sync-in-loop"}


class Profiled(NamedTuple):
    """What one profile left: its export or trace read, the trace, the ledger, and what was printed."""

    timeline: Timeline
    trace: Timeline
    ledger: Ledger
    out: str

    @property
    def found(self) -> list[Finding]:
        return findings(self.timeline)


Run = Callable[[str, str], Profiled]


@pytest.fixture(scope="module")
def profiled(gpu: CudaDevice, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Profiles two steps of ``tiny``, once for each rung and tool."""
    known: dict[tuple[str, str], Profiled] = {}

    def run(rung: str, tool: str) -> Profiled:
        if tool == "nsys" and find_nsys() is None:
            pytest.skip("needs nsys on PATH or in FLUXPERF_NSYS")
        if tool == "cupti" and importlib.util.find_spec("cupti") is None:
            pytest.skip("needs cupti-python")
        if (rung, tool) not in known:
            stem = tmp_path_factory.mktemp("profiles") / f"{rung}-{tool}"
            command = [sys.executable, "-m", "fluxperf", "profile", "--rung", rung, "--tool", tool]
            done = subprocess.run(
                [*command, "--measured-steps", "2", "--warmup", "2", "-o", str(stem)],
                capture_output=True,
                text=True,
                check=False,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([str(tree.ROOT), *filter(None, sys.path)]),
                    "COLUMNS": "160",
                },
            )
            assert done.returncode == 0, done.stdout + done.stderr
            trace = read_timeline(Path(f"{stem}.json"))
            export = Path(f"{stem}.sqlite")
            assert export.exists() == (tool == "nsys")
            timeline = read_timeline(export) if tool == "nsys" else trace
            known[rung, tool] = Profiled(timeline, trace, read_ledger(Path(f"{stem}.ledger.json")), done.stdout)
        return known[rung, tool]

    return run


EACH = pytest.mark.parametrize(
    ("rung", "tool"), [(rung, tool) for tool in ("cupti", "nsys") for rung in ("baseline", "fused")]
)


def names(timeline: Timeline, index: int) -> list[str]:
    return [timeline.ranges[i].name for i in timeline.chain(index)]


@EACH
def test_copies_bytes_and_launches_equal_the_ledger(profiled: Run, rung: str, tool: str) -> None:
    done = profiled(rung, tool)
    assert "copies and bytes: equal to the ledger" in done.out
    assert compare(done.timeline, done.ledger).problems == []
    # The same again, counted without what compares.
    down = [row for row in done.ledger.copies if row.direction == "d2h"]
    seen = [row for row in done.timeline.work if row.copy is not None and row.copy.crossing == "d2h"]
    assert sum(row.count for row in down) == sum(row.copy.count for row in seen if row.copy is not None)
    assert sum(row.bytes for row in down) == sum(row.bytes for row in seen)
    assert bool(seen) == (rung == "baseline")
    by_label = Counter(names(done.timeline, row.range)[-1] for row in seen)
    expected: Counter[str] = Counter()
    for row in down:
        expected[row.label] += row.count
    assert by_label == expected


@EACH
def test_every_piece_of_work_is_in_a_step_and_an_op(profiled: Run, rung: str, tool: str) -> None:
    done = profiled(rung, tool)
    timeline = done.timeline
    assert not timeline.lost
    assert [row for row in timeline.work if row.call == NONE] == []
    assert {row.domain for row in timeline.ranges if row.name.startswith("step ")} == {"fluxperf"}
    assert {row.name for row in timeline.ranges if row.name.startswith("step ")} == {"step 0", "step 1"}
    share = summarize(timeline).in_ops
    assert share is not None
    assert share >= 0.98
    rows = summarize(timeline, "op").rows
    steps = summarize(timeline, "step").rows
    in_steps = sum(row.gpu_sum_ms for row in steps if row.name.startswith("step "))
    in_ops = sum(row.gpu_sum_ms for row in rows if not row.name.startswith("("))
    assert in_ops == pytest.approx(in_steps, rel=0.02)


@EACH
def test_kernels_are_the_launches_where_no_library_chooses(profiled: Run, rung: str, tool: str) -> None:
    done = profiled(rung, tool)
    counted: Counter[str] = Counter()
    for row in done.ledger.launches:
        counted[row.op] += row.launches
    labels = {row.label for row in done.ledger.copies}
    kernels: Counter[str] = Counter()
    for row in done.timeline.work:
        if row.kind == "kernel":
            around = [name for name in names(done.timeline, row.range) if name not in labels]
            kernels[around[-1]] += 1
    own = {"modulate", "layer_norm", "gated_residual", "rms_norm", "apply_rope", "qkv_heads", "norm_modulate", "gelu"}
    assert counted
    for op in own & set(counted):
        assert kernels[op] == counted[op], op


@EACH
def test_a_copys_range_has_its_bytes(profiled: Run, rung: str, tool: str) -> None:
    timeline = profiled(rung, tool).timeline
    copies = [row for row in timeline.work if row.copy is not None and row.copy.crossing]
    assert [(names(timeline, row.range), row.bytes) for row in copies] == [
        (names(timeline, row.range), timeline.ranges[row.range].payload) for row in copies
    ]


@pytest.mark.parametrize("tool", ["cupti", "nsys"])
def test_findings_rank_the_round_trips_of_baseline(profiled: Run, tool: str) -> None:
    found = profiled("baseline", tool).found
    copies = [row for row in found if row.finding == "host-copy"]
    assert len(copies) > 5
    assert [row.cost_ms for row in copies] == sorted((row.cost_ms for row in copies), reverse=True)
    assert all(row.cost_ms > 0 for row in copies)
    assert any("scale" in row.range for row in copies)


@pytest.mark.parametrize("tool", ["cupti", "nsys"])
def test_none_of_them_remains_in_fused(profiled: Run, tool: str) -> None:
    assert [row for row in profiled("fused", tool).found if row.finding in ROUND_TRIPS] == []


@EACH
def test_the_trace_says_what_the_export_says(profiled: Run, rung: str, tool: str) -> None:
    done = profiled(rung, tool)
    one, two = (summarize(each, "op") for each in (done.timeline, done.trace))
    assert [(row.name, row.calls, row.kernels, row.copies) for row in one.rows] == [
        (row.name, row.calls, row.kernels, row.copies) for row in two.rows
    ]


def test_the_two_tools_agree(profiled: Run) -> None:
    for rung in ("baseline", "fused"):
        one, two = (summarize(profiled(rung, tool).timeline, "op") for tool in ("nsys", "cupti"))
        # A product may take one kernel or several: each process chooses algorithms by its own trials.
        counts = [
            {
                row.name: (
                    row.calls,
                    0 if "linear" in row.name or "matmul" in row.name or row.name == "attention" else row.kernels,
                    sum(copy.count for copy in row.copies),
                )
                for row in each.rows
            }
            for each in (one, two)
        ]
        assert counts[0] == counts[1]


def test_a_profile_that_exists_is_kept(profiled: Run, gpu: CudaDevice, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    command = [sys.executable, "-m", "fluxperf", "profile", "--tool", "cupti", "-o", str(tmp_path / "x")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tree.ROOT), *filter(None, sys.path)])},
    )
    assert done.returncode == 2, done.stderr
    assert json.loads((tmp_path / "x.json").read_text()) == {}
