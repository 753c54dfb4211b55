"""Drafts and lock files beside a file that is written: what a process that is killed leaves of them, and how it goes.

A draft has no name before it is whole, where the file system has such files (``O_TMPFILE``), so nothing is left of it.
Other drafts and lock files are locked by the process that they are of, and the next one that writes in their folder
removes those that nobody has locked.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from contextlib import suppress
from functools import cache
from pathlib import Path

#: What a file system answers that has no locks.
_CANNOT_LOCK = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)

#: The same of one that has no files without a name.
_CANNOT_HIDE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)

#: What names of drafts and of lock files begin with, and end in.
_OURS, _DRAFT, _LOCK = ".fluxperf-", ".part", ".lock"


def drafted(folder: Path, mode: int) -> tuple[int, Path]:
    """Descriptor of a new file in a folder, locked as long as it is open; and a name, which it may get by `show` only.

    Args:
        folder: that it will be in.
        mode: of the file, less what the umask takes.

    Raises:
        OSError: none can be made there.
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
        # Before it is locked, another process may take it for one that was left.
        if lock(descriptor) and os.path.exists(name):
            return descriptor, name
        os.close(descriptor)
        name = _new(folder)


def show(descriptor: int, name: Path) -> None:
    """Gives a draft its name, if it has none yet."""
    if not os.fstat(descriptor).st_nlink:
        # Told of a folder, this is linkat(2), which follows the link that stands for the file.
        os.link(_shown(descriptor), name, src_dir_fd=descriptor)


def lock_of(target: Path) -> Path:
    """The file that is locked while another one is changed."""
    return target.with_name(f"{_OURS}{target.name[:50]}{_LOCK}")


def lock(descriptor: int) -> bool:
    """Locks a file until it is closed, unless another process has it; where there are no locks it says that it did."""
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
    """Removes what killed processes left in a folder; once, for it may have many files."""
    with suppress(OSError):
        for left in folder.glob(f"{_OURS}*"):
            if left.suffix in (_DRAFT, _LOCK):
                with suppress(OSError):
                    _remove(left)


def _remove(left: Path) -> None:
    """Removes a file, unless a process has it locked or that cannot be told."""
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
    """Where the system shows a file that may have no name."""
    return f"/proc/self/fd/{descriptor}"
