"""Where a run happened: the commit of a checkout, or the one that an image names."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fluxperf.harness.measure.environment import commit, machine


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("one")
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), ("add", "file"), ("commit", "-q", "-m", "one")):
        subprocess.run([*git, *words], check=True)
    return tmp_path


def test_a_clean_checkout_has_its_commit(checkout: Path) -> None:
    revision, dirty = commit(checkout)
    assert revision is not None
    assert len(revision) == 40
    assert dirty is False


def test_changed_files_make_it_dirty_and_new_ones_do_not(checkout: Path) -> None:
    (checkout / "new").write_text("records of a run")
    assert commit(checkout)[1] is False
    (checkout / "file").write_text("two")
    assert commit(checkout)[1] is True


@pytest.mark.parametrize("broken", [False, True])
def test_outside_of_a_checkout_the_environment_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    if broken:  # a copy of a checkout whose objects stayed behind
        (tmp_path / ".git").mkdir()
    monkeypatch.delenv("FLUXPERF_COMMIT", raising=False)
    assert commit(tmp_path) == (None, None)
    monkeypatch.setenv("FLUXPERF_COMMIT", "a" * 40)
    assert commit(tmp_path) == ("a" * 40, False)


def test_the_machine_names_what_the_device_says() -> None:
    assert machine().gpu is None
    row = machine({"gpu": "some GPU", "cuda": "13.0", "cupy": "14.2.0"})
    assert (row.gpu, row.cuda, row.cupy, row.cudnn) == ("some GPU", "13.0", "14.2.0", None)
