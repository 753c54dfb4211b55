"""Tests that need a GPU; without one they are skipped with a reason. Writes parity results on request."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxperf.engine.device import cuda
from tests.model import agreement

#: Environment variable with the file for the parity results.
_OUT = "FLUXPERF_PARITY_OUT"


@pytest.fixture(scope="session")
def gpu() -> Iterator[cuda.CudaDevice]:
    """The GPU. At the end of the session its door is unsealed, and its ledger has no open scope."""
    if not cuda.available():
        pytest.skip("needs a GPU and CuPy")
    device = cuda.CudaDevice()
    yield device
    assert (device.door.ledger.section, device.door.ledger.op) == ("", "")
    device.close()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Writes the parity results, also of failed tests: each row has its bound."""
    out, stats = os.environ.get(_OUT), terminalreporter.stats
    reports = [report for outcome in ("passed", "failed") for report in stats.get(outcome, [])]
    notes = [note for report in reports if report.when == "call" for note in getattr(report, "user_properties", [])]
    rows = [value for name, value in notes if name == "parity"]
    if out and rows:
        device = next((value for name, value in notes if name == "device"), {})
        path = Path(out)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(agreement.record(rows, device), indent=1) + "\n", encoding="utf-8")
        terminalreporter.write_line(f"{len(rows)} figures of parity: {path}")
