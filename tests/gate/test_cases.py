"""Every case on which a gate may fail gives an acceptable exit code, judged in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxperf.errors import FluxperfError
from fluxperf.harness.calibration import read_calibration
from fluxperf.harness.gate import gate_files
from fluxperf.harness.policy import read_policy
from fluxperf.harness.verdict import Verdict
from tests.gate.cases import CASES, MACHINE, Case
from tests.gate.cases_of_sides import TODAY


def judged(name: str, folder: Path) -> Verdict | int:
    """The exit code for a case, or for the error that is raised."""
    made = Case()
    CASES[name][1](made)
    made.write(folder)
    try:
        known = read_calibration(folder / "calibrations" / f"calibration-{MACHINE}.json")
        spreads = known.spreads if known else {}
        policy = read_policy(folder / "policy.toml")
        return gate_files(folder / "base.jsonl", folder / "head.jsonl", policy, spreads, today=TODAY)
    except FluxperfError:
        return 2


@pytest.mark.parametrize("name", CASES)
def test_a_case_is_judged_right(name: str, tmp_path: Path) -> None:
    found = judged(name, tmp_path)
    code = found if isinstance(found, int) else found.exit_code
    said = "" if isinstance(found, int) else [(row.id, row.verdict, row.message) for row in found.telling][:5]
    assert code in CASES[name][0], said
