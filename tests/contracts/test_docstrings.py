"""Docstrings: on everything public, with shapes where arrays go, and without boasts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fluxperf
from fluxperf.engine.ops.specs import SPECS
from tests.contracts import tree

SHAPE = re.compile(r"\[[A-Z.][^\]]*\]")
BOASTS = re.compile(r"\b(fast|faster|fastest|blazing\w*|optimal\w*|lightning|efficient\w*|performant)\b", re.IGNORECASE)
FILES = tree.python_files("fluxperf")
Documented = ast.Module | ast.ClassDef | tree.Function


def _is_stub(node: ast.AST) -> bool:
    """A member of a Protocol or an overload that says only its type."""
    body = getattr(node, "body", [])
    return len(body) == 1 and isinstance(body[0], ast.Expr) and ast.unparse(body[0]) == "..."


def public(node: Documented, path: str = "") -> Iterator[tuple[str, Documented]]:
    """Public classes and functions, and the public members of public classes; what is inside a function is its own."""
    yield path or "module", node
    if isinstance(node, tree.Function):
        return
    for child in node.body:
        if isinstance(child, ast.ClassDef | tree.Function) and not child.name.startswith("_"):
            yield from public(child, f"{path}.{child.name}".lstrip("."))


@pytest.mark.parametrize("path", FILES, ids=tree.name)
def test_everything_public_has_one(path: Path) -> None:
    missing = [where for where, node in public(tree.parsed(path)) if not ast.get_docstring(node) and not _is_stub(node)]
    assert missing == []


@pytest.mark.parametrize("path", FILES, ids=tree.name)
def test_none_boasts(path: Path) -> None:
    documented = (node for node in ast.walk(tree.parsed(path)) if isinstance(node, Documented))
    texts = [ast.get_docstring(node) or "" for node in documented]
    allowed = {"fluxperf/__init__.py"}  # its first line is the mission
    found = [match for text in texts for match in BOASTS.findall(text)]
    assert found == [] or tree.name(path) in allowed


def test_the_scan_sees_a_boast() -> None:
    assert BOASTS.findall("A blazingly fast kernel.") == ["blazingly", "fast"]
    assert BOASTS.findall("Breakfast, steadfastly.") == []


@pytest.mark.parametrize("op", SPECS)
def test_an_op_states_its_shapes(op: str) -> None:
    arguments, arrow, results = SPECS[op].signature.partition("->")
    assert arrow
    assert SHAPE.search(results), results
    no_array = {"rope_table", "timestep_embedding", "joined_halves"}
    assert SHAPE.search(arguments) or op in no_array, arguments
    assert SPECS[op].meaning


def _takes_arrays(node: tree.Function) -> list[str]:
    return [arg.arg for arg in node.args.args if arg.annotation and "Array" in ast.unparse(arg.annotation)]


@pytest.mark.parametrize("path", tree.python_files("fluxperf/engine/model"), ids=tree.name)
def test_the_models_functions_state_shapes(path: Path) -> None:
    """In their own docstring, or for every array by name in the module's."""
    module = tree.parsed(path)
    told = ast.get_docstring(module) or ""
    for where, node in public(module):
        if isinstance(node, tree.Function) and ("Array" in ast.unparse(node.returns or node) or _takes_arrays(node)):
            own = SHAPE.search(ast.get_docstring(node) or "")
            named = [name for name in _takes_arrays(node) if re.search(rf"\b{name}\b[^\[]*\[", told)]
            assert own or named == _takes_arrays(node), f"{tree.name(path)}: {where} states no shapes"


def test_exported_names() -> None:
    assert sorted(fluxperf.__all__) == ["Pipeline", "__version__"]
    assert all(hasattr(fluxperf, name) for name in fluxperf.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+", fluxperf.__version__)
