"""The one writer of files: what is written whole is never seen half, what is appended is never mixed with a torn line.

Links are followed: the file at their end is written, and they stay links. What is no regular file (a device, a pipe,
a FIFO) and what names an open descriptor, such as ``/dev/stdout``, is written into as it is, for nothing may be put in
its place. A file that was there keeps its mode and, where that is permitted, its owner; a new one gets what the umask
leaves. Who reads a file, changes it and writes it does so within `locked`, as appending does by itself.

A draft has no name before it is whole, where the file system has such files (``O_TMPFILE``), so that a process that is
killed leaves nothing. What it leaves elsewhere, and its lock files, are removed by the next one that writes there.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import msgspec

from fluxperf.drafts import clear, drafted, lock, lock_of, show
from fluxperf.errors import RecordError

#: Folder of the descriptors of a process, after following all links.
_DESCRIPTORS = re.compile(r"/proc/(\d+)(?:/task/\d+)?/fd")

#: Maximum number of links before they count as a loop, as in the kernel.
_MOST_LINKS = 40

#: Errors of a file system that cannot synchronize a folder. Nothing more can be done then.
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP)

#: Seconds to wait for a file that another process holds, and between two tries.
PATIENCE_S = 20.0
_AGAIN_S = 0.005

Write = Callable[[IO[bytes]], object]


def write_whole(path: Path, content: str | bytes | Iterable[bytes], durable: bool = True) -> None:
    """Writes a draft beside a file, synchronizes it to the disk, and moves it to the path; no partial file is left.

    Args:
        path: of the file; parent folders are created.
        content: text is written as UTF-8, with escapes for parts that are not characters; large content can be given in
            parts, as they are made.
        durable: wait until the file and its folder are on the disk. Otherwise a crash of the machine may lose the file;
            readers never see a part of it.

    Raises:
        RecordError: the file cannot be written.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    parts = [data] if isinstance(data, bytes) else data
    with _complaining(path):
        if _is_special(path):
            _write_into(path, lambda file: file.writelines(parts))
        else:
            _write_beside(path, lambda file: file.writelines(parts), durable)


def place(made: Path, path: Path) -> None:
    """Moves a finished file to its path, in the way of `write_whole`; ``made`` is gone afterwards.

    Raises:
        RecordError: the path cannot be written to; ``made`` remains.
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
    """Appends a line, and returns when it is on the disk.

    An incomplete JSON object at the end, left by a killed process, is replaced. Any other last line without a line feed
    gets one.

    Args:
        path: of the file; parent folders are created.
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
        descriptor = _hold(path, path, PATIENCE_S)
        with open(descriptor, "rb+", buffering=0) as file:
            try:
                if new:  # first: a caller that gets the error may write the line elsewhere
                    _sync_folder(Path(os.path.realpath(path)).parent)
                _append(file, line)
            except BaseException:
                if new and not os.fstat(descriptor).st_size:
                    path.unlink(missing_ok=True)
                raise


def _append(file: IO[bytes], line: bytes) -> None:
    """Appends to a file that no other process writes at the same time: the whole line, or nothing."""
    end, before = _end(file)
    line = before + line
    try:
        rest = memoryview(line)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except BaseException:
        os.ftruncate(file.fileno(), end)
        raise


def _end(file: IO[bytes]) -> tuple[int, bytes]:
    """Where a new line starts in a file, and the text before it; an incomplete object is cut off."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(end - 1, 0))
    if file.read(1) in (b"", b"\n"):
        return end, b""
    file.seek(0)
    last = file.read().rpartition(b"\n")[2]
    try:
        msgspec.json.decode(last)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if last.startswith(b"{") and "truncated" in str(error):
            end -= len(last)
            file.truncate(end)
            file.seek(end)
            return end, b""
    return end, b"\n"


@contextmanager
def locked(path: Path, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Prevents other processes and threads from using a file while it is read, changed and written.

    It is a lock of the operating system, on a file beside it that is removed afterwards. A killed process leaves that
    file, but not the lock. If nothing is replaced (a device, a pipe) nothing is locked.

    Args:
        path: of the file; parent folders are created.
        patience_s: how long to wait for others.

    Raises:
        RecordError: another process holds it for all that time, or nothing can be written beside it.
    """
    with _complaining(path):
        if _is_special(path):
            beside = None
        else:
            beside = lock_of(_target(path))
            clear(beside.parent)
        held = None if beside is None else _hold(beside, path, patience_s)
    try:
        yield
    finally:
        if beside is not None and held is not None:
            beside.unlink(missing_ok=True)
            os.close(held)


def _hold(file: Path, path: Path, patience_s: float) -> int:
    """Descriptor of a file, locked for this process: of the one that has its name then, made where there is none."""
    until = time.monotonic() + patience_s
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if lock(descriptor):
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), file.stat()):
                        return descriptor
            elif time.monotonic() > until:
                raise RecordError(
                    f"cannot change {path}: expected no other process to change it, but one holds {file} (waited "
                    f"{patience_s:g} s). Wait until it ends, or end it."
                )
            else:
                time.sleep(_AGAIN_S)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def beginning(name: str, most: int = 150) -> str:
    """The beginning of a name, for use in another name: file systems allow at most 255 bytes.

    Args:
        name: of a file.
        most: bytes to keep; its suffix is kept.
    """
    end = os.path.splitext(name)[1][-20:]
    head = os.fsencode(name.removesuffix(end))[: max(0, most - len(os.fsencode(end)))]
    return head.decode("utf-8", "ignore") + end


def check_writable(path: Path, *, appended: bool = False) -> None:
    """Checks, before long work starts, that a file can be written. Creates only folders.

    Args:
        path: of the future file; parent folders are created.
        appended: existing content is not replaced, so its folder need not be writable.

    Raises:
        RecordError: its folder cannot be created or written to, it is a folder itself, or must not be written.
    """
    with _complaining(path):
        if _is_special(path):
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        target = _target(path)
        if appended and target.exists():
            return
        descriptor, beside = drafted(target.parent, 0o600)
        os.close(descriptor)
        beside.unlink(missing_ok=True)


@contextmanager
def _complaining(path: Path) -> Iterator[None]:
    """Converts an error of the operating system into a sentence: which file, why, and what to do."""
    try:
        if "\0" in str(path):
            raise OSError(errno.EINVAL, "the name holds a NUL character")
        yield
    except OSError as error:
        named = str(path).replace("\0", "\\0")
        raise RecordError(
            f"cannot write {named}: {error.strerror or error}. Expected a file in a writable folder. Choose another."
        ) from error


def _is_special(path: Path) -> bool:
    """Whether a path leads to an open descriptor or to an existing file that is not a regular one.

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
    """Writes into an existing special file: after its content, if it is a descriptor of this process."""
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
    """The final target of a path's links; parent folders are created.

    Raises:
        OSError: the target must not be written, although its folder may.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return target


def _write_beside(path: Path, write: Write, durable: bool) -> None:
    target = _target(path)
    # Nobody else may read the draft of a file with its own mode. The draft of a new file has the default mode.
    descriptor, beside = drafted(target.parent, 0o600 if target.exists() else 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            _keep(descriptor, target)
            if durable:
                os.fsync(descriptor)
            show(descriptor, beside)
            os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if durable:
        _sync_folder(target.parent)


def _keep(descriptor: int, target: Path) -> None:
    """Gives a draft the owner and mode of the file that it replaces; of a new file, the default mode."""
    try:
        old = target.stat()
    except FileNotFoundError:
        return
    # Not every user may change owners, and not every file system has owners and modes.
    with suppress(PermissionError):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    with suppress(PermissionError):
        os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # in a folder that is writable but not readable this cannot be checked
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)
