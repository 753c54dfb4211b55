"""Files that a process leaves for the next: machine code, and choices of algorithms. All are safe to delete."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fluxperf.errors import RecordError
from fluxperf.files import locked, write_whole

#: What a file starts with: a digest of the rest in hexadecimal, then a line feed.
_HEAD = 65


#: What is kept, each kind in a folder of its own.
KINDS = ("kernels", "choices")


def cache_root() -> Path:
    """``$FLUXPERF_CACHE``, else ``$XDG_CACHE_HOME/fluxperf``, else ``~/.cache/fluxperf``."""
    own = os.environ.get("FLUXPERF_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fluxperf"


def cache_folder(kind: str) -> Path:
    """Folder of a kind below `cache_root`."""
    return cache_root() / kind


def held(kind: str) -> tuple[int, int]:
    """Files of a kind, and their bytes; what vanishes while it is counted is left out."""
    number = size = 0
    for path in cache_folder(kind).rglob("*"):
        with suppress(OSError):
            if path.is_file():
                number, size = number + 1, size + path.stat().st_size
    return number, size


def writable(folder: Path | None = None) -> bool:
    """Whether files can be left below a folder, `cache_root` unless given; what has to be made for it is not yet."""
    place = (folder or cache_root()).absolute()
    there = next(path for path in (place, *place.parents) if os.path.exists(path))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def let_cupy_import() -> None:
    """Before CuPy is imported: it makes a folder for a cache of its own then, and fails where that cannot be.

    It is then shown a folder that is there, and told to write nothing.
    """
    if not writable(Path(os.environ.get("CUPY_CACHE_DIR") or os.path.expanduser("~/.cupy/kernel_cache"))):
        os.environ |= {"CUPY_CACHE_IN_MEMORY": "1", "CUPY_CACHE_DIR": tempfile.gettempdir()}


def recall(path: Path) -> bytes | None:
    """The document that `remember` wrote, or ``None`` if there is none or it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    head, rest = content[:_HEAD], content[_HEAD:]
    return rest if head == _digest_line(rest) else None


def remember(path: Path, content: bytes) -> None:
    """Writes content behind its digest, so that no reader takes half of it; goes without where it cannot write."""
    with suppress(RecordError):
        write_whole(path, _digest_line(content) + content, durable=False)


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Keeps other processes from a file while it is recalled, changed and remembered; goes without where it cannot."""
    with ExitStack() as kept:
        with suppress(RecordError):
            kept.enter_context(locked(path))
        yield


def _digest_line(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n"
