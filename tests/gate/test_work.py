"""Cycles, joules and seconds together: the slope on the clock, and the word for each kind of change."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from fluxperf.harness.clock_slope import at_one_clock, slope_of
from fluxperf.harness.compare import compare
from fluxperf.harness.conditions import State, left_out
from fluxperf.harness.exact import Place
from fluxperf.harness.meaning import explained
from fluxperf.harness.noisy import judge
from fluxperf.harness.policy import Slow, read_policy
from fluxperf.harness.records import ClockReading, Conditions, EnergyRow, Record, SamplingRow
from fluxperf.harness.shares import SlowTask
from fluxperf.harness.verdict import Row
from tests.report.pages import on_gpu

POLICY = read_policy(Path(__file__).parents[2] / "reports/policy.toml")
PAIRS = 12


def processes(rng: np.random.Generator, work: float, slope: float = 0.2, clock: float = 1.41e9, joules: float = 12.5):
    """Processes of a card at its power limit: clocks spread by 0.5 %, cycles at one clock by 0.05 %."""
    clocks = clock * np.exp(rng.normal(0, 0.005, PAIRS))
    cycles = work * (clocks / 1.41e9) ** slope * np.exp(rng.normal(0, 0.0005, PAIRS))
    return cycles, clocks, joules * np.exp(rng.normal(0, 0.002, PAIRS))


def record(found, **without) -> Record:
    cycles, clocks, joules = found
    times = {"denoise": [[c / f] for c, f in zip(cycles, clocks, strict=True)]}
    told = {
        "times_s": times | {"step": [[s / 4 for s in one] for one in times["denoise"]]},
        "cycles": {"denoise": [[c] for c in cycles]},
        "clock_hz": {"denoise": [[f] for f in clocks]},
        "energy_j": {"denoise": [[j] for j in joules]},
    }
    return msgspec.structs.replace(on_gpu("captured", 0.5), conditions=None, **(told | without))


def verdicts(base: Record, head: Record) -> dict[str, tuple[str, str, str]]:
    rows = compare([base], [head], POLICY).rows
    return {row.metric: (row.verdict, row.reason, row.outcome) for row in rows if row.kind == "noisy"}


def sides(seed: int = 1, **head):
    rng = np.random.default_rng(seed)
    return processes(rng, 24.5e6), processes(rng, **({"work": 24.5e6} | head))


def test_the_slope_is_found_and_taken_out() -> None:
    (cycles, clocks, _), (more, others, _) = sides(work=24.5e6 * 1.01, clock=1.38e9)
    both = ([[c] for c in cycles], [[c] for c in more]), ([[f] for f in clocks], [[f] for f in others])
    found = at_one_clock(*both)
    assert found.slope == pytest.approx(0.2, abs=0.06)
    apart = np.log(np.median(found.head) / np.median(found.base))
    assert apart == pytest.approx(np.log(1.01), abs=1e-3), "a change of the program is no slope"
    spread = np.std(np.log(found.base))
    assert spread < 0.7 * np.std(np.log(cycles))


def test_one_odd_process_moves_the_slope_little() -> None:
    (cycles, clocks, _), (others, more, _) = sides()
    odd = cycles.copy()
    odd[3] *= 1.05
    both = [[f] for f in clocks], [[f] for f in more]
    plain, bent = (slope_of(([[c] for c in one], [[c] for c in others]), both) for one in (cycles, odd))
    assert bent == pytest.approx(plain, abs=0.1)
    middle = clocks - clocks.mean()
    least_squares = (np.log(odd) * middle).sum() / (np.log(clocks) * middle).sum()
    assert abs(least_squares - plain) > 0.5, "which least squares do not say"


@pytest.mark.parametrize("seed", range(6))
def test_processes_at_nearly_one_clock_say_little_of_the_slope(seed: int) -> None:
    rng = np.random.default_rng(seed)
    both = []
    for _ in range(2):
        clocks = 1.7e9 * np.exp(rng.normal(0, 1e-5, 8)) * np.where(np.arange(8) % 4 == 3, 1.03, 1)
        both.append(
            ([[c] for c in 2e7 * (clocks / 1.7e9) ** 0.2 * np.exp(rng.normal(0, 5e-4, 8))], [[f] for f in clocks])
        )
    assert slope_of((both[0][0], both[1][0]), (both[0][1], both[1][1])) == pytest.approx(0.2, abs=0.03)


def test_a_slope_is_between_none_and_all_and_needs_processes() -> None:
    clocks = [[1e9 * (1 + index / 100)] for index in range(8)]
    falling, steep = ([[(f[0] / 1e9) ** power * 1e8] for f in clocks] for power in (-1.0, 3.0))
    assert slope_of((falling, falling), (clocks, clocks)) == 0.0
    assert slope_of((steep, steep), (clocks, clocks)) == 1.0
    assert slope_of((steep[:3], steep[:3]), (clocks[:3], clocks[:3])) == 0.0, "three processes are too few"
    assert at_one_clock((steep, steep), ([], clocks)) == (steep, steep, 0.0), "no clock: as they are"


def test_one_percent_more_work_is_slower_although_seconds_do_not_show_it() -> None:
    base, head = sides(work=24.5e6 * 1.01)
    found = verdicts(record(base), record(head))
    assert found["cycles.denoise"] == ("SLOWER", "more_work", "regression")
    assert found["times.denoise"][0] != "FASTER"
    less = verdicts(record(head), record(base))
    assert less["cycles.denoise"] == ("FASTER", "less_work", "pass")


@pytest.mark.parametrize("seed", range(5))
def test_nothing_changed_is_same_in_cycles_and_joules(seed: int) -> None:
    found = verdicts(*map(record, sides(seed)))
    assert found["cycles.denoise"] == ("SAME", "shown_same", "pass")
    assert found["energy.denoise"] == ("SAME", "shown_same", "pass")


def turns(found, *short: int) -> list[Record]:
    """A record of each turn, as processes that stay alive write them; ``short`` turns have no joules."""
    made = []
    for number, (cycles, clock, joules) in enumerate(zip(*found, strict=True)):
        told = number not in short
        row = EnergyRow(window_s=1.07, counter_j=12.0 if told else None, integrated_j=12.0, renewals=10 if told else 9)
        one = record(([cycles], [clock], [joules]))
        one = msgspec.structs.replace(one, conditions=[Conditions(readings=[], energy=row)])
        made.append(one if told else msgspec.structs.replace(one, energy_j={}))
    return made


@pytest.mark.parametrize(("before", "after"), [((), (3,)), ((2,), (7,)), ((), ())])
def test_a_turn_that_was_too_short_for_joules_leaves_out_the_joules_and_nothing_else(before, after) -> None:
    base, head = sides()
    found = compare(turns(base, *before), turns(head, *after), POLICY)
    rows = {row.metric: row.verdict for row in found.rows if row.kind == "noisy"}
    whole = not (before or after)
    assert ("energy.denoise" in rows) == whole, "pairs of other turns are no pairs"
    assert rows["cycles.denoise"] == "SAME"
    assert not [row for row in found.rows if row.outcome == "error"]
    said = [note for note in found.notes if "joules" in note]
    number = len(before) + len(after)
    wanted = f"too rarely in {number} of 24 windows, the shortest of 1.1 s. Take more samples in each (--repeat)"
    assert len(said) == (not whole)
    assert all(note.endswith(wanted) for note in said)


def test_a_cold_pair_is_no_process_without_joules() -> None:
    """Times of a cold pair do not count, so its joules are not missing; those of a process with times are."""
    base, head = sides()
    cold = {"times_s": {}, "cycles": {}, "clock_hz": {}, "energy_j": {}, "sampling": []}
    both = [[record(one, **cold), record(one)] for one in (base, head)]
    assert not [note for note in compare(*both, POLICY).notes if "joules" in note]
    both[1].append(record(head, energy_j={}))
    (note,) = [note for note in compare(*both, POLICY).notes if "joules" in note]
    assert note.endswith(
        f"{PAIRS} of {PAIRS} processes of the base and {PAIRS} of {PAIRS + 1} processes of the head have joules"
    )


def test_joules_that_are_too_noisy_are_not_called_missing() -> None:
    base, head = sides(clock=1.38e9, joules=12.65)
    noise = np.exp(np.random.default_rng(5).normal(0, 0.02, PAIRS))
    found = verdicts(record(base), record((head[0], head[1], head[2] * noise)))
    assert (found["cycles.denoise"][0], found["energy.denoise"][0]) == ("SAME", "UNSURE")
    assert found["times.denoise"] == ("UNSURE", "noisy_joules", "unsure")


def test_more_joules_for_the_same_cycles_are_hungrier() -> None:
    base, head = sides(clock=1.33e9, joules=13.2)
    found = verdicts(record(base), record(head))
    assert found["cycles.denoise"][0] == "SAME", "a lower clock is no more work"
    assert found["energy.denoise"] == ("SLOWER", "hungrier", "regression")
    assert found["times.denoise"] == ("SLOWER", "hungrier", "regression")
    assert verdicts(record(head), record(base))["times.denoise"] == ("FASTER", "leaner", "pass")


def test_a_slower_card_is_not_the_change() -> None:
    """A hot start, or a neighbour that takes power: the same cycles and joules in more seconds."""
    base, head = sides(clock=1.33e9)
    found = verdicts(record(base), record(head))
    assert found["times.denoise"] == ("UNSURE", "card_slower", "unsure")
    assert found["times.step"] == ("SLOWER", "shown_slower", "regression"), "nobody tells the cycles of a step here"
    assert verdicts(record(head), record(base))["times.denoise"] == ("SAME", "card_quicker", "pass")


def test_without_joules_a_slower_card_may_be_a_hungrier_change() -> None:
    base, head = sides(clock=1.33e9)
    found = verdicts(record(base), record(head, energy_j={"denoise": [[12.5]] * (PAIRS - 1) + [[]]}))
    assert "energy.denoise" not in found
    assert found["times.denoise"] == ("UNSURE", "no_joules", "unsure")


def test_seconds_alone_are_judged_where_the_base_tells_no_cycles() -> None:
    nothing = {"cycles": {}, "clock_hz": {}, "energy_j": {}}
    base, head = sides(clock=1.33e9)
    for after in (record(head), record(head, **nothing)):
        found = verdicts(record(base, **nothing), after)
        assert set(found) == {"times.denoise", "times.step", "times.denoise.slow"}
        assert found["times.denoise"] == ("SLOWER", "shown_slower", "regression")


def test_a_head_that_no_longer_tells_cycles_is_an_error() -> None:
    base, head = map(record, sides())
    rows = compare([base], [msgspec.structs.replace(head, cycles={})], POLICY).rows
    assert ("cycles.denoise", "missing_metric", "error") in {(row.metric, row.reason, row.outcome) for row in rows}


def row(metric: str, verdict: str, rung: str = "captured") -> Row:
    outcome = {"SLOWER": "regression", "UNSURE": "unsure"}.get(verdict, "pass")
    return Row(
        workload="w", rung=rung, metric=metric, kind="noisy", verdict=verdict, reason="r", outcome=outcome, message="m."
    )  # type: ignore[arg-type]


def test_the_table_row_by_row() -> None:
    answers = {
        ("SLOWER", "SLOWER", "SAME"): "more_work",
        ("SLOWER", "SLOWER", "SLOWER"): "more_work",
        ("SLOWER", "SAME", "SLOWER"): "hungrier",
        ("SLOWER", "SAME", "SAME"): "card_slower",
        ("SLOWER", "SAME", "UNSURE"): "noisy_joules",
        ("SLOWER", "SAME", "FASTER"): "card_slower",
        ("SLOWER", "UNSURE", "SLOWER"): "r",
        ("SLOWER", "FASTER", "SLOWER"): "hungrier",
        ("SLOWER", "FASTER", "SAME"): "r",
        ("FASTER", "SAME", "SAME"): "card_quicker",
        ("FASTER", "FASTER", "SAME"): "less_work",
        ("FASTER", "SAME", "SLOWER"): "card_quicker",
        ("FASTER", "SAME", "UNSURE"): "r",
        ("SAME", "SAME", "SAME"): "r",
        ("UNSURE", "SAME", "SAME"): "r",
    }
    for (seconds, cycles, joules), reason in answers.items():
        told = [row("times.denoise", seconds), row("cycles.denoise", cycles), row("energy.denoise", joules)]
        found = explained([*told, row("cycles.denoise", "SLOWER", rung="another")])
        assert found[0].reason == reason, (seconds, cycles, joules)
        told = {("SAME", "SLOWER"): "hungrier", ("FASTER", "SLOWER"): "hungrier"}.get((cycles, joules), "r")
        wanted = (joules, told)
        if (seconds, cycles, joules) == ("FASTER", "SAME", "SLOWER"):
            wanted = ("UNSURE", "card_quicker")  # a higher clock takes more joules, whatever the program
        assert (found[2].verdict, found[2].reason) == wanted, (seconds, cycles, joules)


def test_rows_of_another_rung_or_metric_say_nothing() -> None:
    rows = [row("times.denoise", "SLOWER"), row("cycles.step", "SAME"), row("cycles.denoise", "SAME", rung="fp8")]
    assert explained(rows) == rows


def test_where_most_pairs_are_left_out_the_others_say_how_many_were() -> None:
    settled, not_settled = (
        State(None, SamplingRow(stopped="time", settled=word, half_width=None)) for word in (True, False)
    )
    found = left_out([settled] * 8, [not_settled] * 5 + [settled] * 3)
    assert list(found) == list(range(8))
    assert {found[index] for index in range(5)} == {"the head had not settled when its samples began"}
    assert {found[index] for index in (5, 6, 7)} == {"5 of 8 pairs are left out, so the others prove nothing"}
    assert list(left_out([settled] * 8, [not_settled] * 4 + [settled] * 4)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("reasons", "why"),
    [
        (["power cap"], ""),
        ([], "the clock was lower on the head without the power cap: 1500 and 1980 MHz"),
        (["power brake"], "the GPU was throttled on the head only: power brake (1500 MHz, 60 C)"),
        (["power cap", "sync boost"], "the GPU had a fixed clock on the head only: sync boost (1500 MHz, 60 C)"),
    ],
)
def test_only_the_power_cap_may_lower_a_clock(reasons: list[str], why: str) -> None:
    def state(mhz: int, because: list[str]) -> State:
        one = ClockReading(at_s=0, sm_mhz=mhz, memory_mhz=2619, power_w=700, temperature_c=60, reasons=because)
        return State(Conditions(readings=[one]), None)

    found = left_out([state(1980, [])] * 8, [state(1500, reasons), *[state(1980, [])] * 7])
    assert found == ({0: why} if why else {})
    turned = left_out([state(1500, reasons), *[state(1980, [])] * 7], [state(1980, [])] * 8)
    assert turned == ({0: why.replace("head", "base")} if why else {})


@pytest.mark.parametrize(("slow", "verdict"), [(1, "UNSURE"), (0, "SAME")])
def test_more_slow_processes_count_from_the_floor_on(slow: int, verdict: str) -> None:
    base = [[1.0]] * 10
    head = [[1.0]] * (10 - slow) + [[1.5]] * slow
    task = SlowTask(Place("w", "r"), "times.denoise", base, head, Slow(slower_than=1.2, floor=0.1))
    (found,) = judge([], POLICY.pairs, slow=[task])
    assert (found.verdict, found.detectable) == (verdict, 0.1)


def test_pairs_that_are_left_out_are_not_asked_for_again() -> None:
    base, head = map(turns, sides())
    wild = SamplingRow(stopped="time", settled=False, half_width=None)
    head = [msgspec.structs.replace(one, sampling=[wild]) for one in head]
    (seconds,) = (row for row in compare(base, head, POLICY).rows if row.metric == "times.denoise")
    assert (seconds.verdict, seconds.reason) == ("UNSURE", "conditions")
    assert "12 pairs left out because of the machine's state" in seconds.message
    assert "at least 6 pairs must be left" in seconds.message
    assert "take at least" not in seconds.message
