"""Results that are drawn from one evidence: pages are what it gives, and what it lacks is refused or named."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from benchmarks.results.__main__ import between, drawn, main, page
from benchmarks.results.evidence import read
from fluxperf.errors import RecordError, UnknownNameError
from fluxperf.harness.records import Record, read_records
from fluxperf.suites import lacking_in, missing_in
from tests.contracts.tree import LACKING, ROOT, SHOWN, WHOLE

PAGES = (
    "README.md", "docs/results.md", "docs/evidence.md", "docs/memory.md", "docs/generate.md", "docs/fp8.md",
    "CHANGELOG.md", "reports/sample/README.md",
)  # fmt: skip


def test_pages_are_what_the_evidence_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make renew` draws them."""
    monkeypatch.chdir(ROOT)
    assert {name for name, text in drawn(read(Path(SHOWN), LACKING.split())).items() if text != page(name)} == set()


def test_whole_evidence_makes_every_page() -> None:
    pages = drawn(read(WHOLE))
    assert tuple(pages) == PAGES
    assert len(pages["README.md"].splitlines()) <= 200
    assert pages["README.md"].partition("## Install")[2] == page("README.md").partition("## Install")[2], (
        "only the results are drawn"
    )
    for text in pages.values():
        assert "evidence -->\n<" not in text
        assert "`None" not in text
        assert ": None" not in text


def test_tables_have_a_cell_for_every_heading_and_a_time_in_every_row() -> None:
    tables = re.findall(r"(?m)(?:^\|.*\n)+", drawn(read(WHOLE))["docs/results.md"])
    assert len(tables) == 10
    for table in tables:
        rows = [line.strip("|").split("|") for line in table.splitlines()]
        assert len({len(row) for row in rows}) == 1, table
        assert len(rows) > 2, table
        assert all(re.search(r"\d", "".join(row[1:])) for row in rows[2:]), table


def test_figures_of_the_headline_stand_with_their_intervals() -> None:
    text = drawn(read(WHOLE))["README.md"]
    ladder = {row[0]: row for row in re.findall(r"(?m)^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \| (\d+) \|$", text)}
    assert list(ladder) == ["baseline", "broadcast", "batched", "tensorcore", "fused", "captured", "fp8"]
    assert re.fullmatch(r"\d+\.\d s \(~[\d.]+-[\d.]+\)", ladder["baseline"][2]), "by its steps"
    for name in list(ladder)[1:]:
        assert re.fullmatch(r"\d+\.\d ms \([\d.]+-[\d.]+\)", ladder[name][2]), name
    assert "expected 10-20x" in ladder["broadcast"][1]
    assert (ladder["baseline"][4], ladder["fp8"][4]) == ("2329", "0")
    assert len(re.findall(r"(?m)^\| (?:512|256) text tokens \|.*x \(", text)) == 3
    assert len(re.findall(r"(?m)^\| (?:schnell|dev), .* \d+ % \|$", text)) == 6


def test_links_of_drawn_pages_lead_somewhere() -> None:
    for name, text in drawn(read(WHOLE)).items():
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            assert target.startswith("http") or ((ROOT / name).parent / target).exists(), f"{name}: {target}"


def _records(folder: Path, change: Callable[[Record], Record | None], name: str = "headline.jsonl") -> None:
    """Changes records of a folder, or leaves them out."""
    file = folder / name
    kept = [new for one in read_records(file).records if (new := change(one)) is not None]
    file.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in kept))


def _document(folder: Path, name: str, **changes: object) -> None:
    """Changes fields of a document."""
    content = json.loads((folder / name).read_bytes())
    (folder / name).write_text(json.dumps({**content, **changes}), encoding="utf-8")


def _first(**changes: object) -> Callable[[Path], None]:
    """Changes the first record."""

    def change(folder: Path) -> None:
        first = iter([True])
        _records(folder, lambda one: msgspec.structs.replace(one, **changes) if next(first, False) else one)

    return change


def _machine(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "quality.json").read_bytes())["machine"])


def _head(folder: Path, name: str) -> None:
    """Leaves of a document only what it is of."""
    content = json.loads((folder / name).read_bytes())
    kept = {key: content[key] for key in ("commit", "dirty", "machine")}
    (folder / name).write_text(json.dumps(kept), encoding="utf-8")


def _torn(folder: Path) -> None:
    with (folder / "headline.jsonl").open("ab") as file:
        file.write(b'{"torn')


def _other_card(folder: Path) -> None:
    card = iter(["NVIDIA H100 80GB HBM3"])
    _records(
        folder,
        lambda one: msgspec.structs.replace(
            one, machine=msgspec.structs.replace(one.machine, gpu=next(card, one.machine.gpu))
        ),
    )


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a document is missing": (
        lambda folder: (folder / "quality.json").unlink(), r"lacks 1 of 87 processes: quality \(1\)"
    ),
    "a document cannot be read": (
        lambda folder: (folder / "quality.json").write_text("{"), r"lacks 1 of 87 processes: quality \(1\)"
    ),
    "another commit": (_first(commit="f" * 40), "Expected one commit"),
    "another card": (_other_card, "Expected one kind of card, got NVIDIA H100 80GB HBM3, NVIDIA H200"),
    "a changed tree": (_first(dirty=True), "of a changed tree"),
    "a torn line": (_torn, "cut off|truncated|incomplete"),
    "no times of parts": (
        lambda folder: (folder / "parts.ndjson").unlink(), "Expected headline.jsonl and parts.ndjson"
    ),
    "no records": (lambda folder: (folder / "headline.jsonl").unlink(), r"lacks 82 of 87 processes"),
    "a document of another commit": (
        lambda folder: _document(folder, "quality.json", commit="f" * 40), "quality.json has commit f+ instead of"
    ),
    "a document of another card": (
        lambda folder: _document(folder, "fp8-ops.json", machine=_machine(folder) | {"gpu": "NVIDIA H100"}),
        "fp8-ops.json has machine NVIDIA H100 instead of NVIDIA H200",
    ),
    "a document of a changed tree": (
        lambda folder: _document(folder, "captured-ops.json", dirty=True), "captured-ops.json has changes that are not"
    ),
    "ops of another rung": (
        lambda folder: _document(folder, "captured-ops.json", rung="fp8"), "expected the figures of captured-ops"
    ),
    "ops without figures": (lambda folder: _head(folder, "fp8-ops.json"), "expected the figures of fp8-ops"),
    "rates without figures": (lambda folder: _head(folder, "kernels.json"), "expected the figures of kernels"),
    "pictures without figures": (lambda folder: _head(folder, "end-to-end.json"), "expected the figures of end-to-end"),
    "pictures without records": (
        lambda folder: (folder / "end-to-end.jsonl").unlink(), r"lacks 1 of 87 processes: end-to-end \(1\)"
    ),
    "pictures without records of a rung": (
        lambda folder: _records(folder, lambda one: None if one.rung == "captured" else one, "end-to-end.jsonl"),
        "expected the figures of end-to-end",
    ),
    "errors of another workload": (
        lambda folder: _document(folder, "quality.json", workload={"name": "schnell-512"}),
        "expected the figures of quality, of schnell-1024",
    ),
    "a peer is missing": (
        lambda folder: _records(
            folder, lambda one: None if (one.workload.name, one.rung) == ("schnell-1024", "diffusers-fp8") else one
        ),
        "expected records of diffusers-fp8 from schnell-1024-fp8-beside-diffusers-fp8",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_whole_or_mixed_is_not_drawn(tmp_path: Path, name: str) -> None:
    change, said = REFUSED[name]
    folder = tmp_path / "evidence"
    shutil.copytree(WHOLE, folder)
    change(folder)
    with pytest.raises(RecordError, match=said) as refused:
        read(folder)
    assert "README and docs show whole evidence only" in str(refused.value) or name == "a torn line"


def test_a_part_that_is_named_may_be_missing_and_pages_name_it(tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    shutil.copytree(WHOLE, folder)
    of = ("schnell-1024-t256", "baseline")
    _records(folder, lambda one: None if (one.workload.name, one.rung) == of else one)
    name = "schnell-1024-t256-baseline"
    pages = drawn(read(folder, [name]))
    assert "85 of 87 processes of the suite `headline`" in pages["docs/results.md"]
    assert f"Of `{name}` nothing is measured yet." in pages["docs/results.md"]
    assert f"85 of 87 processes on an NVIDIA H200 (missing: {name})." in pages["docs/evidence.md"]
    ladder = pages["docs/results.md"].partition("The whole ladder with 256 text tokens")[2].partition("## Other")[0]
    assert "`baseline`" not in ladder
    assert "Phase 1: not measured, expected 10-20x" in ladder
    assert pages["README.md"] == drawn(read(WHOLE))["README.md"], "the headline lacks nothing"
    said = f"lacks 2 of 87 processes: {name} (2)."
    with pytest.raises(RecordError, match=re.escape(said)):
        read(folder)
    assert missing_in(folder, "headline") == f"Evidence of the suite headline {said}"
    assert (lacking_in(folder, "headline"), lacking_in(tmp_path, "headline")) == ({name: 2}, None)
    (folder / "quality.json").unlink()
    with pytest.raises(RecordError, match=r"lacks 1 of 87 processes: quality \(1\)"):
        read(folder, [name])


def test_parts_that_may_be_missing_exist_and_are_missing(tmp_path: Path) -> None:
    for name in ("baselin", "quality"):
        with pytest.raises(UnknownNameError, match=rf"'{name}'.*schnell-1024-t256-baseline"):
            read(WHOLE, [name])
    folder = tmp_path / "evidence"
    shutil.copytree(WHOLE, folder)

    def two(one: Record) -> Record:
        if (one.workload.name, one.rung, set(one.settings)) != ("schnell-1024", "fp8", {"nvtx"}):
            return one
        return msgspec.structs.replace(one, times_s={name: rows[:2] for name, rows in one.times_s.items()})

    _records(folder, two)
    for named in (WHOLE, folder):
        with pytest.raises(RecordError, match="Of schnell-1024-fp8 there are records"):
            read(named, ["schnell-1024-fp8"])


def test_the_command_writes_the_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """All of them; of those that are as they should be, none; and none where something is wrong."""
    for name in (*PAGES, "Makefile"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / SHOWN, tmp_path / SHOWN)
    for module in ("__main__", "evidence"):
        monkeypatch.setattr(f"benchmarks.results.{module}.ROOT", tmp_path)
    words = [str(tmp_path / SHOWN), *(word for name in LACKING.split() for word in ("--without", name))]
    right = {name: (tmp_path / name).read_text(encoding="utf-8") for name in PAGES}
    main(words)
    assert capsys.readouterr().out == ""
    for name, other in (("README.md", "372.7"), ("docs/results.md", "372.7"), ("docs/fp8.md", "| 3.36 % |")):
        assert other in right[name], "a figure that the evidence gives"
        (tmp_path / name).write_text(right[name].replace(other, "9.9"), encoding="utf-8")
    (tmp_path / "README.md").write_text(
        right["README.md"].replace("372.7", "9.9").replace("sample from an H200", "sample from an H100"),
        encoding="utf-8",
    )
    changed = {name: (tmp_path / name).read_text(encoding="utf-8") for name in PAGES}
    shutil.copytree(tmp_path / SHOWN, tmp_path / "elsewhere")
    for wrong, said in (
        ([*words, "--without", "quality"], "unknown part that measures a rung 'quality'"),
        ([str(tmp_path / "elsewhere"), *words[1:]], "expected a folder of evidence in"),
        ([str(tmp_path / SHOWN / "none")], "none"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(wrong)
        assert stop.value.code == 2
        assert said in capsys.readouterr().err
        assert {name: (tmp_path / name).read_text(encoding="utf-8") for name in PAGES} == changed
    main(words)
    assert capsys.readouterr().out == "drew README.md\ndrew docs/results.md\ndrew docs/fp8.md\n"
    assert {name: (tmp_path / name).read_text(encoding="utf-8") for name in PAGES} == right


def test_a_page_without_its_markers_is_not_overwritten() -> None:
    for text in ("before <a> old", "old </a> after", "neither"):
        with pytest.raises(RecordError, match="Restore the page"):
            between(text, "<a>", "</a>", "new")
    assert between("before <a> old </a> after", "<a>", "</a>", "new") == "before <a>new</a> after"


def test_make_renews_everything_from_what_is_shown() -> None:
    command = ["make", "-n", "renew", "LACKING=one two"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    order = [f"benchmarks.results {SHOWN} --without one --without two", "cp ", "FLUXPERF_RENEW_GOLDEN", "--chart"]
    assert [done.index(word) for word in order] == sorted(done.index(word) for word in order)
    copied = next(line for line in done.splitlines() if line.startswith("cp "))
    assert f"{SHOWN}/headline.jsonl" in copied
    assert "h100-schnell-1024.jsonl" not in copied, "nothing is mixed"
