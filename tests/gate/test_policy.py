"""The policy file: thresholds in one place, errors that name keys, acceptances that leave the file
otherwise unchanged.
"""

from __future__ import annotations

import datetime
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fluxperf.errors import PolicyError, UnknownNameError
from fluxperf.harness.compare import compare
from fluxperf.harness.metrics import exact_names
from fluxperf.harness.policy import Accepted, Declared, accept, read_policy
from fluxperf.harness.verdict import Row
from tests.gate.sides import POLICY_FILE, both, drawn, replaced, timed, twin, with_totals
from tests.report.pages import on_gpu

TEXT = POLICY_FILE.read_text(encoding="utf-8")
TODAY = datetime.datetime.now(datetime.UTC).date()
DAY, LATER = TODAY, TODAY + datetime.timedelta(days=9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_the_committed_policy_names_existing_metrics_only() -> None:
    found = read_policy(POLICY_FILE)
    assert set(found.exact) <= set(exact_names())
    assert {name for name in found.noisy if name.count(".") == 1} == {
        "times.denoise",
        "times.step",
        "times.call",
        "cycles.denoise",
        "cycles.step",
        "energy.denoise",
        "energy.step",
    }
    assert found.pairs.alpha == 0.02
    assert found.pairs.looks(found.pairs.first) == 3


@pytest.mark.parametrize(
    ("old", "new", "phrases"),
    [
        ("fewest = 6", "fewset = 6", ("fewset", "Known there: alpha, power, confidence, fewest")),
        ("schema = 1", "schema = 2", ("expected schema 1, got 2",)),
        ("schema = 1", "shema = 1", ("shema", "Known there: schema, pairs, noisy")),
        ("fewest = 6", "fewest = 5", ("5 pairs can never reach alpha 0.02", "fewest >= 6")),
        ("first = 8", "first = 48", ("fewest <= first <= most",)),
        ("alpha = 0.02", "alpha = 2", ("pairs.alpha",)),
        ("margin = 0.005", "margin = 0.5", ("margin <= floor_relative <= same_within",)),
        ('[noisy."times.step"]', '[noisy."time.step"]', ("times_s", "times.denoise")),
        ("margin = 0.005", 'margin = 0.005\nworse = "more"', ("noisy",)),
        ("margin = 0.005", 'margin = 0.005\nworse = "lower"', ("expected worse = 'higher'",)),
        ("same_within = 0.03", "same_within = 0.6", ("same_within <= 0.5", "gate nothing")),
        ("slack = 0.25", "slack = 1e999", ("slack <= 0.5, got inf", "gate nothing")),
        ("slack = 0.25", "slack = 0.6", ("slack <= 0.5",)),
        ("floor_absolute = 0.0001", "floor_absolute = inf", ("finite floor_absolute, got inf", "gate nothing")),
        ("schema = 1", "schema = = 1", ("expected TOML",)),
        ('ledger = { rule = "at_most" }', 'ledger = { rul = "equal" }', ("rul", "Known there: rule, slack, against")),
    ],
)
def test_what_means_nothing_is_refused(path: Path, old: str, new: str, phrases: tuple[str, ...]) -> None:
    assert old in TEXT
    path.write_text(TEXT.replace(old, new), encoding="utf-8")
    with pytest.raises(PolicyError) as caught:
        read_policy(path)
    for phrase in (*phrases, str(path)):
        assert phrase in str(caught.value), str(caught.value)


def test_unknown_metric_lists_the_known(path: Path) -> None:
    path.write_text(TEXT.replace('"totals.syncs"', '"totals.sync"'), encoding="utf-8")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'totals\.syncs'"):
        read_policy(path)


def test_a_policy_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="--policy"):
        read_policy(tmp_path / "none.toml")


def test_accepting_adds_to_the_end_and_changes_nothing_else(path: Path) -> None:
    for metric, bound in (("tiny/fused/totals.syncs", 3.0), ("tiny/fused/ledger[d2h double x 'y\"z'].count", 2.0)):
        accept(path, Accepted(metric=metric, reason='it "is"\nworth it', author="A. Uthor", date=DAY, up_to=bound))
    text = path.read_text(encoding="utf-8")
    assert text.startswith(TEXT)
    found = read_policy(path)
    assert found.accepted[1].metric == "tiny/fused/ledger[d2h double x 'y\"z'].count"
    assert found.accepted[0] == Accepted(
        metric="tiny/fused/totals.syncs", reason='it "is"\nworth it', author="A. Uthor", date=DAY, up_to=3.0
    )
    assert list(path.parent.iterdir()) == [path], "no half-written file is left"


@pytest.mark.parametrize("metric", ["totals.syncs", "tiny/totals.syncs", "//totals.syncs"])
def test_accepting_needs_the_whole_name(path: Path, metric: str) -> None:
    row = Accepted(metric=metric, reason="r", author="a", date=DAY)
    with pytest.raises(PolicyError, match="workload/rung/metric"):
        accept(path, row)
    with pytest.raises(UnknownNameError, match=r"Use one of: times\.denoise"):
        accept(path, Accepted(metric="tiny/fused/nonsense", reason="r", author="a", date=DAY))
    assert path.read_text(encoding="utf-8") == TEXT


@pytest.mark.parametrize(
    ("metric", "needed"),
    [
        ("tiny/fused/times.denoise", {"base": 0.5, "up_to": 1.1}),
        ("tiny/fused/cycles.step", {"base": 1e6, "up_to": 1.1}),
        ("tiny/fused/times.denoise.mean", {"base": 0.5, "up_to": 1.1}),
        ("tiny/fused/times.denoise.slow", {"up_to": 0.2}),
        ("tiny/fused/totals.syncs", {"up_to": 3.0}),
        ("tiny/fused/ops[double  attention].count", {"up_to": 3.0}),
        ("tiny/fused/phase_table[attention]", {}),
        ("judge/policy", {"digest": "12ab"}),
    ],
)
def test_an_acceptance_has_what_the_gate_asks_of_its_metric_and_nothing_else(
    path: Path, metric: str, needed: dict[str, Any]
) -> None:
    """A command must not say "is accepted" of something that the gate then refuses."""
    every = {"base": 0.5, "up_to": 1.1, "digest": "12ab"}
    subsets = (set(names) for number in range(4) for names in combinations(every, number))
    for names in subsets:
        given = {name: needed.get(name, every[name]) for name in names}
        row = Accepted(metric=metric, reason="r", author="a", date=DAY, **given)
        if names == set(needed):
            accept(path, row)
            assert read_policy(path).accepted == [row]
            path.write_text(TEXT, encoding="utf-8")
        else:
            with pytest.raises(PolicyError, match=rf"^gate accept {re.escape(metric)}: expected .*, got .*") as caught:
                accept(path, row)
            assert all(f"--{name.replace('_', '-')}" in str(caught.value).partition(", got ")[0] for name in needed)
            assert path.read_text(encoding="utf-8") == TEXT


def test_a_name_that_is_accepted_passes_without_a_bound(path: Path) -> None:
    base, head = twin(), twin()
    head = replaced(head, phase_table={**head.phase_table, "attention": "another"})

    def outcome() -> str:
        rows = compare([base], [head], read_policy(path), against_baseline=True).rows
        return next(row.outcome for row in rows if row.metric == "phase_table[attention]")

    assert outcome() == "regression"
    accept(path, Accepted(metric="tiny/baseline/phase_table[attention]", reason="r", author="a", date=DAY))
    assert outcome() == "pass"


def test_an_accepted_regression_passes_up_to_its_bound(path: Path) -> None:
    accept(
        path, Accepted(metric="tiny/baseline/totals.syncs", reason="why", author="who", date=DAY, until=LATER, up_to=70)
    )
    accept(
        path,
        Accepted(
            metric="schnell-1024/fused/times.denoise",
            reason="why",
            author="who",
            date=DAY,
            until=LATER,
            up_to=1.06,
            base=0.52,
        ),
    )
    found = read_policy(path)
    for syncs, outcome in ((70, "pass"), (71, "regression")):
        rows = compare([with_totals(twin(), syncs=60)], [with_totals(twin(), syncs=syncs)], found).rows
        row = next(row for row in rows if row.metric == "totals.syncs")
        assert (row.verdict, row.outcome) == ("WORSE", outcome)
        assert "why" in row.message
    for change, outcome in ((0.04, "pass"), (0.12, "regression")):
        base, head = both(change=change)
        row = next(row for row in compare([base], [head], found).rows if row.metric == "times.denoise")
        assert (row.verdict, row.outcome) == ("SLOWER", outcome)
    assert row.accepted == ""


def slow_processes(path: Path, slow: float, every: int) -> Row:
    """The row on slow processes of 24, if every n-th head process is slower by a factor."""
    base, head = drawn(np.random.default_rng(3), 24, level_s=20.0)
    head = [[value * (slow if index % every == 0 else 1) for value in one] for index, one in enumerate(head)]
    records = [timed(on_gpu("fused", 0.5), side) for side in (base, head)]
    rows = compare(records[:1], records[1:], read_policy(path)).rows
    return next(row for row in rows if row.metric == "times.denoise.slow")


@pytest.mark.parametrize(
    ("metric", "base", "up_to", "slow", "every", "outcome"),
    [
        # An acceptance of slower seconds is no acceptance of a share of slow processes.
        ("times.denoise", 20.0, 1.05, 1.9, 3, "regression"),
        # With a head that is as slow as accepted, all processes count as slow.
        ("times.denoise", 20.0, 1.7, 1.6, 1, "pass"),
        ("times.denoise.slow", None, 0.4, 1.9, 3, "pass"),
        ("times.denoise.slow", None, 0.2, 1.9, 3, "regression"),
    ],
)
def test_slow_processes_are_accepted_as_a_share_or_with_the_median_that_makes_them(
    path: Path, metric: str, base: float | None, up_to: float, slow: float, every: int, outcome: str
) -> None:
    assert slow_processes(path, slow, every).outcome == "regression"
    row = Accepted(metric=f"schnell-1024/fused/{metric}", reason="r", author="a", date=DAY, base=base, up_to=up_to)
    accept(path, row)
    assert slow_processes(path, slow, every).outcome == outcome


@pytest.mark.parametrize(("day", "outcome"), [(TODAY, "ungated"), (-400, "error"), (2, "error")])
@pytest.mark.parametrize("now", ["", "lean"])
def test_a_declaration_holds_from_its_day_for_a_year(day: int | datetime.date, outcome: str, now: str) -> None:
    """An old declaration would also cover a rung that was added again later."""
    date = day if isinstance(day, datetime.date) else TODAY + datetime.timedelta(days=day)
    declared = Declared(workload="schnell-1024", rung="captured", now=now, reason="r", author="a", date=date)
    policy = msgspec.structs.replace(read_policy(POLICY_FILE), declared=[declared])
    (base, head), (old, _) = both(), both("captured")
    after = [head, replaced(old, rung="lean")] if now else [head]
    (row,) = (
        row for row in compare([base, old], after, policy).rows if row.metric == "record" and row.verdict != "NEW"
    )
    assert row.outcome == outcome
    assert ("is valid only from" in row.message) == (outcome == "error")
