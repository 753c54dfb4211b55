"""Where a run happened: the commit of a checkout, or the one that a container image names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from fluxperf.harness.measure.environment import busy_note, commit, driver, host_load, machine
from fluxperf.harness.records import Record, SamplingRow
from tests.pure.test_records import make


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("one")
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), ("add", "file"), ("commit", "-q", "-m", "one")):
        subprocess.run([*git, *words], check=True)
    return tmp_path


def test_a_clean_checkout_has_its_commit(checkout: Path) -> None:
    revision, dirty = commit(checkout)
    assert revision is not None
    assert len(revision) == 40
    assert dirty is False


def test_changed_files_make_it_dirty_and_new_ones_do_not(checkout: Path) -> None:
    (checkout / "new").write_text("records of a run")
    assert commit(checkout)[1] is False
    (checkout / "file").write_text("two")
    assert commit(checkout)[1] is True


def test_a_changed_file_may_have_a_name_that_is_no_text(checkout: Path) -> None:
    git = ("git", "-C", str(checkout), "-c", "user.name=a", "-c", "user.email=a@b")
    name = os.fsdecode(b"\xff")
    (checkout / name).write_text("one")
    for words in (("config", "core.quotePath", "false"), ("add", "-A"), ("commit", "-q", "-m", "two")):
        subprocess.run([*git, *words], check=True)
    (checkout / name).write_text("two")
    assert commit(checkout)[1] is True


@pytest.mark.parametrize("broken", [False, True])
def test_outside_of_a_checkout_the_environment_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    if broken:  # a copy of a checkout without its objects
        (tmp_path / ".git").mkdir()
    monkeypatch.delenv("FLUXPERF_COMMIT", raising=False)
    assert commit(tmp_path) == (None, None)
    monkeypatch.setenv("FLUXPERF_COMMIT", "a" * 40)
    assert commit(tmp_path) == ("a" * 40, False)


def test_the_machine_names_what_the_device_says() -> None:
    assert machine().gpu is None
    row = machine({"gpu": "some GPU", "cuda": "13.0", "cupy": "14.2.0"})
    assert (row.gpu, row.cuda, row.cupy, row.cudnn) == ("some GPU", "13.0", "14.2.0", None)


class NvmlError(Exception):
    """NVML's error if it cannot answer."""


def nvml(release: Any = "580.159.04", cuda: int | None = 13000) -> SimpleNamespace:
    """A simulated NVML; without a CUDA version it is one that is too old to report it."""

    def version() -> int:
        if cuda is None:
            raise NvmlError("Function Not Found")
        return cuda

    return SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=lambda: None,
        nvmlSystemGetDriverVersion=lambda: release,
        nvmlSystemGetCudaDriverVersion_v2=version,
    )


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in that prints another driver version than NVML, and is the only program on the path."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '| NVIDIA-SMI 535.1   Driver Version: 535.10   CUDA Version: 12.2 |'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return program


@pytest.mark.parametrize("release", ["580.159.04", b"580.159.04"])
def test_nvml_names_the_driver_without_another_process(
    nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch, release: Any
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(release))
    assert driver() == ("580.159.04", 13)


@pytest.mark.parametrize("library", [None, nvml(cuda=None)])
def test_without_nvml_nvidia_smi_names_the_driver(
    nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch, library: Any
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert driver() == ("535.10", 12)
    nvidia_smi.unlink()
    assert driver() is None


def under_load(rung: str, *loads: float | None) -> Record:
    rows = [SamplingRow(stopped="count", settled=None, half_width=None, host_load=load) for load in loads]
    return msgspec.structs.replace(
        make(rung), sampling=rows, machine=msgspec.structs.replace(make(rung).machine, cores=2)
    )


def test_a_busy_host_is_recorded_and_said() -> None:
    assert host_load() is not None
    assert busy_note([make("fused"), under_load("fp8", 2.9, None)]) == "", "a run is one load itself"
    assert (
        busy_note([under_load("fused", 1.0, 3.1), under_load("fp8", 9.76), under_load("batched")])
        == "The host was busy while timing fp8 and 1 other rung: a load of 9.8 on 2 cores. "
        "Times are longer than on an idle one."
    )
