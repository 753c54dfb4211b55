"""Places: a file, a folder, a pattern or a URL; and messages about a missing or broken package."""

from __future__ import annotations

import os
import sys

import pytest

from fluxperf import records_frame
from fluxperf.errors import RecordError
from fluxperf.harness.history import history, load
from fluxperf.harness.places import standing_for
from fluxperf.harness.points import SUFFIX, merge_points
from fluxperf.harness.records import append_record, read_many
from tests.history.making import point, record

NUMBERS = range(8)


@pytest.fixture
def folder(tmp_path):
    for number in NUMBERS:
        append_record(tmp_path / "runners" / f"day {number % 2}" / f"r{number}.jsonl", record(number))
    return tmp_path / "runners"


@pytest.fixture
def remote(folder):
    """The same files in fsspec's memory file system."""
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    for path in folder.rglob("*.jsonl"):
        system.pipe_file(f"/perf/{path.relative_to(folder)}", path.read_bytes())
    yield system
    system.rm("/perf", recursive=True)


def commits(*places):
    columns, problems = load(places)
    assert problems == []
    return sorted(int(taken.commit[:8], 16) for taken in columns.takens)


def test_files_folders_patterns_and_urls_give_the_same(folder, remote):
    everything = list(NUMBERS)
    assert commits(folder) == everything
    assert commits(f"{folder}/day 0", f"{folder}/day 1") == everything
    assert commits(f"{folder}/day*/*.jsonl") == everything
    assert commits(f"{folder}/**/r?.jsonl") == everything
    assert commits(f"{folder}/day ?") == everything
    assert commits(*(f"{folder}/day {n % 2}/r{n}.jsonl" for n in NUMBERS)) == everything
    assert commits("memory://perf") == everything
    assert commits("memory://perf/day*/*.jsonl") == everything
    assert commits("memory://perf/day ?") == everything
    assert commits("memory://perf/day 1/r3.jsonl") == [3]


def test_reports_and_tables_read_them_too(folder, remote):
    assert sum(len(file.records) for file in read_many([f"{folder}/day*"])) == len(NUMBERS)
    assert next(file.path for file in read_many(["memory://perf/day 1"])) == "memory:///perf/day 1/r1.jsonl"
    frame = records_frame("memory://perf")
    assert frame.commit.nunique() == len(NUMBERS)
    here = records_frame(folder)
    assert frame.drop(columns="file").equals(here.drop(columns="file"))


def test_what_is_found_twice_counts_once(folder, remote, tmp_path):
    """A copy in another folder, at a URL, or in a file with further records."""
    whole = b"".join(path.read_bytes() for path in sorted(folder.rglob("*.jsonl")))
    (tmp_path / "all.jsonl").write_bytes(whole)
    assert commits(folder, "memory://perf", tmp_path / "all.jsonl", folder) == list(NUMBERS)
    frame = records_frame([tmp_path / "all.jsonl", folder])
    assert len(frame) == len(records_frame(folder))
    merge_points(tmp_path / f"a{SUFFIX}", [point(n, 1.0 + n) for n in NUMBERS])
    merge_points(tmp_path / f"b{SUFFIX}", [point(n, 1.0 + n) for n in NUMBERS])
    columns, _ = load([tmp_path / f"a{SUFFIX}", tmp_path / f"b{SUFFIX}"])
    assert len(columns.key) == len(NUMBERS)


def test_the_place_of_a_record_is_reported_with_a_change(folder, tmp_path):
    rows = [record(n, totals=record(n).totals.__class__(**{**TOTALS, "d2h_copies": int(n > 5)})) for n in NUMBERS]
    for row in rows:
        append_record(tmp_path / "one.jsonl", row)
    columns, _ = load([tmp_path / "one.jsonl"])
    (series,) = history(columns, tmp_path, metric="d2h_copies").series
    assert [change.records for change in series.changes] == [
        tuple(f"{tmp_path}/one.jsonl, record {place}" for place in (6, 7))
    ]


TOTALS = {"d2h_copies": 0, "h2d_copies": 0, "d2h_bytes": 0, "h2d_bytes": 0, "launches": None, "syncs": 0,
          "peak_bytes": None}  # fmt: skip


def test_what_cannot_be_fetched_is_named_and_the_rest_is_read(folder, remote, monkeypatch):
    fetch = type(remote).cat_file

    def failing(self, path, **rest):
        if path.endswith("r3.jsonl"):
            raise PermissionError(13, "Permission denied")
        if path.endswith("r5.jsonl"):
            raise RuntimeError("the line\n broke")
        return fetch(self, path, **rest)

    monkeypatch.setattr(type(remote), "cat_file", failing)
    columns, problems = load(["memory://perf"])
    assert sorted(int(taken.commit[:8], 16) for taken in columns.takens) == [0, 1, 2, 4, 6, 7]
    assert len(problems) == 2
    assert "r3.jsonl: PermissionError" in problems[0]
    assert "r5.jsonl: RuntimeError: the line broke" in problems[1]
    with pytest.raises(RecordError, match=r"cannot read records from memory://perf/day 1/r3.jsonl: PermissionError"):
        load(["memory://perf/day 1/r3.jsonl"])


def test_patterns_and_urls_without_files(tmp_path):
    with pytest.raises(RecordError, match=r"no \.jsonl or \.points\.ndjson file below .*/x\*"):
        load([f"{tmp_path}/x*"])
    pytest.importorskip("fsspec")
    with pytest.raises(RecordError, match=r"expected a URL that fsspec opens: ValueError: Protocol not known: none"):
        load(["none://there"])
    with pytest.raises(RecordError, match=r"cannot read records from memory://nothing/here"):
        load(["memory://nothing/here"])


def test_a_url_without_fsspec_or_its_protocol_says_what_to_install(monkeypatch):
    pytest.importorskip("fsspec")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "s3fs", None)
        with pytest.raises(RecordError, match=r"s3://bucket/perf: expected the packages for this protocol, .*s3fs"):
            standing_for("s3://bucket/perf", (".jsonl",))
    for name in [name for name in sys.modules if name.partition(".")[0] == "fsspec"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RecordError, match=r"expected the package fsspec.* `pip install fsspec`"):
        standing_for("s3://bucket/perf", (".jsonl",))


def test_names_with_the_signs_of_patterns_are_names_where_there_is_such_a_file(tmp_path):
    append_record(tmp_path / "[odd].jsonl", record(1))
    assert commits(tmp_path / "[odd].jsonl") == [1]


def test_places_that_no_file_can_have():
    with pytest.raises(RecordError, match="NUL"):
        load(["a\0b"])
    with pytest.raises(RecordError, match="File name too long"):
        load(["x" * 5000])


def test_a_pipe_in_a_folder_is_not_waited_for(folder):
    os.mkfifo(folder / "pipe.jsonl")
    assert sum(len(file.records) for file in read_many([folder])) == len(NUMBERS)
