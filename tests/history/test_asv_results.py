"""asv's results: real files of three commits, and damaged files."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from fluxperf.errors import RecordError
from fluxperf.harness.asv_results import import_results
from tests.history.making import history_of

#: Results of `asv run` over three commits of this repository, as asv wrote them: a forward and copies of every rung.
REAL = Path(__file__).parent / "asv_results"


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    shutil.copytree(REAL, folder)
    return folder


def newest(folder):
    return max(path for path in (folder / "host").glob("*.json") if path.name != "machine.json")


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def column(data, benchmark, name):
    return data["results"][benchmark], data["result_columns"].index(name)


def test_real_results_are_points_of_three_commits():
    imported = import_results(REAL)
    assert imported.problems == []
    assert len({point.commit for point in imported.points}) == 3
    assert {point.machine for point in imported.points} == {"host"}
    copies = [point for point in imported.points if point.metric == "transfers.Copies.track_copies"]
    assert {point.value for point in copies if point.rung == "baseline" and point.variant["direction"] == "d2h"} == {
        1374
    }
    assert {point.value for point in copies if point.rung != "baseline"} == {0}
    assert {(point.unit, point.exact, point.samples) for point in copies} == {("copies", True, 0)}


def test_times_come_with_interval_and_number_of_samples():
    forwards = [point for point in import_results(REAL).points if point.metric == "model.Model.track_forward"]
    measured = [point for point in forwards if point.value is not None]
    assert {point.workload for point in measured} == {"tiny"}
    assert len(measured) == 7 * 3
    for point in measured:
        assert (point.unit, point.exact, point.samples) == ("seconds", False, 10)
        assert point.low <= point.value <= point.high


def test_what_was_skipped_is_missing():
    skipped = [point for point in import_results(REAL).points if point.workload == "schnell-1024"]
    assert len(skipped) == 7 * 3
    assert {(point.value, point.missing) for point in skipped} == {(None, "skipped")}


def test_imported_points_are_series(tmp_path):
    found = history_of(import_results(REAL).points, tmp_path)
    (series,) = (
        series
        for series in found.series
        if (series.metric, series.rung, series.workload) == ("model.Model.track_forward", "fused", "tiny")
    )
    assert len(series.points) == 3
    assert sorted(point.date_utc for point in series.points) == [point.date_utc for point in series.points]


def test_a_failed_benchmark_is_missing(results):
    def fail(data):
        row, index = column(data, "model.Model.track_forward", "result")
        row[index] = None
        row, index = column(data, "transfers.Copies.track_copies", "result")
        row[index][0] = None

    path = newest(results)
    edit(path, fail)
    imported = import_results(results)
    assert imported.problems == []
    commit = json.loads(path.read_text())["commit_hash"]
    rows = [point for point in imported.points if point.commit == commit]
    forwards = [point for point in rows if point.metric == "model.Model.track_forward"]
    assert {(point.value, point.missing) for point in forwards} == {(None, "failed")}
    copies = [point for point in rows if point.metric == "transfers.Copies.track_copies"]
    assert [point.missing for point in copies[:2]] == ["failed", ""]


@pytest.mark.parametrize(
    ("value", "missing"),
    [(math.nan, "skipped"), (math.inf, "not finite"), ("1", "not a number"), (True, "not a number")],
)
def test_values_that_are_none(results, value, missing):
    def put(data):
        row, index = column(data, "transfers.Copies.track_copies", "result")
        row[index][0] = value

    path = newest(results)
    edit(path, put)
    commit = json.loads(path.read_text())["commit_hash"]
    first = next(
        point
        for point in import_results(results).points
        if point.commit == commit and point.metric == "transfers.Copies.track_copies"
    )
    assert (first.value, first.missing) == (None, missing)


DAMAGE = {
    "torn": (lambda path: path.write_text(path.read_text()[:200]), "is not JSON"),
    "empty": (lambda path: path.write_text(""), "is not JSON"),
    "binary": (lambda path: path.write_bytes(b"\xff\xfe\0"), "is not JSON"),
    "a list": (lambda path: path.write_text("[]"), "expected a JSON object, got list"),
    "another api": (lambda path: edit(path, lambda data: data.update(version=1)), "api version 2 of asv 0.6, got 1"),
    "no api": (lambda path: edit(path, lambda data: data.pop("version")), "got None; `asv update`"),
    "no commit": (lambda path: edit(path, lambda data: data.pop("commit_hash")), "'commit_hash' is missing"),
    "a commit without a name": (
        lambda path: edit(path, lambda data: data.update(commit_hash=None)), "expected a commit's name, got None"
    ),
    "a commit of spaces": (
        lambda path: edit(path, lambda data: data.update(commit_hash=" ")), "expected a commit's name, got ' '"
    ),
    "no params": (lambda path: edit(path, lambda data: data.update(params=None)), "of another type"),
    "no date": (lambda path: edit(path, lambda data: data.update(date="today")), "expected a date in milliseconds"),
    "far date": (lambda path: edit(path, lambda data: data.update(date=1e30)), "expected a date in milliseconds"),
    "no results": (lambda path: edit(path, lambda data: data.update(results=[])), "expected results with columns"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_left_out_and_named(name, results):
    damage, phrase = DAMAGE[name]
    path = newest(results)
    damage(path)
    imported = import_results(results)
    assert len({point.commit for point in imported.points}) == 2
    (problem,) = imported.problems
    assert problem.startswith(f"{path}: left out; ")
    assert phrase in problem


@pytest.mark.parametrize("name", [None, 7, "", {}])
def test_a_machine_without_a_name_is_left_out_and_named(results, name):
    """Two machines without a name would become one series."""
    (file,) = results.glob("*/machine.json")
    other = file.parent.with_name("other")
    shutil.copytree(file.parent, other)
    edit(other / "machine.json", lambda data: data.update(machine=name))
    imported = import_results(results)
    (problem,) = imported.problems
    assert problem == f"{other}: left out, because of its machine.json; expected a machine's name, got {name!r}."
    assert {point.machine for point in imported.points} == {"host"}


ROWS = {
    "no row": (lambda data, name: data["results"].update({name: 7}), "expected a row"),
    "too long": (lambda data, name: data["results"].update({name: [None] * 99}), "at most"),
    "too few values": (lambda data, name: data["results"][name][0].pop(), "one per combination of parameters, got 13"),
    "no list": (lambda data, name: data["results"][name].__setitem__(0, 7), "got int"),
    "strange parameters": (lambda data, name: data["results"][name].__setitem__(1, [3]), "lists of parameters"),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_damaged_row_is_left_out_and_named(name, results):
    damage, phrase = ROWS[name]
    path, benchmark = newest(results), "transfers.Copies.track_copies"
    edit(path, lambda data: damage(data, benchmark))
    imported = import_results(results)
    (problem,) = imported.problems
    assert problem.startswith(f"{path}, benchmark {benchmark}: left out; ")
    assert phrase in problem
    assert len({point.commit for point in imported.points}) == 3


def test_a_benchmark_that_is_no_more_is_named(results):
    edit(results / "benchmarks.json", lambda data: data.pop("transfers.Copies.track_copies"))
    imported = import_results(results)
    assert len(imported.problems) == 3
    assert all("its unit is unknown" in problem for problem in imported.problems)


@pytest.mark.parametrize("field", ["unit", "type", "param_names"])
def test_a_benchmark_that_lacks_what_its_values_mean_is_named(results, field):
    """Without its type and unit, seconds would be taken for counts, where any change is a fact."""
    edit(results / "benchmarks.json", lambda data: data["transfers.Copies.track_copies"].update({field: None}))
    imported = import_results(results)
    assert "transfers.Copies.track_copies" not in {point.metric for point in imported.points}
    assert len(imported.problems) == 3
    assert "expected unit, type and param_names of it in benchmarks.json" in imported.problems[0]


def test_results_of_more_parameters_than_a_benchmark_names_stay_apart(results):
    name = "transfers.Copies.track_copies"
    before = {point.key for point in import_results(results).points if point.metric == name}
    edit(results / "benchmarks.json", lambda data: data[name].update(param_names=["rung"]))
    after = {point.key for point in import_results(results).points if point.metric == name}
    assert len(after) == len(before) > 7
    assert all(dict(key.variant)["param2"] for key in after)


def test_a_machine_that_is_damaged_is_left_out(results):
    (results / "other").mkdir()
    (results / "other" / "machine.json").write_text("{}")
    (problem,) = import_results(results).problems
    assert problem.startswith(f"{results / 'other'}: left out, because of its machine.json; ")
    assert "expected api version 1" in problem


def test_folders_that_are_none(results, tmp_path):
    with pytest.raises(RecordError, match=r"benchmarks\.json cannot be read: No such file.*results_dir of asv\.conf"):
        import_results(tmp_path)
    with pytest.raises(RecordError, match=r"expected asv's results folder.*there is no such folder.*asv\.conf"):
        import_results(tmp_path / "none")
    edit(results / "benchmarks.json", lambda data: data.update(version=3))
    with pytest.raises(RecordError, match=r"expected api version 2 of asv 0\.6, got 3.*Run `asv run` to write it"):
        import_results(results)
    shutil.rmtree(results / "host")
    edit(results / "benchmarks.json", lambda data: data.update(version=2))
    with pytest.raises(RecordError, match=r"nothing could be imported: there is no result.*Run `asv run` first"):
        import_results(results)
