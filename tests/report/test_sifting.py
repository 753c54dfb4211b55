"""A report of many records keeps only the shown ones in memory: its text is the same as with all of them."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from fluxperf.errors import RecordError
from fluxperf.harness.columns import Gathering
from fluxperf.harness.facts.evidence import Given, gathered
from fluxperf.harness.facts.sifting import Sifted
from fluxperf.harness.facts.study import Study
from fluxperf.harness.formats.digest import digest
from fluxperf.harness.outlines import Outline, Outliner
from fluxperf.harness.records import ErrorRow, Record, append_record, read_records
from fluxperf.harness.report.html import page
from tests.gate.sides import kernel
from tests.report.pages import CONTEXT

COMMITTED = Path(__file__).resolve().parents[2] / "reports/records"

#: Processes of one commit; rungs that ran alone and beside peers; trials of a library.
FILES = ("h100-aa-base.jsonl", "h100-schnell-1024-products.jsonl", "h100-schnell-1024-products-peers.jsonl")


def study(places: list[Path], most: int, tmp_path: Path) -> Study:
    sifted = Sifted(most)
    files = list(sifted.read(places))
    given = Given(places, frozenset(), None, [], [], tmp_path, tmp_path, None, "fluxperf report")
    return sifted.survey(files, CONTEXT, gathered(files, given, sifted.gathering))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Committed records, and a kernel's record after an older one of it, with an invalid line between them."""
    path = tmp_path_factory.mktemp("kernels") / "kernels.jsonl"
    for day in ("02", "01", "03"):
        record = msgspec.structs.replace(kernel("modulate", [[1e-3, 2e-3]]), created_utc=f"2026-01-{day}T00:00:00Z")
        append_record(path, record)
        with path.open("a") as file:
            file.write('  {"no": "record"} \r\n\n')
    return [*(COMMITTED / name for name in FILES), path, later(path.with_name("later.jsonl"))]


def later(path: Path) -> Path:
    """Newer records, without a rest, so that peers appear next to the older ones; an older one holds a rung's error."""
    ours = [record for record in read_records(COMMITTED / FILES[2]).records if record.ran_as == "kernel"]
    for day, error in (("01", ErrorRow(relative=1e-3, against="fused", rung="captured")), ("02", None)):
        for record in ours:
            settings = {name: value for name, value in record.settings.items() if name != "rest_s"}
            changes = {
                "commit": day * 20,
                "created_utc": f"2027-01-{day}T00:00:00Z",
                "settings": settings,
                "error": error,
            }
            append_record(path, msgspec.structs.replace(record, **changes))
    return path


def without_raw(html: str) -> str:
    return re.sub(r'<section id="raw".*?</section>', "", html, flags=re.DOTALL)


def test_the_page_says_the_same(places: list[Path], tmp_path: Path) -> None:
    whole, sifted = study(places, 10**9, tmp_path), study(places, 0, tmp_path)
    outlines = [record for record in sifted.records if isinstance(record, Outline)]
    assert len(sifted.records) == len(whole.records)
    assert 5 < len(outlines) < len(sifted.records) - 5
    assert not any(isinstance(record, Outline) for record in sifted.used[:-3]), "numbers of outlines are shown"
    assert without_raw(page(sifted)) == without_raw(page(whole))
    assert digest(sifted) == digest(whole)


def test_raw_data_are_whole_records(places: list[Path], tmp_path: Path) -> None:
    html = page(study(places, 0, tmp_path))
    told = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', html, flags=re.DOTALL)
    records = [msgspec.json.decode(text, type=Record) for text in told if '"created_utc"' in text]
    assert len(records) > 3
    assert all(any(map(any, record.times_s.values())) for record in records)


def test_records_stay_whole_up_to_so_many_bytes(places: list[Path]) -> None:
    lines = places[0].read_bytes().splitlines(keepends=True)
    for most, outlines in ((sum(map(len, lines)), False), (sum(map(len, lines)) - 1, True)):
        (file,) = Sifted(most).read(places[:1])
        assert [isinstance(record, Outline) for record in file.records] == [outlines] * len(lines)


def test_outlines_share_only_what_is_alike(places: list[Path]) -> None:
    """For all names of metrics and settings, texts of one kind may equal those of another."""
    row, outliner = read_records(places[0]).records[0], Outliner()
    first, second = {"settings": [[1.0]]}, {"denoise": [[1.0]]}
    rows = [msgspec.structs.replace(row, settings={}, times_s=times) for times in (first, second)]
    found = [outliner.of(one) for one in rows]
    assert [(one.settings, list(one.times_s)) for one in found] == [({}, ["settings"]), ({}, ["denoise"])]


def test_a_file_that_changes_meanwhile_is_an_error(places: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(places[0].read_bytes())
    sifted = Sifted(0)
    files = list(sifted.read([path]))
    given = Given([path], frozenset(), None, [], [], tmp_path, tmp_path, None, "")
    extras = gathered(files, given, sifted.gathering)
    path.write_bytes(path.read_bytes().replace(b"0.017", b"0.018"))
    with pytest.raises(RecordError, match="changed while it was read"):
        sifted.survey(files, CONTEXT, extras)
    path.unlink()
    with pytest.raises(RecordError, match=r"cannot read .* again"):
        sifted.survey(files, CONTEXT, extras)


def test_records_of_a_url_are_read_again_where_they_lie(places: list[Path], tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://sifted/a.jsonl", "wb") as file:
        file.write(places[1].read_bytes())
    found = study(["memory://sifted"], 0, tmp_path)  # type: ignore[list-item]
    assert digest(found) == digest(study([places[1]], 10**9, tmp_path)).replace(
        str(places[1]), "memory:///sifted/a.jsonl"
    )


def test_points_are_those_of_a_history(places: list[Path]) -> None:
    sifted, gathering = Sifted(0), Gathering()
    files = list(sifted.read(places))
    for file in Sifted(10**9).read(places):
        for place, (record, told) in enumerate(zip(file.records, file.digests, strict=True), start=1):
            gathering.add(record, file.path, place, told)
    assert list(sifted.gathering.columns().points()) == list(gathering.columns().points())
    assert len(files) == len(places)
