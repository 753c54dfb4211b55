"""A record that contradicts itself is an error: parts larger than their sum, cycles of another time,
impossible joules.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fluxperf.errors import RecordError
from fluxperf.harness.compare import compare
from fluxperf.harness.contradictions import contradictions
from fluxperf.harness.records import Record, read_records
from fluxperf.harness.verdict import conclude
from tests.gate.sides import ROOT, policy

MEASURED = ROOT / "reports/records/h100-schnell-1024-products-sustained.jsonl"


@functools.cache
def _real() -> dict[str, Any]:
    rows = [json.loads(line) for line in MEASURED.read_text().splitlines()]
    (found,) = (row for row in rows if row["rung"] == "captured" and row.get("energy_j"))
    return found


def real() -> dict[str, Any]:
    """A record of a card, of one process, with times, cycles, clock, joules, ops and steps of each generation."""
    return copy.deepcopy(_real())


def record_of(row: dict[str, Any]) -> Record:
    return msgspec.convert(row, Record)


def scaled(*keys: str, by: float) -> Callable[[dict[str, Any]], None]:
    """Multiplies every sample of some fields, such as ``times_s.step``."""

    def change(row: dict[str, Any]) -> None:
        for key in keys:
            field, name = key.split(".")
            row[field][name] = [[value * by for value in samples] for samples in row[field][name]]

    return change


def one_generation(row: dict[str, Any]) -> None:
    """One of nine generations reports less time; its steps do not."""
    row["times_s"]["denoise"][0][4] *= 0.99


def swung(row: dict[str, Any]) -> None:
    """Cycles with the right mean and a median that is 20 % too low."""
    count = len(row["cycles"]["denoise"][0])
    low, high = 0.8, 1 + 0.2 * (count // 2 + 1) / (count - count // 2 - 1)
    for name in ("denoise", "step"):
        row["cycles"][name][0] = [
            value * (low if index * count // len(row["cycles"][name][0]) <= count // 2 else high)
            for index, value in enumerate(row["cycles"][name][0])
        ]


def fewer_in_some(row: dict[str, Any]) -> None:
    """Cycles of a third of the generations, and of their steps, are halved."""
    for name in ("denoise", "step"):
        samples = row["cycles"][name][0]
        samples[: len(samples) // 3] = [value / 2 for value in samples[: len(samples) // 3]]


def without_clock(row: dict[str, Any]) -> None:
    row["clock_hz"] = {}


def other_window(row: dict[str, Any]) -> None:
    """Joules with a window that is too short for the samples."""
    energy = row["conditions"][0]["energy"]
    energy["window_s"] /= 2


def much_power(row: dict[str, Any]) -> None:
    row["conditions"][0]["power_limit_w"] = 300.0


def small_peak(row: dict[str, Any]) -> None:
    row["totals"]["peak_bytes"] = 1_000_000


ALL_TIMES = ("times_s.denoise", "times_s.step")

LIES: dict[str, tuple[Callable[[dict[str, Any]], None], set[str]]] = {
    "steps longer than their generation": (
        scaled("times_s.step", by=1.01), {"times.step", "energy.step"}
    ),
    "a generation shorter than its steps": (
        scaled("times_s.denoise", by=0.99), {"times.step", "cycles.denoise"}
    ),
    "one generation of nine": (one_generation, {"times.step"}),
    "steps of more cycles": (scaled("cycles.step", by=1.005), {"cycles.step"}),
    "fewer cycles in the same time": (
        scaled("cycles.denoise", "cycles.step", by=0.95), {"cycles.denoise", "cycles.step"}
    ),
    "less time with the same cycles": (
        scaled(*ALL_TIMES, by=0.9), {"cycles.denoise", "cycles.step"}
    ),
    "another clock": (scaled("clock_hz.step", by=1.1), {"cycles.step"}),
    "a clock that the card has not": (
        scaled("clock_hz.step", "cycles.step", *("clock_hz.denoise", "cycles.denoise"), by=1.5),
        {"cycles.denoise", "cycles.step"},
    ),
    "cycles that are few in most generations": (swung, {"cycles.denoise", "cycles.step"}),
    "cycles that are few in some generations": (fewer_in_some, {"cycles.denoise", "cycles.step"}),
    "cycles without a clock": (
        without_clock, {"cycles.denoise", "cycles.step", "cycles.warmup", "cycles.warmup_step"}
    ),
    "joules of a generation that its window has not": (scaled("energy_j.denoise", by=0.97), {"energy.denoise"}),
    "joules of a step that its window has not": (scaled("energy_j.step", by=0.97), {"energy.step"}),
    "a window shorter than its samples": (other_window, {"energy.denoise", "energy.step"}),
    "more power than a card has": (much_power, {"energy.denoise", "energy.step"}),
    "quicker than the card": (
        scaled(*ALL_TIMES, "cycles.denoise", "cycles.step", by=0.1), {"times.step"}
    ),
    "memory that one op does not fit in": (small_peak, {"totals.peak_bytes"}),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_what_cannot_all_be_true_is_named(lie: str) -> None:
    change, metrics = LIES[lie]
    row = real()
    change(row)
    assert {found.metric for found in contradictions(record_of(row))} == metrics


def of_two_generations(row: dict[str, Any]) -> None:
    """The same record as if each sample were the mean of two generations, whose steps follow each other."""
    for field in ("times_s", "cycles", "clock_hz"):
        (steps,) = row[field]["step"]
        each = len(steps) // len(row[field]["denoise"][0])
        blocks = (steps[place : place + each] for place in range(0, len(steps), each))
        row[field]["step"] = [[value for block in blocks for value in (*block, *block)]]
    energy = row["conditions"][0]["energy"]
    energy["window_s"], energy["counter_j"] = 2 * energy["window_s"], 2 * energy["counter_j"]


def test_one_sample_may_stand_for_several_generations() -> None:
    row = real()
    of_two_generations(row)
    assert list(contradictions(record_of(row))) == []
    row["energy_j"]["denoise"][0] = [value / 2 for value in row["energy_j"]["denoise"][0]]
    one_generation(row)
    assert {found.metric for found in contradictions(record_of(row))} == {"times.step", "energy.denoise"}


def committed() -> Iterator[tuple[str, Record]]:
    for path in sorted((ROOT / "reports").rglob("*.jsonl")):
        for record in read_records(path).records:
            yield f"{path.name} {record.rung}", record


def test_no_record_that_was_measured_contradicts_itself() -> None:
    found = [(name, list(contradictions(record))) for name, record in committed()]
    assert len(found) > 100
    assert [(name, said) for name, said in found if said] == []


def sides(change: Callable[[dict[str, Any]], None]) -> tuple[list[Record], list[Record]]:
    """Eight processes of each side in turns, with changed heads; each process has its own samples,
    scaled by one factor.
    """
    base, head = [], []
    for number in range(8):
        for side in (base, head):
            row = real()
            row["created_utc"] = f"2026-11-01T12:{number:02d}:{30 * (side is head):02d}+00:00"
            for field, shape in (("times_s", 1.0), ("cycles", 1.0), ("clock_hz", 0.0)):
                for key, processes in row[field].items():
                    row[field][key] = [
                        [value * (1 + 1e-5 * shape * ((7 * number + 3 * (side is head)) % 11)) for value in samples]
                        for samples in processes
                    ]
            if side is head:
                change(row)
            side.append(record_of(row))
    return base, head


def rows_of(change: Callable[[dict[str, Any]], None]) -> Any:
    found = compare(*sides(change), policy())
    return conclude(found.rows, base="a", head="b", made=("2026-11-01T13:00:00+00:00", "0"), notes=found.notes)


def test_steps_above_their_generation_are_an_error_and_no_gain() -> None:
    def change(row: dict[str, Any]) -> None:
        scaled(*ALL_TIMES, by=0.9)(row)
        scaled("times_s.denoise", by=0.8)(row)

    verdict = rows_of(change)
    assert (verdict.outcome, verdict.exit_code) == ("error", 2)
    errors = [row for row in verdict.rows if row.reason == "contradicts_itself"]
    assert {row.metric for row in errors} == {"times.step", "cycles.denoise", "cycles.step"}
    assert "parts cannot exceed the whole" in errors[0].message.lower()
    assert all("the head contradicts itself" in row.message for row in errors)


def test_what_agrees_with_itself_is_judged() -> None:
    reasons = {row.reason for row in rows_of(lambda row: None).rows}
    assert "contradicts_itself" not in reasons


def test_steps_that_were_left_out_of_one_side_are_an_error() -> None:
    def change(row: dict[str, Any]) -> None:
        for field in ("times_s", "cycles", "clock_hz"):
            row[field]["step"] = [samples[:-3] for samples in row[field]["step"]]

    said = [row.message for row in rows_of(change).rows if row.reason == "contradicts_itself"]
    assert any("got 4 on the base and 3.66667 on the head" in text for text in said)


@pytest.mark.parametrize("field", ["warmup", "other"])
def test_a_sample_below_zero_is_an_error_where_nothing_gates_it(field: str) -> None:
    def change(row: dict[str, Any]) -> None:
        row["times_s"][field] = [[-0.5]]

    (row,) = (row for row in rows_of(change).rows if row.reason == "negative")
    assert (row.metric, row.outcome) == (f"times.{field}", "error")


@pytest.mark.parametrize(
    "place", [("ops", 0, "time_s"), ("blocks", 0, "time_s"), ("conditions", 0, "energy", "counter_j")]
)
def test_a_record_with_seconds_or_joules_below_zero_is_none(place: tuple[Any, ...], tmp_path: Path) -> None:
    row = real()
    inner = row
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = -1.0
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(RecordError, match=rf">= 0.* - at `\$\.{place[0]}"):
        read_records(path)


def test_joules_that_a_head_leaves_out_are_an_error_where_they_were_read_and_else_a_note() -> None:
    def without(row: dict[str, Any]) -> None:
        row["energy_j"] = {}

    def unread(row: dict[str, Any]) -> None:
        without(row)
        row["conditions"][0]["energy"] = None

    told = "schnell-1024/captured: energy.step is not judged: 8 of 8 processes of the base and 0 of 8 processes"
    for change, errors in ((without, {"energy.denoise", "energy.step"}), (unread, set())):
        verdict = rows_of(change)
        assert {row.metric for row in verdict.rows if row.reason == "missing_metric"} == errors
        assert any(note.startswith(told) for note in verdict.notes)
    assert not [note for note in rows_of(lambda row: None).notes if "not judged" in note]
