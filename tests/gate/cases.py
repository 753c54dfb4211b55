"""Cases on which a gate may fail: two sides of records derived from one real record, and the right exit codes.

Each case is a function that fills a `Case`. The times of a side are drawn; the name of a case says what it changes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.gate.sides import POLICY_FILE, ROOT

TEMPLATE = json.loads((ROOT / "reports/records/h100-aa-base.jsonl").read_text().splitlines()[0])
POLICY = POLICY_FILE.read_text(encoding="utf-8")
PLACE = "schnell-1024-blocks/fused"
MACHINE = "nvidia-h100-80gb-hbm3-driver-580"


@dataclass
class Case:
    """Records as JSON values, a policy as text, and a calibration."""

    base: list[Any] = field(default_factory=list)
    head: list[Any] = field(default_factory=list)
    policy: str = POLICY
    calibration: str = ""
    random: random.Random = field(default_factory=lambda: random.Random(1))

    def times(self, processes: int = 8, samples: int = 5, factor: float = 1.0) -> list[list[float]]:
        """Seconds of each process's generations, with a spread of 0.2 %."""
        return [[0.5 * factor * (1 + self.random.gauss(0, 0.002)) for _ in range(samples)] for _ in range(processes)]

    def record(self, denoise: Any = None, step: Any = None, **changes: Any) -> dict[str, Any]:
        """A record; ``step`` is a quarter of ``denoise`` if not given. A key ``a__b`` changes b in a."""
        record: dict[str, Any] = json.loads(json.dumps(TEMPLATE)) | {"choices": {}, "trials_s": {}}
        denoise = denoise or self.times()
        record["times_s"] = {"denoise": denoise, "step": step or [[value / 4 for value in row] for row in denoise]}
        for key, value in changes.items():
            *outer, last = key.split("__")
            target = record
            for name in outer:
                target = target[name]
            target[last] = value
        return record

    def write(self, folder: Path) -> None:
        """Writes the case as files: base.jsonl, head.jsonl, policy.toml, calibrations/."""
        for name, records in (("base", self.base), ("head", self.head)):
            rows = [row if isinstance(row, str) else json.dumps(row) for row in records]
            (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
        (folder / "policy.toml").write_text(self.policy)
        (folder / "calibrations").mkdir()
        if self.calibration:
            (folder / "calibrations" / f"calibration-{MACHINE}.json").write_text(self.calibration)


Build = Callable[[Case], None]
CASES: dict[str, tuple[set[int], Build]] = {}


def case(*right: int, name: str = "") -> Callable[[Build], Build]:
    def added(build: Build) -> Build:
        CASES[name or build.__name__] = (set(right), build)
        return build

    return added


def sides(c: Case, base: Any = None, head: Any = None) -> None:
    c.base = [base or c.record()]
    c.head = [head or c.record()]


# Times


@case(1, 3)
def tail_in_process(c: Case) -> None:
    slow = [[v * f for v, f in zip(row, (1, 2, 1, 2, 1), strict=True)] for row in c.times()]
    sides(c, head=c.record(slow))


def some_slower(c: Case, which: tuple[int, ...], factor: float) -> None:
    slow = c.times(24)
    for process in which:
        slow[process] = [value * factor for value in slow[process]]
    sides(c, c.record(c.times(24)), c.record(slow))


case(1, 3, name="slow_starts")(lambda c: some_slower(c, (3, 10, 17), 10))
case(1, name="eight_of_24_slower")(lambda c: some_slower(c, tuple(range(0, 24, 3)), 1.3))
case(3, name="one_process_100_times_slower")(lambda c: some_slower(c, (5,), 100))
case(0, name="one_process_a_little_slower")(lambda c: some_slower(c, (5,), 1.1))


@case(1)
def one_metric(c: Case) -> None:
    times = c.times()
    sides(c, head=c.record(times, [[value / 4 * 1.1 for value in row] for row in times]))


@case(2)
def same_process_8x(c: Case) -> None:
    base = c.record(c.times(1))
    c.base, c.head = [base] * 8, [c.record([[v * 1.02 for v in base["times_s"]["denoise"][0]]])] * 8


@case(2)
def one_process_with_other_last_digits(c: Case) -> None:
    (samples,) = c.times(1)
    sides(c, head=c.record([[value * (1 + n * 1e-12) for value in samples] for n in range(8)]))


@case(2)
def one_process_by_other_factors(c: Case) -> None:
    (samples,) = c.times(1)
    sides(c, head=c.record([[value * (1 + n / 1000) for value in samples] for n in range(8)]))


@case(2)
def the_base_made_shorter(c: Case) -> None:
    times = c.times()
    sides(c, c.record(times), c.record([[value * 0.98 for value in row] for row in times]))


@case(2)
def the_same_file_on_both_sides(c: Case) -> None:
    sides(c)
    c.head = c.base


@case(2)
def more_processes_of_the_head(c: Case) -> None:
    sides(c, c.record(c.times(6)), c.record(c.times(24, 5, 1.5)))


@case(2)
def eight_commits_on_one_side(c: Case) -> None:
    c.base = [c.record(c.times(1)) for _ in range(8)]
    c.head = [c.record(c.times(1), commit=f"{number:040x}") for number in range(8)]


@case(2)
def dirty_in_part(c: Case) -> None:
    c.base = [c.record(c.times(1)) for _ in range(8)]
    c.head = [c.record(c.times(1), dirty=number == 3) for number in range(8)]


@case(2, 3)
def one_sample(c: Case) -> None:
    sides(c, c.record(c.times(1, 1)), c.record(c.times(1, 1, 2.0)))


@case(2)
def fewer_samples_of_the_head(c: Case) -> None:
    sides(c, head=c.record(c.times(8, 1)))


@case(1)
def slower_5_percent(c: Case) -> None:
    sides(c, c.record(c.times(8, 1)), c.record(c.times(8, 1, 1.05)))


@case(0)
def faster_5_percent(c: Case) -> None:
    sides(c, head=c.record(c.times(factor=0.95)))


@case(1)
def many_rungs(c: Case) -> None:
    for number in range(60):
        c.base.append(c.record(rung=f"r{number}"))
        c.head.append(c.record(c.times(8, 5, 1.2), rung=f"r{number}"))


@case(1)
def one_rung_of_many(c: Case) -> None:
    for number in range(20):
        c.base.append(c.record(rung=f"r{number}"))
        c.head.append(c.record(c.times(8, 5, 1.2 if number == 7 else 1.0), rung=f"r{number}"))


@case(0)
def no_rung_of_many(c: Case) -> None:
    for number in range(20):
        c.base.append(c.record(rung=f"r{number}"))
        c.head.append(c.record(rung=f"r{number}"))


def _value(text: str) -> Build:
    def build(c: Case) -> None:
        head = c.record()
        head["times_s"]["denoise"][3][2] = "@"
        c.base, c.head = [c.record()], [json.dumps(head).replace('"@"', text)]

    return build


for _name, _text in {
    "nan": "NaN", "inf": "Infinity", "huge": "1e999", "negative": "-0.5", "zero": "0.0", "null": "null",
    "text": '"0.5"', "tiny": "1e-320", "microsecond": "1e-6", "years": "1e16",
}.items():  # fmt: skip
    case(2, name=f"value_{_name}")(_value(_text))


# Results and counters

RIGHT = {"relative": 1e-3, "against": "float64 oracle, final latents"}


def _errors(c: Case, *of_head: Any) -> None:
    c.base = [c.record(c.times(1), error=RIGHT) for _ in range(8)]
    c.head = [c.record(c.times(1), error=error) for error in of_head]


case(1, name="wrong_results_later")(lambda c: _errors(c, RIGHT, *[RIGHT | {"relative": 0.9}] * 7))
case(1, name="wrong_result_last")(lambda c: _errors(c, *[RIGHT] * 7, RIGHT | {"relative": 0.9}))
case(1, 2, name="error_missing_later")(lambda c: _errors(c, RIGHT, *[None] * 7))


@case(2)
def error_against_itself(c: Case) -> None:
    _errors(c, *[{"relative": 0.0, "against": "rung fused of the same run"}] * 8)


@case(2)
def work_not_told(c: Case) -> None:
    sides(c, head=c.record(c.times(factor=0.5), ops=[]))


@case(1)
def a_wrong_process_of_the_base_excuses_nothing(c: Case) -> None:
    _errors(c, *[RIGHT | {"relative": 0.9}] * 8)
    c.base[3]["error"] = RIGHT | {"relative": 0.9}


def _totals(**changes: Any) -> Build:
    return lambda c: sides(c, head=c.record(totals=TEMPLATE["totals"] | changes))


@case(1, 2)
def counters_zero(c: Case) -> None:
    zero = dict.fromkeys(("launches", "syncs", "allocations", "peak_bytes", "op_calls"), 0)
    sides(c, head=c.record(totals=TEMPLATE["totals"] | zero, ops=[]))


case(2, name="counters_negative")(_totals(launches=-44, syncs=-3, peak_bytes=-1))
case(2, name="a_counter_of_400_digits")(_totals(launches=10**400))
case(1, name="one_copy_more")(_totals(d2h_copies=1, d2h_bytes=4))
case(0, name="fewer_launches")(_totals(launches=40))


@case(2)
def copies_that_cancel(c: Case) -> None:
    rows = [{"direction": "d2h", "label": "x", "op": "x", "count": n, "bytes": n, "section": ""} for n in (7, -7)]
    sides(c, head=c.record(ledger=rows))


@case(2)
def copies_in_one_process(c: Case) -> None:
    c.base = [c.record(c.times(1)) for _ in range(8)]
    c.head = [c.record(c.times(1)) for _ in range(8)]
    c.head[5]["totals"]["d2h_copies"] = 7


@case(0)
def copies_removed(c: Case) -> None:
    totals = TEMPLATE["totals"] | {"d2h_copies": 7, "d2h_bytes": 8192, "syncs": 7}
    row = {"direction": "d2h", "label": "x.debug", "op": "x", "count": 7, "bytes": 8192, "section": "double"}
    sides(c, c.record(totals=totals, ledger=[row]), c.record(c.times(factor=0.5)))


@case(1, 2)
def model_halved(c: Case) -> None:
    sides(c, head=c.record(c.times(factor=0.5), ops=TEMPLATE["ops"][:10], totals__launches=22, totals__op_calls=23))


@case(1, 2)
def witness_contradicts(c: Case) -> None:
    witness = dict(TEMPLATE["totals"])
    bad = witness | {"d2h_copies": 999, "h2d_copies": 500}
    sides(c, c.record(witness=witness), c.record(witness=bad))


@case(1)
def graph_has_grown(c: Case) -> None:
    base = c.record(graph={"launches": 5, "bytes": 10**6, "capture_s": 0.3})
    sides(c, base, c.record(graph={"launches": 5000, "bytes": 10**10, "capture_s": 300.0}))


@case(2)
def graph_gone(c: Case) -> None:
    sides(c, c.record(graph={"launches": 5, "bytes": 10**6, "capture_s": 0.3}))
