"""The metric table: every value of a record has a row; a new metric needs only a row and a collector."""

from __future__ import annotations

import msgspec
import pytest
from rich.console import Console

from fluxperf.cli.ladder import ladder
from fluxperf.errors import PolicyError, UnknownNameError
from fluxperf.harness import metrics
from fluxperf.harness.columns import points_of
from fluxperf.harness.compare import compare
from fluxperf.harness.measure.merging import merge
from fluxperf.harness.metrics import METRICS, Metric, metric_of, sampled, samples_of, worse_of
from fluxperf.harness.policy import read_policy
from fluxperf.harness.records import Record, Totals
from tests.gate.sides import POLICY_FILE
from tests.report.pages import make
from tests.report.parts import page_of

NODES = Metric(
    "counts.graph_nodes",
    "launches",
    "nodes of the graph",
    series="graph_nodes",
    heading="Nodes",
    hint="of the step's graph",
    brief="nodes",
)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Record:
    """A record of a metric that only the table and its collector know."""
    monkeypatch.setattr(metrics, "METRICS", (*METRICS, NODES))
    return make(counts={"graph_nodes": 1234})


def test_every_total_has_a_row_and_no_name_has_two() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    for field in Totals.__struct_fields__:
        assert {f"totals.{field}", f"setup_totals.{field}"} <= set(names)


def test_a_new_exact_metric_is_in_history(planted: Record) -> None:
    (point,) = [point for point in points_of(planted) if point.metric == "graph_nodes"]
    assert (point.value, point.unit, point.exact) == (1234, "launches", True)


def test_a_new_exact_metric_has_a_column_on_the_page_and_in_the_text(planted: Record) -> None:
    page = page_of(planted)
    assert "Nodes" in page.sections["ladder"]
    assert "1,234" in next(row for row in page.rows if row[0].startswith("baseline") and "numpy" not in row[1])
    console = Console(width=160)
    with console.capture() as caught:
        console.print(ladder([planted]))
    assert "nodes" in caught.get()
    assert "1234" in caught.get()


def test_a_new_exact_metric_is_gated_once_the_policy_names_it(planted: Record, tmp_path) -> None:
    path = tmp_path / "policy.toml"
    text = POLICY_FILE.read_text(encoding="utf-8").replace("[exact]", '[exact]\n"counts.graph_nodes" = {}')
    path.write_text(text, encoding="utf-8")
    more = msgspec.structs.replace(planted, counts={"graph_nodes": 1235})
    rows = {row.metric: row for row in compare([planted], [more], read_policy(path)).rows}
    assert rows["counts.graph_nodes"].outcome == "regression"
    assert "nodes of the graph: 1234 before, 1235 now (+1)" in rows["counts.graph_nodes"].message


def test_processes_must_agree_on_a_new_exact_metric(planted: Record) -> None:
    more = msgspec.structs.replace(planted, counts={"graph_nodes": 1235})
    assert merge([planted, planted]).record is not None
    assert merge([planted, more]).differences == ["counts.graph_nodes: 1234, 1235"]


def test_samples_without_a_row_are_a_metric_of_their_field() -> None:
    record = make(times_s={"denoise": [[1.0]], "upscale": [[2.0]], "warmup": [[9.0]], "warmup_picture": [[9.0]]})
    assert [metric.name for metric, _ in sampled(record)] == ["times.denoise", "times.upscale"]
    assert samples_of(record, "times.upscale") == [[2.0]]
    assert samples_of(record, "times.downscale") == []
    assert (metric_of("times.upscale").short, metric_of("times.upscale").worse) == ("s", "higher")


def test_warm_ups_have_no_history() -> None:
    record = make(times_s={"picture": [[2.0]], "warmup": [[9.0]], "warmup_picture": [[9.0]]})
    assert [point.metric for point in points_of(record) if not point.exact] == ["picture"]


def test_an_unknown_metric_lists_the_known() -> None:
    with pytest.raises(UnknownNameError) as caught:
        metric_of("total.launches")
    assert "totals.launches" in str(caught.value)
    assert "times.*" in str(caught.value)


_DENOISE = '[noisy."times.denoise"]'


def test_the_policy_may_not_turn_a_metric_around(tmp_path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY_FILE.read_text(encoding="utf-8").replace(_DENOISE, f'{_DENOISE}\nworse = "lower"'))
    with pytest.raises(PolicyError, match="expected worse = 'higher', got 'lower'"):
        read_policy(path)


@pytest.mark.parametrize(
    ("series", "unit", "worse"),
    [
        ("denoise", "seconds", "higher"),
        ("error", "relative error", "higher"),
        ("track_peak", "bytes", "higher"),
        ("x", "apples", None),
    ],
)
def test_which_direction_of_a_series_is_worse(series: str, unit: str, worse: str | None) -> None:
    assert worse_of(series, unit) == worse
