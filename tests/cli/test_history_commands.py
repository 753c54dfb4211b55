"""`fluxperf import-asv` and `fluxperf history` as a user meets them."""

from __future__ import annotations

import json
import shutil

import msgspec
import pandas as pd
import pytest

from fluxperf.harness.frames import COLUMNS
from fluxperf.harness.points import SUFFIX, merge_points
from fluxperf.harness.records import append_record
from tests.history.making import commit, point, record
from tests.history.test_asv_results import REAL


@pytest.fixture
def wide(monkeypatch):
    """A terminal in which no row is folded."""
    monkeypatch.setenv("COLUMNS", "160")


def test_asv_results_become_a_history(fluxperf, tmp_path, wide):
    path = tmp_path / "history" / f"asv{SUFFIX}"
    done = fluxperf("import-asv", REAL, "-o", path)
    assert done.code == 0, done.err
    assert "points of 3 commits" in done.out
    assert "0 replaced" in done.out
    again = fluxperf("import-asv", REAL, "-o", path)
    assert "(0 new," in again.out
    shown = fluxperf("history", path.parent, "--metric", "*track_forward")
    assert shown.code == 0, shown.err
    assert "tiny fused model.Model.track_forward" in shown.out
    assert "7 more have no value at any commit: failed or skipped." in shown.out
    assert '"?" under changes: 7 series of times with fewer than 4 commits' in shown.out


def test_changes_are_told_with_commits_levels_and_percent(fluxperf, tmp_path, wide):
    for number in range(10):
        row = record(number, times_s={"denoise": [[1.0 if number < 5 else 1.25]], "step": []})
        append_record(tmp_path / "r.jsonl", row)
    done = fluxperf("history", tmp_path, "--metric", "denoise")
    assert done.code == 0, done.err
    failed = fluxperf("history", tmp_path, "--metric", "denoise", "--fail-on", "20")
    assert failed.code == 1
    assert "is 25.0 % worse than at its first level" in failed.err
    assert fluxperf("history", tmp_path, "--metric", "denoise", "--fail-on", "30").code == 0
    assert f"{commit(4)[:10]} -> {commit(5)[:10]}  1.00 s -> 1.25 s  +25.0 %  (5 and 5 commits)" in done.out
    assert "1 series, 1 with changes." in done.out
    assert "(twin)" in done.out or ", twin" in done.out


def test_a_copy_that_came_back_is_a_change_at_once(fluxperf, tmp_path, wide):
    points = [point(n, value, exact=True, unit="copies", metric="d2h_copies") for n, value in enumerate([0.0, 2.0])]
    merge_points(tmp_path / f"a{SUFFIX}", points)
    assert "0 -> 2  from zero  (1 and 1 commit)" in fluxperf("history", tmp_path).out


def test_everything_as_json(fluxperf, tmp_path):
    merge_points(tmp_path / f"a{SUFFIX}", [point(0, 1.0), point(1, None)])
    data = json.loads(fluxperf("history", tmp_path, "--json").out)
    assert data["schema"] == 1
    (series,) = data["series"]
    assert [row["value"] for row in series["points"]] == [1.0, None]
    assert series["judged"] is False
    assert data["problems"] == []


def test_what_cannot_be_read_is_named_and_the_rest_is_shown(fluxperf, tmp_path, wide):
    results = tmp_path / "results"
    shutil.copytree(REAL, results)
    victim = next(path for path in (results / "host").glob("*.json") if path.name != "machine.json")
    victim.write_text("{")
    done = fluxperf("import-asv", results, "-o", tmp_path / "h" / f"a{SUFFIX}")
    assert done.code == 2
    assert "points of 2 commits" in done.out
    assert f"{victim}: left out" in done.err
    (tmp_path / "h" / "torn.jsonl").write_text('{"schema": 1')
    shown = fluxperf("history", tmp_path / "h")
    assert shown.code == 2
    assert "torn" in shown.err
    assert "track_copies" in shown.out


def test_markup_in_names_is_text(fluxperf, tmp_path, wide):
    merge_points(tmp_path / f"a{SUFFIX}", [point(0, 1.0, machine="[bold]m", metric="[/red]x", variant={"[a]": "[b]"})])
    shown = fluxperf("history", tmp_path)
    assert shown.code == 0, shown.err
    assert "[bold]m" in shown.out
    assert "[/red]x ([a] [b])" in shown.out


@pytest.mark.parametrize(
    ("arguments", "phrases"),
    [
        (("history", "none"), ("expected a folder of records and points", "fluxperf run -o")),
        (("history", "."), ("there is neither a .jsonl nor a .points.ndjson file", "fluxperf import-asv")),
        (("import-asv", "."), ("benchmarks.json cannot be read", "results_dir")),
        (("import-asv", REAL, "-o", "x.jsonl"), ("ends in .points.ndjson", "got x.jsonl")),
    ],
)
def test_messages(fluxperf, tmp_path, monkeypatch, arguments, phrases):
    monkeypatch.chdir(tmp_path)
    done = fluxperf(*arguments)
    assert done.code == 2
    assert "Traceback" not in done.out + done.err
    for phrase in phrases:
        assert phrase in " ".join(done.err.split())


def test_unknown_metrics_list_the_known_ones(fluxperf, tmp_path):
    merge_points(tmp_path / f"a{SUFFIX}", [point(0, 1.0)])
    done = fluxperf("history", tmp_path, "--metric", "foward")
    assert done.code == 2
    assert "unknown metric 'foward'. Did you mean 'forward'? Known: forward." in " ".join(done.err.split())


def test_a_change_that_rounds_to_nothing_has_no_sign_and_shows_its_bytes(fluxperf, tmp_path, wide):
    values = [24_500_000_512.0, 24_500_000_000.0]
    points = [point(n, value, exact=True, unit="bytes", metric="peak_bytes") for n, value in enumerate(values)]
    merge_points(tmp_path / f"a{SUFFIX}", points)
    assert "24,500,000,512 B -> 24,500,000,000 B  0.0 %  (1 and 1 commit)" in fluxperf("history", tmp_path).out


@pytest.mark.parametrize(("cpu", "cores", "name"), [("EPYC", 2, "EPYC, 2 cores"), ("", 1, "unnamed CPU, 1 core")])
def test_a_machine_without_a_gpu_has_a_name(fluxperf, tmp_path, wide, cpu, cores, name):
    row = record(0)
    here = msgspec.structs.replace(row.machine, gpu=None, cpu=cpu, cores=cores)
    append_record(tmp_path / "r.jsonl", msgspec.structs.replace(row, machine=here))
    assert f"{name}, twin" in fluxperf("history", tmp_path).out


def test_the_records_are_written_as_a_table(fluxperf, tmp_path, wide):
    for number, level in enumerate((1.0, 2.0)):
        append_record(tmp_path / "r.jsonl", record(number, times_s={"denoise": [[level]], "step": []}))
    done = fluxperf("history", tmp_path, "--json", "--csv", tmp_path / "table.csv")
    assert done.code == 0, done.err
    assert "table -> " in done.err
    assert json.loads(done.out)["problems"] == []
    table = pd.read_csv(tmp_path / "table.csv")
    assert tuple(table.columns) == COLUMNS
    assert table[table.metric == "denoise"].value.tolist() == [1.0, 2.0]
