"""README and docs are correct: tables and figures come from records, commands run, links have targets."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
from itertools import product
from pathlib import Path
from statistics import median

import pytest
from rich.console import Console

from benchmarks.extras import COMBINATIONS, PYTHONS, document
from fluxperf.cli import main
from fluxperf.cli.ladder import ladder
from fluxperf.cli.phases import as_markdown
from fluxperf.harness.records import read_records
from tests.contracts.tree import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
#: Pages with links. README and its detail pages, with figures and commands, are read as one text.
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")])
DETAIL = ("ladder", "commands", "install", "numbers", "results")
TEXT = "\n".join([README, *((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in DETAIL)])
COMMANDS = re.findall(r"`(fluxperf [^`]+)`", TEXT)


def between(mark: str) -> str:
    """The text between two comments; the first may name a file after a colon."""
    start = re.escape(mark) if ":" in mark else f"{mark}: .*?"
    found = re.search(rf"<!-- {start} -->\n(.*?)<!-- /{mark.partition(':')[0]} -->", TEXT, re.DOTALL)
    assert found, f"no page has a part {mark!r}"
    return found[1]


def held(mark: str, expected: list[str], head: int = 0) -> None:
    """Asserts the text between two comments, from a given line on; `make golden` writes it there."""
    found = [line.rstrip() for line in between(mark).rstrip("\n").split("\n")]
    if found[head:] == expected or not os.environ.get("FLUXPERF_RENEW_GOLDEN"):
        assert found[head:] == expected
        return
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if f"<!-- {mark} -->" in text:
            before, _, rest = text.partition(f"<!-- {mark} -->\n")
            after = rest[rest.index(f"<!-- /{mark.partition(':')[0]} -->") :]
            page.write_text(
                f"{before}<!-- {mark} -->\n" + "\n".join([*found[:head], *expected]) + f"\n{after}", encoding="utf-8"
            )


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200


def test_the_index_lists_every_page():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((\w+\.md)\)", index)) == {path.name for path in (ROOT / "docs").glob("*.md")} - {
        "index.md"
    }


def anchors(page: Path) -> set[str]:
    """Link anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    broken = []
    for page in PAGES:
        text = re.sub(r"(?ms)^```.*?^```|`[^`\n]*`", "", page.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = target.partition("#")
            file = page.parent / path if path else page
            if not target.startswith("http") and (not file.exists() or (anchor and anchor not in anchors(file))):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken


def test_extras_are_those_of_the_record():
    name = "host-extras.json"
    rows = json.loads((ROOT / "reports/records" / name).read_text(encoding="utf-8"))["rows"]
    seen = [(row["extras"], row["python"]) for row in rows]
    assert [one for one in product(COMBINATIONS, PYTHONS) if one in seen] == seen, "known, once, and in order"
    assert not [row["problems"] for row in rows if row["problems"]]
    held(f"extras: {name}", document(rows), head=2)


def test_the_phase_table_is_the_one_in_phases_py():
    assert between("phases").strip() == as_markdown()


@pytest.mark.parametrize("name", re.findall(r"<!-- run: (.*?) -->", TEXT))
def test_a_run_that_is_shown_is_a_committed_record(name: str):
    console = Console(width=80, file=io.StringIO(), legacy_windows=False)
    console.print(ladder(read_records(ROOT / name).records))
    printed = [line.rstrip() for line in console.file.getvalue().rstrip().splitlines()]
    held(f"run: {name}", ["```", *printed, "```"])


def test_the_copies_quoted_are_those_of_the_record():
    baseline = read_records(ROOT / "reports/records/host-tiny-57.jsonl").records[0]
    assert baseline.rung == "baseline"
    assert f"{baseline.totals.d2h_copies} copies down and {baseline.totals.h2d_copies} up" in TEXT


def test_files_and_folders_of_the_layout_exist():
    layout = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Layout")[1].split("## ")[0]
    rows = re.findall(r"^\| (`[^|]+) \|", layout, re.MULTILINE)
    for name in [word for row in rows for word in re.findall(r"`([^`]+)`", row)]:
        assert (ROOT / name).exists() or (ROOT / "fluxperf" / name).exists(), name


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make ([\w-]+)`", TEXT))))
def test_make_targets_exist(target):
    assert re.search(rf"(?m)^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"))


#: Commands that need a checkpoint, a GPU, processes of their own (tests/cli/test_replicas.py), a capture
#: (tests/timeline/test_command.py) or a checkout around them (tests/cli/test_gate.py).
ELSEWHERE = re.compile(r"DIR|--peer|--processes|fluxperf (kernels|witness|profile|timeline|gate)\b")
RUN_HERE = [command for command in dict.fromkeys(COMMANDS) if not ELSEWHERE.search(command)]


def shortened(words: list[str]) -> list[str]:
    """Arguments of a command; a run measures once and as briefly as possible, because numbers of
    repeats do not matter.
    """
    if words[0] != "run":
        return words
    limits = ["--time-limit-s", "0.1"] if "--time-limit-s" in words else []
    return [*words, "--repeat", "1", "--warmup", "0", *limits]


def test_most_commands_run_here():
    assert len(RUN_HERE) >= 12
    assert {command.split()[1] for command in RUN_HERE} == {
        "run", "report", "history", "push", "phases", "ops", "doctor",
    }  # fmt: skip


@pytest.mark.parametrize("command", RUN_HERE)
def test_a_command_runs(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    words = shlex.split(command)[1:]
    monkeypatch.chdir(tmp_path)
    if words[0] in ("report", "history", "push"):
        Path("reports/records").mkdir(parents=True)
        for copy in ("records.jsonl", "reports/records/host-tiny-57.jsonl"):
            shutil.copy(ROOT / "reports/records/host-tiny-57.jsonl", copy)
    code: object = 0
    try:
        main(shortened(words))
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    assert not code, printed.err
    assert printed.out
    written = [Path(words[at + 1]) for at, word in enumerate(words) if word == "-o"]
    assert all(path.stat().st_size for path in written)


def test_bandwidths_of_the_kernels_are_those_of_the_record():
    text = (ROOT / "kernels" / "README.md").read_text(encoding="utf-8")
    names = ("h100-kernels.json", "h200-kernels.json")
    record, newer = (json.loads((ROOT / "reports/records" / name).read_text(encoding="utf-8")) for name in names)
    rows = record["kernels"] + [row for row in newer["kernels"] if "norm_modulate" in row["kernel"]]
    measured = {(f"{row['gb_s']:.0f}", f"{100 * row['of_copy']:.1f}") for row in rows}
    shown = re.findall(r"\| (\d+) \| ([\d.]+) \|$", text, re.MULTILINE)
    assert len(shown) >= 10
    assert set(shown) <= measured
    assert f"{record['copy_gb_s']:.0f} GB/s" in text


@pytest.mark.parametrize(
    "text", [TEXT, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")], ids=["pages", "changelog"]
)
def test_times_on_the_gpu_are_medians_of_the_records(text: str):
    # tests/contracts/test_drawn.py holds what is drawn
    text = text.replace((ROOT / "docs/results.md").read_text(encoding="utf-8"), "")
    text = re.sub(r"(?ms)^## Results$.*?^## Install$|<!-- evidence -->.*?<!-- /evidence -->", "", text)
    folder = ROOT / "reports/records"
    files = [*sorted(folder.glob("h?00-schnell-1024*.jsonl")), folder / "evidence-h200" / "headline.jsonl"]
    records = [row for file in files for row in read_records(file).records]
    medians = [median(row.times_s["denoise"][0]) for row in records]
    turns: dict[tuple[str, str | None], list[float]] = {}
    for row in read_records(folder / "h200-schnell-1024-scales-turns.jsonl").records:  # one record for each turn
        turns.setdefault((row.rung, row.commit), []).extend(row.times_s["denoise"][0])
    medians += map(median, turns.values())
    pictures = json.loads((ROOT / "reports/records/h100-end-to-end.json").read_text(encoding="utf-8"))["rungs"]
    medians += [row["loads"]["ready"]["time_s"] for row in pictures]
    trials: dict[tuple[str, str], list[float]] = {}
    for row in json.loads((folder / "h200-trials.json").read_text(encoding="utf-8"))["sharing"]:
        trials.setdefault((row["rung"], row["variant"]), []).append(row["trials_s"])
    medians += map(median, trials.values())
    known = {f"{seconds * 1e3:.1f} ms" for seconds in medians} | {f"{seconds:.1f} s" for seconds in medians}
    shown = set(re.findall(r"\b\d+\.\d (?:ms|s)\b", text)) - twin_times()
    assert shown <= known


def test_memory_of_rungs_is_that_of_the_record():
    rows = read_records(ROOT / "reports/records/evidence-h200/headline.jsonl").records
    peaks = {
        row.rung: f"{row.totals.peak_bytes / 1e9:.0f} GB"
        for row in rows
        if row.workload.name == "schnell-1024" and row.ran_as == "kernel" and set(row.settings) == {"nvtx"}
    }
    (said,) = re.findall(r"GPU memory for schnell: (.*?); less with", TEXT)
    assert said == (
        f"{peaks['baseline']} for `baseline` to `batched`, {peaks['tensorcore']} for `tensorcore`, "
        f"{peaks['captured']} for `captured`, {peaks['fp8']} for `fp8`"
    )
    assert peaks["baseline"] == peaks["broadcast"] == peaks["batched"]


def twin_times() -> set[str]:
    rows = read_records(ROOT / "reports/records/host-tiny-57.jsonl").records
    return {f"{median(row.times_s['denoise'][0]) * 1e3:.1f} ms" for row in rows}


def test_the_witness_agrees_in_the_record_that_says_so():
    for row in read_records(ROOT / "reports/records/h100-schnell-512.jsonl").records:
        for field in ("d2h_copies", "h2d_copies", "d2h_bytes", "h2d_bytes"):
            assert getattr(row.witness, field) == getattr(row.totals, field), (row.rung, field)


@pytest.mark.parametrize(("cuda", "extra"), [("12.4", "[cuda12]"), ("13.0", "[cuda13]"), (None, "")])
def test_make_picks_the_cuda_extra_of_the_driver(tmp_path, cuda, extra):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        f"#!/bin/sh\necho '| Driver Version: 580.1   CUDA Version: {cuda} |'\n" if cuda else "#!/bin/sh\nexit 9\n"
    )
    tool.chmod(0o755)
    command = ["make", "-n", "-B", "report"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}
    )
    assert f'--editable ".{extra}"' in done.stdout


def test_every_record_is_in_the_list_of_records():
    """By its full name, or by the end of its name after a hyphen in a row that gives the beginning."""
    rows = [re.findall(r"`([^`]+)`", row) for row in (ROOT / "reports/README.md").read_text("utf-8").splitlines()]
    rows = [[name.removeprefix("records/").split(".")[0].rstrip("/") for name in row] for row in rows]
    named = {name for row in rows for name in row}
    named |= {
        "-".join(row[0].split("-")[:words]) + name
        for row in rows
        for name in row
        if name.startswith("-")
        for words in range(1, len(row[0].split("-")) + 1)
    }
    assert [
        path.name for path in sorted((ROOT / "reports/records").iterdir()) if path.name.split(".")[0] not in named
    ] == []
