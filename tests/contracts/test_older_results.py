"""Figures of README and results while they are of several records; evidence that the Makefile names replaces them."""

from __future__ import annotations

import json
import re
from statistics import median

import pytest

from fluxperf.harness.records import IN_TURNS_WITH, Record, read_records
from tests.contracts.test_readme import TEXT, held
from tests.contracts.tree import ROOT, SHOWN

pytestmark = pytest.mark.skipif(bool(SHOWN), reason="README and results are drawn from one evidence")


def test_the_ladder_in_short_is_that_of_the_record():
    name = "h100-schnell-1024.jsonl"
    took, rows = seconds_of(name), read_records(ROOT / "reports/records" / name).records
    expected = [
        f"| `{row.rung}` | {shown_s(took[row.rung])} | {took['baseline'] / took[row.rung]:.0f} x | "
        f"{row.totals.d2h_copies + row.totals.h2d_copies} |"
        for row in rows
    ]
    held(f"ladder: {name}", expected, head=2)


def test_peers_in_short_are_those_of_the_record():
    name = "h100-schnell-1024-products-peers.jsonl"
    took = seconds_of(name)
    told = {"captured": "`captured` (bfloat16)", "diffusers-compiled": "`diffusers-compiled` (bfloat16)"}
    expected = [
        f"| {told.get(name, f'`{name}`')} | {shown_s(took[name])} | {took['diffusers-compiled'] / took[name]:.2f} x |"
        for name in took
    ]
    held(f"peers: {name}", expected, head=2)
    assert f"{took['diffusers-fp8'] / took['fp8']:.2f} x as long as `fp8`" in " ".join(TEXT.split())


def shown_s(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 10 else f"{seconds * 1e3:.1f} ms"


def test_peers_with_256_text_tokens_are_those_of_the_record():
    rows = read_records(ROOT / "reports/records/evidence-h200/headline.jsonl").records
    took = {
        row.implementation: median(median(samples) for samples in row.times_s["denoise"])
        for row in rows
        if row.workload.name == "schnell-1024-t256" and row.settings.get(IN_TURNS_WITH) == "diffusers-compiled"
    }
    own, peer = took["fluxperf"], took["diffusers-compiled"]
    said = f"`captured` takes {shown_s(own)} and `diffusers-compiled` {shown_s(peer)} on another H200"
    said += f": {peer / own:.2f} x"
    assert said in " ".join(TEXT.split())


def test_memory_of_rungs_is_that_of_the_record():
    rows = read_records(ROOT / "reports/records/evidence-h200/headline.jsonl").records
    peaks = {
        row.rung: f"{row.totals.peak_bytes / 1e9:.0f} GB"
        for row in rows
        if row.workload.name == "schnell-1024" and row.ran_as == "kernel" and set(row.settings) == {"nvtx"}
    }
    (said,) = re.findall(r"GPU memory for schnell: (.*?); less with", TEXT)
    assert said == (
        f"{peaks['baseline']} for `baseline` to `batched`, {peaks['tensorcore']} for `tensorcore`, "
        f"{peaks['captured']} for `captured`, {peaks['fp8']} for `fp8`"
    )
    assert peaks["baseline"] == peaks["broadcast"] == peaks["batched"]


def test_distances_from_the_baseline_are_those_of_the_records():
    took = seconds_of("h100-schnell-1024.jsonl")
    diffusers = seconds_of("h100-schnell-1024-fp8-sustained.jsonl")["diffusers"]
    assert f"**{took['baseline'] / diffusers:.0f}x**" in TEXT
    assert f"**{took['baseline'] / took['fused']:.0f}x**" in TEXT
    assert f"**{420 / 3:.0f}x**" in TEXT


def seconds_of(name: str) -> dict[str, float]:
    rows = read_records(ROOT / "reports/records" / name).records
    return {
        row.rung if row.implementation == "fluxperf" else row.implementation: median(row.times_s["denoise"][0])
        for row in rows
    }


def reference_s(row: Record) -> float:
    """Seconds of a forward's products and attention at the rates that the text names."""
    said = "705 TFLOP/s in bfloat16 and 1340 in e4m3, and of attention at 605 and 902"
    assert said in " ".join(TEXT.split())
    products, attention = (1340e12, 902e12) if row.rung == "fp8" else (705e12, 605e12)
    work = {"attention": 0, "linear": 0}
    for op in row.ops:
        kind = op.op.partition("_")[0]
        if kind in work and op.section in ("double", "single"):
            work[kind] += op.flops
    return work["linear"] / products + work["attention"] / attention


def test_rates_of_the_best_products_are_ceilings_of_the_records():
    rates = {}
    for rung in ("captured", "fp8"):
        table = json.loads((ROOT / f"reports/records/h100-schnell-1024-{rung}-ops.json").read_text(encoding="utf-8"))
        rates |= {row["what"]: f"{row['rate'] / 1e12:.0f}" for row in table["ceilings"]}
    assert f"the best products reach {rates['bfloat16']} and {rates['e4m3']} (" in " ".join(TEXT.split())


def test_other_sizes_are_those_of_the_records():
    table = TEXT.split("Other sizes (")[1].split("**From a prompt")[0]
    records = read_records(ROOT / "reports/records/h100-scaling.jsonl").records
    records += [
        row
        for row in read_records(ROOT / "reports/records/h100-schnell-1024-fp8.jsonl").records
        if row.implementation == "fluxperf"
    ]
    expected = set()
    for row in records:
        seconds = median(row.times_s["denoise"][0]) / row.workload.steps
        expected.add((f"{seconds * 1e3:.1f}", f"{reference_s(row) / seconds:.0%}".replace("%", " %")))
    assert len(expected) == 12
    assert set(re.findall(r"([\d.]+) \| (\d+ %)", table)) == expected


def test_pictures_from_prompt_to_file_are_those_of_the_record():
    record = json.loads((ROOT / "reports/records/h100-end-to-end.json").read_text(encoding="utf-8"))
    rows = read_records(ROOT / "reports/records/h100-end-to-end.jsonl").records
    shown = {
        "captured": next(row for row in rows if row.rung == "captured").times_s["picture"][0],
        "fp8": next(row for row in rows if row.rung == "fp8").times_s["picture"][0],
    } | {peer["name"]: peer["picture_s"] for peer in record["rungs"][-1]["peers"]}
    said = TEXT.split("**From a prompt to a PNG file**")[1].split("\n\n")[0]
    numbers = [f"{median(samples) * 1e3:.0f} ms" for samples in shown.values()]
    assert sorted(re.findall(r"\d+ ms", said)) == sorted(numbers)


def test_bytes_of_the_baseline_are_those_of_the_record():
    baseline = read_records(ROOT / "reports/records/h100-schnell-1024.jsonl").records[0]
    moved = sum(row.bytes for row in baseline.ledger)
    scores = sum(row.bytes for row in baseline.ledger if row.op == "scale")
    assert f"{moved / 1e9:.0f} GB per forward; three quarters are attention scores" in " ".join(TEXT.split())
    assert abs(scores / moved - 0.75) < 0.01
