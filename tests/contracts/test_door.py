"""Only the door copies bytes between host and device: nothing else in the engine reads an array's values."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.contracts import tree

#: Files are parsed once, by one worker.
pytestmark = pytest.mark.xdist_group("tree")

DOOR = "fluxperf/engine/device/transfers.py"
HOST = "fluxperf/engine/device/host.py"
READS = {"asnumpy", "item", "tolist"}


def crossings(nodes: Iterable[ast.AST]) -> list[str]:
    """Calls that copy an array to the host: ``x.item()``, ``x.tolist()``, ``cupy.asnumpy(x)``, ``x.get()``."""
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return [
        ast.unparse(call)
        for call in calls
        if call.func.attr in READS or (call.func.attr == "get" and not call.args and not call.keywords)  # type: ignore[attr-defined]
    ]


def private(path: Path) -> list[str]:
    """Reads of a host array's memory."""
    return [ast.unparse(node) for node in tree.nodes(path) if isinstance(node, ast.Attribute) and node.attr == "_data"]


ENGINE = [path for path in tree.python_files("fluxperf/engine") if tree.name(path) not in (DOOR, HOST)]


def test_no_copy_goes_beside_the_door() -> None:
    tree.check(ENGINE, lambda path: crossings(tree.nodes(path)))


def test_nobody_opens_a_host_array() -> None:
    tree.check([*ENGINE, tree.ROOT / DOOR], private)


def test_the_host_device_itself_does() -> None:
    assert private(tree.ROOT / HOST), "the scan sees nothing"


@pytest.mark.parametrize("code", ["x.get()", "y = cp.asnumpy(x)", "x[0].item()", "f(x.tolist())"])
def test_the_scan_sees_every_kind(code: str) -> None:
    assert len(crossings(ast.walk(ast.parse(code)))) == 1


@pytest.mark.parametrize("code", ["d.get('a')", "d.get('a', 1)", "d.get(key=1)", "x.items()", "get()"])
def test_the_scan_lets_others_pass(code: str) -> None:
    assert crossings(ast.walk(ast.parse(code))) == []


def test_the_model_knows_neither_door_nor_numpy() -> None:
    for path in tree.python_files("fluxperf/engine/model"):
        nodes = tree.nodes(path)
        names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        assert not names & {"door", "to_host", "to_device"}, tree.name(path)
        assert not {node.id for node in nodes if isinstance(node, ast.Name)} & {"np", "numpy"}, tree.name(path)
