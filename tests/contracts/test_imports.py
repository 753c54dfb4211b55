"""Which module may import which: import-linter's contracts, and the few places that may import CuPy."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.contracts import tree

#: Files are parsed once, by one worker.
pytestmark = pytest.mark.xdist_group("tree")

#: Where CuPy may be imported, by prefix of the path.
CUPY_PLACES = (
    "fluxperf/engine/device/gpu.py",
    "fluxperf/engine/nvrtc/",
    "fluxperf/engine/ops/cuda/",
    "fluxperf/gpu.py",
)

#: Where PyTorch and the libraries around it may be imported.
TORCH_PLACE = "fluxperf/pipeline/"
TORCH = {"torch", "diffusers", "transformers", "PIL"}

EVERY_MODULE = """
import importlib, importlib.abc, pkgutil, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocker())
import fluxperf
names = [module.name for module in pkgutil.walk_packages(fluxperf.__path__, "fluxperf.")]
for name in names:
    if not name.endswith(("__main__", "pytest_plugin")):  # pytest itself imports its plugin
        importlib.import_module(name)
print(len(names))
"""


#: Plotting takes a second to import, which commands without plots should not pay.
FACTS_AND_FORMATS = """
import importlib, pkgutil, sys
import fluxperf.harness.facts as facts, fluxperf.harness.formats as formats
names = [module.name for one in (facts, formats) for module in pkgutil.walk_packages(one.__path__, one.__name__ + ".")]
for name in names:
    importlib.import_module(name)
print(len(names), *({"matplotlib", "jinja2", "markupsafe"} & set(sys.modules)))
"""


def _python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], cwd=tree.ROOT, capture_output=True, text=True, check=False)


def test_import_contracts_are_kept() -> None:
    done = _python("-c", "from importlinter.cli import lint_imports_command as main; main()", "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kept, 0 broken" in done.stdout


def test_everything_imports_without_gpu_and_torch_libraries() -> None:
    blocked = {"cupy", "torch", "diffusers", "transformers", "nvmath", "cudnn", "cupti", "pynvml", "pytest"}
    done = _python("-W", "error::ImportWarning", "-c", EVERY_MODULE.format(blocked=blocked))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40


def imported(nodes: Iterable[ast.AST]) -> set[str]:
    """Top-level names of everything that a module imports, at any level, by statement or by `import_module`."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in (
            "import_module",
            "__import__",
            "library",  # fluxperf.pipeline.libraries
            "quiet",
        ):
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    return {name.partition(".")[0] for name in names}


def misplaced(path: Path) -> list[str]:
    """GPU libraries that a file imports although it is not one of their places."""
    names = imported(tree.nodes(path)) & (TORCH | {"cupy"})
    places = {name: CUPY_PLACES if name == "cupy" else (TORCH_PLACE,) for name in names}
    return [name for name, place in places.items() if not tree.name(path).startswith(place)]


def test_gpu_libraries_are_imported_in_their_places_only() -> None:
    tree.check(tree.python_files("fluxperf"), misplaced)


def test_what_is_imported_elsewhere_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "ROOT", tmp_path)
    path = tmp_path / "fluxperf" / "engine" / "nvrtc" / "new.py"
    path.parent.mkdir(parents=True)
    path.write_text("import cupy, torch, numpy")
    assert misplaced(path) == ["torch"]
    path = path.rename(tmp_path / "fluxperf" / "new.py")
    path.write_text("import cupy")
    assert misplaced(path) == ["cupy"]


@pytest.mark.parametrize(
    "code",
    [
        "import cupy",
        "import cupy.cuda as c",
        "from cupy import ndarray",
        "def f():\n  from cupy.cuda import Event",
        "import importlib\nimportlib.import_module('cupy')",
        "__import__('cupy')",
        "library('cupy')",
        "with quiet('cupy') as module:\n  pass",
    ],
)
def test_every_way_to_import_is_seen(code: str) -> None:
    assert "cupy" in imported(ast.walk(ast.parse(code)))


#: Libraries that are slow to import or large, by the commands that need them; no other command may import them.
NEEDED = {
    "run --workload tiny --rung fused --repeat 1 --device host": "",
    "gate exact --help": "",
    "report RECORDS --text": "",
    "report RECORDS -o page.html": "jinja2 matplotlib",
    "history .": "",
    "history . --csv table.csv": "",
    "timeline CAPTURE": "",
    "timeline CAPTURE --html page.html": "jinja2 matplotlib",
    "phases": "",
    "ops": "",
    "witness no.py": "",
    "import-asv .": "",
    "generate fox --model nowhere": "safetensors",
}
HEAVY = {
    "scipy", "pandas", "matplotlib", "jinja2", "asv", "asv_runner", "tomlkit", "nvtx", "safetensors",
    "torch", "diffusers", "transformers",
}  # fmt: skip

#: Each command runs in a fork of its own, so that it starts without modules of earlier commands; all need NumPy.
LOADED = """
import contextlib, io, json, os, sys
import msgspec, numpy, rich.progress, typer
from fluxperf.cli import main
for command in json.loads(sys.argv[1]):
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            with contextlib.suppress(SystemExit):
                main(command.split())
        print(json.dumps(sorted(sys.modules)))
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_a_command_loads_the_libraries_that_it_needs_and_no_other_command(tmp_path: Path) -> None:
    records = tree.ROOT / "reports" / "records" / "host-tiny-57.jsonl"
    capture = tree.ROOT / "reports" / "sample" / "h100-schnell-1024-fused.sqlite"
    shutil.copy(records, tmp_path)
    commands = [row.replace("RECORDS", str(records)).replace("CAPTURE", str(capture)) for row in NEEDED]
    done = subprocess.run(
        [sys.executable, "-c", LOADED, json.dumps(commands)], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tree.ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded = [set(json.loads(line)) for line in done.stdout.splitlines()]
    assert {row: " ".join(sorted(HEAVY & names)) for row, names in zip(NEEDED, loaded, strict=True)} == NEEDED
    others = {f"fluxperf.cli.{name}" for name in ("gate", "report", "history", "profile", "timeline", "witness")}
    assert not loaded[0] & others


def test_facts_and_formats_load_nothing_that_draws() -> None:
    done = _python("-c", FACTS_AND_FORMATS)
    assert done.returncode == 0, done.stderr
    number, *drawing = done.stdout.split()
    assert int(number) > 20
    assert drawing == []
