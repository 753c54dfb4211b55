"""``fluxperf run --processes``: real processes once, then simulated ones that crash or disagree."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from fluxperf.harness.measure.sampler import interleave
from fluxperf.harness.records import Record, read_records
from tests.pure.test_records import TOTALS, make

TINY = ("run", "--workload", "tiny", "--rung", "fused", "--repeat", "2")

#: Replaces ``python -m fluxperf run .. -o FILE``: writes what the plan has for the number in the file's name.
STAND_IN = """#!{python} -S
import json, os, pathlib, sys, time
here, output = pathlib.Path(__file__).parent, pathlib.Path(sys.argv[-1])
plan = json.loads((here / "plan.json").read_text())[output.stem]
with (here / "calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
output.write_text("".join(line + "\\n" for line in plan["lines"]) + plan.get("torn", ""))
sys.stderr.write(plan.get("says", ""))
sys.stderr.flush()
if plan.get("hangs"):
    (here / "hangs").write_text(str(os.getpid()))
    time.sleep(600)
sys.exit(plan.get("code", 0))
"""


def record(rung: str, samples: list[float], **changes) -> str:
    times = {"denoise": [samples], "step": [samples]}
    return msgspec.json.encode(msgspec.structs.replace(make(rung), times_s=times, **changes)).decode()


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Replaces Python for the processes of a run; returns a function that sets the plan."""
    folder = tmp_path / "stand-in"
    folder.mkdir()
    program = folder / "python"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr("fluxperf.cli.replicas.sys.executable", str(program))

    def plan(*processes: dict) -> Path:
        numbered = {f"process-{number}": process for number, process in enumerate(processes, start=1)}
        (folder / "plan.json").write_text(json.dumps(numbered))
        return folder / "calls"

    return plan


def only(path: Path) -> Record:
    (found,) = read_records(path).records
    return found


def left(path: Path) -> list[Path]:
    return list(path.parent.glob(f"{path.name}.processes-*"))


def test_two_processes_make_one_record(fluxperf, tmp_path):
    path = tmp_path / "deep" / "records.jsonl"
    result = fluxperf(*TINY, "--processes", "2", "-o", path)
    assert result.code == 0, result.err
    assert "2 x 2" in result.out
    assert "1 record appended" in result.out
    merged = only(path)
    assert [len(samples) for samples in merged.times_s["denoise"]] == [2, 2]
    assert [len(samples) for samples in merged.times_s["step"]] == [8, 8]
    assert [len(samples) for samples in merged.times_s["warmup"]] == [1, 1]
    assert [row.stopped for row in merged.sampling] == ["count", "count"]
    assert (merged.totals.d2h_copies, merged.conditions) == (0, None)
    assert merged.error is not None
    assert left(path) == [], "the processes' own records are merged and gone"


def test_options_are_passed_on_as_they_were_given(fluxperf, stand_in, tmp_path):
    calls = stand_in(*({"lines": [record("fused", [1.0])]} for _ in range(3)))
    given = ("-r", "fused", "--rung", "batched", "--witness", "--peer", "diffusers", "--repeat", "7", "-w", "tiny-57")
    assert fluxperf("run", *given, "--processes", "3", "-o", tmp_path / "r.jsonl").code == 0
    seen = [json.loads(line) for line in calls.read_text().splitlines()]
    assert len(seen) == 3
    for number, words in enumerate(seen, start=1):
        assert words[:3] == ["-m", "fluxperf", "run"]
        assert sorted(words[3:-2]) == sorted(
            ["--workload=tiny-57", "--rung=fused", "--rung=batched", "--repeat=7", "--witness", "--peer=diffusers"]
        )
        assert words[-2] == "-o"
        assert words[-1].endswith(f"process-{number}.jsonl")


def test_rungs_are_merged_each(fluxperf, stand_in, tmp_path):
    path = tmp_path / "r.jsonl"
    stand_in(
        *({"lines": [record("batched", [n, n]), record("fused", [n])], "says": f"left out {n}\n"} for n in (1.0, 2.0))
    )
    result = fluxperf("run", "--processes", "2", "-o", path)
    assert result.code == 0
    assert [row.times_s["denoise"] for row in read_records(path).records] == [[[1.0, 1.0], [2.0, 2.0]], [[1.0], [2.0]]]
    assert "left out 1.0" in result.err
    assert "left out 2.0" not in result.err, "said once"


def test_processes_that_disagree_make_no_record(fluxperf, stand_in, tmp_path):
    path = tmp_path / "r.jsonl"
    more = msgspec.structs.replace(TOTALS, d2h_copies=4, d2h_bytes=32)
    stand_in(
        {"lines": [record("batched", [1.0]), record("fused", [1.0])]},
        {"lines": [record("batched", [1.0]), record("fused", [1.0], totals=more)]},
    )
    result = fluxperf("run", "--processes", "2", "-o", path)
    assert result.code == 2
    for phrase in ("rung fused", "expected the same exact counts", "totals.d2h_copies: 3, 4", "d2h_bytes: 24, 32"):
        assert phrase in result.err
    assert only(path).rung == "batched", "what agrees is kept"
    (folder,) = left(path)
    assert str(folder) in result.err
    assert [len(read_records(folder / f"process-{n}.jsonl").records) for n in (1, 2)] == [2, 2]


def test_a_crash_keeps_what_was_finished(fluxperf, stand_in, tmp_path):
    path = tmp_path / "r.jsonl"
    whole = {"lines": [record("batched", [1.0]), record("fused", [1.0])]}
    calls = stand_in(
        whole, {"lines": [record("batched", [2.0])], "torn": '{"schema"', "code": 139, "says": "it burst\n"}, whole
    )
    result = fluxperf("run", "--processes", "3", "-o", path)
    assert result.code == 2
    for phrase in ("process 2 of 3 ended with exit code 139", "it burst", "2 records appended", "fused: measured by 1"):
        assert phrase in result.err
    assert "Traceback" not in result.err
    assert [row.times_s["denoise"] for row in read_records(path).records] == [[[1.0], [2.0]], [[1.0]]]
    assert len(calls.read_text().splitlines()) == 2, "no process is started after a crash"
    assert left(path) == []


def test_a_crash_before_the_first_record(fluxperf, stand_in, tmp_path):
    path = tmp_path / "r.jsonl"
    stand_in({"lines": [], "code": 2, "says": "fluxperf: no GPU\n"})
    result = fluxperf("run", "--processes", "2", "-o", path)
    assert result.code == 2
    assert "process 1 of 2 ended with exit code 2\nfluxperf: no GPU" in result.err
    assert "No rung was finished before" in result.err
    assert not path.exists()
    assert left(path) == []


@pytest.mark.parametrize(
    ("second", "phrase"),
    [
        ({"lines": [record("fused", [2.0])]}, "process 2 of 2 wrote 1 record, where process 1 wrote 2"),
        ({"lines": []}, "process 2 of 2 wrote no record"),
        ({"lines": [record("fused", [2.0])], "torn": "{"}, "process 2 of 2 wrote what cannot be read"),
    ],
    ids=["fewer", "none", "torn"],
)
def test_a_process_that_says_it_succeeded_must_have_written_all(fluxperf, stand_in, tmp_path, second, phrase):
    stand_in({"lines": [record("fused", [1.0]), record("fp8", [1.0])]}, second)
    result = fluxperf("run", "--processes", "2", "-o", tmp_path / "r.jsonl")
    assert result.code == 2
    assert phrase in result.err


def test_ctrl_c_keeps_what_was_finished(fluxperf, stand_in, tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    hangs = stand_in({"lines": [record("fused", [1.0])]}, {"lines": [], "hangs": True}).with_name("hangs")
    slept = subprocess.Popen.wait

    def wait(process, timeout=None):
        if timeout == 0.1 and hangs.exists() and hangs.read_text():
            raise KeyboardInterrupt
        return slept(process, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    result = fluxperf("run", "--processes", "2", "-o", path)
    with pytest.raises(ProcessLookupError):
        os.kill(int(hangs.read_text()), 0)
    assert result.code == 130
    assert "stopped by SIGINT. Already finished and saved: 1 record appended to" in " ".join(result.err.split())
    assert only(path).times_s["denoise"] == [[1.0]]


def _measuring(parent: int) -> bool:
    """Whether a process has a child that has loaded NumPy's libraries."""
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return any("openblas" in Path(f"/proc/{child}/maps").read_text() for child in children)
    except OSError:
        return False  # it ends or starts at this moment


def test_a_stopped_command_ends_its_process_and_says_by_what(tmp_path):
    path = tmp_path / "records.jsonl"
    command = [sys.executable, "-m", "fluxperf", *TINY[:-1], "100000", "--processes", "2", "-o", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        while not _measuring(process.pid):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, messages = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 143, messages
    assert "stopped by SIGTERM. No rung was finished before." in messages
    assert "Traceback" not in messages
    assert left(path) == []


def test_bad_names_are_refused_before_any_process(fluxperf, stand_in, tmp_path):
    calls = stand_in({"lines": []})
    for bad in (
        ("--rung", "fussed"),
        ("--workload", "huge"),
        ("--processes", "0"),
        ("--height", "7"),
    ):
        assert fluxperf("run", "--processes", "2", *bad, "-o", tmp_path / "r.jsonl").code == 2
    (tmp_path / "file").write_text("")
    result = fluxperf("run", "--processes", "2", "-o", tmp_path / "file" / "r.jsonl")
    assert result.code == 2
    assert "cannot write" in result.err
    assert not calls.exists()


@pytest.fixture
def clock(monkeypatch):
    """A host clock that advances by 0.25 s per query, and a device clock whose marks are about 10 ms apart."""
    bounds, draw, marks = count(step=0.25), random.Random(3), [0]

    def mark() -> int:
        marks[0] += int(1e7 * draw.uniform(0.9, 1.1))
        return marks[0]

    monkeypatch.setattr("fluxperf.recording.interleave", partial(interleave, now=lambda: next(bounds)))
    monkeypatch.setattr("fluxperf.engine.device.host.time", SimpleNamespace(perf_counter_ns=mark))


@pytest.mark.parametrize(
    ("percent", "limit_s", "stopped", "samples"),
    [("0.01", "3", "time", 11), ("10", "600", "precision", 6)],
)
def test_precision_says_how_sampling_ended(fluxperf, tmp_path, clock, percent, limit_s, stopped, samples):
    path = tmp_path / "records.jsonl"
    options = ("--precision", percent, "--time-limit-s", limit_s, "--repeat", "2")
    assert fluxperf("run", "--rung", "fused", *options, "-o", path).code == 0
    found = only(path)
    (row,) = found.sampling
    assert (row.stopped, len(found.times_s["denoise"][0])) == (stopped, samples)
    assert (row.half_width <= float(percent) / 100) == (stopped == "precision")
    assert len(found.times_s["warmup"][0]) >= 1
    assert len(found.times_s["warmup_step"][0]) == 4 * len(found.times_s["warmup"][0])


def test_a_bound_in_time_alone_keeps_the_one_generation_that_it_allows(fluxperf, tmp_path):
    path = tmp_path / "records.jsonl"
    assert fluxperf("run", "--rung", "baseline", "--time-limit-s", "0", "--repeat", "3", "-o", path).code == 0
    found = only(path)
    assert found.sampling[0].stopped == "time"
    assert found.times_s["warmup"] == [[]]
    assert len(found.times_s["denoise"][0]) == 1
