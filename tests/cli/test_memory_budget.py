"""A memory budget as a user sees it: messages, record fields, and separation from other runs."""

from __future__ import annotations

import re

import msgspec
import pytest

from fluxperf.harness.columns import points_of
from fluxperf.harness.compare import compare, record_place
from fluxperf.harness.facts.commands import commands, run_command
from fluxperf.harness.facts.study import survey
from fluxperf.harness.policy import read_policy
from fluxperf.harness.records import read_records
from tests.contracts.tree import ROOT
from tests.report.pages import CONTEXT

QUICK = ("--device", "host", "--repeat", "1", "--warmup", "0", "--steps", "1")


@pytest.fixture
def pair(fluxperf, tmp_path):
    """A record within a budget and one without, of the same rung."""
    path = tmp_path / "records.jsonl"
    results = [fluxperf("run", "--rung", "fp8", *QUICK, *more, "-o", path) for more in (("--memory-gb", "0.0008"), ())]
    assert [result.code for result in results] == [0, 0], results
    return results, read_records(path)


def test_a_run_says_what_stays_and_what_is_streamed(pair):
    (within, without), _ = pair
    assert re.search(
        r"memory budget of 0\.0008 GB: 0\.\d MB of weights stay, 0\.\d MB \(\d of 6 half or single blocks\) are "
        r"streamed in each step through \d slots, 0\.\d MB are left as work memory",
        within.err,
    )
    assert "in 0.0008 GB" in within.out
    assert "memory budget" not in without.err
    assert "0.0008" not in without.out


def test_a_record_within_a_budget_says_so_and_is_compared_with_no_other(pair):
    _, found = pair
    within, without = found.records
    assert within.settings["memory_gb"] == "0.0008"
    assert "memory_gb" not in without.settings
    assert within.totals.h2d_bytes == int(within.policy["streamed_bytes_per_step"]) > 0
    assert {row.label.split(".")[0] for row in within.ledger} == {"stream"}
    assert within.totals.d2h_copies == without.totals.h2d_copies == 0
    assert within.error == without.error
    assert within.totals.peak_bytes < without.totals.peak_bytes

    assert record_place(within) != record_place(without)
    rows = compare([without], [within], read_policy(ROOT / "reports" / "policy.toml")).rows
    assert {(row.rung, row.reason) for row in rows} == {
        ("fp8", "missing_record"),
        ("fp8 in 0.0008 GB", "new"),
    }
    keys = [{point.key for point in points_of(record)} for record in (within, without)]
    assert not keys[0] & keys[1]
    wider = msgspec.structs.replace(within, settings={**within.settings, "memory_gb": "0.0009"})
    assert record_place(wider) != record_place(within)


def test_a_report_does_not_take_it_for_the_rung(pair):
    _, found = pair
    (ladder,) = survey([found], CONTEXT).ladders
    assert ladder.at("fp8") == found.records[1]
    assert [rung.name for rung in ladder.measured if rung.info is None] == ["fp8 in 0.0008 GB"]
    ways = [run_command(ladder, budget=budget) for budget in (None, "0.0008")]
    assert ["--memory-gb" in way for way in ways] == [False, True]
    assert "--rung fp8 --repeat 1 --memory-gb 0.0008 " in ways[1]
    assert [way in commands(survey([found], CONTEXT), "ladder") for way in ways] == [True, True]


def test_processes_are_given_the_budget(fluxperf, tmp_path):
    path = tmp_path / "records.jsonl"
    result = fluxperf("run", "--rung", "fp8", *QUICK, "--memory-gb", "0.0008", "--processes", "2", "-o", path)
    assert result.code == 0, result.err
    (record,) = read_records(path).records
    assert record.settings["memory_gb"] == "0.0008"
    assert len(record.times_s["denoise"]) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--rung", "fp8", "--memory-gb", "0.0001"), "budget of 0.0001 GB: expected at least 0.0007 GB"),
        *(
            (("--memory-gb", size), f"memory budget of {size} GB: expected a number above 0, in 10^9 bytes, such as")
            for size in ("0", "-1", "nan", "inf")
        ),
        (("--memory-gb", "1"), "expected the rungs to which it applies, got none. Name each with --rung"),
        (("--rung", "baseline", "--memory-gb", "1"), "makes no copies of its own, got 'baseline'"),
        (("--rung", "fp8", "--memory-gb", "1", "--peer", "diffusers"), "expected no peer"),
        (("--rung", "fp8", "--memory-gb", "1", "--end-to-end"), "expected a run from latents to latents"),
    ],
)
def test_budgets_that_cannot_be(fluxperf, tmp_path, options, says):
    path = tmp_path / "records.jsonl"
    result = fluxperf("run", *QUICK, *options, "-o", path)
    assert result.code == 2
    assert says in " ".join(result.err.split())
    assert not path.exists()


def test_generate_refuses_such_a_budget_before_it_looks_for_a_model(fluxperf, tmp_path):
    result = fluxperf("generate", "a fox", "--model", tmp_path / "none", "--memory-gb", "0")
    assert result.code == 2
    assert "memory budget of 0 GB: expected a number above 0" in " ".join(result.err.split())
