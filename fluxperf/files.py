"""The one writer of files: what is written whole is never seen half, what is appended is never mixed with a torn line.

Links are followed: the file at their end is written, and they stay links. What is no regular file (a device, a pipe,
a FIFO) and what names an open descriptor, such as ``/dev/stdout``, is written into as it is, for nothing may be put in
its place. A file that was there keeps its mode and, where that is permitted, its owner; a new one gets what the umask
leaves.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from fluxperf.errors import RecordError

#: Folder of the descriptors of a process, behind all links.
_DESCRIPTORS = re.compile(r"/proc/(\d+)(?:/task/\d+)?/fd")

#: Links that are followed before they are called a loop, as the kernel does.
_MOST_LINKS = 40

#: What a file system answers that cannot synchronize a folder; it has then done all that it can.
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP)

Write = Callable[[IO[bytes]], object]


def write_whole(path: Path, content: str | bytes | Iterable[bytes], durable: bool = True) -> None:
    """Writes a file beside its place, synchronizes it to the disk, and moves it there; nothing half-written is left.

    Args:
        path: of the file; folders above it are made.
        content: text is written as UTF-8; of a large one its parts, as they are made.
        durable: wait until the disk has the file and its folder. Without, a crash of the machine may lose it; a reader
            never sees half.

    Raises:
        RecordError: the file cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    parts = [data] if isinstance(data, bytes) else data
    with _complaining(path):
        if _is_special(path):
            _write_into(path, lambda file: file.writelines(parts))
        else:
            _write_beside(path, lambda file: file.writelines(parts), durable)


def place(made: Path, path: Path) -> None:
    """Moves a finished file to its place, as `write_whole` would have written it there; ``made`` is gone then.

    Raises:
        RecordError: the place cannot be written to; ``made`` stays.
    """
    with _complaining(path), made.open("rb") as source:
        if _is_special(path):
            _write_into(path, lambda file: shutil.copyfileobj(source, file))
        else:
            target = _target(path)
            _keep(source.fileno(), target)
            os.fsync(source.fileno())
            try:
                os.replace(made, target)
                _sync_folder(target.parent)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                _write_beside(path, lambda file: shutil.copyfileobj(source, file), durable=True)
    made.unlink(missing_ok=True)


def append_line(path: Path, line: bytes) -> None:
    """Appends a line, and returns when it is on the disk. A torn last line is closed first, so it spoils only itself.

    Args:
        path: of the file; folders above it are made.
        line: with its line feed.

    Raises:
        RecordError: the file cannot be written.
    """
    with _complaining(path):
        if _is_special(path):
            _write_into(path, lambda file: file.write(line))
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        with path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if new:
            _sync_folder(Path(os.path.realpath(path)).parent)


def check_writable(path: Path) -> None:
    """Complains now, rather than after long work, if a file could not be written. Nothing but folders is made.

    Args:
        path: of a file that is to be; folders above it are made.

    Raises:
        RecordError: its folder cannot be made or written to, it is a folder itself, or may not be written.
    """
    with _complaining(path):
        if _is_special(path):
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        target = _target(path)
        beside = _beside(target)
        os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.unlink(beside)


@contextmanager
def _complaining(path: Path) -> Iterator[None]:
    """What the operating system refuses becomes a sentence that says which file, why, and what to do."""
    try:
        if "\0" in str(path):
            raise OSError(errno.EINVAL, "the name holds a NUL character")
        yield
    except OSError as error:
        named = str(path).replace("\0", "\\0")
        raise RecordError(
            f"cannot write {named}: {error.strerror or error}. Expected a file in a folder that can be written to; "
            "name another."
        ) from error


def _is_special(path: Path) -> bool:
    """Whether a path leads to an open descriptor or to what is there and no regular file.

    Raises:
        OSError: it leads to a folder, or nowhere.
    """
    if _descriptor(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return not stat.S_ISREG(mode)


def _descriptor(path: Path) -> tuple[int, int] | None:
    """Process and number of the open descriptor that a path leads to, by links such as ``/dev/stdout``."""
    for _ in range(_MOST_LINKS):
        found = _DESCRIPTORS.fullmatch(os.path.realpath(path.parent)) if path.name.isdigit() else None
        if found:
            return int(found[1]), int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / os.readlink(path)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _write_into(path: Path, write: Write) -> None:
    """Writes where something is that stays: behind what it holds, if it is a descriptor of this process."""
    process, number = _descriptor(path) or (0, 0)
    if process != os.getpid():
        with path.open("wb") as file:
            write(file)
        return
    if number == 1:
        sys.stdout.flush()
    with open(number, "wb", closefd=False) as file:
        write(file)


def _target(path: Path) -> Path:
    """Where the links of a path end; folders above it are made.

    Raises:
        OSError: what is there may not be written, although its folder may.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return target


def _beside(target: Path) -> Path:
    return target.with_name(f".{secrets.token_hex(8)}.part")


def _write_beside(path: Path, write: Write, durable: bool) -> None:
    target = _target(path)
    beside = _beside(target)
    # Nobody else reads the draft of a file that had a mode of its own; that of a new file has what the umask leaves.
    mode = 0o600 if target.exists() else 0o666
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            _keep(descriptor, target)
            if durable:
                os.fsync(descriptor)
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if durable:
        _sync_folder(target.parent)


def _keep(descriptor: int, target: Path) -> None:
    """Gives a draft the owner and mode of the file whose place it takes; where there is none, what the umask leaves."""
    try:
        old = target.stat()
    except FileNotFoundError:
        return
    # Not everybody may give files away, and not every file system has owners and modes.
    with suppress(PermissionError):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    with suppress(PermissionError):
        os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # A folder that may be written and not read: nobody can ask for it.
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)
