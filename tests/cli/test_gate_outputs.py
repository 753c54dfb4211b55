"""Exit codes where nothing can be printed: 1 only for a regression, 2 for every other failure.

Files are written first.
"""

import errno
import io
import json
import os
import subprocess
import sys

import pytest

from fluxperf.harness.calibration import SCHEMA, kind_of
from tests.cli.test_gate import write
from tests.gate.sides import POLICY_FILE, ROOT, both, replaced, twin, with_totals

NAME = "tête — \N{SNOWMAN}"  # neither ASCII nor Latin-1


class Refuses(io.RawIOBase):
    """An output that rejects every write, like /dev/full or a pipe without a reader."""

    def __init__(self, number):
        self.number = number

    def writable(self):
        return True

    def write(self, data):
        if self.number:
            raise OSError(self.number, os.strerror(self.number))
        return len(data)


@pytest.fixture
def sides(tmp_path):
    base = write(tmp_path / "base.jsonl", replaced(twin(), rung=NAME))
    worse = write(tmp_path / "worse.jsonl", replaced(with_totals(twin(), d2h_copies=999), rung=NAME))
    return {0: (base, base), 1: (base, worse)}


@pytest.mark.parametrize("outcome", [0, 1])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE, None])
def test_a_verdict_that_cannot_be_printed_is_in_its_files_and_ends_with_2(
    fluxperf, sides, tmp_path, monkeypatch, number, outcome
):
    raw = Refuses(number)
    output = io.TextIOWrapper(io.BufferedWriter(raw)) if number else None  # Python 3.13 tells if closing it fails
    monkeypatch.setattr("sys.stdout", output)
    before, after = sides[outcome]
    result = fluxperf(
        "gate", "--baseline", before, "--candidate", after, "--policy", POLICY_FILE, "--json", tmp_path / "gate.json",
        "--markdown", tmp_path / "gate.md",
    )  # fmt: skip
    raw.number = 0
    assert result.code == 2
    assert json.loads((tmp_path / "gate.json").read_text())["exit_code"] == outcome
    assert NAME in (tmp_path / "gate.md").read_text(encoding="utf-8") or outcome == 0


@pytest.mark.parametrize("outcome", [0, 1])
def test_an_output_in_ascii_keeps_the_exit_code(fluxperf, sides, monkeypatch, outcome):
    told = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(told, encoding="ascii", errors="strict"))
    before, after = sides[outcome]
    assert fluxperf("gate", "--baseline", before, "--candidate", after, "--policy", POLICY_FILE).code == outcome
    assert b"Gate: " in told.getvalue()
    assert rb"t\xeate \u2014 \u2603" in told.getvalue() or outcome == 0  # a pass names no rung


def test_a_locale_without_utf_8_keeps_it_too(sides, tmp_path):
    before, after = sides[1]
    words = ["--baseline", before, "--candidate", after, "--policy", POLICY_FILE, "--github"]
    summary = tmp_path / "summary.md"
    plain = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "fluxperf", "gate", *map(str, words)], cwd=ROOT, capture_output=True, check=False,
        env={**os.environ, **plain, "GITHUB_STEP_SUMMARY": str(summary)},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert NAME in summary.read_text(encoding="utf-8")


def test_a_spread_that_no_measuring_gives_is_an_error_and_no_crash(fluxperf, tmp_path):
    base, head = both()
    row = {"spread": 1000.0, "detectable": None, "pairs": 8, "alpha": 0.02, "power": 0.95, "ran_as": "kernel",
           "created_utc": "2026-01-01T00:00:00+00:00"}  # fmt: skip
    rows = {"schnell-1024/fused/times.denoise": row}
    machine = kind_of(base)
    content = json.dumps({"schema": SCHEMA, "machine": machine, "rows": rows})
    (tmp_path / f"calibration-{machine}.json").write_text(content)
    paths = [write(tmp_path / f"{name}.jsonl", record) for name, record in (("base", base), ("head", head))]
    result = fluxperf(
        "gate", "--baseline", paths[0], "--candidate", paths[1], "--policy", POLICY_FILE, "--baselines", tmp_path,
        "--json", tmp_path / "gate.json",
    )  # fmt: skip
    assert result.code == 2
    assert "Traceback" not in result.err
    (row,) = json.loads((tmp_path / "gate.json").read_text())["rows"]
    assert "calibration" in row["message"]
    assert "spread" in row["message"]
