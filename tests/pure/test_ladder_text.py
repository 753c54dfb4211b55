"""The ladder as text: what it says of processes and of clocks that were held down."""

from __future__ import annotations

import io

import msgspec
from rich.console import Console

from fluxperf.cli.ladder import ladder
from fluxperf.harness.facts.study import survey
from fluxperf.harness.records import Record, RecordsFile
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
    assert "times are medians of n generations." in printed


def test_clocks_that_were_held_down_are_said_in_both_places() -> None:
    held = timed(record("fused", "power cap"), [1.0])
    free = timed(record("batched", "idle"), [1.0])
    words = "Clocks were held down while timing fused (power cap)."
    assert words in text(free, held)
    assert "held down" not in text(free)
    for records, said in (([free, held], True), ([free], False)):
        remarks = machines.build(survey([RecordsFile("r.jsonl", records, [])], CONTEXT)).remarks
        assert any(warning and words in remark for warning, remark in remarks) is said
