"""Runs a program under Nsight Systems and exports the capture."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from fluxperf.errors import ConfigError, TimelineError
from fluxperf.harness.text.escape import shown

#: Environment variable with the path of nsys, if it is not on PATH.
VARIABLE = "FLUXPERF_NSYS"

_TRACED = "cuda,nvtx,cublas,cudnn"

#: Only work between cudaProfilerStart and cudaProfilerStop is captured. The program continues afterwards.
_OPTIONS = (
    f"--trace={_TRACED}",
    "--cuda-graph-trace=node",
    "--sample=none",
    "--cpuctxsw=none",
    "--capture-range=cudaProfilerApi",
    "--capture-range-end=stop",
)

#: Install paths of packages, the least preferred first. Versions sort by name.
_INSTALLED = (
    "usr/local/cuda*/bin/nsys",
    "opt/nvidia/nsight-systems-cli/*/bin/nsys",
    "opt/nvidia/nsight-systems/*/bin/nsys",
)

#: Characters of a program's output that an error shows.
_TAIL = 3000


def find_nsys(path: Path | None = None) -> Path | None:
    """The nsys of an option, of the environment, on PATH, or in an install path; ``None`` if there is none.

    Raises:
        ConfigError: the named program cannot be run.
    """
    given = str(path) if path else os.environ.get(VARIABLE, "")
    if not given:
        found = shutil.which("nsys")
        return Path(found) if found else _installed()
    found = shutil.which(given)
    if found is None:
        origin = "--nsys" if path else VARIABLE
        raise ConfigError(f"{origin} {given}: expected a program that can be run, found none there. Correct the path.")
    return Path(found)


def _installed() -> Path | None:
    """The newest nsys in the install paths of its packages and of CUDA's."""
    found = [path for pattern in _INSTALLED for path in sorted(Path("/").glob(pattern)) if os.access(path, os.X_OK)]
    return found[-1] if found else None


def capture(nsys: Path, command: Sequence[str], stem: Path) -> tuple[Path, Path]:
    """Runs a command under nsys and exports the report. Returns the paths of the report and the SQLite file.

    Args:
        nsys: the program.
        command: the command to profile; it calls cudaProfilerStart and cudaProfilerStop.
        stem: path of the files without their suffixes; existing files are replaced.

    Raises:
        TimelineError: nsys or the command failed, or captured nothing; the message includes their output.
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
        raise TimelineError(
            f"profile: expected to run {command[0]}, but the system refused: {error.strerror}. Check the program."
        ) from error


def _failed(verb: str, done: subprocess.CompletedProcess[str], how: str) -> TimelineError:
    said = "\n".join(shown(line, 400) for line in done.stdout[-_TAIL:].splitlines() if line.strip())
    return TimelineError(
        f"profile: nsys {verb} {how}. Expected a report of the profiled steps. It said:\n{said or '(nothing)'}"
    )
