"""Processes that stay alive: how they take turns, start and end, and what conclusions few of them allow."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from fluxperf import lifeline
from fluxperf.cli.alive import began_with, begins_with
from fluxperf.errors import BuildError, ConfigError, NoGpuError, RecordError
from fluxperf.harness.alive import SIDES, Alive, Begun, Turn, explains
from fluxperf.harness.comparisons import again, begun, in_words
from fluxperf.harness.exact import Place
from fluxperf.harness.gate import Side, gate_pairs
from fluxperf.harness.meaning import explained
from fluxperf.harness.measure.sampling import Sampling
from fluxperf.harness.noisy import Task, judge
from fluxperf.harness.records import Record, SamplingRow
from fluxperf.harness.verdict import Row
from fluxperf.lifeline import DONE, READY
from fluxperf.turns import Turns, serve
from fluxperf.workloads import prepare, workload_named
from tests.gate.sides import Fake, policy, replaced, timed
from tests.report.pages import on_gpu

POLICY = policy()

#: Replaces fluxperf: writes a record for every line, with the line and its process id.
WORKER = f"""
import json, os, sys, time
place, made = sys.argv[1:]
row = json.loads(made)
if row["rung"] == "broken":
    sys.exit("it does not begin")
print("something else")
print({READY!r}, flush=True)
for line in sys.stdin:
    if line == "13\\n":
        sys.exit("it has had enough")
    if line == "12\\n":
        os.kill(os.getpid(), 9)
    if line == "14\\n":
        print("x" * 200_000, flush=True)
        time.sleep(60)
    if line == "15\\n" and os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open(place + ".left", "w") as file:
                print(os.getpid(), file=file)
            time.sleep(60)
        os._exit(0)
    if line == "16\\n":
        with open(place, "a") as file:
            print(json.dumps(row), file=file)
    if line == "17\\n":
        open(place, "w").write(open(place).read().replace("other", "another"))
    if line == "18\\n":
        row["times_s"] = {{"denoise": [[0.1] * 3]}}
    if line == "19\\n":
        time.sleep(0.2)
    row["settings"] = {{"planted": line.strip(), "process": str(os.getpid())}}
    with open(place, "a") as file:
        print(json.dumps(row), file=file)
    print({DONE!r}, flush=True)
"""


class Programs:
    """Starts workers, and records which were checked."""

    def __init__(self, folder: Path, rung: str = "fused") -> None:
        self.folder, self.begun, self.checks = folder, [], []
        self._record = msgspec.json.encode(replaced(on_gpu("fused", 1e-4), rung=rung)).decode()

    def begin(self, side: Side, options: Sequence[str]) -> Begun:
        assert options == ["--in-turns"]
        self.begun.append(side)
        output = self.folder / f"{len(self.begun)}.jsonl"
        command = [sys.executable, "-ISs", "-c", WORKER, str(output), self._record]
        return Begun(command, dict(os.environ), self.folder, output, output.with_suffix(".told"), f"measuring {side}")

    def checked(self, side: Side, begun: Begun, records: Sequence[Record]) -> None:
        self.checks.append((side, len(records)))


def told(records: Sequence[Record], what: str = "process") -> str:
    (record,) = records
    return record.settings[what]


def test_processes_take_turns_and_couples_change(tmp_path: Path) -> None:
    programs = Programs(tmp_path)
    with Alive(programs, 2) as alive:
        assert programs.begun == [], "nothing is started before it is asked for"
        base = [told(alive.measure("base")) for _ in range(4)]
        head = [told(alive.measure("head")) for _ in range(4)]
        assert told(alive.measure("base", 7), "planted") == "7"
        assert told(alive.measure("base"), "planted") == ""
    assert base == [base[0], base[1]] * 2
    assert head == [head[0], head[1], head[0], head[0]], "each couple meets once the cold turn is over"
    assert len({*zip(base[1:], head[1:], strict=True)}) == 3
    assert len({*base, *head}) == 4
    assert programs.begun == ["base", "head", "base", "head"]
    assert sorted(programs.checks) == [("base", 3), ("base", 3), ("head", 1), ("head", 3)]
    assert not any(running(int(process)) for process in (*base, *head))


def test_all_processes_take_the_turns_that_count(tmp_path: Path) -> None:
    with Alive(Programs(tmp_path), 3) as alive:
        cold, *couples = [tuple(told(alive.measure(side)) for side in SIDES) for _ in range(10)]
    for first in (0, 3, 6):
        for some in zip(*couples[first : first + 3], strict=True):
            assert len(set(some)) == 3
    assert len(set(couples)) == 9, "every one of the base meets every one of the head"
    assert cold in couples


def running(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def test_one_that_does_not_begin_or_ends_is_an_error_with_its_words(tmp_path: Path) -> None:
    ended: list[str] = []

    def turns(programs: Programs) -> None:
        with Alive(programs) as alive:
            ended.append(told(alive.measure("head")))
            alive.measure("base", 13)

    with pytest.raises(BuildError, match=r"(?s)ended with 1.*it does not begin"):
        turns(Programs(tmp_path, "broken"))
    programs = Programs(tmp_path)
    with pytest.raises(BuildError, match="it has had enough"):
        turns(programs)
    assert not running(int(ended[0]))
    assert programs.checks == []


def test_a_verdict_has_the_first_failure_not_how_the_others_ended(tmp_path: Path) -> None:
    with Alive(Programs(tmp_path, "broken")) as alive:
        verdict = gate_pairs(alive, POLICY, names=("base", "head"))
    (row,) = verdict.rows
    assert (
        "measuring base: expected a process that stays alive and prints 'fluxperf: ready', but it ended with 1"
        in row.message
    )
    assert row.message.endswith("it does not begin")


@pytest.mark.parametrize(
    ("order", "phrase"),
    [
        (12, r"'fluxperf: done', but it ended with 137 \(SIGKILL: by somebody, .*\)\. It printed no message\."),
        (14, r"'fluxperf: done', but it did not within 0\.5 s"),
        (15, "(?s)ended with 125.*left processes behind"),
        (16, "another program writes to the file"),
        (17, "another program writes to the file"),
        (18, r"expected samples that fill the turn of 0\.0.* got 0\.3 s"),
    ],
    ids=["killed", "never done", "leaves a process", "one more record", "another record", "planted samples"],
)
def test_a_process_that_does_something_else_than_its_turn_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: int, phrase: str
) -> None:
    monkeypatch.setattr(lifeline, "_LAST_S", 0.1)

    def turns() -> None:
        with Alive(
            Programs(tmp_path, "fused" if order != 17 else "other"), patience_s=0.5 if order == 14 else 20
        ) as one:
            one.measure("base")
            one.measure("head")
            one.measure("head", order)

    with pytest.raises(BuildError, match=phrase):
        turns()
    for path in tmp_path.glob("*.left"):
        assert not running(int(path.read_text()))
    assert order != 15 or [*tmp_path.glob("*.left")]


def test_turns_that_last_longer_than_their_samples_tell_are_an_error(tmp_path: Path) -> None:
    """For example a head that reports samples of the base. A turn may last longer if the head reports to be slower."""

    def turns(slow: int) -> None:
        folder = tmp_path / str(slow)
        folder.mkdir()
        with Alive(Programs(folder)) as alive:
            for _ in range(3):
                alive.measure("base")
                alive.measure("head", slow)

    turns(1)
    with pytest.raises(BuildError, match=r"they last 0\.2.* The samples do not represent"):
        turns(19)
    quick, slow = [Turn(1.0, 0.5)] * 3, [Turn(2.0, 1.0)] * 3
    assert explains(quick, slow) == explains(slow, quick) == explains(quick[:2], [Turn(9.0, 0.5)] * 3) == ""
    assert explains(quick, [Turn(1.3, 0.25)] * 3) == "", "quicker generations, and what lies around them as before"
    assert "about 1 s, from the base's turns and the head's own samples, but they last 1.4 s" in explains(
        quick, [Turn(1.4, 0.5)] * 3
    )
    assert "about 2 s" in explains(quick, [Turn(2.7, 1.0)] * 3)


def test_turns_of_a_rung_are_counted_once_and_timed_again() -> None:
    prepared = prepare("fused", workload_named("tiny", steps=1), device="host")
    rung, kept, out = Turns(prepared, Sampling(1, 0, None, 0.0)), [], io.StringIO()
    serve([rung], ["\n", "\n"], kept.append, out)
    assert out.getvalue().split("\n") == [READY, DONE, DONE, ""]
    first, second = kept
    assert first.totals == second.totals
    assert first.setup_totals == second.setup_totals
    assert first.times_s != second.times_s
    assert first.sampling[0].process == second.sampling[0].process is not None
    with pytest.raises(NoGpuError, match="planted"):
        rung.take(0)
    with pytest.raises(ConfigError, match="'half'"):
        serve([rung], ["half\n"], kept.append, out)


def few(
    change: float,
    metric: str = "cycles.denoise",
    *,
    processes: int = 1,
    calibrated: float = 0.0,
    between: float | None = None,
) -> Row:
    values = 2.4e7 * np.exp(np.random.default_rng(1).normal(0, 1e-4, (2, 8)))
    base, head = ([[value] for value in side] for side in (values[0], values[1] * (1 + change)))
    rule = POLICY.noisy[metric]
    rule = replaced(rule, between=rule.between if between is None else between)
    (row,) = judge([Task(Place("w", "r"), metric, base, head, rule, calibrated, processes=processes)], POLICY.pairs)
    return row


def test_few_processes_show_what_is_beyond_their_own_differences() -> None:
    assert few(0.01).verdict == few(0.004, processes=8).verdict == "SLOWER"
    unlike = few(0.004, between=0.002)
    assert (unlike.verdict, unlike.reason) == ("UNSURE", "within_calibration")
    assert "by chance (policy)" in unlike.message
    assert few(0.0).verdict == "SAME"
    assert "turns of 1 process of each side" in few(0.0).message
    assert few(0.004, calibrated=1e-4, between=0.002).verdict == "SLOWER"


def test_without_a_scale_few_processes_show_nothing() -> None:
    found = [few(change, "times.denoise") for change in (0.0, 0.05, -0.05)]
    assert [row.verdict for row in found] == ["UNSURE"] * 3
    assert [row.reason for row in found] == ["few_processes_same", "few_processes", "few_processes"]
    assert few(0.05, "times.denoise", calibrated=0.002).verdict == "SLOWER"
    assert few(0.05, "times.denoise", processes=8).verdict == "SLOWER"


@pytest.mark.parametrize("reason", ["few_processes", "few_processes_same", "too_noisy"])
@pytest.mark.parametrize(("cycles", "joules", "verdict"), [("SAME", "SAME", "SAME"), ("SAME", "UNSURE", "UNSURE")])
def test_seconds_that_do_not_tell_are_the_same_where_work_and_joules_are(reason, cycles, joules, verdict) -> None:
    row = few(0.0, "times.denoise")
    seconds = replaced(row, verdict="UNSURE", reason=reason, outcome="unsure")
    others = [
        replaced(row, metric=f"{name}.denoise", verdict=found, reason="shown_same", outcome="pass")
        for name, found in (("cycles", cycles), ("energy", joules))
    ]
    tail = replaced(seconds, metric="times.denoise.p90")
    found, tailed, *_ = explained([seconds, tail, *others])
    assert found.verdict == verdict
    assert tailed.verdict == ("SAME" if verdict == "SAME" and reason == "few_processes_same" else "UNSURE")


class Turned(Fake):
    """A GPU with two processes that stay alive and run planted work; and a clock that ticks."""

    def __init__(self) -> None:
        super().__init__(spread=0.001)
        self.planted: list[int | None] = []
        self.now_s = 0.0

    def now(self) -> float:
        return self.now_s

    def measure(self, side: Side, planted: int | None = None) -> list[Record]:
        self.planted.append(planted)
        self.now_s += 2.0
        (record,) = super().measure(side)
        cycles = 6e6 * np.exp(self._rng.normal(0, 1e-4)) + (planted or 0)
        row = SamplingRow(stopped="count", settled=None, half_width=None, process=side)
        told = {"step": [[cycles]], "denoise": [[4 * cycles]]}
        clocks = {name: [[1.4e9]] for name in told}
        record = timed(record, [[4 * cycles / 1.4e9]])
        return [replaced(record, cycles=told, clock_hz=clocks, sampling=[row], conditions=None)]


def test_a_verdict_names_its_time_and_the_processes() -> None:
    runner = Turned()
    verdict = gate_pairs(runner, POLICY, names=("base", "head"), now=runner.now)
    lines = dict(verdict.provenance.lines)
    assert verdict.provenance.seconds == 2.0 * len(runner.planted)
    assert lines["time of the verdict"] == f"{2.0 * len(runner.planted):.1f} s"
    assert {row.metric: row.reason for row in verdict.rows}["cycles.denoise"] == "shown_same"


def test_planted_work_is_found_beside_comparisons_without() -> None:
    runner = Turned()
    wanted = begun("schnell-1024", ["run"], 8, POLICY, alive=1, plants=[0.01])
    *_, found = again(runner, wanted, POLICY, 2)
    assert set(runner.planted) == {None, 0, round(0.01 * 6e6)} or {None, 0} < set(runner.planted)
    assert [len(one) for one in found.planted.values()] == [2]
    assert found.alarms == 0
    assert found.few_processes
    said = "\n".join(in_words(found))
    assert "planted 1.00% of each step: SLOWER in 2 of 2 comparisons." in said
    assert "turns of 2 processes that stayed alive." in said
    one = found.comparisons[0]
    assert set(one.uncorrected) == {f"schnell-1024/fused/cycles.{part}" for part in ("denoise", "step")}
    assert found.planted["1.00%"][0].planted == pytest.approx(60_000, rel=0.01)
    with pytest.raises(RecordError, match="counts cycles"):
        list(again(Fake(), wanted, POLICY))


def test_sides_begin_with_the_users_cache_or_with_what_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, hungry, other = (tmp_path / name for name in ("users", "hungry", "other"))
    monkeypatch.setenv("FLUXPERF_CACHE", str(users))
    assert begins_with(8) == {}, "there is none yet"
    (users / "choices").mkdir(parents=True)
    (hungry / "choices").mkdir(parents=True)
    (other / "photos").mkdir(parents=True)
    assert begins_with(8) == {"base": users, "head": users}
    assert begins_with(0) == {}, "fresh processes begin with nothing"
    assert begins_with(0, (None, hungry)) == {"head": hungry}
    (hungry / "choices").rmdir()
    assert begins_with(8, (None, hungry)) == {"base": users, "head": hungry}, "one that is empty is a cache, too"
    assert began_with((None, hungry)) == [f"the head started with the kernels and choices of algorithms in {hungry}"]
    for folder in (other, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=r"gate --base-cache .*expected an empty folder or one that contains"):
            begins_with(8, (folder, None))
