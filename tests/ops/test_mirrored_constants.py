"""Constants that a launcher and its kernel must share, read from both.

A launcher's constant names its counterpart in a trailing comment: ``_ROWS = 4  # ROWS: modulate.cu gated_residual.cu``.
Constants without a counterpart are listed here, on both sides.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fluxperf.engine.nvrtc.sources import kernels_folder
from tests.contracts import tree

FOLDER = Path(str(kernels_folder()))
SOURCES = {path.relative_to(FOLDER).as_posix(): path.read_text() for path in sorted(FOLDER.rglob("*.cu*"))}
ENGINE = tree.ROOT / "fluxperf" / "engine"
LAUNCHERS = [*sorted((ENGINE / "ops" / "cuda").glob("*.py")), ENGINE / "device" / "graphs.py"]

#: Launcher constants without a counterpart: set by CUDA, its libraries or the launcher alone, empty values, and
#: versions (entry points, which are compiled).
HOST_ALONE = {
    "arrays.py _GRID", "arrays.py _LONGEST", "boxes.py _NOTHING", "fp8.py _ALIGNMENT", "fp8.py _OLDEST",
    "graphs.py _STATE", "plans.py HEADS_TOKENS", "plans.py _SOFTMAX_THREADS", "plans_fp8.py _GELU_PACKS",
    "plans_fp8.py _LANES", "plans_fp8.py _NO_STREAM", "plans_fp8.py _PEAK_TOKENS",
    "products.py _SLAB", "tiles.py CAPABILITY", "tiles.py _GROUP_ROWS",
}  # fmt: skip
#: Rows, and words, that a thread has in flight: the launcher gives it tokens. Warps of a product's epilogue.
DEVICE_ALONE = {"value_peaks.cu AHEAD", "join_features_fp8.cu AHEAD", "common/tiles.cuh FINISHERS"}


class Mirrored(NamedTuple):
    """A launcher's constant: its place, value, and its name in files of kernels."""

    place: str
    value: Any
    name: str
    files: tuple[str, ...]


def mirrored(path: Path) -> Iterator[Mirrored]:
    """Every constant of a Python file that is made of integers."""
    lines = path.read_text().splitlines()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            integers = [part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
            if integers and all(isinstance(value, int) for value in integers):
                found = re.search(r"  # ([A-Z_]+): ((?:[\w/]+\.cuh? ?)+)$", lines[node.lineno - 1])
                name, files = (found[1], tuple(found[2].split())) if found else ("", ())
                value = eval(ast.unparse(node.value), {})
                yield Mirrored(f"{path.name} {node.targets[0].id}", value, name, files)


def in_kernels() -> dict[str, dict[str, str]]:
    """By file, every ``constexpr int`` and its expression."""
    found: dict[str, dict[str, str]] = {}
    for file, text in SOURCES.items():
        for declaration in re.findall(r"^(?:template <int P> )?constexpr int ([^;]+);", text, re.MULTILINE):
            for part in declaration.split(", "):
                name, _, expression = part.partition(" = ")
                found.setdefault(file, {})[name] = expression
    return found


MIRRORED, KERNELS = [row for path in LAUNCHERS for row in mirrored(path)], in_kernels()


def evaluated(expression: str, **names: Any) -> int:
    """A C expression of integers, perhaps with one condition."""
    found = re.fullmatch(r"(.+) \? (.+) : (.+)", expression)
    if found:
        expression = f"({found[2]}) if ({found[1]}) else ({found[3]})"
    return int(eval(expression.replace("/", "//"), {"__builtins__": {}}, names))


@pytest.mark.parametrize("row", [row for row in MIRRORED if row.name], ids=lambda row: row.place)
def test_a_launchers_constant_is_its_kernels(row: Mirrored) -> None:
    values = row.value if isinstance(row.value, dict) else {0: row.value}
    for file in row.files:
        there = {p: evaluated(KERNELS[file][row.name], P=p) for p in values}
        assert there == values, f"{row.place} and {row.name} of {file} differ"


def test_every_constant_of_a_launcher_names_its_kernels_or_stands_alone() -> None:
    assert {row.place for row in MIRRORED if not row.name} == HOST_ALONE


def test_every_constant_of_a_kernel_is_a_launchers_or_stands_alone() -> None:
    there = {(file, name) for file, names in KERNELS.items() for name, value in names.items() if "/" not in value}
    known = {(file, row.name) for row in MIRRORED for file in row.files}
    assert {f"{file} {name}" for file, name in there - known} == DEVICE_ALONE
    assert len(known) > 20
