"""Runs a program under Nsight Systems and exports what it captured."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from fluxperf.errors import ConfigError, TimelineError
from fluxperf.harness.text.escape import shown

#: Environment variable with the path of nsys, where it is not on PATH.
VARIABLE = "FLUXPERF_NSYS"

_TRACED = "cuda,nvtx,cublas,cudnn"

#: Only what runs between cudaProfilerStart and cudaProfilerStop is captured; the program goes on after it.
_OPTIONS = (
    f"--trace={_TRACED}",
    "--cuda-graph-trace=node",
    "--sample=none",
    "--cpuctxsw=none",
    "--capture-range=cudaProfilerApi",
    "--capture-range-end=stop",
)

#: Where packages install it, of the least wanted first; versions sort by name.
_INSTALLED = (
    "usr/local/cuda*/bin/nsys",
    "opt/nvidia/nsight-systems-cli/*/bin/nsys",
    "opt/nvidia/nsight-systems/*/bin/nsys",
)

#: Characters of a program's output that an error shows.
_TAIL = 3000


def find_nsys(path: Path | None = None) -> Path | None:
    """The nsys of an option, of the environment, on PATH, or where packages install it; ``None`` if there is none.

    Raises:
        ConfigError: the one that is named cannot be run.
    """
    given = str(path) if path else os.environ.get(VARIABLE, "")
    if not given:
        found = shutil.which("nsys")
        return Path(found) if found else _installed()
    found = shutil.which(given)
    if found is None:
        origin = "--nsys" if path else VARIABLE
        raise ConfigError(f"{origin} {given}: expected a program that can be run, found none there.")
    return Path(found)


def _installed() -> Path | None:
    """The newest nsys in the folders that its packages and CUDA's install it in."""
    found = [path for pattern in _INSTALLED for path in sorted(Path("/").glob(pattern)) if os.access(path, os.X_OK)]
    return found[-1] if found else None


def capture(nsys: Path, command: Sequence[str], stem: Path) -> tuple[Path, Path]:
    """Runs a command under nsys and exports the report; returns the paths of report and SQLite file.

    Args:
        nsys: the program.
        command: what is profiled; it calls cudaProfilerStart and cudaProfilerStop.
        stem: path of the files without their suffixes; files that exist are replaced.

    Raises:
        TimelineError: nsys or the command failed, or captured nothing; what they said comes with it.
    """
    report, export = stem.with_name(f"{stem.name}.nsys-rep"), stem.with_name(f"{stem.name}.sqlite")
    profiled = _run([str(nsys), "profile", *_OPTIONS, "--force-overwrite=true", f"--output={stem}", *command])
    if not report.is_file():
        unfinished = ", only a .qdstrm file: its importer failed" if list(stem.parent.glob("*.qdstrm")) else ""
        raise _failed("profile", profiled, f"wrote no report{unfinished}")
    if profiled.returncode:
        raise _failed("profile", profiled, f"exited with {profiled.returncode}")
    words = ["export", "--type=sqlite", "--force-overwrite=true", f"--output={export}", str(report)]
    exported = _run([str(nsys), *words])
    if exported.returncode or not export.is_file():
        raise _failed("export", exported, f"exited with {exported.returncode}")
    return report, export


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise TimelineError(f"profile: expected to run {command[0]}, got: {error.strerror}.") from error


def _failed(verb: str, done: subprocess.CompletedProcess[str], how: str) -> TimelineError:
    said = "\n".join(shown(line, 400) for line in done.stdout[-_TAIL:].splitlines() if line.strip())
    return TimelineError(
        f"profile: nsys {verb} {how}. Expected a report of the profiled steps. It said:\n{said or '(nothing)'}"
    )
