"""Traces of PyTorch's profiler in the same model: joined by correlation id, with its operators as ranges."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from fluxperf.errors import TimelineError
from fluxperf.harness.timeline.blind import blind_spots
from fluxperf.harness.timeline.findings import findings
from fluxperf.harness.timeline.model import Timeline
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.reading import read_timeline
from fluxperf.harness.timeline.summary import summarize
from fluxperf.harness.timeline.tree import tree
from tests.timeline.judging import codes


def event(category: str, name: str, ts: float, dur: float, tid: Any = 42, pid: Any = 42, **args: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "pid": pid, "tid": tid, "ts": ts, "dur": dur, "args": args}


def profiled() -> list[dict[str, Any]]:
    """Three steps as Kineto writes them: a product, `.item()` as a pageable read, and NCCL in parallel
    to the product.
    """
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": 42, "tid": 0, "ts": 0, "args": {"name": "python3"}},
        {"ph": "M", "name": "thread_name", "pid": 42, "tid": 42, "ts": 0, "args": {"name": "main"}},
        event("Trace", "PyTorch Profiler (0)", 0, 1e5, "PyTorch Profiler", "Spans"),
    ]
    for step in range(3):
        at, number = 1000.5 + step * 1000, step * 10
        events += [
            event("user_annotation", f"ProfilerStep#{step}", at, 900),
            event("cpu_op", "aten::mm", at + 10, 100),
            event("cuda_runtime", "cudaLaunchKernel", at + 20, 5, correlation=number + 1),
            event("cpu_op", "aten::item", at + 120, 350),
            event("cuda_runtime", "cudaMemcpyAsync", at + 130, 300, correlation=number + 2),
            event("cuda_runtime", "cudaStreamSynchronize", at + 440, 20, correlation=number + 3),
            event("cuda_runtime", "cudaLaunchKernel", at + 500, 5, correlation=number + 4),
            event("kernel", "void gemm<float, 4>(float*)", at + 30, 380, 7, 0, correlation=number + 1, device=0,
                  stream=7, grid=[2, 1, 1], block=[128, 1, 1]),
            event("gpu_memcpy", "Memcpy DtoH (Device -> Pageable)", at + 420, 2, 7, 0, correlation=number + 2, device=0,
                  stream=7, bytes=4),
            event("kernel", "ncclDevKernel_AllReduce_Sum_f32(ncclDevKernelArgsStorage)", at + 310, 200, 20, 0,
                  correlation=number + 4, device=0, stream=20),
            event("gpu_user_annotation", f"ProfilerStep#{step}", at + 30, 480, 7, 0),
        ]  # fmt: skip
    return events


def written(folder: Path, events: list[dict[str, Any]], packed: bool = False, **about: Any) -> Timeline:
    document = {"schemaVersion": 1, "deviceProperties": [{"id": 0, "name": "Test GPU"}], "traceEvents": events, **about}
    path = folder / ("trace.json.gz" if packed else "trace.json")
    text = json.dumps(document).encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    return read_timeline(path)


@pytest.mark.parametrize("packed", [False, True])
def test_a_trace_has_ranges_calls_and_work(packed, tmp_path: Path):
    timeline = written(tmp_path, profiled(), packed)
    assert (timeline.tool, timeline.gpus) == ("PyTorch profiler", {0: "Test GPU"})
    assert (list(timeline.processes.values()), [row.name for row in timeline.threads]) == (["python3"], ["main"])
    steps = summarize(timeline, "step").rows
    assert [(row.name, row.kernels, row.syncs) for row in steps] == [
        (f"ProfilerStep#{step}", 2, 1) for step in range(3)
    ]
    ops = {row.name: row.kernels for row in summarize(timeline, "op").rows}
    assert ops == {"aten::mm": 3, "aten::item": 0, "(outside ops)": 3}
    (kernel,) = {(row.name, row.full_name, row.shape) for row in timeline.work if row.name == "gemm"}
    assert kernel == ("gemm", "void gemm<float, 4>(float*)", (2, 1, 1, 128, 1, 1))


def test_findings_and_the_tree_work_on_it(tmp_path: Path):
    timeline = written(tmp_path, profiled())
    found = {(row.finding, row.range): row.count for row in findings(timeline)}
    assert found["item-sync", "ProfilerStep#* / aten::item"] == 3
    assert found["pageable-copy", "ProfilerStep#* / aten::item"] == 3
    (root,) = tree(timeline, Places(timeline))
    assert (root.path, root.calls, root.kernels, root.copies, root.waits) == ("ProfilerStep#*", 3, 6, 3, 3)
    assert root.projected is not None
    assert (root.projected.min_ms, root.projected.max_ms) == pytest.approx((0.48, 0.48))
    assert [(row.name, row.gpu_ms) for row in root.children] == [
        ("aten::mm", pytest.approx(3 * 0.38)),
        ("aten::item", pytest.approx(3 * 0.002)),
    ]


def test_communication_beside_other_kernels(tmp_path: Path):
    (row,) = summarize(written(tmp_path, profiled())).overlaps
    sums = (row.communication_ms, row.compute_ms, row.overlap_ms, row.exposed_ms)
    assert sums == pytest.approx((0.6, 1.14, 0.3, 0.3))


def test_a_bare_list_of_events_is_a_trace_too(tmp_path: Path):
    path = tmp_path / "list.json"
    path.write_text(json.dumps(profiled()))
    assert summarize(read_timeline(path)).total.kernels == 6


def test_times_since_1970_are_those_of_older_versions(tmp_path: Path):
    timeline = written(tmp_path, profiled())
    since = [row | {"ts": 1_700_000_000_000_000 + row["ts"]} for row in profiled()]
    (tmp_path / "old").mkdir()
    old = written(tmp_path / "old", since)
    assert old.damage == []
    for rows, others in ((old.ranges, timeline.ranges), (old.calls, timeline.calls), (old.work, timeline.work)):
        for one, other in ((rows.start_ns, others.start_ns), (rows.end_ns, others.end_ns)):
            assert (one - other).tolist() == [1_700_000_000_000_000_000] * len(rows)
    assert summarize(old, "op").rows == summarize(timeline, "op").rows


def test_a_range_that_rounding_lets_end_after_the_one_around_it_lies_in_it(tmp_path: Path):
    for late, expected in ((0.75, "outer / inner"), (1.25, "inner")):
        at = 1_700_000_000_000_000
        events = [event("user_annotation", "outer", at, 100), event("cpu_op", "inner", at + 10, 90 + late)]
        events.append(event("cuda_runtime", "cudaLaunchKernel", at + 20, 5, correlation=1))
        timeline = written(tmp_path, events)
        assert Places(timeline).path(timeline.calls[0].range) == expected


@pytest.mark.parametrize(
    "hostile",
    [
        event("kernel", "k", 1e300, 1e300, correlation="x", device=None),
        event("kernel", "k", -5.0, -1.0, grid=["a"], block=None, correlation=1 << 70),
        event("cuda_runtime", "\x1b[31m", 1.0, 2.0, tid="thread", pid="process", correlation=-1),
        event("cpu_op", "x", 1.0, 2.0, tid=1 << 40, pid=-7),
        {"ph": "X", "cat": "kernel", "name": "no times", "args": ["list"]},
        event("gpu_memcpy", "Memcpy of another kind", 3.0, 1.0),
    ],
)
def test_events_that_say_strange_things_do_not_break(hostile, tmp_path: Path):
    timeline = written(tmp_path, [*profiled(), hostile])
    summarize(timeline)
    findings(timeline)
    tree(timeline, Places(timeline))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.json", b"{}", "damaged, truncated, or from another program"),
        ("x.json", b'{"traceEvents": [{"ph": "X", "name": "browser", "cat": "devtools", "ts": 1}]}', "another program"),
        ("x.json", b'{"schemaVersion": 1, "traceEvents": []}', "found no operator, CUDA call or kernel"),
        ("x.json.gz", gzip.compress(b"x" * 100, mtime=0)[:15], "cannot read"),
        ("x.json.gz", b"\x1f\x8bnothing", "cannot read"),
    ],
)
def test_what_is_no_trace(name, content, says, tmp_path: Path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TimelineError, match=says):
        read_timeline(path)


#: Categories as PyTorch 1.8 wrote them.
_OLD = {"cpu_op": "Operator", "cuda_runtime": "Runtime", "kernel": "Kernel", "gpu_memcpy": "Memcpy"}


@pytest.mark.parametrize("about", [{}, {"schemaVersion": None}])
def test_categories_of_older_versions_are_the_same(about, tmp_path: Path):
    (tmp_path / "now").mkdir()
    now = written(tmp_path / "now", profiled())
    events = [{**one, "cat": _OLD.get(one.get("cat", ""), one.get("cat", ""))} for one in profiled()]
    older = written(tmp_path, events, **about)
    assert findings(older) == findings(now)
    assert older.notes == now.notes


def test_times_may_be_texts(tmp_path: Path):
    (tmp_path / "now").mkdir()
    now = written(tmp_path / "now", profiled())
    events = [
        {name: str(value) if name in ("ts", "dur") else value for name, value in one.items()} for one in profiled()
    ]
    assert findings(written(tmp_path, events)) == findings(now)
    with pytest.raises(TimelineError, match="expected a complete trace"):
        written(tmp_path, [{**profiled()[3], "ts": "soon"}])


def moved(events: list[dict[str, Any]], more: int) -> list[dict[str, Any]]:
    """The same events of another process, which sees the same GPU, with other ids of its calls."""
    found = []
    for one in events:
        args = one["args"]
        if "correlation" in args:
            args = {**args, "correlation": args["correlation"] + more}
        found.append({**one, "args": args, **({"pid": 43, "tid": 43} if one["pid"] == 42 else {})})
    return found


def test_ids_that_several_processes_use_are_nobodys(tmp_path: Path):
    timeline = written(tmp_path, [*profiled(), *moved(profiled(), 0)])
    assert (timeline.work.call == -1).all()
    assert {row.process >> 24 for row in timeline.losses} == {42, 43}
    (note,) = [note for note in timeline.notes if "which of them launched" in note]
    assert "18 pieces" in note


def test_gpus_of_several_processes_are_kept_apart(tmp_path: Path):
    timeline = written(tmp_path, [*profiled(), *moved(profiled(), 100)])
    assert timeline.gpus == {
        0: "GPU 0 of process 42, perhaps Test GPU", 1: "GPU 0 of process 43, perhaps Test GPU",
    }  # fmt: skip
    assert [row.kernels for row in summarize(timeline, "step").rows] == [4, 4, 4]
    assert timeline.losses == []


def test_an_event_without_a_duration_is_damage(tmp_path: Path):
    events = profiled()
    at = next(index for index, one in enumerate(events) if one.get("cat") == "kernel")
    del events[at]["dur"]
    timeline = written(tmp_path, events)
    assert [row.text for row in timeline.damage] == ["1 kernel has no time and is left out"]


def test_a_graph_of_which_nothing_was_recorded_decides_nothing(tmp_path: Path):
    assert codes(written(tmp_path, profiled()), "kernels > 6") == {"kernels > 6": 0}
    events = [*profiled(), event("cuda_runtime", "cudaGraphLaunch", 5000, 9, correlation=77)]
    assert codes(written(tmp_path, events), "kernels > 6") == {"kernels > 6": 2}


def test_unified_memory_is_a_blind_spot_of_this_profiler(tmp_path: Path):
    events = [*profiled(), event("cuda_runtime", "cudaMallocManaged", 5000, 9, correlation=77)]
    assert "cudaMallocManaged" in blind_spots(written(tmp_path, events))["host-copy"]
    assert "host-copy" not in blind_spots(written(tmp_path, profiled()))


def test_a_call_whose_name_the_profiler_did_not_know_may_have_waited(tmp_path: Path):
    events = [*profiled(), event("cuda_runtime", "INVALID", 5000, 9, correlation=77)]
    told = blind_spots(written(tmp_path, events))["sync-in-loop"]
    assert "1 call waited whose names are none of CUDA's (INVALID)" in told
