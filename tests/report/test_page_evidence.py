"""Other evidence than records on the page: verdict, calibration, ceilings, history, kernels, samples."""

# The page writes ranges with an en dash and ratios with a multiplication sign.
# ruff: noqa: RUF001

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import msgspec
import pytest

from fluxperf.harness.columns import columns_of
from fluxperf.harness.facts.ceilings import MEMORY, PUBLISHED, Ceiling, ceilings_for, tried_ceilings
from fluxperf.harness.facts.commands import commands
from fluxperf.harness.facts.floor import floor_of
from fluxperf.harness.facts.inputs import NOTHING, Extras
from fluxperf.harness.facts.samples import summary_of
from fluxperf.harness.facts.study import survey
from fluxperf.harness.history import Fixed, Rules, history
from fluxperf.harness.records import TriedRow
from fluxperf.harness.report.html import render
from fluxperf.harness.report.past import _budget_lines, _change
from fluxperf.harness.text import units
from tests.history.making import history_of, point
from tests.report import captures, evidence
from tests.report.pages import CONTEXT, Page, files_of, make, on_gpu, twins, workload
from tests.report.parts import Parts


def page_with(extras: Extras, *records) -> Parts:
    return Parts(files_of(*(records or evidence.ladder())), CONTEXT, extras)


# The verdict


@pytest.mark.parametrize(
    ("rows", "title"),
    [
        ([evidence.row()], "Pass"),
        ([evidence.row(), evidence.row("UNSURE", "unsure")], "Unsure"),
        ([evidence.row("UNSURE", "unsure"), evidence.row("SLOWER", "regression")], "Regression"),
        ([evidence.row("SLOWER", "regression"), evidence.row("ERROR", "error")], "Error"),
        ([evidence.row(outcome="ungated")], "Error"),
    ],
)
def test_the_verdict_is_shown_for_what_it_is(rows, title):
    text = page_with(Extras(verdict=evidence.verdict(*rows))).sections["verdict"]
    assert f"\n{title} " in text
    assert ("this does not pass" in text) == (title in ("Unsure", "Error"))


def test_rows_that_tell_something_are_listed_with_their_numbers():
    slower = evidence.row("SLOWER", "regression", reason="shown_slower", change=0.06, low=0.04, high=0.08, p=0.004)
    page = page_with(Extras(verdict=evidence.verdict(evidence.row(rung="batched"), slower)))
    row = page.row("schnell-1024/fused/times.denoise", 9)
    assert row[1] == "SLOWERregression"
    assert row[2:8] == ["483 ms", "485 ms", "+6.00 %+4.00 to +8.00 %", "8", "0.004", "2.10 %"]
    assert "beyond margin and floors" in row[8]
    assert not any("batched/times" in cell for row in page.part("verdict").rows for cell in row), (
        "a plain pass is not listed"
    )


def test_without_a_verdict_the_page_says_how_to_get_one():
    text = page_with(NOTHING).sections["verdict"]
    assert "No verdict was given" in text
    assert "--verdict" in text


# Samples


def test_the_calibrated_spread_stands_beside_the_rungs_that_have_one():
    page = page_with(Extras(calibrations=[evidence.calibration()]))
    row = next(row for row in page.part("samples").rows if len(row) == 9 and row[0] == "fused")
    assert row[6:8] == ["0.8 %", "2.1 %8 pairs, alpha 0.02, power 0.95"]
    assert (
        next(row for row in page.part("samples").rows if len(row) == 9 and row[0] == "batched")[6] == "not calibrated"
    )
    assert (
        "Not calibrated on this kind of machine: baseline, broadcast, batched and tensorcore"
        in page.sections["samples"]
    )
    figure = next(text for text in page.part("samples").figures if text.startswith("Samples of each process"))
    assert "A/A band of this machine" in figure
    assert "A/A band 0.8 % to either side" in figure


def test_a_calibration_of_forked_processes_says_so():
    known = evidence.calibration()
    rows = {name: msgspec.structs.replace(row, forked=True) for name, row in known.rows.items()}
    page = page_with(Extras(calibrations=[msgspec.structs.replace(known, rows=rows)]))
    row = next(row for row in page.part("samples").rows if len(row) == 9 and row[0] == "fused")
    assert row[7] == "2.1 %8 pairs, alpha 0.02, power 0.95, of forked processes"


def test_a_dot_of_one_sample_is_hollow():
    def hollow(times) -> int:
        html = page_with(NOTHING, on_gpu("baseline", 400.0), on_gpu("fused", 5.0, times=times)).html("headline")
        progress = next(svg for svg in html.split("<svg ")[1:] if "from the published baseline toward" in svg)
        return len(re.findall(r'<use [^>]*style="fill: var\(--paper\)', progress.split("</svg>")[0]))

    assert (hollow([[5.0]]), hollow([[5.0, 5.1]])) == (1, 0)


def test_a_calibration_of_another_machine_is_not_used():
    other = msgspec.structs.replace(evidence.calibration(), machine="another-kind")
    page = page_with(Extras(calibrations=[other]))
    assert next(row for row in page.part("samples").rows if len(row) == 9 and row[0] == "fused")[6] == "not calibrated"


def test_processes_that_were_measured_alike_stand_together():
    def one(number: int, **changes):
        seconds = [[4.0 + 0.01 * number, 4.001 + 0.01 * number]]
        options = {"created_utc": f"2026-07-{number + 1:02}T00:00:00Z"} | changes
        return on_gpu("fused", 4.0, times=seconds, **options)

    records = [one(number) for number in range(4)]
    page = page_with(NOTHING, *records, records[0], one(5, settings={"rest_s": "1"}), one(6, commit="b" * 40))
    row = next(row for row in page.part("samples").rows if len(row) == 9 and row[0] == "fused")
    assert row[1:3] == ["1", "1 × 2"], "the newest record is of another commit"
    page = page_with(NOTHING, *records, records[0], one(5, settings={"rest_s": "1"}, created_utc="2026-01-01"))
    row = next(row for row in page.part("samples").rows if len(row) == 9 and row[0] == "fused")
    assert row[1:3] == ["4", "4 × 2"]
    assert "are combined: fused (4)." in page.sections["samples"]
    page = page_with(NOTHING, *[msgspec.structs.replace(record, dirty=True) for record in records])
    assert next(row for row in page.part("samples").rows if len(row) == 9 and row[0] == "fused")[1] == "1", (
        "a tree is no commit"
    )


def test_one_sample_has_neither_spread_nor_band():
    page = page_with(NOTHING, make(times=[[0.08]]))
    row = next(row for row in page.part("samples").rows if len(row) == 9 and row[0] == "baseline")
    assert row[3:6] == ["80.0 msone sample", "one process", "one sample"]
    assert "baseline: one sample, so no spread" in page.sections["samples"]


# Ceilings


def test_given_ceilings_come_before_tried_ones_and_published_peaks():
    gpu = "NVIDIA H100 80GB HBM3"
    tried = [Ceiling(gpu, "bfloat16", 7e14, "measured", "a trial")]
    found = ceilings_for(gpu, [Ceiling(gpu, MEMORY, 2.9e12, "measured", "a copy")], tried)
    assert (found[MEMORY].rate, found["bfloat16"].rate, found["e4m3"].kind) == (2.9e12, 7e14, "published")
    assert ceilings_for("some other card", [], tried) == {}
    assert all(one.rate > 1e12 and one.source for one in PUBLISHED)


def test_products_that_were_tried_are_rows_and_no_words():
    """Rows use the ops' names and the batch size; where a record has both forms, the name is not used."""
    row = TriedRow(
        what="first", kind="product", dtype="bfloat16", sizes=[64, 32, 16], batch=3, candidate=0, candidates=2
    )
    other = msgspec.structs.replace(row, what="second", kind="attention", sizes=[1, 2, 16, 64])
    trials = {"first": [None, 1e-6], "second": [1e-9], "99 x 99 x 99 bfloat16": [1e-12]}
    choices = dict.fromkeys(trials, "")
    record = msgspec.structs.replace(on_gpu("fused", 0.5), tried=[row, other], choices=choices, trials_s=trials)
    (found,) = tried_ceilings([record])
    assert found.rate == pytest.approx(2 * 3 * 64 * 32 * 16 / 1e-6)
    assert (found.what, "64 x 32 x 16" in found.source) == ("bfloat16", True)
    told = {"64 x 32 x 16 bfloat16 BIAS batch 3": "candidate 1 of 2, 1.0 us"}
    old = msgspec.structs.replace(record, tried=[], choices=told)
    assert tried_ceilings([old]) == [found]


def test_the_highest_rate_of_a_tried_product_is_a_ceiling():
    record = msgspec.structs.replace(
        on_gpu("fused", 1.0),
        choices={
            "1024 x 1024 x 1024 bfloat16 BIAS": "candidate 1 of 2, 20.0 us",
            "2048 x 1024 x 1024 bfloat16": "candidate 0 of 2",
            "not a product": "5 us",
        },
        trials_s={"2048 x 1024 x 1024 bfloat16": [None, 1e-5, 8e-6]},
    )
    (found,) = tried_ceilings([record, make()])
    assert (found.what, found.rate) == ("bfloat16", 2 * 2048 * 1024 * 1024 / 8e-6)
    assert "2048 x 1024 x 1024" in found.source


def test_the_floor_is_what_bytes_and_operations_need():
    study = survey(files_of(*evidence.ladder()), CONTEXT, Extras(ceilings=evidence.CEILINGS))
    floor = floor_of(study, study.ladders[0])
    assert floor is not None
    # norm_modulate and attention are bound by memory and by products; layer_norm and modulate are parts of the former.
    least = 1.27e6 / 2.9e12 + 1.23e9 / 5e13 + 3.4e8 / 5e13
    assert floor.time_s == pytest.approx(4 * least, rel=1e-6)
    assert floor.measured
    text = page_with(Extras(ceilings=evidence.CEILINGS)).sections
    assert "The floor, the minimum time with rates that were measured on this machine, is" in text["summary"]
    best = study.ladders[0].best
    took = units.time(summary_of(best.record).median)
    said = f"{units.percent(floor.share)} of the {took} of {best.label}."
    assert said.replace(units.NBSP, " ") in text["summary"]
    assert "the floor" in text["headline"]


def test_without_ceilings_there_is_no_floor_and_no_roofline():
    other = msgspec.structs.replace(on_gpu("fused", 1.0).machine, gpu="some other card")
    records = evidence.ladder(machine=other)
    page = page_with(NOTHING, *records)
    assert "No floor: op rows are missing, or a ceiling" in page.sections["headline"]
    assert "The memory rate of some other card is not known" in page.sections["roofline"]
    assert not any(text.startswith("Roofline") for text in page.figures)


def test_published_peaks_are_called_so():
    page = page_with(NOTHING)
    assert "data sheet" in page.sections["roofline"]
    assert "published peak" in page.sections["roofline"]
    assert "The floor, the minimum time with published peaks, is" in page.sections["summary"]


def test_the_roofline_has_a_dot_for_each_op_and_rung():
    page = page_with(Extras(ceilings=evidence.CEILINGS))
    figure = next(text for text in page.part("roofline").figures if text.startswith("Roofline"))
    for rung in CONTEXT.ladder:
        assert f"{rung.name}: " in figure
    assert "2.90 TB/s memory" in figure
    assert "50.0 TFLOP/s float32" in figure


def test_twins_get_no_roofline():
    assert "Host twins run on a CPU" in page_with(NOTHING, *twins()).sections["roofline"]


# Kernels, history, samples


def test_kernels_by_themselves_are_no_ladder():
    page = page_with(Extras(ceilings=evidence.CEILINGS), *evidence.ladder(), *evidence.kernels())
    row = page.row("layer_norm bfloat16", 5)
    assert row == ["layer_norm bfloat16", "21.5 µs21.0–22.0 µs", "1 × 3", "2.63 TB/s", "90.8 %"]
    assert "layer_norm bfloat16" not in page.sections["ladder"]


def test_history_shows_changes_and_lines():
    page = page_with(
        Extras(history=evidence.course(40), ceilings=evidence.CEILINGS), *evidence.ladder(), *evidence.peers()
    )
    figure = next(text for text in page.part("history").figures if text.startswith("Time to denoise over commits"))
    for line in (
        "published baseline 420 s",
        "target 10 s",
        "diffusers, published 3 s",
        "diffusers-compiled, measured",
        "floor",
    ):
        assert line in figure
    assert "40 commits" in figure
    found = [row for row in page.part("history").rows if row[0].startswith("schnell-1024 fused denoise")]
    rows = [row for row in found if row[1].startswith("0000")]
    assert len(rows) == 4, "the course has five levels"
    assert all(row[5].startswith("-") for row in rows)
    assert page.part("history").tags.count(("path", {"d": "x"})) == 0
    assert (
        len([attrs for tag, attrs in page.part("history").tags if tag == "svg" and attrs.get("class") == "spark"]) == 1
    )


def test_the_chart_draws_the_budget_that_times_may_just_reach():
    """A reference of 2 s with 5 %: the line is at 2.1 s, in the plot and in its text, with the newest value's share."""
    fixed = Fixed("v1", 0.05, [msgspec.structs.replace(evidence.points(1)[0], value=2.0)])
    past = history(columns_of(evidence.points(4)), Path("no checkout"), rules=Rules(fixed=[fixed]))
    (budget,) = past.series[0].budgets
    page = page_with(Extras(history=past))
    figure = next(text for text in page.part("history").figures if text.startswith("Time to denoise over commits"))
    assert f"fused's budget, {budget.used:.0%} used" in figure
    lines = _budget_lines(past.series)
    assert [(line.value, line.style) for line in lines] == [(pytest.approx(2.1), ":")]


def test_few_commits_are_not_searched_for_changes():
    text = page_with(Extras(history=evidence.course(3))).sections["history"]
    assert "fewer than 4 commits were not searched for changes" in text


def test_a_sample_is_marked_and_never_mixed_with_what_was_measured_here():
    here = files_of(*evidence.ladder(), path="here.jsonl")
    there = files_of(on_gpu("fused", 1.0, created_utc="2027-01-01T00:00:00Z"), path="there.jsonl")
    study = survey([*here, *there], CONTEXT, Extras(samples=frozenset({"there.jsonl"})))
    assert [(ladder.sample, len(ladder.measured)) for ladder in study.ladders] == [(False, 7), (True, 1)]
    assert len(study.views) == 2
    page = Parts([*here, *there], CONTEXT, Extras(samples=frozenset({"there.jsonl"})))
    assert "Sample: schnell-1024, GPU kernels" in page.sections["ladder"]
    assert "shown beside the measurements of this machine and never compared with them" in page.sections["ladder"]
    assert page.row("there.jsonl", 5)[0] == "there.jsonlsample"
    assert "sample: schnell-1024" in page.sections[""], "the switch says so too"


def test_the_switch_is_there_for_several_views_only():
    assert not any(tag == "select" for tag, _ in page_with(NOTHING, *twins()).tags)
    several = page_with(NOTHING, *twins(), *evidence.ladder())
    views = {attrs["data-view"] for tag, attrs in several.tags if "data-view" in attrs}
    options = {attrs["value"] for tag, attrs in several.tags if tag == "option"}
    assert options == {"", *views} == {"", "view-1", "view-2"}


def test_every_section_says_how_to_make_it_again():
    page = page_with(Extras(command="fluxperf report a.jsonl -o b.html"))
    for anchor in (
        "verdict",
        "machines",
        "headline",
        "ladder",
        "samples",
        "timeline",
        "ledger",
        "ops",
        "roofline",
        "raw",
    ):
        assert "Commands for this part" in page.sections[anchor]
    assert (
        "fluxperf run --workload schnell-1024 --all --processes 6 --repeat 3 -o FILE.jsonl" in page.sections["ladder"]
    )
    assert "fluxperf report a.jsonl -o b.html --timeline profiles/step.json" in page.sections["timeline"]
    page = page_with(Extras(command="fluxperf report a.jsonl --timeline x.json -o b.html"))
    assert "fluxperf report a.jsonl --timeline x.json -o b.html\n" in page.sections["timeline"]


def test_terms_of_sections_are_explained_on_the_page():
    page = page_with(NOTHING)
    targets = [attrs["popovertarget"] for tag, attrs in page.tags if "popovertarget" in attrs]
    asides = {attrs["id"] for tag, attrs in page.tags if tag == "aside"}
    assert len(targets) > 30
    assert set(targets) <= asides


def test_places_for_the_timeline_say_that_none_was_given():
    page = page_with(Extras(command="fluxperf report a.jsonl -o b.html"))
    for anchor in ("timeline", "gaps"):
        hint = page.sections[anchor].partition("Commands for this part")[0]
        assert "No timeline was given" in hint
        assert "fluxperf profile --workload schnell-1024 --rung fp8 -o profiles/step\n" in f"{hint}\n"
        assert "fluxperf report a.jsonl -o b.html --timeline profiles/step.json" in hint


def test_the_commands_of_a_timeline_are_those_of_the_quickest_rung_that_a_gpu_ran():
    sizes = workload("custom", height=64, width=96, text_tokens=5, steps=3)
    other = msgspec.structs.replace(sizes, batch=4, weights="synthetic (seed 3)")
    loaded = workload("schnell-1024", weights="FLUX.1-schnell (schnell)")
    asked = "--workload tiny --height 64 --width 96 --text-tokens 5 --steps 3"
    for records, words in (
        ([on_gpu("fused", 1.0), on_gpu("captured", 2.0)], "--workload schnell-1024 --rung fused"),
        ([on_gpu("fused", 1.0, workload=sizes)], f"{asked} --rung fused"),
        ([on_gpu("fused", 1.0, workload=other)], f"{asked} --batch 4 --seed 3 --rung fused"),
        ([on_gpu("fused", 1.0, workload=loaded)], "--workload schnell-1024 --weights DIR --rung fused"),
        (twins(), "--workload schnell-1024 --rung fp8"),
    ):
        study = survey(files_of(*records), CONTEXT)
        for anchor in ("timeline", "gaps"):
            assert commands(study, anchor)[0] == f"fluxperf profile {words} -o profiles/step"


def test_a_part_of_a_ladder_is_measured_again_without_the_rest():
    for records, words in (
        ([on_gpu("fused", 1.0), on_gpu("captured", 2.0)], "--rung fused --rung captured"),
        ([on_gpu(info.name, 1.0) for info in CONTEXT.ladder], "--all"),
    ):
        first, *_ = commands(survey(files_of(*records), CONTEXT), "ladder")
        assert first.startswith(f"fluxperf run --workload schnell-1024 {words} --processes")


def test_a_timeline_stands_in_its_parts():
    html = render(files_of(*evidence.ladder()), CONTEXT, Extras(timeline=captures.everything()))
    page = Page(html)
    assert "No timeline was given" not in html
    for anchor in ("timeline", "gaps"):
        assert len(page.sections[anchor]) > 500
    assert "Top kernels of the timeline" in page.sections["ops"]
    script = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html, "the policy allows the strip's script too"


def test_a_repair_says_whether_it_is_whole(tmp_path: Path) -> None:
    for level, said in ((1.0, "repaired"), (1.05, "repaired in part"), (1.2, "not repaired")):
        values = [value * (1 + n % 2 / 1000) for n, value in enumerate([1.0] * 8 + [1.2] * 8 + [level] * 8)]
        (series,) = history_of([point(n, value) for n, value in enumerate(values)], tmp_path).series
        assert said in [cell.text for cell in _change(series, series.changes[0], None)]
