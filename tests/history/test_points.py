"""Points: how a record becomes points, and files of points that survive damage."""

from __future__ import annotations

import msgspec
import pytest

from fluxperf.errors import RecordError
from fluxperf.harness.columns import points_of
from fluxperf.harness.points import SUFFIX, merge_points, read_points
from fluxperf.harness.records import Totals
from tests.history.making import commit, history_of, point, record


def by_metric(row):
    return {point.metric: point for point in points_of(row)}


def test_a_record_gives_times_counts_and_error():
    row = record(1, "baseline")
    points = by_metric(row)
    assert set(points) >= {"denoise", "step", "d2h_copies", "h2d_copies", "syncs", "op_calls", "error"}
    assert "launches" not in points, "host twins launch nothing: missing, not zero"
    assert points["d2h_copies"].value == row.totals.d2h_copies
    assert points["d2h_copies"].exact
    assert not points["denoise"].exact
    assert points["denoise"].samples == len(row.times_s["denoise"][0])
    assert points["denoise"].ran_as == "twin"
    assert points["error"].value == row.error.relative


def test_warm_ups_are_no_series_whatever_was_timed():
    """Warm-ups of a forward, of a step, of a picture, and of any future metric."""
    row = record(1, times_s={f"{before}{metric}": [[1.0]] for metric in ("step", "new") for before in ("", "warmup_")})
    assert not [metric for metric in by_metric(record(1)) if metric.startswith("warmup")]
    timed = {metric for metric, point in by_metric(row).items() if not point.exact}
    assert timed == {"step", "new"}
    assert "warmup" in record(1).times_s


def test_every_count_of_a_forward_is_a_series_in_its_unit():
    counted = dict(zip(Totals.__struct_fields__, range(1, 99), strict=False))
    points = by_metric(record(1, totals=Totals(**counted)))
    assert {metric: point.value for metric, point in points.items() if metric in counted} == counted
    units = {metric: points[metric].unit for metric in ("d2h_copies", "h2d_bytes", "peak_bytes", "syncs", "op_calls")}
    assert list(units.values()) == ["copies", "bytes", "bytes", "syncs", "calls"]


def test_times_are_medians_over_processes():
    row = record(1, times_s={"denoise": [[1.0, 1.0, 9.0], [3.0]], "step": [], "warmup": [[50.0]]})
    points = by_metric(row)
    assert (points["denoise"].value, points["denoise"].low, points["denoise"].high) == (2.0, 1.0, 9.0)
    assert "step" not in points


def test_settings_weights_and_sizes_tell_series_apart():
    base = by_metric(record(1))["denoise"].key
    row = record(1)
    for changed in (
        record(1, settings={"nvtx": "on"}),
        record(1, ran_as="kernel"),
        record(1, implementation="another"),
        record(1, workload=msgspec.structs.replace(row.workload, weights="a checkpoint")),
        record(1, machine=msgspec.structs.replace(row.machine, gpu="NVIDIA H100")),
    ):
        assert by_metric(changed)["denoise"].key != base
    sizes = msgspec.structs.replace(row.workload, name="custom", steps=9)
    assert by_metric(record(1, workload=sizes))["denoise"].workload == "tiny 128x128 t16 s9 b1"


def test_a_new_minor_driver_is_the_same_machine():
    row = record(1)
    row = record(1, machine=msgspec.structs.replace(row.machine, gpu="NVIDIA H100", driver="590.1"))
    newer = record(2, machine=msgspec.structs.replace(row.machine, driver="590.2"))
    assert by_metric(row)["denoise"].key == by_metric(newer)["denoise"].key
    assert by_metric(newer)["denoise"].environment["driver"] == "590.2"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deeper" / f"a{SUFFIX}"


def test_points_are_merged_and_read_again(path):
    first = [point(1, 1.0), point(2, None), point(3, 3.0, variant={"a": "b"})]
    assert merge_points(path, first) == (3, 0)
    assert read_points(path).points == first
    assert merge_points(path, first) == (0, 0)
    assert merge_points(path, [point(2, 2.0), point(4, 4.0)]) == (1, 1)
    assert [row.value for row in read_points(path).points] == [1.0, 2.0, 3.0, 4.0]
    assert list(path.parent.iterdir()) == [path]


def test_damaged_lines_are_skipped_and_named(path):
    merge_points(path, [point(1, 1.0), point(2, 2.0)])
    whole = path.read_bytes().splitlines()
    lines = [whole[0], b"{", b"[1]", b"\xff\xfe", whole[1].replace(b'"schema":1', b'"schema":9'), b"", whole[1][:-40]]
    path.write_bytes(b"\n".join(lines))
    file = read_points(path)
    assert [row.value for row in file.points] == [1.0]
    assert [problem.split(": ")[0] for problem in file.problems] == [f"{path}, line {n}" for n in (2, 3, 4, 5, 7)]
    assert all("import the results again" in problem for problem in file.problems)
    assert "got schema 9" in file.problems[3]
    with pytest.raises(RecordError, match="cannot merge into"):
        merge_points(path, [point(1, 1.0)])
    assert path.read_bytes() == b"\n".join(lines)


def test_names_and_paths_that_do_not_fit(tmp_path, path):
    with pytest.raises(RecordError, match=r"ends in \.points\.ndjson"):
        merge_points(tmp_path / "a.jsonl", [point(1, 1.0)])
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot write"):
        merge_points(tmp_path / "file" / f"a{SUFFIX}", [point(1, 1.0)])
    with pytest.raises(RecordError, match=r"cannot read points from .*No such file"):
        read_points(path)


def test_several_measurements_of_a_commit_are_one_point(tmp_path):
    def merged(points):
        (series,) = history_of(points, tmp_path).series
        (one,) = series.points
        return one

    times = [point(1, 1.0, samples=5, low=0.5), point(1, 3.0, samples=5, date_utc="2026-02-01"), point(1, None)]
    one = merged(times)
    assert (one.value, one.samples, one.low, one.date_utc) == (2.0, 10, 0.5, "2026-02-01")
    counts = [point(1, 7.0, exact=True), point(1, 9.0, exact=True, date_utc="2026-02-01")]
    assert merged(counts).value == 9.0
    gone = merged([point(1, None), point(1, None, date_utc="2026-02-01", missing="skipped")])
    assert (gone.value, gone.missing) == (None, "skipped")
    assert one.commit == commit(1)
