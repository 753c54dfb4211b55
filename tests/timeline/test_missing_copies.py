"""Exports without any copy: limits of copies are kept only if nothing asked for some."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fluxperf.harness.timeline.blind import blind_spots
from fluxperf.harness.timeline.nsys import read_capture
from fluxperf.harness.timeline.trimming import trim
from tests.timeline.judging import codes
from tests.timeline.making import US
from tests.timeline.test_missing_evidence import GRAPH, undecided, whole

OF_COPIES = {"host-copy", "item-sync", "pageable-copy", "copies > 0", "waits > 0"}
EXPORTED = "EXPORT_PARAM_TABLES_TO_EXPORT"


@pytest.mark.parametrize("name", ["h200-managed-gpu", "h200-managed-plain"])
@pytest.mark.parametrize("prefetches", [True, False])
def test_an_export_without_its_copies_decides_nothing_about_migrations(name, prefetches, tmp_path: Path):
    path = tmp_path / "x.sqlite"
    shutil.copyfile(Path(__file__).parent / "exports" / f"{name}.sqlite", path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE CUPTI_ACTIVITY_KIND_MEMCPY")
        if not prefetches:
            named = "SELECT id FROM StringIds WHERE value LIKE 'cudaMemPrefetch%'"
            connection.execute(f"DELETE FROM CUPTI_ACTIVITY_KIND_RUNTIME WHERE nameId IN ({named})")
    trim(path, tmp_path / "trimmed.sqlite")
    limits = ("host-copy", "copies > 0", "page-fault in host reads")
    for one in (path, tmp_path / "trimmed.sqlite"):
        timeline = read_capture(one)
        assert codes(timeline, *limits) == dict.fromkeys(limits, 2)
        told = "prefetches" if prefetches else "allocations"
        assert f"no copies, but 1 call for {told} of unified memory" in blind_spots(timeline)["host-copy"]
        assert any(note.startswith("Incomplete: the export has no copies") for note in timeline.notes)


@pytest.mark.parametrize(
    ("call", "returned", "about", "blind"),
    [
        ("cudaMallocManaged_v6000", 0, {}, OF_COPIES | {"page-fault"}),
        ("cudaMallocManaged_v6000", 0, {EXPORTED: ""}, set()),
        ("cudaMallocManaged_v6000", 2, {}, set()),
        ("cuMemPrefetchAsync_v2", 0, {EXPORTED: ""}, OF_COPIES | {"page-fault"}),
        ("cudaMemPrefetchAsync_v12020", 1, {}, set()),
        ("cudaMemAdvise_v8000", 0, {}, set()),
    ],
)
def test_unified_memory_without_any_copy(call, returned, about, blind, tmp_path: Path):
    capture = whole()
    capture.about |= about
    capture.call(call, 1 * US, 5 * US, returned=returned)
    assert undecided(capture.read(tmp_path)) == blind
    # One copy shows that the export has the table.
    number = capture.call("cudaMemcpyAsync_v3020", 500 * US, 510 * US)
    capture.rows.pop("META_DATA_EXPORT"), capture.rows.pop("StringIds")
    capture.copy(8, 515 * US, 520 * US, number, 4096)
    (tmp_path / "copied").mkdir()
    assert undecided(capture.read(tmp_path / "copied")) == set()


@pytest.mark.parametrize(("launched", "code"), [(True, 2), (False, 0)])
def test_a_graph_with_copies_in_a_capture_without_any(launched, code, tmp_path: Path):
    capture = whole()
    capture.call("cudaStreamBeginCapture_v10000", 500 * US, 501 * US)
    capture.call("cudaMemcpyAsync_v3020", 510 * US, 511 * US)
    capture.call("cudaStreamEndCapture_v10000", 520 * US, 521 * US)
    if launched:
        capture.kernel("node", 610 * US, 620 * US, capture.call(GRAPH, 600 * US, 605 * US), node=1)
    timeline = capture.read(tmp_path)
    assert codes(timeline, "host-copy") == {"host-copy": code}
    assert launched == ("1 call for copies in a graph" in blind_spots(timeline).get("host-copy", ""))
