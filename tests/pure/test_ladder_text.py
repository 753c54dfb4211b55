"""The ladder as text: its sentences on processes and on throttled clocks."""

from __future__ import annotations

import io
import re

import msgspec
import pytest
from rich.console import Console

from fluxperf.cli.ladder import ladder
from fluxperf.harness.facts.samples import speedup
from fluxperf.harness.facts.study import survey
from fluxperf.harness.records import Conditions, EnergyRow, OpRow, Record, RecordsFile
from fluxperf.harness.report import machines
from tests.pure.test_clocks import record
from tests.report.pages import CONTEXT


def timed(one: Record, *processes: list[float]) -> Record:
    return msgspec.structs.replace(one, times_s={"denoise": list(processes), "step": list(processes)})


def text(*records: Record) -> str:
    console = Console(width=100, file=io.StringIO())
    console.print(ladder(records))
    return " ".join(console.file.getvalue().split())


def test_samples_are_given_by_process() -> None:
    printed = text(timed(record("fused"), [1.0, 2.0], [3.0, 4.0]), timed(record("fp8"), [1.0], [2.0, 3.0]))
    assert "│ 2 x 2 │" in printed
    assert "│ 1 + 2 │" in printed
    assert "│ 2500.0 ms │" in printed, "the median of 1.5 and 3.5"
    assert "medians of the processes' medians; n is processes x generations" in printed


def test_one_process_is_a_number() -> None:
    printed = text(timed(record("fused"), [1.0, 2.0]))
    assert "│ 2 │" in printed
    assert "Times are medians of n generations." in printed


def test_clocks_that_were_held_down_are_said_in_both_places() -> None:
    held = timed(record("fused", "power cap"), [1.0])
    free = timed(record("batched", "idle"), [1.0])
    words = "Clocks were reduced while timing fused (power cap)."
    assert words in text(free, held)
    assert "reduced" not in text(free)
    hot = timed(record("fused", "hardware thermal slowdown"), [1.0])
    for records, said in (([free, held], False), ([free, hot], True), ([free], None)):
        remarks = machines.remarks(survey([RecordsFile("r.jsonl", records, [])], CONTEXT))
        found = [warning for warning, text in remarks if "(fused" in text or "fused (" in text]
        assert found == ([] if said is None else [said]), "the limit of power is usual, and no warning"


def test_a_step_is_given_in_cycles_and_joules_where_they_were_measured() -> None:
    clocked = msgspec.structs.replace(
        timed(on_gpu("captured"), [0.12, 0.12], [0.13, 0.13]),
        cycles={"step": [[171.2e6, 171.4e6], [171.5e6]]},
        clock_hz={"step": [[1.40e9], [1.42e9]]},
        energy_j={"step": [[85.0], [87.0]]},
        conditions=[
            Conditions(readings=[], energy=EnergyRow(window_s=2.0, counter_j=1376.0, integrated_j=None, renewals=20))
        ],
        ops=[OpRow(op="linear", count=1, time_s=0.1, bytes=1, flops=60 * 10**12)],
    )
    printed = text(clocked, timed(on_gpu("fused"), [0.2]))
    assert "captured │ 125.00 │ 171.400 │ 1.410 │ 86.00 │ 688 │ 1.433 │" in printed
    assert "fused │ 200.00" not in printed, "a record without them has no row"
    seconds_only = text(timed(on_gpu("fused"), [0.2]))
    assert "Mcycles" not in seconds_only
    assert "energy of the whole GPU" not in seconds_only


def test_joules_that_disagree_are_said() -> None:
    row = EnergyRow(window_s=2.0, counter_j=1400.0, integrated_j=1300.0, renewals=20)
    off = msgspec.structs.replace(
        timed(on_gpu("fp8"), [0.1]), energy_j={"step": [[70.0]]}, conditions=[Conditions(readings=[], energy=row)]
    )
    assert "do not trust either: fp8 (+7.7%)" in text(off)


def on_gpu(rung: str) -> Record:
    return msgspec.structs.replace(record(rung), ran_as="kernel")


def gains(processes: int, peers: int = 1) -> str:
    """The ladder of a baseline and peers of 8 s, and of a rung of 2 s whose processes differ by one percent."""

    def of(rung: str, seconds: float, ran_as: str) -> Record:
        one = msgspec.structs.replace(record(rung), ran_as=ran_as)
        return timed(one, *([seconds * (1 + 0.01 * number), seconds] for number in range(processes)))

    others = [of(f"peer{number}", 8.0, "peer") for number in range(peers - 1)]
    return text(of("baseline", 8.0, "kernel"), of("fused", 2.0, "kernel"), *others)


def test_a_speedup_has_the_interval_that_the_page_gives() -> None:
    printed = gains(6)
    (low, high) = re.search(r" (\d\.\d\d)-(\d\.\d\d) ", printed).groups()
    found = speedup(*(timed(record(""), *([s * (1 + 0.01 * n), s] for n in range(6))) for s in (8.0, 2.0)))
    assert found.kind == "interval"
    assert (float(low), float(high)) == pytest.approx((found.low, found.high), abs=0.006)
    assert "95 % intervals over processes" in printed
    assert "~" not in printed


def test_a_speedup_of_few_processes_has_a_range_and_says_so() -> None:
    printed = gains(2)
    assert re.search(r"~3\.\d\d-4\.\d\d", printed)
    assert "needs at least 3 processes" in printed
    assert "95 % intervals" not in printed


def test_speedups_over_many_stand_in_a_table_of_their_own() -> None:
    printed = gains(3, peers=4)
    assert printed.count("┃ rung") == 3
    assert "x4" in printed
