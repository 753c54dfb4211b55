"""Places of files: resolves file names, folders, patterns and URLs, and reads the files.

A URL is anything that fsspec opens (``s3://``, ``gs://``, ``https://``, ``memory://``, chains such as
``filecache::s3://``). fsspec and the packages for a protocol are imported only for URLs.
"""

from __future__ import annotations

import errno
import glob
import io
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fluxperf.errors import RecordError
from fluxperf.words import first_few

Place = str | os.PathLike[str]
T = TypeVar("T")

_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*::)*[a-zA-Z][a-zA-Z0-9+.-]+://")

#: Files of a URL that are fetched at once, if its protocol supports it; otherwise one is fetched while another is read.
_AT_ONCE = 32


class File(NamedTuple):
    """One file: its name, and the fsspec file system that has it; ``None`` for this machine."""

    name: str
    system: Any = None
    path: str = ""


class Unread(NamedTuple):
    """A file of a folder, a pattern or a URL that could not be used, with the reason."""

    name: str
    problem: str


def is_url(place: Place) -> bool:
    """Whether fsspec knows the place, and this machine's file system does not."""
    return _URL.match(os.fspath(place)) is not None


def system_of(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it.

    Raises:
        RecordError: fsspec, or a package for this protocol, is not installed, or the protocol is unknown.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise RecordError(
            f"{url}: expected the package fsspec, which opens URLs, but it is not installed. `pip install fsspec`, "
            "or name files and folders of this machine."
        ) from error
    try:
        system, path = url_to_fs(url)
    except ImportError as error:
        raise RecordError(
            f"{url}: expected the packages for this protocol, but one is missing: {error}. Install it, or name "
            "files and folders of this machine."
        ) from error
    except Exception as error:  # every protocol has its own errors
        raise RecordError(f"{url}: expected a URL that fsspec opens: {said_by(error)}.") from error
    return system, path


def standing_for(place: Place, suffixes: Sequence[str]) -> tuple[list[File], bool]:
    """The files at a place, and whether the place is itself the name of a file.

    Args:
        place: a file, a folder (whose files with these suffixes count, at any depth), a pattern (``*``, ``**``, ``?``;
            of files and folders), or the URL of one of these.
        suffixes: of files that count.

    Raises:
        RecordError: a URL that cannot be used.
    """
    name = os.fspath(place)
    if is_url(name):
        return _of_url(name, tuple(suffixes))
    path = Path(name)
    try:
        if path.is_dir():
            return _below(path, suffixes), False
        if not path.exists() and glob.has_magic(name):
            return list(dict.fromkeys(_of_pattern(name, suffixes))), False
    except (OSError, ValueError):
        pass  # not a valid name; opening it reports why
    return [File(name)], True


def _below(folder: Path, suffixes: Sequence[str]) -> list[File]:
    found = [path for suffix in suffixes for path in sorted(folder.rglob(f"*{suffix}"))]
    # A pipe that lies there would be waited for; one that is named is read.
    return [File(str(path)) for path in found if not path.is_fifo()]


def _of_pattern(pattern: str, suffixes: Sequence[str]) -> Iterator[File]:
    for found in sorted(glob.glob(pattern, recursive=True)):
        if os.path.isdir(found):
            yield from _below(Path(found), suffixes)
        elif found.endswith(tuple(suffixes)):
            yield File(found)


def _of_url(url: str, suffixes: tuple[str, ...]) -> tuple[list[File], bool]:
    system, path = system_of(url)
    try:
        if glob.has_magic(path):
            paths = [
                one for found in system.glob(path) for one in (system.find(found) if system.isdir(found) else [found])
            ]
        elif not path.endswith(suffixes) and system.isdir(path):
            paths = system.find(path)
        else:
            return [File(url, system, path)], True
    except Exception as error:  # every protocol has its own errors
        raise RecordError(f"cannot list {url}: {said_by(error)}. Expected files to read below it.") from error
    kept = dict.fromkeys(one for one in sorted(paths) if one.endswith(suffixes))
    return [File(system.unstrip_protocol(one), system, one) for one in kept], False


def opened(files: Iterable[File]) -> Iterator[tuple[File, Iterator[bytes]]]:
    """Each file with its lines. Files of URLs are fetched in parallel, ahead of reading.

    Unreadable files raise `OSError` when their lines are requested.
    """
    waiting: deque[tuple[File, Future[bytes]]] = deque()
    pool: ThreadPoolExecutor | None = None
    try:
        for file in files:
            if file.system is None:
                yield file, _lines(file.name)
                continue
            together = _AT_ONCE if getattr(file.system, "async_impl", False) else 1
            pool = pool or ThreadPoolExecutor(together)
            waiting.append((file, pool.submit(file.system.cat_file, file.path)))
            if len(waiting) > 2 * together:
                yield _fetched(*waiting.popleft())
        while waiting:
            yield _fetched(*waiting.popleft())
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)


def _lines(name: str) -> Iterator[bytes]:
    if "\0" in name:
        raise OSError(errno.EINVAL, "the name holds a NUL character")
    with open(name, "rb") as file:
        yield from file


def _fetched(file: File, content: Future[bytes]) -> tuple[File, Iterator[bytes]]:
    def lines() -> Iterator[bytes]:
        try:
            data = content.result()
        except Exception as error:  # every protocol has its own errors
            raise OSError(0, said_by(error)) from error
        yield from io.BytesIO(data)

    return file, lines()


def line_at(file: File, start: int, length: int) -> bytes:
    """A line of a file that was read before.

    Args:
        file: as given by `visit`.
        start: the line's first byte.
        length: its bytes.

    Raises:
        OSError: it cannot be read any more.
    """
    if file.system is None:
        with open(file.name, "rb") as found:
            found.seek(start)
            return found.read(length)
    try:
        return bytes(file.system.cat_file(file.path, start=start, end=start + length))
    except Exception as error:  # every protocol has its own errors
        raise OSError(0, said_by(error)) from error


def said_by(error: Exception) -> str:
    """The message of a library's error, in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def visit(
    places: Iterable[Place], suffixes: Sequence[str], use: Callable[[File, Iterator[bytes]], T], wanted: str
) -> Iterator[T | Unread]:
    """Applies a function to every file at some places, in order. Unusable files of a folder come last.

    Args:
        places: as for `standing_for`.
        suffixes: of files that count in a folder.
        use: makes a result from a file and its lines.
        wanted: a sentence with the expected kind of file, and how to make it.

    Raises:
        RecordError: a named file cannot be read or used, or a folder contains no file that can.
    """
    for place in places:
        files, named = standing_for(place, suffixes)
        unread: list[Unread] = []
        used = 0
        for file, lines in opened(files):
            try:
                found = use(file, lines)
            except (OSError, RecordError) as error:
                said = str(error)
                if isinstance(error, OSError):
                    said = f"cannot read records from {file.name}: {error.strerror or error}. {wanted}"
                if named:
                    raise RecordError(said) from error
                unread.append(Unread(file.name, said))
            else:
                used += 1
                yield found
        if not used:
            said = " ".join(first_few([one.problem for one in unread], "file"))
            nothing = f"there is no {' or '.join(suffixes)} file below {os.fspath(place)!r}."
            raise RecordError(f"nothing could be read: {said or nothing} {wanted}")
        yield from unread


def digest_of(line: bytes) -> bytes:
    """SHA-256 of a line, in 32 bytes: lines with equal digests are equal."""
    return sha256(line.strip()).digest()
