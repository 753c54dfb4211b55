"""Disks that are full, broken or read-only at any file call of any command that writes.

No partial file remains, the message gives the disk's error, the exit code is 2, and no measurement is lost. ``make
break`` makes every call of every command fail; ``make test`` makes some of them fail.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from fluxperf.harness.comparisons import read_comparisons
from fluxperf.harness.points import SUFFIX, read_points
from fluxperf.harness.policy import read_policy
from fluxperf.harness.timeline.nsys import read_capture
from fluxperf.pipeline.latents import load_latents
from tests.breaking.failing import ANSWERS, Fault, Measured, Sweep, Writer, built, records
from tests.breaking.killing import Warm
from tests.breaking.test_kills import TINY, checkout, embedded_model
from tests.contracts.tree import ROOT
from tests.history.making import record
from tests.timeline.making import example

POLICY = ROOT / "reports" / "policy.toml"

#: Number of calls per command that fail, alone and with all later ones; all calls if a command has fewer.
TRIES = max(1, int(os.environ.get("FLUXPERF_BREAK", "40")) // 50)

#: Whether the number of calls is counted first.
THOROUGH = TRIES > 1


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def process(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    modules = ["pandas", "pydantic", "fluxperf.harness.report.html", "fluxperf.harness.capture.page", "tomlkit"]
    with closing(Warm(tmp_path_factory.mktemp("process"), modules, {"LD_PRELOAD": str(library)})) as made:
        yield made


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that commands read."""
    folder = tmp_path_factory.mktemp("given")
    for name, numbers in (("base", range(8)), ("head", range(8, 16))):
        rows = [msgspec.json.encode(record(number)) + b"\n" for number in numbers]
        (folder / f"{name}.jsonl").write_bytes(b"".join(rows))
    example().write(folder / "export.sqlite")
    checkout(folder / "stub")
    embedded_model(folder)
    shutil.copy(ROOT / "reports" / "records" / "h100-aa.json", folder / "aa.json")
    return folder


def page(path: Path) -> None:
    assert path.read_text().rstrip().endswith("</html>")


def document(path: Path) -> None:
    json.loads(path.read_text())


def table(path: Path) -> None:
    rows = list(csv.reader(io.StringIO(path.read_text())))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert path.read_text().endswith("\n")


def picture(path: Path) -> None:
    ElementTree.parse(path)


def markdown(path: Path) -> None:
    assert path.read_text().endswith("\n")


def points(path: Path) -> None:
    assert not read_points(path).problems


VERDICT = {"v.json": document, "v.sarif": document, "v.xml": picture, "v.md": markdown}


def verdict(out: Path) -> list[str]:
    names = ("json", "sarif", "junit", "markdown")
    return [f"--{name}={out / path}" for name, path in zip(names, VERDICT, strict=True)]


def counted(paths: list[Path]) -> int:
    return sum(len(records(path)) for path in paths)


def compared(paths: list[Path]) -> int:
    return max((len(read_comparisons(path).comparisons) for path in paths), default=0)


def store(folder: Path) -> None:
    for path in folder.rglob("*"):
        assert path.is_dir() or len(records(path)) == 1


def measuring(given: Path) -> dict[str, Writer]:
    """Commands that write records or pictures."""
    host = [*TINY, "--device=host", "--rung=fused", "--rung=batched"]
    place = ["--height=32", "--width=48", "--steps=1", "--device=host", "--rung=batched"]
    embedded = ["generate", "--embeddings", str(given / "e.safetensors"), "--model", str(given / "model"), *place]
    latents = dict.fromkeys([f"l-000{number}.safetensors" for number in (1, 2, 3)], load_latents)
    return {
        "run": Writer(
            lambda out: ["run", *host, "-o", str(out / "r.jsonl"), f"--reference-to={out / 'l.npz'}"],
            {"r.jsonl": records},
            measured=[Measured("r.jsonl", counted, 2, 4)],
        ),
        "run --processes": Writer(
            lambda out: ["run", *host, "--processes=2", "-o", str(out / "r.jsonl")],
            {"r.jsonl": records},
        ),
        "generate --latents-out": Writer(
            lambda out: [*embedded, f"--latents-out={out / 'l.safetensors'}"], latents
        ),
        "evidence": Writer(
            lambda out: ["evidence", "tiny", "-o", str(out / "e"), "--part=tiny-fused"],
            {"e/tiny.jsonl": records},
        ),
    }  # fmt: skip


def reading(given: Path) -> dict[str, Writer]:
    """Commands that read records, results or captures."""
    capture = str(given / "export.sqlite")
    return {
        "report": Writer(
            lambda out: [
                "report", str(given / "base.jsonl"), "-o", str(out / "p.html"), f"--markdown={out / 'c.md'}",
                f"--json={out / 'f.json'}", f"--chart={out / 'c.svg'}",
            ],
            {"p.html": page, "c.md": markdown, "f.json": document, "c.svg": picture},
        ),
        "history": Writer(
            lambda out: ["history", str(given / "base.jsonl"), f"--csv={out / 't.csv'}", f"--json={out / 'h.json'}"],
            {"t.csv": table, "h.json": document},
        ),
        "history --chart": Writer(
            lambda out: ["history", str(ROOT / "reports" / "records"), f"--chart={out / 'c.svg'}"], {"c.svg": picture}
        ),
        "push": Writer(lambda out: ["push", str(given / "base.jsonl"), "-o", str(out / "store")], {"store": store}),
        "import-asv": Writer(
            lambda out: ["import-asv", str(ROOT / "tests/history/asv_results"), "-o", str(out / f"a{SUFFIX}")],
            {f"a{SUFFIX}": points},
        ),
        "timeline": Writer(
            lambda out: [
                "timeline", capture, f"--json={out / 't.json'}", f"--trace={out / 'trace.json'}",
                f"--trimmed={out / 't.sqlite'}", f"--html={out / 'p.html'}",
            ],
            {"t.json": document, "trace.json": document, "t.sqlite": read_capture, "p.html": page},
        ),
        "timeline A B": Writer(
            lambda out: ["timeline", capture, capture, f"--json={out / 't.json'}", f"--html={out / 'p.html'}"],
            {"t.json": document, "p.html": page},
        ),
    }  # fmt: skip


def gates(given: Path) -> dict[str, Writer]:
    """The gate's commands."""
    aa = ["gate", "calibrate", *TINY, "--rung=fused", "--pairs=2", f"--policy={POLICY}"]
    return {
        "gate files": Writer(
            lambda out: [
                "gate", "--baseline", str(given / "base.jsonl"), "--candidate", str(given / "head.jsonl"),
                f"--policy={POLICY}", *verdict(out), "--github",
            ],
            VERDICT,
            setting=lambda out: {"GITHUB_STEP_SUMMARY": str(out / "summary.md")},
            code=2,
        ),
        "gate": Writer(
            lambda out: [
                "gate", "--base", str(given / "stub"), "--head", str(given / "stub"), "--pairs=2", f"--policy={POLICY}",
                *verdict(out),
            ],
            VERDICT,
        ),
        "gate exact": Writer(
            lambda out: ["gate", "exact", "--workload=tiny", "--rung=fused", *verdict(out)], VERDICT
        ),
        "gate exact --remake": Writer(
            lambda out: ["gate", "exact", "--remake", f"--baseline={out / 'host.jsonl'}"], {"host.jsonl": records}
        ),
        "gate calibrate": Writer(
            lambda out: [*aa, "--forked", "-o", str(out / "aa.json"), f"--baselines={out}"],
            {"aa.json": read_comparisons},
            measured=[Measured("aa.json", compared, 1, 6)],
        ),
        "gate calibrate, not kept": Writer(
            lambda out: [*aa, "--forked", f"--baselines={out}"],
            {},
            measured=[Measured("comparisons.json", compared, 1, 2)],
        ),
        "gate accept": Writer(
            lambda out: [
                "gate", "accept", "tiny/fused/times.denoise", "--reason=r", "--author=a", "--base=1", "--up-to=1.1",
                f"--policy={out / 'policy.toml'}",
            ],
            {"policy.toml": read_policy},
            prepare=lambda out: shutil.copy(POLICY, out / "policy.toml"),
        ),
        "gate power": Writer(
            lambda out: ["gate", "power", str(given / "aa.json"), "--trials=5", "--change=3", f"-o{out / 'p.json'}"],
            {"p.json": document},
        ),
    }  # fmt: skip


def writers(given: Path) -> dict[str, Writer]:
    """Every command that writes, with all its output files."""
    return measuring(given) | reading(given) | gates(given)


NAMES = list(writers(Path()))


#: Which disk fails: that of the outputs, or that of the temporary files if the command has some.
PLACES = [(name, "out") for name in NAMES] + [(name, "tmp") for name in ("run --processes", "gate", "gate calibrate")]

#: Slow commands, which only ``make break`` tries.
SLOW = [("gate exact --remake", "out"), ("evidence", "out"), ("run --processes", "tmp"), ("gate calibrate", "tmp")]
PLACES = [place for place in PLACES if THOROUGH or place not in SLOW]


@pytest.mark.parametrize(("name", "whose"), PLACES, ids=[f"{name}, {whose}" for name, whose in PLACES])
def test_a_disk_that_fails_leaves_nothing_half_written_and_is_named(
    tmp_path: Path, process: Warm, library: Path, given: Path, name: str, whose: str
) -> None:
    sweep, draw = Sweep(tmp_path, process, library, writers(given)[name], whose), random.Random(f"{name} {whose}")
    if THOROUGH:
        calls = sweep.calls()
        assert calls
        every = [Fault(number, 0, forever) for number in range(1, len(calls) + 1) for forever in (False, True)]
        chosen = every if len(every) <= TRIES else draw.sample(every, TRIES)
    else:  # one of the first calls, which every command makes
        chosen = [Fault(draw.randint(1, 6), 0, draw.random() < 0.5)]
    faults = [fault._replace(answer=ANSWERS[(fault.number + fault.forever) % len(ANSWERS)]) for fault in chosen]
    wrong = [line for fault in faults for line in sweep.fails(fault)]
    assert not wrong, "\n".join(wrong)
    print(f"{name}, {whose}: {len(faults)} faults; nothing half-written, nothing lost")


@pytest.mark.parametrize(
    "name", NAMES if THOROUGH else ["report", "import-asv", "timeline", "gate files", "gate accept"]
)
def test_no_file_that_is_written_whole_is_opened_by_its_name(
    tmp_path: Path, process: Warm, library: Path, given: Path, name: str
) -> None:
    """Only fluxperf's writer creates them, as temporary files in the same folder. The system calls show it."""
    calls = Sweep(tmp_path, process, library, writers(given)[name]).calls()
    written = [call.split(" ", 2)[2] for call in calls if call.split(" ", 2)[1].startswith(("open", "creat"))]
    assert written
    names = {path.partition("/out/")[2] for path in written}
    assert names & writers(given)[name].outputs.keys() <= {"r.jsonl"}, "records alone are appended"
