"""Results of long work whose file cannot be written: they are written elsewhere, and the command goes on."""

from __future__ import annotations

import json
import os
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluxperf.cli import main, replicas
from fluxperf.cli.rescue import rescued, write_or_rescue
from fluxperf.errors import RecordError
from fluxperf.files import beginning, write_whole
from fluxperf.harness import collecting
from fluxperf.harness.formats.github import append_summary
from fluxperf.harness.gate import gate_files
from fluxperf.harness.policy import read_policy
from fluxperf.harness.records import append_record, read_records
from tests.breaking.test_outputs_that_take_nothing import FULL, needs_full
from tests.cli.test_gate import write
from tests.gate.sides import POLICY_FILE, twin, with_totals
from tests.history.making import record
from tests.pure.test_files import full_after, names

TINY = ["run", "--workload", "tiny", "--steps", "1", "--repeat", "1", "--warmup", "0", "--device", "host"]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def ended(words: list[Any], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    said = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, said.out, said.err


@needs_full
def test_latents_that_their_file_does_not_take_stop_no_rung(
    tmp_path: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "r.jsonl"
    rungs = ["--rung", "batched", "--rung", "fused"]
    code, _, said = ended([*TINY, *rungs, "-o", output, "--reference-to", FULL], capsys)
    assert [one.rung for one in read_records(output).records] == ["batched", "fused"]
    (saved,) = elsewhere.iterdir()
    assert (code, np.load(saved)["latents"].ndim) == (2, 3)
    assert "cannot write /dev/full: No space left on device." in said
    assert f"The content is saved in {saved}." in said


@needs_full
def test_records_that_are_elsewhere_are_named_whatever_else_goes_wrong(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepared(name: str, *rest: object) -> object:
        if name == "fused":
            raise RecordError("another error.")
        return prepare(name, *rest)  # type: ignore[arg-type]

    prepare = import_module("fluxperf.cli.run").prepare
    monkeypatch.setattr("fluxperf.cli.run.prepare", prepared)
    code, _, said = ended([*TINY, "--rung", "batched", "--rung", "fused", "-o", FULL], capsys)
    (saved,) = elsewhere.iterdir()
    assert (code, len(read_records(saved).records)) == (2, 1)
    assert "another error." in said
    assert f"1 record that could not be saved there: in {saved}." in said


def test_where_no_folder_of_temporary_files_is_nothing_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert rescued(tmp_path / "a", lambda path: write_whole(path, b"x")) == ""
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"Not a directory.*It could not be saved elsewhere either, and is lost\."):
        write_or_rescue(tmp_path / "file" / "a", lambda path: write_whole(path, b"x"))


@pytest.mark.parametrize("name", ["r.jsonl", "x" * 250 + ".png", "\N{FOX FACE}" * 62 + ".jsonl", "." + "e" * 254])
def test_what_is_elsewhere_has_a_name_that_may_be(elsewhere: Path, name: str) -> None:
    assert len(os.fsencode(name)) <= 255
    said = rescued(Path("somewhere") / name, lambda path: write_whole(path, b"x"))
    (saved,) = elsewhere.iterdir()
    assert said == f"in {saved}"
    assert saved.name.endswith(name[-4:])


def test_the_beginning_of_a_name_is_text() -> None:
    assert beginning("a.json") == "a.json"
    assert beginning("\N{FOX FACE}" * 3 + ".x", most=9) == "\N{FOX FACE}.x"
    assert beginning("abc", most=2) == "ab"


@needs_full
def test_a_verdict_whose_file_is_refused_is_in_the_others_and_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, head = (
        write(tmp_path / f"{name}.jsonl", with_totals(twin(), d2h_copies=copies))
        for name, copies in (("base", 1), ("head", 2))
    )
    files = ["--json", FULL, "--sarif", tmp_path / "v.sarif", "--junit", FULL, "--markdown", tmp_path / "v.md"]
    code, printed, said = ended(
        ["gate", "--baseline", base, "--candidate", head, "--policy", POLICY_FILE, *files], capsys
    )
    assert code == 2
    assert said.count("cannot write /dev/full: No space left on device") == 2
    assert "Gate: regression." in printed
    assert json.loads((tmp_path / "v.sarif").read_text())["runs"]
    assert "regression" in (tmp_path / "v.md").read_text()


@pytest.mark.parametrize("option", ["--json", "--markdown", "--sarif", "--junit", "--github"])
@pytest.mark.parametrize("command", [["gate", "--base", "a", "--head", "b"], ["gate", "exact"]])
def test_a_verdict_that_could_not_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str], option: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    for name in ("counted", "_revisions"):
        monkeypatch.setattr(f"fluxperf.cli.gate.{name}", lambda *_: pytest.fail("it measures"))
    value = [] if option == "--github" else [f"{option}={tmp_path / 'file' / 'v'}"]
    code, _, said = ended([*command, *(value or [option])], capsys)
    assert code == 2
    assert ("GITHUB_STEP_SUMMARY" if option == "--github" else "Not a directory") in said


def test_a_step_summary_that_does_not_fit_leaves_what_others_wrote(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("# Others\n")
    base = write(tmp_path / "base.jsonl", twin())
    found = gate_files(base, base, read_policy(POLICY_FILE))
    with full_after(60), pytest.raises(RecordError, match="File too large"):
        append_summary(found, path)
    assert path.read_text() == "# Others\n"
    append_summary(found, path)
    assert path.read_text().startswith("# Others\n#")


def test_records_of_processes_stay_until_they_are_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the command is killed before it merges them, they remain."""
    seen = list[list[str]]()

    def replicated(command: list[str], processes: int, folder: Path) -> replicas.Replicas:
        rows = []
        for number in (1, 2):
            append_record(folder / f"process-{number}.jsonl", row := record(1))
            rows.append([row])
        return replicas.Replicas(rows, "", "")

    class Looking(replicas.Keeping):
        def add(self, records: Any) -> None:
            super().add(records)
            seen.append([name for name in names(tmp_path) if "processes" in name])

    monkeypatch.setattr(replicas, "_replicated", replicated)
    monkeypatch.setattr(replicas, "Keeping", Looking)
    code, _, said = ended([*TINY, "--processes", "2", "-o", tmp_path / "r.jsonl"], capsys)
    assert code == 0, said
    assert [len(found) for found in seen] == [1]
    assert names(tmp_path) == ["r.jsonl"]


@needs_full
def test_what_a_process_rescued_is_said_beside_what_its_whole_did_not_keep(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "processes"
    folder.mkdir()
    monkeypatch.setattr(replicas, "folder_for", lambda output: folder)
    monkeypatch.setattr(
        replicas, "_replicated", lambda *_: replicas.Replicas([[record(1)]], "", "process 2 of 2 ended: in elsewhere")
    )
    code, _, said = ended([*TINY, "--processes", "2", "-o", FULL], capsys)
    (saved,) = elsewhere.iterdir()
    assert (code, len(read_records(saved).records), folder.exists()) == (2, 1, False)
    assert f"1 record that could not be saved there: in {saved}." in said
    assert "process 2 of 2 ended: in elsewhere" in said


def test_a_program_is_not_run_if_its_copies_could_not_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for option in ("-o", "--json="):
        place = f"{option}{tmp_path / 'file' / 'c'}"
        code, printed, said = ended(["witness", place, "--", "python", "-c", "print('it ran')"], capsys)
        assert (code, printed) == (2, "")
        assert "Not a directory" in said


def test_evidence_that_its_folder_does_not_take_is_elsewhere(
    tmp_path: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def once(command: list[str], out: Path, root: Path) -> tuple[str, str]:
        append_record(out, record(1))
        return "", ""

    def refuse(*_: object) -> str:
        raise RecordError("cannot write it: No space left on device.")

    monkeypatch.setattr(collecting, "run_once", once)
    monkeypatch.setattr(collecting.Collection, "_keep", refuse)
    code, _, said = ended(["evidence", "tiny", "-o", tmp_path / "e", "--part", "tiny-fused"], capsys)
    (saved,) = elsewhere.iterdir()
    assert (code, len(read_records(saved).records)) == (2, 1)
    assert f"tiny-fused-1.json was measured and is now in {saved}." in said
