"""Cycles, clock and joules on the page."""

from __future__ import annotations

import msgspec

from tests.report.pages import on_gpu
from tests.report.parts import page_of


def test_a_step_has_cycles_and_joules_where_a_gpu_reported_them():
    """Separate columns; joules of ops are given as shares and labelled so.

    Without readings there are no such columns.
    """
    plain = on_gpu("fused", 0.5)
    told = {"cycles": {"step": [[171.25e6]]}, "clock_hz": {"step": [[1.385e9]]}, "energy_j": {"step": [[85.5]]}}
    page = page_of(plain, msgspec.structs.replace(on_gpu("captured", 0.49), **told))
    row = next(row for row in page.rows if row and row[0].startswith("captured") and "171 Mcycles" in row)
    assert row[row.index("171 Mcycles") :][:3] == ["171 Mcycles", "1.39 GHz", "85.5 J"]
    assert "J/TFLOP" in row[row.index("171 Mcycles") + 3]
    fused = next(other for other in page.rows if other and other[0].startswith("fused") and len(other) == len(row))
    assert fused[row.index("171 Mcycles")] == "—"
    texts = [" ".join(one.whole.sections.values()) for one in (page, page_of(plain))]
    assert ["joules are shares of the joules of a step" in text for text in texts] == [True, False]
    assert ["Energy per work" in text for text in texts] == [True, False]
