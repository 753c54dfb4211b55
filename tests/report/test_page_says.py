"""The page's statements about records, and statements that it must not make."""

# The page writes ranges with an en dash and ratios with a multiplication sign.
# ruff: noqa: RUF001

from __future__ import annotations

from pathlib import Path

import msgspec

from fluxperf.harness.records import BlockRow, ErrorRow, LedgerRow, append_record, read_records
from fluxperf.harness.report import ledger
from fluxperf.harness.report.html import SECTIONS
from tests.report.pages import CONTEXT, H100, LAPTOP, RUNGS, Page, make, on_gpu, twins, workload
from tests.report.parts import Parts, page_of

# Statements


def ladders_of(page: Page | Parts) -> list[str]:
    ids = [str(attrs.get("id")) for tag, attrs in page.tags if tag == "article"]
    return [name for name in ids if name.startswith("ladder-")]


def test_factory_reproduces_the_known_counts():
    tiny, full = make().totals, on_gpu("baseline", 400.0).totals
    assert (tiny.d2h_copies, tiny.h2d_copies) == (116, 83)
    assert (full.d2h_copies, full.h2d_copies) == (1374, 955)


def test_sections_stand_in_their_order(twin_page: Page):
    anchors = [attrs["id"] for tag, attrs in twin_page.tags if tag == "section"]
    assert anchors == [*(section.anchor for section in SECTIONS), "words"]
    assert all(twin_page.sections[str(anchor)].strip() for anchor in anchors)


def test_a_section_by_itself_is_that_of_the_whole_page(twin_page: Page):
    parts = page_of(*twins())
    for section in SECTIONS:
        # The number before its title is its place on the page.
        alone, there = (page.sections[section.anchor].split(section.title, 1)[1] for page in (parts, twin_page))
        assert alone == there
    assert list(parts.rows) == twin_page.rows
    assert list(parts.figures) == twin_page.figures


def test_summary_answers_in_plain_words(twin_page: Page):
    text = twin_page.sections["summary"]
    assert "The baseline makes 116 copies down and 83 up in one forward" in text
    assert "every later rung makes none." in text
    assert "No record was measured on a GPU" in text
    assert "times say nothing about a GPU" in text


def test_summary_names_the_rungs_that_still_copy():
    text = page_of(make(), make("broadcast"), make("batched", copying=True)).sections["summary"]
    assert "still copy: batched 116 down and 83 up; the other later rungs make none." in text
    assert "every later rung" not in text


def test_every_rung_has_one_row_and_a_missing_one_says_so():
    page = page_of(*twins("tensorcore"))
    table = [row for row in page.rows if len(row) == 16]
    assert [row[0].split("Phase")[0].split("start")[0].split("beyond")[0] for row in table[1:]] == list(RUNGS)
    assert "no record" in page.row("tensorcore", 16)[2]
    assert "no tensorcore" in page.row("fused", 16)[2], "a speedup across a gap belongs to several changes"
    assert "no record of tensorcore" in page.sections["summary"]


def test_measured_numbers_are_on_the_page():
    page = page_of(make(times=[[0.0800, 0.0820, 0.0840]]), make("broadcast", times=[[0.0040, 0.0041, 0.0042]]))
    row = page.row("broadcast", 16)
    assert row[1] == "10–20×"
    assert row[2].startswith("20.0×")
    assert "19.0–21.0×" in row[2]
    assert row[4].startswith("4.10 ms")
    assert "4.00–4.20 ms" in row[4]
    assert row[6].startswith("1 × 3")
    base = page.row("baseline", 16)
    assert base[7:11] == ["116", "83", "1.90 MB", "1.36 MB"]
    assert base[11:15] == ["174", "—", "116", "25.6 MB"]
    assert row[15] == "3.10e-06"
    assert "errors are against float64 oracle" in page.sections["ladder"]


def test_errors_against_several_references_name_them_in_each_row():
    page = page_of(make(), make("broadcast", error=ErrorRow(relative=1e-3, against="diffusers")))
    assert page.row("broadcast", 16)[15] == "1.00e-03against diffusers"
    same = ErrorRow(relative=1e-3, against="rung batched (float32) of the same run, final latents")
    page = page_of(make(), make("broadcast", error=same))
    assert page.row("broadcast", 16)[15] == "1.00e-03against rung batched (float32) of the same run"


def test_a_single_sample_is_shown_as_one():
    page = page_of(make(times=[[0.08]]), make("broadcast", times=[[0.004]]))
    row = page.row("broadcast", 16)
    assert row[6] == "1"
    assert "one sample" in row[4]
    assert "one sample" in row[2]
    assert "One sample only, so no spread" in page.sections["summary"]


def test_a_record_without_times_says_so():
    page = page_of(make(), make("broadcast", times_s={}))
    assert page.row("broadcast", 16)[4] == "no time"
    assert "No denoise time" in page.sections["summary"]


def test_every_time_of_a_twin_is_marked(twin_page: Page, gpu_page: Parts):
    for rung in RUNGS:
        row = twin_page.row(rung, 16)
        assert "twin" in row[4]
        assert "twin" in row[5]
    assert "Host twin: copies and errors are valid" in twin_page.sections["ladder"]
    assert "twin" not in "".join(cell for rung in RUNGS for cell in gpu_page.row(rung, 16))
    observed = [row for row in twin_page.rows if len(row) == 8 and row[0] == "linear" and row[3].isdigit()]
    assert observed
    assert all("twin" in row[4] for row in observed)


def test_a_twin_gets_no_verdict_on_an_expected_gpu_speedup(twin_page: Page, gpu_page: Parts):
    assert twin_page.row("Phase 1", 7)[5] == "not measured on a GPU"
    assert gpu_page.row("Phase 1", 7)[5] == "as expected"


def test_newest_record_of_a_rung_is_used_and_the_others_are_counted():
    old = make(times=[[9.0]], created_utc="2026-07-26T13:00:00+02:00")
    new = make(times=[[1.0]], created_utc="2026-07-26T11:30:00Z")
    row = page_of(new, old).row("baseline", 16)
    assert row[4].startswith("1.00 s"), "11:30 UTC is later than 13:00 at +02:00"
    assert "newest of 2" in row[6]


def test_equal_or_unreadable_times_fall_back_to_the_order_of_the_file():
    first, second = make(times=[[9.0]], created_utc="?"), make(times=[[1.0]], created_utc="?")
    assert page_of(first, second).row("baseline", 16)[4].startswith("1.00 s")


def test_machines_and_ways_have_their_own_ladders():
    other = msgspec.structs.replace(LAPTOP, cpu="Intel Xeon 8488C")
    page = page_of(make(), make(machine=other), make("broadcast"), make("broadcast", machine=H100, ran_as="kernel"))
    assert len(ladders_of(page)) == 3
    text = page.sections["machines"]
    assert "tiny was measured on 3 machines" in text
    assert "not compared" in text


def test_other_sizes_under_one_name_are_another_ladder():
    page = page_of(make(), make("broadcast", workload=workload(steps=1)))
    assert len(ladders_of(page)) == 2
    assert "1 step," in page.sections["ladder"]


def test_commits_dirty_trees_and_settings_are_said():
    page = page_of(
        make(settings={"clock": "a"}),
        make("broadcast", commit="b" * 40, settings={"clock": "b"}),
        make("batched", dirty=True, commit=None),
    )
    text = page.sections["machines"]
    assert "come from 3 commits" in text
    assert "uncommitted changes: batched" in text
    assert "whether its tree was clean: batched" in text
    assert "setting clock differs between rungs (a, b and not set)" in text


def test_ladders_of_one_workload_from_several_commits_are_said():
    page = page_of(make(), make(machine=msgspec.structs.replace(LAPTOP, cpu="other"), commit="b" * 40))
    assert "tiny: its ladders come from 2 commits (3f2c9d81a0 and bbbbbbbbbb)" in page.sections["machines"]


def test_one_clean_machine_is_said_to_be_comparable(twin_page: Page):
    assert "rungs can be compared" in twin_page.sections["machines"]


def test_problems_of_the_files_stand_at_the_top(tmp_path: Path):
    path = tmp_path / "records.jsonl"
    append_record(path, make())
    with path.open("ab") as file:
        file.write(b'{"schema":1,"created')
    page = Parts([read_records(path)])
    text = page.sections["summary"]
    assert "the last line is incomplete" in text
    assert text.index("incomplete") < text.index("The baseline makes")


def test_many_problems_are_counted_not_all_listed():
    text = page_of(make(), problems=tuple(f"line {number}: torn" for number in range(1000))).sections["summary"]
    assert "line 19: torn" in text
    assert "line 20: torn" not in text
    assert "980 more problems." in text


def test_published_copies_are_judged_only_for_the_full_model(twin_page: Page, gpu_page: Parts):
    assert twin_page.row("tiny", 5)[4].startswith("other model")
    assert gpu_page.row("schnell-1024", 5)[4] == "equal"
    worse = on_gpu("baseline", 400.0)
    worse = msgspec.structs.replace(worse, totals=msgspec.structs.replace(worse.totals, d2h_copies=1375))
    page = page_of(worse)
    assert page.row("schnell-1024", 5)[4] == "not equal+1 down, +0 up"
    assert "does not equal" in page.sections["summary"]


def test_a_model_with_guidance_makes_one_more_copy_each_way():
    published = CONTEXT.published._replace(guided=("dev",))
    guided = on_gpu("baseline", 400.0, workload=workload("schnell-1024", model="dev"))
    totals = msgspec.structs.replace(guided.totals, d2h_copies=1375, h2d_copies=956)
    guided = msgspec.structs.replace(guided, totals=totals)
    page = page_of(guided, context=CONTEXT._replace(published=published))
    assert page.row("schnell-1024", 5)[4] == "equal"
    assert "equals the published one (1,375 down, 956 up)" in page.sections["summary"]


def test_published_times_stand_beside_a_gpu_only(twin_page: Page, gpu_page: Parts):
    assert twin_page.row("4 steps", 5)[1:] == ["420 s", "3 s", "140×", "no GPU record"]
    assert gpu_page.row("4 steps", 5)[4].startswith("422 s")
    assert twin_page.row("layer_norm", 3)[1:] == ["15 ms", "no GPU record"]


def test_ledger_lists_the_copies_by_label_and_what_later_rungs_still_make():
    stays = msgspec.structs.replace(
        make("broadcast"),
        ledger=[LedgerRow(direction="d2h", label="rope", op="apply_rope", count=4, bytes=64, section="double")],
    )
    page = page_of(make(), stays)
    row = page.row("second half", 7)
    assert row == ["second half", "down", "modulate", "double", "24", "393 kB", "0"]
    assert page.row("rope", 7)[6] == "4in broadcast"
    assert "broadcast: the ledger does not add up" in page.sections["ledger"]


def test_copies_per_block_say_whether_all_are_equal(twin_page: Page):
    assert twin_page.row("baseline", 7)[2] == "38 down / 28 upeach of 2, all equal"
    row = BlockRow(section="double", index=0, d2h_copies=38, h2d_copies=28, d2h_bytes=0, h2d_bytes=0)
    cell = ledger.block_cell([row, msgspec.structs.replace(row, d2h_copies=40)])
    assert cell.text == "38–40 down / 28 up"
    assert cell.note == "range over 2, not all equal"


def test_twin_times_are_never_on_the_progress_axis():
    full = [msgspec.structs.replace(on_gpu(rung, 7.77), ran_as="twin", machine=LAPTOP) for rung in RUNGS]
    page = page_of(*full)
    figure = next(text for text in page.part("headline").figures if "published baseline toward" in text)
    assert "7.7" not in figure
    assert "no GPU record of schnell-1024" in figure
    assert "420 s" in figure


def test_progress_shows_gpu_records_of_the_headline_workload_only(gpu_page: Parts):
    figure = next(text for text in gpu_page.part("headline").figures if "published baseline toward" in text)
    assert "2.15 s" in figure
    assert "No GPU record" not in figure
    tiny = page_of(make(machine=H100, ran_as="kernel", times=[[7.77]]))
    assert "7.77" not in next(text for text in tiny.part("headline").figures if "published baseline toward" in text)


def test_peers_are_drawn_and_listed():
    peer = on_gpu("compiled", 3.3, implementation="diffusers", ran_as="peer")
    page = page_of(on_gpu("fused", 4.61), peer)
    assert "peers on NVIDIA H100" in page.sections["ladder"]
    figure = next(text for text in page.part("headline").figures if "published baseline toward" in text)
    assert "compiled" in figure
    text = page.sections["summary"]
    assert "No peer was measured" not in text
    assert "Measured under the same conditions, diffusers (compiled) takes 3.34 s (95 %: 3.31–3.36 s), 0.716×" in text
    assert "our 4.66 s with fused." in text
    row = page.row("diffusers (compiled)", 6)
    assert row[1:3] == ["3.34 s95 %: 3.31–3.36 s", "4.66 sfused, 95 %: 4.62–4.70 s"]
    assert "95 %" in row[3], "six processes of each give an interval"


def test_peers_measured_in_another_way_are_not_compared():
    peer = on_gpu("compiled", 3.3, implementation="diffusers", ran_as="peer", settings={"rest_s": "1"})
    page = page_of(on_gpu("fused", 4.61), peer)
    assert (
        "Not compared, as no record of ours was measured under the same conditions: diffusers (compiled)."
        in page.sections["headline"]
    )
    assert "Measured under the same conditions" not in page.sections["summary"]
    rested = on_gpu("fused", 4.2, settings={"rest_s": "1"}, created_utc="2026-07-25T12:00:00Z")
    page = page_of(rested, on_gpu("fused", 4.61), peer)
    assert page.row("diffusers (compiled)", 6)[2].startswith("4.25 s"), "the older record is the one that rested"
    assert "our 4.25 s with fused (from another record than the 4.66 s above)." in page.sections["summary"]


def test_gpu_answer_names_time_speedup_and_target(gpu_page: Parts):
    text = gpu_page.sections["summary"]
    assert "fp8 takes 2.15 s" in text
    assert "196×" in text
    assert "the target of 10 s is met" in text
    assert "equals the published one (1,374 down, 955 up)" in text


def test_every_plot_has_words_and_a_name(twin_page: Page):
    plots_ = [attrs for tag, attrs in twin_page.tags if tag == "svg"]
    assert len(plots_) == 5
    names = {attrs.get("id") for _, attrs in twin_page.tags}
    for attrs in plots_:
        assert attrs["role"] == "img"
        assert set(str(attrs["aria-labelledby"]).split()) <= names
    assert sum(text.count("This plot in words") for text in twin_page.sections.values()) == len(plots_)
    assert twin_page.sections["ladder"].count("This plot in words") == 2
    assert "broadcast saves" in twin_page.sections["ladder"]


def test_tables_sort_from_the_keyboard(twin_page: Page):
    tags = [tag for tag, _ in twin_page.tags]
    assert tags.count("button") > 60
    assert all(attrs.get("type") == "button" for tag, attrs in twin_page.tags if tag == "button")
    orders = [attrs["data-order"] for _, attrs in twin_page.tags if "data-order" in attrs]
    assert all(float(str(order)) >= 0 for order in orders)


def test_phase_table_marks_only_what_changed(twin_page: Page):
    row = next(row for row in twin_page.rows if row[:2] == ["layer_norm", "roundtrip"])
    assert row == ["layer_norm", "roundtrip", "primitiveschanged", *["primitives"] * 5]


def test_ids_are_unique(twin_page: Page):
    ids = [attrs["id"] for _, attrs in twin_page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_no_records_at_all_still_give_a_page():
    page = Parts([])
    assert "There is no record in these files." in page.sections["summary"]


def test_witness_that_disagrees_is_said():
    record = make()
    page = page_of(
        msgspec.structs.replace(record, witness=record.totals),
        msgspec.structs.replace(make("broadcast"), witness=record.totals),
    )
    assert "counted the same copies and bytes: baseline." in page.sections["ladder"]
    assert "broadcast: the witness and the ledger counted different copies" in page.sections["ladder"]


def test_peculiar_numbers_do_not_break_the_page():
    odd = make("fp8", times=[[0.0]], error=ErrorRow(relative=float("nan"), against="oracle"))
    page = page_of(make(), odd)
    assert page.row("fp8", 16)[15].startswith("not finite")
    assert page.row("fp8", 16)[4] == "no time"


def test_a_phase_of_the_mission_says_which_ops_made_its_speedup():
    def timed(rung: str, seconds: float, **by_op: float):
        record = on_gpu(rung, seconds)
        ops = [msgspec.structs.replace(record.ops[0], op=op, within="", time_s=time) for op, time in by_op.items()]
        within = msgspec.structs.replace(record.ops[0], op="softmax", within="attention", time_s=2.0)
        return msgspec.structs.replace(record, ops=[*ops, within])

    before = timed("baseline", 400.0, attention=48.0, modulate=9.0, gelu=1.0, linear=0.5)
    after = timed("broadcast", 8.0, attention=1.0, modulate=0.5, gelu=1.0, linear=0.4)
    text = page_of(before, after).sections["ladder"]
    assert "attention 50.0 s to 3.00 s; modulate 9.00 s to 500 ms; linear 500 ms to 400 ms" in text.replace("\xa0", " ")
    assert "gelu 1.00" not in text.replace("\xa0", " ")


def test_what_a_rung_changes_stands_below_the_table_and_not_in_it(twin_page: Page):
    (head,) = {tuple(row) for row in twin_page.rows if row[:2] == ["Rung", "Expected"]}
    assert "What changes" not in head
    text = twin_page.sections["ladder"]
    assert "What each rung changes" in text
    for info in CONTEXT.ladder:
        assert info.change in text


def test_costs_that_were_published_stand_beside_those_of_a_gpu_baseline():
    baseline = on_gpu("baseline", 400.0)
    assert page_of(baseline).row("one block", 5)[4] == "not measured by block"
    blocks = [msgspec.structs.replace(row, time_s=1.5 if row.section == "double" else 0.5) for row in baseline.blocks]
    page = page_of(msgspec.structs.replace(baseline, blocks=blocks))
    assert page.row("one block", 5)[4] == "1.50 sdouble block; single block 500 ms"
    name, published, ours = page.row("layer_norm", 3)
    assert name == "layer_normnumpy"
    assert published.startswith("15")
    calls = sum(row.count for row in baseline.ops if row.op == "layer_norm")
    assert calls
    assert f"of {calls}" in ours
    assert page_of(make()).row("one block", 5)[4] == "no GPU record"


def test_copies_without_an_op_are_named():
    rows = [
        *make().ledger,
        LedgerRow(direction="h2d", label="double.result", op="", count=2, bytes=8, section="double"),
    ]
    page = page_of(make(ledger=rows), make("broadcast"))
    assert "(empty)" not in page.sections["ledger"]
    assert page.row("(outside ops)", 6)[:3] == ["(outside ops)results of sections", "0", "2"]


def test_a_rung_that_is_as_quick_as_the_one_before_is_not_called_slower():
    text = page_of(on_gpu("fused", 1.0), on_gpu("captured", 1.001)).sections["summary"]
    assert "the time of fused" not in text
    assert "the time of fused" in page_of(on_gpu("fused", 1.0), on_gpu("captured", 1.1)).sections["summary"]
