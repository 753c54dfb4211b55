"""``fluxperf evidence``: the suite that needs no GPU, from nothing to a page without a word about what it lacks."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import typer

from benchmarks.quality import __main__ as quality
from fluxperf.cli import app, main
from fluxperf.harness import collecting
from fluxperf.harness.collecting import Collection, Here, Part
from fluxperf.harness.facts.beside_peers import beside_peers
from fluxperf.harness.facts.climbs import climbs
from fluxperf.harness.facts.study import survey
from fluxperf.harness.facts.summary import summarized
from fluxperf.harness.records import ErrorRow, Record, read_records
from fluxperf.harness.report.machines import remarks
from fluxperf.peers import known_peers
from fluxperf.published import context
from fluxperf.suites import SUITES
from fluxperf.workloads import HEADLINE
from tests.report.pages import on_gpu, workload

RUNGS = ("baseline", "broadcast", "batched", "tensorcore", "fused", "captured", "fp8")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Processes of the suite run in the test's own, once per rung; the words of each."""
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
    assert "Everything is there" in done.out
    file = read_records(folder / "tiny.jsonl")
    assert {(one.rung, len(one.times_s["denoise"])) for one in file.records} == {(rung, 3) for rung in RUNGS}
    study = survey([file], context(""))
    # Tests share a machine: that it was busy is no fault of the evidence.
    assert [text for warning, text in remarks(study) if warning and "The host was busy" not in text] == []
    told = " ".join(summarized(study).unmeasured)
    for word in ("error", "witness", "spread", "sample", "no record of", "commit"):
        assert word not in told
    page = fluxperf("report", folder / "tiny.jsonl", "-o", tmp_path / "page.html")
    assert page.code == 0, page.err


SECONDS = dict(zip(RUNGS, (400.0, 7.5, 7.0, 1.25, 0.5, 0.45, 0.27), strict=True))


def of_a_card(part: Part, number: int, made: set[str]) -> list[Record]:
    """Records of a part's process on a GPU: made up, with what its options ask for."""
    assert part.key is not None
    name = "schnell-1024-t256" if part.key.sizes[3] == 256 else HEADLINE
    settings = {"nvtx": "off", **dict(part.key.settings)}
    seconds = SECONDS[part.key.rung] * (1 + 0.002 * number)
    times = {"denoise": [[seconds]], "step": [[seconds / 4] * 4]}
    against = ErrorRow(relative=1e-3, against="rung batched (float32), final latents", rung="batched")
    sizes = msgspec.structs.replace(workload(HEADLINE), name=name, text_tokens=int(part.key.sizes[3]))
    how = {
        "settings": settings,
        "error": against if part.needs else None,
        "created_utc": f"2026-08-01T00:00:{number:02}Z",
    }
    record = on_gpu(part.key.rung, seconds, workload=sizes, **how)
    made.update({part.makes} - {""})
    assert not part.needs or part.needs in made
    witness = record.totals if "--witness" in part.words else None
    record = msgspec.structs.replace(record, times_s=times, witness=witness)
    peers = [word.partition("=")[2] for word in part.words if word.startswith("--peer=")]
    beside = {"ran_as": "peer", "error": None, "blocks": [], "ops": []}
    return [record, *(msgspec.structs.replace(record, implementation=one, rung=one, **beside) for one in peers)]


def test_the_headline_of_a_card_makes_a_page_that_lacks_nothing(tmp_path, monkeypatch) -> None:
    """Of both workloads, with peers and budgets; other sizes have no baseline, and the page says so."""
    parts = [part for part in SUITES["headline"]() if part.name.startswith(HEADLINE) and "-b4-" not in part.name]
    collection, made = Collection(tmp_path, "headline", parts), set[str]()
    here = Here("3" * 40, False, "NVIDIA H100 80GB HBM3")
    for number, step in enumerate(collection.missing()):
        records = of_a_card(step.part, number % 60, made)
        lines = b"".join(msgspec.json.encode(one) + b"\n" for one in records)
        monkeypatch.setattr(
            collecting, "run_once", lambda words, out, root, lines=lines: (out.write_bytes(lines), ("", ""))[1]
        )
        assert collection.take(step, here, tmp_path, tmp_path) == ""
    study = survey([read_records(tmp_path / "headline.jsonl")], context(""))
    assert [text for warning, text in remarks(study) if warning] == []
    told = summarized(study).unmeasured
    assert [text for text in told if "gate" not in text and "calibration" not in text and "timeline" not in text] == []
    ladder = study.ladders[0]
    assert {peer.name: ours.rung for peer, ours, _ in beside_peers(study, ladder)} == {
        "diffusers": "fused", "diffusers-compiled": "captured", "diffusers-fp8": "fp8",
    }  # fmt: skip
    kinds = {climb.name: climb.found.kind for climb in climbs(study, ladder) if climb.found}
    assert set(kinds.values()) == {"interval", "range"}
    assert [name for name, kind in kinds.items() if kind == "range"] == ["Phase 1: GPU-native broadcast ops"], (
        "two processes of the baseline"
    )


def test_the_list_says_what_is_missing_and_measures_nothing(fluxperf, in_process, tmp_path) -> None:
    told = fluxperf("evidence", "headline", "-o", tmp_path / "none", "--list")
    assert (told.code, in_process, (tmp_path / "none").exists()) == (0, [], False)
    assert "schnell-1024-fp8" in told.out
    assert "processes missing, about" in told.out


def test_what_cannot_be_is_said(fluxperf, in_process, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("fluxperf.cli.evidence.device_name", lambda: None)
    assert "evidence tiny" in fluxperf("evidence", "headline", "-o", tmp_path).err
    assert "unknown suite 'head'" in fluxperf("evidence", "head", "-o", tmp_path).err
    assert "unknown part 'x*'" in fluxperf("evidence", "tiny", "-o", tmp_path, "--part", "x*").err
    assert in_process == []


def test_a_budget_of_nothing_begins_nothing(fluxperf, in_process, tmp_path) -> None:
    told = fluxperf("evidence", "tiny", "-o", tmp_path / "e", "--budget", "0")
    assert (told.code, in_process) == (0, [])
    assert "22 processes not begun" in told.err


@pytest.mark.parametrize("suite", SUITES)
def test_every_part_is_a_command_that_is_understood(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words are parsed by the command that they are for, which is not run; names of parts name files."""
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
