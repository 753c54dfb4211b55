"""Temporary and lock files: a killed process leaves none behind, and none of a living process is removed."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxperf import drafts
from fluxperf.errors import RecordError
from fluxperf.files import append_line, check_writable, locked, write_whole
from tests.pure.test_files import full_after, names

#: Writes the first half of a file, reports it, and waits.
HALF = """
import os, sys, time
from pathlib import Path
from fluxperf.files import locked, write_whole
if sys.argv[2] == "named":
    os.O_TMPFILE = 0
def parts():
    yield bytes(100_000)
    print("half", flush=True)
    time.sleep(600)
path = Path(sys.argv[1])
with locked(path):
    write_whole(path, parts())
"""


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Folders are cleaned once per process; here once per test."""
    drafts.clear.cache_clear()
    yield
    drafts.clear.cache_clear()


@pytest.fixture(params=["hidden", "named"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """File systems with and without unnamed temporary files (``O_TMPFILE``)."""
    if request.param == "named":
        monkeypatch.setattr(os, "O_TMPFILE", 0, raising=False)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("files without a name: Linux has them")
    return str(request.param)


def started(path: Path, kind: str) -> subprocess.Popen[str]:
    """A process that is in the middle of writing a file."""
    process = subprocess.Popen([sys.executable, "-c", HALF, str(path), kind], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    return process


def test_of_a_killed_writer_the_next_one_leaves_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(b"old")
    with started(path, kind) as process:
        lock = drafts.lock_of(path).name
        drafted = [name for name in names(tmp_path) if name not in (path.name, lock)]
        assert len(drafted) == (kind == "named"), "a draft has a name where there are no files without one"
        write_whole(tmp_path / "another", b"new")
        assert names(tmp_path) == sorted([*drafted, lock, "another", path.name]), "what is locked is somebody's"
        process.kill()
    assert path.read_bytes() == b"old"
    drafts.clear.cache_clear()  # as in the next process
    write_whole(tmp_path / "another", b"newer")
    assert names(tmp_path) == ["another", path.name]


def test_what_only_looks_like_a_draft_stays(tmp_path: Path) -> None:
    (tmp_path / ".fluxperf-a.part").mkdir()
    (tmp_path / ".fluxperf-b.part").symlink_to(tmp_path / "target")
    (tmp_path / "target").write_bytes(b"")
    os.mkfifo(tmp_path / ".fluxperf-c.part.txt")
    for name in (".fluxperf-d.png", "fluxperf-e.part", ".other-f.part"):
        (tmp_path / name).write_bytes(b"")
    before = names(tmp_path)
    write_whole(tmp_path / "file", b"new")
    assert names(tmp_path) == sorted([*before, "file"])


def test_where_nobody_can_lock_nothing_is_taken_for_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".fluxperf-a.part").write_bytes(b"")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    write_whole(tmp_path / "file", b"new")
    with locked(tmp_path / "file"):
        append_line(tmp_path / "file", b"line\n")
    assert names(tmp_path) == [".fluxperf-a.part", "file"]


@pytest.mark.parametrize("answer", [errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL])
def test_a_file_system_that_has_no_files_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    real = os.open

    def refuse(path: object, flags: int, *rest: object, **more: object) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(answer, os.strerror(answer))
        return real(path, flags, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    write_whole(tmp_path / "file", b"new")
    check_writable(tmp_path / "file")
    assert (names(tmp_path), (tmp_path / "file").read_bytes()) == (["file"], b"new")


def test_a_draft_that_is_taken_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", 0, raising=False)
    real, taken = drafts.lock, list[str]()

    def lock(descriptor: int) -> bool:
        if not taken:
            taken.extend(names(tmp_path))
            (tmp_path / taken[0]).unlink()
        return real(descriptor)

    monkeypatch.setattr(drafts, "lock", lock)
    write_whole(tmp_path / "file", b"new")
    assert (names(tmp_path), (tmp_path / "file").read_bytes()) == (["file"], b"new")


def test_where_the_system_shows_no_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where ``/proc`` is not mounted."""
    monkeypatch.setattr(drafts, "_shown", lambda _: str(tmp_path / "nowhere"))
    write_whole(tmp_path / "file", b"new")
    assert (names(tmp_path), (tmp_path / "file").read_bytes()) == (["file"], b"new")


@pytest.mark.parametrize(
    ("tail", "then"),
    [
        (b'{"a": 1, "b', b""),
        (b'{"a": 1}', b'{"a": 1}\n'),
        (b"words of somebody", b"words of somebody\n"),
        (b'{"a" 1}', b'{"a" 1}\n'),
        (b"[1, 2", b"[1, 2\n"),
    ],
)
def test_half_of_an_object_at_the_end_goes_and_all_else_stays(tmp_path: Path, tail: bytes, then: bytes) -> None:
    path = tmp_path / "records.jsonl"
    for before in (b"", b"first\n"):
        path.write_bytes(before + tail)
        append_line(path, b"next\n")
        assert path.read_bytes() == before + then + b"next\n"


def test_half_of_an_object_goes_although_the_next_line_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'first\n{"half')
    with full_after(5_000), pytest.raises(RecordError, match="File too large"):
        append_line(path, b"x" * 9_000 + b"\n")
    assert path.read_bytes() == b"first\n"
