"""Records files: what is written can be read, and damage affects only the damaged lines."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluxperf.errors import RecordError
from fluxperf.harness import records
from fluxperf.harness.records import (
    BlockRow,
    ErrorRow,
    LedgerRow,
    Machine,
    OpRow,
    Record,
    Totals,
    WorkloadRow,
    append_record,
    read_many,
    read_records,
)

MACHINE = Machine(
    gpu=None,
    driver=None,
    cuda=None,
    cupy=None,
    cudnn=None,
    cpu="Löwe™ 9",
    cores=2,
    memory_bytes=2**34,
    python="3.11.7",
    numpy="2.4",
    os="Linux",
)
WORKLOAD = WorkloadRow(
    name="tiny", model="tiny", height=64, width=64, text_tokens=8, steps=4, batch=1, weights="synthetic (seed 0)"
)
TOTALS = Totals(d2h_copies=3, h2d_copies=2, d2h_bytes=24, h2d_bytes=16, launches=None, syncs=3, peak_bytes=1024)


def make(rung: str) -> Record:
    return Record(
        created_utc="2026-01-02T03:04:05Z",
        commit="a" * 40,
        dirty=False,
        machine=MACHINE,
        workload=WORKLOAD,
        implementation="fluxperf",
        rung=rung,
        ran_as="twin",
        phase_table={"linear": "laid_out"},
        times_s={"forward": [[0.1, 0.25], [1 / 3]]},
        totals=TOTALS,
        setup_totals=TOTALS,
        blocks=[BlockRow(section="double", index=0, d2h_copies=1, h2d_copies=0, d2h_bytes=8, h2d_bytes=0)],
        ledger=[LedgerRow(direction="d2h", label="x", op="modulate", count=3, bytes=24)],
        ops=[OpRow(op="linear", count=2, time_s=0.5, bytes=10, flops=20)],
        error=ErrorRow(relative=1e-7, against="oracle"),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with two records."""
    path = tmp_path / "records" / "r.jsonl"
    for rung in ("baseline", "broadcast"):
        append_record(path, make(rung))
    return path


def rungs(path: Path) -> list[str]:
    return [record.rung for record in read_records(path).records]


def test_what_is_written_is_read(path: Path) -> None:
    file = read_records(path)
    assert file.records == [make("baseline"), make("broadcast")]
    assert (file.path, file.problems) == (str(path), [])
    assert path.read_bytes().count(b"\n") == 2
    assert json.loads(path.read_text().splitlines()[0])["machine"]["cpu"] == "Löwe™ 9"


def test_records_are_immutable() -> None:
    with pytest.raises(AttributeError):
        make("baseline").rung = "fused"


def test_field_names_of_schema_1_are_fixed() -> None:
    """Later versions may add fields but rename none, so that today's records stay readable."""
    names = {field.name for field in msgspec.structs.fields(Record)}
    assert names >= {
        "schema",
        "created_utc",
        "fluxperf",
        "commit",
        "dirty",
        "machine",
        "workload",
        "implementation",
        "rung",
        "ran_as",
        "phase_table",
        "times_s",
        "totals",
        "setup_totals",
        "blocks",
        "ledger",
        "ops",
        "error",
        "witness",
        "settings",
        "sampling",
        "conditions",
    }
    assert records.SCHEMA == 1


def test_fields_of_a_later_version_are_ignored(path: Path) -> None:
    row = json.loads(path.read_text().splitlines()[0]) | {"later_j": 3.5}
    row["machine"]["tpm"] = True
    path.write_text(json.dumps(row))
    assert read_records(path).records == [make("baseline")]


def test_a_run_killed_at_any_byte_loses_no_finished_record(path: Path) -> None:
    whole = path.read_bytes()
    finished = whole.index(b"\n") + 1
    for size in range(finished, len(whole) + 1):
        path.write_bytes(whole[:size])
        file = read_records(path)
        complete = size >= len(whole) - 1
        assert [record.rung for record in file.records] == (["baseline", "broadcast"] if complete else ["baseline"])
        assert len(file.problems) == (not complete and size > finished), size
        assert all("line 2: the last line is incomplete" in problem for problem in file.problems)


def test_a_torn_line_is_named_with_what_to_do(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])
    (problem,) = read_records(path).problems
    assert problem.startswith(f"{path}, line 2: the last line is incomplete (the run was killed while writing it)")
    assert problem.endswith("the line was skipped, measure that rung again.")


@pytest.mark.parametrize("torn", [1, 2, 100])
def test_appending_after_a_torn_line_removes_it(torn: int, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-torn])
    append_record(path, make("fused"))
    append_record(path, make("fp8"))
    whole = torn == 1  # only the end of the line was missing
    assert rungs(path) == ["baseline", *(["broadcast"] if whole else []), "fused", "fp8"]
    assert read_records(path).problems == []


def test_appending_leaves_what_is_there(path: Path) -> None:
    before = path.read_bytes()
    append_record(path, make("fused"))
    assert path.read_bytes().startswith(before)
    assert path.read_bytes().count(b"\n") == 3


BAD_LINES = {
    "schema 2": (b'{"schema": 2, "rung": "x"}', "expected schema 1, got schema 2"),
    "no schema": (b'{"rung": "x"}', "integer"),
    "schema of text": (b'{"schema": "1"}', "integer"),
    "a list": (b"[1, 2]", "integer"),
    "a number": (b"17", "integer"),
    "not JSON": (b"rung,time\n", "not JSON"),
    "NUL bytes": (b"\0" * 40, "not JSON"),
    "fields missing": (b'{"schema": 1}', "missing required field"),
    "bad UTF-8": (b'{"schema": 1, "created_utc": "\xff"}', "utf-8"),
    "deeply nested": (b'{"schema": 1, "x": ' + b"[" * 20_000, "not JSON"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_skipped_and_named(name: str, path: Path) -> None:
    line, words = BAD_LINES[name]
    first, second = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, line.strip(b"\n"), second, b""]))
    file = read_records(path)
    assert [record.rung for record in file.records] == ["baseline", "broadcast"]
    (problem,) = file.problems
    assert problem.startswith(f"{path}, line 2: ")
    assert words in problem or words in problem.replace("UTF-8", "utf-8")  # releases of msgspec spell it otherwise
    assert "the line was skipped" in problem


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_file_of_bad_lines_is_an_error_that_names_them(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(BAD_LINES[name][0] + b"\n")
    with pytest.raises(RecordError, match=r"no record could be read.*line 1: .*fluxperf run"):
        read_records(path)


def test_wrong_types_are_named(path: Path) -> None:
    row = json.loads(path.read_text().splitlines()[0]) | {"rung": 3}
    path.write_text(path.read_text() + json.dumps(row) + "\n")
    (problem,) = read_records(path).problems
    assert "Expected `str`, got `int` - at `$.rung`" in problem


def test_blank_lines_and_carriage_returns_are_nothing(path: Path) -> None:
    path.write_bytes(b"\r\n\n" + path.read_bytes().replace(b"\n", b"\r\n\r\n"))
    assert rungs(path) == ["baseline", "broadcast"]
    assert read_records(path).problems == []


@pytest.mark.parametrize("content", [b"", b"\n", b" \n\t\n"])
def test_an_empty_file_is_an_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"empty\.jsonl is empty\. .*fluxperf run"):
        read_records(path)


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"cannot read records from .*No such file"):
        read_records(tmp_path / "none.jsonl")
    with pytest.raises(RecordError, match="Is a directory"):
        read_records(tmp_path)


def test_paths_that_cannot_be_written(path: Path) -> None:
    with pytest.raises(RecordError, match=r"cannot write .*Choose another"):
        append_record(path / "below a file.jsonl", make("fused"))
    with pytest.raises(RecordError, match="Is a directory"):
        append_record(path.parent, make("fused"))
    assert rungs(path) == ["baseline", "broadcast"]


def test_a_folder_stands_for_its_files(path: Path, tmp_path: Path) -> None:
    append_record(tmp_path / "deeper" / "down" / "a.jsonl", make("fp8"))
    (tmp_path / "notes.txt").write_text("no records")
    empty = tmp_path / "empty"
    empty.mkdir()
    files = list(read_many([path, tmp_path]))
    assert [Path(file.path).name for file in files] == ["r.jsonl", "a.jsonl", "r.jsonl"]
    with pytest.raises(RecordError, match=r"no \.jsonl file below"):
        list(read_many([empty]))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60) | st.sampled_from([line for line, _ in BAD_LINES.values()][:-1]), max_size=5))
def test_no_content_raises_anything_else(tmp_path: Path, lines: list[bytes]) -> None:
    path = tmp_path / "fuzz.jsonl"
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(RecordError):
        read_records(path)
