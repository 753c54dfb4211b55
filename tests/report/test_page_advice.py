"""The page's advice: performance claims only with figures, and nothing that figures do not support."""

# The page writes ranges with an en dash and ratios with a multiplication sign.
# ruff: noqa: RUF001

from __future__ import annotations

import msgspec
import pytest

from fluxperf.harness.facts.advice import next_steps
from fluxperf.harness.facts.bands import narrowed
from fluxperf.harness.facts.inputs import NOTHING, Extras
from fluxperf.harness.facts.rates import beyond_step
from fluxperf.harness.facts.study import survey
from fluxperf.harness.significance import detectable
from tests.report import evidence
from tests.report.pages import CONTEXT, files_of, make, on_gpu, twins
from tests.report.parts import page_of
from tests.report.test_page_evidence import page_with


def test_what_is_fast():
    text = page_with(Extras(ceilings=evidence.CEILINGS), *evidence.ladder(), *evidence.peers()).sections["summary"]
    assert (
        "faster than diffusers (1.46×, interval) and diffusers-compiled (1.13×, interval), measured under the same "
        "conditions" in text
    )
    assert "Strengths" not in page_with(NOTHING, *twins()).sections["summary"], "nothing is fast on a CPU"


def test_what_is_slow_and_what_to_do_next():
    ladder = [record for record in evidence.ladder() if record.rung != "captured"]
    slow = msgspec.structs.replace(on_gpu("fp8", 9.0), ops=ladder[-1].ops, policy={"activations": "float32"})
    text = page_with(Extras(ceilings=evidence.CEILINGS), *ladder[:-1], slow, *evidence.peers()).sections["summary"]
    assert "slower than these peers, measured under the same conditions: diffusers" in text
    assert "more than was expected: Phase 3" not in text
    assert "measure captured." in text
    assert "--rung captured" in text
    assert "Optimize" in text
    single = page_with(NOTHING, *[on_gpu(rung, 5.0, times=[[5.0]]) for rung in ("baseline", "fused")])
    assert "ran in fewer than 3 processes" in single.sections["summary"]


def test_rungs_of_several_commits_are_to_be_measured_of_one():
    mixed = [*evidence.ladder()[:-1], msgspec.structs.replace(evidence.ladder()[-1], commit="b" * 40)]
    steps = {step.command: step.text for step in next_steps(survey(files_of(*mixed), CONTEXT))}
    command = "fluxperf evidence headline -o DIR --budget 600"
    assert "the rungs come from 2 commits. Measure all of them at one commit" in steps[command]
    assert command not in {step.command for step in next_steps(survey(files_of(*evidence.ladder()), CONTEXT))}


def over_the_step(record):
    """A record whose ops take three times as long as a step."""
    return msgspec.structs.replace(record, ops=[msgspec.structs.replace(row, time_s=1.0) for row in record.ops])


def test_ops_that_add_up_to_more_than_a_step_get_no_share_of_a_ceiling():
    whole = evidence.ladder()
    page = page_with(Extras(ceilings=evidence.CEILINGS), *whole)
    assert "Share of ceiling" in page.sections["ops"]
    assert "Optimize" in page.sections["summary"]
    page = page_with(Extras(ceilings=evidence.CEILINGS), *whole[:-1], over_the_step(whole[-1]))
    assert "Share of ceiling" not in page.sections["ops"]
    reason = "its ops, timed one by one, add up to 3.00 s, a step takes"
    assert f"No share of a ceiling: {reason}" in page.sections["ops"].replace("\xa0", " ")
    summary = page.sections["summary"].replace("\xa0", " ")
    assert reason in summary
    assert "No weakness found: no peer is faster" in summary, "of ops nothing is known"
    assert "Ops are not judged" in summary
    assert "fluxperf profile --workload schnell-1024 --rung fp8 -o profiles/step" in summary
    for gone in ("Optimize", "would take up to", "of its ceiling", "near their ceilings"):
        assert gone not in summary


def test_ops_may_exceed_a_step_by_what_single_times_vary():
    record = on_gpu("fused", 4.0, times=[[4.0]])
    for seconds, beyond in ((1.015, False), (1.03, True)):
        row = msgspec.structs.replace(record.ops[0], time_s=seconds)
        assert (beyond_step(msgspec.structs.replace(record, ops=[row])) is not None) == beyond
    assert beyond_step(msgspec.structs.replace(record, times_s={})) is None, "without a step nothing is exceeded"
    assert beyond_step(None) is None


def calibration_of(**changes):
    """A calibration whose rows are changed."""
    found = evidence.calibration()
    rows = {name: msgspec.structs.replace(row, **changes) for name, row in found.rows.items()}
    return Extras(calibrations=[msgspec.structs.replace(found, rows=rows)])


@pytest.mark.parametrize(
    ("changes", "says", "command"),
    [
        ({"spread": 0.01, "detectable": 0.06, "pairs": 6}, "pairs would detect 3.0 %.", "--rung fp8 --pairs "),
        (
            {"spread": 0.05, "detectable": 0.12},
            "8 pairs detect no change below 12.0 % (A/A spread 5.0 %), and more pairs alone cannot detect 3.0 %",
            "--rung fp8 --pairs 8 --repeat 15 --warmup 3",
        ),
        ({"spread": 0.01, "detectable": None, "pairs": 5}, "5 pairs detect no change (A/A", "--rung fp8 --pairs "),
    ],
)
def test_a_band_that_is_too_wide_says_what_narrows_it(changes, says, command):
    page = page_with(calibration_of(**changes), *evidence.ladder())
    for anchor in ("summary", "samples"):
        text = page.sections[anchor].replace("\xa0", " ")
        assert says in text
        assert f"fluxperf gate calibrate --workload schnell-1024 {command}" in text


def test_the_pairs_that_are_advised_show_it_and_one_less_does_not():
    known = next(iter(calibration_of(spread=0.01, detectable=0.06, pairs=6).calibrations[0].rows.values()))
    (ladder,) = survey(files_of(*evidence.ladder()), CONTEXT).ladders
    advice = narrowed(ladder, "fp8", known)
    assert advice is not None
    pairs = int(advice.command.rpartition(" ")[2])
    shown = [detectable(known.spread, number, known.alpha, known.power, known.spread) for number in (pairs - 1, pairs)]
    assert shown[0] > 0.03 >= shown[1]
    assert narrowed(ladder, "fp8", None) is None
    assert narrowed(ladder, "fp8", msgspec.structs.replace(known, detectable=0.03)) is None


def test_records_of_an_earlier_commit_are_not_said_to_be_of_the_same():
    """Turns of two commits in one file: the ladder has the newest of each rung, the machines' table names both."""
    page = page_of(make(commit="b" * 40, created_utc="2026-01-01T00:00:00+00:00"), make())
    text = page.sections["machines"]
    assert "All records are" not in text
    said = "The newest record of each rung is from one machine, as far as they tell, and one clean commit, so rungs"
    assert f"{said} can be compared." in text
    assert "Older records are of bbbbbbbbbb." in text
