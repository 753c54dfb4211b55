"""Files that a process leaves for the next: machine code, and choices of algorithms. All are safe to delete."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

#: What a file starts with: a digest of the rest in hexadecimal, then a line feed.
_HEAD = 65


def cache_folder(kind: str) -> Path:
    """``$FLUXPERF_CACHE/kind``, else ``$XDG_CACHE_HOME/fluxperf/kind``, else ``~/.cache/fluxperf/kind``."""
    own = os.environ.get("FLUXPERF_CACHE")
    if own:
        return Path(own) / kind
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fluxperf" / kind


def read_whole(path: Path) -> bytes | None:
    """What `write_whole` wrote, or ``None`` if there is nothing or it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    head, rest = content[:_HEAD], content[_HEAD:]
    return rest if head == _digest_line(rest) else None


def write_whole(path: Path, content: bytes) -> None:
    """Writes beside the path and renames, so that no reader sees half a file; goes without where it cannot write."""
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_digest_line(content) + content)
        os.replace(temporary, path)
    except OSError:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def _digest_line(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n"
