"""The size budget: short functions, files that are read in one sitting, and no drawer for what has no place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts import tree

CODE = tree.python_files("fluxperf", "tests", "benchmarks")
DRAWERS = {"utils", "helpers", "common", "util", "misc"}


def _lengths(folder: str) -> dict[str, int]:
    return {
        f"{tree.name(path)}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in CODE
        if tree.name(path).startswith(folder)
        for node in tree.functions(path)
    }


def test_nine_of_ten_functions_have_forty_lines_at_most() -> None:
    lengths = sorted(_lengths("fluxperf/").values())
    assert len(lengths) > 200
    assert lengths[int(len(lengths) * 0.9)] <= 40


def test_no_function_has_more_than_eighty_lines() -> None:
    assert {where: length for where, length in _lengths("").items() if length > 80} == {}


@pytest.mark.parametrize("path", CODE, ids=tree.name)
def test_a_python_file_has_four_hundred_lines_at_most(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_a_kernel_file_has_three_hundred_lines_at_most() -> None:
    sources = [*(tree.ROOT / "kernels").rglob("*.cu"), *(tree.ROOT / "kernels").rglob("*.cuh")]
    assert {tree.name(path) for path in sources if len(path.read_text().splitlines()) > 300} == set()


def test_there_is_no_drawer() -> None:
    found = [tree.name(path) for path in tree.python_files("fluxperf") if DRAWERS & {path.stem, *path.parent.parts}]
    assert found == []


@pytest.mark.parametrize("folder", ["fluxperf", "kernels", "benchmarks", "reports", "tests"])
def test_top_level_folders(folder: str) -> None:
    assert (tree.ROOT / folder).is_dir()
