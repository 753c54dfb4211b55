"""``fluxperf evidence``: the suite without a GPU, from nothing to a page without warnings about missing parts."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from statistics import median

import pytest
import typer

from benchmarks.quality import __main__ as quality
from fluxperf.cli import app, main
from fluxperf.harness import collecting
from fluxperf.harness.facts.beside_peers import beside_peers
from fluxperf.harness.facts.climbs import climbs
from fluxperf.harness.facts.study import survey
from fluxperf.harness.facts.summary import summarized
from fluxperf.harness.records import read_records
from fluxperf.harness.report.machines import remarks
from fluxperf.peers import known_peers
from fluxperf.published import context
from fluxperf.suites import SUITES
from fluxperf.workloads import HEADLINE
from tests.contracts.tree import WHOLE
from tests.report.pages import Page

RUNGS = ("baseline", "broadcast", "batched", "tensorcore", "fused", "captured", "fp8")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Processes of the suite run inside the test's process, once per rung; returns the arguments of each."""
    ran: list[list[str]] = []

    def once(command: list[str], out: Path, root: Path) -> tuple[str, str]:
        words = command[2:]
        ran.append(words)
        if words[0] == "benchmarks.quality":
            quality.main(words[1:])
            return "", ""
        with pytest.raises(SystemExit) as stop:
            main([word.replace("--repeat=3", "--repeat=1") for word in words[1:]])
        return ("" if not stop.value.code else "failed"), ""

    monkeypatch.setattr(collecting, "run_once", once)
    monkeypatch.setenv("FLUXPERF_COMMIT", "a" * 40)
    return ran


def test_the_host_twin_of_the_suite_makes_a_page_that_lacks_nothing(fluxperf, in_process, tmp_path) -> None:
    folder = tmp_path / "evidence"
    first = fluxperf("evidence", "tiny", "-o", folder, "--part", "tiny-f*")
    assert first.code == 0, first.err
    assert "6 processes to run" in first.err
    done = fluxperf("evidence", "tiny", "-o", folder)
    assert done.code == 0, done.err
    assert len(in_process) == 3 * len(RUNGS) + 1, "what was done is not done again"
    assert "Nothing is missing" in done.out
    file = read_records(folder / "tiny.jsonl")
    assert {(one.rung, len(one.times_s["denoise"])) for one in file.records} == {(rung, 3) for rung in RUNGS}
    study = survey([file], context(""))
    # Tests share a machine, so a message about its load is not an error.
    assert [text for warning, text in remarks(study) if warning and "The host was busy" not in text] == []
    told = " ".join(summarized(study).unmeasured)
    for word in ("error", "witness", "spread", "sample", "no record of", "commit"):
        assert word not in told
    page = fluxperf("report", folder / "tiny.jsonl", "-o", tmp_path / "page.html")
    assert page.code == 0, page.err


def test_the_headline_of_a_card_lacks_nothing() -> None:
    """Its baseline has the spread of its steps, every other speedup an interval; each peer stands beside a rung."""
    study = survey([read_records(WHOLE / "headline.jsonl")], context(""))
    assert [text for warning, text in remarks(study) if warning] == []
    ladder = study.ladders[0]
    assert ladder.label == HEADLINE
    assert {peer.name: ours.rung for peer, ours, _ in beside_peers(study, ladder)} == {
        "diffusers": "fused", "diffusers-compiled": "captured", "diffusers-fp8": "fp8",
    }  # fmt: skip
    kinds = {climb.name: climb.found.kind for climb in climbs(study, ladder) if climb.found}
    assert len(kinds) == 5
    assert set(kinds.values()) == {"interval", "steps"}
    assert [name for name, kind in kinds.items() if kind == "steps"] == ["Phase 1: GPU-native broadcast ops"], (
        "two processes of the baseline"
    )


def test_the_list_says_what_is_missing_and_measures_nothing(fluxperf, in_process, tmp_path) -> None:
    told = fluxperf("evidence", "headline", "-o", tmp_path / "none", "--list")
    assert (told.code, in_process, (tmp_path / "none").exists()) == (0, [], False)
    assert "schnell-1024-fp8" in told.out
    assert "processes missing, about" in told.out


def test_the_list_says_what_is_mixed(fluxperf, tmp_path) -> None:
    folder = tmp_path / "evidence"
    shutil.copytree(WHOLE, folder)
    assert fluxperf("evidence", "headline", "-o", folder, "--list").code == 0
    document = json.loads((folder / "quality.json").read_bytes())
    (folder / "quality.json").write_text(json.dumps({**document, "commit": "f" * 40}), encoding="utf-8")
    told = fluxperf("evidence", "headline", "-o", folder, "--list")
    assert told.code == 2
    assert "quality.json has commit ffff" in told.err
    assert "schnell-1024-fp8" in told.out, "the list all the same"
    assert "Nothing is missing" not in told.out, "no page is suggested"
    made = fluxperf("report", folder, "-o", tmp_path / "page.html")
    assert made.code == 0, made.err
    machines = Page((tmp_path / "page.html").read_text(encoding="utf-8")).sections["machines"]
    assert f"quality.json has commit {'f' * 40}" in machines
    assert "one clean commit" not in machines


def test_a_page_of_evidence_whose_records_are_gone_says_so(fluxperf, tmp_path) -> None:
    folder = tmp_path / "evidence"
    shutil.copytree(WHOLE, folder)
    (folder / "headline.jsonl").unlink()
    assert "82 processes missing" in fluxperf("evidence", "headline", "-o", folder, "--list").out
    made = fluxperf("report", folder, "-o", tmp_path / "page.html")
    assert made.code == 0, made.err
    summary = Page((tmp_path / "page.html").read_text(encoding="utf-8")).sections["summary"]
    assert "4 records of pictures alone, on NVIDIA H200." in summary
    assert "Evidence of the suite headline lacks 82 of 87 processes" in summary


@pytest.mark.parametrize("field", ["witness", "error", "samples"])
def test_a_record_without_what_its_part_asks_for_is_missing(fluxperf, tmp_path, field: str) -> None:
    folder = tmp_path / "evidence"
    shutil.copytree(WHOLE, folder)
    rows = [json.loads(line) for line in (folder / "headline.jsonl").read_bytes().splitlines()]
    for row in rows:
        if (row["workload"]["name"], row["rung"], list(row["settings"])) == (HEADLINE, "fused", ["nvtx"]):
            row.update({"times_s": {"denoise": [[], [], []]}} if field == "samples" else {field: None})
    (folder / "headline.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    told = fluxperf("evidence", "headline", "-o", folder, "--list").out
    assert re.search(r"schnell-1024-fused +0 of 3", told)
    assert "3 processes missing" in told


def test_a_process_that_cannot_be_read_is_named(fluxperf, tmp_path) -> None:
    folder = tmp_path / "evidence"
    shutil.copytree(WHOLE, folder)
    (folder / "processes").mkdir()
    (folder / "processes/schnell-1024-fp8-1.process").write_bytes(b"{garbage\n")
    told = fluxperf("evidence", "headline", "-o", folder, "--list")
    assert told.code == 2
    assert "schnell-1024-fp8-1.process: expected what a process of schnell-1024-fp8 measured" in told.err
    assert "Remove it" in told.err


def test_what_cannot_be_is_said(fluxperf, in_process, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("fluxperf.cli.evidence.device_name", lambda: None)
    assert "evidence tiny" in fluxperf("evidence", "headline", "-o", tmp_path).err
    assert "unknown suite 'head'" in fluxperf("evidence", "head", "-o", tmp_path).err
    assert "unknown part 'x*'" in fluxperf("evidence", "tiny", "-o", tmp_path, "--part", "x*").err
    assert in_process == []


def test_a_budget_of_nothing_begins_nothing(fluxperf, in_process, tmp_path) -> None:
    told = fluxperf("evidence", "tiny", "-o", tmp_path / "e", "--budget", "0")
    assert (told.code, in_process) == (0, [])
    assert "22 processes not started" in told.err


@pytest.mark.parametrize("suite", SUITES)
def test_every_part_is_a_command_that_is_understood(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments are parsed by the command that they belong to, which is not run. Names of parts are file names."""
    parts = SUITES[suite]()
    assert len({part.name for part in parts}) == len(parts)
    latents = {part.makes for part in parts}
    for part in parts:
        assert part.name.replace("-", "").replace(".", "").isalnum()
        assert part.needs in latents, f"{part.name} needs {part.needs}, which nothing makes"
        assert (part.key is None) != (part.document == "")
        module, *words = [word.format(out="o.json", scratch="s") for word in part.words]
        peers = [word.partition("=")[2] for word in words if word.startswith("--peer=")]
        if module == "fluxperf":
            assert {*peers} <= {*known_peers()}
            _parsed(words)
        else:
            assert Path(f"{module.replace('.', '/')}.py").exists() or Path(module.replace(".", "/")).is_dir()


def _parsed(words: list[str]) -> None:
    command = typer.main.get_command(app).get_command(None, words[0])
    command.make_context(words[0], words[1:])


def test_the_headline_has_every_rung_in_three_processes_from_tensorcore_on() -> None:
    parts = SUITES["headline"]()
    for sizes in (HEADLINE, "schnell-1024-t256"):
        named = {part.name: part for part in parts}
        for rung in RUNGS:
            part = named[f"{sizes}-{rung}"]
            assert part.processes >= (2 if rung == "baseline" else 3)
            assert "--witness" in part.words
            assert part.makes or part.needs


def test_a_page_of_complete_evidence_says_nothing_about_what_it_lacks(fluxperf, tmp_path) -> None:
    """From all parts of the headline: sizes with their bound, pictures, errors beside peers, profiled ops."""
    told = fluxperf("evidence", "headline", "-o", WHOLE, "--list").out
    assert f"Nothing is missing. `fluxperf report {WHOLE}`" in told
    assert "?" not in told, "every part was measured on that kind of card, though there is none here"
    made = fluxperf("report", WHOLE, "-o", tmp_path / "page.html")
    assert made.code == 0, made.err
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    told = page.sections["summary"].partition("Not measured")[2]
    for word in ("No error", "witness", "One sample", "lacks", "commit.", "peer"):
        assert word not in told
    assert "as it takes minutes; its spread is computed from its steps: schnell-1024" in told
    assert "All records are from one machine, as far as they tell, and one clean commit" in page.sections["machines"]
    assert page.sections["headline"].count("Quickest rung") == 2, "the headline, and that with 256 text tokens"
    first = page.sections["headline"].partition("Quickest rung: fp8, 4 steps in ")[2]
    assert re.match(r"\d+ ms \(95 %: ", first)
    for row, cells in (("schnell-512", 5), ("diffusers-fp8-exact", 4), ("Beyond: fp8", 7), ("All of them", 7)):
        assert all(page.row(row, cells)), row
    assert "Where a step of fp8 goes: schnell-1024" in page.sections["ops"]
    assert "36 records, 36 of them shown above" in page.sections["raw"]
    assert "dev-1024 and 2 more" in page.sections["machines"], "six workloads, as in the list of ladders"
    for command in (
        f"fluxperf evidence headline -o {WHOLE}",
        "--workload schnell-1024 --rung baseline --processes 2 --repeat 1 -o",
        "--workload schnell-1024 --rung fp8 --processes 3 --repeat 7 --peer diffusers-fp8 -o",
    ):
        assert command in page.sections["headline"], "how it was measured"
    assert "--all --processes 3" not in page.sections["headline"], "hours of the baseline"
    pictures = page.sections["headline"].partition("From a prompt to a file")[2]
    stages = json.loads((WHOLE / "end-to-end.json").read_bytes())["rungs"][-1]["peers"][0]["stages_s"]
    assert f"{median(stages['denoise']) * 1e3:.0f} ms" in pictures, "stages of a peer"
    assert re.search(r"fp8: 427.455.ms; peer 2\.55. as long", pictures), "the rung that was in turns with it"
    for part in ("Sizes beside the sustained bound", "From a prompt to a file"):
        assert part in page.sections["headline"]


def test_a_page_of_evidence_says_what_it_lacks_and_how_to_go_on(fluxperf, tmp_path) -> None:
    folder = tmp_path / "evidence"
    shutil.copytree(WHOLE, folder)
    (folder / "quality.json").unlink()
    made = fluxperf("report", folder / "headline.jsonl", "-o", tmp_path / "page.html")
    assert made.code == 0, made.err
    text = Page((tmp_path / "page.html").read_text(encoding="utf-8")).sections["summary"]
    assert "Evidence of the suite headline lacks 1 of 87 processes: quality (1)." in text
    assert f"fluxperf evidence headline -o {folder} --budget 600" in text
