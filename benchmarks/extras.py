"""Every extra and combination resolved by pip, checked to fit together, and installed with all imports seen.

    python -m benchmarks.extras                                         # all rows; those without PyTorch are installed
    python -m benchmarks.extras --install none                          # resolve only
    python -m benchmarks.extras --extras cuda13,pipeline --python 3.13 --install all -o reports/records/host-extras.json

A row needs an interpreter of its Python: one that ``--interpreter`` names, or on PATH. One environment at a time takes
up to 8 GB with PyTorch, and 3 GB without. It needs the package index, so it runs at night and not in the tests.
Rows of an existing file that are not measured again stay.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from packaging.requirements import Requirement

from benchmarks.installs import complaints, installed, interpreter, resolved, wheel
from fluxperf.files import check_writable, write_whole
from fluxperf.harness.measure.environment import commit, machine

ROOT = Path(__file__).resolve().parents[1]

#: Extras that can be installed together. An environment has at most one of `cuda12`, `cuda13` and `nvrtc`.
COMBINATIONS = (
    "", "cuda12", "cuda13", "pipeline", "nvrtc", "docs", "tools", "test", "dev", "cuda12,pipeline", "cuda13,pipeline",
    "cuda12,pipeline,tools", "cuda13,dev", "nvrtc,dev",
)  # fmt: skip
PYTHONS = ("3.11", "3.12", "3.13")

#: Distributions whose names have no CUDA release: their major version is that of CUDA.
_BY_VERSION = re.compile(
    r"cuda-(bindings|python|toolkit)|cupti-python|nvidia-(cublas|cuda-(cupti|nvrtc|runtime)|nvjitlink)"
)

#: Distributions whose versions a printed row shows.
_SHOWN = re.compile(
    r"torch|cupy.*|nvidia-cudnn-cu\d+|nvidia-cudnn-frontend|cupti-python|cuda-bindings|nvmath-python|numpy"
)


def cuda_major(name: str, version: str) -> int | None:
    """The CUDA release that a distribution is built for; ``None`` if it does not depend on one."""
    if named := re.fullmatch(r"cupy-cuda(\d+)x|.*-cu(\d+)", name):
        return int(named[1] or named[2])
    return int(version.partition(".")[0]) if _BY_VERSION.fullmatch(name) else None


def requirements(extras: str, python: str) -> list[str]:
    """Requirements of fluxperf with extras for a Python release, without markers; nested extras are expanded."""
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
        extras: the requested extras, separated by commas.
        python: the Python release.
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


def row(extras: str, python: str, install: str, interpreters: Sequence[str], built: Path) -> dict[str, Any]:
    """A row of the table: extras for a Python release, resolved or installed.

    Args:
        extras: separated by commas.
        python: the Python release.
        install: ``none``; ``light`` for rows that resolve without PyTorch; or ``all``.
        interpreters: given interpreters.
        built: fluxperf's wheel.
    """
    asked = [Requirement(line).name for line in requirements(extras, python)]
    told: dict[str, Any] = {"extras": extras, "python": python, "problems": []}
    command = interpreter(python, interpreters)
    if not command:
        told["problems"].append(f"expected a Python {python} to resolve for: name one with --interpreter")
        return told
    try:
        if install == "all" or (install == "light" and "torch" not in asked):
            found = installed(built, extras, command)
            told["versions"] = found.pop("versions")
            told["installed"] = found
            told["problems"] += complaints(found, extras, cupti="cupti-python" in asked)
        else:
            told["versions"] = resolved(built, extras, command)
        told["problems"] += problems(told["versions"], extras, python)
    except RuntimeError as error:
        told["problems"].append(str(error))
    return told


def printed(told: Mapping[str, Any]) -> str:
    """A row as Markdown: versions, imports, and the verdict."""
    shown = [
        f"{name} {version}" for name, version in sorted(told.get("versions", {}).items()) if _SHOWN.fullmatch(name)
    ]
    seen = ""
    if found := told.get("installed"):
        commands = sum(code == 0 for code in found["commands"].values())
        seen = f"{len(found['imports'])} and {found['modules']} own, {commands} commands"
    verdict = "; ".join(told["problems"]) or "fits"
    return f"| `{told['extras'] or 'none'}` | {told['python']} | {', '.join(shown)} | {seen} | {verdict} |"


def document(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows of the table in docs/install.md, one for each combination: what was seen by Python, and releases."""
    lines = []
    for extras in COMBINATIONS:
        of = {row["python"]: row for row in rows if row["extras"] == extras}
        cells = [_cell(of[python]) if python in of else "-" for python in PYTHONS]
        releases: dict[str, dict[str, list[str]]] = {}
        for python, row in of.items():
            for name, version in row.get("versions", {}).items():
                if _SHOWN.fullmatch(name):
                    releases.setdefault(name, {}).setdefault(version, []).append(python)
        shown = []
        for name, pythons in sorted(releases.items()):
            everywhere = list(pythons.values()) == [list(of)]
            told = [version if everywhere else f"{version} ({', '.join(on)})" for version, on in pythons.items()]
            shown.append(f"{name} {', '.join(told)}")
        lines.append(f"| {f'`{extras}`' if extras else 'none'} | {' | '.join(cells)} | {'; '.join(shown)} |")
    return lines


def _cell(row: Mapping[str, Any]) -> str:
    return "; ".join(row["problems"]) or ("imports" if "installed" in row else "resolves")


def record(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows to a file, one per line, and keeps its other rows."""
    before = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    kept = {(one["extras"], one["python"]): one for one in (*before, *rows)}
    order = {(extras, python): at for at, extras in enumerate(COMBINATIONS) for python in PYTHONS}
    revision, dirty = commit(ROOT)
    head = {
        "what": "extras resolved by pip, and installed from a wheel with all that fluxperf imports, without a driver",
        "commit": revision,
        "dirty": dirty,
        "machine": msgspec.to_builtins(machine()),
    }
    lines = [json.dumps(one) for _, one in sorted(kept.items(), key=lambda item: order.get(item[0], len(order)))]
    body = ",\n  ".join(lines)
    write_whole(path, json.dumps(head, indent=1)[:-2] + f',\n "rows": [\n  {body}\n ]\n}}\n')


def main() -> None:
    """Prints a Markdown table; exits with 1 if anything does not fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extras", action="append", help="as in pip, such as cuda12,pipeline; repeat")
    parser.add_argument("--python", action="append", choices=PYTHONS, help="repeat; all if not given")
    parser.add_argument("--install", choices=("none", "light", "all"), default="light", help="light: without PyTorch")
    parser.add_argument("--interpreter", action="append", default=[], metavar="PATH", help="of a Python; repeat")
    parser.add_argument("-o", "--output", type=Path, help="JSON file that the rows are written to, one by one")
    given = parser.parse_args()
    if given.output:
        check_writable(given.output)
    print("| extras | Python | resolved | imported | verdict |\n|---|---|---|---|---|", flush=True)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        built = wheel(Path(folder))
        for extras in given.extras or COMBINATIONS:
            for python in given.python or PYTHONS:
                told = row(extras, python, given.install, given.interpreter, built)
                failed = failed or bool(told["problems"])
                print(printed(told), flush=True)
                if given.output:
                    record(given.output, [told])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
