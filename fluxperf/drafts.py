"""Drafts and lock files beside a file that is written, and the removal of those that killed processes left behind.

If the file system supports it (``O_TMPFILE``), a draft has no name before it is complete, so nothing is left of it.
Other drafts and lock files are locked by their process. The next process that writes in their folder removes those
without a lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from contextlib import suppress
from functools import cache
from pathlib import Path

#: Errors of a file system without locks.
_CANNOT_LOCK = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)

#: Errors of a file system without unnamed files.
_CANNOT_HIDE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)

#: Prefix and suffixes of drafts and lock files.
_OURS, _DRAFT, _LOCK = ".fluxperf-", ".part", ".lock"


def drafted(folder: Path, mode: int) -> tuple[int, Path]:
    """Descriptor of a new file in a folder, locked while it is open; and a name, which it may get only by `show`.

    Args:
        folder: folder of the file.
        mode: of the file, minus the umask.

    Raises:
        OSError: no file can be created there.
    """
    clear(folder)
    name = _new(folder)
    if hidden := getattr(os, "O_TMPFILE", 0):
        try:
            descriptor = os.open(folder, os.O_WRONLY | os.O_CLOEXEC | hidden, mode)
        except OSError as error:
            if error.errno not in _CANNOT_HIDE:
                raise
        else:
            if os.path.exists(_shown(descriptor)):
                lock(descriptor)
                return descriptor, name
            os.close(descriptor)
    while True:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        # before it is locked, another process may take it for an abandoned one
        if lock(descriptor) and os.path.exists(name):
            return descriptor, name
        os.close(descriptor)
        name = _new(folder)


def show(descriptor: int, name: Path) -> None:
    """Gives a draft its name, if it has none yet."""
    if not os.fstat(descriptor).st_nlink:
        # with a folder, this is linkat(2), which follows the link that represents the file
        os.link(_shown(descriptor), name, src_dir_fd=descriptor)


def lock_of(target: Path) -> Path:
    """The lock file for a file that is changed."""
    return target.with_name(f"{_OURS}{target.name[:50]}{_LOCK}")


def lock(descriptor: int) -> bool:
    """Locks a file until it is closed, unless another process holds it. Without lock support it reports success."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _CANNOT_LOCK:
            raise
    return True


@cache
def clear(folder: Path) -> None:
    """Removes files that killed processes left in a folder; only once, as it may contain many files."""
    with suppress(OSError):
        for left in folder.glob(f"{_OURS}*"):
            if left.suffix in (_DRAFT, _LOCK):
                with suppress(OSError):
                    _remove(left)


def _remove(left: Path) -> None:
    """Removes a file, unless a process holds its lock or this cannot be determined."""
    descriptor = os.open(left, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), left.lstat()):
            left.unlink()
    finally:
        os.close(descriptor)


def _new(folder: Path) -> Path:
    return folder / f"{_OURS}{secrets.token_hex(8)}{_DRAFT}"


def _shown(descriptor: int) -> str:
    """The path at which the system shows a file that may have no name."""
    return f"/proc/self/fd/{descriptor}"
