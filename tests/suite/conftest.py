"""asv in a folder of its own, run by this interpreter on this checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MACHINE = {"arch": "x", "cpu": "x", "machine": "here", "num_cpu": "1", "os": "x", "ram": "x"}

Asv = Callable[..., subprocess.CompletedProcess[str]]


def configuration(folder: Path, suite: Path) -> dict[str, Any]:
    """The repository's configuration with results in another folder."""
    text = "\n".join(
        line for line in (ROOT / "asv.conf.json").read_text().splitlines() if not line.lstrip().startswith("//")
    )
    where = {"repo": str(ROOT), "benchmark_dir": str(suite), "results_dir": str(folder / "results")}
    return {**json.loads(text), **where, "env_dir": str(folder / "env"), "html_dir": str(folder / "html")}


@pytest.fixture
def asv(tmp_path: Path) -> Asv:
    """Runs an asv command on a suite. asv stores machine data in the home folder, which is a temporary one here."""
    (tmp_path / ".asv-machine.json").write_text(json.dumps({"here": MACHINE, "version": 1}))
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "ASV_PYTHONPATH": str(ROOT),
        "FLUXPERF_ASV_SAMPLES": "8",
    }

    def call(command: str, *options: str, suite: Path = ROOT / "benchmarks" / "suite") -> Any:
        (tmp_path / "asv.conf.json").write_text(json.dumps(configuration(tmp_path, suite)))
        words = [sys.executable, "-m", "asv", command, "--config", str(tmp_path / "asv.conf.json")]
        words += ["-E", f"existing:{sys.executable}", *options]
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return call
