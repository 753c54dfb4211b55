"""Files that are replaced whole: a reader sees the old content or the new one, never half of either."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from fluxperf.errors import RecordError


def write_whole(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Writes a file beside its place, synchronizes it to the disk, and moves it there; nothing half-written is left.

    Args:
        path: of the file; folders above it are made.
        content: text is written as UTF-8.
        durable: wait until the disk has it. Without, a crash of the machine may lose it; a reader never sees half.

    Raises:
        RecordError: the file cannot be written.
    """
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            beside = Path(file.name)
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        beside.chmod(mode)
        beside.replace(path)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror}. Expected a place that can be written to.") from error
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Complains now, rather than after long work, if a file could not be written.

    Args:
        path: of a file that is to be; folders above it are made.

    Raises:
        RecordError: its folder cannot be made or written to, or it is a folder itself.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix="."):
            pass
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror}. Expected a place that can be written to.") from error
