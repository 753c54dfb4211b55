"""The repository's files, parsed, for the contracts."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: The folder of evidence that README and docs are drawn from, and its missing parts, as the Makefile names them.
SHOWN, LACKING = (
    re.findall(rf"(?m)^{name} *:=(.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"))[0].strip()
    for name in ("SHOWN", "LACKING")
)

#: A folder of evidence of the headline that lacks nothing, as it was measured on a card.
WHOLE = ROOT / "reports/records/evidence-h200"

Function = ast.FunctionDef | ast.AsyncFunctionDef


def python_files(*folders: str) -> list[Path]:
    files = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    assert files, f"no Python file below {folders}"
    return files


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), name(path))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Every node of a file's syntax tree; cached, because each rule walks it and walking costs more than parsing."""
    return tuple(ast.walk(parsed(path)))


def functions(path: Path) -> Iterator[Function]:
    return (node for node in nodes(path) if isinstance(node, Function))


def check(files: Iterable[Path], broken: Callable[[Path], Iterable[object]]) -> None:
    """Applies one rule to all files; the message has a line for each violation.

    Raises:
        AssertionError: a file violates the rule.
    """
    found = [f"{name(path)}: {what}" for path in files for what in broken(path)]
    assert not found, "\n".join(["", *found])


def tracked() -> list[Path]:
    """Files of the repository: those that git tracks, and new ones that it does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return [ROOT / path for path in listed if path and (ROOT / path).is_file()]
