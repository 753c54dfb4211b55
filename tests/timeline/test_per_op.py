"""Ops of a profiled step: shares of overlapping work, rates, ceilings, and the explained share of the step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxperf.cli import main
from fluxperf.errors import RecordError, TimelineError
from fluxperf.harness.facts.ceilings import MEMORY
from fluxperf.harness.facts.per_op import ATTENTION, PerOp, machine_ceilings, per_op, read_rates
from fluxperf.harness.records import OpRow
from fluxperf.harness.timeline.busy import busy_ns, shares_ns
from fluxperf.harness.timeline.ledger import LaunchCount, Ledger, compare, read_ledger, write_ledger
from fluxperf.harness.timeline.model import Work, Works
from fluxperf.harness.timeline.nsys import read_capture
from tests.contracts import tree
from tests.timeline.making import MS, US, Capture

#: Work of a step in the example: block, op, begin and end within the step, and stream.
NODES = (
    ("loop 0", "select_step", 0, 10, 7),
    ("double 0", "norm_modulate", 10, 110, 7),
    ("double 0", "linear", 110, 310, 7),
    ("double 1", "linear", 310, 510, 7),
    ("single 0", "attention", 510, 910, 7),
    ("single 0", "linear_gelu", 610, 810, 13),
    ("final 0", "linear", 920, 990, 7),
)


def row(op: str, section: str, count: int, flops: float, nbytes: float, within: str = "") -> OpRow:
    return OpRow(op=op, section=section, within=within, count=count, time_s=1.0, flops=int(flops), bytes=int(nbytes))


LEDGER = Ledger(
    fluxperf="0.1",
    workload="tiny",
    rung="fp8",
    steps=2,
    warmup=1,
    seconds=0.002,
    copies=[],
    launches=[LaunchCount(block=block, op=op, launches=1) for block, op, *_ in NODES],
    form="graph",
    policy={"activations": "bfloat16", "executor": "captured", "e4m3": "double single"},
    ops=[
        row("norm_modulate", "double", 1, 1e6, 2e8),
        row("linear", "double", 2, 4e11, 1e6),
        row("split_tokens", "double", 1, 0, 5e6),
        row("attention", "single", 1, 1e11, 1e6),
        row("linear", "single", 1, 8e10, 1e6, within="linear_gelu"),
        row("linear", "final", 1, 2.8e10, 1e6),
    ],
    products=["linear", "attention", "linear_gelu"],
    choices={"64 x 64 x 64 float8_e4m3fn DEFAULT": "candidate 0 of 2", "8 x 8 x 8 bfloat16 BIAS": "candidate 1 of 2"},
    # 524288 FLOP in 0.2 ns are 2.6e15 per second, and 1024 in 1 ps 1e15.
    trials_s={"64 x 64 x 64 float8_e4m3fn DEFAULT": [2.62144e-10, None], "8 x 8 x 8 bfloat16 BIAS": [1.024e-12]},
    untraced_steps_s=[1.01e-3, 0.97e-3, 1.5e-3],
)

RATES = {"machine": {"gpu": "Example GPU"}, "copy_gb_s": 4000.0, "commit": "c" * 40, "dirty": False}


def captured(steps: int = 2, idle: int = 10) -> Capture:
    """Nodes that are captured op by op, copied, and launched once per step, on two streams."""
    capture = Capture()
    capture.add("TARGET_INFO_GPU", id=0, name="Example GPU", smCount=4)
    for number, (block, op, *_) in enumerate(NODES, start=1):
        capture.range(block, number * 10 * US, number * 10 * US + 9 * US)
        capture.range(op, number * 10 * US + 1 * US, number * 10 * US + 8 * US)
        capture.node(number, number * 10 * US + 2 * US)
    for number in range(1, len(NODES) + 1):
        capture.node(100 + number, 200 * US, number)
    for step in range(steps):
        capture.range(f"step {step}", MS + 100 * step * US, MS + (100 * step + 50) * US)
        call = capture.call("cudaGraphLaunch_v10000", MS + (100 * step + 1) * US, MS + (100 * step + 40) * US)
        at = 2 * MS + step * (990 + idle) * US
        for number, (_, op, start, end, stream) in enumerate(NODES, start=101):
            capture.kernel(op, at + start * US, at + end * US, call, node=number, stream=stream)
    return capture


def table(capture: Capture, folder: Path, ledger: Ledger = LEDGER, rates: Sequence[Path] = ()) -> PerOp:
    timeline = capture.read(folder)
    return per_op(timeline, ledger, machine_ceilings(read_rates(rates), timeline, ledger))


def rates_file(folder: Path) -> Path:
    path = folder / "rates.json"
    path.write_text(json.dumps(RATES))
    return path


def test_the_example_is_a_graphs_replays(tmp_path: Path):
    timeline = captured().read(tmp_path)
    comparison = compare(timeline, LEDGER)
    assert comparison.problems == []
    assert "graph: 2 steps, one launch each, of 7 nodes (7 kernels)" in comparison.agreed


@pytest.mark.parametrize("at", [300 * US, MS + 20 * US])
def test_what_capturing_copies_is_not_of_the_steps(tmp_path: Path, at: int):
    capture = captured()
    call = capture.call("cudaMemcpyAsync_v3020", at, at + 1 * US)
    capture.copy(1, at + 1 * US, at + 2 * US, call, 4096)
    problems = " ".join(compare(capture.read(tmp_path), LEDGER).problems)
    if at < MS:
        assert problems == ""
    else:
        assert "the ledger has 0 copies of 0 B, the timeline 1 copy of 4,096 B." in problems
        assert "step 0: 1 piece of GPU work ran outside of the graph." in problems


def test_shares_of_overlapping_work_and_idle_add_up_to_the_step(tmp_path: Path):
    found = table(captured(), tmp_path)
    lines = {(line.section, line.op): line for line in found.ops}
    # 400 us of attention, of which 200 ran beside linear_gelu: each has half of those.
    assert lines["single", "attention"].gpu_ms == pytest.approx(0.3)
    assert lines["single", "linear_gelu"].gpu_ms == pytest.approx(0.1)
    assert lines["single", "linear_gelu"].kernel_sum_ms == pytest.approx(0.2)
    assert lines["double", "linear"].gpu_ms == pytest.approx(0.4)
    assert (lines["double", "linear"].kernels_per_step, lines["double", "linear"].calls_per_step) == (2, 2)
    assert [line.gpu_ms for line in found.ops] == sorted((line.gpu_ms for line in found.ops), reverse=True)
    # Two steps of 990 us with 10 us between them, in which 10 us of each had no work.
    assert found.step_ms == pytest.approx((2 * 0.99 + 0.01) / 2)
    assert found.ops_ms == pytest.approx(0.98)
    assert found.outside_ops_ms == 0
    assert found.idle_ms == pytest.approx(0.015)
    assert found.explained == pytest.approx(0.98 / 0.995)
    assert found.well_explained
    assert found.kernel_sum_ms == pytest.approx(1.18)
    assert sum(line.share_of_step for line in found.ops) == pytest.approx(found.explained)
    assert found.untraced_step_ms == pytest.approx(1.01)
    assert found.ops_of_untraced_step == pytest.approx(0.98 / 1.01)


def test_a_step_that_waits_is_not_well_explained(tmp_path: Path):
    found = table(captured(idle=60), tmp_path)
    assert found.explained == pytest.approx(0.98 / 1.02)
    assert not found.well_explained


def test_rates_and_shares_of_measured_ceilings(tmp_path: Path):
    found = table(captured(), tmp_path, rates=[rates_file(tmp_path)])
    lines = {(line.section, line.op): line for line in found.ops}
    linear = lines["double", "linear"]
    assert linear.is_product
    assert linear.tflop_per_s == pytest.approx(4e11 / 0.4e-3 / 1e12)
    assert linear.bound_by == "e4m3"
    assert linear.of_ceiling == pytest.approx(4e11 / 2e15 / 0.4e-3)
    norm = lines["double", "norm_modulate"]
    assert not norm.is_product
    assert norm.gb_per_s == pytest.approx(2e8 / 0.1e-3 / 1e9)
    assert (norm.bound_by, norm.of_ceiling) == (MEMORY, pytest.approx(0.5))
    assert lines["final", "linear"].bound_by == "bfloat16"
    assert lines["final", "linear"].of_ceiling == pytest.approx(2.8e10 / 1e15 / 0.07e-3)
    gelu = lines["single", "linear_gelu"]
    assert (gelu.calls_per_step, gelu.flop_per_step, gelu.bound_by) == (None, 8e10, "e4m3")
    select = lines["loop", "select_step"]
    assert (select.calls_per_step, select.gb_per_s, select.of_ceiling, select.bytes_per_step) == (None,) * 4
    assert ("double", "split_tokens") not in lines  # a view: nothing ran
    assert {line.what: line.rate for line in found.ceilings} == pytest.approx(
        {MEMORY: 4e12, "e4m3": 2e15, "bfloat16": 1e15}
    )
    assert {line.kind for line in found.ceilings} == {"measured"}
    assert ATTENTION in found.notes
    assert all(
        "by the profiled process or an earlier one" in line.source for line in found.ceilings if line.what != MEMORY
    )


def test_without_ceilings_rates_stay_and_shares_are_missing(tmp_path: Path):
    found = table(captured(), tmp_path, msgspec.structs.replace(LEDGER, choices={}, trials_s={}))
    assert found.ceilings == []
    assert {line.of_ceiling for line in found.ops} == {None}
    assert max(line.tflop_per_s or 0 for line in found.ops) == pytest.approx(1000)
    assert any("The memory rate of this GPU is not known" in note for note in found.notes)


def test_what_is_above_its_ceiling_is_said(tmp_path: Path):
    ops = [row("norm_modulate", "double", 1, 0, 9e8), row("linear", "double", 2, 4e12, 1e6), *LEDGER.ops[3:]]
    found = table(captured(), tmp_path, msgspec.structs.replace(LEDGER, ops=ops), [rates_file(tmp_path)])
    assert any("(double norm_modulate), because not all of its bytes moved" in note for note in found.notes)
    assert any("(double linear), because the products that were tried" in note for note in found.notes)


def test_work_outside_of_ops_and_of_steps_is_kept_apart(tmp_path: Path):
    capture = captured()
    call = capture.call("cudaLaunchKernel_v7000", MS + 110 * US, MS + 111 * US)
    capture.kernel("of a step, but of no op", 4 * MS - 10 * US, 4 * MS, call)
    call = capture.call("cudaLaunchKernel_v7000", MS + 300 * US, MS + 301 * US)
    capture.kernel("of no step", 3 * MS - 8 * US, 3 * MS - 3 * US, call)
    found = table(capture, tmp_path)
    lines = {(line.section, line.op): line for line in found.ops}
    assert lines["", "(outside ops)"].gpu_ms == pytest.approx(0.005)
    assert lines["(outside steps)", "(outside ops)"].gpu_ms == pytest.approx(0.0025)
    assert found.outside_ops_ms == pytest.approx(0.0075)
    assert found.ops_ms + found.outside_ops_ms + found.idle_ms == pytest.approx(found.step_ms)


def test_what_it_cannot_be_made_from(tmp_path: Path):
    timeline = captured().read(tmp_path)
    with pytest.raises(TimelineError, match=r"of an earlier fluxperf\. Profile again"):
        per_op(timeline, msgspec.structs.replace(LEDGER, ops=[]), {})
    timeline.work.gpu[0] = 1
    with pytest.raises(TimelineError, match="expected steps on one GPU"):
        per_op(timeline, LEDGER, {})
    timeline.work = Works()
    with pytest.raises(TimelineError, match="expected GPU work in ranges named step N"):
        per_op(timeline, LEDGER, {})
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.json").write_text("{}")
    for path, says in (("empty", "no .jsonl file below"), ("bad.json", "benchmarks.kernels"), ("none.jsonl", "none")):
        with pytest.raises(RecordError, match=says):
            read_rates([tmp_path / path])
    rates_file(tmp_path / "empty")
    assert [ceiling.rate for ceiling in read_rates([tmp_path / "empty"]).given] == [4e12]


def piece(start: int, end: int, gpu: int = 0) -> Work:
    return Work("kernel", "k", start, end, 1, gpu, 7, 1)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30), st.integers(0, 1)), max_size=12))
def test_shares_are_those_of_a_clock_that_is_read_in_every_nanosecond(rows: list[tuple[int, int, int]]):
    work = sorted((piece(start, start + lasts, gpu) for start, lasts, gpu in rows), key=lambda one: one.start_ns)
    expected = np.zeros(len(work))
    for gpu in (0, 1):
        for now in range(100):
            running = [i for i, one in enumerate(work) if one.gpu == gpu and one.start_ns <= now < one.end_ns]
            expected[running] += 1 / max(1, len(running))
    assert shares_ns(work) == pytest.approx(expected)
    assert shares_ns(work).sum() == pytest.approx(busy_ns(work))


def test_shares_of_many_pieces_stay_exact():
    work = [
        piece(1_700_000_000_000_000_000 + i * 100, 1_700_000_000_000_000_000 + i * 100 + 150) for i in range(50_000)
    ]
    shares = shares_ns(work)
    assert shares.sum() == pytest.approx(busy_ns(work), rel=1e-9)
    assert all(abs(a - b) < 1e-3 for a, b in pairwise(shares[1:-1]))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    captured().write(tmp_path / "x.sqlite")
    write_ledger(tmp_path / "x.ledger.json", LEDGER)

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["fluxperf", "timeline", "x.sqlite", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        done = capsys.readouterr()
        return code, done.out, " ".join(done.err.split())

    return call


def test_the_command_prints_the_table_and_writes_it(run, tmp_path: Path):
    rates_file(tmp_path)
    code, out, err = run("--ledger", "x.ledger.json", "--ceilings", "rates.json", "--per-op", "ops.json")
    assert code == 0, err
    assert "ops of a step (one launch of a graph, mean of 2)" in out
    assert "Ops explain 98.5 % of the step. Kernel times add up to 1.180 ms; the GPU was busy for 0.980 ms." in out
    assert "Without the profiler a step took 1.010 ms. The sum of the ops is 97.0 % of that." in out
    assert "Ceiling: memory 4.00 TB/s (a device copy" in out
    written = msgspec.json.decode((tmp_path / "ops.json").read_bytes(), type=PerOp)
    assert (written.kind, written.schema, written.steps, len(written.ops)) == ("per-op", 1, 2, 6)
    assert str(tmp_path) not in (tmp_path / "ops.json").read_text()
    code, out, _ = run("--ledger", "x.ledger.json", "--ceilings", "rates.json", "--json")
    document = json.loads(out)
    assert document["per_op"] == json.loads((tmp_path / "ops.json").read_text())
    assert "per_op" in json.loads(run("--json")[1])


def test_records_of_the_repository_are_looked_for(run, tmp_path: Path):
    folder = tmp_path / "reports" / "records"
    folder.mkdir(parents=True)
    rates_file(folder)
    assert "Ceiling: memory" not in run("--ledger", "x.ledger.json")[1]
    shutil.copy(tree.ROOT / "reports" / "records" / "host-tiny.jsonl", folder)
    assert "Ceiling: memory 4.00 TB/s" in run("--ledger", "x.ledger.json")[1]


def test_requests_that_cannot_be_met(run, tmp_path: Path):
    code, _, err = run("--per-op", "ops.json")
    assert (code, "--per-op: expected --ledger" in err) == (2, True)
    code, _, err = run("--ceilings", "nothing.json")
    assert (code, "--ceilings: expected --ledger" in err) == (2, True)
    code, _, err = run("--ledger", "x.ledger.json", "--ceilings", "nothing.json")
    assert (code, "cannot read ceilings from nothing.json" in err) == (2, True)
    write_ledger(tmp_path / "x.ledger.json", msgspec.structs.replace(LEDGER, ops=[]))
    code, out, err = run("--ledger", "x.ledger.json")
    assert (code, "ops of a step" in out) == (0, False)
    code, _, err = run("--ledger", "x.ledger.json", "--per-op", "ops.json")
    assert (code, "Profile again" in err) == (2, True)
    assert not (tmp_path / "ops.json").exists()


def test_ledgers_of_before_are_read(tmp_path: Path):
    exports = Path(__file__).parent / "exports"
    ledger = read_ledger(exports / "h100-schnell-1024-fused.ledger.json")
    assert (ledger.form, ledger.ops, ledger.machine, ledger.untraced_steps_s) == ("ops", [], None, [])


def test_the_document_shows_what_it_prints(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rates_file(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    _, out, _ = run("--ledger", "x.ledger.json", "--ceilings", "rates.json")
    printed = [line.rstrip() for line in out[out.index("ops of a step") :].splitlines()]
    shown = (tree.ROOT / "docs" / "timeline.md").read_text(encoding="utf-8").split("```")
    assert [part.strip().splitlines() for part in shown if part.strip().startswith("ops of a step")] == [printed]


def test_a_trimmed_export_gives_the_same_table(run, tmp_path: Path):
    run("--ledger", "x.ledger.json", "--trimmed", "small.sqlite")
    whole, small = (per_op(read_capture(tmp_path / name), LEDGER, {}) for name in ("x.sqlite", "small.sqlite"))
    assert small == whole
    assert compare(read_capture(tmp_path / "small.sqlite"), LEDGER).problems == []
