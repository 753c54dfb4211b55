"""Rescue of what took long to make and its file does not take, such as on a full disk; not a command."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from fluxperf.errors import RecordError
from fluxperf.files import beginning


def write_or_rescue(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file that took long to make: where its place does not take it, elsewhere.

    Args:
        path: of the file.
        write: writes it, given a path.

    Raises:
        RecordError: its place did not take it; says where it is.
    """
    try:
        write(path)
    except RecordError as error:
        where = rescued(path, write)
        said = f"What it did not take is {where}." if where else "No other place took it either: it is lost."
        raise RecordError(f"{error} {said}") from error


def rescued(path: Path, write: Callable[[Path], object]) -> str:
    """Writes elsewhere what a file did not take, and returns where, in words; nothing if that cannot be either."""
    try:
        elsewhere = Path(tempfile.gettempdir()) / f"fluxperf-rescued-{os.getpid()}-{beginning(path.name)}"
        write(elsewhere)
    except (RecordError, OSError):  # there may be no folder for temporary files
        return ""
    return f"in {elsewhere}"
