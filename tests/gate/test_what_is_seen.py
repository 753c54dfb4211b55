"""docs/ci.md, what the gate can and cannot see: its figures are those of the committed records."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from tests.contracts.tree import ROOT

TEXT = (ROOT / "docs/ci.md").read_text(encoding="utf-8")
RUNG = "schnell-1024-blocks/captured/"


@cache
def record(name: str) -> Any:
    return json.loads((ROOT / "reports/records" / f"{name}.json").read_text(encoding="utf-8"))


def row(beginning: str) -> list[str]:
    """The cells of the one row of a table that begins with these words."""
    (line,) = [line for line in TEXT.splitlines() if line.startswith(f"| {beginning}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def percent(share: float, places: int = 2) -> str:
    return f"{100 * share:.{places}f} %"


@pytest.mark.parametrize(
    ("beginning", "metric"),
    [("seconds | 1", "times"), ("cycles, corrected", "cycles"), ("joules | the turn", "energy")],
)
def test_noise_and_the_smallest_change_are_those_of_comparisons_with_itself(beginning: str, metric: str) -> None:
    cells, name = row(beginning), f"{RUNG}{metric}.denoise"
    short, long = record("h200-aa")["metrics"], record("h200-aa-joules")["metrics"]
    assert cells[1] == (percent(short[name]["process_spread"]) if name in short else "the turn is too short")
    assert cells[2] == percent(long[name]["process_spread"])
    assert cells[3].startswith(percent(long[name]["calibrated"]["detectable"], 1))


def of(counts: dict[str, int]) -> int:
    assert set(counts) <= {"SAME", "UNSURE"}  # no false alarm
    return counts.get("SAME", 0)


def test_comparisons_with_itself_gave_no_false_alarm_and_were_the_same_so_often() -> None:
    short, long = record("h200-aa"), record("h200-aa-joules")
    same = {name: of(short["metrics"][f"{RUNG}{name}.denoise"]["verdicts"]) for name in ("cycles", "times")}
    cells = row("nothing; turns of 0.3 s")
    assert f"{len(short['comparisons'])} comparisons of" in cells[0]
    assert f"cycles SAME in {same['cycles']}, seconds SAME in {same['times']}, else UNSURE" in cells[1]
    same = {name: of(long["metrics"][f"{RUNG}{name}.denoise"]["verdicts"]) for name in ("cycles", "times", "energy")}
    cells = row("nothing; turns of 1.4 s")
    assert f"{len(long['comparisons'])} comparisons of" in cells[0]
    assert same["cycles"] == same["times"]
    assert f"cycles and seconds SAME in {same['times']}, joules SAME in {same['energy']}, else UNSURE" in cells[1]


@pytest.mark.parametrize("planted", ["1.00%", "0.50%"])
def test_added_work_was_found_so_often_and_so_large(planted: str) -> None:
    made = [
        found
        for comparison in record("h200-aa")["planted"][planted]
        for found in comparison["rows"]
        if found["metric"] == "cycles.denoise"
    ]
    changes = [found["change"] for found in made]
    slower = sum(found["verdict"] == "SLOWER" for found in made)
    cells = row(f"{float(planted[:-1]):.1f} % of work added")
    said = f"{100 * min(changes):.2f} to {percent(max(changes))}"
    assert cells[1] == f"cycles SLOWER in {slower} of {len(made)}, by {said}"


@pytest.mark.parametrize("name", ["cycles", "joules", "times"])
def test_simulated_power_is_that_of_the_record(name: str) -> None:
    rows = {found["change"]: found["regression"] for found in record(f"h200-power-{name}")}
    (line,) = [line for line in TEXT.splitlines() if f"(`h200-power-{name}.json`) |" in line]
    alarms, found = (cell.strip() for cell in line.strip("|").split("|")[1:])
    assert alarms == f"{100 * rows[0.0]:g} %"
    for said in found.split(", "):
        change, share = said.removesuffix(" %").split(" % in ")
        digits = len(share.partition(".")[2])
        assert f"{100 * rows[float(change) / 100]:.{digits}f}" == share, said


def test_models_of_noise_are_those_of_the_record() -> None:
    rows = record("operating-characteristics")["rows"]
    alarms, found = (
        [row["regression"] for row in rows if row["change"] == change and not row["model"].startswith("A/A")]
        for change in (0.0, 0.03)
    )
    cells = row("seconds of eleven models of noise")
    assert len(alarms) == 11
    assert cells[1] == f"at most {100 * max(alarms):g} %"
    assert cells[2] == f"+3 % in {100 * min(found):.0f} to {100 * max(found):.0f} %"


def test_algorithms_with_more_joules_are_hungrier_by_the_verdict_of_the_record() -> None:
    rows = {row["metric"]: row for row in record("h200-gate-hungrier")["rows"]}
    joules, seconds, cycles = (rows[f"{name}.denoise"] for name in ("energy", "times", "cycles"))
    assert (joules["reason"], seconds["reason"], cycles["verdict"]) == ("hungrier", "hungrier", "SAME")
    cells = row("other algorithms for all seven large products")
    said = (
        f"cycles SAME, joules +{percent(joules['change'], 1)} and seconds +{percent(seconds['change'], 1)}: both SLOWER"
    )
    assert cells[1].startswith(said)


def test_the_readme_has_the_verdicts_of_the_records() -> None:
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    planted = record("h100-gate-planted")
    (slower,) = [found for found in planted["rows"] if found["verdict"] == "SLOWER"]
    measured = f"{slower['change']:+.2%} over {slower['pairs']} process pairs, margin 0.50%; p {slower['p']:.2g} at"
    for text in (readme, " ".join(TEXT.split())):
        assert f"times.call: {measured}" in text
        assert f"the smallest detectable change is {slower['detectable']:.2%}." in text
        assert f"{len(planted['rows'])} rows: {planted['counts']['SAME']} SAME, 1 SLOWER." in text
    assert f"a verdict then took {record('h200-gate-blocks')['provenance']['seconds']:.0f} s" in readme
    found = [
        any(row["metric"].startswith("cycles.") and row["verdict"] == "SLOWER" for row in one["rows"])
        for one in record("h200-aa")["planted"]["0.50%"]
    ]
    assert all(found)
    assert f"0.5 % of added work in each of {len(found)} comparisons" in readme
    assert f"no false alarm in {len(record('h200-aa')['comparisons'])} comparisons of equal programs" in readme


@pytest.mark.parametrize("name", ["h200-gate-algorithm", "h200-gate-blocks", "h200-gate-captured"])
def test_a_verdict_took_as_long_as_its_record_says(name: str) -> None:
    (line,) = [line for line in TEXT.splitlines() if f"`{name}.json`) | " in line and line.endswith(" s |")]
    assert line.endswith(f"| {record(name)['provenance']['seconds']:.0f} s |")
