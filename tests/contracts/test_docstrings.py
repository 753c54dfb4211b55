"""Docstrings: everything public has one, with shapes of arrays, a plain first line, and no praise."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterable, Iterator

import pytest

import fluxperf
from fluxperf.engine.ops.specs import SPECS
from tests.contracts import tree

#: Files are parsed once, by one worker.
pytestmark = pytest.mark.xdist_group("tree")

SHAPE = re.compile(r"\[[A-Z.][^\]]*\]")
BOASTS = re.compile(r"\b(fast|faster|fastest|blazing\w*|optimal\w*|lightning|efficient\w*|performant)\b", re.IGNORECASE)
FILES = tree.python_files("fluxperf")
EVERY_FILE = tree.python_files("fluxperf", "benchmarks", "tests")
Documented = ast.Module | ast.ClassDef | tree.Function


def _is_stub(node: ast.AST) -> bool:
    """A member of a Protocol or an overload that says only its type."""
    body = getattr(node, "body", [])
    return len(body) == 1 and isinstance(body[0], ast.Expr) and ast.unparse(body[0]) == "..."


def public(node: Documented, path: str = "") -> Iterator[tuple[str, Documented]]:
    """Public classes and functions, and the public members of public classes; nothing inside a function."""
    yield path or "module", node
    if isinstance(node, tree.Function):
        return
    for child in node.body:
        if isinstance(child, ast.ClassDef | tree.Function) and not child.name.startswith("_"):
            yield from public(child, f"{path}.{child.name}".lstrip("."))


def missing(module: ast.Module) -> list[str]:
    """Public names without a docstring."""
    return [where for where, node in public(module) if not ast.get_docstring(node) and not _is_stub(node)]


def boasts(nodes: Iterable[ast.AST]) -> list[str]:
    """Words of praise in docstrings."""
    texts = [ast.get_docstring(node) or "" for node in nodes if isinstance(node, Documented)]
    return [match for text in texts for match in BOASTS.findall(text)]


def not_text(nodes: Iterable[ast.AST]) -> list[str]:
    """Docstrings that are no UTF-8: Python 3.13 does not compile a file with one."""
    texts = [ast.get_docstring(node) or "" for node in nodes if isinstance(node, Documented)]
    return [ascii(text) for text in texts if text.encode("utf-8", "replace").decode() != text]


def test_everything_public_has_one() -> None:
    tree.check(FILES, lambda path: missing(tree.parsed(path)))


def test_every_python_can_compile_them() -> None:
    tree.check(EVERY_FILE, lambda path: not_text(ast.walk(tree.parsed(path))))


def test_the_scan_sees_half_of_a_surrogate_pair() -> None:
    assert not_text(ast.walk(ast.parse(r'"""Such as \udcff."""'))) == [r"'Such as \udcff.'"]
    assert not_text(ast.walk(ast.parse(r'"""Such as \\udcff, or \xe9."""'))) == []


def test_the_scan_sees_what_has_none() -> None:
    code = "class Open:\n def f(self): return 1\n def _f(self): return 1\nclass _Own:\n def f(self): return 1"
    assert missing(ast.parse(code)) == ["module", "Open", "Open.f"]
    assert missing(ast.parse('"""A file."""\ndef stub() -> int: ...')) == []


def test_none_boasts() -> None:
    files = [path for path in FILES if tree.name(path) != "fluxperf/__init__.py"]  # its first line is the mission
    tree.check(files, lambda path: boasts(tree.nodes(path)))


def test_the_scan_sees_a_boast() -> None:
    assert boasts(ast.walk(ast.parse('class A:\n """A blazingly fast kernel."""'))) == ["blazingly", "fast"]
    assert boasts(ast.walk(ast.parse('"""Breakfast, steadfastly."""'))) == []


def nameless(nodes: Iterable[ast.AST]) -> list[str]:
    """Docstrings that begin with "What": they go around the thing instead of naming it."""
    texts = [ast.get_docstring(node) or "" for node in nodes if isinstance(node, Documented)]
    return [text.partition("\n")[0] for text in texts if text.startswith("What ")]


def test_each_names_the_thing() -> None:
    tree.check(EVERY_FILE, lambda path: nameless(tree.nodes(path)))


def test_the_scan_sees_one_that_goes_around_it() -> None:
    assert nameless(ast.walk(ast.parse('def f():\n """What lies there."""'))) == ["What lies there."]
    assert nameless(ast.walk(ast.parse('"""Whatever lies there."""'))) == []


def shapeless(op: str) -> list[str]:
    """Missing parts of an op's specification: its meaning, or the shapes of arguments and results."""
    arguments, arrow, results = SPECS[op].signature.partition("->")
    no_array = {"rope_table", "timestep_embedding", "joined_halves"}
    said = {
        "an arrow": arrow,
        "shapes of results": SHAPE.search(results),
        "shapes of arguments": SHAPE.search(arguments) or op in no_array,
        "a meaning": SPECS[op].meaning,
    }
    return [what for what, there in said.items() if not there]


def test_ops_state_their_shapes() -> None:
    assert {op: lacks for op in SPECS if (lacks := shapeless(op))} == {}


@pytest.mark.parametrize("signature", ["x: array -> [B]", "x: [B] -> array", "x: [B], y: [B]"])
def test_the_scan_sees_an_op_without_shapes(signature: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = dataclasses.replace(SPECS["softmax"], signature=signature)
    monkeypatch.setitem(SPECS, "softmax", spec)  # type: ignore[arg-type]
    assert shapeless("softmax")


def _takes_arrays(node: tree.Function) -> list[str]:
    return [arg.arg for arg in node.args.args if arg.annotation and "Array" in ast.unparse(arg.annotation)]


def unshaped(module: ast.Module) -> list[str]:
    """Functions of arrays without shapes in their docstring, and whose arguments are not all described
    in the module's.
    """
    told = ast.get_docstring(module) or ""
    found = []
    for where, node in public(module):
        if isinstance(node, tree.Function) and ("Array" in ast.unparse(node.returns or node) or _takes_arrays(node)):
            own = SHAPE.search(ast.get_docstring(node) or "")
            named = [name for name in _takes_arrays(node) if re.search(rf"\b{name}\b[^\[]*\[", told)]
            if not own and named != _takes_arrays(node):
                found.append(where)
    return found


def test_the_models_functions_state_shapes() -> None:
    files = tree.python_files("fluxperf/engine/model")
    tree.check(files, lambda path: unshaped(tree.parsed(path)))


def test_the_scan_sees_a_function_without_shapes() -> None:
    function = "def f(x: Array) -> Array:\n"
    assert unshaped(ast.parse(function + ' """Twice x."""')) == ["f"]
    assert unshaped(ast.parse(function + ' """Twice x [B, L]."""')) == []
    assert unshaped(ast.parse('"""Everywhere x is [B, L]."""\n' + function + ' """Twice x."""')) == []


def test_exported_names() -> None:
    assert sorted(fluxperf.__all__) == ["Pipeline", "PipelineOutput", "__version__", "records_frame"]
    assert all(hasattr(fluxperf, name) for name in fluxperf.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+", fluxperf.__version__)
