"""Results that are drawn from one evidence: pages are what it gives, and what it lacks is refused or named."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from benchmarks.results.__main__ import drawn, main, page
from benchmarks.results.evidence import read
from fluxperf.errors import RecordError, UnknownNameError
from fluxperf.harness.records import read_records
from tests.contracts.tree import LACKING, ROOT, SHOWN
from tests.report.whole_evidence import complete

PAGES = (
    "README.md", "docs/results.md", "docs/evidence.md", "docs/memory.md", "docs/generate.md", "docs/fp8.md",
    "CHANGELOG.md", "reports/sample/README.md",
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evidence that was measured, and invented processes in the place of what was not."""
    folder = tmp_path_factory.mktemp("whole") / "evidence"
    shutil.copytree(ROOT / "reports/records/evidence-h200", folder)
    for _ in complete(folder, tmp_path_factory.mktemp("scratch")):
        pass
    return folder


def test_pages_are_what_the_evidence_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make renew` draws them."""
    monkeypatch.chdir(ROOT)
    assert {name for name, text in drawn(read(Path(SHOWN), LACKING.split())).items() if text != page(name)} == set()


def test_whole_evidence_makes_every_page(whole: Path) -> None:
    pages = drawn(read(whole))
    assert tuple(pages) == PAGES
    assert len(pages["README.md"].splitlines()) <= 200
    assert pages["README.md"].partition("## Install")[2] == page("README.md").partition("## Install")[2], (
        "only the results are drawn"
    )
    for text in pages.values():
        assert "evidence -->\n<" not in text
        assert "`None" not in text
        assert ": None" not in text


def test_tables_have_a_cell_for_every_heading_and_a_time_in_every_row(whole: Path) -> None:
    tables = re.findall(r"(?m)(?:^\|.*\n)+", drawn(read(whole))["docs/results.md"])
    assert len(tables) == 10
    for table in tables:
        rows = [line.strip("|").split("|") for line in table.splitlines()]
        assert len({len(row) for row in rows}) == 1, table
        assert len(rows) > 2, table
        assert all(re.search(r"\d", "".join(row[1:])) for row in rows[2:]), table


def test_figures_of_the_headline_stand_with_their_intervals(whole: Path) -> None:
    text = drawn(read(whole))["README.md"]
    ladder = {row[0]: row for row in re.findall(r"(?m)^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \| (\d+) \|$", text)}
    assert list(ladder) == ["baseline", "broadcast", "batched", "tensorcore", "fused", "captured", "fp8"]
    assert re.fullmatch(r"\d+\.\d s \(~[\d.]+-[\d.]+\)", ladder["baseline"][2]), "by its steps"
    for name in list(ladder)[1:]:
        assert re.fullmatch(r"\d+\.\d ms \([\d.]+-[\d.]+\)", ladder[name][2]), name
    assert "expected 10-20x" in ladder["broadcast"][1]
    assert (ladder["baseline"][4], ladder["fp8"][4]) == ("2329", "0")
    assert len(re.findall(r"(?m)^\| (?:512|256) text tokens \|.*x \(", text)) == 3
    assert len(re.findall(r"(?m)^\| (?:schnell|dev), .* \d+ % \|$", text)) == 6


def test_links_of_drawn_pages_lead_somewhere(whole: Path) -> None:
    for name, text in drawn(read(whole)).items():
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            assert target.startswith("http") or ((ROOT / name).parent / target).exists(), f"{name}: {target}"


def _changed(folder: Path, **changes: object) -> None:
    records = read_records(folder / "headline.jsonl").records
    lines = [msgspec.json.encode(one) for one in (msgspec.structs.replace(records[0], **changes), *records[1:])]
    (folder / "headline.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def test_what_is_not_whole_or_mixed_is_not_drawn(whole: Path, tmp_path: Path, capsys) -> None:
    def torn(folder: Path) -> None:
        with (folder / "headline.jsonl").open("ab") as file:
            file.write(b'{"torn')

    for number, (change, said) in enumerate(
        (
            (lambda folder: (folder / "quality.json").unlink(), r"lacks 1 of 87 processes: quality \(1\)"),
            (lambda folder: _changed(folder, commit="f" * 40), "Expected one commit"),
            (lambda folder: _changed(folder, dirty=True), "of a changed tree"),
            (torn, "cut off|truncated|incomplete"),
        )
    ):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        change(folder)
        with pytest.raises(RecordError, match=said):
            read(folder)
        with pytest.raises(SystemExit) as stop:
            main([str(folder)])
        assert stop.value.code == 2
        assert "README and docs show whole evidence only" in capsys.readouterr().err or number == 3


def test_a_part_that_is_named_may_be_missing_and_pages_name_it(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    shutil.copytree(whole, folder)
    file = folder / "headline.jsonl"
    kept = [
        one for one in read_records(file).records if (one.workload.name, one.rung) != ("schnell-1024-t256", "baseline")
    ]
    file.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in kept))
    name = "schnell-1024-t256-baseline"
    pages = drawn(read(folder, [name]))
    assert (
        f"85 of 87 processes of the suite `headline` ([evidence.md](evidence.md)).\n`{name}` is not"
        in (pages["docs/results.md"])
    )
    assert f"85 of 87 processes on an NVIDIA H200, without {name}." in pages["docs/evidence.md"]
    ladder = pages["docs/results.md"].partition("The whole ladder with 256 text tokens")[2].partition("## Other")[0]
    assert "`baseline`" not in ladder
    assert "Phase 1: not measured, expected 10-20x" in ladder
    assert pages["README.md"] == drawn(read(whole))["README.md"], "the headline lacks nothing"
    with pytest.raises(RecordError, match=rf"lacks 2 of 87 processes: {name} \(2\)"):
        read(folder)
    (folder / "quality.json").unlink()
    with pytest.raises(RecordError, match=r"lacks 1 of 87 processes: quality \(1\)"):
        read(folder, [name])


def test_parts_that_may_be_missing_exist_and_are_missing(whole: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"'baselin'.*schnell-1024-t256-baseline"):
        read(whole, ["baselin"])
    with pytest.raises(RecordError, match="quality is complete"):
        read(whole, ["quality"])


def test_make_renews_everything_from_what_is_shown() -> None:
    command = ["make", "-n", "renew", "LACKING=one two"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    order = [f"benchmarks.results {SHOWN} --without one --without two", "cp ", "FLUXPERF_RENEW_GOLDEN", "--chart"]
    assert [done.index(word) for word in order] == sorted(done.index(word) for word in order)
    copied = next(line for line in done.splitlines() if line.startswith("cp "))
    assert f"{SHOWN}/headline.jsonl" in copied
    assert "h100-schnell-1024.jsonl" not in copied, "nothing is mixed"
