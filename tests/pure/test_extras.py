"""The checker of what pip resolves for the extras; resolving itself needs the package index (benchmarks/extras.py)."""

from __future__ import annotations

import platform
import tomllib

import pytest

from benchmarks.extras import COMBINATIONS, cuda_major, problems, requirements
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
