"""How the gate measures: the order of processes, when it takes more, and how it reports failures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluxperf.errors import BuildError, RecordError
from fluxperf.harness.checkouts import Installed, Processes, installed, running
from fluxperf.harness.gate import Side, gate_files, gate_pairs
from fluxperf.harness.isolation import PASSED, PASSED_TO_BUILDS, digests_of
from fluxperf.harness.provenance import digest
from fluxperf.harness.records import Record, append_record
from tests.gate.sides import ROOT, Fake, policy, replaced, timed, twin, with_totals

NAMES = ("base abc", "head def")


class Broken(Fake):
    """Fails at a given process."""

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


def test_processes_come_in_pairs_of_a_drawn_order_and_eight_are_enough_for_what_is_clear() -> None:
    runner, again = Fake(change=0.08), Fake(change=0.08)
    verdict = gate_pairs(runner, policy(), names=NAMES, seed=7)
    assert (verdict.outcome, verdict.exit_code) == ("regression", 1)
    assert len(runner.sides) == 2 * (1 + 8), "a cold pair, whose times do not count, and as many as can show something"
    firsts = runner.sides[::2]
    assert {"base", "head"} == set(firsts) == set(runner.sides[1::2])
    assert all(runner.sides[2 * n] != runner.sides[2 * n + 1] for n in range(9))
    assert gate_pairs(again, policy(), names=NAMES, seed=7).provenance.seed == 7
    assert again.sides == runner.sides
    assert (verdict.provenance.pairs, verdict.provenance.excluded) == (8, ["times of the first pair: cold"])
    seeds = {gate_pairs(Fake(change=0.5), policy(), names=NAMES).provenance.seed for _ in range(3)}
    assert len(seeds) == 3


class Cold(Fake):
    """The first process of each side takes three times as long."""

    def measure(self, side: Side) -> list[Record]:
        (record,) = super().measure(side)
        slow = 3.0 if self.sides.count(side) == 1 and side == "head" else 1.0
        return [timed(record, [[value * slow for value in record.times_s["denoise"][0]]])]


def test_the_cold_pair_is_not_counted() -> None:
    verdict = gate_pairs(Cold(), policy(), names=NAMES, seed=1)
    assert (verdict.outcome, verdict.provenance.pairs) == ("pass", 8)


def test_more_pairs_are_taken_while_it_is_unsure_up_to_the_bound() -> None:
    counted: list[int] = []
    verdict = gate_pairs(Fake(spread=0.5), policy(), names=NAMES, on_pair=counted.append, seed=1)
    assert counted == list(range(1, policy().pairs.most + 1))
    assert (verdict.outcome, verdict.exit_code) == ("unsure", 3)


def test_no_change_passes() -> None:
    verdict = gate_pairs(Fake(), policy(), names=NAMES)
    assert (verdict.outcome, verdict.exit_code) == ("pass", 0)
    assert (verdict.base, verdict.head) == NAMES


def test_many_rungs_take_no_more_pairs_than_one() -> None:
    runner = Fake(change=0.08, rungs=("fused", "captured", "fp8", "batched", "tensorcore"))
    assert gate_pairs(runner, policy(), names=NAMES).outcome == "regression"
    assert len(runner.sides) == 2 * (1 + 8)


def test_one_pair_of_twins_is_enough() -> None:
    runner = Twins(lambda record: record)
    assert gate_pairs(runner, policy(), names=NAMES).outcome == "pass"
    assert sorted(runner.sides) == ["base", "head"]
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


COMMIT = "0123456789abcdef"


def program(folder: Path, body: str) -> Installed:
    """An interpreter that runs another program; the last argument is the records file, the sixth the import folder."""
    package = folder / "lib" / "python3.11" / "site-packages" / "fluxperf"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (folder / "imports.json").write_text(json.dumps({"fluxperf": str(package / "__init__.py")}))
    path = folder / "bin" / "python"
    path.parent.mkdir()
    path.write_text(PROGRAM.format(body=f'cp {folder}/imports.json "$6"\n{body}'))
    path.chmod(0o755)
    return Installed(path, COMMIT, None, {"fluxperf/__init__.py": digest(b"")})


def test_a_side_is_measured_in_a_fresh_process(tmp_path: Path) -> None:
    made = replaced(twin(), commit=COMMIT)
    write(tmp_path / "made.jsonl", made)
    one = program(tmp_path, f'cp {tmp_path}/made.jsonl "$last"; echo "$FLUXPERF_COMMIT $*" >> {tmp_path}/said')
    runner = Processes({"base": one, "head": one}, ["run", "--workload", "tiny"], tmp_path)
    assert runner.measure("base") == runner.measure("head") == [made]
    said = (tmp_path / "said").read_text()
    assert said.startswith(f"{COMMIT} -I -X pycache_prefix=")
    assert said.count("run --workload tiny -o") == 2
    assert len(set(said.split()) & {str(tmp_path / "base-1.jsonl"), str(tmp_path / "head-2.jsonl")}) == 2


def test_nothing_but_what_is_listed_reaches_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PYTHONHOME", "GITHUB_TOKEN", "GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT", "GITHUB_ENV",
                 "ACTIONS_RUNTIME_TOKEN", "CI", "LD_PRELOAD", "CODECOV_TOKEN", "PYTHONSTARTUP"):  # fmt: skip
        monkeypatch.setenv(name, "/from/outside")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    one = program(tmp_path, f"env > {tmp_path}/environment; exit 3")
    with pytest.raises(BuildError):
        Processes({"base": one, "head": one}, [], tmp_path).measure("base")
    given = dict(line.partition("=")[::2] for line in (tmp_path / "environment").read_text().splitlines())
    assert given["CUDA_VISIBLE_DEVICES"] == "1"
    assert "/from/outside" not in given.values()
    assert set(given) <= {*PASSED, "FLUXPERF_COMMIT", "FLUXPERF_CACHE", "PWD", "OLDPWD", "SHLVL", "_"}
    assert not [name for name in PASSED_TO_BUILDS if name.startswith(("PYTHON", "GITHUB", "ACTIONS", "CI"))]


def test_the_running_program_has_its_commits_name_in_its_processes_and_another_folder_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUXPERF_COMMIT", COMMIT)
    here, other = running(), Installed(Path(sys.executable), "", tmp_path)
    runner = Processes({"base": here, "head": other}, [], tmp_path)
    assert runner.begin("base").environment["FLUXPERF_COMMIT"] == COMMIT
    assert "FLUXPERF_COMMIT" not in runner.begin("head").environment


def test_each_side_begins_with_a_copy_of_its_own_cache(tmp_path: Path) -> None:
    made = replaced(twin(), commit=COMMIT)
    write(tmp_path / "made.jsonl", made)
    body = f'cp {tmp_path}/made.jsonl "$last"; cat "$FLUXPERF_CACHE/choices/gpu" >> {tmp_path}/said'
    one = program(tmp_path, body + '; echo later > "$FLUXPERF_CACHE/choices/gpu"')
    caches: dict[Side, Path] = {"base": tmp_path / "frugal", "head": tmp_path / "hungry"}
    for folder in caches.values():
        (folder / "choices").mkdir(parents=True)
        (folder / "choices" / "gpu").write_text(f"{folder.name}\n")
    runner = Processes({"base": one, "head": one}, [], tmp_path, caches)
    for side in ("base", "head", "base", "head"):
        runner.measure(side)
    assert (tmp_path / "said").read_text().split() == ["frugal", "hungry", "later", "later"], "copied once"
    assert (tmp_path / "hungry" / "choices" / "gpu").read_text() == "hungry\n", "what was given is left alone"


@pytest.mark.parametrize(
    ("imports", "phrase"),
    [
        ({"fluxperf": "/elsewhere/fluxperf/__init__.py"}, "imported from /elsewhere"),
        ({"other": "x.py"}, "expected a process that imports fluxperf"),
        (["fluxperf"], "expected a process that imports fluxperf"),
        (None, "to report its imports"),
    ],
)
def test_a_process_that_imported_something_else_is_an_error(tmp_path: Path, imports: Any, phrase: str) -> None:
    one = program(tmp_path, f'cp {tmp_path}/made.jsonl "$last"')
    write(tmp_path / "made.jsonl", replaced(twin(), commit=COMMIT))
    (tmp_path / "imports.json").write_text("no JSON" if imports is None else json.dumps(imports))
    with pytest.raises(BuildError, match=phrase):
        Processes({"base": one, "head": one}, [], tmp_path).measure("base")


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (lambda package: (package / "__init__.py").write_text("planted = 1"), "installed file differs"),
        (lambda package: (package / "__init__.py").unlink(), "it is missing"),
    ],
)
def test_an_installed_file_that_is_not_the_revisions_is_an_error(
    tmp_path: Path, change: Callable[[Path], object], phrase: str
) -> None:
    one = program(tmp_path, f'cp {tmp_path}/made.jsonl "$last"')
    write(tmp_path / "made.jsonl", replaced(twin(), commit=COMMIT))
    change(one.root / "fluxperf")
    with pytest.raises(BuildError, match=phrase):
        Processes({"base": one, "head": one}, [], tmp_path).measure("base")


def test_records_of_another_commit_are_an_error(tmp_path: Path) -> None:
    one = program(tmp_path, f'cp {tmp_path}/made.jsonl "$last"')
    write(tmp_path / "made.jsonl", replaced(twin(), commit="fedcba"))
    with pytest.raises(BuildError, match="expected records of that commit, got one of fedcba"):
        Processes({"base": one, "head": one}, [], tmp_path).measure("base")


def test_the_digests_of_a_revision_are_those_of_git_not_of_a_worktree() -> None:
    found = digests_of(ROOT, "HEAD")
    assert found["fluxperf/__init__.py"]
    assert any(name.startswith("kernels/") for name in found)
    with pytest.raises(BuildError, match="expected a commit with a folder fluxperf"):
        digests_of(ROOT, "0" * 40)


@pytest.mark.parametrize(
    ("body", "phrase"),
    [
        ("echo boom; exit 3", "expected exit code 0, got 3"),
        ("exit 0", "cannot read records"),
        ("kill -9 $$", "got 137"),
        ('printf hello > "$last"', "not JSON|incomplete"),
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
