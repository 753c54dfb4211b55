"""``fluxperf profile`` on a real GPU: CUPTI and Nsight Systems agree with the run's counts, op by op.

Steps of `captured` and `fp8` are one graph launch each; every node is attributed to the op that captured it.
"""

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

import msgspec
import pytest

from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.harness.facts.per_op import PerOp, Rates, machine_ceilings, per_op
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
    """Results of one profile: its export or trace, the trace file, the ledger, and the printed text."""

    timeline: Timeline
    trace: Timeline
    ledger: Ledger
    out: str
    ops: PerOp

    @property
    def found(self) -> list[Finding]:
        return findings(self.timeline)


Run = Callable[..., Profiled]


@pytest.fixture(scope="module")
def profiled(gpu: CudaDevice, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Profiles two steps of ``tiny`` or another workload, once for each rung, tool and set of options."""
    known: dict[tuple[str, ...], Profiled] = {}

    def run(rung: str, tool: str, *options: str) -> Profiled:
        if tool == "nsys" and find_nsys() is None:
            pytest.skip("needs nsys on PATH or in FLUXPERF_NSYS")
        if tool == "cupti" and importlib.util.find_spec("cupti") is None:
            pytest.skip("needs cupti-python")
        if (rung, tool, *options) not in known:
            stem = tmp_path_factory.mktemp("profiles") / f"{rung}-{tool}"
            command = [sys.executable, "-m", "fluxperf", "profile", "--rung", rung, "--tool", tool]
            words = ["--measured-steps", "2", "--warmup", "2", "-o", str(stem), "--per-op", f"{stem}.ops.json"]
            done = subprocess.run(
                [*command, *words, *options],
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
            ops = msgspec.json.decode(Path(f"{stem}.ops.json").read_bytes(), type=PerOp)
            ledger = read_ledger(Path(f"{stem}.ledger.json"))
            known[rung, tool, *options] = Profiled(timeline, trace, ledger, done.stdout, ops)
        return known[rung, tool, *options]

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
        # A product may use one or several kernels: each process chooses algorithms by its own trials.
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


GRAPHS = pytest.mark.parametrize(
    ("rung", "tool"), [(rung, tool) for tool in ("cupti", "nsys") for rung in ("captured", "fp8")]
)


@GRAPHS
def test_a_graphs_steps_are_one_launch_each_of_nodes_that_have_their_ops(profiled: Run, rung: str, tool: str) -> None:
    done = profiled(rung, tool)
    timeline, ledger = done.timeline, done.ledger
    assert ledger.form == "graph"
    assert ledger.copies == []
    assert compare(timeline, ledger).problems == []
    assert "graph: 2 steps, one launch each" in done.out
    assert "copies and bytes: equal to the ledger, 0 copies of 0 B" in done.out
    launches = [call.name for call in timeline.calls if "GraphLaunch" in call.name]
    assert len(launches) == 2
    nodes = [row for row in timeline.work if row.graph_node is not None]
    places = Counter(tuple(names(timeline, row.captured)) for row in nodes)
    assert all(len(place) >= 2 for place in places), [place for place in places if len(place) < 2]
    assert {place[0] for place in places} >= {"embed 0", "double 0", "single 0", "final 0", "loop 0"}
    assert places["loop 0", "euler_step"] == places["loop 0", "select_step"] == 2
    assert summarize(timeline).in_ops == 1
    assert {tuple(names(timeline, row.range)) for row in nodes} == {("step 0",), ("step 1",)}


@GRAPHS
def test_ops_of_a_graph_add_up_to_its_step(profiled: Run, rung: str, tool: str) -> None:
    done = profiled(rung, tool)
    table = done.ops
    assert (table.form, table.steps, table.rung) == ("graph", 2, rung)
    assert table.outside_ops_ms == 0
    assert table.ops_ms + table.idle_ms == pytest.approx(table.step_ms)
    lines = {(line.section, line.op): line for line in table.ops}
    attention = lines["single", "attention"]
    assert attention.tflop_per_s
    assert attention.calls_per_step == 2
    assert all(line.gb_per_s for line in table.ops if line.op == "norm_modulate")
    assert table.untraced_step_ms is not None
    assert 0.2 < table.ops_ms / table.untraced_step_ms < 2
    ceilings = machine_ceilings(Rates([], []), done.timeline, done.ledger)
    dtype = "e4m3" if rung == "fp8" else "bfloat16"
    assert ceilings[dtype].kind == "measured", "the process tried products of this dtype"
    again = per_op(done.trace, done.ledger, ceilings)
    assert [(line.section, line.op, line.kernels_per_step) for line in again.ops] == [
        (line.section, line.op, line.kernels_per_step) for line in table.ops
    ]
    assert again.ops_ms == pytest.approx(table.ops_ms, rel=1e-6)


@pytest.mark.parametrize("tool", ["cupti", "nsys"])
def test_captured_steps_can_be_profiled_op_by_op(profiled: Run, tool: str) -> None:
    done = profiled("captured", tool, "--eager-form")
    assert done.ledger.form == "ops"
    assert {row.graph_node for row in done.timeline.work} == {None}
    graph = profiled("captured", tool)
    # A product may take one kernel or several: each process chooses algorithms by its own trials.
    own = ("norm_modulate", "qkv_heads", "cast", "euler_step")
    one, two = (
        {(line.section, line.op): line.kernels_per_step for line in each.ops.ops if line.op in own}
        for each in (done, graph)
    )
    assert one.items() >= two.items()
    assert {section for section, _ in two} == {"embed", "double", "single", "final", "loop"}


@pytest.mark.full_size
@pytest.mark.parametrize("tool", ["nsys", "cupti"])
@pytest.mark.parametrize("rung", ["captured", "fp8"])
def test_ops_explain_the_step_of_schnell(profiled: Run, gpu: CudaDevice, rung: str, tool: str) -> None:
    if gpu.properties["totalGlobalMem"] < 40e9:
        pytest.skip("needs 40 GB of GPU memory for the whole model")
    done = profiled(rung, tool, "--workload", "schnell-1024")
    assert compare(done.timeline, done.ledger).problems == []
    assert done.ops.well_explained, done.out
    assert done.ops.ops_of_untraced_step == pytest.approx(1, abs=0.05)
    within = [line for line in done.ops.ops if line.is_product and line.of_ceiling]
    assert {line.op for line in within} >= {"attention", "linear", "linear_gelu", "linear_gated_residual"}
    assert all(0 < (line.of_ceiling or 0) < 1.1 for line in within), [(line.op, line.of_ceiling) for line in within]


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
