"""The gate as it measures: the order of processes, when it takes more, and what it says of those that fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fluxperf.errors import BuildError, RecordError
from fluxperf.harness.checkouts import Installed, Processes, installed
from fluxperf.harness.gate import Side, gate_files, gate_pairs
from fluxperf.harness.records import Record, append_record
from tests.gate.sides import Fake, policy, twin, with_totals

NAMES = ("base abc", "head def")


class Broken(Fake):
    """Fails at a process."""

    def __init__(self, at: int, error: Exception) -> None:
        super().__init__()
        self._at, self._error = at, error

    def measure(self, side: Side) -> list[Record]:
        if len(self.sides) == self._at:
            raise self._error
        return super().measure(side)


class Twins(Fake):
    """Runs on the host device."""

    def __init__(self, head: Callable[[Record], Record]) -> None:
        super().__init__()
        self._head = head

    def measure(self, side: Side) -> list[Record]:
        self.sides.append(side)
        return [self._head(twin()) if side == "head" else twin()]


def test_processes_come_in_turns_and_as_many_as_holm_needs_are_enough_for_what_is_clear() -> None:
    runner = Fake(change=0.08)
    verdict = gate_pairs(runner, policy(), names=NAMES)
    assert runner.sides[:6] == ["base", "head", "head", "base", "base", "head"]
    assert (verdict.outcome, verdict.exit_code) == ("regression", 1)
    assert len(runner.sides) == 2 * 9  # two times are judged, at a third of alpha each: 2^-9 is enough


def test_more_pairs_are_taken_while_it_is_unsure_up_to_the_bound() -> None:
    counted: list[int] = []
    verdict = gate_pairs(Fake(spread=0.5), policy(), names=NAMES, on_pair=counted.append)
    assert counted == list(range(1, policy().pairs.most + 1))
    assert (verdict.outcome, verdict.exit_code) == ("unsure", 3)


def test_no_change_passes() -> None:
    verdict = gate_pairs(Fake(), policy(), names=NAMES)
    assert (verdict.outcome, verdict.exit_code) == ("pass", 0)
    assert (verdict.base, verdict.head) == NAMES


def test_many_rungs_take_as_many_pairs_as_holm_needs() -> None:
    runner = Fake(change=0.08, rungs=("fused", "captured", "fp8", "batched", "tensorcore"))
    assert gate_pairs(runner, policy(), names=NAMES).outcome == "regression"
    assert len(runner.sides) == 2 * 11


def test_one_pair_of_twins_is_enough() -> None:
    runner = Twins(lambda record: record)
    assert gate_pairs(runner, policy(), names=NAMES).outcome == "pass"
    assert runner.sides == ["base", "head"]
    worse = gate_pairs(Twins(lambda record: with_totals(record, d2h_copies=999)), policy(), names=NAMES)
    assert (worse.outcome, worse.exit_code) == ("regression", 1)


@pytest.mark.parametrize("error", [BuildError("head: exit code 1"), RecordError("no record could be read")])
@pytest.mark.parametrize("at", [0, 1, 7])
def test_a_process_that_fails_is_an_error(at: int, error: Exception) -> None:
    verdict = gate_pairs(Broken(at, error), policy(), names=NAMES)
    assert (verdict.outcome, verdict.exit_code) == ("error", 2)
    assert str(error) in verdict.rows[0].message


def write(path: Path, *records: Record) -> Path:
    for record in records:
        append_record(path, record)
    return path


def test_files(tmp_path: Path) -> None:
    base = write(tmp_path / "base.jsonl", twin())
    assert gate_files(base, base, policy()).exit_code == 0
    worse = write(tmp_path / "worse.jsonl", with_totals(twin(), d2h_copies=999))
    assert gate_files(base, worse, policy()).exit_code == 1


@pytest.mark.parametrize("damage", ["missing", "empty", "torn", "schema", "not json"])
def test_a_damaged_file_is_an_error_on_either_side(tmp_path: Path, damage: str) -> None:
    good = write(tmp_path / "good.jsonl", twin())
    whole = good.read_bytes()
    bad = tmp_path / "bad.jsonl"
    contents = {
        "empty": b"",
        "torn": whole + whole[:99],
        "schema": whole.replace(b'"schema":1', b'"schema":2'),
        "not json": b"hello",
    }
    if damage in contents:
        bad.write_bytes(contents[damage])
    for sides in ((good, bad), (bad, good)):
        verdict = gate_files(*sides, policy())
        assert (verdict.outcome, verdict.exit_code) == ("error", 2)
        assert any(str(bad) in row.message for row in verdict.rows)


PROGRAM = """#!/bin/sh
for last; do :; done
{body}
"""


def program(folder: Path, body: str) -> Installed:
    """An interpreter that does something else; the last argument is the records file."""
    path = folder / "python"
    path.write_text(PROGRAM.format(body=body))
    path.chmod(0o755)
    return Installed(path, "0123456789abcdef")


def test_a_side_is_measured_in_a_fresh_process(tmp_path: Path) -> None:
    write(tmp_path / "made.jsonl", twin())
    one = program(tmp_path, f'cp {tmp_path}/made.jsonl "$last"; echo "$FLUXPERF_COMMIT $*" >> {tmp_path}/said')
    runner = Processes({"base": one, "head": one}, ["run", "--workload", "tiny"], tmp_path)
    assert runner.measure("base") == runner.measure("head") == [twin()]
    said = (tmp_path / "said").read_text().splitlines()
    assert said[0].startswith("0123456789abcdef -P -m fluxperf run --workload tiny -o")
    assert len({line.split()[-1] for line in said}) == 2


@pytest.mark.parametrize(
    ("body", "phrase"),
    [
        ("echo boom; exit 3", "expected exit code 0, got 3"),
        ("exit 0", "cannot read records"),
        ("kill -9 $$", "got -9"),
        ('printf hello > "$last"', "not JSON|torn"),
    ],
)
def test_a_process_that_crashes_or_writes_nothing(tmp_path: Path, body: str, phrase: str) -> None:
    one = program(tmp_path, body)
    with pytest.raises((BuildError, RecordError), match=phrase):
        Processes({"base": one, "head": one}, [], tmp_path).measure("head")
    verdict = gate_pairs(Processes({"base": one, "head": one}, [], tmp_path), policy(), names=NAMES)
    assert verdict.exit_code == 2


def test_a_revision_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="expected a commit"), installed(tmp_path, {"base": "nowhere", "head": "x"}):
        pass
