"""Only ``fluxperf/files.py`` and its module for temporary files open files for writing or replace files."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.contracts.tree import ROOT

#: Calls that write or replace, by their last name. ``replace`` and ``rename`` only of ``os``, ``shutil`` and paths.
_WRITES = {
    "write_text", "write_bytes", "NamedTemporaryFile", "mkstemp", "copyfile", "copy2", "touch", "FileHandler",
    "tofile", "savetxt",
}  # fmt: skip
_OF_OS = {"replace", "rename", "renames", "link", "truncate", "symlink"}

#: Exceptions: the writer and its temporary files, appending to the file that GitHub names, and output of a forked
#: process.
_MAY = {
    "fluxperf/files.py", "fluxperf/drafts.py", "fluxperf/harness/formats/github.py", "fluxperf/harness/forks.py",
    "fluxperf/harness/forked.py",
}  # fmt: skip


def writes(source: str) -> list[int]:
    """Lines that write files."""
    return [
        node.lineno for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and _is_write(node.func, node)
    ]


def _is_write(called: ast.expr, node: ast.Call) -> bool:
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    if isinstance(called, ast.Attribute) and getattr(called.value, "id", "") == "os":
        return name in _OF_OS or (name == "open" and any(flag in ast.unparse(node) for flag in ("O_WRONLY", "O_RDWR")))
    if name == "open":
        # Mode after the path, or of a path's method.
        given = [
            *node.args[0 if isinstance(called, ast.Attribute) else 1 :],
            *(word.value for word in node.keywords if word.arg == "mode"),
        ]
        modes = [word.value for word in given if isinstance(word, ast.Constant) and isinstance(word.value, str)]
        return any(set(mode) & set("wax+") for mode in modes)
    # ``str.replace`` has two arguments, a struct's takes fields by name, a path's takes one argument.
    moves = isinstance(called, ast.Attribute) and name in ("replace", "rename") and len(node.args) == 1
    return name in _WRITES or (moves and not node.keywords)


def test_the_rule_sees_every_way_to_write() -> None:
    for line in (
        "Path('a').write_text('x')",
        "os.replace(a, b)",
        "path.replace(other)",
        "open('a', 'w')",
        "path.open(mode='ab+')",
        "tempfile.NamedTemporaryFile()",
        "path.touch()",
        "logging.FileHandler('a')",
        "gzip.open(path, 'wb')",
        "os.open('a', os.O_WRONLY | os.O_CREAT)",
    ):
        assert writes(line) == [1], line
    for line in ("open('a', 'rb')", "path.open()", "'a'.replace('b', 'c')", "msgspec.structs.replace(row, a=1)"):
        assert writes(line) == [], line


def test_one_module_writes_files() -> None:
    found = {
        str(path.relative_to(ROOT)): lines
        for path in sorted((ROOT / "fluxperf").rglob("*.py"))
        if (lines := writes(path.read_text(encoding="utf-8"))) and str(path.relative_to(ROOT)) not in _MAY
    }
    assert not found, f"expected write_whole, place or append_line of fluxperf/files.py, got calls that write: {found}"
    assert all(writes(Path(ROOT / path).read_text(encoding="utf-8")) for path in _MAY)
