"""The asv suite: asv finds all of it, it tolerates other commits, and it gives the reason for each skip."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from benchmarks.suite import blocks, model, rungs, transfers
from benchmarks.suite import ops as op_benchmarks
from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.ops.specs import SPECS
from fluxperf.engine.ops.table import OP_NAMES
from fluxperf.engine.phases import PHASES
from fluxperf.workloads import WORKLOADS
from tests.suite.conftest import ROOT, configuration

DISCOVER = """
import json, sys
from asv_runner.discovery import disc_benchmarks
from asv_runner._aux import update_sys_path
update_sys_path(sys.argv[1])
found = {b.name: [b.version, b.unit, b.type] for b in disc_benchmarks(sys.argv[1])}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    done = subprocess.run(
        [sys.executable, "-c", DISCOVER, str(ROOT / "benchmarks" / "suite")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(autouse=True)
def _clean_caches():
    caches = (rungs.prepared, rungs.device_kind)  # a test may replace them
    yield
    for cache in caches:
        cache.cache_clear()


def test_asv_checks_the_suite(asv):
    done = asv("check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No problems found" in done.stdout


def test_the_suite_has_what_it_says(found):
    assert set(found) == {
        "blocks.Blocks.track_block",
        "model.Accuracy.track_error",
        "model.Model.track_forward",
        "model.Model.track_generation",
        "ops.Ops.track_op",
        "startup.FirstForward.track_first_forward",
        "startup.Startup.track_import",
        "transfers.Copies.track_bytes",
        "transfers.Copies.track_copies",
        "transfers.Counts.track_count",
    }


def test_asv_and_its_runner_are_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    runner = configuration(ROOT, ROOT)["matrix"]["req"]["asv_runner"]
    assert {"asv==0.6.6", f"asv_runner=={runner[0]}"} <= set(project)


def test_versions_are_set_by_hand(found):
    assert {name: version for name, (version, *_) in found.items() if len(version) > 4} == {}


def test_times_have_the_unit_that_asv_takes_for_times(found):
    units = {name: unit for name, (_, unit, _) in found.items()}
    assert units["model.Model.track_forward"] == units["blocks.Blocks.track_block"] == "seconds"
    assert units["transfers.Copies.track_copies"] == "copies"


def test_names_of_the_suite_are_those_of_the_engine():
    assert tuple(phase.name for phase in PHASES) == rungs.RUNGS
    assert set(op_benchmarks.OP_RUNGS) <= set(rungs.RUNGS)
    assert tuple(op for op in OP_NAMES if SPECS[op].timed and set(SPECS[op].tolerance) - {"fp8"}) == op_benchmarks.OPS
    assert {*rungs.WORKLOADS, transfers.WORKLOAD} <= set(WORKLOADS)
    assert set(op_benchmarks.SPECIFICATIONS.WORKLOAD_SIZES) == {"tiny", rungs.HEADLINE}


@pytest.mark.parametrize(("driver", "wanted"), [(None, {"tiny"}), ("/usr/bin/nvidia-smi", {"tiny", rungs.HEADLINE})])
def test_what_needs_a_gpu_is_no_parameter_where_there_is_no_driver(monkeypatch, driver, wanted):
    """Otherwise asv would start a process for each."""
    monkeypatch.setattr(shutil, "which", lambda name: driver)
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert set(runpy.run_path(rungs.__file__)["WORKLOADS"]) == wanted
    assert op_benchmarks.Ops.params[1] == blocks.Blocks.params[2] == model.Model.params[1] == rungs.WORKLOADS


def test_a_rung_is_prepared_once_per_process():
    assert rungs.prepared("fused", "tiny") is rungs.prepared("fused", "tiny")


def test_the_headline_is_skipped_without_a_gpu(monkeypatch):
    monkeypatch.setattr(rungs, "device_kind", lambda: "host")
    with pytest.raises(NotImplementedError, match="schnell-1024 needs a GPU"):
        model.Model().setup("fused", "schnell-1024")


def test_the_baseline_is_skipped_at_the_headline_on_a_gpu(monkeypatch):
    monkeypatch.setattr(rungs, "device_kind", lambda: "cuda")
    with pytest.raises(NotImplementedError, match="takes minutes"):
        rungs.need_gpu_for("schnell-1024", "baseline")
    rungs.need_gpu_for("schnell-1024", "fused")


def test_a_rung_that_a_commit_does_not_have_is_skipped():
    with pytest.raises(NotImplementedError, match="unknown rung 'next'"):
        rungs.prepared("next", "tiny")


def test_specifications_are_those_of_the_checkout_not_of_what_is_installed(tmp_path):
    """They can be read without fluxperf installed; an older fluxperf has others, or none."""
    script = (
        "import sys; sys.modules['fluxperf'] = None; sys.path.insert(0, sys.argv[1]); import suite.ops as ops; "
        "print(*ops.OPS)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, str(ROOT / "benchmarks")], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.split() == list(op_benchmarks.OPS), done.stderr


def test_an_op_that_a_commit_does_not_have_is_skipped(monkeypatch):
    monkeypatch.setattr("fluxperf.engine.phases.table", lambda rung: {})
    with pytest.raises(NotImplementedError, match="no op 'gelu' at rung fused"):
        op_benchmarks.Ops().track_op("gelu", "tiny", "fused")


@pytest.mark.parametrize("op", op_benchmarks.OPS)
def test_every_op_runs(op, monkeypatch):
    monkeypatch.setattr(rungs, "SAMPLE_S", 0.0)
    for rung in op_benchmarks.OP_RUNGS:
        result = op_benchmarks.Ops().track_op(op, "tiny", rung)
        assert len(result["samples"]) == rungs.SAMPLES
        assert min(result["samples"]) > 0


def test_a_sample_is_long_enough():
    class Slow:
        now = 0.0

        def mark(self):
            return self.now

        def elapsed_s(self, start, end):
            return end - start

        def synchronize(self):
            pass

    device, calls = Slow(), []

    def call():
        calls.append(None)
        device.now += 1e-4

    result = rungs.samples(device, call)
    assert result["number"] == 1
    assert result["samples"] == pytest.approx([1e-4] * rungs.SAMPLES)
    assert len(calls) == pytest.approx(2 + rungs.SAMPLES * rungs.SAMPLE_S / 1e-4, abs=rungs.SAMPLES)


def test_marks_see_every_block():
    marks = blocks.Marks(HostDevice())
    run = rungs.prepared("fused", "tiny")
    run.observed(marks).begin(run.request).velocity(run.latents, 0)
    sections = [section for section, *_ in marks.spans]
    assert sections.count("double") == sections.count("single") == 2
    assert all(end >= start for _, start, end in marks.spans)


def test_counts_are_those_of_the_published_baseline():
    totals = transfers.setup_cache()
    assert transfers.Copies().track_copies(totals, "baseline", "d2h") == 1374
    assert transfers.Copies().track_copies(totals, "baseline", "h2d") == 955
    assert transfers.Copies().track_bytes(totals, "fused", "d2h") == 0
    with pytest.raises(NotImplementedError, match="launches is not counted"):
        transfers.Counts().setup(totals, "fused", "launches")


def test_a_rung_that_does_not_run_leaves_its_reason():
    with pytest.raises(NotImplementedError, match="no graph here"):
        transfers.Copies().setup({"captured": "no graph here"}, "captured", "d2h")
