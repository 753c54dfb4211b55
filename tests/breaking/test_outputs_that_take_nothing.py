"""Output files that become unwritable after the measurement, and an output that nobody reads."""

from __future__ import annotations

import io
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from fluxperf.cli import main
from fluxperf.harness.records import Record, read_records

#: Accepts opening, and fails on every write like a full disk.
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="a device that is always full: Linux has one")

RUN = "run --workload tiny --steps 1 --repeat 1 --warmup 0 --rung fused --rung tensorcore --device host -o"


def refused(words: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """The output of a command that ends with exit code 2, and its error message."""
    with pytest.raises(SystemExit) as end:
        main([*words.split(), str(FULL)])
    said = capsys.readouterr()
    assert end.value.code == 2
    return said.out, said.err


@needs_full
def test_records_that_their_file_does_not_take_are_kept_elsewhere_and_other_rungs_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _, said = refused(RUN, capsys)
    (rescued,) = tmp_path.iterdir()
    assert [record.rung for record in read_records(rescued).records] == ["fused", "tensorcore"]
    assert "cannot write /dev/full: No space left on device" in said
    assert f"2 records that could not be saved there: in {rescued}." in said


@needs_full
def test_records_that_nothing_takes_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    printed, said = refused(RUN, capsys)
    found = [msgspec.json.decode(line, type=Record) for line in printed.splitlines() if line.startswith("{")]
    assert [record.rung for record in found] == ["fused", "tensorcore"]
    assert "2 records that could not be saved there: on standard output." in said


@needs_full
def test_a_process_that_takes_turns_keeps_its_record_elsewhere_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("sys.stdin", io.StringIO("\n\n"))
    printed, said = refused(f"run --in-turns {RUN.removeprefix('run')}", capsys)
    assert len(printed.splitlines()) == 1, "it was ready, and no turn is said to be over"
    (rescued,) = tmp_path.iterdir()
    assert len(read_records(rescued).records) == 1
    assert f"1 record that could not be saved there: in {rescued}." in said


@pytest.mark.parametrize("words", ["phases", "phases --markdown", "phases --help"])
def test_an_output_that_nobody_reads_ends_a_command_in_silence(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """As in ``fluxperf phases | head -1``."""
    read, write = os.pipe()
    os.close(read)
    closed = open(write, "w")  # noqa: SIM115 -- what is left in it has no reader, and closing it says so
    monkeypatch.setattr("sys.stdout", closed)
    complaints = io.StringIO()
    monkeypatch.setattr("sys.stderr", complaints)
    with pytest.raises(SystemExit) as end:
        main(words.split())
    assert end.value.code == 141
    assert complaints.getvalue() == ""
    with suppress(BrokenPipeError):
        closed.close()
