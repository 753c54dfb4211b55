"""``fluxperf profile`` with a stand-in of nsys: files, exit codes, and leftovers after a failure."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import stat
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fluxperf.cli import main
from fluxperf.cli import profile as command
from fluxperf.harness.timeline.ledger import CopyCount, LaunchCount, Ledger, write_ledger
from tests.timeline.making import US, Capture

SCRIPT = """#!{python}
import shutil, sys, pathlib
verb, options = sys.argv[1], sys.argv[2:]
stem = next(word.split("=", 1)[1] for word in options if word.startswith("--output="))
pathlib.Path({log!r}).open("a").write(repr(sys.argv[1:]) + "\\n")
if verb == "profile":
    ledger = next(word.split("=", 1)[1] for word in options if word.startswith("--inside="))
    print("fluxperf: what the profiled run said \\x1b[31m")
    {profile}
else:
    {export}
"""
PROFILE = "shutil.copy({ledger!r}, ledger); pathlib.Path(stem + '.nsys-rep').write_text('report')"
EXPORT = "shutil.copy({export!r}, stem)"


class Ran(NamedTuple):
    code: int
    out: str
    err: str


def one_step(copied: int = 4096) -> Capture:
    """A step whose op copies once through the door and launches a kernel."""
    capture = Capture()
    capture.add("TARGET_INFO_GPU", id=0, name="Example GPU", smCount=4)
    capture.range("step 0", 0, 900 * US)
    capture.range("double 0", 10 * US, 800 * US)
    capture.range("scale", 20 * US, 700 * US)
    capture.range("scale.x", 30 * US, 300 * US)
    number = capture.call("cudaMemcpyAsync_v3020", 40 * US, 50 * US)
    capture.copy(2, 60 * US, 260 * US, number, copied, source=2, target=1)
    capture.launch("scale", 400 * US, 450 * US, 100 * US)
    return capture


LEDGER = Ledger(
    fluxperf="0",
    workload="tiny",
    rung="baseline",
    steps=1,
    warmup=1,
    seconds=0.001,
    copies=[CopyCount(block="double 0", op="scale", label="scale.x", direction="d2h", count=1, bytes=4096)],
    launches=[LaunchCount(block="double 0", op="scale", launches=1)],
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Runs the command with a simulated GPU and a stand-in of nsys on PATH."""
    (tmp_path / "bin").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.delenv("FLUXPERF_NSYS", raising=False)
    monkeypatch.setattr(command.driver, "device_count", lambda: 1)

    def install(profile: str = PROFILE, export: str = EXPORT, capture: Capture | None = None) -> Path:
        made, ledger = tmp_path / "made.sqlite", tmp_path / "made.ledger.json"
        made.unlink(missing_ok=True)
        (capture or one_step()).write(made)
        write_ledger(ledger, LEDGER)
        program = tmp_path / "bin" / "nsys"
        bodies = {"profile": profile.format(ledger=str(ledger)), "export": export.format(export=str(made))}
        program.write_text(SCRIPT.format(python=sys.executable, log=str(tmp_path / "log"), **bodies))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return program

    def call(*arguments: object) -> Ran:
        monkeypatch.setattr("sys.argv", ["fluxperf", "profile", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Ran(code, captured.out, " ".join(captured.err.split()))

    call.install = install  # type: ignore[attr-defined]
    return call


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


WHOLE = {"tiny-baseline.nsys-rep", "tiny-baseline.sqlite", "tiny-baseline.json", "tiny-baseline.ledger.json"}


def test_a_profile_is_written_summed_up_and_compared(run, tmp_path):
    run.install()
    done = run("--rung", "baseline", "--warmup", 2, "--seed", 7)
    assert done.code == 0, done.err
    assert files(tmp_path / "profiles") == WHOLE
    assert "copies and bytes: equal to the ledger, 1 copy of 4,096 B in 1 place" in done.out
    assert "launches: 1 counted, 1 kernel, equal in every op" in done.out
    assert "Steps: ops account for 100.0 % of their GPU time" in done.out
    assert "ui.perfetto.dev" in done.err
    profiled, exported = map(eval, (tmp_path / "log").read_text().splitlines())
    assert {"--capture-range=cudaProfilerApi", "--capture-range-end=stop", "--cuda-graph-trace=node"} <= set(profiled)
    assert "--trace=cuda,nvtx,cublas,cudnn" in profiled
    inner = profiled[profiled.index("-m") :]
    assert inner[:3] == ["-m", "fluxperf", "profile"]
    assert {"--rung=baseline", "--warmup=2", "--seed=7"} <= set(inner)
    assert exported[:2] == ["export", "--type=sqlite"]


def test_the_captured_process_gets_the_form_and_not_the_table(run, tmp_path):
    run.install()
    (tmp_path / "rates.json").write_text('{"machine": {"gpu": "Example GPU"}, "copy_gb_s": 1.0}')
    done = run("--rung", "captured", "--eager-form", "--ceilings", "rates.json", "--top", 3)
    assert done.code == 0, done.err
    profiled = eval((tmp_path / "log").read_text().splitlines()[0])
    inner = profiled[profiled.index("-m") :]
    assert inner[3:-1] == ["--rung=captured", "--eager-form"]
    assert inner[-1].startswith("--inside=")


def test_a_table_of_ops_needs_counts_of_them(run, tmp_path):
    run.install()
    done = run("--rung", "baseline", "--per-op", "ops.json")
    assert done.code == 2
    assert "expected a ledger with the bytes and operations of each op" in done.err
    assert not (tmp_path / "ops.json").exists()
    assert files(tmp_path / "profiles") == WHOLE


def test_rates_that_cannot_be_read_are_reported_before_anything_runs(run, tmp_path):
    run.install()
    done = run("--rung", "baseline", "--ceilings", "none.json")
    assert done.code == 2
    assert "cannot read ceilings from none.json" in done.err
    assert not (tmp_path / "log").exists()


def test_what_it_says_to_run_next_gives_the_same_comparison(run, tmp_path, monkeypatch, capsys):
    run.install()
    done = run("--rung", "baseline", "-o", "some/where/a.b")
    assert files(tmp_path / "some/where") == {f"a.b.{end}" for end in ("nsys-rep", "sqlite", "json", "ledger.json")}
    words = shlex.split(done.err.split("`")[1])
    for file in (words[2], "some/where/a.b.json"):
        monkeypatch.setattr("sys.argv", [*words[:2], file, *words[3:]])
        main_ends(0)
        assert "copies and bytes: equal to the ledger, 1 copy of 4,096 B in 1 place" in capsys.readouterr().out


def main_ends(code: int) -> None:
    if code:
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == code
    else:
        with contextlib.suppress(SystemExit):
            main()


def test_a_difference_exits_with_one_and_keeps_the_files(run, tmp_path, monkeypatch, capsys):
    run.install(capture=one_step(copied=4000))
    done = run("--rung", "baseline")
    assert done.code == 1
    says = "double 0 / scale / scale.x / d2h: the ledger has 1 copy of 4,096 B, the timeline 1 copy of 4,000 B."
    assert says in done.out
    assert files(tmp_path / "profiles") == WHOLE
    stem = "profiles/tiny-baseline"
    monkeypatch.setattr(
        "sys.argv", ["fluxperf", "timeline", f"{stem}.json", "--ledger", f"{stem}.ledger.json", "--json"]
    )
    main_ends(1)
    document = json.loads(capsys.readouterr().out)
    assert document["ledger"][1] == [says]


def test_files_that_exist_are_not_replaced_unasked(run, tmp_path):
    run.install()
    assert run("--rung", "baseline").code == 0
    (tmp_path / "profiles/tiny-baseline.nsys-rep").write_text("mine")
    done = run("--rung", "baseline")
    assert done.code == 2
    assert "expected no file at" in done.err
    assert "--overwrite" in done.err
    assert (tmp_path / "profiles/tiny-baseline.nsys-rep").read_text() == "mine"
    assert run("--rung", "baseline", "--overwrite").code == 0
    assert (tmp_path / "profiles/tiny-baseline.nsys-rep").read_text() == "report"


@pytest.mark.parametrize(
    ("profile", "export", "says"),
    [
        ("sys.exit(2)", EXPORT, "nsys profile wrote no report. Expected"),
        ("pathlib.Path(stem + '.qdstrm').touch()", EXPORT, "only a .qdstrm file: its importer failed"),
        (PROFILE + "; sys.exit(9)", EXPORT, "nsys profile exited with 9"),
        (PROFILE, "print('cannot export'); sys.exit(4)", "nsys export exited with 4"),
        (PROFILE, "pass", "nsys export exited with 0"),
        (PROFILE, "open(stem, 'w').write('no database')", "expected an SQLite file"),
        ("pathlib.Path(stem + '.nsys-rep').touch()", EXPORT, "expected a ledger from the profiled run"),
    ],
)
def test_what_fails_is_shown_and_leaves_nothing(run, tmp_path, profile, export, says):
    run.install(profile, export)
    done = run("--rung", "baseline")
    assert done.code == 2
    assert says in done.err
    assert files(tmp_path / "profiles") == set()
    if "nsys profile" in says:
        assert "what the profiled run said \\u001b[31m" in done.err


def test_a_full_disk_is_an_error_and_leaves_nothing(run, tmp_path, monkeypatch):
    run.install()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("fluxperf.files.os.fsync", full)
    done = run("--rung", "baseline")
    assert done.code == 2
    assert "No space left on device" in done.err
    assert files(tmp_path / "profiles") == set()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--tool", "nsight"), "unknown tool 'nsight'. Use one of: auto, nsys, cupti"),
        (("--by", "stop"), "unknown grouping 'stop'"),
        (("--rung", "fussed"), "unknown rung 'fussed'. Did you mean 'fused'?"),
        (("--measured-steps", 9), "expected at most the 4 steps of workload 'tiny'"),
        (("--warmup", 5), "profile --warmup 5"),
        (("--tool", "nsys", "--nsys", "nowhere/nsys"), "--nsys nowhere/nsys: expected a program"),
        (("-o", "."), "expected FOLDER/NAME"),
        (("-o", "bin/nsys/x"), "cannot write to bin/nsys"),
        (("--tool", "cupti"), "profile: "),
    ],
)
def test_requests_that_cannot_be_met(run, tmp_path, arguments, says):
    run.install()
    done = run(*arguments)
    assert done.code == 2
    assert says in done.err
    assert files(tmp_path / "profiles") == set()
    assert not (tmp_path / "log").exists()


def test_a_rung_that_gpus_cannot_run(run, tmp_path, monkeypatch):
    run.install()
    monkeypatch.setattr(command, "obstacles", lambda phase, kind: [f"planted: {phase.name} on {kind}."])
    done = run("--rung", "fp8")
    assert done.code == 2
    assert "planted: fp8 on cuda." in done.err
    assert not (tmp_path / "log").exists()


def test_without_nsys_or_a_gpu(run, tmp_path, monkeypatch):
    done = run("--tool", "nsys")
    assert done.code == 2
    assert "expected nsys on PATH, found none" in done.err
    monkeypatch.setenv("FLUXPERF_NSYS", str(tmp_path / "bin/none"))
    assert "FLUXPERF_NSYS" in run().err
    monkeypatch.setenv("FLUXPERF_NSYS", str(run.install().rename(tmp_path / "other")))
    assert run("--rung", "baseline").code == 0
    monkeypatch.setattr(command.driver, "device_count", lambda: 0)
    done = run("--rung", "baseline", "-o", "y")
    assert done.code == 2
    assert "profile: expected an NVIDIA GPU with a working driver, found none" in done.err
