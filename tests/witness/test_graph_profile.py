"""Profiles of graph steps without a GPU: a host device that replays, and CUPTI's stand-in."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fluxperf.cli import main
from fluxperf.cli import profile as cli
from fluxperf.engine.checkpoints.sources import SyntheticWeights
from fluxperf.engine.config import config_named
from fluxperf.engine.device.observers import NvtxRanges
from fluxperf.harness.facts.ceilings import MEMORY, Ceiling
from fluxperf.harness.facts.per_op import PerOp, per_op
from fluxperf.harness.records import OpRow
from fluxperf.harness.timeline.ledger import Ledger, compare, read_ledger, write_ledger
from fluxperf.harness.timeline.model import NONE, Timeline, Works
from fluxperf.harness.timeline.reading import read_timeline
from fluxperf.harness.timeline.recorder import Recorder
from fluxperf.harness.timeline.summary import summarize
from fluxperf.harness.timeline.trace import trace
from fluxperf.profiling import profile
from fluxperf.workloads import Prepared, drawn, placed, workload_named
from tests.model.graph_host import FakeArena, FakeReplay, GraphHost

STEPS = 3


class GraphGpu(GraphHost):
    """A host device whose kernel and graph launches go to CUPTI's stand-in."""

    def __init__(self, gpu: Any) -> None:
        super().__init__()
        self.gpu, self.graph = gpu, None
        capture = self._graphs.capture

        def captured(arena: FakeArena, work: Callable[[], Any]) -> FakeReplay:
            self.graph = graph = gpu.Graph()
            try:
                replay = capture(arena, work)
            finally:
                self.graph = None
            graph.instantiate()
            replay._tape.append(graph.launch)
            return replay

        self._graphs.capture = captured  # type: ignore[method-assign]

    def _launched(self, name: str) -> None:
        if self.graph is not None:
            self.graph.capture(name)
        else:
            self.gpu.launch(name)

    def launch(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        self._launched(getattr(function, "__name__", "kernel"))
        return super().launch(function, *args, **options)

    def give(self, node: Callable[[], None]) -> None:
        self._launched("of_the_step")
        super().give(node)


def prepared_on(gpu: Any, rung: str = "captured") -> Prepared:
    return drawn(placed(rung, SyntheticWeights(config_named("tiny")), GraphGpu(gpu)), workload_named("tiny"))


def recorded(fake: Any, by_op: bool = False, measured: int = STEPS, rung: str = "captured") -> tuple[Timeline, Ledger]:
    prepared, recorder = prepared_on(fake.gpu, rung), Recorder(4242, cupti=fake.cupti, settle=lambda: None)
    open_ranges = lambda: NvtxRanges(rung, recorder.domain)  # noqa: E731
    ledger = profile(prepared, measured, 1, open_ranges, recorder.start, recorder.stop, by_op)
    return recorder.timeline("x.json", {0: "Example GPU"}, "python"), ledger


@pytest.mark.parametrize("measured", [1, STEPS])
@pytest.mark.parametrize("rung", ["captured", "fp8"])
def test_the_graph_is_profiled_and_nothing_beside_it(fake: Any, rung: str, measured: int) -> None:
    timeline, ledger = recorded(fake, measured=measured, rung=rung)
    assert timeline.notes == []
    captured = sum(row.launches for row in ledger.launches)
    assert captured > 40
    assert (ledger.form, ledger.steps, ledger.copies) == ("graph", measured, [])
    assert len(timeline.work) == measured * captured
    assert len({row.graph_node for row in timeline.work}) == captured
    assert {call.name for call in timeline.calls if call.name.endswith("Launch")} == {"cudaGraphLaunch"}
    comparison = compare(timeline, ledger)
    assert comparison.problems == []
    steps = f"{measured} steps, one launch each" if measured > 1 else "1 step, one launch"
    assert f"graph: {steps}, of {captured} nodes ({captured} kernels)" in comparison.agreed
    assert (
        f"launches: {measured * captured} counted, {measured * captured} kernels, equal in every op"
        in comparison.agreed
    )
    assert len(ledger.untraced_steps_s) == workload_named("tiny").steps


def test_every_node_has_the_op_and_block_that_it_was_captured_in(fake: Any) -> None:
    timeline, ledger = recorded(fake)
    kernels: Counter[tuple[str, str]] = Counter()
    for row in timeline.work:
        names = [timeline.ranges[i].name for i in timeline.chain(row.captured)]
        assert len(names) >= 2, names
        kernels[names[0], names[-1]] += 1
        assert timeline.ranges[row.range].name.startswith("step ")
    assert kernels == {(row.block, row.op): STEPS * row.launches for row in ledger.launches}
    assert kernels["loop 0", "select_step"] == kernels["loop 0", "euler_step"] == STEPS
    assert {"double 1", "single 1", "final 0"} <= {block for block, _ in kernels}
    assert summarize(timeline).in_ops == 1


def test_the_steps_ops_are_counted_without_what_is_done_once_per_image(fake: Any) -> None:
    _, ledger = recorded(fake)
    counts = {(row.section, row.op): row.count for row in ledger.ops}
    assert counts["double", "attention"] == counts["single", "attention"] == 2
    assert counts["loop", "euler_step"] == 1
    assert counts["embed", "linear"] == 1  # of the latents only: text, pooled text and times are copied once per image
    assert ("embed", "timestep_embedding") not in counts
    assert "attention" in ledger.products
    assert ledger.policy["executor"] == "captured"
    assert ledger.sizes is not None
    assert ledger.sizes.steps == 4


def test_op_by_op_it_is_as_other_rungs_are(fake: Any) -> None:
    timeline, ledger = recorded(fake, by_op=True)
    assert ledger.form == "ops"
    assert ledger.untraced_steps_s == []
    assert {row.graph_node for row in timeline.work} == {None}
    assert compare(timeline, ledger).problems == []


@pytest.mark.parametrize("how", ["refused", "no subscriber", "old bindings", "no number"])
def test_without_nodes_it_says_that_ops_need_nsys(fake: Any, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "refused":
        fake.cupti.STATE.nodes_refused = True
    elif how == "no subscriber":
        monkeypatch.setenv("FAKE_CUPTI", "busy")
    elif how == "old bindings":
        monkeypatch.delattr(fake.cupti, "GraphData")
    else:
        monkeypatch.setattr(fake.cupti, "get_graph_node_id", lambda node: int("no number"))
    timeline, ledger = recorded(fake)
    fake.cupti.STATE.nodes_refused = False
    told = [
        note
        for note in timeline.notes
        if note.startswith("Nodes of CUDA graphs could not be recorded at their creation")
    ]
    assert len(told) == 1
    assert "Profile with nsys" in told[0]
    problems = " ".join(compare(timeline, ledger).problems)
    assert "nodes of the graph have no op, as their creation was not seen." in problems
    assert {row.captured for row in timeline.work} == {NONE}


@pytest.fixture
def command(
    fake: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """``fluxperf`` with a GPU and without nsys."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(cli.driver, "device_count", lambda: 1)
    monkeypatch.setattr(cli, "Recorder", partial(Recorder, cupti=fake.cupti, settle=lambda: None))
    monkeypatch.setattr(cli, "_prepared", lambda wanted: prepared_on(fake.gpu, wanted.rung))

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fluxperf", *words])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        done = capsys.readouterr()
        return code, done.out, " ".join(done.err.split())

    return call


@pytest.mark.parametrize("rung", ["captured", "fp8"])
def test_the_command_profiles_the_graph_and_shows_its_ops(command: Any, tmp_path: Path, rung: str) -> None:
    code, out, err = command("profile", "--rung", rung, "--measured-steps", "2", "-o", "x", "--per-op", "ops.json")
    assert code == 0, err
    assert "graph: 2 steps, one launch each, of " in out
    assert "ops of a step (one launch of a graph, mean of 2)" in out
    table = msgspec.json.decode((tmp_path / "ops.json").read_bytes(), type=PerOp)
    assert (table.rung, table.form, table.steps, table.tool) == (rung, "graph", 2, "CUPTI")
    assert table.workload is not None
    assert (table.workload.name, table.workload.steps) == ("tiny", 4)
    assert table.machine is not None
    code, again, _ = command("timeline", "x.json", "--ledger", "x.ledger.json")
    assert code == 0
    assert again == out


def test_the_command_has_the_other_form(command: Any) -> None:
    code, out, err = command("profile", "--rung", "captured", "--eager-form", "-o", "x")
    assert code == 0, err
    assert "ops of a step (ops launched one by one, mean of 1)" in out
    assert "graph: " not in out


def planted(timeline: Timeline, what: str) -> None:
    work = timeline.work
    last = work[-1]
    if what == "missing node":
        timeline.work = work.taken(np.arange(len(work) - 1))
    elif what == "twice":
        again = msgspec.structs.replace(last, start_ns=last.end_ns, end_ns=last.end_ns + 10)
        timeline.work = Works.of([*work, again])
    elif what == "beside":
        work.graph_node[-1] = 0
    elif what == "two launches":
        work.call[-1] = work.call[work.call != last.call][0]
    else:
        timeline.work = work.taken(work.call == last.call)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("missing node", "The steps differ"),
        ("twice", "step 2: 1 node ran more than once."),
        ("beside", "step 2: 1 piece of GPU work ran outside of the graph."),
        ("two launches", "step 2: expected one launch of a graph, found 2 (2 x cudaGraphLaunch)."),
        ("missing steps", "Expected GPU work in 3 steps, found it in 1."),
    ],
)
def test_what_is_no_replay_of_one_graph_is_named(fake: Any, what: str, says: str) -> None:
    timeline, ledger = recorded(fake)
    planted(timeline, what)
    assert says in " ".join(compare(timeline, ledger).problems)


CEILINGS = {
    MEMORY: Ceiling("Example GPU", MEMORY, 1e12, "measured", "a copy"),
    "bfloat16": Ceiling("Example GPU", "bfloat16", 1e15, "measured", "a product"),
}


def test_ops_with_their_rates_add_up_to_the_step(fake: Any, tmp_path: Path) -> None:
    timeline, ledger = recorded(fake)
    write_ledger(tmp_path / "x.ledger.json", ledger)
    assert read_ledger(tmp_path / "x.ledger.json") == ledger
    (tmp_path / "x.json").write_text(trace(timeline))
    table = per_op(timeline, ledger, CEILINGS)
    again = per_op(read_timeline(tmp_path / "x.json"), read_ledger(tmp_path / "x.ledger.json"), CEILINGS)
    assert msgspec.to_builtins(again) == msgspec.to_builtins(table)
    lines = {(line.section, line.op): line for line in table.ops}
    assert table.outside_ops_ms == 0
    assert sum(line.gpu_ms for line in table.ops) == pytest.approx(table.ops_ms)
    assert table.ops_ms + table.idle_ms == pytest.approx(table.step_ms)
    assert sum(line.share_of_step for line in table.ops) == pytest.approx(table.explained)
    assert table.kernel_sum_ms > 10 * table.ops_ms  # the stand-in's graph runs everything at once
    attention = lines["double", "attention"]
    assert (attention.calls_per_step, attention.kernels_per_step) == (2, 2)
    counted = next(row for row in ledger.ops if (row.section, row.op) == ("double", "attention"))
    assert attention.tflop_per_s == pytest.approx(counted.flops / attention.gpu_ms * 1e-9)
    assert attention.bound_by == MEMORY
    assert attention.of_ceiling == pytest.approx(counted.bytes / 1e12 / (attention.gpu_ms / 1e3))
    assert lines["loop", "select_step"].gb_per_s is None
    assert lines["loop", "select_step"].calls_per_step is None
    assert isinstance(counted, OpRow)
