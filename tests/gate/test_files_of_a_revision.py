"""Files of a revision in a new folder: the same with every Python, and none is written outside of it."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from fluxperf.errors import BuildError
from fluxperf.harness.checkouts import _copy

#: Newer versions of Python ask for a filter.
pytestmark = pytest.mark.filterwarnings("ignore:.*filter:DeprecationWarning")


@pytest.fixture(params=["this Python's filter", "none, as before Python 3.11.4"])
def repository(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository, with and without `tarfile`'s own checks."""
    if request.param.startswith("none"):
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    made = tmp_path / "repository"
    subprocess.run(["git", "init", "-q", str(made)], check=True)
    return made


def committed(repository: Path) -> str:
    """The commit of all files in a repository."""
    git = ["git", "-C", str(repository), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "files"], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def test_files_modes_and_links_within_are_written(repository: Path, tmp_path: Path) -> None:
    (repository / "package").mkdir()
    (repository / "package" / "run.sh").write_text("#!/bin/sh\n")
    (repository / "package" / "run.sh").chmod(0o755)
    (repository / "package" / "again").symlink_to("../package/run.sh")
    tree = tmp_path / "tree"
    tree.mkdir()
    _copy(repository, tree, committed(repository), "head")
    assert (tree / "package" / "again").read_text() == "#!/bin/sh\n"
    assert (tree / "package" / "run.sh").stat().st_mode & 0o100


@pytest.mark.parametrize("target", ["../../elsewhere", "/etc", "package/../../elsewhere"])
def test_a_link_out_of_the_folder_is_refused(repository: Path, tmp_path: Path, target: str) -> None:
    (repository / "package").symlink_to(target)
    tree = tmp_path / "tree"
    tree.mkdir()
    with pytest.raises(BuildError, match=r"head: its files cannot be written to .*package"):
        _copy(repository, tree, committed(repository), "head")
    assert not any(tree.iterdir()) or not (tree / "package").is_symlink()


def test_links_that_lead_out_only_together_are_refused(repository: Path, tmp_path: Path) -> None:
    """By its text the second one stays inside; through the first one it does not."""
    (repository / "a" / "b").mkdir(parents=True)
    (repository / "a" / "b" / "up").symlink_to("../..")
    (repository / "z").symlink_to("a/b/up/../elsewhere")
    tree = tmp_path / "tree"
    tree.mkdir()
    with pytest.raises(BuildError, match=r"head: its files cannot be written to .*z"):
        _copy(repository, tree, committed(repository), "head")
    assert not (tree / "z").is_symlink()
