"""A change is judged by the base's rules: any edit of the judging code or policy is listed first, and is an error."""

from __future__ import annotations

import ast
import datetime
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fluxperf.errors import BuildError
from fluxperf.harness.judge import JUDGING, MEASURING, Judge, judge_of, merge_base
from fluxperf.harness.verdict import Row, conclude
from tests.gate.sides import POLICY_FILE, ROOT

POLICY, BASELINES = Path("reports/policy.toml"), Path("reports/baselines")
CALIBRATION = BASELINES / "calibration-a.json"
TODAY = datetime.datetime.now(datetime.UTC).date()
ACCEPTED = f'\n[[accepted]]\nmetric = "{{0}}"\nreason = "meant"\nauthor = "me"\ndate = {TODAY}\n{{1}}'


class Repository:
    """A temporary repository with a policy, a calibration and measuring code, and a branch with one change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._git("init", "-q", "-b", "main")
        for path in (CALIBRATION, BASELINES / "host.jsonl", Path("fluxperf/workloads.py"), Path("fluxperf/words.py")):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text("before\n")
        (folder / POLICY).write_bytes(POLICY_FILE.read_bytes())
        self.base = self.commit()

    def _git(self, *words: str) -> str:
        git = ["git", "-C", str(self.folder), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self) -> str:
        self._git("add", "-A")
        self._git("commit", "-qm", "x", "--allow-empty")
        return self._git("rev-parse", "HEAD")

    def judge(self) -> Judge:
        return judge_of(self.folder, self.base, self.commit(), POLICY, BASELINES)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def loosened(folder: Path) -> None:
    path = folder / POLICY
    path.write_text(path.read_text().replace("floor_relative = 0.01", "floor_relative = 0.03", 1))


def ungated(folder: Path) -> None:
    path = folder / POLICY
    path.write_text(path.read_text().replace('"totals.d2h_copies" = { rule = "at_most" }\n', ""))


ATTACKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "thresholds": (loosened, "judge/policy"),
    "a metric that is no longer gated": (ungated, "judge/policy"),
    "calibration": (lambda folder: (folder / CALIBRATION).write_text("other"), f"judge/{CALIBRATION}"),
    "no calibration": (lambda folder: (folder / CALIBRATION).unlink(), f"judge/{CALIBRATION}"),
    "a new calibration": (
        lambda folder: (folder / BASELINES / "calibration-b.json").write_text("x"),
        f"judge/{BASELINES}/calibration-b.json",
    ),
    "a file whose name is no text": (
        lambda folder: (folder / BASELINES / os.fsdecode(b"\xff\n::error::x")).write_text("x"),
        f"judge/{BASELINES}/" + os.fsdecode(b"\xff\n::error::x"),
    ),
    "a calibration that is called as counts are": (
        lambda folder: (folder / BASELINES / "calibration-host.jsonl").write_text("x"),
        f"judge/{BASELINES}/calibration-host.jsonl",
    ),
    "workloads": (
        lambda folder: (folder / "fluxperf/workloads.py").write_text("steps = 1"), "judge/fluxperf/workloads.py"
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_change_does_to_its_judge_is_an_error_and_stands_first(repository: Repository, attack: str) -> None:
    change, metric = ATTACKS[attack]
    change(repository.folder)
    found = repository.judge()
    assert [(row.metric, row.outcome) for row in found.rows] == [(metric, "error")]
    worse = Row(workload="w", rung="r", metric="m", kind="exact", verdict="WORSE", reason="more", outcome="regression",
                message="")  # fmt: skip
    verdict = conclude([worse, *found.rows], base="a", head="b", made=("2026-11-28T00:00:00+00:00", "0"))
    assert (verdict.telling[0].metric, verdict.exit_code) == (metric, 2)
    assert found.policy.noisy["times.denoise"].floor_relative == 0.01, "the old thresholds judge"
    assert "totals.d2h_copies" in found.policy.exact


def test_it_passes_where_just_that_is_accepted_and_is_shown_all_the_same(repository: Repository) -> None:
    loosened(repository.folder)
    (row,) = repository.judge().rows
    told = row.message.split("--digest ")[1].split()[0]
    path = repository.folder / POLICY
    for digest, outcomes in (("0" * 64, {"error", "ungated"}), (told, {"ungated"})):
        text = path.read_text().partition("\n[[accepted]]")[0]
        path.write_text(text + ACCEPTED.format("judge/policy", f'digest = "{digest}"\n'))
        found = repository.judge()
        assert {row.outcome for row in found.rows} == outcomes
        assert "floor_relative: 0.01 before, 0.03 now" in found.rows[0].message
        assert found.policy.noisy["times.denoise"].floor_relative == 0.01


def test_acceptances_and_declarations_of_the_change_count_and_are_shown(repository: Repository) -> None:
    path = repository.folder / POLICY
    declared = '\n[[declared]]\nworkload = "w"\nrung = "r"\nreason = "gone"\nauthor = "me"\ndate = 2026-11-01\n'
    path.write_text(path.read_text() + ACCEPTED.format("w/r/totals.syncs", "up_to = 7\n") + declared)
    found = repository.judge()
    said = [row.message for row in found.rows]
    assert said == ["accepts w/r/totals.syncs up to 7: meant (me).", "removes w/r: gone (me)."]
    assert {row.outcome for row in found.rows} == {"ungated"}
    assert (len(found.policy.accepted), len(found.policy.declared)) == (1, 1)


def test_a_change_that_leaves_its_judge_alone_has_no_row(repository: Repository) -> None:
    (repository.folder / "fluxperf/words.py").write_text("after")
    (repository.folder / BASELINES / "host.jsonl").write_text("counts, whose rows tell")
    found = repository.judge()
    assert found.rows == []
    assert found.commit == repository.base


def test_counts_that_are_a_reference_are_no_rows_of_their_own(repository: Repository) -> None:
    path = repository.folder / POLICY
    path.write_text(path.read_text() + f'\n[[reference]]\nrecords = "{BASELINES}/host.jsonl"\nbudget = 0.05\n')
    repository.base = repository.commit()
    (repository.folder / BASELINES / "host.jsonl").write_text("another fixed point")
    assert [(row.metric, row.outcome) for row in repository.judge().rows] == [
        (f"judge/{BASELINES}/host.jsonl", "error")
    ]


def test_a_base_without_a_policy_judges_nothing(repository: Repository) -> None:
    (repository.folder / POLICY).unlink()
    repository.base = repository.commit()
    (repository.folder / POLICY).write_bytes(POLICY_FILE.read_bytes())
    with pytest.raises(BuildError, match=r"expected a policy at .* found none"):
        repository.judge()


def test_the_merge_base_is_what_two_revisions_have_in_common(repository: Repository) -> None:
    head = repository.commit()
    assert merge_base(repository.folder, head, repository.base) == repository.base
    with pytest.raises(BuildError, match="git merge-base"):
        merge_base(repository.folder, "0" * 40, head)


#: Modules that judging code imports but that affect no verdict: words, a name filter, and process start.
HARMLESS = ("fluxperf/harness/facts/provenance.py", "fluxperf/harness/timeline/ledger.py", "fluxperf/harness/forked.py")


def test_all_of_the_harness_that_judges_is_shown_when_it_changes() -> None:
    """Judging code imports nothing of the harness except modules that are listed as judging or measuring."""
    known = (*JUDGING, *MEASURING, *HARMLESS)
    for name in JUDGING:
        assert (ROOT / name).exists(), f"{name} is not there any more"
    used = {
        module
        for name in JUDGING
        if name.endswith(".py")
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fluxperf.harness")
        for module in (node.module, *(f"{node.module}.{one.name}" for one in node.names))
    }
    files = {
        path for module in used if (ROOT / (path := f"{module}.py".replace(".", "/", module.count(".")))).is_file()
    }
    assert len(files) > 20
    assert sorted(file for file in files if not file.startswith(known)) == []
