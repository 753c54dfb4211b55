"""The plot of times over commits: its legend tells lines apart."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fluxperf.harness.columns import columns_of
from fluxperf.harness.history import history
from fluxperf.harness.report.plots.commits import commits
from tests.report import evidence


def test_lines_of_several_machines_name_what_tells_them_apart() -> None:
    """Of the machines' names the part that differs; a setting that one has and another lacks."""
    cards = ("NVIDIA H200, driver 580, Xeon, 16 cores", "NVIDIA H100 80GB HBM3, driver 580, Xeon, 16 cores")
    points = [
        msgspec.structs.replace(point, machine=machine, variant=variant)
        for machine in cards
        for variant in ({}, {"setting rest_s": "1"})
        for point in evidence.points(4)
    ]
    figure = commits(history(columns_of(points), Path("no checkout")).series, [], "p", "Times", "")
    assert figure is not None
    for said in ("H200, no rest_s", "H200, rest_s 1", "H100, no rest_s", "H100, rest_s 1"):
        assert f"fused ({said})" in figure.words
        assert f"fused ({said})" in figure.svg
