"""A store holds each record once, whoever adds it and however often."""

from __future__ import annotations

import threading

import pytest

from fluxperf.errors import RecordError
from fluxperf.harness.history import load
from fluxperf.harness.points import SUFFIX, merge_points
from fluxperf.harness.records import append_record
from fluxperf.harness.store import add_to
from tests.history.making import commit, point, record


@pytest.fixture(params=["folder", "url"])
def store(request, tmp_path):
    if request.param == "folder":
        yield str(tmp_path / "store")
        return
    fsspec = pytest.importorskip("fsspec")
    yield "memory://store"
    fsspec.filesystem("memory").rm("/store", recursive=True)


def filled(path, numbers):
    for number in numbers:
        append_record(path, record(number))
    return path


def test_records_are_there_once(store, tmp_path):
    first, second = filled(tmp_path / "a.jsonl", range(4)), filled(tmp_path / "b.jsonl", range(2, 6))
    assert add_to(store, [first]) == (4, 0, [])
    assert add_to(store, [first, second]) == (2, 6, [])
    columns, problems = load([store])
    assert problems == []
    assert sorted(taken.commit for taken in columns.takens) == [commit(number) for number in range(6)]
    day = columns.takens[0].file.rpartition("/")[0]
    assert day.endswith("2026-01-01")


def test_points_of_a_commit_are_one_file(store, tmp_path):
    path = tmp_path / f"a{SUFFIX}"
    merge_points(path, [point(n, float(n), metric=metric) for n in range(3) for metric in ("a", "b")])
    assert add_to(store, [path]) == (3, 0, [])
    assert add_to(store, [path]) == (0, 3, [])
    columns, _ = load([store])
    assert len(columns.key) == 6


def test_runners_that_add_at_once_lose_nothing(tmp_path):
    store = str(tmp_path / "store")
    files = [filled(tmp_path / f"{n}.jsonl", range(n, n + 6)) for n in range(4)]
    threads = [threading.Thread(target=add_to, args=(store, [file])) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    columns, problems = load([store])
    assert (len(columns.takens), problems) == (9, [])
    assert len(list((tmp_path / "store").rglob("*"))) == 9 + 1, "nothing half-written, one day"


def test_what_cannot_be_read_is_named_and_the_rest_added(store, tmp_path):
    path = filled(tmp_path / "in" / "a.jsonl", range(2))
    with path.open("ab") as file:
        file.write(b"{")
    (tmp_path / "in" / "bad.jsonl").write_bytes(b"none\n")
    added = add_to(store, [tmp_path / "in"])
    assert added[:2] == (2, 0)
    assert ["incomplete" in text or "bad.jsonl" in text for text in added.problems] == [True, True]
    with pytest.raises(RecordError, match="cannot read records from"):
        add_to(store, [tmp_path / "none.jsonl"])


def test_a_day_that_is_none_is_no_path(tmp_path):
    append_record(tmp_path / "a.jsonl", record(1, created_utc="../../etc"))
    add_to(str(tmp_path / "store"), [tmp_path / "a.jsonl"])
    (path,) = (tmp_path / "store").rglob("*.jsonl")
    assert path.parent.name == "undated"


def test_a_store_that_cannot_be_written(tmp_path, monkeypatch):
    path = filled(tmp_path / "a.jsonl", range(1))
    with pytest.raises(RecordError, match="cannot write"):
        add_to(str(path / "store"), [path])
    fsspec = pytest.importorskip("fsspec")
    memory = type(fsspec.filesystem("memory"))
    monkeypatch.setattr(memory, "pipe_file", lambda *words, **named: 1 / 0)
    with pytest.raises(RecordError, match=r"cannot write to memory://store: ZeroDivisionError.*add again to continue"):
        add_to("memory://store", [path])
