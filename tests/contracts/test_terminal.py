"""Only ``fluxperf/cli/terminal.py`` prints: no command has other output."""

from __future__ import annotations

import ast

from tests.contracts import tree
from tests.contracts.tree import ROOT


def prints(source: str) -> list[int]:
    """Lines that print, or take Rich's own console."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "rich.console":
            found += [node.lineno for name in node.names if name.name == "Console"]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        printed = called == "print" and "harmless" not in ast.unparse(node)
        if printed or called in ("typer.echo", "typer.secho", "click.echo", "sys.stdout.write", "sys.stderr.write"):
            found.append(node.lineno)
    return found


def test_the_rule_sees_every_way_to_print() -> None:
    for line in ("print('x')", "typer.echo(x)", "from rich.console import Console", "sys.stdout.write(x)"):
        assert prints(line) == [1], line
    for line in ("say(x)", "print(harmless_json(x))", "from rich.console import Group", "console.print(x)"):
        assert prints(line) == [], line


def test_commands_print_through_one_door() -> None:
    # The root command has two lines of its own: the version, and the message where nothing can be printed.
    apart = ("terminal.py", "__init__.py")
    commands = [path for path in sorted((ROOT / "fluxperf" / "cli").glob("*.py")) if path.name not in apart]
    tree.check(commands, lambda path: prints(path.read_text(encoding="utf-8")))
