"""The commands as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import fluxperf as package
from fluxperf.cli import COMMANDS
from fluxperf.engine.device.observers import NvtxRanges
from fluxperf.engine.ops.specs import SPECS
from fluxperf.engine.phases import PHASES, table
from fluxperf.harness.records import read_records
from tests.contracts import tree


def test_every_command_is_listed_and_answers_for_itself(fluxperf):
    listed = fluxperf("--help")
    assert listed.code == 0
    # A name starts its row; continuation lines are indented further.
    rows = [line[2:].split() for line in listed.out.splitlines() if line[2:3].strip()]
    assert [words[0] for words in rows if words[0] in COMMANDS] == list(COMMANDS)
    for name in COMMANDS:
        asked = fluxperf(name, "--help")
        assert asked.code == 0
        assert f"fluxperf {name} [OPTIONS]" in asked.out


def test_a_misspelt_command_suggests_the_nearest_one(fluxperf):
    result = fluxperf("timelin")
    assert result.code == 2
    assert "Did you mean 'timeline'?" in result.err


def test_run_measures_every_rung_and_records_it(fluxperf, tmp_path):
    path = tmp_path / "deep" / "records.jsonl"
    result = fluxperf("run", "--all", "--workload", "tiny", "--repeat", "2", "-o", path)
    assert result.code == 0, result.err
    assert f"7 records appended to {path}" in result.out.replace("\n", " ").replace("  ", " ")
    records = read_records(path).records
    assert [record.rung for record in records] == [phase.name for phase in PHASES]
    for record in records:
        assert record.phase_table == table(record.rung)
        assert record.ran_as == "twin"
        assert [len(samples) for samples in record.times_s["denoise"]] == [2]
        assert [len(samples) for samples in record.times_s["step"]] == [8]
        assert min(record.times_s["denoise"][0]) > 0
        assert record.error is not None
        assert 0 < record.error.relative < (1e-5 if record.policy["activations"] == "float32" else 0.05)
        assert record.totals.op_calls == sum(row.count for row in record.ops)
        assert len(record.blocks) == 6
    down = [record.totals.d2h_copies for record in records]
    up = [record.totals.h2d_copies for record in records]
    assert down == [116, 0, 0, 0, 0, 0, 0]
    assert up == [83, 0, 0, 0, 0, 0, 0]


def test_ledger_sums_to_the_totals(fluxperf, tmp_path):
    path = tmp_path / "records.jsonl"
    assert fluxperf("run", "--rung", "baseline", "--workload", "tiny-57", "--repeat", "1", "-o", path).code == 0
    (record,) = read_records(path).records
    for direction, copies, size in (("d2h", 1374, record.totals.d2h_bytes), ("h2d", 955, record.totals.h2d_bytes)):
        rows = [row for row in record.ledger if row.direction == direction]
        assert sum(row.count for row in rows) == copies == getattr(record.totals, f"{direction}_copies")
        assert sum(row.bytes for row in rows) == size
        assert sum(getattr(row, f"{direction}_copies") for row in record.blocks) == copies
    # Outside of the forwards: two RoPE tables up, per step two down and one up for Euler, the latents down.
    assert (record.setup_totals.d2h_copies, record.setup_totals.h2d_copies) == (4 * 2 + 1, 2 + 4)


def test_sizes_make_a_custom_workload(fluxperf, tmp_path):
    path = tmp_path / "records.jsonl"
    sizes = ("--height", "64", "--width", "96", "--text-tokens", "5", "--steps", "3", "--batch", "2")
    assert fluxperf("run", "--rung", "fused", "--repeat", "1", *sizes, "-o", path).code == 0
    workload = read_records(path).records[0].workload
    assert (workload.name, workload.height, workload.width) == ("custom", 64, 96)
    assert (workload.text_tokens, workload.steps, workload.batch) == (5, 3, 2)


def test_nvtx_ranges_change_nothing_that_is_measured(fluxperf, tmp_path, monkeypatch):
    path = tmp_path / "records.jsonl"
    run = ("run", "--rung", "fused", "--repeat", "1", "-o", path)
    assert fluxperf(*run).code == 0
    monkeypatch.setattr(NvtxRanges, "enabled", False)
    assert fluxperf(*run, "--nvtx").code == 0
    monkeypatch.setattr(NvtxRanges, "enabled", True)
    assert fluxperf(*run, "--nvtx").code == 0
    plain, unseen, ranged = read_records(path).records
    assert plain.totals == unseen.totals == ranged.totals
    assert plain.error == unseen.error == ranged.error
    assert [row.settings["nvtx"] for row in (plain, unseen, ranged)] == ["off", "off", "on"], "no tool, no ranges"


def test_a_killed_run_keeps_every_finished_record(tmp_path):
    path = tmp_path / "records.jsonl"
    command = [sys.executable, "-m", "fluxperf", "run", "--workload", "tiny-57", "--repeat", "1", "-o", str(path)]
    said = tmp_path / "said"
    with said.open("wb") as messages:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=messages, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    try:
        while not (path.exists() and path.read_bytes().count(b"\n") >= 1):
            assert process.poll() is None, said.read_text(encoding="utf-8")
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    found = read_records(path)
    assert [record.rung for record in found.records] == [phase.name for phase in PHASES[: len(found.records)]]
    assert not found.problems


def test_report_makes_the_page_and_the_chart(fluxperf, tmp_path):
    path, page, chart = tmp_path / "records.jsonl", tmp_path / "out" / "index.html", tmp_path / "chart.svg"
    assert fluxperf("run", "--all", "--repeat", "1", "-o", path).code == 0
    result = fluxperf("report", path, "-o", page, "--chart", chart)
    assert result.code == 0, result.err
    assert "7 records" in result.out
    html = page.read_text(encoding="utf-8")
    assert html.lower().startswith("<!doctype html>")
    for phase in PHASES:
        assert phase.name in html
    assert "<svg" in chart.read_text(encoding="utf-8")


def test_phases_lists_every_rung_with_its_expected_speedup(fluxperf):
    text = fluxperf("phases").out
    for phase in PHASES:
        assert phase.name in text
    assert "10-20x over baseline" in text
    assert "2-3x over broadcast" in text
    rows = fluxperf("phases", "--rung", "fp8").out
    assert "products of linear_gated_residual, linear_gelu, qkv_heads run as this" in " ".join(rows.split())
    assert "this project's own" not in fluxperf("phases", "--rung", "batched").out
    assert "double.attention" in rows
    assert "e4m3" in rows


def test_ops_lists_every_op_and_explains_one(fluxperf):
    text = fluxperf("ops").out
    for op in SPECS:
        assert op in text
    one = fluxperf("ops", "modulate").out
    assert "x [B, L, D], scale [B, D], shift [B, D] -> [B, L, D]" in one
    assert "roundtrip" in one


def test_doctor_says_what_is_there_and_what_is_missing(fluxperf):
    text = fluxperf("doctor").out
    assert package.__version__ in text
    assert "numpy" in text
    assert "device of `--device auto`" in text


def test_doctor_says_what_each_missing_library_is_for(fluxperf, monkeypatch):
    monkeypatch.setattr("fluxperf.cli.doctor.installed", lambda package: None)
    text = fluxperf("doctor").out
    for use in ("every command", "an NVIDIA GPU", "pictures from prompts", "benchmarks over commits"):
        assert f"Missing for {use}: " in text


def test_doctor_says_where_the_cache_is_and_what_it_holds(fluxperf, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("FLUXPERF_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert f"{tmp_path / 'fluxperf'}: empty" in fluxperf("doctor").out
    assert not (tmp_path / "fluxperf").exists(), "asking makes nothing"
    monkeypatch.setenv("FLUXPERF_CACHE", str(tmp_path / "own"))
    for name, size in (("kernels/a.cubin", 3000), ("kernels/deep/b.cubin", 500), ("choices/gpu.json", 7)):
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    (tmp_path / "own" / "other").write_bytes(bytes(9999))
    text = fluxperf("doctor").out
    assert f"{tmp_path / 'own'}: 3 files, 3.51 kB (kernels 3.50 kB, choices 7 B)" in text
    assert "not writable" not in text
    monkeypatch.setenv("FLUXPERF_CACHE", str(tmp_path / "own" / "other" / "deeper"))
    assert "not writable" in fluxperf("doctor").out


def test_doctor_names_the_extra_that_fits_the_driver(fluxperf, monkeypatch):
    monkeypatch.setattr("fluxperf.cli.doctor.driver", lambda: ("580.10", 13))
    monkeypatch.setattr("fluxperf.cli.doctor.installed", lambda package: None)
    assert "[cuda13]" in fluxperf("doctor").out
    monkeypatch.setattr("fluxperf.cli.doctor.driver", lambda: ("535.10", 12))
    assert "[cuda12]" in fluxperf("doctor").out


def test_doctor_without_a_driver_names_the_extra_of_what_is_there_else_both(fluxperf, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("fluxperf.cli.doctor.driver", lambda: None)
    monkeypatch.setattr("fluxperf.cli.doctor._broken", lambda present, alternatives: [])
    cases = (("", "cuda13", True), ("cupy-cuda12x", "cuda12", False), ("cupy-cuda13x", "cuda13", False))
    for there, extra, both in cases:
        monkeypatch.setattr("fluxperf.cli.doctor.installed", lambda package, there=there: package == there and "14.2.0")
        text = fluxperf("doctor").out
        assert f"[{extra}]" in text
        assert ("cuda12 where nvidia-smi says CUDA 12" in text) == both


def test_doctor_says_what_a_use_lacks_beside_what_is_there(fluxperf, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("fluxperf.cli.doctor._broken", lambda present, alternatives: [])
    monkeypatch.setattr("fluxperf.cli.doctor.installed", lambda package: "13.0.0" if package == "pillow" else None)
    assert "pillow 13.0.0; missing: torch, diffusers, transformers" in fluxperf("doctor").out


def test_doctor_imports_what_is_installed_and_ends_with_2_if_it_cannot(fluxperf, monkeypatch, tmp_path):
    (tmp_path / "of_another_release.py").write_text("raise ValueError('struct size changed')")
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = (("copy witness", {"cupti-python": "of_another_release"}, "cuda"), ("arrays", {"numpy": "numpy"}, ""))
    monkeypatch.setattr("fluxperf.cli.doctor._PACKAGES", rows)
    monkeypatch.setattr("fluxperf.cli.doctor.installed", lambda package: "1.0")
    found = fluxperf("doctor")
    assert found.code == 2
    assert "cupti-python is installed, but cannot be imported: ValueError: struct size changed" in found.out
    assert "numpy is installed, but" not in found.out


def test_doctor_says_that_two_releases_lie_over_each_other(fluxperf, monkeypatch):
    rows = (("arrays on the GPU", {"cupy-cuda12x": "cupy", "cupy-cuda13x": "cupy"}, "cuda"),)
    monkeypatch.setattr("fluxperf.cli.doctor._PACKAGES", rows)
    monkeypatch.setattr("fluxperf.cli.doctor.installed", lambda package: "14.2.0")
    found = fluxperf("doctor")
    assert found.code == 2
    assert "cupy-cuda12x and cupy-cuda13x are installed and overwrite each other's files" in found.out


def test_version(fluxperf):
    assert fluxperf("--version").out.strip() == f"fluxperf {package.__version__}"


@pytest.mark.parametrize("command", ["run", "report", "gate", "phases", "ops", "doctor"])
def test_every_command_has_help(fluxperf, command):
    result = fluxperf(command, "--help")
    assert result.code == 0
    assert "Usage" in result.out


def test_a_rest_before_each_generation_is_a_setting_of_the_record(fluxperf, tmp_path):
    path = tmp_path / "records.jsonl"
    arguments = ("run", "--rung", "fused", "--workload", "tiny", "--device", "host", "--repeat", 1, "--warmup", 0)
    assert fluxperf(*arguments, "--rest-s", "0.01", "-o", path).code == 0
    assert fluxperf(*arguments, "-o", path).code == 0
    rested, plain = read_records(path).records
    assert (rested.settings["rest_s"], "rest_s" in plain.settings) == ("0.01", False)


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("tinny/fused/totals.d2h_copies", "unknown workload 'tinny'. Did you mean 'tiny'?"),
        ("tiny/fusd/totals.d2h_copies", "unknown rung 'fusd'. Did you mean 'fused'?"),
    ],
)
def test_an_acceptance_names_what_exists(fluxperf, tmp_path, metric, said):
    policy = tmp_path / "policy.toml"
    policy.write_bytes(before := (tree.ROOT / "reports/policy.toml").read_bytes())
    words = ("gate", "accept", metric, "--reason", "why", "--author", "me", "--policy", policy)
    found = fluxperf(*words)
    assert found.code == 2
    assert said in " ".join(found.err.split())
    assert policy.read_bytes() == before


def test_the_default_policy_judges_outside_of_a_checkout(fluxperf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = tree.ROOT / "reports/records/host-tiny.jsonl"
    found = fluxperf("gate", "--baseline", records, "--candidate", records, "--json")
    assert json.loads(found.out)["outcome"] in ("pass", "unsure", "error")
    assert "Gate: " in found.err
    assert "cannot read the policy" not in found.out


def test_errors_may_be_against_latents_of_another_run(fluxperf, tmp_path):
    latents, records = tmp_path / "float32.npz", tmp_path / "r.jsonl"
    tiny = ("run", "--workload", "tiny", "--repeat", "1", "--warmup", "0")
    assert fluxperf(*tiny, "--rung", "batched", "--reference-to", latents).code == 0
    assert fluxperf(*tiny, "--rung", "fused", "--reference", latents, "-o", records).code == 0
    (record,) = read_records(records).records
    assert (record.error.against, record.error.rung) == ("rung batched (float32), final latents", "batched")
    assert 1e-4 < record.error.relative < 1e-2
    damaged = {name: tmp_path / f"{name}.npz" for name in ("nan", "short")}
    with np.load(latents) as held:
        fine = dict(held)
    np.savez(damaged["nan"], **{**fine, "latents": np.where(fine["latents"] > 0, np.nan, fine["latents"])})
    np.savez(damaged["short"], **{**fine, "latents": fine["latents"][:, 1:]})
    for words, said in (
        (("--steps", "2", "--reference", latents), "steps 4 instead of 2"),
        (("--seed", "3", "--reference", latents), "seed 0 instead of 3"),
        (("--reference", records), "the file has other content"),
        *((("--reference", path), "expected finite latents") for path in damaged.values()),
        (("--reference", tmp_path / "none.npz"), "No such file"),
        (("--reference", latents, "--in-turns", "-o", records), "neither --in-turns nor --end-to-end"),
    ):
        result = fluxperf(*tiny, "--rung", "fused", *words)
        assert result.code == 2
        assert said in result.err
