"""A/A comparisons: what they say about a machine, how they are continued, and that a false alarm is never hidden."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fluxperf.errors import BuildError, PolicyError, RecordError
from fluxperf.harness.calibration import file_of, read_calibration, store
from fluxperf.harness.comparisons import Comparisons, again, begun, continued, in_words, write
from fluxperf.harness.gate import Side
from fluxperf.harness.policy import Accepted, Policy
from fluxperf.harness.records import Record
from tests.gate.sides import Fake, policy, replaced, twin, with_totals

TODAY = datetime.datetime.now(datetime.UTC).date()
METRIC = "schnell-1024/fused/times.denoise"
COMMAND = ["run", "--workload", "schnell-1024", "--rung=fused"]


def none_yet(pairs: int = 8, by: Policy | None = None) -> Comparisons:
    return begun("schnell-1024", COMMAND, pairs, by or policy())


def made(number: int, runner: Any = None, **options: Any) -> Comparisons:
    *_, last = again(runner or Fake(), none_yet(), policy(), number, **options)
    return last


class Changed(Fake):
    """From a given process on, records come from another machine."""

    def __init__(self, at: int, **changes: Any) -> None:
        super().__init__()
        self._at, self._changes = at, changes

    def measure(self, side: Side) -> list[Record]:
        records = super().measure(side)
        if len(self.sides) <= self._at:
            return records
        return [with_totals(record, **self._changes) for record in records]


def test_twenty_comparisons_of_a_steady_machine_are_no_false_alarm() -> None:
    runner = Fake(spread=0.005)
    found = made(20, runner)
    assert len(found.comparisons) == 20
    assert found.alarms == 0
    assert runner.sides[:2] == ["base", "head"], "a warm-up"
    assert all(runner.sides[2 * n] != runner.sides[2 * n + 1] for n in range(161)), "pairs, each in a drawn order"
    assert len(runner.sides) == 2 + 20 * 16
    metric = found.metrics[METRIC]
    assert sum(metric.verdicts.values()) == 20
    assert set(metric.verdicts) <= {"SAME", "UNSURE"}
    assert (metric.calibrated.pairs, metric.calibrated.measured) == (8, 160)
    assert list(in_words(found))[-1] == "20 comparisons of 8 pairs: nothing SLOWER."


def test_a_chain_uses_each_turn_in_two_comparisons() -> None:
    runner = Fake(spread=0.005)
    wanted = begun("schnell-1024", COMMAND, 8, policy(), alive=8, chained=True)
    *_, found = again(runner, wanted, policy(), 20)
    assert len(found.comparisons) == 20
    assert found.alarms == 0
    assert len(runner.sides) == 2 + 10 * 16 + 1
    assert runner.sides == ["base", "head"] * 81 + ["base"], "neighbours are turns of other processes"
    couples = [
        {frozenset(pair) for pair in zip(one.medians[METRIC].base, one.medians[METRIC].head, strict=True)}
        for one in found.comparisons
    ]
    turns = [frozenset.union(*one) for one in couples]
    assert {len(one) for one in turns} == {16}
    assert [len(turns[n] & turns[n + 1]) for n in range(19)] == [15, 1] * 9 + [15], "halves of a chain meet in one turn"
    assert not couples[0] & couples[1], "no pair is in two comparisons"
    assert len(frozenset.union(*turns)) == 161
    assert "each turn is in two comparisons: with the turn before it and with the one after it." in list(
        in_words(found)
    )
    *_, drawn = again(Fake(change=0.5, spread=1e-4), wanted, policy(), 4)
    bases = [one.medians[METRIC].base for one in drawn.comparisons]
    assert any(max(one) > 1.4 * min(one) for one in bases), "which turn of each pair is the base is drawn"


def test_spreads_are_those_of_the_medians_that_are_kept() -> None:
    found = made(10, Fake(spread=0.01))
    logs, within = [], []
    for one in found.comparisons:
        kept = one.medians[METRIC]
        assert len(kept.base) == len(kept.head) == 8
        logs += np.log(np.array(kept.head) / np.array(kept.base)).tolist()
        within.append(np.log([*kept.base, *kept.head]).var(ddof=1))
    metric = found.metrics[METRIC]
    assert metric.calibrated.spread == pytest.approx(1.4826 * np.median(np.abs(logs)))
    assert metric.process_spread == pytest.approx(np.sqrt(np.mean(within)))
    assert metric.process_spread == pytest.approx(0.01, rel=0.2)
    assert metric.calibrated.spread == pytest.approx(0.01 * np.sqrt(2), rel=0.2)
    assert metric.calibrated.detectable is not None
    assert metric.calibrated.spread < metric.calibrated.detectable < 0.05


def test_a_side_that_is_slower_is_a_false_alarm_and_said() -> None:
    found = made(2, Fake(change=0.05))
    assert found.alarms == 2
    assert found.metrics[METRIC].verdicts == {"SLOWER": 2}
    assert "2 with a regression, a false alarm" in list(in_words(found))[-1]


def test_an_accepted_regression_is_a_false_alarm_all_the_same() -> None:
    names = (METRIC, METRIC.replace("denoise", "step"))
    accepted = tuple(
        Accepted(metric=name, reason="worth it", author="a", date=TODAY, base=0.5, up_to=9) for name in names
    )
    by = replaced(policy(), accepted=accepted)
    *_, found = again(Fake(change=0.05), none_yet(by=by), by)
    assert found.comparisons[0].outcome == "pass"
    assert found.alarms == 1


def clock(seconds: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += seconds


@pytest.mark.parametrize(("limit_s", "number"), [(None, 5), (0.0, 1), (3.0, 1), (4.9, 2), (1000.0, 5)])
def test_no_comparison_is_begun_that_would_end_too_late(limit_s: float | None, number: int) -> None:
    ticks = clock(1.0)  # asked at the start, and before and after each comparison
    found = made(5, time_limit_s=limit_s, now=lambda: next(ticks))
    assert len(found.comparisons) == number


class Metered(Fake):
    """A card that reports joules, except for one turn that is too short."""

    def __init__(self, short: int) -> None:
        super().__init__()
        self._short = short

    def measure(self, side: Side) -> list[Record]:
        (record,) = super().measure(side)
        return [replaced(record, energy_j={} if len(self.sides) == self._short else {"denoise": [[12.0]]})]


@pytest.mark.parametrize("short", [4, 40])
def test_joules_of_comparisons_are_those_of_the_turns_that_were_long_enough(short: int) -> None:
    found = made(3, Metered(short))
    joules = METRIC.replace("times", "energy")
    assert [joules in one.medians for one in found.comparisons] == [short != 4, True, short != 40]
    assert found.metrics[joules].calibrated.measured == 16
    assert found.metrics[METRIC].calibrated.measured == 24


def test_a_file_is_continued_by_what_is_asked_alike_and_by_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "aa.json"
    assert continued(path, none_yet()) == none_yet()
    write(path, made(2))
    before = continued(path, none_yet())
    assert len(before.comparisons) == 2
    with pytest.raises(RecordError, match="chained"):
        continued(path, msgspec.structs.replace(none_yet(), chained=True))
    *_, after = again(Fake(), before, policy(), 1)
    assert after.comparisons[:2] == before.comparisons
    assert after.metrics[METRIC].calibrated.measured == 24
    for other, what in (
        (none_yet(6), "pairs 6, but those in the file have 8"),
        (begun("x", ["run"], 8, policy()), "command"),
    ):
        with pytest.raises(RecordError, match=f"{what}.*Choose another file"):
            continued(path, other)
    rules = {name: replaced(rule, margin=0.0) for name, rule in policy().noisy.items()}
    with pytest.raises(RecordError, match=r"comparisons with noisy .* Choose another file"):
        continued(path, none_yet(by=replaced(policy(), noisy=rules)))
    with pytest.raises(RecordError, match=r"nvidia-h100.*expected the same machine.*twin"):
        next(again(Twin(), before, policy()))


class Twin(Fake):
    """The host device's own twin."""

    def measure(self, side: Side) -> list[Record]:
        return [twin()]


@pytest.mark.parametrize("content", [b"", b"{}", b'{"schema": 1}', b"\xff"])
def test_a_file_of_something_else_is_refused_and_left(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "aa.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match="gate calibrate -o"):
        continued(path, none_yet())
    assert path.read_bytes() == content


def test_sides_that_differ_are_refused_and_what_was_finished_is_kept() -> None:
    runs = again(Changed(at=18 + 5, d2h_copies=7), none_yet(), policy(), 3)
    assert len(next(runs).comparisons) == 1
    with pytest.raises(RecordError, match="to agree"):
        next(runs)


def test_a_process_that_fails_ends_it() -> None:
    class Failing(Fake):
        def measure(self, side: Side) -> list[Record]:
            if len(self.sides) == 4:
                raise BuildError("measuring head: exit code 1")
            return super().measure(side)

    with pytest.raises(BuildError, match="exit code 1"):
        made(1, Failing())


def test_the_spread_is_stored_for_its_kind_of_machine(tmp_path: Path) -> None:
    rows = {name: metric.calibrated for name, metric in made(2, Fake(spread=0.01)).metrics.items()}
    record = Fake().measure("base")[0]
    path = file_of(tmp_path, record)
    assert path.name == "calibration-nvidia-h100-80gb-hbm3-driver-580.json"
    assert path.name == f"calibration-{made(1).machine}.json"
    store(path, "nvidia-h100-80gb-hbm3-driver-580", rows)
    store(path, "nvidia-h100-80gb-hbm3-driver-580", {"another/rung/times.step": rows[METRIC]})
    found = read_calibration(path)
    assert found is not None
    assert set(found.rows) == {*rows, "another/rung/times.step"}
    assert found.rows[METRIC] == rows[METRIC]
    assert read_calibration(tmp_path / "none.json") is None
    path.write_text(path.read_text()[:100])
    with pytest.raises(PolicyError, match="calibrate again"):
        read_calibration(path)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    found = made(1)
    write(tmp_path / "aa.json", found)
    assert msgspec.json.decode((tmp_path / "aa.json").read_bytes(), type=Comparisons) == found
