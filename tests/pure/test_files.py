"""The writer: complete files or none, files that may not be replaced, and failures at every step of writing."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fluxperf import files
from fluxperf.errors import RecordError
from fluxperf.files import append_line, check_writable, place, write_whole


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def full_after(nbytes: int) -> Iterator[None]:
    """A region in which no file can grow: the system writes only a part, as on a full disk."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def placed(path: Path, content: bytes) -> None:
    """The same writing, by moving a finished file."""
    made = next(above for above in path.parents if above.is_dir()) / "made"
    made.write_bytes(content)
    try:
        place(made, path)
    finally:
        made.unlink(missing_ok=True)


BOTH = pytest.mark.parametrize("write", [write_whole, placed])
Writer = Callable[[Path, bytes], None]


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "deeper" / "page.html"
    write_whole(path, "old")
    write_whole(path, "new ü")
    assert path.read_text(encoding="utf-8") == "new ü"
    assert names(path.parent) == ["page.html"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_what_the_umask_leaves(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "whole", "1")
        append_line(tmp_path / "line", b"1\n")
    finally:
        os.umask(before)
    assert [mode(tmp_path / name) for name in ("whole", "line")] == [0o666 & ~umask] * 2


@BOTH
@pytest.mark.parametrize("kept", [0o600, 0o644, 0o755, 0o660])
def test_a_file_keeps_its_mode(tmp_path: Path, write: Writer, kept: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(kept)
    write(path, b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", kept)


@BOTH
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_file_keeps_its_owner(tmp_path: Path, write: Writer) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.chown(path, 12345, 54321)
    path.chmod(0o640)
    write(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid, mode(path)) == (12345, 54321, 0o640)


def test_the_draft_of_a_private_file_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o600)
    seen = []
    monkeypatch.setattr(
        files, "_keep", lambda descriptor, target: seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
    )
    write_whole(path, b"new")
    assert seen == [0o600]


@BOTH
def test_links_are_followed_and_stay(tmp_path: Path, write: Writer) -> None:
    target = tmp_path / "there" / "policy.toml"
    target.parent.mkdir()
    target.write_bytes(b"old")
    (tmp_path / "first").symlink_to("second")
    (tmp_path / "second").symlink_to(target)
    write(tmp_path / "first", b"new")
    assert target.read_bytes() == b"new"
    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert names(target.parent) == ["policy.toml"]
    assert names(tmp_path) == ["first", "second", "there"]


@BOTH
def test_a_link_to_nothing_makes_what_it_names(tmp_path: Path, write: Writer) -> None:
    (tmp_path / "link").symlink_to("deep/file")
    write(tmp_path / "link", b"new")
    assert (tmp_path / "deep" / "file").read_bytes() == b"new"
    assert (tmp_path / "link").is_symlink()


@BOTH
def test_links_in_a_circle_are_refused(tmp_path: Path, write: Writer) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).symlink_to(other)
    with pytest.raises(RecordError, match=r"Too many levels|Symlink loop"):
        write(tmp_path / "a", b"new")


@BOTH
def test_a_device_stays_one(tmp_path: Path, write: Writer) -> None:
    (tmp_path / "null").symlink_to("/dev/null")
    write(tmp_path / "null", b"new")
    append_line(tmp_path / "null", b"line\n")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(RecordError, match="No space left on device"):
        write_whole(Path("/dev/full"), b"new")


@pytest.mark.parametrize("write", [write_whole, placed, append_line])
def test_a_fifo_gets_what_is_written(tmp_path: Path, write: Writer) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()), daemon=True)
    reader.start()
    check_writable(path)
    write(path, b"content\n")
    reader.join(60)
    assert read == [b"content\n"]
    assert stat.S_ISFIFO(path.stat().st_mode)


#: Prints, writes the page "to standard output", and prints again.
PROGRAM = """
import sys
from pathlib import Path
from fluxperf.files import append_line, write_whole
print("before")
write_whole(Path(sys.argv[1]), "page\\n")
append_line(Path(sys.argv[1]), b"line\\n")
print("after")
"""


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("to", ["file", "pipe"])
def test_standard_output_is_written_in_order_wherever_it_goes(tmp_path: Path, name: str, to: str) -> None:
    """A file that standard output is redirected to is neither replaced, nor truncated, nor overwritten."""
    (tmp_path / "link").symlink_to("/dev/stdout")
    command = [sys.executable, "-c", PROGRAM, name]
    if to == "pipe":
        said = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60).stdout
    else:
        with (tmp_path / "out").open("wb") as out:
            out.write(b"begun\n")
            out.flush()
            subprocess.run(command, cwd=tmp_path, check=True, stdout=out, timeout=60)
        begun, _, said = (tmp_path / "out").read_bytes().partition(b"\n")
        assert begun == b"begun"
    assert said == b"before\npage\nline\nafter\n"


@pytest.mark.parametrize("write", [write_whole, placed, append_line, lambda path, _: check_writable(path)])
def test_a_folder_and_a_file_as_folder_are_refused(tmp_path: Path, write: Writer) -> None:
    (tmp_path / "file").write_bytes(b"stays")
    (tmp_path / "folder").mkdir()
    for path, why in (
        (tmp_path / "folder", "Is a directory"),
        (tmp_path / "file" / "x", "Not a directory|File exists"),
        (tmp_path / ("x" * 256), "File name too long"),
    ):
        with pytest.raises(RecordError, match=rf"cannot write .*({why}).*Choose another"):
            write(path, b"new")
    assert (tmp_path / "file").read_bytes() == b"stays"
    assert names(tmp_path / "folder") == []


def test_a_name_with_a_nul_is_refused_and_shown(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"a\\0b: the name holds a NUL character"):
        write_whole(tmp_path / "a\0b", b"new")


def test_the_longest_name_that_there_is(tmp_path: Path) -> None:
    write_whole(tmp_path / ("x" * 255), b"new")
    assert names(tmp_path) == ["x" * 255]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
@pytest.mark.parametrize("write", [write_whole, placed, append_line, lambda path, _: check_writable(path)])
def test_a_file_that_may_not_be_written_is_not_replaced(tmp_path: Path, write: Writer) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o444)
    with pytest.raises(RecordError, match="Permission denied"):
        write(path, b"new")
    assert path.read_bytes() == b"old"


def test_what_may_not_be_written_is_asked_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for root, who may write everything."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda *_: False)
    for write in (write_whole, placed, lambda path, _: check_writable(path)):
        with pytest.raises(RecordError, match="Permission denied"):
            write(path, b"new")
    with pytest.raises(RecordError, match="Permission denied"):
        check_writable(Path("/dev/null"))
    assert path.read_bytes() == b"old"


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@BOTH
@pytest.mark.parametrize("moment", ["open", "fdopen", "fchmod", "fsync", "link", "replace"])
@pytest.mark.parametrize("stop", [KeyboardInterrupt(), FULL], ids=["interrupt", "full"])
def test_what_stops_writing_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Writer, moment: str, stop: BaseException
) -> None:
    path = tmp_path / "out.png"
    path.write_bytes(b"before")
    if write is placed and moment in ("open", "fdopen", "link"):
        pytest.skip("a finished file is moved, not written")

    def fail(*_: object, **__: object) -> None:
        raise stop

    with monkeypatch.context() as patched:
        patched.setattr(files.os, moment, fail)
        with pytest.raises((KeyboardInterrupt, RecordError)) as error:
            write(path, b"after")
    assert path.read_bytes() == b"before"
    assert names(tmp_path) == ["out.png"]
    if isinstance(stop, OSError):
        assert f"cannot write {path}: No space left on device" in str(error.value)


def test_half_of_the_content_is_never_seen(tmp_path: Path) -> None:
    """The file system stops in the middle of writing, as a full disk does."""
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with full_after(100_000), pytest.raises(RecordError, match="File too large"):
        write_whole(path, bytes(200_000))
    assert path.read_bytes() == b"before"
    assert names(tmp_path) == ["file"]


def test_a_finished_file_crosses_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, made, path = os.replace, tmp_path / "made", tmp_path / "deep" / "file"
    made.write_bytes(b"new")

    def replace(source: Path, target: Path) -> None:
        if Path(source) == made:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    place(made, path)
    assert path.read_bytes() == b"new"
    assert (names(tmp_path), names(path.parent)) == (["deep"], ["file"])


def test_file_and_folder_are_on_the_disk_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def replaced(source: Path, target: Path) -> None:
        order.append("replace")
        replace(source, target)

    monkeypatch.setattr(files.os, "fsync", synced)
    monkeypatch.setattr(files.os, "replace", replaced)
    for write, expected in (
        (lambda: write_whole(tmp_path / "a", b"1"), ["file", "replace", "folder"]),
        (lambda: placed(tmp_path / "a", b"2"), ["file", "replace", "folder"]),
        (lambda: append_line(tmp_path / "b", b"1\n"), ["folder", "file"]),
        (lambda: append_line(tmp_path / "b", b"2\n"), ["file"]),
        (lambda: write_whole(tmp_path / "a", b"1", durable=False), ["replace"]),
    ):
        write()
        assert order == expected
        order.clear()


def test_a_file_system_that_cannot_synchronize_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def refuse(number: int) -> Callable[[int], None]:
        def fsync(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(number, os.strerror(number))
            real(descriptor)

        return fsync

    monkeypatch.setattr(files.os, "fsync", refuse(errno.EINVAL))
    write_whole(tmp_path / "file", b"new")
    monkeypatch.setattr(files.os, "fsync", refuse(errno.EIO))
    with pytest.raises(RecordError, match="Input/output error"):
        write_whole(tmp_path / "file", b"newer")


def test_asking_whether_a_file_could_be_written_makes_folders_only(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "out.png")
    check_writable(Path("/dev/null"))
    assert names(tmp_path / "new") == []
    (tmp_path / "there").write_bytes(b"stays")
    check_writable(tmp_path / "there")
    assert (tmp_path / "there").read_bytes() == b"stays"


@pytest.mark.parametrize("had", [None, b"first\n", b"first\ntorn"])
def test_a_line_that_does_not_fit_leaves_nothing(tmp_path: Path, had: bytes | None) -> None:
    """The system writes only a part of it, as a disk that becomes full does."""
    path = tmp_path / "file"
    if had is not None:
        path.write_bytes(had)
    with full_after(5_000), pytest.raises(RecordError, match="File too large"):
        append_line(path, b"x" * 9_000 + b"\n")
    assert (path.read_bytes() if path.exists() else None) == had
