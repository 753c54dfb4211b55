"""Forked processes: their records equal those of fresh processes, and unreliable forks are refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

from fluxperf.cli import main
from fluxperf.errors import BuildError, FluxperfError, RecordError
from fluxperf.harness import forked, forks
from fluxperf.harness.forked import Main, devices_of
from fluxperf.harness.forks import Forks
from fluxperf.harness.isolation import PASSED

RUN = ("run", "--workload", "tiny", "--rung", "fused", "--repeat", "1", "--device", "host")
PRELOAD = ("fluxperf.cli.preloaded",)


Measured = Callable[..., Forks]


@pytest.fixture
def measured(tmp_path: Path) -> Iterator[Measured]:
    """A function that measures with a command; its fork server is ended after the test."""
    with ExitStack() as ends:

        def make(main_of: Main = main, words: Sequence[str] = RUN) -> Forks:
            return ends.enter_context(Forks(main_of, words, tmp_path, PRELOAD))

        yield make


def tells(words: Sequence[str]) -> None:
    """Replaces a command: reports the state that it found when it was forked."""
    names = ("fluxperf.cli.run", "fluxperf.cli.kernels", "numpy", "cupy")
    print(*sorted(os.environ))
    print(os.getppid(), os.getcwd(), [name for name in names if name in sys.modules])
    raise SystemExit(7)


def writes_nothing(words: Sequence[str]) -> None:
    pass


def is_killed(words: Sequence[str]) -> None:
    os.kill(os.getpid(), 9)


def test_each_process_writes_a_record_of_its_own(
    measured: Measured, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    runner = measured()
    records = [record for side in ("base", "head", "head") for record in runner.measure(side)]  # type: ignore[arg-type]
    assert [record.rung for record in records] == ["fused"] * 3
    assert all(record.ran_as == "twin" for record in records)
    assert len({record.times_s["denoise"][0][0] for record in records}) == 3
    assert {record.totals.op_calls for record in records} == {records[0].totals.op_calls}
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == ["base-1.jsonl", "head-2.jsonl", "head-3.jsonl"]
    assert capfd.readouterr().out == ""


def test_they_are_forked_from_one_process_that_has_imported_everything(
    measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GITHUB_TOKEN", "CI", "PYTHONPATH", "PYTHONHOME", "LD_PRELOAD"):
        monkeypatch.setenv(name, "")
    runner, parents = measured(tells), set()
    for _ in range(2):
        with pytest.raises(BuildError, match="expected exit code 0, got 7") as caught:
            runner.measure("base")
        parent, folder, loaded = str(caught.value).splitlines()[-1].split(maxsplit=2)
        parents.add(int(parent))
        environment = str(caught.value).splitlines()[-2].split()
        assert set(environment) <= {*PASSED, "FLUXPERF_CACHE"}, "as of every process that measures"
        assert "CI" in os.environ
        assert Path(folder) == tmp_path
        there = ["cupy"] if find_spec("cupy") else []
        assert eval(loaded) == ["fluxperf.cli.run", "fluxperf.cli.kernels", "numpy", *there]
    assert len(parents) == 1
    assert parents.isdisjoint({os.getpid()})


@pytest.mark.parametrize(
    ("what", "words", "error", "message"),
    [
        (main, (*RUN, "--rung", "none"), BuildError, "got 2.*\n.*none"),
        (main, (*RUN, "--device", "cuda", "--seed", "x"), BuildError, "expected exit code 0, got 2"),
        (writes_nothing, RUN, RecordError, "base-1.jsonl"),
        (is_killed, RUN, BuildError, "expected exit code 0, got -9"),
    ],
)
def test_a_process_that_fails_is_an_error(
    measured: Measured, what: Main, words: Sequence[str], error: type[FluxperfError], message: str
) -> None:
    with pytest.raises(error, match=message):
        measured(what, words).measure("base")


def test_a_process_that_does_not_end_is_ended(
    measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "PATIENCE_S", 0.05)
    with pytest.raises(BuildError, match=r"expected it to end within 0\.05 s"):
        measured(words=(*RUN[:-3], "500")).measure("base")
    assert not list(tmp_path.glob("*.jsonl"))


def test_open_devices_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices_of(os.getpid()) == []
    device = tmp_path / "nvidia0"
    device.write_text("")
    monkeypatch.setattr(forked, "_DEVICES", (str(tmp_path / "nvidia"),))
    with device.open():
        assert devices_of(os.getpid()) == [str(device)]
    assert devices_of(os.getpid()) == []
    with pytest.raises(OSError, match="proc"):
        devices_of(2**30)


def refused(words: Sequence[str]) -> None:
    """Measures in a process that has a device open, or whose parent has."""
    forked._DEVICES = ("/dev/null",)
    held = os.open("/dev/null", os.O_RDONLY)
    try:
        forked.run(main, words, Path(words[-1]).parent, Path(words[-1]).with_suffix(".log"), {})
    finally:
        os.close(held)


def blind(words: Sequence[str]) -> None:
    """Measures where other processes cannot be observed."""
    forked.devices_of = lambda process: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    forked.run(main, words, Path(words[-1]).parent, Path(words[-1]).with_suffix(".log"), {})


@pytest.mark.parametrize(("what", "message"), [(refused, "it has /dev/null"), (blind, "Permission denied")])
def test_a_process_that_has_a_gpu_open_measures_nothing(
    measured: Measured, tmp_path: Path, what: Main, message: str
) -> None:
    with pytest.raises(BuildError, match="expected exit code 0, got 1"):
        measured(what).measure("base")
    (log,) = tmp_path.glob("*.log")
    assert not list(tmp_path.glob("*.jsonl"))
    assert message in log.read_text() + (tmp_path / "base-1.txt").read_text()
