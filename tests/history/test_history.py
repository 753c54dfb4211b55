"""History: which values form a series, in the order of commits, with their changes."""

from __future__ import annotations

import math
import random
import subprocess

import msgspec
import pytest

from fluxperf.errors import RecordError, UnknownNameError
from fluxperf.harness.columns import points_of
from fluxperf.harness.history import Rules, _left, history, load
from fluxperf.harness.points import SUFFIX, Point, merge_points
from fluxperf.harness.records import append_record
from fluxperf.harness.series import label
from fluxperf.harness.steps import Shift
from tests.counting import growth
from tests.history.making import commit, history_of, point, record

COUNTS = [100.0, 150.0, 101.0, 101.0]
LEVELS = [1.0, 1.01, 0.99, 1.0, 1.02, 1.0, 0.99, 1.0, 1.2, 1.21, 1.19, 1.2, 1.22, 1.2, 1.19, 1.21]


def test_a_change_says_between_which_commits_and_how_much(tmp_path):
    (series,) = history_of([point(n, value) for n, value in enumerate(LEVELS)], tmp_path).series
    (change,) = series.changes
    assert (change.before, change.after) == (commit(7), commit(8))
    assert (change.old, change.new) == pytest.approx((1.0, 1.2), rel=0.01)
    assert change.percent == pytest.approx(20, abs=1)
    assert (change.old_commits, change.new_commits) == (8, 8)
    assert change.environment == {}
    assert (series.order, series.judged) == ("time", True)


def test_a_change_for_the_worse_is_repaired_by_the_commit_that_takes_half_of_it_back(tmp_path):
    levels = [1.0] * 8 + [1.2] * 8 + [1.18] * 8 + [1.02] * 8 + [1.3] * 8
    values = [level * (1 + 0.002 * random.Random(n).gauss(0, 1)) for n, level in enumerate(levels)]
    (series,) = history_of([point(n, value) for n, value in enumerate(values)], tmp_path).series
    assert [change.worse for change in series.changes] == [True, False, False, True]
    assert [change.repaired for change in series.changes] == [commit(24), "", "", ""]
    (first, *_) = series.changes
    assert first.low < first.percent < first.high
    assert first.chance < 1e-6


@pytest.mark.parametrize(
    ("old", "best", "width", "slack", "left"),
    [
        (1.0, 1.02, 0.001, None, 2.0),
        (1.0, 1.005, 0.001, None, None),  # below 1 % of a time the levels are not known any better
        (1.0, 1.02, 0.02, None, None),  # the levels are known no better
        (1.0, 1.02, None, None, None),  # nor at all
        (100, 101, None, 0.0, 1.0),
        (100, 101, None, 0.02, None),  # rounding
        (0.0, 1.0, None, 0.0, None),
    ],
)
def test_a_repair_leaves_what_neither_rounding_nor_chance_explains(old, best, width, slack, left):
    """Of the levels since the change the best one counts, whichever it is."""

    def shift(was, now):
        bounds = (None, None) if width is None else (-width, width)
        return Shift("step", 0, 1, 2, 3, was, now, *bounds)

    shifts = [shift(old, 1.5 * old), shift(1.5 * old, best), shift(best, 1.2 * old)]
    assert _left(shifts, 1, slack) == (None if left is None else pytest.approx(left))


def test_what_rounds_is_not_left_of_a_count(tmp_path):
    points = [point(n, value, exact=True, metric="d2h_copies", unit="copies") for n, value in enumerate(COUNTS)]
    for slack, left in ((0.0, pytest.approx(1.0)), (0.02, None)):
        (series,) = history_of(points, tmp_path, rules=Rules({points[0].metric: slack})).series
        assert series.changes[0].left == left


def test_cycles_say_whether_the_work_changed_and_come_first(tmp_path):
    """A card that changed its clock, and work that grew: only the second shows in cycles."""
    rows = []
    for n in range(24):
        clock, work = 1.1 if 8 <= n < 16 else 1.0, 1.05 if n >= 16 else 1.0
        draw = random.Random(n)
        seconds, cycles = (level * (1 + 0.001 * draw.gauss(0, 1)) for level in (clock * work, work))
        rows.append(record(n, times_s={"denoise": [[seconds]]}, cycles={"denoise": [[cycles * 1e9]]}))
    found = history_of([one for row in rows for one in points_of(row)], tmp_path, metric="*denoise").series
    assert [(series.metric, series.unit) for series in found] == [("cycles.denoise", "cycles"), ("denoise", "seconds")]
    assert [change.after for change in found[0].changes] == [commit(16)]
    slower, back = found[1].changes[:2]
    assert (slower.after, slower.cycles) == (commit(8), 0.0)
    assert back.cycles == pytest.approx(5.0, abs=0.2)


def test_processes_of_a_record_say_how_sure_its_value_is():
    by_metric = {
        one.metric: one for one in points_of(record(1, times_s={"denoise": [[1.0], [1.1], [1.2]], "step": [[1.0]]}))
    }
    assert by_metric["denoise"].error == pytest.approx((math.pi / 2 / 3) ** 0.5 * 0.1 / 1.1)
    assert by_metric["step"].error is None


def test_a_change_of_versions_at_the_same_place_is_reported(tmp_path):
    points = [
        point(n, value, environment={"driver": "580" if n < 8 else "590", "python": "3.11"})
        for n, value in enumerate(LEVELS)
    ]
    assert history_of(points, tmp_path).series[0].changes[0].environment == {"driver": "580 -> 590"}


def test_one_change_of_a_count_is_enough(tmp_path):
    points = [point(n, value, exact=True, unit="copies") for n, value in enumerate([1374.0, 1374.0, 0.0, 3.0])]
    first, second = history_of(points, tmp_path).series[0].changes
    assert (first.before, first.after, first.old, first.new, first.percent) == (commit(1), commit(2), 1374, 0, -100)
    assert second.percent is None, "a change from zero has no percent"


def test_missing_values_are_kept_and_never_zero(tmp_path):
    values = [*LEVELS[:8], None, None, *LEVELS[8:]]
    (series,) = history_of([point(n, value) for n, value in enumerate(values)], tmp_path).series
    assert [row.value for row in series.points] == values
    assert len(series.present) == len(LEVELS)
    (change,) = series.changes
    assert (change.before, change.after) == (commit(7), commit(10))


def test_twins_and_kernels_are_never_one_series(tmp_path):
    rows = [record(n, ran_as=ran_as) for n in range(3) for ran_as in ("twin", "kernel")]
    found = history_of([point for row in rows for point in points_of(row)], tmp_path, metric="denoise")
    assert [(series.ran_as, len(series.points)) for series in found.series] == [("twin", 3), ("kernel", 3)]


def test_a_series_of_missing_values_only(tmp_path):
    (series,) = history_of([point(n, None) for n in range(9)], tmp_path).series
    assert (series.present, series.changes, series.judged) == ([], [], False)


@pytest.fixture
def checkout(tmp_path):
    """A repository of three commits with decreasing dates."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    names = []
    for number in range(3):
        date = f"2026-01-0{9 - number}T00:00:00+00:00"
        identity = {f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        environment = {**identity, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date, "PATH": "/usr/bin:/bin"}

        def git(*words, environment=environment):
            command = ["git", "-C", str(folder), *words]
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

        if not number:
            git("init", "-q")
        git("commit", "-q", "--allow-empty", "-m", str(number))
        names.append(git("rev-parse", "HEAD"))
    return folder, names


def test_commits_are_in_the_order_of_the_checkout(checkout):
    folder, names = checkout
    points = [point(9 - n, float(n), commit=name) for n, name in enumerate(names)]
    (series,) = history_of(reversed(points), folder).series
    assert series.order == "commits"
    assert [row.commit for row in series.points] == names
    (series,) = history_of([*points, point(99, 9.0)], folder).series
    assert series.order == "time"
    assert [row.value for row in series.points] == [2.0, 1.0, 0.0, 9.0]


def test_measurements_of_one_commit_are_one_point_unless_files_were_changed(tmp_path):
    points = [point(1, 1.0), point(1, 3.0), point(1, 9.0, dirty=True), point(2, 5.0, commit=None)]
    (series,) = history_of(points, tmp_path).series
    assert [row.value for row in series.points] == [2.0, 9.0, 5.0]
    assert [label(row) for row in series.points] == [
        commit(1),
        f"{commit(1)}+",
        "no commit, 2026-01-01T02:00:00+00:00",
    ]


def test_filters_take_names_and_patterns_and_know_the_others(tmp_path):
    points = [point(1, 1.0, metric=metric, machine=where) for metric in ("a", "ab", "c") for where in ("x", "y")]
    assert {series.metric for series in history_of(points, tmp_path, metric="a*").series} == {"a", "ab"}
    assert {series.machine for series in history_of(points, tmp_path, machine="y").series} == {"y"}
    with pytest.raises(UnknownNameError, match=r"unknown metric 'd'.*Use one of: a, ab, c"):
        history_of(points, tmp_path, metric="d")
    with pytest.raises(UnknownNameError, match=r"unknown machine 'z'.*Use one of: x, y"):
        history_of(points, tmp_path, machine="z")


def test_a_folder_of_records_and_points(tmp_path):
    append_record(tmp_path / "deeper" / "r.jsonl", record(1))
    merge_points(tmp_path / f"a{SUFFIX}", [point(1, 1.0)])
    (tmp_path / "torn.jsonl").write_text("{")
    (tmp_path / "notes.txt").write_text("nothing")
    columns, problems = load([tmp_path])
    assert {row.source for row in columns.points()} == {"record", "asv"}
    (problem,) = problems
    assert "torn.jsonl" in problem


def test_folders_without_anything(tmp_path):
    with pytest.raises(RecordError, match=r"nothing could be read: there is no \.jsonl or \.points\.ndjson file below"):
        load([tmp_path])
    (tmp_path / "bad.jsonl").write_text("hello\n")
    with pytest.raises(RecordError, match=r"nothing could be read: .*not JSON"):
        load([tmp_path])
    with pytest.raises(RecordError, match=r"no record could be read: .*not JSON"):
        load([tmp_path / "bad.jsonl"])
    with pytest.raises(RecordError, match=r"cannot read records from .*none: No such file"):
        load([tmp_path / "none"])


def long_series(metrics: int, commits: int) -> list[Point]:
    """Times of metrics over commits; all rise by 5 % at 70 % of the way."""
    draw = random.Random(0)
    rows = []
    for metric in range(metrics):
        for number in range(commits):
            level = (metric + 1) * (1e-3 if number < 0.7 * commits else 1.05e-3)
            rows.append(point(number, level * (1 + 0.01 * draw.gauss(0, 1)), metric=f"m{metric}", samples=10))
    return rows


def test_a_rise_is_found_where_it_is_in_every_series(tmp_path):
    (tmp_path / f"a{SUFFIX}").write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in long_series(4, 500)))
    columns, _ = load([tmp_path])
    found = history(columns, tmp_path)
    places = [[int(change.after[:8], 16) for change in series.changes] for series in found.series]
    assert len(places) == 4
    assert all(any(345 <= place <= 355 for place in changes) for changes in places)


def test_the_work_grows_with_the_points(tmp_path):
    """The work of reading and sorting grows linearly."""
    for commits in (200, 400):
        rows = [msgspec.structs.replace(row, exact=True, value=1.0) for row in long_series(5, commits)]
        merge_points(tmp_path / str(commits) / f"a{SUFFIX}", rows)
    assert growth(lambda commits: history(load([tmp_path / str(commits)])[0], tmp_path), 200) < 2.2
