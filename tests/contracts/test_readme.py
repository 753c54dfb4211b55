"""The README says what is: its table is the phase table, its figures are records, its commands run."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from fluxperf.cli.ladder import ladder
from fluxperf.cli.phases import as_markdown
from fluxperf.harness.records import read_records

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"`(fluxperf [^`]+)`", README)


def between(mark: str) -> str:
    """What stands between two comments of the README."""
    found = re.search(rf"<!-- {mark}: (.*?) -->\n(.*?)<!-- /{mark} -->", README, re.DOTALL)
    assert found, f"README has no part {mark!r}"
    return found[2]


def test_the_phase_table_is_the_one_in_phases_py():
    assert between("phases").strip() == as_markdown()


@pytest.mark.parametrize("name", re.findall(r"<!-- run: (.*?) -->", README))
def test_a_run_that_is_shown_is_a_committed_record(name: str):
    found = re.search(rf"<!-- run: {re.escape(name)} -->\n```\n(.*?)\n```\n<!-- /run -->", README, re.DOTALL)
    assert found
    console = Console(width=80, file=io.StringIO(), legacy_windows=False)
    console.print(ladder(read_records(ROOT / name).records))
    printed = console.file.getvalue()
    assert [line.rstrip() for line in found[1].splitlines()] == [
        line.rstrip() for line in printed.rstrip().splitlines()
    ]


def test_the_copies_quoted_are_those_of_the_record():
    baseline = read_records(ROOT / "reports/records/host-tiny-57.jsonl").records[0]
    assert baseline.rung == "baseline"
    assert f"{baseline.totals.d2h_copies} copies down and {baseline.totals.h2d_copies} up" in README


def test_files_and_folders_that_the_readme_names_exist():
    linked = re.findall(r"\]\(([^)#]+)\)", README)
    rows = re.findall(r"^\| (`[^|]+) \|", between_layout(), re.MULTILINE)
    named = [word for row in rows for word in re.findall(r"`([^`]+)`", row)]
    for path in linked + [name if "/" in name else f"fluxperf/{name}" for name in named]:
        assert (ROOT / path).exists() or (ROOT / "fluxperf" / path).exists(), path


def between_layout() -> str:
    return README.split("## Layout")[1].split("## ")[0]


@pytest.mark.parametrize("target", re.findall(r"`?(make \w+)`?", README))
def test_make_targets_exist(target):
    done = subprocess.run(["make", "-n", target.split()[1]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_commands_run(tmp_path):
    assert len(COMMANDS) >= 8
    for command in COMMANDS:
        if "DIR" in command or "--peer" in command:
            continue  # needs a checkpoint, or a GPU
        words = shlex.split(command)[1:]
        done = subprocess.run(
            [sys.executable, "-m", "fluxperf", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
    assert (tmp_path / "page.html").exists()


def test_bandwidths_of_the_kernels_are_those_of_the_record():
    text = (ROOT / "kernels" / "README.md").read_text(encoding="utf-8")
    record = json.loads((ROOT / "reports/records/h100-kernels.json").read_text(encoding="utf-8"))
    measured = {(f"{row['gb_s']:.0f}", f"{100 * row['of_copy']:.1f}") for row in record["kernels"]}
    shown = re.findall(r"\| (\d+) \| ([\d.]+) \|$", text, re.MULTILINE)
    assert len(shown) >= 10
    assert set(shown) <= measured
    assert f"{record['copy_gb_s']:.0f} GB/s" in text
