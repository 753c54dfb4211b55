"""Commands that are killed at random moments by KILL and by TERM: complete results stay, and nothing else does.

Each command is killed ``FLUXPERF_BREAK`` / 50 times by each signal; ``make break`` makes that 100 and prints how the
commands ended. Commands start as forks of a process that has imported them, so that no kill hits the imports.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest

from fluxperf.engine.config import config_named
from fluxperf.harness.points import SUFFIX, read_points
from fluxperf.harness.records import read_records
from fluxperf.pipeline.embeddings import Embedded, Words, save_embeddings
from fluxperf.pipeline.latents import load_latents
from tests.breaking.killing import Victim, Warm, killed
from tests.contracts.tree import ROOT
from tests.history.making import record
from tests.model.weight_files import SMALL, diffusers_shapes, random_state, write_folder

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
    pytest.mark.xdist_group("kills"),
]

#: Kills of each command by each signal.
KILLS = max(1, int(os.environ.get("FLUXPERF_BREAK", "40")) // 50)

#: Whether slow commands are included.
THOROUGH = KILLS > 1

TINY = ["--workload", "tiny", "--repeat", "1", "--warmup", "0"]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Warm]]:
    """Returns a process that starts commands and has imported the given modules; one per set of modules."""
    made: dict[tuple[str, ...], Warm] = {}
    with ExitStack() as ends:

        def warm(*modules: str) -> Warm:
            if modules not in made:
                folder = tmp_path_factory.mktemp("kills")
                made[modules] = ends.enter_context(closing(Warm(folder, ["pandas", "pydantic", *modules])))
                assert made[modules].run(["phases"], folder, folder / "tmp").code == 0  # its imports are done by then
            return made[modules]

        yield warm


def run(folder: Path) -> Victim:
    """Appends one record for each of two rungs."""
    path = folder / "records.jsonl"

    def whole(torn: bool) -> int:
        found = read_records(path)
        assert not [problem for problem in found.problems if not (torn and "incomplete" in problem)]
        return len(found.records)

    return Victim(lambda _: ["run", *TINY, "--rung=fused", "--rung=batched", "--device=host", "-o", str(path)], whole)


#: A program with fluxperf's name: writes a record, and has a child that only it ends.
STUB = """
import json, os, subprocess, sys, time
from pathlib import Path
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
time.sleep(0.05)
row = json.loads(Path(__file__).with_name("record.json").read_text())
row["commit"] = os.environ.get("FLUXPERF_COMMIT") or row["commit"]
with open(sys.argv[sys.argv.index("-o") + 1], "a") as file:
    file.write(json.dumps(row) + "\\n")
child.kill()
child.wait()
"""

#: Builds it without packages from an index.
BACKEND = """
import zipfile
from pathlib import Path
def build_wheel(folder, *_):
    name = "fluxperf-1-py3-none-any.whl"
    with zipfile.ZipFile(Path(folder, name), "w") as wheel:
        for file in Path("fluxperf").iterdir():
            wheel.write(file)
        for name_, text in (("WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"),
                            ("METADATA", "Metadata-Version: 2.1\\nName: fluxperf\\nVersion: 1\\n"), ("RECORD", "")):
            wheel.writestr(f"fluxperf-1.dist-info/{name_}", text)
    return name
"""
PROJECT = """
[project]
name = "fluxperf"
version = "1"
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def checkout(folder: Path) -> Path:
    """A repository with two commits of a program that measures nothing."""
    (folder / "fluxperf").mkdir(parents=True)
    (folder / "fluxperf" / "__init__.py").write_text("")
    (folder / "fluxperf" / "__main__.py").write_text(STUB)
    (folder / "fluxperf" / "record.json").write_bytes(msgspec.json.encode(record(1)))
    (folder / "backend.py").write_text(BACKEND)
    (folder / "pyproject.toml").write_text(PROJECT)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    git(folder, "commit", "-qm", "second", "--allow-empty")
    return folder


def gate(folder: Path) -> Victim:
    """Compares two folders in process pairs, and every tenth time two commits that are built; writes four outputs."""
    stub = checkout(folder / "stub")
    readers: dict[str, Callable[[str], object]] = {
        "json": json.loads, "sarif": json.loads, "junit": lambda text: list(ElementTree.fromstring(text)),
        "markdown": len,
    }  # fmt: skip

    def words(number: int) -> list[str]:
        sides = ("HEAD~1", "HEAD") if number % 10 == 1 and THOROUGH else (str(stub), str(stub))
        outputs = [f"--{name}={folder / f'verdict-{number}.{name}'}" for name in readers]
        policy = ROOT / "reports" / "policy.toml"
        return ["gate", "--base", sides[0], "--head", sides[1], "--pairs", "2", f"--policy={policy}", *outputs]

    def whole(_: bool) -> int:
        found = list(folder.glob("verdict-*"))
        for path in found:
            assert readers[path.suffix[1:]](path.read_text()), path
        assert len(git(stub, "worktree", "list").splitlines()) == 1
        assert git(stub, "status", "--porcelain") == ""
        return sum(path.suffix == ".markdown" for path in found)  # the last one

    return Victim(words, whole, place=stub)


def calibrate(folder: Path) -> Victim:
    """Continues A/A comparisons in fresh processes, in forked ones, and in processes that stay alive."""
    kinds = (
        {
            "fresh": ["--comparisons=1"],
            "forked": ["--comparisons=2", "--forked"],
            "alive": ["--comparisons=1", "--alive=2"],
        }
        if THOROUGH
        else {"forked": ["--comparisons=1", "--forked"]}
    )  # the slowest first, because it sets the time span for the kills

    def words(number: int) -> list[str]:
        kind = list(kinds)[number % len(kinds)]
        return [
            "gate", "calibrate", *TINY, "--rung=fused", "--pairs=2", "-o", str(folder / f"aa-{kind}.json"),
            f"--baselines={folder}", f"--policy={ROOT / 'reports' / 'policy.toml'}", *kinds[kind],
        ]  # fmt: skip

    def whole(_: bool) -> int:
        return sum(len(json.loads(path.read_text())["comparisons"]) for path in folder.glob("aa-*.json"))

    return Victim(words, whole)


def history(folder: Path) -> Victim:
    """Reads records of many commits, and writes a table and a document."""
    (folder / "in").mkdir()
    rows = [msgspec.json.encode(record(number)) + b"\n" for number in range(300 if THOROUGH else 30)]
    (folder / "in" / "records.jsonl").write_bytes(b"".join(rows))

    def words(number: int) -> list[str]:
        outputs = [f"--csv={folder / f'{number}.csv'}", f"--json={folder / f'{number}.json'}"]
        return ["history", str(folder / "in"), "--repo", str(folder), *outputs]

    def whole(_: bool) -> int:
        for path in folder.glob("*.json"):
            assert json.loads(path.read_text())["series"]
        found = list(folder.glob("*.csv"))
        assert {len(list(csv.reader(io.StringIO(path.read_text())))) for path in found} <= {_rows(found)}
        return len(found)

    return Victim(words, whole)


def _rows(tables: list[Path]) -> int:
    """Rows of the first table that was made."""
    first = min(tables, key=lambda path: path.stat().st_mtime_ns, default=None)
    return len(list(csv.reader(io.StringIO(first.read_text())))) if first else 0


def import_asv(folder: Path) -> Victim:
    """Merges the results of one more commit into a file of points each time."""
    source, path = ROOT / "tests" / "history" / "asv_results", folder / f"asv{SUFFIX}"
    first = json.loads((source / "host" / "02474e6d.json").read_text())
    results = folder / "results"

    def words(number: int) -> list[str]:
        shutil.copytree(source, results, dirs_exist_ok=True)
        for old in (results / "host").glob("*.json"):
            if old.name != "machine.json":
                old.unlink()
        row = {**first, "commit_hash": f"{number:040x}", "date": first["date"] + 1000 * number}
        (results / "host" / "result.json").write_text(json.dumps(row))
        return ["import-asv", str(results), "-o", str(path)]

    def whole(_: bool) -> int:
        if not path.exists():
            return 0
        found = read_points(path)
        assert found.problems == []
        commits = [point.commit for point in found.points]
        assert {commits.count(commit) for commit in commits} == {commits.count(commits[0])}, (
            "all of a commit, or nothing"
        )
        return len(set(commits))

    return Victim(words, whole)


def embedded_model(folder: Path) -> Path:
    """A model without text encoders and VAE, and embeddings for it beside it."""
    model, draw = folder / "model", np.random.default_rng(5)
    write_folder(model / "transformer", random_state(diffusers_shapes(SMALL), seed=5))
    (model / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    (model / "scheduler").mkdir()
    (model / "scheduler" / "scheduler_config.json").write_text('{"use_dynamic_shifting": false, "shift": 1.0}')
    shapes = ((4, SMALL.text), (SMALL.pooled,))
    rows = [Embedded(*(draw.standard_normal(shape).astype(np.float32) for shape in shapes)) for _ in range(3)]
    save_embeddings(folder / "e.safetensors", [Words(str(at), "") for at in range(3)], rows, "encoders")
    return model


def generate(folder: Path) -> Victim:
    """Makes three pictures of a prompt with a whole pipeline; or latents of embeddings, which need no PyTorch."""
    place = ["--height=32", "--width=48", "--steps=1", "--device=host", "--rung=batched"]
    if not THOROUGH:
        model = embedded_model(folder)
        source = ["--embeddings", str(folder / "e.safetensors"), "--model", str(model)]

        def latents(_: bool) -> int:
            return len([load_latents(path) for path in folder.glob("l-*.safetensors")])

        return Victim(
            lambda number: ["generate", *source, *place, f"--latents-out={folder / f'l-{number}.safetensors'}"], latents
        )
    import torch
    from PIL import Image

    from benchmarks.flux_folder import TINY as SIZES
    from benchmarks.flux_folder import write

    saved = write(folder / "model", config_named("tiny"), SIZES, torch.float32)

    def words(number: int) -> list[str]:
        return [
            "generate",
            "a fox",
            "--model",
            str(saved),
            *place,
            "--max-sequence-length=24",
            "--num-images=3",
            f"--output={folder}/p-{number}/",
        ]

    def whole(_: bool) -> int:
        found = list(folder.glob("p-*/*"))
        for path in found:
            with Image.open(path) as picture:
                picture.load()
                assert picture.size == (48, 32)
        return len(found)

    return Victim(words, whole)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
@pytest.mark.parametrize("make", [run, gate, calibrate, history, import_asv, generate], ids=lambda make: make.__name__)
def test_a_command_that_is_killed_leaves_what_is_finished_and_nothing_else(
    tmp_path: Path, start: Callable[..., Warm], make: Callable[[Path], Victim], how: signal.Signals
) -> None:
    process = start("torch", "diffusers", "transformers") if THOROUGH and make is generate else start()
    ends = killed(make(tmp_path), process, tmp_path, how, KILLS)
    told = ", ".join(f"{end} {count} times" for end, count in sorted(ends.items()))
    print(f"{make.__name__.replace('_', '-')}: {KILLS} times {how.name}: {told}; nothing lost, nothing left")
