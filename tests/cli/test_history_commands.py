"""`fluxperf import-asv` and `fluxperf history` as a user runs them."""

from __future__ import annotations

import json
import random
import re
import shutil

import msgspec
import pandas as pd
import pytest

from fluxperf.documents import encoded
from fluxperf.harness.columns import name_of
from fluxperf.harness.frames import COLUMNS
from fluxperf.harness.measure.environment import machine
from fluxperf.harness.points import SUFFIX, merge_points
from fluxperf.harness.records import ErrorRow, append_record
from tests.history.making import ROOT, commit, point, record
from tests.history.test_asv_results import REAL


@pytest.fixture
def wide(monkeypatch):
    """A terminal wide enough that no row wraps."""
    monkeypatch.setenv("COLUMNS", "160")


def test_asv_results_become_a_history(fluxperf, tmp_path, wide):
    path = tmp_path / "history" / f"asv{SUFFIX}"
    done = fluxperf("import-asv", REAL, "-o", path)
    assert done.code == 0, done.err
    assert "points of 3 commits" in done.out
    assert "0 replaced" in done.out
    again = fluxperf("import-asv", REAL, "-o", path)
    assert "(0 new, 0 replaced;" in again.out
    shown = fluxperf("history", path.parent, "--all", "--metric", "*track_forward")
    assert shown.code == 0, shown.err
    assert "tiny fused model.Model.track_forward" in shown.out
    assert "7 more have no value at any commit: every run failed or was skipped." in shown.out
    assert "7 series of times with fewer than 4 commits were not searched" in shown.out
    short = fluxperf("history", path.parent, "-m", "track_forward")
    assert "7 series, 0 with changes." in short.out
    assert "--all shows every series." in short.out


def test_changes_are_reported_with_commits_levels_and_percent(fluxperf, tmp_path, wide):
    for number in range(10):
        row = record(number, times_s={"denoise": [[1.0 if number < 5 else 1.25]], "step": []})
        append_record(tmp_path / "r.jsonl", row)
    done = fluxperf("history", tmp_path, "--metric", "denoise")
    assert done.code == 0, done.err
    failed = fluxperf("history", tmp_path, "--metric", "denoise", "--fail-on", "20")
    assert failed.code == 1
    assert "is 25.0 % worse than its first level" in failed.err
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
    assert "run `asv run` again for what was left out" in done.err
    (tmp_path / "h" / "torn.jsonl").write_text('{"schema": 1')
    shown = fluxperf("history", tmp_path / "h", "--all")
    assert shown.code == 2
    assert "incomplete" in shown.err
    assert "track_copies" in shown.out


def test_markup_in_names_is_text(fluxperf, tmp_path, wide):
    merge_points(tmp_path / f"a{SUFFIX}", [point(0, 1.0, machine="[bold]m", metric="[/red]x", variant={"[a]": "[b]"})])
    shown = fluxperf("history", tmp_path, "--all")
    assert shown.code == 0, shown.err
    assert "[bold]m" in shown.out
    assert "[/red]x ([a] [b])" in shown.out


@pytest.mark.parametrize(
    ("arguments", "phrases"),
    [
        (("history", "none"), ("cannot read records from none: No such file", "fluxperf run -o")),
        (("history", "."), ("there is no .jsonl or .points.ndjson file below", "fluxperf import-asv")),
        (("history", ".", "--repo", "none"), ("--repo: expected the folder of a git checkout, got none",)),
        (("report", REAL, "--repo", "none"), ("--repo: expected the folder of a git checkout, got none",)),
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
    assert "unknown metric 'foward'. Did you mean 'forward'? Use one of: forward." in " ".join(done.err.split())


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
    assert f"{name}, twin" in fluxperf("history", tmp_path, "--all").out


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


def test_records_of_several_runners_meet_in_a_store(fluxperf, tmp_path, wide):
    store = tmp_path / "store"
    for runner in range(2):
        path = tmp_path / f"runner {runner}.jsonl"
        for number in range(3):
            append_record(path, record(number + runner, times_s={"denoise": [[1.0]]}))
    done = fluxperf("push", tmp_path / "runner 0.jsonl", tmp_path / "runner 1.jsonl", "-o", store)
    assert (done.code, done.out) == (0, f"4 files added to {store}; 2 already there.\n")
    assert fluxperf("push", f"{tmp_path}/runner*.jsonl", "--output", store).out.startswith("0 files added")
    found = json.loads(fluxperf("history", f"{store}/2026-*", path, "-m", "denoise", "--json").out)
    assert [len(series["points"]) for series in found["series"]] == [4]
    assert "fused" in fluxperf("report", f"{store}/2026-*", "--text").out
    path.write_bytes(path.read_bytes() + b"{")
    done = fluxperf("push", path, "-o", store)
    assert done.code == 2
    assert "incomplete" in done.err


def noisy(number, level, **fields):
    """A point of commit ``number`` near a level."""
    return point(number, level * (1 + 0.01 * random.Random(number).gauss(0, 1)), **fields)


def test_ten_percent_planted_in_asv_results_are_reported_with_their_commit(fluxperf, tmp_path, wide):
    """Sixteen commits of real asv results, 10 % slower from the ninth on, in the text output and on the page."""
    results = tmp_path / "results"
    (results / "host").mkdir(parents=True)
    for name in ("benchmarks.json", "host/machine.json"):
        shutil.copy(REAL / name, results / name)
    source = next(path for path in (REAL / "host").glob("*.json") if path.name != "machine.json")
    whole = json.loads(source.read_text())
    name = "model.Model.track_forward"
    for number in range(16):
        row = list(whole["results"][name])
        factor = (1.1 if number >= 8 else 1.0) * (1 + 0.02 * random.Random(number).gauss(0, 1))
        index = whole["result_columns"].index("result")
        row[index] = [value and value * factor for value in row[index]]
        data = {**whole, "commit_hash": commit(number), "date": 1.77e12 + number * 3.6e6, "results": {name: row}}
        (results / "host" / f"{number:08x}-env.json").write_text(json.dumps(data))
    path = tmp_path / "history" / f"asv{SUFFIX}"
    assert fluxperf("import-asv", results, "-o", path).code == 0
    done = fluxperf("history", path.parent, "-m", "track_forward", "--fail-on", "slower")
    assert done.code == 1
    assert done.out.count(f"{commit(7)[:10]} -> {commit(8)[:10]}  ") == 7, "every rung of tiny"
    assert len(re.findall(r"  \+(?:8|9|10|11|12)\.\d %  \(8 and 8 commits", done.out)) == 7
    assert f"worse since {commit(8)[:10]}, not repaired." in done.err
    page = tmp_path / "page.html"
    records = tmp_path / "own.jsonl"
    append_record(records, record(0))
    assert fluxperf("report", records, "--history", path.parent, "-o", page).code == 0
    text = page.read_text()
    assert "track_forward over commits" in text
    assert commit(8)[:7] in text


def test_changes_come_first_with_interval_chance_and_whether_they_were_repaired(fluxperf, tmp_path, wide):
    levels = [1.0] * 8 + [1.2] * 8 + [1.0] * 8 + [1.3] * 8
    merge_points(tmp_path / f"a{SUFFIX}", [noisy(n, level) for n, level in enumerate(levels)])
    merge_points(tmp_path / f"b{SUFFIX}", [noisy(n, 1.0, metric="still") for n in range(32)])
    done = fluxperf("history", tmp_path)
    lines = done.out.splitlines()
    assert lines[0].startswith("forward, on here")
    assert lines[1].startswith(f"  {commit(23)[:10]} -> {commit(24)[:10]}"), "the newest first"
    assert "95 %: +2" in lines[1]
    assert "chance " in lines[1]
    assert lines[1].endswith("not repaired")
    assert lines[3].endswith(f"repaired at {commit(16)[:10]}")
    assert "2 series, 1 with changes." in done.out
    since = fluxperf("history", tmp_path, "--since", commit(24)[:8])
    assert since.out.count(" -> ") == 2
    assert fluxperf("history", tmp_path, "--since", "2026-01-03").out.count(" -> ") == 0
    assert "unknown day or commit 'abc'" in fluxperf("history", tmp_path, "--since", "abc").err


@pytest.mark.parametrize(
    ("condition", "code"),
    [("slower", 0), ("worse", 1), ("20", 0), ("faster", 2), ("-1", 2), ("nan", 2)],
)
def test_what_fails_a_job(fluxperf, tmp_path, condition, code):
    """A higher count is reported as worse, not as slower."""
    points = [point(n, value, exact=True, unit="copies", metric="d2h_copies") for n, value in enumerate([10.0, 11.0])]
    merge_points(tmp_path / f"a{SUFFIX}", points)
    done = fluxperf("history", tmp_path, "--fail-on", condition)
    assert done.code == code
    assert code != 2 or "expected slower, worse, budget or a number" in " ".join(done.err.replace("│", " ").split())


def test_a_budget_that_bounds_no_series_proves_nothing(fluxperf, tmp_path):
    merge_points(tmp_path / f"a{SUFFIX}", [point(number, 1.0 + 0.5 * (number > 5)) for number in range(12)])
    done = fluxperf("history", tmp_path, "--fail-on", "budget")
    assert done.code == 2
    assert "expected a series with a budget" in done.err


@pytest.mark.parametrize(
    ("levels", "noise", "exact", "code"),
    [
        ([1.0, 1.2, 1.09], 0.005, False, 1),
        ([1.0, 1.2, 1.0], 0.005, False, 0),
        ([1.0, 1.2, 1.004], 0.002, False, 0),
        ([10, 20, 14], 0.0, True, 1),
        ([10, 20, 10], 0.0, True, 0),
    ],
)
def test_a_repair_in_part_leaves_the_rest_to_fail_a_job(fluxperf, tmp_path, levels, noise, exact, code):
    draw = random.Random(1)
    values = [level * (1 + noise * draw.gauss(0, 1)) for level in levels for _ in range(10)]
    unit = {"unit": "copies", "metric": "d2h_copies"} if exact else {}
    merge_points(tmp_path / f"a{SUFFIX}", [point(n, value, exact=exact, **unit) for n, value in enumerate(values)])
    done = fluxperf("history", tmp_path, "--fail-on", "worse")
    assert done.code == code, done.err
    assert f"{'repaired in part at' if code else 'repaired at'} {commit(20)[:10]}" in " ".join(done.out.split())


def test_a_name_from_elsewhere_begins_no_line_of_its_own(fluxperf, tmp_path):
    """CI interprets a line that begins with two colons as a command."""
    odd = {"metric": "forward\n::error::m", "machine": "x\r\n::error::y", "variant": {"a\n::error::b": "c"}}
    for number in range(12):
        (tmp_path / f"{number}{SUFFIX}").write_bytes(encoded(point(number, 1.0 + (number > 5), **odd)) + b"\n")
    done = fluxperf("history", tmp_path, "--fail-on", "slower", "--all")
    assert done.code == 1
    assert not [line for line in (done.out + done.err).splitlines() if line.lstrip().startswith("::")]


def test_series_whose_newest_commits_have_no_value_are_reported(fluxperf, tmp_path):
    merge_points(tmp_path / f"a{SUFFIX}", [point(n, 1.0 if n < 8 else None) for n in range(12)])
    merge_points(tmp_path / f"b{SUFFIX}", [point(n, None if n < 8 else 1.0, metric="other") for n in range(12)])
    done = fluxperf("history", tmp_path, "--fail-on", "slower")
    assert done.code == 0
    assert "1 series without a value at its newest commit" in done.out


def test_errors_that_round_and_copies_of_a_record_are_no_change(fluxperf, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for number, share in enumerate((1.0, 1.01, 0.99)):
        row = record(number, error=ErrorRow(relative=2e-3 * share, against="float64"), times_s={})
        for folder in ("records", "sample"):
            append_record(tmp_path / folder / "r.jsonl", row)
    data = json.loads(fluxperf("history", tmp_path, "-m", "error", "--json").out)
    (series,) = data["series"]
    assert series["changes"] == []
    assert len(series["points"]) == 3


def test_a_budget_is_reported_and_fails_a_job(fluxperf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    append_record(tmp_path / "reference.jsonl", record(0, times_s={"denoise": [[1.0]], "step": []}))
    for number in range(8):
        append_record(tmp_path / "h" / "r.jsonl", record(number, times_s={"denoise": [[1.03]], "step": []}))
    policy = (ROOT / "reports/policy.toml").read_text()
    for budget, code in ((0.05, 0), (0.02, 1)):
        (tmp_path / "p.toml").write_text(policy + f'\n[[reference]]\nrecords = "reference.jsonl"\nbudget = {budget}\n')
        done = fluxperf("history", tmp_path / "h", "--policy", tmp_path / "p.toml", "--fail-on", "budget")
        assert done.code == code, done.err
        assert f"{0.03 / budget:.0%} of the {budget:.1%} from the reference reference.jsonl is used" in done.out


def test_machines_are_identified_by_card_driver_cpu_cores_and_their_name(monkeypatch):
    row = record(0).machine
    card = msgspec.structs.replace(row, gpu="NVIDIA H100", driver="580.95.05", cpu="EPYC", cores=8)
    assert name_of(card) == "NVIDIA H100, driver 580, EPYC, 8 cores"
    assert name_of(msgspec.structs.replace(card, name="runner 7")) == "runner 7, NVIDIA H100, driver 580, EPYC, 8 cores"
    monkeypatch.setenv("FLUXPERF_MACHINE", " runner 7 ")
    assert machine().name == "runner 7"


def test_a_shallow_clone_is_reported(fluxperf, tmp_path, monkeypatch):
    merge_points(tmp_path / f"a{SUFFIX}", [point(n, 1.0) for n in range(4)])
    monkeypatch.setattr("fluxperf.cli.history.is_shallow", lambda repo: True)
    assert "is a shallow clone" in fluxperf("history", tmp_path).out
