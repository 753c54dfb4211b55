"""The report from synthetic records: what it says, what it refuses to say, and what hostile text cannot do to it."""

# The page writes ranges with an en dash and ratios with a multiplication sign.
# ruff: noqa: RUF001

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import stat
import time
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluxperf.errors import RecordError
from fluxperf.harness.records import (
    BlockRow,
    ErrorRow,
    LedgerRow,
    Machine,
    OpRow,
    Record,
    RecordsFile,
    Totals,
    WorkloadRow,
    append_record,
    read_records,
)
from fluxperf.harness.report import ledger, plots, summary, units
from fluxperf.harness.report.escape import drawn, neutral, script_json, shown
from fluxperf.harness.report.html import SECTIONS, render, write
from fluxperf.harness.report.inputs import Context, PhaseInfo, Published, RungInfo
from fluxperf.harness.report.study import samples_of, speedup, summary_of, survey

RUNGS = ("baseline", "broadcast", "batched", "tensorcore", "fused", "captured", "fp8")

CONTEXT = Context(
    ladder=(
        RungInfo("baseline", "start", "numpy round trips, batched matmul as a loop over heads, float32", None),
        RungInfo("broadcast", "Phase 1", "elementwise ops stay on the GPU: no copy in the forward", (10.0, 20.0)),
        RungInfo("batched", "Phase 2", "batched matmul is one strided-batched call", (1.2, 2.0)),
        RungInfo("tensorcore", "Phase 2", "bfloat16 operands, float32 accumulation", (1.5, 2.5)),
        RungInfo("fused", "Phase 3", "fused elementwise ops, flash attention", (1.5, 2.0)),
        RungInfo("captured", "beyond", "what does not depend on the image leaves the step; CUDA graph", None),
        RungInfo("fp8", "beyond", "e4m3 matrix products, quantization in the producing kernels", None),
    ),
    phases=(
        PhaseInfo("Phase 1", "baseline", "broadcast", (10.0, 20.0)),
        PhaseInfo("Phase 2", "broadcast", "tensorcore", (2.0, 3.0)),
        PhaseInfo("Phase 3", "tensorcore", "fused", (1.5, 2.0)),
    ),
    published=Published(
        baseline_s=420.0,
        peer_s=3.0,
        peer_name="diffusers",
        target_s=10.0,
        baseline_block_s=0.517,
        peer_block_s=0.005,
        d2h_copies=1374,
        h2d_copies=955,
        named_costs=(("batched_matmul", 0.058), ("layer_norm", 0.015), ("gated_residual", 0.011), ("modulate", 0.009)),
        source="the implementation's own published source and notes",
    ),
    headline_workload="schnell-1024",
    command="fluxperf run --all --workload tiny -o tiny.jsonl",
)

LAPTOP = Machine(
    gpu=None,
    driver=None,
    cuda=None,
    cupy=None,
    cudnn=None,
    cpu="AMD EPYC 9R14",
    cores=16,
    memory_bytes=64 * 10**9,
    python="3.11.7",
    numpy="2.4.6",
    os="Linux 6.1",
)
H100 = msgspec.structs.replace(
    LAPTOP, gpu="NVIDIA H100 80GB HBM3", driver="580.95", cuda="13.0", cupy="14.0", cudnn="9.12"
)

# Copies of one block of the baseline: label, op, down, up. They add up to 38/28, 17/11, 2/2 and 4/3.
COPIES: dict[str, tuple[tuple[str, str, int, int], ...]] = {
    "embed": (("temb", "silu_linear", 2, 2),),
    "double": (
        ("adaln", "norm_modulate", 6, 12),
        ("concat", "concat_tokens", 6, 3),
        ("rope", "apply_rope", 6, 2),
        ("attention scale", "scale", 1, 1),
        ("split", "split_tokens", 1, 2),
        ("gate", "gated_residual", 6, 0),
        ("second half", "modulate", 12, 6),
        ("result", "add_broadcast", 0, 2),
    ),
    "single": (
        ("entry", "concat_tokens", 2, 0),
        ("before adaln", "norm_modulate", 0, 1),
        ("adaln", "norm_modulate", 3, 3),
        ("rope", "apply_rope", 6, 2),
        ("attention scale", "scale", 1, 1),
        ("halves", "gated_residual", 5, 0),
        ("joined", "concat_tokens", 0, 2),
        ("result", "add_broadcast", 0, 2),
    ),
    "final": (("final norm", "layer_norm", 4, 3),),
}


def workload(name: str = "tiny", **changes: Any) -> WorkloadRow:
    sizes = (1024, 512) if name == "schnell-1024" else (64, 7)
    row = WorkloadRow(
        name=name,
        model="schnell" if name == "schnell-1024" else "tiny",
        height=sizes[0],
        width=sizes[0],
        text_tokens=sizes[1],
        steps=4,
        batch=1,
        weights="synthetic (seed 0)",
    )
    return msgspec.structs.replace(row, **changes)


def rows_of(blocks: tuple[int, int], *, copying: bool) -> tuple[list[BlockRow], list[LedgerRow]]:
    """Blocks and ledger of one forward with so many double and single blocks."""
    size = 16384
    counts = {"embed": 1, "double": blocks[0], "single": blocks[1], "final": 1}
    rows, entries = [], []
    for section, number in counts.items():
        down = sum(row[2] for row in COPIES[section]) if copying else 0
        up = sum(row[3] for row in COPIES[section]) if copying else 0
        rows += [
            BlockRow(
                section=section, index=i, d2h_copies=down, h2d_copies=up, d2h_bytes=down * size, h2d_bytes=up * size
            )
            for i in range(number)
        ]
        if copying:
            for label, op, *pair in COPIES[section]:
                entries += [
                    LedgerRow(
                        direction=way, label=label, op=op, count=n * number, bytes=n * number * size, section=section
                    )
                    for way, n in zip(("d2h", "h2d"), pair, strict=True)
                    if n
                ]
    return rows, entries


def totals_of(entries: list[LedgerRow], **changes: Any) -> Totals:
    def total(way: str, field: str) -> int:
        return sum(getattr(row, field) for row in entries if row.direction == way)

    row = Totals(
        d2h_copies=total("d2h", "count"),
        h2d_copies=total("h2d", "count"),
        d2h_bytes=total("d2h", "bytes"),
        h2d_bytes=total("h2d", "bytes"),
        launches=None,
        syncs=total("d2h", "count"),
        peak_bytes=25_600_000,
        allocations=812,
        op_calls=174,
    )
    return msgspec.structs.replace(row, **changes)


def implementations(rung: str) -> dict[str, str]:
    level = RUNGS.index(rung) if rung in RUNGS else 0
    table = {
        "layer_norm": ("roundtrip", "primitives", 1),
        "modulate": ("roundtrip", "primitives", 1),
        "concat_tokens": ("roundtrip", "primitives", 1),
        "batched_matmul": ("loop", "batched", 2),
        "linear": ("float32", "bfloat16", 3),
        "norm_modulate": ("composed", "fused", 4),
        "attention": ("composed", "flash", 4),
    }
    return {op: later if level >= at else first for op, (first, later, at) in table.items()}


def make(
    rung: str = "baseline",
    *,
    times: list[list[float]] | None = None,
    blocks: tuple[int, int] = (2, 2),
    copying: bool | None = None,
    **changes: Any,
) -> Record:
    """One record: a host twin of ``tiny`` unless told otherwise, with the baseline's copies at the baseline."""
    rows, entries = rows_of(blocks, copying=rung == "baseline" if copying is None else copying)
    level = RUNGS.index(rung) if rung in RUNGS else 0
    times = times or [[0.0812 / (1 + level) + 0.0007 * p + 0.0001 * i for i in range(5)] for p in range(3)]
    ops = [
        OpRow(op="norm_modulate", count=12, time_s=0.0041, bytes=1_270_000, flops=900_000, section="double"),
        OpRow(
            op="layer_norm",
            count=12,
            time_s=0.0023,
            bytes=830_000,
            flops=500_000,
            section="double",
            within="norm_modulate",
        ),
        OpRow(
            op="modulate",
            count=12,
            time_s=0.0015,
            bytes=440_000,
            flops=400_000,
            section="double",
            within="norm_modulate",
        ),
        OpRow(op="linear", count=38, time_s=0.0062, bytes=4_100_000, flops=1_230_000_000, section="double"),
        OpRow(op="attention", count=4, time_s=0.0054, bytes=2_300_000, flops=340_000_000, section="single"),
    ]
    record = Record(
        created_utc="2026-07-26T12:00:00Z",
        fluxperf="0.1.0",
        commit="3f2c9d81a0b4e6f7c8d9e0f1a2b3c4d5e6f70819",
        dirty=False,
        machine=LAPTOP,
        workload=workload(),
        implementation="fluxperf",
        rung=rung,
        ran_as="twin",
        phase_table=implementations(rung),
        times_s={"denoise": times, "step": [[value / 4 for value in samples] for samples in times]},
        totals=totals_of(entries),
        setup_totals=totals_of([], h2d_copies=97, h2d_bytes=12_400_000, syncs=0),
        blocks=rows,
        ledger=entries,
        ops=ops,
        error=ErrorRow(relative=0.0 if rung == "baseline" else 3.1e-7 * 10**level, against="float64 oracle"),
    )
    return msgspec.structs.replace(record, **changes)


def on_gpu(rung: str, seconds: float, **changes: Any) -> Record:
    """One record of the headline workload that a GPU ran."""
    times = [[seconds * (1 + 0.004 * p + 0.001 * i) for i in range(3)] for p in range(6)]
    options: dict[str, Any] = {
        "machine": H100,
        "workload": workload("schnell-1024"),
        "ran_as": "kernel",
        "blocks": (19, 38),
        "times": times,
    }
    record = make(rung, **(options | changes))
    return msgspec.structs.replace(record, totals=msgspec.structs.replace(record.totals, launches=9120))


def files_of(*records: Record, problems: tuple[str, ...] = (), path: str = "tiny.jsonl") -> list[RecordsFile]:
    return [RecordsFile(path, list(records), list(problems))]


def twins(*without: str) -> list[Record]:
    return [make(rung) for rung in RUNGS if rung not in without]


GPU_SECONDS = dict(zip(RUNGS, (417.0, 31.2, 17.9, 8.4, 4.61, 3.07, 2.13), strict=True))


class Page(HTMLParser):
    """A page as elements, text by section and rows of its tables."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.rows: list[list[str]] = []
        self.figures: list[str] = []
        self._section = ""
        self._inside: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        if tag == "svg":
            self.figures.append("")
        if tag in ("td", "th", "svg", "script", "style"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "section":
            self._section = ""
        if self._inside and tag == self._inside[-1]:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        where = self._inside[-1] if self._inside else ""
        if where in ("td", "th"):
            self.rows[-1][-1] += data.replace(units.NBSP, " ")
        if where == "svg":
            self.figures[-1] += data.replace(units.NBSP, " ")
        if where not in ("script", "style"):
            text = data.replace(units.NBSP, " ")
            self.sections[self._section] = self.sections.get(self._section, "") + text

    def row(self, first: str, width: int) -> list[str]:
        """The row of ``width`` cells whose first cell begins with ``first``."""
        return next(row for row in self.rows if len(row) == width and row[0].startswith(first))


def page_of(*records: Record, context: Context = CONTEXT, problems: tuple[str, ...] = ()) -> Page:
    return Page(render(files_of(*records, problems=problems), context))


@pytest.fixture(scope="module")
def twin_html() -> str:
    return render(files_of(*twins()), CONTEXT)


@pytest.fixture(scope="module")
def twin_page(twin_html: str) -> Page:
    return Page(twin_html)


@pytest.fixture(scope="module")
def gpu_page() -> Page:
    return page_of(*[on_gpu(rung, seconds) for rung, seconds in GPU_SECONDS.items()])


# What the page says


def test_factory_reproduces_the_known_counts():
    tiny, full = make().totals, on_gpu("baseline", 400.0).totals
    assert (tiny.d2h_copies, tiny.h2d_copies) == (116, 83)
    assert (full.d2h_copies, full.h2d_copies) == (1374, 955)


def test_sections_stand_in_their_order(twin_page: Page):
    anchors = [attrs["id"] for tag, attrs in twin_page.tags if tag == "section"]
    assert anchors == [section.anchor for section in SECTIONS]
    assert all(twin_page.sections[str(anchor)].strip() for anchor in anchors)


def test_summary_answers_in_plain_words(twin_page: Page):
    text = twin_page.sections["summary"]
    assert "The baseline makes 116 copies down and 83 up in one forward" in text
    assert "every later rung makes none." in text
    assert "No record ran on a GPU" in text
    assert "not how fast a GPU is" in text


def test_summary_names_the_rungs_that_still_copy():
    text = page_of(make(), make("broadcast"), make("batched", copying=True)).sections["summary"]
    assert "still copy: batched 116 down and 83 up; the other later rungs make none." in text
    assert "every later rung" not in text


def test_every_rung_has_one_row_and_a_missing_one_says_so():
    page = page_of(*twins("tensorcore"))
    table = [row for row in page.rows if len(row) == 17]
    assert [row[0].split("Phase")[0].split("start")[0].split("beyond")[0] for row in table[1:]] == list(RUNGS)
    assert "no record" in page.row("tensorcore", 17)[3]
    assert "no tensorcore" in page.row("fused", 17)[3], "a speedup across a gap belongs to several changes"
    assert "no record of tensorcore" in page.sections["summary"]


def test_measured_numbers_are_on_the_page():
    page = page_of(make(times=[[0.0800, 0.0820, 0.0840]]), make("broadcast", times=[[0.0040, 0.0041, 0.0042]]))
    row = page.row("broadcast", 17)
    assert row[2] == "10–20×"
    assert row[3].startswith("20.0×")
    assert "19.0–21.0×" in row[3]
    assert row[5].startswith("4.10 ms")
    assert "4.00–4.20 ms" in row[5]
    assert row[7].startswith("1 × 3")
    base = page.row("baseline", 17)
    assert base[8:12] == ["116", "83", "1.90 MB", "1.36 MB"]
    assert base[12:16] == ["174", "—", "116", "25.6 MB"]
    assert row[16] == "3.10e-06"
    assert "errors are against float64 oracle" in page.sections["ladder"]


def test_errors_against_several_references_name_them_in_each_row():
    page = page_of(make(), make("broadcast", error=ErrorRow(relative=1e-3, against="diffusers")))
    assert page.row("broadcast", 17)[16] == "1.00e-03against diffusers"


def test_a_single_sample_is_shown_as_one():
    page = page_of(make(times=[[0.08]]), make("broadcast", times=[[0.004]]))
    row = page.row("broadcast", 17)
    assert row[7] == "1"
    assert "one sample" in row[5]
    assert "one sample" in row[3]
    assert "One sample only, so no spread" in page.sections["summary"]


def test_a_record_without_times_says_so():
    page = page_of(make(), make("broadcast", times_s={}))
    assert page.row("broadcast", 17)[5] == "no time"
    assert "No denoise time" in page.sections["summary"]


def test_every_time_of_a_twin_is_marked(twin_page: Page, gpu_page: Page):
    for rung in RUNGS:
        row = twin_page.row(rung, 17)
        assert "twin" in row[5]
        assert "twin" in row[6]
    assert "Host twin: says what crosses" in twin_page.sections["ladder"]
    assert "twin" not in "".join(cell for rung in RUNGS for cell in gpu_page.row(rung, 17))
    observed = [row for row in twin_page.rows if len(row) == 8 and row[0] == "linear" and row[3].isdigit()]
    assert observed
    assert all("twin" in row[4] for row in observed)


def test_a_twin_gets_no_verdict_on_an_expected_gpu_speedup(twin_page: Page, gpu_page: Page):
    assert twin_page.row("Phase 1", 6)[5] == "not a GPU's time"
    assert gpu_page.row("Phase 1", 6)[5] == "as expected"


def test_newest_record_of_a_rung_is_used_and_the_others_are_counted():
    old = make(times=[[9.0]], created_utc="2026-07-26T13:00:00+02:00")
    new = make(times=[[1.0]], created_utc="2026-07-26T11:30:00Z")
    row = page_of(new, old).row("baseline", 17)
    assert row[5].startswith("1.00 s"), "11:30 UTC is later than 13:00 at +02:00"
    assert "newest of 2 records" in row[7]


def test_equal_or_unreadable_times_fall_back_to_the_order_of_the_file():
    first, second = make(times=[[9.0]], created_utc="?"), make(times=[[1.0]], created_utc="?")
    assert page_of(first, second).row("baseline", 17)[5].startswith("1.00 s")


def test_machines_and_ways_have_their_own_ladders():
    other = msgspec.structs.replace(LAPTOP, cpu="Intel Xeon 8488C")
    page = page_of(make(), make(machine=other), make("broadcast"), make("broadcast", machine=H100, ran_as="kernel"))
    assert len([attrs for tag, attrs in page.tags if tag == "article" and "id" in attrs]) == 3
    text = page.sections["machines"]
    assert "tiny was measured on 3 machines" in text
    assert "not compared" in text


def test_other_sizes_under_one_name_are_another_ladder():
    page = page_of(make(), make("broadcast", workload=workload(steps=1)))
    titles = [attrs for tag, attrs in page.tags if tag == "article" and "id" in attrs]
    assert len(titles) == 2
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
    assert "not recorded: batched" in text
    assert "setting clock differs between rungs (a, b and not set)" in text


def test_ladders_of_one_workload_from_several_commits_are_said():
    page = page_of(make(), make(machine=msgspec.structs.replace(LAPTOP, cpu="other"), commit="b" * 40))
    assert "tiny: its ladders come from 2 commits (3f2c9d81a0 and bbbbbbbbbb)" in page.sections["machines"]


def test_one_clean_machine_is_said_to_be_comparable(twin_page: Page):
    assert "rungs may be compared" in twin_page.sections["machines"]


def test_problems_of_the_files_stand_at_the_top(tmp_path: Path):
    path = tmp_path / "records.jsonl"
    append_record(path, make())
    with path.open("ab") as file:
        file.write(b'{"schema":1,"created')
    page = Page(render([read_records(path)], CONTEXT))
    text = page.sections["summary"]
    assert "the last line is torn" in text
    assert text.index("torn") < text.index("The baseline makes")


def test_many_problems_are_counted_not_all_listed():
    text = page_of(make(), problems=tuple(f"line {number}: torn" for number in range(1000))).sections["summary"]
    assert "line 19: torn" in text
    assert "line 20: torn" not in text
    assert "980 more problems." in text


def test_published_copies_are_judged_only_for_the_full_model(twin_page: Page, gpu_page: Page):
    assert twin_page.row("tiny", 5)[4].startswith("other model")
    assert gpu_page.row("schnell-1024", 5)[4] == "equal"
    worse = on_gpu("baseline", 400.0)
    worse = msgspec.structs.replace(worse, totals=msgspec.structs.replace(worse.totals, d2h_copies=1375))
    page = page_of(worse)
    assert page.row("schnell-1024", 5)[4] == "not equal+1 down, +0 up"
    assert "does not equal" in page.sections["summary"]


def test_published_times_stand_beside_a_gpu_only(twin_page: Page, gpu_page: Page):
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
    figure = next(text for text in page.figures if "published baseline toward" in text)
    assert "7.7" not in figure
    assert "No GPU record of schnell-1024" in figure
    assert "420 s" in figure


def test_progress_shows_gpu_records_of_the_headline_workload_only(gpu_page: Page):
    figure = next(text for text in gpu_page.figures if "published baseline toward" in text)
    assert "2.15 s" in figure
    assert "No GPU record" not in figure
    tiny = page_of(make(machine=H100, ran_as="kernel", times=[[7.77]]))
    assert "7.77" not in next(text for text in tiny.figures if "published baseline toward" in text)


def test_peers_are_drawn_and_listed():
    peer = on_gpu("compiled", 3.3, implementation="diffusers", ran_as="peer")
    page = page_of(on_gpu("fused", 4.61), peer)
    assert "peer of diffusers" in page.sections["ladder"]
    figure = next(text for text in page.figures if "published baseline toward" in text)
    assert "compiled" in figure
    text = page.sections["summary"]
    assert "No peer was measured" not in text
    assert "On the same machine diffusers (compiled) takes 3.34 s (3.30–3.37 s), 0.716× our time." in text


def test_gpu_answer_names_time_speedup_and_target(gpu_page: Page):
    text = gpu_page.sections["summary"]
    assert "fp8 takes 2.15 s" in text
    assert "196×" in text
    assert "the target of 10 s is met" in text
    assert "equals the published one (1,374 down, 955 up)" in text


def test_every_plot_has_words_and_a_name(twin_page: Page):
    plots_ = [attrs for tag, attrs in twin_page.tags if tag == "svg"]
    assert len(plots_) == 3
    names = {attrs.get("id") for _, attrs in twin_page.tags}
    for attrs in plots_:
        assert attrs["role"] == "img"
        assert set(str(attrs["aria-labelledby"]).split()) <= names
    assert twin_page.sections["ladder"].count("This plot in words") == 2
    assert "broadcast takes away" in twin_page.sections["ladder"]


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
    page = Page(render([], CONTEXT))
    assert "There is no record in these files." in page.sections["summary"]


def test_witness_that_disagrees_is_said():
    record = make()
    page = page_of(
        msgspec.structs.replace(record, witness=record.totals),
        msgspec.structs.replace(make("broadcast"), witness=record.totals),
    )
    assert "counted the same copies and bytes: baseline." in page.sections["ladder"]
    assert "broadcast: the witness counted other copies" in page.sections["ladder"]


def test_peculiar_numbers_do_not_break_the_page():
    odd = make("fp8", times=[[0.0]], error=ErrorRow(relative=float("nan"), against="oracle"))
    page = page_of(make(), odd)
    assert page.row("fp8", 17)[16].startswith("not finite")
    assert page.row("fp8", 17)[5] == "no time"


# What the page may not do


def test_nothing_in_the_page_asks_the_network(twin_html: str, twin_page: Page):
    for tag, attrs in twin_page.tags:
        for name in ("src", "href", "srcset", "action", "poster", "data", "background", "xlink:href"):
            value = attrs.get(name)
            assert value is None or value.startswith("#") or value == "data:,", (tag, name, value)
    assert "@import" not in twin_html
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*['\"]?([^)]*)", twin_html))
    assert not re.search(r"https?://", twin_html)
    policy = next(attrs["content"] for tag, attrs in twin_page.tags if attrs.get("http-equiv"))
    assert str(policy).startswith("default-src 'none'")


def test_policy_allows_exactly_the_script_of_the_page(twin_html: str):
    script = re.findall(r"<script>(.*?)</script>", twin_html, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in twin_html


def test_same_records_give_the_same_page(twin_html: str):
    assert render(files_of(*twins()), CONTEXT) == twin_html


def test_page_stays_small():
    records = [on_gpu(rung, seconds) for rung, seconds in GPU_SECONDS.items()]
    many = [
        msgspec.structs.replace(record, created_utc=f"2026-07-{day:02}T00:00:00Z")
        for record in records
        for day in range(1, 29)
    ]
    html = render(files_of(*twins(), *many), CONTEXT)
    assert len(html.encode()) < 2_000_000
    assert "would make the page too large" in html


def test_raw_records_are_whole_and_inert():
    record = make(commit="</script><script>alert(1)</script>\u2028 & é")
    html = render(files_of(record), CONTEXT)
    block = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    assert len(block) == 1
    assert not set("<>&\u2028") & set(block[0])
    assert msgspec.convert(json.loads(block[0]), Record) == record


HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><b>",
    "\u202egnp.exe\u2066",
    "x" * 10_000,
    "🙂👩\u200d🔬",
    "a\nb\r\n\tc\x00\x1b[31m",
    "{{7*7}}{% raw %}",
    "$x^2$ $\\frac{1}{",
    "]]><!--",
    "\ud800",
    "",
    "שלום עולم 測試",
    "var(--ink); fill: #010101; url(#p1)",
)


def hostile(text: str) -> Record:
    """A record with ``text`` wherever a record may hold text."""
    record = make(rung=text, copying=True)
    return msgspec.structs.replace(
        record,
        commit=text,
        created_utc=text,
        implementation=text,
        machine=msgspec.structs.replace(LAPTOP, cpu=text, os=text),
        workload=workload(text, model=text, weights=text),
        phase_table={text: text},
        ledger=[msgspec.structs.replace(row, label=text, op=text, section=text) for row in record.ledger[:1]],
        blocks=[msgspec.structs.replace(row, section=text) for row in record.blocks[:1]],
        ops=[msgspec.structs.replace(row, op=text, within=text, section=text) for row in record.ops[:1]],
        error=ErrorRow(relative=0.1, against=text),
        settings={text: text},
    )


def skeleton(html: str) -> list[tuple[str, tuple[str, ...]]]:
    """Elements with the names of their attributes; text and values left out, and what says that text is empty."""
    return [(tag, tuple(sorted(set(attrs) - {"class", "data-order"}))) for tag, attrs in Page(html).tags]


def hostile_page(text: str) -> str:
    return render(files_of(hostile(text), problems=(text,), path=text), CONTEXT)


@pytest.fixture(scope="module")
def plain_skeleton() -> list[tuple[str, tuple[str, ...]]]:
    return skeleton(hostile_page("plain"))


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_hostile_text_adds_no_element(text: str, plain_skeleton: list[tuple[str, tuple[str, ...]]]):
    html = hostile_page(text)
    assert skeleton(html) == plain_skeleton
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f\u2028\u2029\x00\x1b]", html)
    assert len(html) < 400_000
    html.encode()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(text=st.text(st.characters(), max_size=40) | st.text("<>&\"'/!-[]{}%$\\#script \u202e", max_size=40))
def test_no_text_adds_an_element(text: str, plain_skeleton: list[tuple[str, tuple[str, ...]]]):
    assert skeleton(hostile_page(text)) == plain_skeleton


def test_templates_in_text_are_not_run():
    text = Page(hostile_page("{{7*7}}")).sections["ladder"]
    assert "{{7*7}}" in text
    assert "49" not in re.findall(r"\b49\b", text)


def test_dollar_signs_in_plots_stay_as_they_are():
    labels = re.findall(r"<text [^>]*>([^<]*)</text>", hostile_page("$x^2$"))
    assert "$x^2$" in labels


def test_text_of_the_context_is_neutral_too():
    published = CONTEXT.published._replace(source="notes \u202e<b>")
    html = render(files_of(make()), CONTEXT._replace(published=published))
    assert "notes \\u202e&lt;b&gt;" in html
    assert "\u202e" not in html


# Text and numbers


@given(st.text())
def test_neutral_text_shows_what_would_hide(text: str):
    result = neutral(text)
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Cs") for char in result)
    assert neutral(result) == result


def test_shown_text_is_cut_and_says_so():
    assert shown("x" * 10_000) == "x" * 96 + "… (10,000 characters)"
    assert shown("") == "(empty)"
    assert shown("a\u202eb") == "a\\u202eb"
    assert drawn("🙂") == "\\U0001f642"


@given(
    st.recursive(
        st.text() | st.floats() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_in_a_script_ends_nothing(value: Any):
    text = script_json(value)
    assert text.isascii()
    assert not set("<>&") & set(text)
    json.loads(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (units.time(420.0), "420 s"),
        (units.time(0.9999), "1.00 s"),
        (units.time(0.0412), "41.2 ms"),
        (units.time(4.2e-6), "4.20 µs"),
        (units.time(0.0), "0 s"),
        (units.time(None), "—"),
        (units.time_range(0.9, 1.1), "0.900–1.10 s"),
        (units.quantity(0, "B"), "0 B"),
        (units.quantity(999, "B"), "999 B"),
        (units.quantity(12_300_000, "B"), "12.3 MB"),
        (units.quantity(74.36e12, "FLOP"), "74.4 TFLOP"),
        (units.times(139.97), "140×"),
        (units.times(1234.5), "1,230×"),
        (units.digits(0.00123), "0.00123"),
        (units.digits(9.999), "10.0"),
        (units.error(0.0), "0 (exact)"),
        (units.error(float("inf")), "not finite"),
        (units.plural(1, "copy", "copies"), "1 copy"),
        (units.listing(["a", "b", "c"], 2), "a, b and 1 more"),
    ],
)
def test_numbers_have_units(text: str, expected: str):
    assert text.replace(units.NBSP, " ") == expected


def test_speedup_is_median_over_median_with_the_range_of_all_samples():
    before = summary_of(make(times=[[10.0, 12.0], [20.0]]))
    after = summary_of(make(times=[[1.0, 3.0]]))
    found = speedup(before, after)
    assert found is not None
    assert (found.ratio, found.low, found.high, found.single) == (15.5 / 2, 10 / 3, 20.0, False)
    assert speedup(before, None) is None


def test_samples_are_said_by_process():
    assert samples_of(make(times=[[1.0, 1.0], [1.0, 1.0]])).replace(units.NBSP, " ") == "2 × 2"
    assert samples_of(make(times=[[1.0, 1.0], [1.0]])) == "2 + 1"
    assert samples_of(make(times=[[1.0]])) == "1"
    assert samples_of(make(times_s={})) == "none"


def test_headline_workload_comes_first():
    study = survey(files_of(make(), on_gpu("fused", 5.0)), CONTEXT)
    assert [ladder.workload.name for ladder in study.ladders] == ["schnell-1024", "tiny"]


def test_largest_error_is_the_answer():
    texts = summary.answer(survey(files_of(*twins()), CONTEXT))
    assert any("3.10e-01 (fp8), against float64 oracle" in answer.text for answer in texts)


# The chart of the README


def test_readme_chart_is_one_svg_file_on_white():
    records = [on_gpu(rung, seconds) for rung, seconds in GPU_SECONDS.items()]
    svg = plots.readme_chart(files_of(*records), CONTEXT, "schnell-1024")
    root = ElementTree.fromstring(svg)
    assert root.attrib["width"] == "900"
    assert svg == plots.readme_chart(files_of(*records), CONTEXT, "schnell-1024")
    text = "".join(root.itertext()).replace(units.NBSP, " ")
    assert "1,374" in text
    assert "published count" in text
    assert "2.15 s" in text
    assert "var(" not in svg
    assert "currentColor" not in svg
    assert "#010" not in svg


def test_readme_chart_of_twins_says_so():
    svg = plots.readme_chart(files_of(*twins()), CONTEXT, "tiny")
    text = "".join(ElementTree.fromstring(svg).itertext())
    assert plots.TWIN_TITLE in text
    assert "116" in text
    assert "published count" not in text, "tiny is another model"


def test_readme_chart_of_an_unknown_workload_says_what_there_is():
    with pytest.raises(RecordError, match=r"no record of workload 'dev-1024'.*tiny"):
        plots.readme_chart(files_of(make()), CONTEXT, "dev-1024")


# Writing


def test_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "deep" / "report.html"
    write("old", path)
    write("new ×", path)
    assert path.read_text(encoding="utf-8") == "new ×"
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_failing_write_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "report.html"
    write("old", path)

    def refuse(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(RecordError, match=r"cannot write the report to .*No space left on device.*-o"):
        write("new", path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_an_unwritable_folder_is_a_clear_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot write the report to"):
        write("new", tmp_path / "file" / "report.html")


def test_rendering_takes_seconds_not_minutes():
    start = time.perf_counter()
    render(files_of(*twins()), CONTEXT)
    assert time.perf_counter() - start < 10
