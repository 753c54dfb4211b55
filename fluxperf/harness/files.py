"""Files that are replaced whole: a reader sees the old content or the new one, never half of either."""

from __future__ import annotations

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
