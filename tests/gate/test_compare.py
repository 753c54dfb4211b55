"""Verdicts on records: what is compared, what is named, and that nothing passes without evidence."""

from __future__ import annotations

import math

import pytest

from fluxperf.harness.compare import compare
from fluxperf.harness.policy import Exact
from fluxperf.harness.records import LedgerRow, Record
from fluxperf.harness.verdict import EXIT_CODES, REASONS, Row, conclude
from tests.gate.sides import both, policy, replaced, timed, twin, with_totals
from tests.report.pages import H100, workload


def rows(base: list[Record], head: list[Record], **options: object) -> list[Row]:
    return compare(base, head, policy(), **options).rows  # type: ignore[arg-type]


def outcome(found: list[Row]) -> str:
    return conclude(found, base="a", head="b", made=("2026-07-26T12:00:00+00:00", "0")).outcome


def one(found: list[Row], metric: str) -> Row:
    return next(row for row in found if row.metric == metric)


@pytest.mark.parametrize(
    ("change", "verdict", "result"), [(0.0, "SAME", "pass"), (0.05, "SLOWER", "regression"), (-0.05, "FASTER", "pass")]
)
def test_times_by_pairs(change: float, verdict: str, result: str) -> None:
    base, head = both(change=change)
    found = rows([base], [head])
    row = one(found, "times.denoise")
    assert (row.verdict, outcome(found)) == (verdict, result)
    assert row.pairs == 8
    assert row.change == pytest.approx(change, abs=0.01)
    assert row.low <= row.change <= row.high  # type: ignore[operator]
    assert 0 < row.detectable < 0.05  # type: ignore[operator]
    assert row.p <= 0.02  # type: ignore[operator]


def test_processes_of_several_records_are_pairs_in_their_order() -> None:
    base, head = both(change=0.05)
    split = [[timed(side, [samples]) for samples in side.times_s["denoise"]] for side in (base, head)]
    assert one(rows(*split), "times.denoise") == one(rows([base], [head]), "times.denoise")


RULE = policy().noisy["times.denoise"]


def test_a_large_change_of_few_microseconds_is_below_the_absolute_floor() -> None:
    base, head = both(change=0.05)
    for scale, verdict in ((4e-3, "SAME"), (1.0, "SLOWER")):
        short = [timed(side, [[v * scale for v in s] for s in side.times_s["denoise"]]) for side in (base, head)]
        lenient = replaced(policy(), noisy={"times.denoise": replaced(RULE, floor_absolute=1.2e-4, same_within=0.07)})
        row = one(compare([short[0]], [short[1]], lenient).rows, "times.denoise")
        assert row.verdict == verdict


def test_five_pairs_are_too_few_and_say_so() -> None:
    base, head = both(pairs=5, change=0.5)
    found = rows([base], [head])
    assert (one(found, "times.denoise").reason, outcome(found)) == ("too_few_pairs", "unsure")
    assert "at least 6 pairs" in one(found, "times.denoise").message or "at least 7 pairs" in found[-1].message


def test_a_spread_larger_than_what_matters_is_unsure() -> None:
    base, head = both()
    wild = [[v * (1 + 0.2 * (-1) ** i) for v in s] for i, s in enumerate(head.times_s["denoise"])]
    found = rows([base], [timed(head, wild)])
    assert (one(found, "times.denoise").verdict, outcome(found)) == ("UNSURE", "unsure")


def test_a_change_that_the_calibrated_machine_shows_by_chance_is_unsure() -> None:
    base, head = both(change=0.03)
    name = "schnell-1024/fused/times.denoise"
    row = one(rows([base], [head], spreads={name: 0.04}), "times.denoise")
    assert (row.verdict, row.reason) == ("UNSURE", "within_calibration")
    assert "this machine shows" in row.message


def test_times_of_twins_are_shown_and_never_gated() -> None:
    slow = timed(twin(), [[9.0]] * 8)
    found = rows([twin()], [slow])
    assert (one(found, "times.denoise").verdict, one(found, "times.denoise").reason) == ("NOT_COMPARABLE", "twin_times")
    assert outcome(found) == "pass"


def test_an_extra_copy_is_named_by_label_and_op() -> None:
    extra = LedgerRow(direction="d2h", label="a peek", op="modulate", section="double", count=2, bytes=64)
    head = with_totals(replaced(twin(), ledger=[*twin().ledger, extra]), d2h_copies=twin().totals.d2h_copies + 2)
    found = rows([twin()], [head])
    bad = [row for row in found if row.outcome == "regression"]
    assert [row.metric for row in bad] == [
        "totals.d2h_copies",
        "ledger[d2h double modulate a peek].count",
        "ledger[d2h double modulate a peek].bytes",
    ]
    assert "'a peek' by op 'modulate' in section 'double': 0 before, 2 now (+2)" in bad[1].message
    assert outcome(found) == "regression"


def test_equality_and_at_most() -> None:
    fewer = with_totals(twin(), d2h_copies=0, op_calls=100)
    found = rows([twin()], [fewer])
    for metric, outcome in (("totals.d2h_copies", "pass"), ("totals.op_calls", "pass")):
        assert (one(found, metric).verdict, one(found, metric).outcome) == ("BETTER", outcome)


def wrong(relative: float) -> Record:
    return replaced(twin(), error=replaced(twin().error, relative=relative))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "verdict", "reason", "result"),
    [
        (1.0, "SAME", "equal", "pass"),
        (1.2, "SAME", "within_bound", "pass"),
        (1.25, "SAME", "within_bound", "pass"),
        (1.3, "WORSE", "more", "regression"),
        (0.81, "SAME", "within_bound", "pass"),
        (0.8, "SAME", "within_bound", "pass"),
        (0.79, "BETTER", "fewer", "pass"),
    ],
)
def test_rounding_within_the_slack_is_no_change_in_either_direction(
    error: float, verdict: str, reason: str, result: str
) -> None:
    row = one(rows([wrong(1.0)], [wrong(error)]), "error.relative")
    assert (row.verdict, row.reason, row.outcome) == (verdict, reason, result)


def test_an_equality_with_slack_says_its_range() -> None:
    rule = Exact(rule="equal", slack=0.25)
    lenient = replaced(policy(), exact={"error.relative": rule})
    found = [compare([wrong(1.0)], [wrong(error)], lenient).rows[0] for error in (0.9, 0.7, 1.3)]
    assert [row.outcome for row in found] == ["pass", "regression", "regression"]
    assert all("expected 0.8 to 1.25" in row.message for row in found)


def test_an_error_that_is_no_number_is_an_error() -> None:
    assert one(rows([wrong(1.0)], [wrong(math.nan)]), "error.relative").reason == "not_finite"


def test_another_implementation_is_named_by_its_row() -> None:
    head = replaced(twin(), phase_table={**twin().phase_table, "attention": "other"})
    row = one(rows([twin()], [head], against_baseline=True), "phase_table[attention]")
    assert (row.verdict, row.outcome) == ("NOT_COMPARABLE", "regression")
    assert "phase_table row 'attention': 'composed' before, 'other' now" in row.message
    assert one(rows([twin()], [head]), "phase_table[attention]").outcome == "ungated"


GPU = both()[0]


@pytest.mark.parametrize(
    ("head", "reason", "phrase"),
    [
        (replaced(GPU, machine=replaced(H100, gpu="NVIDIA A100")), "other_gpu", "NVIDIA A100"),
        (replaced(GPU, machine=replaced(H100, driver="550.1")), "other_driver", "'580' and '550'"),
        (replaced(GPU, workload=workload("schnell-1024", steps=5)), "other_workload", "workload.steps"),
        (replaced(GPU, settings={"nvtx": "on"}), "other_settings", "settings[nvtx]"),
        (replaced(GPU, ran_as="twin"), "other_ran_as", "'kernel' and 'twin'"),
    ],
    ids=["gpu", "driver", "workload", "settings", "ran_as"],
)
def test_what_may_not_be_compared_is_an_error(head: Record, reason: str, phrase: str) -> None:
    found = rows([GPU], [head])
    assert [(row.verdict, row.reason) for row in found] == [("NOT_COMPARABLE", reason)]
    assert phrase in found[0].message
    assert outcome(found) == "error"
    assert EXIT_CODES["error"] == 2


def test_machines_that_look_alike_are_distinguished_by_their_names() -> None:
    def named(name: str) -> Record:
        return replaced(GPU, machine=replaced(H100, name=name))

    for names in (("runner 7", "runner 7"), ("", "runner 7"), ("runner 7", "")):
        assert not [row for row in rows([named(names[0])], [named(names[1])]) if row.reason == "other_host"]
    (row,) = rows([named("runner 7")], [named("runner 8")])
    assert (row.reason, row.outcome) == ("other_host", "error")
    assert "machine.name: expected the same on both sides, got 'runner 7' and 'runner 8'" in row.message


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ([[0.5], [math.nan]] * 4, "not_finite"),
        ([[0.5], [math.inf]] * 4, "not_finite"),
        ([[0.5], []] * 4, "no_samples"),
        ([[0.0]] * 8, "zero_baseline"),
        ([], "missing_metric"),
    ],
    ids=["nan", "infinite", "empty", "zero", "missing"],
)
def test_samples_that_cannot_be_judged_are_an_error(times: list[list[float]], reason: str) -> None:
    found = rows([timed(GPU, times)], [GPU])
    assert one(found, "times.denoise").reason == reason
    assert (one(found, "times.denoise").verdict, outcome(found)) == ("ERROR", "error")
    assert "Measure that rung again" in one(found, "times.denoise").message
    after = "not_above_zero" if reason == "zero_baseline" else reason
    assert one(rows([GPU], [timed(GPU, times)]), "times.denoise").reason == after


def test_a_rung_or_a_total_that_one_side_lacks_is_an_error() -> None:
    other = both("fp8")[0]
    base, head = both()
    assert [row.reason for row in rows([base, other], [head]) if row.outcome == "error"] == ["missing_record"]
    assert [row.verdict for row in rows([base], [head, other]) if row.verdict != "SAME"] == ["NEW"]
    found = rows([base], [with_totals(head, launches=None)])
    assert one(found, "totals.launches").reason == "missing_metric"


def test_instrumented_times_are_not_gated_but_refused() -> None:
    ranged = replaced(GPU, settings={"nvtx": "on"})
    found = rows([ranged], [replaced(both()[1], settings={"nvtx": "on"})])
    assert (one(found, "times.denoise").reason, outcome(found)) == ("instrumented", "error")


def test_records_of_one_side_that_disagree_are_an_error() -> None:
    found = rows([GPU, with_totals(GPU, d2h_copies=3)], [GPU])
    assert [row.reason for row in found] == ["mixed_records"]
    assert "totals.d2h_copies is 0 and 3" in found[0].message
    found = rows([replaced(GPU, ops=GPU.ops[1:]), GPU], [GPU])
    assert [row.reason for row in found] == ["mixed_records"]
    assert f".count is none and {GPU.ops[0].count}" in found[0].message


@pytest.mark.parametrize(
    ("copies", "changes", "agreed"),
    [
        (1, {"trials_s": {"512 x 512": [1e-3]}}, True),
        (0, {"trials_s": {"512 x 512": [1e-3]}}, False),
        (1, {"trials_s": {"512 x 512": [1e-3]}, "trials_aside": True}, False),
        (1, {}, False),
        (0, {"choices": {"512 x 512": "candidate 3 of 8"}}, True),
    ],
    ids=["trials counted", "a warm-up before the count", "trials left out", "no trials", "other algorithms"],
)
def test_processes_whose_memory_follows_from_a_trial_can_be_compared(
    copies: int, changes: dict[str, object], agreed: bool
) -> None:
    """Otherwise no verdict on a rung with copies: its one forward has the trials in it."""
    first, second = (with_totals(GPU, h2d_copies=copies, peak_bytes=GPU.totals.peak_bytes + more) for more in (0, 64))
    found = rows([first, replaced(second, **changes)], [first])
    assert ("mixed_records" not in {row.reason for row in found}) is agreed


def test_processes_of_a_peer_may_differ_in_kernels_and_not_in_copies() -> None:
    """Nobody knows which algorithms its libraries chose, so merging and the gate allow the same."""
    peer = replaced(GPU, ran_as="peer")
    for changes, agreed in (({"launches": 7}, True), ({"syncs": 7}, False), ({"d2h_copies": 7}, False)):
        found = rows([peer, with_totals(peer, **changes)], [peer])
        assert ("mixed_records" not in {row.reason for row in found}) is agreed, changes


def test_nothing_compared_is_no_pass() -> None:
    assert outcome([]) == "error"
    assert outcome([row for row in rows([twin()], [twin()]) if row.outcome == "ungated"]) == "error"


def test_every_reason_is_explained() -> None:
    base, head = both(change=0.05)
    found = rows([base, twin()], [head, twin()])
    assert {row.reason for row in found} <= set(REASONS)
    assert len({row.id for row in found}) == len(found)


def test_four_rungs_that_are_slower_show_with_eight_pairs() -> None:
    pairs = [both(rung, change=0.05, seed=seed) for seed, rung in enumerate(("fused", "captured", "fp8", "batched"))]
    found = rows([base for base, _ in pairs], [head for _, head in pairs])
    slower = [row for row in found if row.metric == "times.denoise"]
    assert [(row.verdict, row.p) for row in slower] == [("SLOWER", 1 / 256)] * 4
