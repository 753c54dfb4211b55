"""Saves a file elsewhere if it took long to make and its path cannot be written, as on a full disk; not a command."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from fluxperf.errors import RecordError
from fluxperf.files import beginning


def write_or_rescue(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file that took long to make. If its path cannot be written, writes it elsewhere.

    Args:
        path: path of the file.
        write: writes the file to a given path.

    Raises:
        RecordError: the path could not be written; the message says where the file is instead.
    """
    try:
        write(path)
    except RecordError as error:
        where = rescued(path, write)
        said = f"The content is saved {where}." if where else "It could not be saved elsewhere either, and is lost."
        raise RecordError(f"{error} {said}") from error


def rescued(path: Path, write: Callable[[Path], object]) -> str:
    """Writes a file to the temporary folder. Returns the place as text, or nothing if that failed too."""
    try:
        elsewhere = Path(tempfile.gettempdir()) / f"fluxperf-rescued-{os.getpid()}-{beginning(path.name)}"
        write(elsewhere)
    except (RecordError, OSError):  # the temporary folder may be missing or full
        return ""
    return f"in {elsewhere}"
