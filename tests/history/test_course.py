"""Records from all commits, and the history they show: by card and implementation, in the order of commits."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from fluxperf.cli.course import course_of
from fluxperf.errors import RecordError
from fluxperf.harness.committed import committed_records
from fluxperf.harness.facts.course import course, quickest
from fluxperf.harness.history import load
from fluxperf.harness.records import IN_TURNS_WITH, append_record
from fluxperf.harness.revisions import is_shallow
from tests.contracts.tree import ROOT
from tests.report.pages import H100, make, on_gpu

H200 = msgspec.structs.replace(H100, gpu="NVIDIA H200")


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(["git", "-C", folder, *who, *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A changed file, a deleted one, and one that is not committed."""
    folder = tmp_path / "records"
    git(tmp_path, "init", "-q")
    append_record(folder / "a.jsonl", on_gpu("fused", 5.0))
    append_record(folder / "gone.jsonl", on_gpu("fused", 7.0, created_utc="2026-01-01T00:00:00Z"))
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    (folder / "gone.jsonl").unlink()
    (folder / "a.jsonl").unlink()
    append_record(folder / "a.jsonl", on_gpu("fused", 4.0, created_utc="2026-09-01T00:00:00Z"))
    with (folder / "a.jsonl").open("a") as file:
        file.write('{"torn')
    git(tmp_path, "commit", "-qam", "second")
    append_record(folder / "b.jsonl", on_gpu("fp8", 2.0, created_utc="2026-10-01T00:00:00Z"))
    return folder


def test_every_record_that_a_commit_held_is_found_once(checkout: Path) -> None:
    problems: list[str] = []
    found = list(committed_records(checkout, problems))
    assert sorted(record.times_s["denoise"][0][0] for record, *_ in found) == [4.0, 5.0, 7.0]
    assert all(re.fullmatch(r"records/\w+\.jsonl@[0-9a-f]{10}", name) for _, name, _, _ in found)
    assert {place for _, _, place, _ in found} == {1}
    assert len(problems) == 1
    assert [mark.seconds for mark in course_of([checkout], False, checkout)][-1] < 2.1
    assert len({mark.moment for mark in course_of([checkout], True, checkout)}) == 4, "what lies there counts too"


def test_a_folder_that_no_commit_knows_is_an_error(tmp_path: Path) -> None:
    append_record(tmp_path / "a.jsonl", on_gpu("fused", 5.0))
    with pytest.raises(RecordError, match="expected a folder in a git checkout with commits"):
        list(committed_records(tmp_path, []))
    append_record(tmp_path / "twin" / "a.jsonl", make())
    with pytest.raises(RecordError, match="expected GPU records of schnell-1024"):
        course_of([tmp_path / "twin"], False, tmp_path)


def test_history_reads_them_with_committed(checkout: Path) -> None:
    plain, _ = load([checkout])
    more, _ = load([checkout], committed=True)
    assert set(plain.value.tolist()) < set(more.value.tolist())


def test_a_course_keeps_cards_and_ways_apart_and_orders_commits() -> None:
    def at(commit: str, seconds: float, rung: str = "fused", **changes):
        day = f"2026-02-0{len(commit)}T00:00:00Z"
        return on_gpu(rung, seconds, times=[[seconds, seconds * 1.1]], commit=commit, created_utc=day, **changes)

    rested = {"settings": {"rest_s": "1"}}
    records = [
        at("bb", 4.0),
        at("bb", 4.0),  # the same record in another file
        at("a", 6.0),
        at("a", 7.0, settings={IN_TURNS_WITH: "diffusers"}),  # of a commit that ran alone too
        at("ccc", 5.0),
        at("ccc", 3.0, **rested),
        at("ccc", 9.0, machine=H200),
        at("eeeee", 8.0, settings={IN_TURNS_WITH: "diffusers"}),
        at("dddd", 1.0, settings={"memory_gb": "16"}),
        at("dddd", 1.0, dirty=True),
        make("fused", times=[[0.1]]),
    ]
    moments = {"a": "2026-01-01T00:00:00+00:00", "bb": "2026-01-02T00:00:00+00:00"}
    marks = course(records, "schnell-1024", moments)
    told = [(mark.card, mark.rest_s, mark.commit, mark.samples) for mark in marks]
    h100 = H100.gpu
    assert told == [
        (h100, 0, "a", 2),
        (h100, 0, "bb", 2),
        (h100, 0, "ccc", 2),
        (h100, 0, "eeeee", 2),
        (h100, 1, "ccc", 2),
        ("NVIDIA H200", 0, "ccc", 2),
    ]
    assert [mark.commit for mark in quickest(marks)] == ["a", "bb", "ccc", "ccc"], "slower than before is no row"


def test_the_course_that_the_docs_show_is_that_of_the_records() -> None:
    """Every row of the page is in the computed history; newer records may add rows."""
    if not (ROOT / ".git").exists() or is_shallow(ROOT):
        pytest.skip("compares with records of all commits; this is no checkout, or one without its history")
    marks = course_of([ROOT / "reports" / "records"], True, ROOT)
    known = {(mark.day, mark.commit[:8] or "not named", mark.rung) for mark in marks}
    text = (ROOT / "docs" / "progress.md").read_text(encoding="utf-8")
    shown = re.findall(
        r"^ *(?:H\d00) +(?:none|\d+ s) +([\d-]+) +(\w+|not named) +(\w+) +[\d.]+ m?s", text, re.MULTILINE
    )
    assert len(shown) >= 20
    assert set(shown) <= known
