"""The sustained bound of a step: products and attention, each at its own rate."""

from __future__ import annotations

import msgspec
import pytest

from fluxperf.harness.facts.sustained import sustained_of
from fluxperf.harness.records import IN_TURNS_WITH, Record, read_records
from fluxperf.published import context
from tests.contracts.tree import ROOT

#: Operations of a step of schnell-1024 with 512 text tokens, in TFLOP: matrix products of the blocks, and attention.
PRODUCTS, ATTENTION = 59.49, 14.87


def measured(rung: str) -> Record:
    """The record of a rung that ran alone on an H200."""
    rows = read_records(ROOT / "reports/records/evidence-h200/headline.jsonl").records
    (found,) = [
        row
        for row in rows
        if (row.workload.name, row.rung, row.ran_as) == ("schnell-1024", rung, "kernel")
        and IN_TURNS_WITH not in row.settings
        and "memory_gb" not in row.settings
    ]
    return found


@pytest.mark.parametrize(("rung", "products", "attention"), [("captured", 672, 571), ("fp8", 1290, 902)])
def test_products_and_attention_have_rates_of_their_own(rung: str, products: float, attention: float) -> None:
    row = measured(rung)
    found = sustained_of(context(""), row)
    assert found is not None
    step_s = PRODUCTS / products + ATTENTION / attention
    assert found.step_s == pytest.approx(step_s, rel=0.01)
    seconds = sorted(value for samples in row.times_s["denoise"] for value in samples)
    assert found.share == pytest.approx(4 * step_s / seconds[len(seconds) // 2], rel=0.02)


def test_without_attention_or_a_gpu_there_is_none() -> None:
    row = measured("fp8")
    products = [op for op in row.ops if op.op != "attention"]
    assert sustained_of(context(""), msgspec.structs.replace(row, ops=products)) is None
    assert sustained_of(context(""), msgspec.structs.replace(row, ran_as="twin")) is None
    assert sustained_of(context(""), None) is None
