"""The checkers of what pip resolves and installs for the extras: on a small wheel, as the real one needs the index."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from benchmarks import imports
from benchmarks.extras import COMBINATIONS, cuda_major, document, printed, problems, record, requirements, row
from benchmarks.installs import complaints, installed, interpreter, resolved
from tests.contracts import tree

GOOD12 = {
    "cupy-cuda12x": "14.2.0", "cuda-bindings": "12.8.0", "cupti-python": "12.8.0", "nvidia-cudnn-cu12": "9.10.2.21",
    "nvidia-cufft-cu12": "11.3.3.83", "torch": "2.9.1", "numpy": "2.4.6",
}  # fmt: skip
GOOD13 = {
    "cupy-cuda13x": "14.2.0", "cuda-bindings": "13.5.0", "cupti-python": "13.0.1", "nvidia-cudnn-cu13": "9.24.0.43",
    "nvidia-cublas": "13.1.0.3", "nvidia-cuda-cupti": "13.0.85", "nvidia-cufft": "12.0.0.61",
}  # fmt: skip


@pytest.mark.parametrize(
    ("versions", "extras"), [(GOOD12, "cuda12,pipeline"), (GOOD13, "cuda13"), ({"numpy": "2"}, "")]
)
def test_what_fits_has_no_problem(versions: dict[str, str], extras: str):
    assert problems(versions, extras, "3.12") == []


@pytest.mark.parametrize(
    ("versions", "extras", "said"),
    [
        (GOOD13 | {"nvidia-cublas-cu12": "12.8.4.1"}, "cuda13,pipeline", "CUDA 13, found CUDA 12: nvidia-cublas"),
        (GOOD12, "cuda13", "expected CUDA 13"),
        (GOOD12 | {"cupti-python": "13.4.0"}, "cuda12", "CUDA 13: cupti-python 13.4.0"),
        (GOOD13 | {"cupy-cuda12x": "14.2.0"}, "cuda13,dev", "expected one CuPy, found cupy-cuda12x"),
        (GOOD13 | {"nvidia-cudnn-cu12": "9.10"}, "cuda13", "expected one cuDNN"),
        ({"nvidia-cudnn-cu12": "9", "nvidia-cudnn-cu13": "9"}, "pipeline", "CUDA of one major"),
        ({name: GOOD12[name] for name in GOOD12 if "cupy" not in name}, "cuda12", "expected one CuPy, found none"),
        ({}, "cuda12", "found none"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(versions: dict[str, str], extras: str, said: str):
    assert said in " / ".join(problems(versions, extras, "3.12"))


def test_a_release_of_cuda_is_read_from_the_name_or_the_version():
    assert cuda_major("nvidia-cufft-cu12", "11.3.3.83") == 12
    assert cuda_major("cutensor-cu13", "2.5.0") == 13
    assert cuda_major("cuda-toolkit", "13.0.3.0") == 13
    assert cuda_major("nvidia-cufft", "12.0.0.61") is None, "its own version, not CUDA's"
    assert cuda_major("cuda-core", "1.2.2") is None


def test_what_is_asked_for_follows_own_extras_and_the_markers_of_that_python():
    assert {"torch<3,>=2.6", "pytest>=8.3", "numpy>=2.1"} <= set(requirements("dev", "3.12"))
    assert not [line for line in requirements("dev", "3.12") if "fluxperf" in line or ";" in line]
    named = {python: "cupti-python==12.8.0" in requirements("cuda12", python) for python in ("3.12", "3.13")}
    assert named == {"3.12": platform.machine() == "x86_64", "3.13": False}
    without = {name: version for name, version in GOOD12.items() if name != "cupti-python"}
    assert problems(without, "cuda12", "3.13") == []


def test_every_extra_is_resolved_alone():
    project = tomllib.loads((tree.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["optional-dependencies"]) | {""} == {name for name in COMBINATIONS if "," not in name}


HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
MODULE = """
import json
from importlib import import_module

def main():
    import sys
    print(sys.argv[1:])
    sys.exit(sys.argv[1] == "gate")

def later():
    import no_such_package.part
    from broken_package import x
    import_module("colorsys"), import_module("numpy_of_nobody"), import_module(sys.argv)
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A wheel of another fluxperf: it needs nothing, one package beside it is broken, and its gate fails."""
    path = tmp_path / "fluxperf-0.5-py3-none-any.whl"
    about = "fluxperf-0.5.dist-info"
    files = {
        "fluxperf/__init__.py": MODULE,
        "fluxperf/__main__.py": "raise SystemExit(9)",
        "fluxperf/old.py": "raise RuntimeError('of another release')",
        "broken_package.py": "raise ValueError('size\\nchanged')",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: fluxperf\nVersion: 0.5\nProvides-Extra: docs\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/entry_points.txt": "[console_scripts]\nfluxperf = fluxperf:main\n",
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{about}/RECORD", "".join(f"{name},,\n" for name in (*files, f"{about}/RECORD")))
    return path


def test_an_extra_is_installed_imported_and_run(small: Path):
    found = installed(small, "docs", sys.executable)
    failed = found["failed"]
    assert failed["broken_package"] == "ValueError: size changed"
    assert failed["fluxperf.old"] == "RuntimeError: of another release"
    assert {"no_such_package.part", "numpy_of_nobody", "torch"} <= set(found["absent"])
    assert found["modules"] == 1, "not the one that runs the program"
    assert list(found["commands"].values()) == [0, 0, 0, 0, 1]
    assert "fluxperf gate exact" in failed
    assert found["versions"] == {}
    assert complaints(found, "docs", cupti=False)[-1] == "pytest: missing, so it cannot be imported"
    told = row("", HERE, "light", [sys.executable], small)
    assert {"broken_package: ValueError: size changed", "fluxperf.old: RuntimeError: of another release"} <= set(
        told["problems"]
    )
    assert "1 own, 4 commands" in printed(told)


def test_what_is_only_resolved_is_not_installed(small: Path):
    assert resolved(small, "docs", sys.executable) == {}
    told = row("docs", HERE, "none", [sys.executable], small)
    assert (told["versions"], told["problems"]) == ({}, [])
    assert "installed" not in told
    with pytest.raises(RuntimeError, match=r"exit code 1: ERROR: .*gone-1-py3"):
        resolved(small.with_name("gone-1-py3-none-any.whl"), "", sys.executable)


def test_a_row_without_its_python_is_a_problem(small: Path):
    assert interpreter(HERE, []) == sys.executable
    assert interpreter(HERE, [str(small.with_name("gone"))]) == sys.executable
    assert interpreter("3.99", [sys.executable]) == ""
    assert "name one with --interpreter" in row("", "3.99", "light", [], small)["problems"][0]


STACK = [
    "cupy", "cudnn", "pynvml", "cuda.bindings.driver", "nvmath.bindings.cublasLt", "library cublasLt",
    "library of cuDNN", "norm_modulate.cu by NVRTC", "cupti.cupti", "calls of CUPTI",
]  # fmt: skip


def test_what_an_extra_is_for_has_to_be_imported():
    assert complaints({"imports": STACK, "failed": {}}, "cuda12", cupti=True) == []
    for name in STACK:
        found = {"imports": [one for one in STACK if one != name], "failed": {}}
        assert complaints(found, "cuda13", cupti=True) == [f"{name}: missing, so it cannot be imported"]
        assert complaints(found | {"failed": {name: "why"}}, "cuda13", cupti=True) == [f"{name}: why"]
    assert complaints({"imports": STACK[:-2], "failed": {}}, "cuda12", cupti=False) == []
    assert len(complaints({"imports": STACK, "failed": {}}, "cuda12,pipeline", cupti=True)) == 5


def test_uses_of_libraries_have_the_names_that_are_asked_for():
    named = {*imports._USES, *imports.others(tree.ROOT / "fluxperf")}
    assert set(STACK) <= named
    assert {"pynvml", "huggingface_hub", "fsspec.core", "pytest"} <= named


def test_the_script_runs_where_fluxperf_alone_is(tmp_path: Path):
    """On the path of the script, that is, there is nothing of the checkout."""
    (tmp_path / "fluxperf").mkdir()
    (tmp_path / "fluxperf" / "__init__.py").write_text("import fluxperf.gone\n")
    command = [sys.executable, "-P", str(tree.ROOT / "benchmarks" / "imports.py")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 1
    assert "No module named 'fluxperf.gone'" in done.stderr


def test_a_file_keeps_its_other_rows_in_their_order(tmp_path: Path):
    path = tmp_path / "extras.json"
    for extras, python, versions in (("dev", "3.12", {}), ("", "3.13", {}), ("dev", "3.12", {"torch": "2"})):
        record(path, [{"extras": extras, "python": python, "versions": versions, "problems": []}])
    told = json.loads(path.read_text(encoding="utf-8"))
    assert [(one["extras"], one["versions"]) for one in told["rows"]] == [("", {}), ("dev", {"torch": "2"})]
    assert {"what", "commit", "machine"} < set(told)
    assert printed(told["rows"][1]) == "| `dev` | 3.12 | torch 2 |  | fits |"


def test_the_table_of_a_record_groups_releases_by_python():
    numpy = {"3.11": "2.4", "3.12": "2.5", "3.13": "2.5"}
    rows = [
        {
            "extras": "nvrtc",
            "python": python,
            "problems": [],
            "installed": {},
            "versions": {"cupy-cuda12x": "14", "numpy": one},
        }
        for python, one in numpy.items()
    ]
    rows[0].pop("installed")
    rows[2] |= {"problems": ["numpy: fails"], "versions": {"numpy": "2.5", "rich": "1"}}
    table = document(rows)
    assert len(table) == len(COMBINATIONS)
    releases = "cupy-cuda12x 14 (3.11, 3.12); numpy 2.4 (3.11), 2.5 (3.12, 3.13)"
    assert table[COMBINATIONS.index("nvrtc")] == f"| `nvrtc` | resolves | imports | numpy: fails | {releases} |"
