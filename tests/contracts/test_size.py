"""The size budget: short functions, files of limited length, and no module for miscellaneous code."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.contracts import tree

#: Files are parsed once, by one worker.
pytestmark = pytest.mark.xdist_group("tree")

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


def lines_over(most: int, path: Path) -> list[str]:
    """The message about a file with more lines than that."""
    lines = len(path.read_text().splitlines())
    return [f"{lines} lines"] if lines > most else []


def test_a_python_file_has_four_hundred_lines_at_most() -> None:
    tree.check(CODE, partial(lines_over, 400))


def test_a_kernel_file_has_three_hundred_lines_at_most() -> None:
    sources = [*(tree.ROOT / "kernels").rglob("*.cu"), *(tree.ROOT / "kernels").rglob("*.cuh")]
    assert sources
    tree.check(sources, partial(lines_over, 300))


def test_a_line_too_many_is_seen_in_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "ROOT", tmp_path)
    paths = [tmp_path / name for name in ("long.py", "fits.py", "longer.py")]
    for path, lines in zip(paths, (5, 4, 6), strict=True):
        path.write_text("x\n" * lines)
    with pytest.raises(AssertionError, match=r"^\nlong\.py: 5 lines\nlonger\.py: 6 lines$"):
        tree.check(paths, partial(lines_over, 4))


def test_there_is_no_drawer() -> None:
    tree.check(tree.python_files("fluxperf"), lambda path: DRAWERS & {path.stem, *path.parent.parts})


def test_top_level_folders() -> None:
    folders = {"fluxperf", "kernels", "benchmarks", "reports", "tests"}
    assert {folder for folder in folders if (tree.ROOT / folder).is_dir()} == folders


def test_the_report_is_a_face_and_no_house_of_all_trades() -> None:
    files = [
        path
        for path in (tree.ROOT / "fluxperf/harness/report").rglob("*")
        if path.suffix in (".py", ".j2", ".js", ".css")
    ]
    assert len(files) > 10
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) <= 5500
