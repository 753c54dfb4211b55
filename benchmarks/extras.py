"""``python -m benchmarks.extras``: every extra and combination resolved by pip, and checked to fit together.

Nothing is installed but a few small packages, to be imported. It needs the package index, so it runs at night and not
in the tests. pip evaluates markers for its own interpreter and machine, so those of fluxperf itself are evaluated here.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]

#: Extras that are meant to be installed together. Of `cuda12`, `cuda13` and `nvrtc` an environment has at most one.
COMBINATIONS = (
    "", "cuda12", "cuda13", "pipeline", "nvrtc", "docs", "tools", "test", "dev", "cuda12,pipeline", "cuda13,pipeline",
    "cuda12,pipeline,tools", "cuda13,dev", "nvrtc,dev",
)  # fmt: skip
PYTHONS = ("3.11", "3.12", "3.13")

#: The C libraries whose wheels are taken, by glibc's version: pip matches each name exactly.
_MANYLINUX = tuple(f"2_{minor}" for minor in range(17, 40))

#: Distributions without a CUDA release in their names: their own major version is that of CUDA.
_BY_VERSION = re.compile(
    r"cuda-(bindings|python|toolkit)|cupti-python|nvidia-(cublas|cuda-(cupti|nvrtc|runtime)|nvjitlink)"
)

#: Small packages that are installed as resolved, and what is imported of them.
_IMPORTED = ("cuda-bindings", "cuda-pathfinder", "cupti-python", "nvmath-python", "numpy")
_IMPORTS = """
from fluxperf.engine.device.bindings import cublaslt
from fluxperf.harness.timeline.cupti_source import CuptiSource, bindings
cublaslt()
CuptiSource((), print, on_call=print, cupti=bindings())
import cuda.bindings.driver
"""


def cuda_major(name: str, version: str) -> int | None:
    """The CUDA release that a distribution is built for, or ``None`` if it is for none."""
    if named := re.fullmatch(r"cupy-cuda(\d+)x|.*-cu(\d+)", name):
        return int(named[1] or named[2])
    return int(version.partition(".")[0]) if _BY_VERSION.fullmatch(name) else None


def requirements(extras: str, python: str) -> list[str]:
    """Requirements of fluxperf with extras under a release of Python, without markers; its own extras followed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines, found = list(project["dependencies"]), []
    waiting = [extra for extra in extras.split(",") if extra]
    for extra in waiting:  # grows while it is read
        for line in project["optional-dependencies"][extra]:
            if Requirement(line).name == project["name"]:
                waiting += Requirement(line).extras
            else:
                lines.append(line)
    for row in map(Requirement, lines):
        if row.marker is None or row.marker.evaluate({"python_version": python, "python_full_version": f"{python}.0"}):
            row.marker = None
            found.append(str(row))
    return found


def problems(versions: Mapping[str, str], extras: str, python: str) -> list[str]:
    """Reasons why resolved distributions do not fit together.

    Args:
        versions: by distribution.
        extras: that were asked for, with commas between them.
        python: the release of Python that they are for.
    """
    wanted, found = set(extras.split(",")), []
    majors: dict[int, list[str]] = {}
    for name, version in sorted(versions.items()):
        if (major := cuda_major(name, version)) is not None:
            majors.setdefault(major, []).append(f"{name} {version}")
    stack = next((int(extra[4:]) for extra in sorted(wanted) if re.fullmatch(r"cuda\d+", extra)), None)
    # The compiler alone runs nothing on a GPU: the CUDA of the PyTorch beside it does not matter.
    if "nvrtc" not in wanted and (len(majors) > 1 or (stack and set(majors) != {stack})):
        listed = "; ".join(f"CUDA {major}: {', '.join(names)}" for major, names in sorted(majors.items())) or "none"
        found.append(f"expected CUDA {stack or 'of one major'}, found {listed}")
    for what, pattern, needed in (
        ("CuPy", r"cupy(-cuda.*)?", bool(stack) or "nvrtc" in wanted),
        ("cuDNN", r"nvidia-cudnn-cu\d+", bool(stack)),
        ("CUPTI", r"cupti-python", any(line.startswith("cupti-python") for line in requirements(extras, python))),
    ):
        names = [f"{name} {version}" for name, version in sorted(versions.items()) if re.fullmatch(pattern, name)]
        if len(names) > 1 or (needed and not names):
            found.append(f"expected one {what}, found {', '.join(names) or 'none'}")
    return found


def resolved(extras: str, python: str) -> dict[str, str]:
    """Versions by distribution that pip would install.

    Raises:
        RuntimeError: there is no solution; the last lines of pip's output are the message.
    """
    machine = platform.machine()
    tags = [f"manylinux_{version}_{machine}" for version in _MANYLINUX] + [f"manylinux2014_{machine}"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--only-binary=:all:",
            "--python-version", python, *(word for tag in tags for word in ("--platform", tag)),
            "--target", folder, "--report", str(report), *requirements(extras, python),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError("no solution: " + " ".join(done.stderr.strip().splitlines()[-3:]))
        rows = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {re.sub(r"[-_.]+", "-", row["metadata"]["name"]).lower(): row["metadata"]["version"] for row in rows}


def import_problem(versions: Mapping[str, str]) -> str:
    """Why CUPTI's and cuBLASLt's bindings do not import in these versions, empty where they do."""
    taken = {name: version for name, version in versions.items() if name in _IMPORTED or "cupti" in name}
    with tempfile.TemporaryDirectory() as folder:
        pins = [f"{name}=={version}" for name, version in taken.items()]
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, *pins]
        subprocess.run(install, capture_output=True, text=True, check=True)
        code = f"import sys; sys.path[:0] = [{folder!r}, {str(ROOT)!r}]\n{_IMPORTS}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"does not import: {done.stderr.strip().splitlines()[-1]}"


def _row(extras: str, python: str, versions: Mapping[str, str], found: Sequence[str]) -> str:
    shown = [
        f"{name} {version}"
        for name, version in sorted(versions.items())
        if name == "torch" or re.match(r"cupy|nvidia-cudnn-cu|cupti-python|cuda-bindings|nvidia-cublas", name)
    ]
    return f"| `{extras or 'none'}` | {python} | {', '.join(shown)} | {'; '.join(found) or 'fits'} |"


def main() -> None:
    """Prints a Markdown table; exits with 1 if anything does not fit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extras", description=__doc__)
    parser.add_argument("--extras", action="append", help="as in pip, such as cuda12,pipeline; repeat")
    parser.add_argument("--python", action="append", choices=PYTHONS, help="repeat; all if not given")
    parser.add_argument("--no-import", action="store_true", help="resolve only")
    given = parser.parse_args()
    print("| extras | Python | resolved | verdict |\n|---|---|---|---|", flush=True)
    failed = False
    for extras in given.extras or COMBINATIONS:
        for python in given.python or PYTHONS:
            versions: dict[str, str] = {}
            try:
                versions = resolved(extras, python)
                found = problems(versions, extras, python)
            except RuntimeError as error:
                found = [str(error)]
            here = platform.python_version().rpartition(".")[0]
            if not given.no_import and python == here and "cupti-python" in versions:
                found = [*found, *filter(None, [import_problem(versions)])]
            failed = failed or bool(found)
            print(_row(extras, python, versions, found), flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
