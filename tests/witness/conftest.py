"""A Python program's witness without a GPU: CUPTI and a library are replaced by packages in a folder."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.contracts import tree

PACKAGES = tree.ROOT / "tests" / "witness" / "site-packages"


def plugin() -> tuple[str, ...]:
    """pytest options that load the plugin: none if fluxperf is installed, because it is then loaded already."""
    known = {entry.name for entry in importlib.metadata.entry_points(group="pytest11")}
    return () if "fluxperf" in known else ("-p", "fluxperf.pytest_plugin")


class Done(NamedTuple):
    """How a witnessed program ended, and the rows of its JSON Lines file."""

    code: int
    stdout: str
    stderr: str
    rows: list[dict[str, Any]]

    @property
    def copies(self) -> list[tuple[str, int, str]]:
        """Direction, line and function of each copy."""
        return [(row["name"], row["line"], row["function"]) for row in self.rows if row["kind"] == "copy"]


Witnessed = Callable[..., Done]


@pytest.fixture
def witnessed(tmp_path: Path) -> Witnessed:
    """Runs ``fluxperf witness`` on a script in a process of its own."""

    def run(
        script: str, *arguments: str, options: tuple[str, ...] = (), name: str = "script.py", env: Any = None
    ) -> Done:
        path, rows = tmp_path / name, tmp_path / "rows.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(script).lstrip("\n"))
        command = [sys.executable, "-m", "fluxperf", "witness", "-o", str(rows), *options]
        done = subprocess.run(
            [*command, "--", "python", name, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": f"{tree.ROOT}:{PACKAGES}", "COLUMNS": "160", **(env or {})},
        )
        lines = rows.read_text().splitlines() if rows.exists() else []
        return Done(done.returncode, done.stdout, done.stderr, [json.loads(line) for line in lines])

    return run


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-ins of CUPTI and of the library: ``fake.cupti`` and ``fake.gpu``."""
    monkeypatch.syspath_prepend(str(PACKAGES))
    for name in ("cupti", "cupti.cupti", "fakegpu"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import fakegpu
    from cupti import cupti

    class Fake:
        pass

    Fake.cupti, Fake.gpu = cupti, fakegpu
    yield Fake
    assert cupti.STATE.subscriber is None, "the test left a subscriber"
    assert cupti.STATE.activities == set(), "the test left CUPTI tracing"
    for name in ("cupti", "cupti.cupti", "fakegpu"):
        sys.modules.pop(name, None)
