"""Drift: times are compared with a fixed reference that the policy names, however small the change from the base is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fluxperf.cli.judging import references
from fluxperf.errors import BuildError, PolicyError
from fluxperf.harness.compare import Compared, Reference, compare
from fluxperf.harness.policy import Policy, parse_policy
from fluxperf.harness.records import Record, append_record
from fluxperf.harness.verdict import conclude
from tests.gate.sides import POLICY_FILE, drawn, policy, replaced, timed
from tests.gate.test_judge import Repository
from tests.report.pages import on_gpu

ENTRY = '\n[[reference]]\nrecords = "fixed.jsonl"\n{0}budget = 0.05\n'


def at_level(level: float, seed: int = 1) -> Record:
    processes, _ = drawn(np.random.default_rng(seed), 8, spread=0.002, drift=0.0, level_s=0.5 * level)
    return timed(on_gpu("fused", 0.5), processes)


def compared(level: float, reference: Record) -> Compared:
    base, head = at_level(level / 1.009, 2), at_level(level, 3)
    return compare([base], [head], policy(), fixed=[Reference("v1", 0.05, [reference])])


def outcome(found: Compared) -> str:
    return conclude(found.rows, base="", head="", made=("2026-11-28T00:00:00+00:00", "0")).outcome


@pytest.mark.parametrize(
    ("steps", "expected", "reason"), [(2, "pass", "within_budget"), (5, "pass", "within_budget"),
                                      (7, "regression", "drifted"), (20, "regression", "drifted")],
)  # fmt: skip
def test_changes_of_nine_in_a_thousand_pass_until_the_budget_is_used_up(steps: int, expected: str, reason: str) -> None:
    found = compared(1.009**steps, at_level(1.0))
    rows = [row for row in found.rows if row.metric == "times.denoise since v1"]
    assert [(row.reason, row.outcome) for row in rows] == [(reason, expected)]
    assert outcome(found) == expected
    others = [row for row in found.rows if "since" not in row.metric]
    assert all(row.outcome in ("pass", "ungated") for row in others), "each step alone is too small"
    assert not [note for note in found.notes if "reference" in note]


def spread_about(level: float, half: float) -> Record:
    return timed(on_gpu("fused", 0.5), [[0.5 * level * (1 + half * (index - 3.5) / 3.5)] * 3 for index in range(8)])


@pytest.mark.parametrize(
    ("level", "half", "expected"), [(1.06, 0.03, "unsure"), (1.06, 0.002, "regression"), (1.04, 0.03, "pass")]
)
def test_a_time_is_drifted_where_its_whole_interval_is_beyond_the_budget(
    level: float, half: float, expected: str
) -> None:
    reference = timed(on_gpu("fused", 0.5), [[0.5] * 3] * 8)
    both = [spread_about(level, half * sign) for sign in (1, -1)]
    found = compare([both[0]], [both[1]], policy(), fixed=[Reference("v1", 0.05, [reference])])
    (row,) = (row for row in found.rows if row.metric == "times.denoise since v1")
    assert row.outcome == expected
    assert row.low is not None
    assert row.high is not None
    assert (row.low < 0.05 < row.high) == (half == 0.03)


def test_what_cannot_be_held_to_a_reference_is_said() -> None:
    other = at_level(1.0)
    elsewhere = replaced(other, machine=replaced(other.machine, gpu="NVIDIA H200"))
    rung = replaced(other, rung="captured")
    for reference, phrase in ((elsewhere, "machine.gpu was NVIDIA H200"), (rung, "it has no such rung")):
        found = compared(1.2, reference)
        (note,) = [note for note in found.notes if "is not compared with the reference v1" in note]
        assert phrase in note
        assert not [row for row in found.rows if "since" in row.metric]


def test_the_budget_is_a_share_and_says_so() -> None:
    text = POLICY_FILE.read_bytes()
    named: Policy = parse_policy(text + ENTRY.format('at = "v1"\n').encode(), "p")
    assert [(row.records, row.at, row.budget) for row in named.reference] == [("fixed.jsonl", "v1", 0.05)]
    for entry in (ENTRY.format("").replace("0.05", "5"), ENTRY.format("until = 3\n")):
        with pytest.raises(PolicyError, match="reference"):
            parse_policy(text + entry.encode(), "p")
    commented = text.decode().partition("# [[reference]]")[2].splitlines()[1:4]
    entry = "\n".join(["[[reference]]", *(line.removeprefix("# ") for line in commented)])
    assert parse_policy(text + f"\n{entry}\n".encode(), "p").reference, "what the policy shows can be used"


def test_a_reference_is_read_at_the_base_or_at_its_tag_and_never_from_the_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(tmp_path / "repository")
    fixed, rules = repository.folder / "fixed.jsonl", repository.folder / "reports/policy.toml"
    for level in (1.0, 2.0):
        fixed.unlink(missing_ok=True)
        append_record(fixed, at_level(level))
        rules.write_bytes(POLICY_FILE.read_bytes() + ENTRY.format("").encode())
        repository.base = repository.commit()
        if level == 1.0:
            repository._git("tag", "v1")
    fixed.write_text("planted")
    monkeypatch.chdir(repository.folder)
    judge = repository.judge()
    assert [row.metric for row in judge.rows] == ["judge/fixed.jsonl"]
    assert judge.rows[0].outcome == "error"

    def level_of(entry: str) -> float:
        named = parse_policy(POLICY_FILE.read_bytes() + entry.encode(), "p")
        ((_, _, (record,)),) = references(named, judge.commit)
        return record.times_s["denoise"][0][0]

    assert level_of(ENTRY.format("")) == pytest.approx(1.0, rel=0.05)
    assert level_of(ENTRY.format('at = "v1"\n')) == pytest.approx(0.5, rel=0.05)
    for entry, phrase in ((ENTRY.format('at = "v9"\n'), "expected a commit, branch or tag"),
                          (ENTRY.format("").replace("fixed", "gone"), "expected that file")):  # fmt: skip
        with pytest.raises(BuildError, match=phrase):
            level_of(entry)
