"""Cache files that a process leaves for the next one: machine code and choices of algorithms. They may be deleted."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fluxperf.errors import RecordError
from fluxperf.files import locked, write_whole

#: The first bytes of each file: the SHA-256 digest of the rest in hexadecimal, then a line feed.
_HEAD = 65


#: Kinds of cache files. Each kind has a folder of its own.
KINDS = ("kernels", "choices")


def cache_root() -> Path:
    """``$FLUXPERF_CACHE``, else ``$XDG_CACHE_HOME/fluxperf``, else ``~/.cache/fluxperf``."""
    own = os.environ.get("FLUXPERF_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fluxperf"


def cache_folder(kind: str) -> Path:
    """Folder of one kind of cache files, below `cache_root`."""
    return cache_root() / kind


def held(kind: str) -> tuple[int, int]:
    """Number of cache files of one kind, and their bytes. A file that disappears during the count is left out."""
    number = size = 0
    for path in cache_folder(kind).rglob("*"):
        with suppress(OSError):
            if path.is_file():
                number, size = number + 1, size + path.stat().st_size
    return number, size


def writable(folder: Path | None = None) -> bool:
    """Whether files can be written below a folder.

    The folder need not exist yet, and this function does not create it.

    Args:
        folder: `cache_root` unless given.
    """
    place = (folder or cache_root()).absolute()
    there = next(path for path in (place, *place.parents) if os.path.exists(path))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def let_cupy_import() -> None:
    """Prepares the environment so that CuPy can be imported where its cache folder cannot be created.

    CuPy creates a cache folder when it is imported, and the import fails where that is impossible. In that case this
    function points CuPy to a folder that exists and turns its cache off. Call it before CuPy is imported.
    """
    if not writable(Path(os.environ.get("CUPY_CACHE_DIR") or os.path.expanduser("~/.cupy/kernel_cache"))):
        os.environ |= {"CUPY_CACHE_IN_MEMORY": "1", "CUPY_CACHE_DIR": tempfile.gettempdir()}


def recall(path: Path) -> bytes | None:
    """Content that `remember` wrote; ``None`` if there is no such file or its digest does not match."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    head, rest = content[:_HEAD], content[_HEAD:]
    return rest if head == _digest_line(rest) else None


def remember(path: Path, content: bytes) -> None:
    """Writes content to a file, after its digest, so that a reader detects an incomplete file.

    Does nothing where the file cannot be written.
    """
    with suppress(RecordError):
        write_whole(path, _digest_line(content) + content, durable=False)


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Locks a file against other processes while it is read, changed and written.

    Runs without a lock where none can be taken.
    """
    with ExitStack() as kept:
        with suppress(RecordError):
            kept.enter_context(locked(path))
        yield


def _digest_line(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n"
