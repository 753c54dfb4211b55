"""The plot of times over commits: its legend tells lines apart."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fluxperf.harness.columns import columns_of
from fluxperf.harness.history import history
from fluxperf.harness.report.plots.commits import commits
from tests.report import evidence


def test_lines_of_several_machines_name_what_tells_them_apart() -> None:
    """Of the machines' names the part that differs; and a setting that another lacks."""
    cards = ("NVIDIA H200, driver 580, Xeon, 16 cores", "NVIDIA H100 80GB HBM3, driver 580, Xeon, 16 cores")
    points = [
        msgspec.structs.replace(point, machine=machine, variant=variant)
        for machine in cards
        for variant in ({}, {"setting rest_s": "1"})
        for point in evidence.points(4)
    ]
    figure = commits(history(columns_of(points), Path("no checkout")).series, [], "p", "Times", "")
    assert figure is not None
    for said in ("H200", "H200, rest_s 1", "H100", "H100, rest_s 1"):
        assert f"fused ({said})" in figure.words
        assert f"fused ({said})" in figure.svg


def test_a_line_is_named_by_the_fewest_settings_that_tell_it_apart() -> None:
    """Pictures differ in several settings from generations, and one of these is enough; two may be necessary."""
    picture = {"setting encoders": "bfloat16", "setting t5": "keep", "weights": "folder"}
    variants = (
        {"weights": "seed 0"}, {"weights": "seed 0", "setting rest_s": "1"}, picture, {**picture, "setting t5": "free"}
    )  # fmt: skip
    points = [msgspec.structs.replace(one, variant=variant) for variant in variants for one in evidence.points(4)]
    figure = commits(history(columns_of(points), Path("no checkout")).series, [], "p", "Times", "")
    assert figure is not None
    for said in ("fused (weights seed 0)", "fused (rest_s 1)", "fused (t5 keep)", "fused (t5 free)"):
        assert f"{said}: " in figure.words
