"""Libraries of revisions: taken from the running environment where possible, and isolated from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fluxperf.errors import BuildError
from fluxperf.harness.checkouts import LIBRARIES, installed
from fluxperf.harness.isolation import RUN, check_imports
from fluxperf.harness.libraries import Seal, declared, fulfilled, isolated_path
from tests.gate.sides import ROOT


def distribution(folder: Path, name: str, version: str, *requires: str) -> None:
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir(parents=True)
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {one}" for one in requires)]
    (place / "METADATA").write_text("\n".join(lines))


def test_what_this_checkout_declares_is_read_with_an_extra() -> None:
    plain, more = declared(ROOT), declared(ROOT, "cuda13")
    assert plain is not None
    assert more is not None
    assert "msgspec>=0.20" in plain
    assert set(plain) < set(more)
    assert any(text.startswith("cupy-cuda13x") for text in more)
    assert fulfilled(plain, isolated_path()) is not None, "or no test runs"


@pytest.mark.parametrize(
    "text", ["no TOML [", "", "[project]\ndynamic = ['dependencies']", "project = 1", "[project]\ndependencies = [1]"]
)
def test_requirements_that_cannot_be_read_are_left_to_an_installer(tmp_path: Path, text: str) -> None:
    assert declared(tmp_path) is None
    (tmp_path / "pyproject.toml").write_text(text)
    assert declared(tmp_path) is None


def test_folders_that_fulfil_everything_are_found_also_what_is_required_in_turn(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    distribution(one, "alpha", "1.5", "beta[fast]>=2", "windows-only; sys_platform == 'win32'")
    distribution(two, "beta", "2.1rc1", "gamma; extra == 'fast'")
    distribution(two, "other", "1")
    path = [str(two), str(one)]
    assert fulfilled(["alpha"], path) is None, "gamma is missing"
    distribution(two, "gamma", "1", "Alpha")
    assert fulfilled(["alpha>=1,<2"], path) == [two, one], "in the order of the path"
    assert fulfilled(["gamma"], [str(one), str(two)]) == [one, two]
    assert fulfilled([], path) == []
    for wanted in ("alpha>=2", "nothing", "other @ file:///elsewhere", "no requirement"):
        assert fulfilled([wanted], path) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.write_text("two"),
        lambda file: (file.parent / "more.py").write_text(""),
        lambda file: file.unlink(),
        lambda file: (file.rename(file.parent / "x"), (file.parent / "x").rename(file), file.write_text("one")),
        lambda file: (told := file.stat(), file.write_text("two"), file.write_text("one"),
                      os.utime(file, ns=(told.st_atime_ns, told.st_mtime_ns))),
    ],
    ids=["written", "added", "gone", "replaced", "written and put back, with its time"],
)  # fmt: skip
def test_a_seal_breaks(tmp_path: Path, change: Callable[[Path], object]) -> None:
    file = tmp_path / "package" / "module.py"
    (file.parent / "__pycache__").mkdir(parents=True)
    file.write_text("one")
    seal = Seal()
    seal.add(tmp_path)
    (file.parent / "__pycache__" / "module.pyc").write_text("compiled meanwhile")
    seal.check()
    change(file)
    with pytest.raises(BuildError, match=r"expected the files of .* to stay unchanged"):
        seal.check()


def test_a_process_tells_all_that_it_imported_and_writes_nothing_else(tmp_path: Path) -> None:
    """A module's own attributes, also lazy ones, are not touched."""
    package = tmp_path / "fluxperf"
    package.mkdir()
    lazy = "import sys, types\nclass Lazy(types.ModuleType):\n  def __getattr__(self, name): raise SystemExit(9)\n"
    (package / "__init__.py").write_text(f"{lazy}sys.modules['lazy'] = Lazy('lazy')\n")
    (package / "__main__.py").write_text("import helper\n")
    helper = tmp_path / "helper.py"
    helper.write_text("place = found = 'mine'\n")
    told = tmp_path / "told.json"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.py")}
    command = [sys.executable, "-B", "-c", RUN, str(told)]
    subprocess.run(command, check=True, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    modules = json.loads(told.read_text())
    assert {modules["fluxperf"], modules["helper"]} == {str(package / "__init__.py"), str(helper)}
    assert "lazy" not in modules
    assert {path: path.read_bytes() for path in before} == before
    root = tmp_path / "elsewhere"
    for libraries, phrase in (((), "imported from"), ((tmp_path,), "comes first")):
        with pytest.raises(BuildError, match=phrase):
            check_imports(told, root if libraries else tmp_path / "fluxperf", {}, "base", libraries)


def test_a_module_from_elsewhere_is_an_error(tmp_path: Path) -> None:
    root, libraries, told = tmp_path / "root", tmp_path / "libraries", tmp_path / "told.json"
    (root / "fluxperf").mkdir(parents=True)
    files = {"fluxperf": str(root / "fluxperf" / "__init__.py"), "json": json.__file__, "x": f"{libraries}/x.py"}
    (root / "fluxperf" / "__init__.py").write_text("")
    expected = {"fluxperf/__init__.py": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
    told.write_text(json.dumps(files))
    check_imports(told, root, expected, "measuring base", (libraries,))
    check_imports(told, root, None, "a folder as it is")
    with pytest.raises(BuildError, match="expected x from Python"):
        check_imports(told, root, expected, "measuring base")
    told.write_text(json.dumps(files | {"y": f"{libraries}-more/y.py"}))
    with pytest.raises(BuildError, match="expected y from Python"):
        check_imports(told, root, expected, "measuring base", (libraries,))


#: Builds a wheel of the folder ``fluxperf``: a revision that needs no network.
BACKEND = """
import pathlib, zipfile
def build_wheel(folder, *_):
    name = "fluxperf-1-py3-none-any.whl"
    told = {"METADATA": "Metadata-Version: 2.1\\nName: fluxperf\\nVersion: 1\\n",
            "WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n", "RECORD": ""}
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as file:
        file.write("fluxperf/__init__.py")
        for key, text in told.items():
            file.writestr(f"fluxperf-1.dist-info/{key}", text)
    return name
"""


def test_a_revision_is_built_without_libraries_that_are_there(tmp_path: Path) -> None:
    pytest.importorskip("pip", reason="builds a revision")
    repository = tmp_path / "repository"
    (repository / "fluxperf").mkdir(parents=True)
    (repository / "fluxperf" / "__init__.py").write_text("import packaging\n")
    (repository / "backend.py").write_text(BACKEND)
    system = "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
    (repository / "pyproject.toml").write_text(
        f"{system}[project]\nname = 'fluxperf'\nversion = '1'\ndependencies = ['packaging']\n"
    )
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)

    def measured() -> None:
        with installed(repository, {"base": "HEAD", "head": "HEAD"}) as (sides, folder):
            base = sides["base"]
            assert sides["head"] == base, "one build of one commit"
            assert (base.root / LIBRARIES).read_text().splitlines() == [str(place) for place in base.libraries]
            say = "import fluxperf, packaging; print(fluxperf.__file__, packaging.__file__)"
            done = subprocess.run([base.python, "-I", "-c", say], capture_output=True, text=True, check=True)
            own, other = done.stdout.split()
            assert Path(own).is_relative_to(folder)
            assert any(Path(other).is_relative_to(place) for place in base.libraries)
            (base.root / "fluxperf" / "__init__.py").write_text("import packaging\n")

    with pytest.raises(BuildError, match="expected the files of"):
        measured()
