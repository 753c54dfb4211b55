"""Merging processes: samples stay separate, exact values must agree, and differences are named."""

from __future__ import annotations

from statistics import median

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxperf.harness.measure.merging import merge
from fluxperf.harness.records import ClockReading, Conditions, ErrorRow, OpRow, Record, SamplingRow
from fluxperf.harness.stats import summarize
from tests.pure.test_records import TOTALS, make

replace = msgspec.structs.replace
READING = ClockReading(at_s=0.0, sm_mhz=1980, memory_mhz=2619, power_w=700.0, temperature_c=60, reasons=["power cap"])


def process(samples: list[float], **changes) -> Record:
    times = {"denoise": [samples], "warmup": [[9.0]]}
    row = SamplingRow(stopped="count", settled=None, half_width=None)
    return replace(make("fused"), times_s=times, sampling=[row], **changes)


def test_samples_of_processes_stay_apart() -> None:
    merged = merge([process([1.0, 2.0]), process([3.0]), process([4.0, 5.0, 6.0])]).record
    assert merged is not None
    assert merged.times_s == {"denoise": [[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]], "warmup": [[9.0]] * 3}
    assert len(merged.sampling) == 3
    assert merged.conditions is None
    assert msgspec.json.decode(msgspec.json.encode(merged), type=Record) == merged


def test_cycles_clock_and_joules_stay_with_their_process() -> None:
    """A process whose window was too short has no joules: an empty list keeps the positions of the others."""
    clocked = {"cycles": {"denoise": [[3e8]]}, "clock_hz": {"denoise": [[1.5e9]]}}
    first = process([0.2], **clocked, energy_j={"denoise": [[140.0]], "step": [[35.0]]})
    second, third = process([0.2], **clocked), process([0.2], energy_j={"denoise": [[141.0]], "step": [[36.0]]})
    merged = merge([first, second, third]).record
    assert merged is not None
    assert merged.cycles == {"denoise": [[3e8], [3e8], []]}
    assert merged.clock_hz == {"denoise": [[1.5e9], [1.5e9], []]}
    assert merged.energy_j == {"denoise": [[140.0], [], [141.0]], "step": [[35.0], [], [36.0]]}
    assert merge([process([1.0])] * 2).record.cycles == {}


@given(st.lists(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5), min_size=1, max_size=6))
def test_a_merged_record_is_the_processes_and_nothing_more(groups: list[list[float]]) -> None:
    outcome = merge([process(group) for group in groups])
    assert outcome.record is not None
    assert outcome.record.times_s["denoise"] == groups
    summary = summarize(outcome.record.times_s["denoise"])
    assert summary is not None
    assert summary.median == median(map(median, groups))
    assert replace(outcome.record, times_s={}, sampling=[]) == replace(process([1.0]), times_s={}, sampling=[])


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        ({"totals": replace(TOTALS, d2h_copies=4)}, ["totals.d2h_copies: 3, 4"]),
        ({"totals": replace(TOTALS, syncs=9, d2h_bytes=1)}, ["totals.d2h_bytes: 24, 1", "totals.syncs: 3, 9"]),
        ({"totals": replace(TOTALS, peak_bytes=1)}, ["totals.peak_bytes: 1024, 1"]),
        ({"setup_totals": replace(TOTALS, h2d_copies=0)}, ["setup_totals.h2d_copies: 2, 0"]),
        ({"witness": TOTALS}, ["witness: None, none", "witness.d2h_copies: none, 3"]),
        ({"ledger": []}, ["ledger [modulate x d2h].count: 3, none", "ledger [modulate x d2h].bytes: 24, none"]),
        ({"blocks": []}, ["blocks [double 0].d2h_copies: 1, none"]),
        ({"rung": "fp8"}, ["rung: fused, fp8"]),
        ({"commit": "b" * 40}, [f"commit: {'a' * 40}, {'b' * 40}"]),
        ({"machine": replace(make("fused").machine, gpu="B300")}, ["machine.gpu: None, B300"]),
        ({"phase_table": {"linear": "tiled"}}, ["phase_table.linear: laid_out, tiled"]),
        ({"ops": [OpRow(op="linear", count=3, time_s=0.5, bytes=10, flops=20)]}, ["ops [linear].count: 2, 3"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_exact_must_agree(change: dict, rows: list[str]) -> None:
    outcome = merge([process([1.0]), process([1.0], **change)])
    assert outcome.record is None
    assert outcome.notes == []
    assert set(rows) <= set(outcome.differences)


def test_many_differences_are_cut_with_their_number() -> None:
    rows = [replace(make("fused").ledger[0], label=f"row {number}") for number in range(30)]
    outcome = merge([process([1.0]), process([1.0], ledger=rows)])
    assert len(outcome.differences) == 13
    assert outcome.differences[-1] == "and 50 rows more"


def test_noisy_numbers_may_differ() -> None:
    def one(error: float, seconds: float, at: str) -> Record:
        ops = [OpRow(op="linear", count=2, time_s=seconds, bytes=10, flops=20)]
        return process([1.0], error=ErrorRow(relative=error, against="oracle"), ops=ops, created_utc=at)

    merged = merge([one(1e-3, 0.5, "first"), one(3e-3, 0.1, "second"), one(2e-3, 0.2, "third")]).record
    assert merged is not None
    assert merged.error == ErrorRow(relative=3e-3, against="oracle"), "the largest"
    assert merged.ops[0].time_s == 0.2
    assert merged.created_utc == "first"


def test_a_pool_of_a_gpu_may_have_a_little_more_in_one_process() -> None:
    """512 bytes of 24.5 GB, as between two processes of `captured` on an H100; more than one percent is an error."""

    def one(peak: int, ran_as: str = "kernel") -> Record:
        return replace(make("captured"), ran_as=ran_as, totals=replace(TOTALS, peak_bytes=peak))

    peaks = (24529657856, 24529658368)
    found = merge([one(peak) for peak in peaks])
    assert found.notes == ["totals.peak_bytes: 24529657856, 24529658368"]
    assert found.record is not None
    assert found.record.totals.peak_bytes == peaks[1]
    assert merge([one(100), one(102)]).record is None
    assert merge([one(peak, "twin") for peak in peaks]).record is None


def test_another_choice_of_a_library_may_move_peak_and_kernels_and_is_kept() -> None:
    def one(choice: str, kernels: int, peak: int) -> Record:
        totals = replace(TOTALS, launches=5, peak_bytes=peak)
        return process([1.0], totals=totals, witness=replace(TOTALS, launches=kernels), choices={"512 x 512": choice})

    same = merge([one("candidate 1 of 8", 6, 100), one("candidate 1 of 8", 7, 100)])
    assert same.differences == ["witness.launches: 6, 7"], "the same choice explains no difference"
    other = merge([one("candidate 1 of 8", 6, 200), one("candidate 4 of 8", 7, 100)])
    assert other.notes == ["totals.peak_bytes: 200, 100", "witness.launches: 6, 7"]
    assert other.record is not None
    assert other.record.witness is not None
    assert (other.record.witness.launches, other.record.totals.peak_bytes) == (7, 200)
    assert other.record.choices == {"512 x 512": "candidate 1 of 8; candidate 4 of 8"}


def test_a_trial_that_was_counted_explains_another_number_of_kernels() -> None:
    """Two baselines on H200s had 7250 and 7238 kernels: candidates that are slow are dropped from a trial early."""

    def one(kernels: int, **changes: object) -> Record:
        return process([1.0], witness=replace(TOTALS, launches=kernels), trials_s={"512 x 512": [1e-3]}, **changes)

    found = merge([one(7250), one(7238)])
    assert found.notes == ["witness.launches: 7250, 7238"]
    assert found.record is not None
    assert found.record.witness is not None
    assert found.record.witness.launches == 7250
    none = replace(TOTALS, h2d_copies=0, d2h_copies=0)
    sealed = merge([one(kernels, totals=none) for kernels in (7250, 7238)])
    assert sealed.differences == ["witness.launches: 7250, 7238"], (
        "without copies a warm-up precedes the counted forward"
    )
    aside = merge([one(kernels, trials_aside=True) for kernels in (7250, 7238)])
    assert aside.differences == ["witness.launches: 7250, 7238"], "newer records have no trials in their counts"


def test_a_trial_that_was_counted_explains_waits_and_a_choice_does_not() -> None:
    """The second of two baselines on an H200 found most choices of the first, and so waited 4358 and not 4708 times."""

    def one(kernels: int, waits: int, **changes: object) -> Record:
        return process([1.0], witness=replace(TOTALS, launches=kernels, syncs=waits), **changes)

    tried = {"trials_s": {"512 x 512": [1e-3]}}
    found = merge([one(5898, 4358, **tried), one(7583, 4708, **tried)])
    assert found.notes == ["witness.launches: 5898, 7583", "witness.syncs: 4358, 4708"]
    assert found.record is not None
    assert found.record.witness is not None
    assert (found.record.witness.launches, found.record.witness.syncs) == (7583, 4708)
    aside = [one(1, waits, trials_aside=True, **tried) for waits in (4708, 4358)]
    assert merge(aside).differences == ["witness.syncs: 4708, 4358"]
    chosen = [one(1, waits, choices={"512 x 512": f"candidate {waits} of 9000"}) for waits in (4708, 4358)]
    assert merge(chosen).differences == ["witness.syncs: 4708, 4358"], "algorithms do not wait"
    own = [replace(one(1, 1, **tried), totals=replace(TOTALS, syncs=number)) for number in (5, 6)]
    assert merge(own).differences == ["totals.syncs: 5, 6"], "trials are no part of the ledger"


def test_own_launches_never_follow_from_a_choice() -> None:
    records = [
        process([1.0], totals=replace(TOTALS, launches=number), choices={"x": f"candidate {number} of 9"})
        for number in (5, 6)
    ]
    assert merge(records).differences == ["totals.launches: 5, 6"]


def test_kernels_of_a_peer_may_differ_its_copies_not() -> None:
    def one(kernels: int, copies: int) -> Record:
        return process([1.0], ran_as="peer", totals=replace(TOTALS, launches=kernels, d2h_copies=copies))

    assert merge([one(5, 0), one(6, 0)]).notes == ["totals.launches: 5, 6"]
    assert merge([one(5, 0), one(6, 1)]).record is None


def test_conditions_have_a_row_for_each_process() -> None:
    read = Conditions(readings=[READING], power_limit_w=700.0)
    merged = merge([process([1.0], conditions=[read]), process([1.0])]).record
    assert merged is not None
    assert merged.conditions == [read, Conditions(readings=[])]
