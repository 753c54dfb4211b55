"""Records as a table: every metric of every record in a row, and nothing else."""

from __future__ import annotations

import io
import re

import msgspec
import pandas as pd
import pytest

from fluxperf import records_frame
from fluxperf.errors import RecordError
from fluxperf.harness import frames
from fluxperf.harness.columns import Gathering, columns_of, points_of
from fluxperf.harness.frames import COLUMNS, csv_of, frame_of
from fluxperf.harness.history import load
from fluxperf.harness.records import append_record
from tests.history.making import ROOT, commit, record


@pytest.fixture
def folder(tmp_path):
    for number, (rung, level) in enumerate([("baseline", 3.0), ("fused", 1.0), ("fused", 2.0)]):
        times = {"denoise": [[level, level, 9.0]], "step": [], "warmup": [[50.0]], "warmup_step": [[7.0]]}
        append_record(tmp_path / "deep" / f"{rung}.jsonl", record(number, rung, times_s=times))
    return tmp_path


def test_a_row_for_each_record_and_metric(folder):
    frame = records_frame([folder])
    assert tuple(frame.columns) == COLUMNS
    assert frame.attrs["problems"] == []
    made = [record(number, rung) for number, rung in enumerate(["baseline", "fused", "fused"])]
    assert len(frame) == sum(len(list(points_of(row))) - 1 for row in made), "step has no sample here"
    times = frame[frame.metric == "denoise"]
    assert times.rung.tolist() == ["baseline", "fused", "fused"]
    assert times.record.tolist() == [0, 0, 1]
    assert times.value.tolist() == [3.0, 1.0, 2.0]
    assert times[["low", "high", "samples"]].values.tolist() == [[3.0, 9.0, 3], [1.0, 9.0, 3], [2.0, 9.0, 3]]
    assert times.commit.tolist() == [commit(0), commit(1), commit(2)]
    assert (times.unit.unique(), times.ran_as.unique()) == (["seconds"], ["twin"])
    assert not times.exact.any()
    copies = frame[(frame.metric == "d2h_copies") & (frame.rung == "baseline")]
    assert (copies.value.tolist(), copies.exact.all()) == ([float(record(0, "baseline").totals.d2h_copies)], True)
    assert copies.low.isna().all()
    assert not [metric for metric in frame.metric.unique() if "warmup" in metric]


def test_the_table_as_csv_is_what_pandas_writes(folder, monkeypatch):
    """For any names, with any number of parts, without rows of other tools; and it reads back unchanged."""
    monkeypatch.setattr(frames, "_AT_ONCE", 7)
    hostile = ['a,"b"', "line\nand\rline", "=1+1", " spaces ", "é\u2028☃", "", "'"]
    for number, name in enumerate(hostile):
        told = {"rung": name, "implementation": name, "settings": {name: name}}
        row = msgspec.structs.replace(record(number), commit=None if number % 2 else name, **told)
        named = msgspec.structs.replace(row.machine, name=name)
        append_record(folder / 'a, "b"\udcff.jsonl', msgspec.structs.replace(row, machine=named))
    columns, _ = load([folder])
    point = next(points_of(record(1)))
    gathering = Gathering()
    for one in [*columns.points(), msgspec.structs.replace(point, source="asv")]:
        gathering.add_point(one)
    for of in (columns, gathering.columns(), columns_of([])):
        parts = list(csv_of(of))
        assert len(parts) > 3 or not len(of.key)
        assert b"".join(parts) == frame_of(of).to_csv(index=False).encode("utf-8", "backslashreplace")
    read = pd.read_csv(io.BytesIO(b"".join(csv_of(columns))), keep_default_na=False)
    assert set(hostile) <= set(read.rung)


def test_types_hold_for_a_table_of_any_records(folder):
    frame = records_frame(folder / "deep" / "fused.jsonl")
    assert {name: frame[name].dtype.kind for name in ("value", "low", "record", "samples", "exact", "dirty")} == {
        "value": "f", "low": "f", "record": "i", "samples": "i", "exact": "b", "dirty": "b",
    }  # fmt: skip


def test_what_cannot_be_read_is_reported_and_the_rest_is_there(folder):
    with (folder / "deep" / "fused.jsonl").open("ab") as file:
        file.write(b"{")
    frame = records_frame(folder)
    assert "incomplete" in frame.attrs["problems"][0]
    assert set(frame.rung) == {"baseline", "fused"}
    (folder / "empty").mkdir()
    with pytest.raises(RecordError, match=r"no \.jsonl file below"):
        records_frame(folder / "empty")


def test_the_example_of_the_docs_runs(monkeypatch, capsys):
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(ROOT)
    exec(example, {})
    said = capsys.readouterr().out
    assert re.search(r"fluxperf +baseline +\d+\.\d+\n", said)
    assert "diffusers" in said
