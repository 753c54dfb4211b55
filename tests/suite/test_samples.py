"""How asv stores a tracked result with samples: undocumented, and device times depend on it."""

from __future__ import annotations

import json
import math
import subprocess
from statistics import median

from fluxperf.harness.asv_results import import_results
from tests.suite.conftest import ROOT

SUITE = '''
SAMPLES = [0.011, 0.012, 0.010, 0.013, 0.011, 0.012, 0.011, 0.014, 0.012, 0.020]

def track_samples():
    """Seconds."""
    return {"samples": SAMPLES, "number": 1}

track_samples.unit = "seconds"
track_samples.version = "1"

def track_skipped():
    raise NotImplementedError("not here")

track_skipped.setup = lambda: track_skipped()

def track_failing():
    raise ValueError("broken")
'''

HEAD = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def stored(folder):
    (path,) = (path for path in (folder / "results" / "here").glob("*.json") if path.name != "machine.json")
    data = json.loads(path.read_text())
    return {name: dict(zip(data["result_columns"], row, strict=False)) for name, row in data["results"].items()}


def test_samples_are_kept_with_median_and_interval(asv, tmp_path):
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "__init__.py").write_text("")
    (suite / "tracked.py").write_text(SUITE)
    done = asv("run", "--machine", "here", "--set-commit-hash", HEAD, suite=suite)
    rows = stored(tmp_path)
    row = rows["tracked.track_samples"]
    samples = [0.011, 0.012, 0.010, 0.013, 0.011, 0.012, 0.011, 0.014, 0.012, 0.020]
    assert row["result"] == [median(samples)], done.stdout + done.stderr
    assert row["stats_repeat"] == [10]
    assert row["stats_number"] == [1]
    assert 0.010 <= row["stats_ci_99_a"][0] < row["result"][0] < row["stats_ci_99_b"][0] <= 0.020
    assert "12.0±" in done.stdout
    assert math.isnan(rows["tracked.track_skipped"]["result"][0])
    assert rows["tracked.track_failing"]["result"] is None

    points = {point.metric: point for point in import_results(tmp_path / "results").points}
    times = points["tracked.track_samples"]
    assert (times.value, times.samples, times.exact) == (median(samples), 10, False)
    assert times.low == row["stats_ci_99_a"][0]
    assert points["tracked.track_skipped"].missing == "skipped"
    assert points["tracked.track_failing"].missing == "failed"


def test_a_forward_of_the_suite_is_stored_with_its_samples(asv, tmp_path):
    pattern = r"track_forward\('fused', 'tiny'\)"
    done = asv("run", "--quick", "--machine", "here", "--set-commit-hash", HEAD, "--bench", pattern)
    row = stored(tmp_path)["model.Model.track_forward"]
    values = [value for value in row["result"] if value is not None and not math.isnan(value)]
    assert len(values) == 1, done.stdout + done.stderr
    (index,) = (index for index, value in enumerate(row["result"]) if value in values)
    assert row["stats_repeat"][index] == 8
    assert row["stats_ci_99_a"][index] <= values[0] <= row["stats_ci_99_b"][index]
