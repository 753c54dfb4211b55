"""Measuring processes share compiled modules even if Python is configured not to write any."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fluxperf.harness.measure.processes import compiled_in


def test_modules_are_compiled_once_and_not_beside_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, folder = tmp_path / "source", tmp_path / "folder"
    source.mkdir()
    folder.mkdir()
    (source / "one_module.py").write_text("print(__spec__.cached)")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    asked = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(source)}
    environment = {**os.environ, **asked, **compiled_in(Path("folder"))}
    done = subprocess.run(
        [sys.executable, "-c", "import one_module"],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(folder)
    assert Path(done.stdout.strip()).is_file()
    assert [path.name for path in source.iterdir()] == ["one_module.py"]


def test_where_python_writes_them_beside_the_sources_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert compiled_in(Path("folder")) == {}
