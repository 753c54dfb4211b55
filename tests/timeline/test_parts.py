"""Parts of a capture, comparison of two captures, and inclusive time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fluxperf.cli import main
from fluxperf.errors import ConfigError
from fluxperf.harness.timeline.differing import difference
from fluxperf.harness.timeline.filtering import Filter, filtered
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.summary import summarize
from fluxperf.harness.timeline.trace import trace
from fluxperf.harness.timeline.tree import tree
from tests.timeline.making import MS, US, Capture, example
from tests.timeline.test_trace import assert_slices_nest


def loops(turns: int = 3, lasts: int = 30 * US, name: str = "kernel") -> Capture:
    """Repetitions of two nested ranges in two processes, each with two kernels inside and one outside."""
    capture = Capture()
    for pid in (100, 200):
        capture.add("TARGET_INFO_CUDA_DEVICE", gpuId=pid // 100 - 1, cudaId=0, pid=pid)
        for turn in range(turns):
            at = turn * MS
            capture.range(f"turn {turn}", at, at + 900 * US, pid=pid)
            capture.range("inner", at + 10 * US, at + 400 * US, pid=pid, domain=1)
            for index in range(2):
                capture.launch(name, at + (20 + 100 * index) * US, at + (30 + 100 * index) * US, lasts, pid=pid)
            capture.launch("beside", at + 500 * US, at + 510 * US, 50 * US, pid=pid)
    return capture


def test_the_tree_holds_what_is_below(tmp_path: Path):
    timeline = loops().read(tmp_path)
    (turn,) = tree(timeline, Places(timeline))
    (inner,) = turn.children
    assert (turn.name, turn.calls, turn.kernels) == ("turn *", 6, 18)
    assert (inner.path, inner.calls, inner.kernels) == ("turn * / inner", 6, 12)
    assert (turn.gpu_ms, inner.gpu_ms) == pytest.approx((6 * 0.11, 6 * 0.06))
    assert inner.projected is not None
    spread = (inner.projected.total_ms, inner.projected.min_ms, inner.projected.median_ms, inner.projected.max_ms)
    assert spread == pytest.approx((6 * 0.13, 0.13, 0.13, 0.13))
    assert turn.host.total_ms == pytest.approx(6 * 0.9)


def test_ranges_that_nest_without_end_stay_a_tree(tmp_path: Path):
    capture = Capture()
    for depth in range(500):
        capture.range("again", depth, 10 * MS - depth)
    capture.launch("kernel", 1000, 20 * US, 5 * US)
    timeline = capture.read(tmp_path)
    rows = [row for branch in tree(timeline, Places(timeline)) for row in branch.rows()]
    assert len(rows) < 100
    assert {branch.kernels for _, branch in rows} == {1}


@pytest.mark.parametrize(
    ("wanted", "kernels", "ranges"),
    [
        (Filter(process=200), 9, 6),
        (Filter(gpu=1), 9, 12),
        (Filter(range="inner"), 12, 6),
        (Filter(range="turn 1"), 6, 4),
        (Filter(between_ms=(0.95, 2.0)), 6, 4),
        (Filter(domain="default", process=100), 9, 3),
        (Filter(range="turn 1", process=100, gpu=0), 3, 2),
    ],
)
def test_a_part_of_a_capture(wanted, kernels, ranges, tmp_path: Path):
    capture = loops()
    for pid in (100, 200):
        capture.domain(1, "named", pid=pid)
    part = filtered(capture.read(tmp_path), wanted)
    assert (summarize(part).total.kernels, len(part.ranges)) == (kernels, ranges)
    assert part.notes[-1].startswith("Only a part of the capture is shown: ")


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Filter(process=7), "in the capture: 100 and 200"),
        (Filter(gpu=9), "in the capture: 0 and 1"),
        (Filter(range="outer"), "--in outer: expected a range of the capture. It has 'turn"),
        (Filter(domain="other"), "in the capture: default"),
        (Filter(between_ms=(5.0, 1.0)), "a start before its end"),
        (Filter(between_ms=(500.0, 600.0)), "found none"),
    ],
)
def test_a_part_that_is_not_there(wanted, says, tmp_path: Path):
    with pytest.raises(ConfigError, match=says):
        filtered(loops().read(tmp_path), wanted)


def test_two_captures_are_aligned_by_path_op_and_kernel(tmp_path: Path):
    sides = []
    for name, capture in (("before", loops()), ("after", loops(4, 60 * US, "other"))):
        (tmp_path / name).mkdir()
        sides.append(capture.read(tmp_path / name))
    found = difference(*sides)
    rows = {row.name: row for row in found.ranges}
    assert (rows["turn *"].before.calls, rows["turn *"].after.calls) == (6, 8)
    assert rows["turn * / inner"].gpu_ms == pytest.approx(8 * 0.12 - 6 * 0.06)
    kernels = {row.name: (row.before.calls, row.after.calls, row.seen) for row in found.kernels}
    assert kernels == {"kernel": (12, 0, "only before"), "other": (0, 16, "only after"), "beside": (6, 8, "in both")}
    same = difference(sides[0], sides[0])
    assert {row.gpu_ms for row in (*same.ranges, *same.ops, *same.kernels)} == {0.0}


def test_kernels_of_one_short_name_keep_their_arguments(tmp_path: Path):
    capture = Capture()
    names = (("gemm", "void gemm<4>()"), ("gemm", "void gemm<8>()"), ("add", "void add()"))
    for index, (short, full) in enumerate(names):
        call = capture.call("cudaLaunchKernel", index * 100 * US, index * 100 * US + US)
        capture.kernel(short, (index * 100 + 10) * US, (index * 100 + 20) * US, call)
        capture.rows["CUPTI_ACTIVITY_KIND_KERNEL"][-1]["demangledName"] = capture.string(full)
    rows = {row.name for row in summarize(capture.read(tmp_path), "kernel").rows}
    assert rows == {"void gemm<4>()", "void gemm<8>()", "add"}


def test_domains_that_interleave_have_tracks_of_their_own(tmp_path: Path):
    capture = Capture()
    for number, name in ((1, "A"), (2, "B")):
        capture.domain(number, name)
    for turn in range(3):
        at = turn * 200 * US
        capture.range("outer", at, at + 100 * US, domain=1)
        capture.range("other", at + 50 * US, at + 150 * US, domain=2)
        capture.launch("kernel", at + 60 * US, at + 70 * US, 10 * US)
    events = json.loads(trace(capture.read(tmp_path)))["traceEvents"]
    assert_slices_nest(events)
    tracks = {event["name"]: event["tid"] for event in events if event.get("cat") == "user_annotation"}
    assert tracks["outer"] != tracks["other"]
    assert [event["name"] for event in events if event["ph"] == "X"].count("other") == 3
    assert "main" not in str(tracks)
    names = {event["args"]["name"] for event in events if event["ph"] == "M" and event["name"] == "thread_name"}
    assert "thread (1), domain B" in names


def test_times_are_those_that_perfetto_reads(tmp_path: Path):
    # Its importer multiplies microseconds by 1000 and cuts: a time that is a little short would be a nanosecond off.
    capture = example()
    for index in range(300):
        capture.launch("kernel", 20 * MS + index * 1009, 20 * MS + index * 1009 + 7, 1 + index % 5)
    timeline = capture.read(tmp_path)
    events = json.loads(trace(timeline))["traceEvents"]
    told = sorted(int(event["ts"] * 1000.0) for event in events if event.get("cat") == "kernel")
    first = timeline.ranges.start_ns.min()
    assert told == sorted(row.start_ns - first for row in timeline.work if row.kind == "kernel")


def test_the_command_shows_a_tree_a_part_and_a_difference(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    loops().write(tmp_path / "a.sqlite")
    loops(4).write(tmp_path / "b.sqlite")

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["fluxperf", "timeline", *words])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        told = capsys.readouterr()
        return code, told.out + told.err

    assert "turn *" in run("a.sqlite", "--tree")[1]
    assert json.loads(run("a.sqlite", "--tree", "--json")[1])["tree"][0]["children"][0]["name"] == "inner"
    assert "Only a part of the capture" in run("a.sqlite", "--in", "inner", "--process", "100")[1]
    code, text = run("a.sqlite", "b.sqlite")
    assert (code, "+33.3 %" in text) == (0, True)
    assert len(json.loads(run("a.sqlite", "b.sqlite", "--json")[1])["ranges"]) == 2
    assert "Page written to page.html" in run("a.sqlite", "b.sqlite", "--html", "page.html")[1]
    assert "a.sqlite → b.sqlite" in Path("page.html").read_text(encoding="utf-8")
    code, text = run("a.sqlite", "b.sqlite", "--fail-on", "item-sync")
    assert (code, "expected no --fail-on with two captures" in " ".join(text.split())) == (2, True)
    code, text = run("a.sqlite", "--json", "--fail-on", "copies in nowhere > 0", "--fail-on", "kernels > 3")
    assert code == 1
    said = json.loads(text[: text.rindex("}") + 1])
    assert said["failed_on"] == ["kernels > 3"]
    assert "copies in nowhere > 0" in said["undecided"]


@pytest.mark.parametrize("part", [("--in", "forward"), ("--between", "0", "1"), ("--gpu", "0")])
def test_a_trimmed_file_is_of_the_whole_capture(part, monkeypatch, capsys, tmp_path: Path):
    path = example().write(tmp_path / "example.sqlite")
    arguments = ["fluxperf", "timeline", str(path), "--trimmed", str(tmp_path / "small.sqlite"), *part]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "--trimmed: expected no --between, --in" in capsys.readouterr().err
    assert not (tmp_path / "small.sqlite").exists()
