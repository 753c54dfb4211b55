"""``fluxperf profile`` with CUPTI, and the process that it starts under nsys; device and CUPTI are simulated."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fluxperf.cli import main
from fluxperf.cli import profile as command
from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.device.observers import NvtxRanges
from fluxperf.harness.timeline.ledger import read_ledger
from fluxperf.harness.timeline.recorder import RecordedDomain, Recorder
from fluxperf.workloads import prepare
from tests.witness.test_recorder import on_a_gpu


@pytest.fixture
def run(fake: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Runs the command with a simulated GPU; returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(command.driver, "device_count", lambda: 1)
    monkeypatch.setattr(command, "Recorder", partial(Recorder, cupti=fake.cupti, settle=lambda: None))

    def prepared(wanted: Any) -> Any:
        return on_a_gpu(prepare(wanted.rung, wanted.workload, device="host", seed=wanted.what.seed), fake.gpu)

    monkeypatch.setattr(command, "_prepared", prepared)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fluxperf", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, " ".join(captured.err.split())

    return call


@pytest.mark.parametrize("rung", ["baseline", "fused"])
def test_under_cupti_a_trace_and_a_ledger_are_written_and_agree(run, tmp_path, rung):
    code, out, err = run("profile", "--rung", rung, "--measured-steps", 2, "-o", "out/x", "--by", "step")
    assert code == 0, err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"x.json", "x.ledger.json"}
    assert "out/x.json: CUPTI, 1 process, 1 thread" in out
    assert "copies and bytes: equal to the ledger" in out
    assert "step 1" in out
    assert "step 2" not in out
    code, again, _ = run("timeline", "out/x.json", "--ledger", "out/x.ledger.json", "--by", "step")
    assert code == 0
    assert again == out
    code, _, err = run("timeline", "out/x.json", "--fail-on", "host-copy")
    assert code == (1 if rung == "baseline" else 0)


def test_a_copy_beside_the_door_exits_with_one(run, fake, tmp_path, monkeypatch):
    launch = fake.gpu.launch
    monkeypatch.setattr(fake.gpu, "launch", lambda name: (launch(name), fake.gpu.copy(2, 4, 3, 1)))
    code, out, _ = run("profile", "--rung", "fused", "-o", "x")
    assert code == 1
    assert "The copy did not go through the door." in out
    assert "more differences in copies." in out
    assert (tmp_path / "x.json").exists()


def test_dropped_records_leave_nothing(run, fake, tmp_path, monkeypatch):
    launch = fake.gpu.launch
    monkeypatch.setattr(fake.gpu, "launch", lambda name: (launch(name), fake.gpu.copy(2, 4, 3, 1, drop=True)))
    code, _, err = run("profile", "--rung", "fused", "-o", "out/x")
    assert code == 2
    assert "CUPTI dropped" in err
    assert list((tmp_path / "out").iterdir()) == []


def test_beside_another_tool_it_says_so(run, fake, tmp_path, monkeypatch):
    def busy(_: int) -> None:
        raise fake.cupti.cuptiError("CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED")

    monkeypatch.setattr(fake.cupti, "activity_enable", busy)
    code, _, err = run("profile", "-o", "out/x")
    assert code == 2
    assert "profile: expected to start CUPTI, but it refused" in err


class Switched(HostDevice):
    """A device whose profiler can be started and stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, int]] = []

    def start_profiler(self) -> None:
        self.told.append(("start", len(self.door.ledger.crossings)))

    def stop_profiler(self) -> None:
        self.told.append(("stop", len(self.door.ledger.crossings)))


def test_the_process_that_is_captured_writes_its_ledger(run, tmp_path, monkeypatch):
    device = Switched()
    monkeypatch.setattr("fluxperf.workloads.open_device", lambda kind: device)
    monkeypatch.setattr(
        command, "_prepared", lambda wanted: prepare(wanted.rung, wanted.workload, seed=wanted.what.seed)
    )
    monkeypatch.setattr(command, "CudaDevice", Switched)
    code, _, err = run("profile", "--rung", "baseline", "--inside", "x.ledger.json")
    assert code == 2
    assert "expected nsys to trace NVTX, but no tool is attached" in err
    assert [what for what, _ in device.told] == ["start", "stop"]
    assert not (tmp_path / "x.ledger.json").exists()

    device.told.clear()
    domain = RecordedDomain("fluxperf", lambda: 0)
    monkeypatch.setattr(command, "_attached", lambda rung: NvtxRanges(rung, domain))
    code, out, err = run("profile", "--rung", "baseline", "--measured-steps", 2, "--inside", "x.ledger.json")
    assert (code, out) == (0, "")
    (_, first), (_, last) = device.told
    ledger = read_ledger(tmp_path / "x.ledger.json")
    assert sum(row.count for row in ledger.copies) == last - first > 300
    assert (ledger.rung, ledger.steps, ledger.warmup) == ("baseline", 2, 1)


def test_the_process_that_is_captured_needs_a_gpu(run):
    code, _, err = run("profile", "--inside", "x.ledger.json")
    assert code == 2
    assert "found device 'host'" in err
