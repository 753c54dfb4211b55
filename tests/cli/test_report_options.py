"""``fluxperf report`` with other evidence than records, and its other output formats."""

# The page writes ranges with an en dash and ratios with a multiplication sign.
# ruff: noqa: RUF001

from __future__ import annotations

import json
import shutil
import webbrowser
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import msgspec
import pytest

from fluxperf.harness.records import append_record
from fluxperf.harness.verdict import as_json
from tests.contracts import tree
from tests.history import making
from tests.report import evidence
from tests.report.pages import files_of, hostile, on_gpu, twins

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "records.jsonl"
    for record in twins():
        append_record(path, record)
    return path


def written(path: Path, value: object) -> Path:
    path.write_bytes(value if isinstance(value, bytes) else msgspec.json.encode(value))
    return path


def complains(result, *phrases: str) -> None:
    assert result.code == 2
    assert "Traceback" not in result.err
    for phrase in phrases:
        assert phrase in " ".join(result.err.split()), result.err


def test_a_verdict_is_shown(fluxperf, records, tmp_path):
    path = tmp_path / "verdict.json"
    path.write_text(as_json(evidence.verdict(evidence.row("UNSURE", "unsure"))))
    page = tmp_path / "page.html"
    assert fluxperf("report", records, "--verdict", path, "-o", page).code == 0
    assert "this does not pass" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        (b"", "expected a file of `fluxperf gate"),
        (b"{}", "expected a file of `fluxperf gate"),
        (b"\xff\xfe", "expected a file of `fluxperf gate"),
        (b"[" * 100_000, "expected a file of `fluxperf gate"),
        (msgspec.json.encode(msgspec.structs.replace(evidence.verdict(), schema=9)), "expected schema 1, got 9"),
    ],
    ids=["empty", "other", "no text", "deep", "schema"],
)
def test_what_is_no_verdict_is_refused_before_a_page_is_written(fluxperf, records, tmp_path, content, phrase):
    page = tmp_path / "page.html"
    path = written(tmp_path / "verdict.json", content)
    complains(fluxperf("report", records, "--verdict", path, "-o", page), phrase)
    assert not page.exists()
    complains(fluxperf("report", records, "--verdict", tmp_path / "none.json", "-o", page), "cannot read a verdict")


def test_ceilings_are_read_from_files_and_found_in_folders(fluxperf, tmp_path):
    folder = tmp_path / "evidence"
    folder.mkdir()
    for record in evidence.ladder():
        append_record(folder / "ladder.jsonl", record)
    page = tmp_path / "page.html"
    rates = {"machine": {"gpu": "NVIDIA H100 80GB HBM3"}, "copy_gb_s": 2916.0, "commit": "a" * 40, "dirty": False}
    path = written(tmp_path / "kernels.json", rates)
    assert fluxperf("report", folder, "-o", page).code == 0
    assert "2.92" not in page.read_text(encoding="utf-8")
    assert fluxperf("report", folder, "--ceilings", path, "-o", page).code == 0
    assert "a device copy, read and written, measured at commit aaaaaaaaaa (kernels.json)" in page.read_text("utf-8")
    shutil.move(path, folder / "kernels.json")
    (folder / "other.json").write_text("[]")
    assert fluxperf("report", folder, "-o", page).code == 0
    assert "measured at commit aaaaaaaaaa (kernels.json)" in page.read_text("utf-8")
    zero = written(tmp_path / "zero.json", rates | {"copy_gb_s": 0.0})
    complains(fluxperf("report", folder, "--ceilings", zero, "-o", page), "expected copy_gb_s above zero, got 0.0")
    complains(fluxperf("report", folder, "--ceilings", folder / "other.json", "-o", page), "benchmarks.kernels")


def test_a_sample_stands_beside_and_is_not_read_twice(fluxperf, records, tmp_path):
    page = tmp_path / "page.html"
    found = fluxperf("report", records, "--sample", ROOT / "reports" / "sample", "-o", page)
    assert found.code == 0, found.err
    html = page.read_text(encoding="utf-8")
    assert "Sample: schnell-1024, GPU kernels on NVIDIA H200" in html
    assert "7 records" in fluxperf("report", records, "--sample", records, "-o", page).out
    assert "Sample:" not in page.read_text(encoding="utf-8")


def test_history_of_a_folder_is_joined_with_the_records(fluxperf, records, tmp_path):
    folder = tmp_path / "history"
    for number in range(10):
        seconds = 9.0 if number < 5 else 3.0
        record = on_gpu("fused", seconds, commit=f"{number:040x}", created_utc=f"2026-01-{number + 1:02}T00:00:00Z")
        append_record(folder / "old.jsonl", record)
    page = tmp_path / "page.html"
    assert fluxperf("report", records, "--history", folder, "-o", page).code == 0
    html = page.read_text(encoding="utf-8")
    assert "Time to denoise over commits: schnell-1024 on a GPU" in html
    assert "0000000005" in html
    complains(fluxperf("report", records, "--history", tmp_path / "none", "-o", page), "cannot read records from")


def test_a_damaged_calibration_is_refused(fluxperf, records, tmp_path):
    (tmp_path / "calibration-amd-epyc-9r14-16-cores.json").write_text("{}")
    found = fluxperf("report", records, "--baselines", tmp_path, "-o", tmp_path / "page.html")
    complains(found, "expected a file of `fluxperf gate calibrate`")


def test_json_holds_the_figures_of_the_page(fluxperf, tmp_path):
    path = tmp_path / "records.jsonl"
    for record in [*evidence.ladder(), *evidence.peers()]:
        append_record(path, record)
    result = fluxperf("report", path, "-o", tmp_path / "page.html", "--json", "-")
    found = json.loads(result.out)
    assert "page.html" in result.err, "what is printed is JSON and nothing else"
    (climb,) = [one for one in found["ladders"] if one["ran_as"] == "kernel"]
    assert [rung["rung"] for rung in climb["rungs"]] == [record.rung for record in evidence.ladder()]
    assert climb["rungs"][-1]["over_baseline"]["kind"] == "interval"
    assert climb["rungs"][0]["totals"]["d2h_copies"] == 1374
    assert [peer["name"] for peer in climb["peers"]] == ["diffusers", "diffusers-compiled"]
    assert found["summary"]["next"]
    assert found["verdict"] is None


def test_markdown_is_a_comment_with_verdict_and_ladder(fluxperf, records, tmp_path):
    verdict, out = tmp_path / "verdict.json", tmp_path / "comment.md"
    verdict.write_text(as_json(evidence.verdict(evidence.row("SLOWER", "regression"))))
    result = fluxperf("report", records, "--verdict", verdict, "-o", tmp_path / "page.html", "--markdown", out)
    assert result.code == 0, result.err
    text = out.read_text(encoding="utf-8")
    assert text.startswith("## Performance gate: a regression")
    assert "| baseline | 82.1 ms (twin) | 81.2–83.0 ms | 3 × 5 |" in text
    assert "**Next steps**" in text
    assert len(text) < 65_536


def test_markdown_of_hostile_names_is_text_and_stays_within_its_size(fluxperf, tmp_path):
    path = tmp_path / "records.jsonl"
    for number in range(20):
        append_record(path, hostile(f"{number}`<b>|@team [x](y)\n" + "x" * 9_000))
    found = fluxperf("report", path, "-o", tmp_path / "page.html", "--markdown", "-")
    assert found.code == 0, found.err
    assert len(found.out) <= 60_000
    for mark in ("<b>", "`<", "@team", "[x]"):
        assert mark not in found.out


def test_only_one_rendering_goes_to_standard_output(fluxperf, records):
    complains(
        fluxperf("report", records, "--json", "-", "--markdown", "-"), "expected at most one of --output, --markdown"
    )


def test_open_opens_the_page(fluxperf, records, tmp_path, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert fluxperf("report", records, "-o", tmp_path / "page.html", "--open").code == 0
    assert opened == [(tmp_path / "page.html").as_uri()]


def test_old_records_without_later_fields_render_again(fluxperf, tmp_path):
    """A line of schema 1 with only the fields that every record has."""
    path = tmp_path / "old.jsonl"
    late = {
        "policy",
        "settings",
        "choices",
        "trials_s",
        "sampling",
        "conditions",
        "load",
        "witness",
        "blocks",
        "fluxperf",
    }
    for record in files_of(*twins())[0].records:
        line = {key: value for key, value in msgspec.to_builtins(record).items() if key not in late}
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
    result = fluxperf("report", path, "-o", tmp_path / "page.html")
    assert result.code == 0, result.err
    assert "116 copies down" in (tmp_path / "page.html").read_text(encoding="utf-8").replace("\xa0", " ")


def test_the_sample_is_a_copy_of_the_records():
    files = [path for path in sorted((ROOT / "reports" / "sample").iterdir()) if path.suffix != ".md"]
    assert {path.suffix for path in files} == {".jsonl", ".json", ".sqlite"}
    for path in files:
        folder = ROOT / ("tests/timeline/exports" if path.suffix == ".sqlite" else tree.SHOWN)
        assert path.read_bytes() == (folder / path.name).read_bytes(), "make sample renews it"


def test_a_timeline_is_shown(fluxperf, records, tmp_path):
    page = tmp_path / "page.html"
    capture = ROOT / "reports" / "sample" / "h100-schnell-1024-fused.sqlite"
    result = fluxperf("report", records, "--timeline", capture, "-o", page)
    assert result.code == 0, result.err
    html = page.read_text(encoding="utf-8")
    assert "No timeline was given" not in html
    assert "h100-schnell-1024-fused.sqlite" in html
    complains(fluxperf("report", records, "--timeline", tmp_path / "none.sqlite", "-o", page), "none.sqlite")


def test_the_page_can_be_printed(monkeypatch, fluxperf, tmp_path):
    from fluxperf.harness.report import html

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(html, "page", lambda study: "<!doctype html>")
    found = fluxperf("report", tree.ROOT / "reports/records/host-tiny.jsonl", "-o", "-")
    assert (found.code, found.out) == (0, "<!doctype html>")
    assert not list(tmp_path.iterdir()), "no file named - is left"
    assert "got several" in fluxperf("report", tree.ROOT / "reports/records", "-o", "-", "--json").err


class Anchors(HTMLParser):
    """External links of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a" and not (dict(attrs)["href"] or "").startswith("#"):
            self.found.append(dict(attrs))


def test_a_change_links_the_records_of_both_sides(fluxperf, tmp_path: Path) -> None:
    """Ten commits, the last five 10 % slower; each side has a file of its own, with an unusual name."""
    old, new = (
        tmp_path / "records" / name for name in ("a b#c?d&e=%41;+.jsonl", "\"><img src=x onerror=alert(1)>'.jsonl")
    )
    for number in range(10):
        level = 1.1 if number > 4 else 1.0
        times = {"denoise": [[level * (1 + 1e-4 * (number % 3))]], "step": []}
        append_record(new if number > 4 else old, making.record(number, times_s=times))
    page = tmp_path / "out/deep/page.html"
    assert fluxperf("report", tmp_path / "records", "-o", page, "--repo", tmp_path).code == 0
    links = Anchors(page.read_text(encoding="utf-8")).found
    assert [set(attrs) for attrs in links] == [{"href", "rel"}] * 2
    for attrs, side in zip(links, (old, new), strict=True):
        there = unquote(urlsplit(urljoin(page.as_uri(), attrs["href"])).path)
        assert there == str(side)
    printed = fluxperf("report", tmp_path / "records", "-o", "-", "--repo", tmp_path)
    assert Anchors(printed.out).found == []


def test_a_checkout_that_is_not_there_is_refused(fluxperf, records, tmp_path):
    page = tmp_path / "page.html"
    complains(
        fluxperf("report", records, "--repo", tmp_path / "none", "-o", page), "--repo: expected the folder of a git"
    )
    assert not page.exists()
