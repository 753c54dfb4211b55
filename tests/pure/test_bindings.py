"""cuBLASLt's bindings load without their package, which stays complete for other users. With synthetic packages."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxperf.engine.device.bindings import cublaslt


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An nvmath whose packages record their import, and whose bindings use another of its modules."""
    inner = tmp_path / "nvmath" / "bindings"
    (inner / "_internal").mkdir(parents=True)
    (tmp_path / "nvmath" / "__init__.py").write_text("from nvmath import bindings\nwhole = True\n")
    (inner / "__init__.py").write_text("from nvmath.bindings import cublasLt\n")
    (inner / "_internal" / "__init__.py").write_text("")
    (inner / "_internal" / "utils.py").write_text("answer = 42\n")
    (inner / "cublasLt.py").write_text("from nvmath.bindings._internal.utils import answer\n")
    before = _ours()
    for name in before:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "nvmath"
    for name in _ours():
        del sys.modules[name]


def _ours() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == "nvmath"]


def test_the_bindings_come_without_the_package(package: Path) -> None:
    found = cublaslt()
    assert found.answer == 42
    assert found.__name__ == "nvmath.bindings.cublasLt"
    assert not {"nvmath", "nvmath.bindings"} & set(sys.modules)
    assert cublaslt() is found


def test_who_imports_the_package_gets_the_whole_one_with_the_same_bindings(package: Path) -> None:
    found = cublaslt()
    whole = importlib.import_module("nvmath")
    assert whole.whole
    assert whole.bindings.cublasLt is found
    assert cublaslt() is found


def test_a_package_that_is_there_is_used(package: Path) -> None:
    whole = importlib.import_module("nvmath")
    assert cublaslt() is whole.bindings.cublasLt
    assert sys.modules["nvmath"] is whole


def test_bindings_that_need_the_rest_get_it(package: Path) -> None:
    (package / "__init__.py").write_text("whole = True\nfrom nvmath import bindings\n")
    (package / "bindings" / "cublasLt.py").write_text("import nvmath\nanswer = nvmath.whole\n")
    assert cublaslt().answer is True
    assert sys.modules["nvmath"].whole
    assert sys.modules["nvmath"].bindings.cublasLt is cublaslt()


def test_without_nvmath_it_is_missed_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _ours():
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nvmath", None)
    with pytest.raises(ImportError, match="nvmath"):
        cublaslt()
