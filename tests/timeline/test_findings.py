"""Findings and rows with known counts and costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxperf.errors import UnknownNameError
from fluxperf.harness.timeline.findings import KINDS, Finding, findings, known_findings
from fluxperf.harness.timeline.summary import summarize
from tests.timeline.making import MS, US, Capture, example


def found(capture: Capture, folder: Path) -> dict[tuple[str, str], Finding]:
    rows = findings(capture.read(folder))
    assert rows == sorted(rows, key=lambda row: -row.cost_ms), "the costliest first"
    return {(row.finding, row.range): row for row in rows}


@pytest.mark.parametrize("variant", ["2023", "2025"])
def test_the_example_has_one_of_each_with_known_costs(variant, tmp_path: Path):
    rows = found(example(variant), tmp_path)
    embed, attention = "step * / embed * / embed", "step * / double * / attention"
    # Upload: its call lasts 400 us, and the second step's GPU waits 30 us for it to begin; download: its call lasts
    # 10 us, then a wait of 150 us. Two steps.
    direction = {"2023": ("HTOD", "DTOH"), "2025": ("Host-to-Device", "Device-to-Host")}[variant]
    copies = [row for row in findings(example(variant).read(tmp_path_of(tmp_path))) if row.finding == "host-copy"]
    assert [(row.range, row.count, row.cost_ms, row.seen) for row in copies] == [
        (embed, 2, pytest.approx(0.83), f"{direction[0]}, 8,000,000 B"),
        (embed, 2, pytest.approx(0.02), f"{direction[1]}, 8 B"),
    ]
    pageable = rows["pageable-copy", embed]
    assert (pageable.count, pageable.cost_ms, pageable.seen) == (
        2,
        pytest.approx(0.8),
        "Pageable to Device, 8,000,000 B",
    )
    item = rows["item-sync", embed]
    assert (item.count, item.cost_ms) == (2, pytest.approx(0.32))
    # 24 kernels of 20 us: from the first's beginning to the last's end, less one.
    heads = rows["repeated-kernel", attention]
    assert (heads.count, heads.cost_ms, heads.seen) == (48, pytest.approx(2 * 0.46), "head_matmul")
    # Each step has 30 us before the embedding, and 428 us between its download and the block's first kernel. What comes
    # before the upload is the upload's.
    starved = {row.range: row.cost_ms for key, row in rows.items() if key[0] == "launch-bound"}
    assert starved == {
        embed: pytest.approx(2 * 0.03),
        "step * / double * / qkv_heads": pytest.approx(2 * 0.428),
    }
    assert not [key for key in rows if key[0] == "sync-in-loop"]


def tmp_path_of(folder: Path) -> Path:
    again = folder / "again"
    again.mkdir()
    return again


def test_a_wait_that_comes_again_and_again(tmp_path: Path):
    capture = Capture()
    capture.range("generate", 0, 100 * MS)
    for turn in range(6):
        at = turn * MS
        capture.range(f"step {turn}", at, at + MS)
        number = capture.call("cudaDeviceSynchronize", at + 10 * US, at + 110 * US)
        capture.sync(4, at + 10 * US, at + 110 * US, number)
        capture.sync(2, at + 200 * US, at + 201 * US, capture.call("cudaStreamWaitEvent", at + 200 * US, at + 201 * US))
    rows = found(capture, tmp_path)
    assert list(rows) == [("sync-in-loop", "generate / step *")]
    row = rows["sync-in-loop", "generate / step *"]
    assert (row.count, row.cost_ms, row.seen) == (6, pytest.approx(0.6), "cudaDeviceSynchronize")


@pytest.mark.parametrize(("name", "loops"), [("step", True), ("request", False)])
def test_turns_of_steps_are_one_loop_and_other_outermost_ranges_are_not(name, loops, tmp_path: Path):
    capture = Capture()
    for turn in range(5):
        at = turn * MS
        capture.range(f"{name} {turn}", at, at + MS)
        number = capture.call("cudaDeviceSynchronize", at + 10 * US, at + 110 * US)
        capture.sync(4, at + 10 * US, at + 110 * US, number)
    assert (("sync-in-loop", f"{name} *") in found(capture, tmp_path)) == loops


def test_a_copy_outside_of_every_forward_is_no_host_copy(tmp_path: Path):
    capture = Capture()
    capture.range("load", 0, 50 * US)
    capture.copy(1, 10 * US, 20 * US, capture.call("cudaMemcpyAsync", 5 * US, 6 * US), 1 << 20)
    capture.range("step 0", 60 * US, 90 * US)
    capture.copy(8, 70 * US, 80 * US, capture.call("cudaMemcpyAsync", 65 * US, 66 * US), 1 << 20)
    assert not [key for key in found(capture, tmp_path) if key[0] == "host-copy"]


def test_in_a_program_without_steps_any_range_counts_as_forward(tmp_path: Path):
    capture = Capture()
    capture.range("decode", 0, 50 * US)
    capture.copy(1, 10 * US, 20 * US, capture.call("cudaMemcpyAsync", 5 * US, 6 * US), 1 << 20)
    assert ("host-copy", "decode") in found(capture, tmp_path)


def test_a_tiny_copy_that_nobody_waits_for_is_no_item(tmp_path: Path):
    capture = Capture()
    capture.range("step 0", 0, 90 * US)
    capture.copy(2, 10 * US, 11 * US, capture.call("cudaMemcpyAsync", 5 * US, 6 * US), 4)
    capture.launch("next", 12 * US, 15 * US, 5 * US)
    number = capture.call("cudaStreamSynchronize", 20 * US, 30 * US)
    capture.sync(3, 20 * US, 30 * US, number)
    assert not [key for key in found(capture, tmp_path) if key[0] == "item-sync"]


def test_a_tiny_copy_by_a_call_that_waits_is_one(tmp_path: Path):
    capture = Capture()
    capture.range("step 0", 0, 90 * US)
    capture.copy(2, 10 * US, 11 * US, capture.call("cudaMemcpy_v3020", 5 * US, 25 * US), 4)
    row = found(capture, tmp_path)["item-sync", "step *"]
    assert (row.count, row.cost_ms, row.seen) == (1, pytest.approx(0.02), "cudaMemcpy, 4 B")


def test_kernels_queued_in_time_are_not_launch_bound(tmp_path: Path):
    capture = Capture()
    capture.range("step 0", 0, MS)
    capture.launch("first", US, 10 * US, 100 * US)
    capture.launch("queued", 20 * US, 113 * US, 10 * US)
    rows = found(capture, tmp_path)
    assert not [key for key in rows if key[0] == "launch-bound"], "the gap of 3 us is not the host's"


def test_kernels_of_other_shapes_are_not_repeated(tmp_path: Path):
    capture = Capture()
    capture.range("step 0", 0, MS)
    for index in range(20):
        capture.launch("kernel", (1 + 3 * index) * US, (100 + 10 * index) * US, 10 * US, grid=1 + index % 2)
    assert not [key for key in found(capture, tmp_path) if key[0] == "repeated-kernel"]


def test_rows_of_the_example_by_step_block_op_and_kernel(tmp_path: Path):
    timeline = example().read(tmp_path)
    steps = summarize(timeline, "step").rows
    assert [(row.name, row.calls, row.kernels, row.syncs) for row in steps] == [
        ("step 0", 1, 26, 1),
        ("step 1", 1, 26, 1),
    ]
    assert [row.host_ms for row in steps] == pytest.approx([3, 3])
    blocks = summarize(timeline, "block").rows
    assert [(row.name, row.calls, row.kernels) for row in blocks if row.kernels] == [
        ("embed 0", 2, 2),
        ("double 0", 2, 50),
    ]
    ops = {row.name: row for row in summarize(timeline, "op").rows}
    assert {name: (row.calls, row.kernels) for name, row in ops.items() if row.calls} == {
        "embed": (2, 2),
        "qkv_heads": (2, 2),
        "attention": (2, 48),
    }
    embed = ops["embed"]
    assert [(row.direction, row.source_memory, row.target_memory, row.count, row.bytes) for row in embed.copies] == [
        ("Host-to-Device", "Pageable", "Device", 2, 8_000_000),
        ("Device-to-Host", "Device", "Pinned", 2, 8),
    ]
    assert (embed.syncs, embed.sync_ms) == (2, pytest.approx(0.3))
    assert [row.name for row in ops["attention"].top_kernels] == ["head_matmul"]
    kernels = {row.name: row for row in summarize(timeline, "kernel").rows}
    assert (kernels["head_matmul"].calls, kernels["head_matmul"].gpu_ms) == (48, pytest.approx(0.96))


def test_time_between_outermost_ranges_is_nobodys_idle(tmp_path: Path):
    total = summarize(example().read(tmp_path)).total
    # 30 us before the second step's upload, and per step 30 us before the embedding and 428 us before the block.
    assert total.idle_ms == pytest.approx(0.03 + 2 * (0.03 + 0.428))


def test_another_program_goes_by_path_and_turns_of_a_loop_are_one_row(tmp_path: Path):
    capture = Capture()
    for turn in range(3):
        at = turn * 100 * US
        capture.range("decode", at, at + 90 * US)
        capture.range(f"layer {turn}", at + US, at + 50 * US)
        capture.launch("kernel", at + 5 * US, at + 10 * US, US)
    rows = {row.name: row.kernels for row in summarize(capture.read(tmp_path)).rows}
    assert rows == {"decode / layer *": 3, "decode": 0}


def test_unknown_names_list_the_known_ones(tmp_path: Path):
    with pytest.raises(UnknownNameError, match=r"unknown grouping 'blok'. Did you mean 'block'\?"):
        summarize(example().read(tmp_path), "blok")
    with pytest.raises(UnknownNameError, match=r"unknown finding 'item'.*Use one of: host-copy, pageable-copy"):
        known_findings(["item"])
    assert known_findings(KINDS) == list(KINDS)
